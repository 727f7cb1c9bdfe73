/** One picture to be made: everything the steps need, and the latents they work on. */
import { randomInt } from 'node:crypto';
import { CancelledError, InvalidInputError } from '../errors';
import type { DiffusionModel, ModelFacts } from '../model';
import { addressedNoise, torchNoise } from '../noise';
import { resolveOptions, SAMPLER_OPTIONS, type SamplerOptions } from '../options';
import { createScheduler, withScheduler } from '../schedulers';
import type { Scheduler, SchedulerConfig, StepNoise } from '../schedulers/scheduler';
import { Tensor } from '../tensor';
import { encodeBackgrounds, pickBackgrounds } from './bootstrap';
import { findProblems } from './findings';
import { type FusionWeights, Reach, weightsAt } from './fusion';
import { type LatentRegion, preparePrompt, prepareRegions, type Prompt, tensorSharer } from './regions';
import type { Conditioning, Finding, Region } from './types';
import { type Grid, spreadViews, type View } from './views';

/** What to make. */
export interface SampleRequest {
  /** The prompt of the whole picture, with its negative prompt. */
  background: Conditioning;
  /** In order: the first is on top with fusion 'first'. */
  regions?: Region[];
  options?: Partial<SamplerOptions>;
  /** Instead of the checkpoint's own. */
  schedulerConfig?: SchedulerConfig;
  signal?: AbortSignal;
  /** After every step. */
  onStep?(progress: Progress): void;

  /** Unit Gaussian noise [1, C, h, w] instead of the seed's; times the scheduler's initNoiseSigma it is x_T. */
  initialNoise?: Tensor<'float32'>;
  /** Gaussian draws of stochastic schedulers instead of the seed's. */
  stepNoise?: StepNoise;
  /** Plain bootstrapping backgrounds as latents of a window's size, [1, C, h, w] each, instead of the seed's colours. */
  backgrounds?: Tensor<'float32'>[];
  /** Which of them, [evaluation · views + view][region], instead of the seed's picks. */
  backgroundPicks?: number[][];
  /** UNet rows in one call of the model; the result doesn't depend on it. */
  rowsPerCall?: number;
}

export interface Progress {
  /** Model evaluations done, of how many. */
  index: number;
  total: number;
  /** Of the evaluation just done. */
  timestep: number;
  /** The sample after it, [1, C, h, w]. */
  latents: Tensor<'float32'>;
}

/** A job between two steps. Only takeStep changes what the picture becomes; the rest counts and remembers. */
export interface SamplingJob {
  readonly facts: ModelFacts;
  readonly seed: number;
  /** In pixels. */
  readonly width: number;
  readonly height: number;
  readonly steps: number;
  readonly grid: Grid;
  readonly views: View[];
  readonly fusion: string;
  /** The background, then the regions. */
  readonly prompts: Prompt[];
  readonly regions: LatentRegion[];
  readonly scheduler: Scheduler;
  readonly stepNoise: StepNoise;
  /** The first this many model evaluations are bootstrapped. */
  readonly bootstrapEvaluations: number;
  readonly backgrounds: Tensor<'float32'>[];
  readonly backgroundPicks: number[][];
  readonly rowsPerCall: number;
  /** x_T's own unit noise, which the bootstrapping backgrounds share. */
  readonly noise: Tensor<'float32'>;
  readonly findings: Finding[];
  readonly timings: Timings;

  /** The shared sample before evaluation `index`, [1, C, h, w]. */
  latents: Tensor<'float32'>;
  /** Model evaluations done. */
  index: number;
  unetRows: number;
  /** See weightsAt. */
  weights?: FusionWeights;
}

/** Milliseconds. */
export interface Timings {
  /** Spent in model.predict. */
  unet: number;
  /** Spent in model.encodeImages. */
  encode: number;
  total: number;
}

/** Latent cells per side that a UNet with three halvings needs; most models are such. */
const DEFAULT_CELLS = 8;
const ROWS_PER_CALL = 32;

