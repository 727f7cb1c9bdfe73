/**
 * What clients and workers of a pool agree on: names in Redis, what is said there, and what is believed. All that comes out
 * of Redis is checked here like a stranger's message.
 */
import { MultiDiffusionError, InvalidInputError } from '../errors';
import type { CallName } from '../inference/protocol';
import type { ModelFacts } from '../model';

/** Counts up when a client and a worker of two versions no longer understand each other, or would draw different pictures. */
export const PROTOCOL = 1;

/** What a worker does for others: a whole picture, or one call of the inference process. */
export type JobKind = 'sample' | Exclude<CallName, 'open'>;
export const CALLS: ReadonlySet<string> = new Set(['load', 'encodePrompts', 'predict', 'decode', 'encodeImages']);

/** Pictures are drawn one at a time a device; calls go between two runs of the UNet, as on one machine. */
export type QueueKind = 'pictures' | 'calls';

/** Milliseconds. */
export const TIMES = {
  /** A worker says that it is there. */
  beat: 2000,
  /** It counts as gone when it has not said so for as long. */
  gone: 10_000,
  /** A worker refreshes what lives for minutes: its model's facts, its queues. */
  refresh: 60_000,
  /** A client's jobs are orphans when it has not been heard of for as long. */
  orphaned: 60_000,
  /** What was sent stays in Redis; refreshed when it is used. */
  kept: 15 * 60_000,
  /** What a job made, and that it ended, for a client that was cut off meanwhile. */
  result: 10 * 60_000,
  /** A job that waits, and its queue, when neither clients nor workers refresh them any longer. */
  job: 60 * 60_000,
};

/** Jobs that ended and that nobody fetched; clients remove theirs. */
export const ENDED_JOBS = { age: TIMES.result / 1000, count: 10_000 };
/** Events of a queue that Redis keeps; a client that misses some asks for the jobs' states. */
export const KEPT_EVENTS = 2000;
/** Characters of a job's JSON. */
export const MOST_JSON = 4 * 2 ** 20;

/** A job as it lies in Redis. */
export interface JobData {
  protocol: number;
  /** Of the client: see Names.client. */
  client: string;
  /** See codec.ts. */
  body: unknown;
}

const QUEUE_KEYS = [
  ...['wait', 'prioritized', 'active', 'completed', 'failed', 'stalled'],
  ...['meta', 'id', 'pc', 'events', 'marker'],
];

/** The names of everything that a pool keeps in Redis; an administrator may confine a user to multidiffusion:*. */
export class Names {
  readonly base: string;

  /** @throws InvalidInputError when the pool's name can't be part of a key */
  constructor(readonly pool: string) {
    if (typeof pool !== 'string' || !/^[\w.-]{1,64}$/.test(pool))
      throw new InvalidInputError('pool', pool, '1 to 64 letters, digits, dots, dashes and underscores');
    this.base = `multidiffusion:${pool}`;
  }

  queue(kind: QueueKind, identity: string): string {
    return `${kind}-${identity}-v${PROTOCOL}`;
  }

  /** What BullMQ keeps of a queue, and of one of its jobs: by itself it would keep them for ever. */
  keysOf(queue: string, jobs: Iterable<string> = []): string[] {
    return [...QUEUE_KEYS, ...jobs].map((name) => `${this.base}:${queue}:${name}`);
  }

  /** Sorted by when they were last heard of. */
  get workers(): string {
    return `${this.base}:workers`;
  }

  worker(id: string): string {
    return `${this.base}:worker:${id}`;
  }

  client(id: string): string {
    return `${this.base}:client:${id}`;
  }

  facts(identity: string): string {
    return `${this.base}:facts:${identity}`;
  }

  cancelled(job: string): string {
    return `${this.base}:cancelled:${job}`;
  }

  /** Bytes, named by their SHA-256. */
  blob(hash: string): string {
    return `${this.base}:blob:${hash}`;
  }

  result(job: string, hash: string): string {
    return `${this.base}:result:${job}:${hash}`;
  }

  /** What a step looks like. Not among the results, which go when they were taken: the last step's latents are the result's. */
  seen(job: string, hash: string): string {
    return `${this.base}:seen:${job}:${hash}`;
  }

  /** Names of the queues that have been used. */
  get queues(): string {
    return `${this.base}:queues`;
  }

  /** Where a job's id is published when it is cancelled. */
  get cancellations(): string {
    return `${this.base}:cancellations`;
  }

  /** Where it is published that a worker has come or gone. */
  get comings(): string {
    return `${this.base}:comings`;
  }
}

