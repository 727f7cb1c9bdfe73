/** A loaded checkpoint: prompts to embeddings, latents to predictions, latents to pictures, pictures to latents. */
import { dirname, join } from 'node:path';
import { InvalidInputError } from '../errors';
import type { ProcessState, ProcessStatus } from '../inference/client';
import { InferenceGroup, type Processes } from '../inference/group';
import type { CallName, Calls, Provider, WireTensor } from '../inference/protocol';
import { JobQueue, type JobQueueOptions } from '../queue/queue';
import { AESTHETIC_SCORE, type CallOptions, type DiffusionModel, type ModelFacts, type UNetRow } from '../model';
import { CONDITIONING_KIND, type Conditioning } from '../types';
import { checkOption, MODEL_OPTIONS } from '../options';
import { Tensor } from '../tensor';
import { physicalCores } from '../cpu';
import { readModelFacts, readVaeFacts } from './model-facts';
import { readLayout } from './layout';
import { modelSetup, partsOf } from './parts';
import { findChanged, stampFolders, type Stamps } from '../files/changed-files';
import { findUnknownWords } from './vocabulary';

export type { ProcessState, ProcessStatus };

export interface CheckpointOptions {
  /** auto takes CUDA when a test model runs on it. Default: auto. */
  provider?: Provider;
  /** Which GPU, from 0. Several have a process each, which share the jobs. */
  deviceId?: number | number[];
  /** Threads of one run. Default: as many as this process has physical cores, shared by the processes. */
  threads?: number;
  /** Most rows of the UNet in one run. Default: 8 on a GPU; on a CPU as many as pay for the model and the canvas. */
  batchSize?: number;
  /**
   * MiB of its device's memory that the inference process may take, weights included; it decides how many rows
   * go into one run, which is never less than one. Default: most of what is free on a GPU, no bound on a CPU.
   */
  memoryBudget?: number;
  /** Tokens of a prompt that a T5 text encoder reads (Stable Diffusion 3, FLUX.1), from 1 to 512. Default: 256; 512 for FLUX.1 [dev]. */
  t5Tokens?: number;
  /** Folders with the libraries that CUDA needs, separated as in PATH, when the system's loader does not know them. */
  libraryPath?: string;
  /** Milliseconds without work after which the inference process ends, until the next request; 0 (default): never. */
  idleTimeout?: number;
  /** Milliseconds that the inference process may work without completing a run or a request; default: no limit. */
  requestTimeout?: number;
  queue?: JobQueueOptions;
  onStatus?: (status: ProcessStatus) => void;
  /** Told when an inference process had to be ended because it hung. */
  onHang?: (text: string) => void;
}

export interface EncodedPrompt {
  /** [1, L, D] */
  embeddings: Tensor;
  /** [1, P], of models that take one. */
  pooled?: Tensor;
  tokenIds: number[];
  /** What did not fit into the tokenizer's limit. */
  truncated?: string;
  /** Words that the checkpoint does not know, where its vocabulary is closed. */
  unknownWords?: string[];
}

export interface DecodeOptions extends CallOptions {
  /** Side of a tile in latent cells; default: the checkpoint's native size, at least 64. */
  tileSize?: number;
  /** Least overlap of tiles in latent cells; default 16. */
  overlap?: number;
  /** The picture's left and right edges touch (a full panorama). */
  circular?: boolean;
}

/** Encoded prompts that are kept. */
const CACHED_PROMPTS = 256;
/** Characters of a prompt that can matter: no token is longer than a few dozen, and 75 of them count. */
const LONGEST_PROMPT = 10_000;
const SMALLEST_TILE = 64;

/**
 * Reads what lies in the folder and starts its inference process, or one a device. Weights are loaded when they are first
 * needed.
 * @throws MultiDiffusionError CHECKPOINT naming the file that is missing, damaged or not understood
 * @param signal gives it up
 * @throws MultiDiffusionError PROVIDER when the execution provider was asked for and can't be used
 */
