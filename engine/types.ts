/** The things that travel in messages: see docs/messages.md for the contract. */
import type { Tensor } from './tensor';

export const CONDITIONING_KIND = 'multidiffusion/conditioning';

/** An encoded prompt with its encoded negative prompt. */
export interface Conditioning {
  kind: typeof CONDITIONING_KIND;
  prompt: string;
  negativePrompt: string;
  /** [1, L, D] */
  embeddings: Tensor;
  /** [1, L, D] */
  negativeEmbeddings: Tensor;
  /** [1, P] each, of models that take one embedding for the whole text besides (Stable Diffusion XL and 3, FLUX.1). */
  pooled?: Tensor;
  negativePooled?: Tensor;
  /** No negative prompt was given; with models that tell this from an empty one, zeros or nothing stand for it. */
  negativeAbsent?: boolean;
  /** The part of the prompt beyond the tokenizer's limit, if any. */
  truncated?: string;
  /** Words that a checkpoint with a closed vocabulary does not know. */
  unknownWords?: string[];
}

/** A prompt with the place where it holds. */
export interface Region {
  name: string;
  conditioning: Conditioning;
  /** float32 [1, H, W] in [0, 1], of any resolution: it is reduced to the latent grid by area. */
  mask: Tensor;
  /** Relative weight where regions overlap and their average is taken (fusion 'average'). */
  weight?: number;
  /** Overrides the sampler's. */
  guidanceScale?: number;
  /** Overrides the initial noise inside the mask. */
  seed?: number;
  /** Share of the steps at which the region begins and ends to act, in [0, 1]. */
  start?: number;
  end?: number;
  /** Whether the region takes part in bootstrapping. */
  bootstrap?: boolean;
  /** Width of the soft edge as a share of the canvas' shorter side, in [0, 0.5]. */
  feather?: number;
  /** The outline that the mask was made from, for metadata and editors. */
  shape?: unknown;
}

/** Something about the request that the user should know; sampling goes on. */
export interface Finding {
  code:
    | 'NO_PROMPT'
    | 'CUT_OFF'
    | 'WEAK_MASK'
    | 'UNCOVERED'
    | 'HIDDEN_REGION'
    | 'TINY_REGION'
    | 'TRUNCATED_PROMPT'
    | 'UNKNOWN_WORDS'
    | 'UNKNOWN_PROPERTY'
    | 'LONG_BOOTSTRAPPING'
    | 'LATE_BOOTSTRAPPING'
    | 'ROUNDED_SIZE'
    | 'NO_ENCODER'
    | 'OTHER_NAME'
    | 'RECIPE_INCOMPLETE'
    | 'RECIPE_APART';
  region?: string;
  message: string;
}

/** The latent canvas: channels, and its size in cells. */
export interface Grid {
  channels: number;
  height: number;
  width: number;
}