/** What a worker says of itself. */
export interface WorkerInfo {
  id: string;
  /** The name of its machine, unless it was given another. */
  name: string;
  protocol: number;
  /** Of the package. */
  version: string;
  /** See identity.ts. */
  identity: string;
  /** What its users call the model. */
  model: string;
  /** Where the checkpoint was downloaded from. */
  repository?: string;
  revision?: string;
  commit?: string;
  /** Where it runs. */
  provider: string;
  /** Pictures that it draws at a time. */
  slots: number;
  busy: number;
  draining: boolean;
  /** Pictures that it has drawn. */
  pictures: number;
  /** Milliseconds since the epoch. */
  since: number;
}

/** @returns undefined for what is no worker's own description */
export function readWorker(json: string | null): WorkerInfo | undefined {
  const said = parse(json, 10_000);
  if (!said) return undefined;
  const worker: WorkerInfo = {
    id: text(said.id, 100),
    name: text(said.name, 100),
    protocol: count(said.protocol),
    version: text(said.version, 50),
    identity: text(said.identity, 64),
    model: text(said.model, 200),
    provider: text(said.provider, 500),
    slots: count(said.slots),
    busy: count(said.busy),
    draining: said.draining === true,
    pictures: count(said.pictures),
    since: count(said.since),
    ...(said.repository !== undefined && { repository: text(said.repository, 200) }),
    ...(said.revision !== undefined && { revision: text(said.revision, 200) }),
    ...(said.commit !== undefined && { commit: text(said.commit, 64) }),
  };
  return worker.id && /^[0-9a-f]{32}$/.test(worker.identity) && worker.slots >= 1 && worker.slots <= 1024
    ? worker
    : undefined;
}

/**
 * A model's facts as a worker published them.
 * @returns undefined for what can't be a model's
 */
export function readFacts(json: string | null): ModelFacts | undefined {
  const said = parse(json, MOST_JSON) as Partial<ModelFacts> | undefined;
  if (!said) return undefined;
  const whole = (value: unknown, most: number): boolean =>
    Number.isInteger(value) && (value as number) >= 1 && (value as number) <= most;
  const good =
    typeof said.name === 'string' &&
    said.name.length <= 200 &&
    typeof said.provider === 'string' &&
    whole(said.latentChannels, 1024) &&
    whole(said.latentFactor, 1024) &&
    typeof said.scalingFactor === 'number' &&
    Number.isFinite(said.scalingFactor) &&
    whole(said.nativeSize, 65_536) &&
    (said.sizeMultiple === undefined || whole(said.sizeMultiple, 65_536)) &&
    typeof said.schedulerConfig === 'object' &&
    said.schedulerConfig !== null &&
    !Array.isArray(said.schedulerConfig) &&
    typeof said.guidanceEmbedded === 'boolean' &&
    whole(said.maxTokens, 100_000) &&
    typeof said.canEncodeImages === 'boolean' &&
    (said.family === undefined || typeof said.family === 'string') &&
    [undefined, 'empty', 'zeros', 'none'].includes(said.absentNegative) &&
    [undefined, 5, 6].includes(said.timeIds) &&
    (said.patchSize === undefined || whole(said.patchSize, 64)) &&
    (said.largestSide === undefined || whole(said.largestSide, 1_048_576)) &&
    [said.trueGuidance, said.evenSigmas].every((flag) => flag === undefined || typeof flag === 'boolean') &&
    (said.vocabulary === undefined ||
      (Array.isArray(said.vocabulary) && said.vocabulary.every((word) => typeof word === 'string')));
  return good ? (said as ModelFacts) : undefined;
}

/** @throws MultiDiffusionError VERSION_MISMATCH or INFERENCE for what is no job of this protocol */
export function readJobData(value: unknown): JobData {
  const { protocol, client, body } = (value ?? {}) as Partial<JobData>;
  if (protocol !== PROTOCOL)
    throw new MultiDiffusionError(
      'VERSION_MISMATCH',
      `The job is of protocol ${String(protocol).slice(0, 20)}, the worker of protocol ${PROTOCOL}: ` +
        'install the same version of the package on both.',
    );
  if (typeof client !== 'string' || !/^[\w-]{1,64}$/.test(client) || body === undefined)
    throw new MultiDiffusionError('INFERENCE', 'The job is damaged: it names no client or holds no request.');
  return { protocol, client, body };
}

function parse(json: string | null, most: number): Record<string, unknown> | undefined {
  if (json === null || json.length > most) return undefined;
  try {
    const value: unknown = JSON.parse(json);
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}

/** Of one line, no longer than `most`; '' for anything but text. */
export function text(value: unknown, most: number): string {
  // eslint-disable-next-line no-control-regex
  return typeof value === 'string' ? value.slice(0, most).replace(/[\u0000-\u001f\u007f]+/g, ' ') : '';
}

function count(value: unknown): number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : 0;
}
