/**
 * What the method asks of a model. The checkpoint client implements it over the inference process;
 * tests implement it with formulas.
 */
import type { Tensor } from './tensor';
import type { SchedulerConfig } from './schedulers/scheduler';

/** One row of a UNet batch: a window of latents under one text conditioning. */
export interface UNetRow {
  /** [1, C, h, w], already passed through scaleModelInput. */
  latents: Tensor<'float32'>;
  /** [1, L, D]. The same Tensor object over a whole job, so that it crosses to the inference process once. */
  embeddings: Tensor;
  /** For distilled models that take the guidance scale as an input (timestep_cond). */
  guidanceScale?: number;
}

export interface CallOptions {
  signal?: AbortSignal;
}

/** Facts read from the checkpoint's files. */
export interface ModelFacts {
  /** A short name for status and metadata: the folder's last part, or what model_index.json says. */
  name: string;
  /** Channels of the latents (4 for Stable Diffusion). */
  latentChannels: number;
  /** Image pixels per latent cell and side (8 for Stable Diffusion, 4 for the bundled model). */
  latentFactor: number;
  /** Latents of the VAE times this are the UNet's latents. */
  scalingFactor: number;
  /** The side, in pixels, at which the model was trained. */
  nativeSize: number;
  /** Canvas and window sides must be multiples of this many pixels, because the UNet halves its input; default: 8 latent cells. */
  sizeMultiple?: number;
  schedulerConfig: SchedulerConfig;
  /** Whether the UNet takes the guidance scale as an input (LCM), so that no unconditional rows are needed. */
  guidanceEmbedded: boolean;
  /** Tokens of a prompt, start and end included (77 for CLIP). */
  maxTokens: number;
  /** Every word the model knows, lower case, when its vocabulary is closed. */
  vocabulary?: string[];
  /** Whether there is a VAE encoder. */
  canEncodeImages: boolean;
  /** Where it runs: 'cpu', 'cuda', and why. */
  provider: string;
}

/** The part of a model that the sampler needs. */
export interface DiffusionModel {
  readonly facts: ModelFacts;
  /**
   * Evaluates the UNet for every row at one timestep, in as few or as many batches as it likes.
   * @returns one model output [1, C, h, w] per row, in order
   */
  predict(rows: UNetRow[], timestep: number, options?: CallOptions): Promise<Tensor<'float32'>[]>;
  /**
   * The scaled latents (mean of the posterior) of RGB images.
   * @param images uint8 [H, W, 3] each, all of one size
   * @returns [1, C, h, w] per image
   */
  encodeImages(images: Tensor<'uint8'>[], options?: CallOptions): Promise<Tensor<'float32'>[]>;
  /**
   * The picture that scaled latents [1, C, h, w] mean.
   * @returns uint8 [H, W, 3]
   */
  decode?(latents: Tensor, options?: CallOptions): Promise<Tensor<'uint8'>>;
}
