/** One picture to be made: everything the steps need, and the latents they work on. */
import type { ModelFacts } from '../model';
import type { SamplerOptions } from '../options';
import type { Scheduler, SchedulerConfig, StepNoise } from '../schedulers/scheduler';
import type { Tensor } from '../tensor';
import type { LatentRegion, Prompt } from './regions';
import type { Conditioning, Finding, Region } from './types';
import type { Grid, View } from './views';
import type { FusionWeights } from './weights';

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

export interface Progress {
  /** Model evaluations done, of how many. */
  index: number;
  total: number;
  /** Of the evaluation just done. */
  timestep: number;
  /** The sample after it, [1, C, h, w]. */
  latents: Tensor<'float32'>;
  /** The picture as the model foresees it, [1, C, h, w]. */
  foresee(): Tensor<'float32'>;
}

/** A job between two steps. Only takeStep changes what the picture becomes; the rest counts and remembers. */
export interface SamplingJob {
  readonly facts: ModelFacts;
  readonly options: SamplerOptions;
  readonly seed: number;
  /** In pixels. */
  readonly width: number;
  readonly height: number;
  readonly steps: number;
  /** Of the steps those that are taken: with an initial image the first are left out. */
  readonly stepsTaken: number;
  readonly grid: Grid;
  readonly views: View[];
  /** What each cell of a window weighs. */
  readonly windowWeights: Float64Array;
  /** The background, then the regions. */
  readonly prompts: Prompt[];
  readonly regions: LatentRegion[];
  readonly scheduler: Scheduler;
  readonly stepNoise: StepNoise;
  /** The first this many model evaluations are bootstrapped. */
  readonly bootstrapEvaluations: number;
  /** See the request. */
  readonly bootstrappingImage?: Tensor<'uint8'>;
  readonly backgrounds: Tensor<'float32'>[];
  readonly backgroundPicks: number[][];
  readonly rowsPerCall: number;
  /** x_T's own unit noise, which the bootstrapping backgrounds share. */
  readonly noise: Tensor<'float32'>;
  /** The latents of the picture to keep outside the regions, and for each cell the share that is painted. */
  readonly kept?: { image: Tensor<'float32'>; painted: Float32Array };
  readonly findings: Finding[];
  readonly timings: Timings;

  /** The shared sample before evaluation `index`, [1, C, h, w]. */
  latents: Tensor<'float32'>;
  /** The picture as the model foresaw it at the last evaluation; before the first, the latents themselves. */
  foresee: () => Tensor<'float32'>;
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
