/** What is to be made: a request, checked and worked out before the model is run. */
import { randomInt } from 'node:crypto';
import { InvalidInputError, MissingInputError } from '../errors';
import { checkImage } from '../image/resize';
import { fittingSize, type ModelFacts, sizeMultiple, usualGuidanceScale } from '../model';
import { addressedNoise, TorchGenerator } from '../noise';
import { resolveOptions, SAMPLER_OPTIONS, type SamplerOptions } from '../options';
import { type LatentRegion, preparePrompt, prepareRegions, type Prompt, tensorSharer } from '../regions/region';
import { createScheduler, dynamicShiftOf, isFlowMatching, withScheduler } from '../schedulers';
import { levelBefore } from '../schedulers/level';
import type { Scheduler, SchedulerConfig, StepNoise } from '../schedulers/scheduler';
import { Tensor } from '../tensor';
import { inTurns, type Steps } from '../turns';
import type { Conditioning, Finding, Grid, Region } from '../types';
import { Memo } from './memo';
import { samplerStrategy, type Strategy } from './strategy';
import { spreadViews, type View } from './views';

const ROWS_PER_CALL = 32;
/** Of what is worked out for strategies; more than a loop of nodes asks for in one step. */
const REMEMBERED = 32;

/** What happened at a step. */
export interface Progress {
  /** Model evaluations done, of how many. */
  index: number;
  total: number;
  /** Of the evaluation just done. */
  timestep: number;
  /** The sample after it, [1, C, h, w]. */
  latents: Tensor<'float32'>;
  /** The picture as the model predicts it, [1, C, h, w]. */
  predictedOriginal(): Tensor<'float32'>;
}

/** What to make. */
export interface SampleRequest {
  /** The prompt of the whole picture, with its negative prompt. */
  background: Conditioning;
  /** In order: the first is on top with fusion 'first'. */
  regions?: Region[];
  options?: Partial<SamplerOptions>;
  /** Instead of the checkpoint's own. */
  schedulerConfig?: SchedulerConfig;
  /** Latents [1, C, h, w] of a picture of the canvas' size to start from; see the options strength and keepBackground. */
  initialImage?: Tensor;
  /** uint8 [H, W, 3] of any size, with bootstrappingBackground 'image': what regions see around themselves in each window. */
  bootstrappingImage?: Tensor;
  signal?: AbortSignal;
  /** After every step; a promise is waited for. */
  onStep?(progress: Progress): unknown;

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

/**
 * A request as the steps need it. It stays as it is from the first step to the last; what changes is the State
 * (and the history in the scheduler, which serves one run). The memos keep what was worked out from it.
 */
export interface Plan {
  readonly facts: ModelFacts;
  readonly options: SamplerOptions;
  readonly strategy: Strategy;
  readonly seed: number;
  /** In pixels. */
  readonly width: number;
  readonly height: number;
  /** Of the steps those that are taken: with an initial image the first are left out. */
  readonly stepsTaken: number;
  /** How often the model is evaluated: second-order schedulers ask more often than they step. */
  readonly evaluations: number;
  /** Evaluations at the beginning in which no background shows: a flow starts at noise alone. */
  readonly blind: number;
  readonly grid: Grid;
  readonly views: readonly View[];
  /** The background, then the regions. */
  readonly prompts: readonly Prompt[];
  readonly regions: readonly LatentRegion[];
  readonly scheduler: Scheduler;
  readonly stepNoise: StepNoise;
  /** x_T's own unit noise, which the bootstrapping backgrounds share. */
  readonly noise: Tensor<'float32'>;
  /** The sample before the first step, [1, C, h, w]. */
  readonly initialLatents: Tensor<'float32'>;
  /** The latents of the picture to keep outside the regions, and for each cell the share that is painted. */
  readonly kept?: { readonly image: Tensor<'float32'>; readonly painted: Float32Array };
  /** See the request. */
  readonly bootstrappingImage?: Tensor<'uint8'>;
  readonly backgrounds?: readonly Tensor<'float32'>[];
  readonly backgroundPicks?: readonly number[][];
  readonly rowsPerCall: number;
  readonly findings: readonly Finding[];