/**
 * Prepares a job: checks the request, places windows and regions, draws the noise, encodes the backgrounds.
 * A canvas that is not a multiple of what the model needs is rounded to the nearest multiple, with a finding.
 * @throws InvalidInputError, MissingInputError naming the property; CancelledError
 */
export async function createJob(model: DiffusionModel, request: SampleRequest): Promise<SamplingJob> {
  const started = performance.now();
  const { facts } = model;
  const options = resolveOptions(SAMPLER_OPTIONS, request.options ?? {});
  const findings: Finding[] = [];
  const { width, height, grid, views } = placeViews(facts, options, findings);
  const seed = options.seed ?? randomInt(2 ** 32);
  const ownConfig = request.schedulerConfig ?? facts.schedulerConfig;
  const scheduler = createScheduler(options.scheduler === 'checkpoint' ? ownConfig : withScheduler(ownConfig, options.scheduler), options.steps);
  const evaluations = scheduler.timesteps.length;

  const share = tensorSharer();
  const background = preparePrompt(request.background, 'background', options.guidanceScale, share);
  const regions = await prepareRegions(request.regions, background, grid, evaluations, share);
  const shape = [1, grid.channels, grid.height, grid.width];
  const noise = request.initialNoise ? checkShape(request.initialNoise, shape, 'initialNoise') : seededNoise(seed, regions, shape);

  const job: SamplingJob = {
    facts,
    seed,
    width,
    height,
    steps: options.steps,
    grid,
    views,
    fusion: options.fusion,
    prompts: [background, ...regions],
    regions,
    scheduler,
    stepNoise: request.stepNoise ?? ((index) => addressedNoise(seed, 'step', index, shape)),
    bootstrapEvaluations: regions.some((region) => region.bootstrap) ? bootstrapShare(options, evaluations) : 0,
    backgrounds: [],
    backgroundPicks: [],
    rowsPerCall: request.rowsPerCall ?? ROWS_PER_CALL,
    noise,
    findings,
    timings: { unet: 0, encode: 0, total: 0 },
    latents: times(noise, scheduler.initNoiseSigma),
    index: 0,
    unetRows: 0,
  };
  findings.push(...findProblems(job));
  if (needsBackgrounds(job)) await addBackgrounds(job, model, request, options.bootstrappingBackground);
  job.timings.total += performance.now() - started;
  return job;
}

function placeViews(facts: ModelFacts, options: SamplerOptions, findings: Finding[]) {
  const multiple = facts.sizeMultiple ?? DEFAULT_CELLS * facts.latentFactor;
  const rounded = (name: string, size: number): number => {
    const nearest = Math.max(1, Math.round(size / multiple)) * multiple;
    if (nearest !== size) {
      findings.push({ code: 'ROUNDED_SIZE', message: `${name} ${size} was rounded to ${nearest}: this model needs multiples of ${multiple}.` });
    }
    return nearest;
  };
  const width = rounded('width', options.width ?? facts.nativeSize);
  const height = rounded('height', options.height ?? facts.nativeSize);
  const window = rounded('windowSize', options.windowSize ?? facts.nativeSize) / facts.latentFactor;
  const grid = { channels: facts.latentChannels, height: height / facts.latentFactor, width: width / facts.latentFactor };
  const stride = Math.max(1, Math.round(window * (1 - options.windowOverlap)));
  return { width, height, grid, views: spreadViews(grid, window, stride) };
}

/** Bootstrapping as a number of model evaluations: of a second-order scheduler, which asks more often than it steps, the same share. */
function bootstrapShare(options: SamplerOptions, evaluations: number): number {
  const { bootstrapping, bootstrappingUnit, steps } = options;
  if (bootstrappingUnit === 'fraction' && bootstrapping > 1) {
    throw new InvalidInputError('bootstrapping', bootstrapping, "a fraction from 0 to 1, or a number of steps with bootstrappingUnit 'steps'");
  }
  const share = bootstrappingUnit === 'fraction' ? bootstrapping : Math.min(1, bootstrapping / steps);
  return Math.round(share * evaluations);
}

