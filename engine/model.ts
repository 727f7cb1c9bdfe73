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
  /** [1, P], of models that take one embedding for the whole text besides. */
  pooled?: Tensor;
  /** For distilled models that take the guidance scale as an input (timestep_cond, guidance). */
  guidanceScale?: number;
  /**
   * What models with micro-conditioning are told of the picture: original height and width, top and left of the
   * crop, target height and width (or, of a refiner, a score instead).
   */
  timeIds?: number[];
}

export interface CallOptions {
  signal?: AbortSignal;
}

/** Latent cells per side that a UNet with three halvings needs; most models are such. */
const DEFAULT_CELLS = 8;

/** What a refiner is told of the picture's quality, and of the negative prompt's (diffusers' defaults). */
export const AESTHETIC_SCORE = 6;
export const NEGATIVE_AESTHETIC_SCORE = 2.5;

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
  /** 'sdxl', 'sd3' or 'flux'; nothing for Stable Diffusion 1 and 2 and their kin. */
  family?: string;
  /** Whether negative prompts act by trueGuidanceScale alone, and guidanceScale is at most an input (FLUX.1). */
  trueGuidance?: boolean;
  /** What an absent negative prompt is: an empty text (default), zeros, or no unconditional row. */
  absentNegative?: 'empty' | 'zeros' | 'none';
  /** How many sizes the model is told with each row: 6, or 5 of a refiner; nothing for models without micro-conditioning. */
  timeIds?: number;
  /** Of flow matching: cells per side of a patch, by which the length of the picture's sequence is counted. */
  patchSize?: number;
  /** Of flow matching: whether σ falls evenly from 1 before it is shifted (FLUX.1), and not as the scheduler has it. */
  evenSigmas?: boolean;
  /** The largest side of a window, in pixels, where the model has a table of places (Stable Diffusion 3). */
  largestSide?: number;
}

/** By family, as diffusers' pipelines have them; of FLUX.1 it is an input, and of [schnell] without effect. */
const USUAL_GUIDANCE_SCALES: ReadonlyMap<string, number> = new Map([
  ['sdxl', 5],
  ['sd3', 7],
  ['flux', 3.5],
]);
/** Of Stable Diffusion 1 and 2, as diffusers' pipelines have it; for the bundled model see docs/evaluation.md. */
const USUAL_GUIDANCE_SCALE = 7.5;
/** Of latent consistency models, as the cards of the published ones have it. */
const USUAL_CONSISTENCY_SCALE = 8;

/** The guidance scale of a picture for which none is set. */
export function usualGuidanceScale({
  family = '',
  guidanceEmbedded,
}: Pick<ModelFacts, 'family' | 'guidanceEmbedded'>): number {
  if (guidanceEmbedded && family !== 'flux') return USUAL_CONSISTENCY_SCALE;
  return USUAL_GUIDANCE_SCALES.get(family) ?? USUAL_GUIDANCE_SCALE;
}

/** Canvas and window sides are multiples of this many pixels. */
export function sizeMultiple({ sizeMultiple: known, latentFactor }: ModelFacts): number {
  return known ?? DEFAULT_CELLS * latentFactor;
}

/** The nearest side of a canvas, in pixels, that the model can draw. */
export function fittingSize(facts: ModelFacts, size: number): number {
  const multiple = sizeMultiple(facts);
  return Math.max(1, Math.round(size / multiple)) * multiple;
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
  /**
   * Where the model is on other machines: has one of them sample a whole picture.
   * @param request a SampleRequest of multidiffusion/sample.ts, which asks for it
   * @returns its SampleResult
   */
  sampleElsewhere?(request: object): Promise<object>;
}