  /** What has been worked out for strategies: see weightsAt. */
  readonly memo: Memo;
  /** The bootstrapping backgrounds that have been encoded: see prepareBackgrounds. */
  readonly encoded: Map<string, readonly Tensor<'float32'>[]>;
}

/**
 * Checks a request, places windows and regions, draws the noise.
 * A canvas that is not a multiple of what the model needs is rounded to the nearest multiple, with a finding.
 * @throws InvalidInputError, MissingInputError naming the property
 */
export async function createPlan(facts: ModelFacts, request: SampleRequest): Promise<Plan> {
  const options = resolveOptions(SAMPLER_OPTIONS, request.options ?? {});
  const findings: Finding[] = [];
  const { width, height, grid, views } = placeViews(facts, options, findings);
  const seed = options.seed ?? randomInt(2 ** 32);
  const startStep = request.initialImage ? firstStep(options) : 0;
  const config = request.schedulerConfig ?? facts.schedulerConfig;
  let scheduler: Scheduler;
  try {
    scheduler = createSchedulerFor(facts, options, config, startStep, views[0]);
  } catch (error) {
    if (startStep === 0 || !(error instanceof InvalidInputError) || error.property !== 'steps') throw error;
    throw new InvalidInputError(
      'strength',
      options.strength,
      `more with ${options.steps} steps, of which it leaves ${options.steps - startStep} (steps: ${error.allowed})`,
    );
  }
  const evaluations = scheduler.timesteps.length;
  const stepsTaken = options.steps - startStep;
  const blind = blindEvaluations(scheduler);

  const share = tensorSharer();
  const guidanceScale = options.guidanceScale ?? usualGuidanceScale(facts);
  const background = preparePrompt(request.background, 'background', guidanceScale, share);
  const regions = await prepareRegions(request.regions, background, { grid, ...options }, evaluations, share);
  const shape = [1, grid.channels, grid.height, grid.width];
  const noise = request.initialNoise
    ? tensorOf(request.initialNoise, shape, 'initialNoise')
    : await inTurns(seededNoise(seed, regions, shape));
  const image = request.initialImage && tensorOf(request.initialImage, shape, 'initialImage');
  return {
    facts,
    options,
    strategy: samplerStrategy(
      options,
      { stepsTaken, evaluations, blind },
      regions.some((region) => region.bootstrap),
    ),
    seed,
    width,
    height,
    stepsTaken,
    evaluations,
    blind,
    grid,
    views,
    prompts: [background, ...regions],
    regions,
    scheduler,
    stepNoise: request.stepNoise ?? ((index) => addressedNoise(seed, 'step', index, shape)),
    noise,
    initialLatents: image ? scheduler.addNoise(image, noise, 0) : times(noise, scheduler.initNoiseSigma),
    ...(options.keepBackground && { kept: keptPicture(image, regions) }),
    ...(request.bootstrappingImage && {
      bootstrappingImage: checkImage(request.bootstrappingImage, 'bootstrappingImage'),
    }),
    ...(request.backgrounds && { backgrounds: givenBackgrounds(request.backgrounds, grid.channels, views[0]) }),
    ...(request.backgroundPicks && { backgroundPicks: request.backgroundPicks }),
    rowsPerCall: request.rowsPerCall ?? ROWS_PER_CALL,
    findings,
    memo: new Memo(REMEMBERED),
    encoded: new Map(),
  };
}

/**
 * The scheduler of one run. A flow's σ may depend on how many patches the model sees, which is a window of the canvas.
 * @throws InvalidInputError
 */
function createSchedulerFor(
  facts: ModelFacts,
  options: SamplerOptions,
  ownConfig: SchedulerConfig,
  startStep: number,
  window: View,
): Scheduler {
  const config = options.scheduler === 'checkpoint' ? ownConfig : withScheduler(ownConfig, options.scheduler);
  const { steps } = options;
  if (!isFlowMatching(config)) return createScheduler(config, steps, { startStep });
  const tokens = (window.height * window.width) / (facts.patchSize ?? 1) ** 2;
  // diffusers' pipelines give the solvers no σ of their own.
  const even = facts.evenSigmas && String(config._class_name).startsWith('FlowMatch');
  return createScheduler(config, steps, {
    startStep,
    mu: dynamicShiftOf(config, tokens),
    ...(even && { sigmas: Array.from({ length: steps }, (_, i) => (i === 0 ? 1 : 1 - i / steps)) }),
  });
}

/** Less of a picture than this is lost in single precision. */
const NOTHING = 1e-5;

function blindEvaluations(scheduler: Scheduler): number {
  if (scheduler.predictionType !== 'flow_prediction') return 0;
  const seen = scheduler.timesteps.findIndex((_, index) => levelBefore(scheduler, index).alpha > NOTHING);
  return seen < 0 ? scheduler.timesteps.length : seen;
}

function placeViews(facts: ModelFacts, options: SamplerOptions, findings: Finding[]) {
  const rounded = (name: string, size: number): number => {
    const nearest = fittingSize(facts, size);
    if (nearest !== size) {
      findings.push({
        code: 'ROUNDED_SIZE',
        message: `${name} ${size} was rounded to ${nearest}: this model needs multiples of ${sizeMultiple(facts)}.`,
      });
    }
    return nearest;
  };
  const width = rounded('width', options.width ?? facts.nativeSize);
  const height = rounded('height', options.height ?? facts.nativeSize);
  const ownWindow = Math.min(facts.nativeSize, facts.largestSide ?? Infinity);
  const window = rounded('windowSize', options.windowSize ?? ownWindow) / facts.latentFactor;
  const largest = facts.largestSide ?? Infinity;
  if (Math.min(window * facts.latentFactor, Math.max(width, height)) > largest) {
    throw new InvalidInputError(
      'windowSize',
      options.windowSize,
      `up to ${largest}: this model has no places for more`,
    );
  }
  const grid = {
    channels: facts.latentChannels,
    height: height / facts.latentFactor,
    width: width / facts.latentFactor,
  };
  const stride = Math.max(1, Math.round(window * (1 - options.windowOverlap)));
  return { width, height, grid, views: spreadViews(grid, window, stride, options.circular) };
}

/** Which of the steps to start at, so that `strength` of them are taken (as in diffusers' image-to-image), at least one. */
function firstStep({ steps, strength }: SamplerOptions): number {
  return steps - Math.max(1, Math.floor(steps * strength));
}

/** @throws MissingInputError when there is no picture to keep, or no region to paint */
function keptPicture(image: Tensor<'float32'> | undefined, regions: LatentRegion[]): Plan['kept'] {
  if (!image)
    throw new MissingInputError(
      'initialImage',
      'With keepBackground on, send the picture to keep through a vae-encode node first.',
    );
  if (regions.length === 0)
    throw new MissingInputError('regions', 'With keepBackground on, only regions are painted: add one.');
  const painted = regions[0].mask.soft.map((_, cell) =>
    Math.min(
      1,
      regions.reduce((sum, { mask }) => sum + mask.soft[cell], 0),
    ),
  );
  return { image, painted };
}

function* seededNoise(seed: number, regions: LatentRegion[], shape: number[]): Steps<Tensor<'float32'>> {
  const noise = yield* new TorchGenerator(seed).randnInSteps(shape);
  const own = regions.filter((region) => region.seed !== undefined);
  if (own.length === 0) return noise;
  const data = noise.data.slice();
  for (const { seed: regionSeed, mask } of own) {
    const inside = (yield* new TorchGenerator(regionSeed as number).randnInSteps(shape)).data;
    for (let i = 0; i < data.length; i++) if (mask.hard[i % mask.hard.length]) data[i] = inside[i];
  }
  return Tensor.float32(data, shape);
}

/** @throws InvalidInputError unless there is at least one, and all are of a window's size */
function givenBackgrounds(value: unknown, channels: number, { height, width }: View): Tensor<'float32'>[] {
  if (!Array.isArray(value) || value.length === 0)
    throw new InvalidInputError('backgrounds', value, 'at least one tensor');
  return value.map((background, i) => tensorOf(background, [1, channels, height, width], `backgrounds[${i}]`));
}

function tensorOf(value: unknown, shape: number[], name: string): Tensor<'float32'> {
  const tensor = Tensor.from(value, name);
  if (tensor.dtype !== 'float32' || tensor.dims.join() !== shape.join()) {
    throw new InvalidInputError(name, `${tensor.dtype} [${tensor.dims.join(', ')}]`, `float32 [${shape.join(', ')}]`);
  }
  return tensor as Tensor<'float32'>;
}

function times(tensor: Tensor<'float32'>, factor: number): Tensor<'float32'> {
  return factor === 1
    ? tensor
    : Tensor.float32(
        tensor.data.map((value) => value * factor),
        tensor.dims,
      );
}