export async function openCheckpoint(
  folder: string,
  options: CheckpointOptions = {},
  signal?: AbortSignal,
): Promise<Checkpoint> {
  const { provider = 'auto', deviceId = 0, batchSize, memoryBudget, t5Tokens } = options;
  const devices = [...new Set([deviceId].flat())];
  const { threads = Math.max(1, Math.floor(physicalCores() / Math.max(1, devices.length))) } = options;
  if (devices.length === 0 || !devices.every((device) => Number.isInteger(device) && device >= 0))
    throw new InvalidInputError('deviceId', deviceId, 'a whole number, 0 or more, or a list of such numbers');
  for (const [name, value] of Object.entries({ provider, threads, batchSize, memoryBudget }))
    checkOption(name, MODEL_OPTIONS[name as keyof typeof MODEL_OPTIONS], value);
  if (t5Tokens !== undefined && !(Number.isInteger(t5Tokens) && t5Tokens >= 1 && t5Tokens <= 512))
    throw new InvalidInputError('t5Tokens', t5Tokens, 'a whole number from 1 to 512');

  const layout = await readLayout(folder);
  const facts = readModelFacts(layout, provider, { t5Tokens });
  const nativeSize = Math.round(facts.nativeSize / facts.latentFactor);
  const stamps = await stampFolders([
    ...partsOf(layout).map(({ model }) => dirname(model.path)),
    ...layout.textEncoders.map(({ tokenizerFolder }) => tokenizerFolder),
    join(layout.folder, 'scheduler'),
  ]);
  const processes = new InferenceGroup(
    devices.map((device) => ({
      ...modelSetup(layout, { t5Tokens }),
      stamps,
      latentChannels: facts.latentChannels,
      ...readVaeFacts(layout),
      nativeSize,
      defaultTileSize: Math.max(SMALLEST_TILE, nativeSize),
      unetBytes: layout.denoiser.bytes,
      batchSize,
      memoryBudget,
      provider,
      deviceId: device,
      threads,
    })),
    {
      onStatus: options.onStatus,
      onHang: options.onHang,
      idleTimeout: options.idleTimeout,
      requestTimeout: options.requestTimeout,
      libraryPath: options.libraryPath,
    },
  );
  try {
    facts.provider = await processes.open(signal);
  } catch (error) {
    await processes.close();
    throw error;
  }
  return new Checkpoint(facts, processes, new JobQueue({ concurrency: processes.size, ...options.queue }), stamps);
}

export class Checkpoint implements DiffusionModel {
  /** Spent in runs of the UNet since the checkpoint was opened: what the rest of the sampler is measured against. */
  unetMilliseconds = 0;
  private readonly prompts = new Map<string, EncodedPrompt>();
  private zeros?: Pick<EncodedPrompt, 'embeddings' | 'pooled'>;

  /** Use openCheckpoint. */
  constructor(
    readonly facts: ModelFacts,
    private readonly processes: Processes,
    /** Sampling jobs, one at a time a process. Encoding and decoding need no place in it: they go between two UNet runs. */
    readonly queue: JobQueue,
    private readonly stamps: Stamps = {},
  ) {}

  get status(): ProcessStatus {
    return this.processes.status;
  }

  /** Whether a job or a request is under way. */
  get busy(): boolean {
    return this.processes.busy || this.queue.depth > 0;
  }

  /** Whether a file of the folder is another one than when it was opened, or gone. */
  async hasChanged(): Promise<boolean> {
    return (await findChanged(this.stamps)) !== undefined;
  }

  /** Id of the inference process, when it runs; of the first where there are several. */
  get pid(): number | undefined {
    return this.processes.pids[0];
  }

  /** Ids of the inference processes that run. */
  get pids(): number[] {
    return this.processes.pids;
  }

  /**
   * Loads at once what is otherwise loaded when the first picture needs it, so that this one need not wait.
   * @throws what a first picture would
   */
  async load({ signal }: CallOptions = {}): Promise<void> {
    await this.processes.load(signal);
  }

  /**
   * Embeddings of each prompt, from the cache where they are there: the same Tensor object for the same
   * prompt.
   */
  async encodePrompts(prompts: string[], options: CallOptions = {}): Promise<EncodedPrompt[]> {
    prompts.forEach((prompt) => {
      if (typeof prompt !== 'string') throw new InvalidInputError('prompt', prompt, 'a text');
    });
    const found = new Map<string, EncodedPrompt>();
    for (const prompt of prompts) {
      const known = this.prompts.get(prompt);
      if (known) found.set(prompt, known);
    }
    const missing = [...new Set(prompts)].filter((prompt) => !found.has(prompt));
    if (missing.length > 0) {
      const cuts = missing.map(cutPrompt);
      const encoded = await this.processes.call(
        'encodePrompts',
        () => ({ prompts: cuts.map(({ head }) => head) }),
        options.signal,
      );
      encoded.forEach(({ embeddings, pooled, tokenIds, truncated }, i) => {
        const { head, tail } = cuts[i];
        found.set(missing[i], {
          embeddings: toTensor(embeddings),
          ...(pooled && { pooled: toTensor(pooled) }),
          tokenIds,
          truncated: tail || truncated ? `${truncated ?? ''}${tail}` : undefined,
          unknownWords: this.facts.vocabulary && findUnknownWords(head, this.facts.vocabulary),
        });
      });
    }
    const results = prompts.map((prompt) => found.get(prompt) as EncodedPrompt);
    found.forEach((encoded, prompt) => this.remember(prompt, encoded));
    return results;
  }

