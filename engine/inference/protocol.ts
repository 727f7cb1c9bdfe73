/**
 * What the client and the inference process say to each other, over Node's IPC channel with structured
 * clone, so that typed arrays cross as bytes.
 *
 * A request carries an id and is answered once. `hold`, `drop` and `cancel` are orders without an answer.
 * Messages arrive in the order in which they were sent.
 */
import type { Provider } from './providers';
import type { ErrorCode } from '../errors';
import type { Piece } from './pieces';

export type { Provider };

/** The models of a checkpoint, each in a file of its own. A transformer stands where older models have a UNet. */
export type Component =
  | 'textEncoder'
  | 'textEncoder2'
  | 'textEncoder3'
  | 'unet'
  | 'transformer'
  | 'vaeDecoder'
  | 'vaeEncoder';

/** A text encoder with its tokenizer, and what is taken from it. */
export interface TextEncoderSetup {
  component: Component;
  kind: 'clip' | 't5';
  tokenizerFolder: string;
  /** Ids of a prompt, with everything that the tokenizer adds. */
  maxTokens: number;
  /** How many ids the encoder has embeddings for, where its configuration tells. */
  vocabularySize?: number;
  /** Name of the output with states [1, L, D], where they are used. */
  states?: string;
  /** Name of the output with one embedding [1, P] for the text, where it is used. */
  pooled?: string;
}

/** Everything that the process must know about a checkpoint. */
export interface ProcessSetup {
  components: Partial<Record<Component, string>>;
  /** Bytes of each with its weights: what loading it takes at least. */
  bytes?: Partial<Record<Component, number>>;
  /** Which of them predicts; default: the UNet. */
  denoiser?: 'unet' | 'transformer';
  /** What the checkpoint's files looked like when it was opened; see changed-files.ts. */
  stamps?: Record<string, string>;
  textEncoders: TextEncoderSetup[];
  /** See text.ts. */
  statesWidth?: number;
  absentTokens?: number;
  latentChannels: number;
  /** Image pixels per latent cell and side. */
  latentFactor: number;
  scalingFactor: number;
  shiftFactor: number;
  /** Of the VAE's latents, channel by channel, instead of a shift. */
  latentsMean?: number[];
  latentsStd?: number[];
  /** Whether the encoder's normalisations are computed exactly; those of Stable Diffusion 1 and 2 stay as they were. */
  exactEncoder?: boolean;
  /** Side in latent cells of the pictures that the model was trained on. */
  nativeSize: number;
  /** Side of a decoder tile in latent cells, unless a request says otherwise. */
  defaultTileSize: number;
  /** Bytes of the UNet's weights: together with the canvas they say how many rows one run takes on a CPU. */
  unetBytes: number;
  /** Most rows of the UNet in one run; default: what fits the device. */
  batchSize?: number;
  /** MiB that the process may take on its device; default: most of what is free on a GPU, no bound on a CPU. */
  memoryBudget?: number;
  provider: Provider;
  deviceId: number;
  threads: number;
}

/** A float array as it crosses: half precision as raw bits. */
export interface WireTensor {
  dtype: 'float32' | 'float16';
  dims: number[];
  data: Float32Array | Uint16Array;
}

/** What an encoded prompt gives the denoiser. */
export interface EncodedText {
  /** [1, L, D] */
  embeddings: WireTensor;
  /** [1, P], of models that take one. */
  pooled?: WireTensor;
}

/** Each request's parameters and its answer. */
export interface Calls {
  open: { params: { setup: ProcessSetup }; result: { provider: string } };
  /** Everything that a picture needs, before it is needed. */
  load: { params: object; result: void };
  encodePrompts: {
    params: { prompts: string[] };
    /** For each prompt; ids and what was cut off are those of the tokenizer that reads the farthest. */
    result: Array<EncodedText & { tokenIds: number[]; truncated?: string }>;
  };
  predict: {
    params: {
      /** All inputs in one array, [inputs, C, h, w]. */
      latents: Float32Array;
      dims: number[];
      /** For each row which of the inputs it sees; without it each row has its own. */
      inputOf?: number[];
      timestep: number;
      /** For each row the id of held embeddings. */
      embeddings: string[];
      /** For each row the id of a held pooled embedding, where the model takes them. */
      pooled?: string[];
      /** For each row, when the model takes the guidance scale as an input. */
      guidanceScales?: number[];
      /** For each row, when the model is told sizes and crop. */
      timeIds?: number[][];
    };
    /** Model outputs, [rows, C, h, w], and the time that the UNet itself took. */
    result: { outputs: Float32Array; runMilliseconds: number };
  };
  decode: {
    /** UNet latents [1, C, h, w]; tile and overlap in latent cells. */
    params: { latents: Float32Array; dims: number[]; tileSize?: number; overlap?: number; circular?: boolean };
    /** RGB, [H, W, 3]. */
    result: { pixels: Uint8Array; dims: number[] };
  };
  encodeImages: {
    /** RGB, all images in one array, [images, H, W, 3]. */
    params: { pixels: Uint8Array; dims: number[] };
    result: { latents: Float32Array; dims: number[] };
  };
}

export type CallName = keyof Calls;

export type ToProcess =
  | Piece
  | { [N in CallName]: { type: N; id: number } & Calls[N]['params'] }[CallName]
  /** Keeps embeddings for later predict requests. */
  | { type: 'hold'; key: string; tensor: WireTensor }
  | { type: 'drop'; key: string }
  /** Ends the request at its next break; it is answered with an error. */
  | { type: 'cancel'; id: number };

export type FromProcess =
  | Piece
  | { type: 'result'; id: number; result: unknown }
  | { type: 'error'; id: number; code: ErrorCode; message: string }
  /** A component's weights begin or end to be loaded, or it is run for the first time with a new size. */
  | { type: 'loading' | 'warming'; component: string; done: boolean }
  /** Runs have been completed since the last message. */
  | { type: 'progress' };
