/**
 * What every scheduler is: its scheduler_config.json plus the timesteps it visits and the step it takes.
 * Names and numbers follow 🤗 diffusers, whose configuration files are read as they are.
 */
import type { Tensor } from '../tensor';

/** The fields of a repository's scheduler/scheduler_config.json; unknown ones are kept, not acted on. */
export interface SchedulerConfig {
  _class_name?: string;
  [field: string]: unknown;
}

export type PredictionType = 'epsilon' | 'v_prediction' | 'sample' | 'flow_prediction';

/** Gives the Gaussian draw for a step, in the shape of the latents; only stochastic schedulers ask. */
export type StepNoise = (index: number) => Tensor<'float32'>;

/**
 * One scheduler over one run of `timesteps.length` model evaluations. It belongs to one job: the history
 * that multistep methods need lives in it, and nowhere else.
 */
export interface Scheduler {
  /** Class name as diffusers has it, such as DDIMScheduler. */
  readonly name: string;
  readonly config: SchedulerConfig;
  readonly predictionType: PredictionType;
  /** One entry per model evaluation, in the order of evaluation (second-order methods repeat some). */
  readonly timesteps: readonly number[];
  /** Noise levels in the scheduler's own scale, one more than timesteps where the method has them. */
  readonly sigmas?: readonly number[];
  /** Unit Gaussian noise times this is the initial sample. */
  readonly initNoiseSigma: number;
  /** The UNet's input for the sample before step `index` (k-diffusion scales it; DDIM-like methods don't). */
  scaleModelInput(sample: Tensor<'float32'>, index: number): Tensor<'float32'>;
  /**
   * The sample after step `index`. Steps are taken in order, each once; an index out of order throws.
   * @param modelOutput what the UNet predicted, of this scheduler's predictionType
   */
  step(modelOutput: Tensor<'float32'>, index: number, sample: Tensor<'float32'>, noise: StepNoise): Tensor<'float32'>;
  /** `original` noised to the level before step `index`, in this scheduler's own scale (of a sample, not of a model input). */
  addNoise(original: Tensor<'float32'>, noise: Tensor<'float32'>, index: number): Tensor<'float32'>;
}