  /**
   * A prompt with its negative prompt, as the sampler takes it.
   * @param negativePrompt absent is not the same as empty to every model: see ModelFacts.absentNegative
   */
  async encodeConditioning(
    prompt: string,
    negativePrompt?: string | null,
    options: CallOptions = {},
  ): Promise<Conditioning> {
    const absent = negativePrompt === undefined || negativePrompt === null;
    const zeros = absent && this.facts.absentNegative === 'zeros';
    const [positive, negative] = await this.encodePrompts(zeros ? [prompt] : [prompt, negativePrompt ?? ''], options);
    const { embeddings, pooled } = zeros ? this.zerosLike(positive) : negative;
    return {
      kind: CONDITIONING_KIND,
      prompt,
      negativePrompt: negativePrompt ?? '',
      embeddings: positive.embeddings,
      negativeEmbeddings: embeddings,
      ...(positive.pooled && { pooled: positive.pooled, negativePooled: pooled }),
      ...(absent && (this.facts.absentNegative ?? 'empty') !== 'empty' && { negativeAbsent: true }),
      ...(positive.truncated === undefined ? {} : { truncated: positive.truncated }),
      ...(positive.unknownWords?.length ? { unknownWords: positive.unknownWords } : {}),
    };
  }

  /** Zeros in the place of an encoded prompt: the same Tensor objects each time, so that they cross once. */
  private zerosLike({ embeddings, pooled }: EncodedPrompt): Pick<EncodedPrompt, 'embeddings' | 'pooled'> {
    const same = this.zeros?.embeddings.dims.join() === embeddings.dims.join();
    const zero = ({ dtype, dims, buffer }: Tensor): Tensor =>
      new Tensor(dtype, dims, new ArrayBuffer(buffer.byteLength));
    if (!this.zeros || !same) this.zeros = { embeddings: zero(embeddings), ...(pooled && { pooled: zero(pooled) }) };
    return this.zeros;
  }

  async predict(rows: UNetRow[], timestep: number, options: CallOptions = {}): Promise<Tensor<'float32'>[]> {
    if (rows.length === 0) return [];
    const { dims, size: rowSize } = rows[0].latents;
    // What several rows see crosses once.
    const inputs = [...new Set(rows.map((row) => row.latents))];
    const latents = new Float32Array(inputs.length * rowSize);
    inputs.forEach((input, i) => {
      if (input.size !== rowSize)
        throw new InvalidInputError('rows[].latents', input.dims, `[${dims.join(', ')}] as in rows[0]`);
      latents.set(input.data, i * rowSize);
    });
    const { outputs, runMilliseconds } = await this.processes.call(
      'predict',
      (client) => ({
        latents,
        dims: [inputs.length, ...dims.slice(1)],
        inputOf: inputs.length < rows.length ? rows.map((row) => inputs.indexOf(row.latents)) : undefined,
        timestep,
        embeddings: rows.map((row) => client.hold(row.embeddings)),
        ...(rows.every(({ pooled }) => pooled) && { pooled: rows.map((row) => client.hold(row.pooled as Tensor)) }),
        guidanceScales: this.facts.guidanceEmbedded ? rows.map((row) => row.guidanceScale ?? 1) : undefined,
        timeIds: this.facts.timeIds ? rows.map((row) => row.timeIds ?? wholePicture(this.facts, dims)) : undefined,
      }),
      options.signal,
    );
    this.unetMilliseconds += runMilliseconds;
    return rows.map((_, i) => Tensor.float32(outputs.slice(i * rowSize, (i + 1) * rowSize), dims));
  }