function seededNoise(seed: number, regions: LatentRegion[], shape: number[]): Tensor<'float32'> {
  const noise = torchNoise(seed, shape);
  const own = regions.filter((region) => region.seed !== undefined);
  if (own.length === 0) return noise;
  const data = noise.data.slice();
  for (const { seed: regionSeed, mask } of own) {
    const inside = torchNoise(regionSeed as number, shape).data;
    for (let i = 0; i < data.length; i++) if (mask.hard[i % mask.hard.length]) data[i] = inside[i];
  }
  return Tensor.float32(data, shape);
}

/** Whether any region ever sees a background: not one that fills its window, nor one that is hidden. */
function needsBackgrounds(job: SamplingJob): boolean {
  for (let index = 0; index < job.bootstrapEvaluations; index++) {
    const { reach, bootstrapped } = weightsAt(job, index);
    if (reach.some((view) => view.some((extent, prompt) => bootstrapped[prompt] && extent === Reach.Part))) return true;
  }
  return false;
}

/** Gives the job its bootstrapping backgrounds and says who gets which. */
export async function addBackgrounds(job: SamplingJob, model: DiffusionModel, request: Pick<SampleRequest, 'backgrounds' | 'backgroundPicks' | 'signal'>, kind: string): Promise<void> {
  const { bootstrapEvaluations: count, seed, views, facts } = job;
  const [view] = views;
  const shape = [1, facts.latentChannels, view.height, view.width];
  const started = performance.now();
  if (request.backgrounds) {
    if (!Array.isArray(request.backgrounds) || request.backgrounds.length === 0) throw new InvalidInputError('backgrounds', request.backgrounds, 'at least one tensor');
    job.backgrounds.push(...request.backgrounds);
  } else if (facts.canEncodeImages) {
    const [height, width] = [view.height * facts.latentFactor, view.width * facts.latentFactor];
    throwIfCancelled(request.signal);
    job.backgrounds.push(...(await encodeBackgrounds(model, kind, count, seed, height, width, request.signal)));
  } else {
    // Zero is the middle of the latents' range, about a mid grey: plain, and better than refusing the job.
    job.backgrounds.push(Tensor.float32(new Float32Array(shape.reduce((a, b) => a * b)), shape));
    job.findings.push({
      code: 'NO_ENCODER',
      message: `${facts.name} has no VAE encoder, so bootstrapping uses a plain grey background instead of ${kind === 'white' ? 'white' : 'random colours'}. Add vae_encoder to the model's folder for better regions.`,
    });
  }
  job.backgrounds.forEach((background, i) => checkShape(background, shape, `backgrounds[${i}]`));
  job.backgroundPicks.push(...(request.backgroundPicks ?? pickBackgrounds(seed, job.backgrounds.length, count, views.length, job.regions.length)));
  checkPicks(job);
  job.timings.encode += performance.now() - started;
}

function checkPicks({ backgroundPicks, backgrounds, bootstrapEvaluations, views, regions }: SamplingJob): void {
  for (let i = 0; i < bootstrapEvaluations * views.length; i++) {
    const picks = backgroundPicks[i];
    if (picks?.length !== regions.length || picks.some((pick) => !backgrounds[pick])) {
      throw new InvalidInputError(`backgroundPicks[${i}]`, picks, `an index below ${backgrounds.length} for each of ${regions.length} regions, per evaluation and view`);
    }
  }
}

function checkShape(value: unknown, shape: number[], name: string): Tensor<'float32'> {
  const tensor = Tensor.from(value, name);
  if (tensor.dtype !== 'float32' || tensor.dims.join() !== shape.join()) {
    throw new InvalidInputError(name, `${tensor.dtype} [${tensor.dims.join(', ')}]`, `float32 [${shape.join(', ')}]`);
  }
  return tensor as Tensor<'float32'>;
}

function times(tensor: Tensor<'float32'>, factor: number): Tensor<'float32'> {
  return factor === 1 ? tensor : Tensor.float32(tensor.data.map((value) => value * factor), tensor.dims);
}

/** @throws CancelledError when the signal is aborted, with its reason where that is an error of ours */
export function throwIfCancelled(signal?: AbortSignal): void {
  if (signal?.aborted) throw signal.reason instanceof CancelledError ? signal.reason : new CancelledError();
}
