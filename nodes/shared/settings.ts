/** What an administrator sets in settings.js, under `multidiffusion`. */
import os from 'node:os';
import path from 'node:path';
import type { NodeAPI } from 'node-red';
import { InvalidInputError, MultiDiffusionError } from '../../engine/errors';
import type { PictureLimits } from '../../engine/image/source';
import type { JobQueueOptions } from '../../engine/queue/queue';
import { MAX_REGIONS } from '../../engine/limits';
import { resolveOptions, SAMPLER_OPTIONS, type OptionSpec } from '../../engine/options';
import { isObject } from './message';

const LIMITS = {
  /** Characters of a prompt. */
  maxPromptLength: { type: 'integer', min: 1, max: 10_000_000, default: 20_000 },
  /** Regions of one picture. */
  maxRegions: { type: 'integer', min: 1, max: MAX_REGIONS, default: 64 },
  /** Characters of a layout that comes as text. */
  maxLayoutLength: { type: 'integer', min: 1000, max: 2 ** 28, default: 5 * 2 ** 20 },
  /** Corners of all polygons of one picture. */
  maxCorners: { type: 'integer', min: 3, max: 10_000_000, default: 10_000 },
  /** Pixels of a canvas. */
  maxCanvasPixels: { type: 'integer', min: 256, max: 2 ** 28, default: 4096 * 4096 },
  /** Pixels of a canvas times its regions, of which each has weights for all of it. */
  maxRegionPixels: { type: 'integer', min: 256, max: 2 ** 40, default: 2 ** 28 },
  maxSteps: { type: 'integer', min: 1, max: SAMPLER_OPTIONS.steps.max, default: SAMPLER_OPTIONS.steps.max },
  /** Pixels and bytes of a picture or mask image that comes in, counted before it is decoded. */
  maxMaskPixels: { type: 'integer', min: 1, max: 2 ** 28, default: 8192 * 8192 },
  maxMaskBytes: { type: 'integer', min: 1, max: 2 ** 30, default: 128 * 1024 * 1024 },
} as const satisfies Record<string, OptionSpec>;

const QUEUE = {
  /** Jobs of one model that wait for their turn. */
  queueLimit: { type: 'integer', min: 0, max: 100_000, default: 32 },
  /** What a full queue does with one more. */
  queueOverflow: { type: 'choice', choices: ['refuse', 'replace-newest', 'replace-oldest'], default: 'refuse' },
  /** Jobs that one client has waiting or running. */
  maxJobsPerClient: { type: 'integer', min: 1, max: 100_000, default: 16 },
  /** Messages that wait in one node, those in the queue of jobs not counted. */
  maxWaitingMessages: { type: 'integer', min: 1, max: 100_000, default: 256 },
  /** Seconds that a job may run; 0: as long as it takes. */
  jobTimeout: { type: 'number', min: 0, max: 2_000_000, default: 3600 },
  /** Seconds that the inference process may work without completing a run or a request; 0: as long as it takes. */
  requestTimeout: { type: 'number', min: 0, max: 2_000_000, default: 1800 },
} as const satisfies Record<string, OptionSpec>;

export interface Settings {
  /** Every saved image lies below this directory. */
  imageDirectory: string;
  /** Mask images named by file lie below this directory. */
  maskDirectory: string;
  /** Downloaded models lie below this directory. */
  modelDirectory: string;
  /** Where repositories are downloaded from; default: HF_ENDPOINT, or Hugging Face's own. */
  hubEndpoint: string | undefined;
  /** Folders with the libraries that CUDA needs, separated as in PATH. */
  libraryPath: string | undefined;
  limits: { [K in keyof typeof LIMITS]: number };
  queue: JobQueueOptions;
  maxWaitingMessages: number;
  /** Milliseconds that a job may run. */
  jobTimeout: number | undefined;
  /** Milliseconds that the inference process may work without completing anything. */
  requestTimeout: number | undefined;
}

/** @throws InvalidInputError when settings.js holds a value that isn't allowed */
export function readSettings(RED: NodeAPI): Settings {
  const all = RED.settings as unknown as { userDir?: string; multidiffusion?: unknown };
  const own = isObject(all.multidiffusion) ? all.multidiffusion : {};
  const home = path.join(all.userDir ?? path.join(os.homedir(), '.node-red'), 'multidiffusion');
  const { queueLimit, queueOverflow, maxJobsPerClient, maxWaitingMessages, jobTimeout, requestTimeout } =
    resolveOptions(QUEUE, own);
  return {
    imageDirectory: directory(own, 'imageDirectory', path.join(home, 'images')),
    maskDirectory: directory(own, 'maskDirectory', path.join(home, 'masks')),
    modelDirectory: directory(own, 'modelDirectory', path.join(home, 'models')),
    hubEndpoint: text(own, 'hubEndpoint') ?? (process.env.HF_ENDPOINT || undefined),
    libraryPath: text(own, 'libraryPath'),
    limits: resolveOptions(LIMITS, own),
    queue: { limit: queueLimit, overflow: queueOverflow, perClient: maxJobsPerClient },
    maxWaitingMessages,
    jobTimeout: jobTimeout ? jobTimeout * 1000 : undefined,
    requestTimeout: requestTimeout ? requestTimeout * 1000 : undefined,
  };
}

function directory(settings: Record<string, unknown>, name: string, standard: string): string {
  const value = settings[name];
  if (value === undefined || value === '') return standard;
  if (typeof value !== 'string') throw new InvalidInputError(`multidiffusion.${name} in settings.js`, value, 'a path');
  return path.resolve(value);
}

function text(settings: Record<string, unknown>, name: string): string | undefined {
  const value = settings[name];
  if (value === undefined || value === '') return undefined;
  if (typeof value !== 'string') throw new InvalidInputError(`multidiffusion.${name} in settings.js`, value, 'a text');
  return value;
}

/** How large a picture that comes in may be. */
export function pictureLimits({ limits }: Settings): PictureLimits {
  const setBy = (limit: keyof typeof LIMITS): string => `multidiffusion.${limit} in settings.js`;
  return {
    maxPixels: limits.maxMaskPixels,
    maxBytes: limits.maxMaskBytes,
    pixelsSetBy: setBy('maxMaskPixels'),
    bytesSetBy: setBy('maxMaskBytes'),
  };
}

/** @throws MultiDiffusionError LIMIT when `value` is over the administrator's limit */
export function checkLimit(settings: Settings, limit: keyof typeof LIMITS, value: number, what: string): void {
  const most = settings.limits[limit];
  if (value <= most) return;
  throw new MultiDiffusionError('LIMIT', `${what}; allowed: up to ${most} (multidiffusion.${limit} in settings.js).`);
}