  /**
   * @param latents [1, C, h, w], scaled as the UNet uses them
   * @returns uint8 [H, W, 3]
   */
  async decode(latents: Tensor, options: DecodeOptions = {}): Promise<Tensor<'uint8'>> {
    const { signal, tileSize, overlap, circular } = options;
    const [batch, channels, height, width] = latents.dims;
    if (
      latents.dtype !== 'float32' ||
      latents.dims.length !== 4 ||
      batch !== 1 ||
      channels !== this.facts.latentChannels ||
      height < 1 ||
      width < 1
    ) {
      throw new InvalidInputError(
        'latents',
        String(latents),
        `a float32 tensor [1, ${this.facts.latentChannels}, height, width]`,
      );
    }
    if (tileSize !== undefined && (!Number.isInteger(tileSize) || tileSize < 8))
      throw new InvalidInputError('tileSize', tileSize, 'a whole number of latent cells, 8 or more');
    if (overlap !== undefined && (!Number.isInteger(overlap) || overlap < 0))
      throw new InvalidInputError('overlap', overlap, 'a whole number of latent cells, 0 or more');
    const { pixels, dims } = await this.processes.call(
      'decode',
      () => ({ latents: latents.data as Float32Array, dims: latents.dims, tileSize, overlap, circular }),
      signal,
    );
    return Tensor.uint8(pixels, dims);
  }

  async encodeImages(images: Tensor<'uint8'>[], options: CallOptions = {}): Promise<Tensor<'float32'>[]> {
    if (images.length === 0) return [];
    const { dims } = images[0];
    if (dims.length !== 3 || dims[2] !== 3)
      throw new InvalidInputError('images[0]', String(images[0]), 'a uint8 tensor [height, width, 3]');
    const size = images[0].size;
    // One is not copied: it may be large.
    const pixels = images.length === 1 ? (images[0].data as Uint8Array) : new Uint8Array(images.length * size);
    images.forEach((image, i) => {
      if (image.dims.join() !== dims.join())
        throw new InvalidInputError(`images[${i}]`, image.dims, `[${dims.join(', ')}] as images[0]`);
      if (images.length > 1) pixels.set(image.data, i * size);
    });
    const { latents, dims: latentDims } = await this.processes.call(
      'encodeImages',
      () => ({ pixels, dims: [images.length, ...dims] }),
      options.signal,
    );
    const latentSize = latents.length / images.length;
    return images.map((_, i) =>
      Tensor.float32(latents.slice(i * latentSize, (i + 1) * latentSize), [1, ...latentDims.slice(1)]),
    );
  }

  /**
   * A call that was put together elsewhere, as a worker of a pool gets it.
   * @param held the embeddings that its parameters name
   */
  call<N extends CallName>(
    name: N,
    params: Calls[N]['params'],
    held: Tensor[],
    signal?: AbortSignal,
  ): Promise<Calls[N]['result']> {
    return this.processes.call(
      name,
      (holder) => {
        for (const tensor of held) holder.hold(tensor);
        return params;
      },
      signal,
    );
  }

  /** Ends the inference processes and frees its memory; the next request starts them again. Jobs are cancelled. */
  async unload(): Promise<void> {
    this.queue.cancelAll('The model was unloaded.');
    await this.processes.unload();
  }

  /** Ends the inference processes for good. Jobs are cancelled. */
  async close(): Promise<void> {
    this.queue.close();
    this.prompts.clear();
    await this.processes.close();
  }

  /** Keeps the most recently used prompts. */
  private remember(prompt: string, encoded: EncodedPrompt): void {
    if (prompt.length > LONGEST_PROMPT) return;
    this.prompts.delete(prompt);
    this.prompts.set(prompt, encoded);
    const [oldest] = this.prompts.keys();
    if (this.prompts.size > CACHED_PROMPTS) this.prompts.delete(oldest);
  }
}

/** What a row is told that says nothing of sizes: that it is a whole picture. */
function wholePicture({ latentFactor, timeIds }: ModelFacts, [, , height, width]: number[]): number[] {
  const size = [height * latentFactor, width * latentFactor];
  return [...size, 0, 0, ...(timeIds === 5 ? [AESTHETIC_SCORE] : size)];
}

/** Splits off what lies so far behind the tokenizer's limit that it cannot count. */
function cutPrompt(prompt: string): { head: string; tail: string } {
  if (prompt.length <= LONGEST_PROMPT) return { head: prompt, tail: '' };
  const text = prompt.slice(0, 10 * LONGEST_PROMPT).replace(/\s+/g, ' ');
  const space = text.lastIndexOf(' ', LONGEST_PROMPT);
  const end = space > 0 ? space : LONGEST_PROMPT;
  return { head: text.slice(0, end), tail: text.slice(end) };
}

function toTensor({ dtype, dims, data }: WireTensor): Tensor {
  // What crossed the channel is a window into a shared buffer.
  return new Tensor(dtype, dims, data.slice().buffer as ArrayBuffer);
}
