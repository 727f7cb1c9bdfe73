/**
 * The four models of a latent diffusion checkpoint, each a function from arrays to arrays. What their
 * inputs are called, their types and ranks are taken from the loaded graphs, because every exporter has
 * its own habits.
 */
import { MultiDiffusionError } from '../errors';
import { runInBatches, largestCpuBatch, warmUp, type Batch, type BatchRules, type MemoryBudget } from './batching';
import { halfToFloat } from './float16';
import type { WireTensor } from './protocol';
import { feed, toFloat32, toWire, type Feed, type Request, type Session, type TensorInfo } from './sessions';
import { spreadTiles, tileWeights } from './tiles';
import { guidanceEmbedding } from './timestep-cond';

/** Most rows of one run on a GPU, where larger ones gain nothing any more. */
const LARGEST_GPU_BATCH = 8;

export interface BatchOptions {
  gpu: boolean;
  /** Bytes of the UNet's weights. */
  unetBytes: number;
  /** Most rows of the UNet in one run, when somebody has said so. */
  batchSize?: number;
  budget?: MemoryBudget;
  /** The first runs of a size begin, or are done. */
  onWarming?: (done: boolean) => void;
}

/** How many rows of the UNet go into one run, and what has been learnt about it, for each size of input. */
export class BatchMemory {
  private readonly rules = new Map<string, BatchRules>();

  constructor(private readonly options: BatchOptions) {}

  /**
   * @param dims of all rows, [rows, C, h, w]
   * @param run evaluates rows `start` … `start + rows − 1`, padded to `size`
   */
  async run(sample: TensorInfo, dims: number[], run: (start: number, batch: Batch) => Promise<void>): Promise<void> {
    const rules = this.rulesFor(sample, dims);
    const { gpu, budget, onWarming } = this.options;
    // On a CPU sizes need no preparation, and are small enough unless somebody says what is enough.
    if ((gpu || budget) && rules.largest > 1) {
      let warming = false;
      try {
        await warmUp(dims[0], rules, budget, (size) => {
          if (!warming) onWarming?.(false);
          warming = true;
          return run(0, { rows: 1, size });
        });
      } finally {
        if (warming) onWarming?.(true);
      }
    }
    await runInBatches(dims[0], rules, run);
  }

  private rulesFor({ shape }: TensorInfo, [, ...dims]: number[]): BatchRules {
    const key = dims.join('x');
    let rules = this.rules.get(key);
    if (!rules) {
      const { gpu, unetBytes, batchSize } = this.options;
      const fixed = typeof shape[0] === 'number' && shape[0] > 0 ? shape[0] : undefined;
      rules = { largest: batchSize ?? (gpu ? LARGEST_GPU_BATCH : largestCpuBatch(unetBytes, dims[1] * dims[2])), buckets: gpu, fixed };
      this.rules.set(key, rules);
    }
    return rules;
  }
}

/** Token ids [prompts][L] → one [1, L, D] per prompt: the text encoder's last hidden state. */
export async function encodeText(session: Session, request: Request, prompts: number[][]): Promise<WireTensor[]> {
  const ids = session.input('input_ids') ?? session.inputs[0];
  const mask = session.input('attention_mask');
  const output = outputOf(session, ['last_hidden_state']);
  const embeddings: WireTensor[] = [];
  for (const prompt of prompts) {
    const dims = [1, prompt.length];
    const feeds: Record<string, Feed> = { [ids.name]: feed(ids, prompt, dims) };
    if (mask) feeds[mask.name] = feed(mask, new Array<number>(prompt.length).fill(1), dims);
    embeddings.push(toWire((await session.run(request, feeds))[output]));
  }
  return embeddings;
}

export interface UnetInput {
  /** [rows, C, h, w] */
  latents: Float32Array;
  dims: number[];
  timestep: number;
  /** One [1, L, D] per row. */
  embeddings: WireTensor[];
  guidanceScales?: number[];
}

/** The UNet's output for every row, [rows, C, h, w]. */
export async function predict(session: Session, request: Request, input: UnetInput, memory: BatchMemory): Promise<Float32Array> {
  const sample = requireInput(session, 'sample');
  const timestep = requireInput(session, 'timestep');
  const states = requireInput(session, 'encoder_hidden_states');
  const condition = session.input('timestep_cond');
  const output = outputOf(session, ['out_sample']);
  const [rows, ...rowDims] = input.dims;
  const rowSize = rowDims.reduce((product, dim) => product * dim, 1);
  const outputs = new Float32Array(rows * rowSize);

  await memory.run(sample, input.dims, async (start, batch) => {
    // Padding repeats the batch's last row.
    const rowAt = (i: number): number => start + Math.min(i, batch.rows - 1);
    const feeds: Record<string, Feed> = {
      sample: feed(sample, gather(input.latents, rowSize, rowAt, batch), [batch.size, ...rowDims]),
      timestep: timestepFeed(timestep, sample, input.timestep, batch.size),
      encoder_hidden_states: stackedEmbeddings(session, states, Array.from({ length: batch.size }, (_, i) => input.embeddings[rowAt(i)])),
    };
    if (condition) {
      const scales = Array.from({ length: batch.size }, (_, i) => input.guidanceScales?.[rowAt(i)] ?? 1);
      const width = typeof condition.shape[1] === 'number' ? condition.shape[1] : 256;
      feeds.timestep_cond = feed(condition, guidanceEmbedding(scales, width), [batch.size, width]);
    }
    const result = toFloat32((await session.run(request, feeds))[output]);
    outputs.set(result.subarray(0, batch.rows * rowSize), start * rowSize);
  });
  return outputs;
}

/** A scalar, [1] or one number a row: a named dimension is the batch when the sample has the same one. */
function timestepFeed(timestep: TensorInfo, sample: TensorInfo, value: number, rows: number): Feed {
  if (timestep.shape.length === 0) return feed(timestep, [value], []);
  const perRow = timestep.shape[0] === sample.shape[0] && timestep.shape[0] !== 1;
  const count = perRow ? rows : 1;
  return feed(timestep, new Array<number>(count).fill(value), [count]);
}

function gather(values: Float32Array, rowSize: number, rowAt: (i: number) => number, batch: Batch): Float32Array {
  if (batch.size === batch.rows) return values.subarray(rowAt(0) * rowSize, (rowAt(0) + batch.rows) * rowSize);
  const gathered = new Float32Array(batch.size * rowSize);
  for (let i = 0; i < batch.size; i++) gathered.set(values.subarray(rowAt(i) * rowSize, (rowAt(i) + 1) * rowSize), i * rowSize);
  return gathered;
}

/** What each session was given last: most steps of a picture ask for the same prompts. */
const lastStacks = new WeakMap<Session, { rows: WireTensor[]; feed: Feed }>();

function stackedEmbeddings(session: Session, input: TensorInfo, rows: WireTensor[]): Feed {
  const last = lastStacks.get(session);
  if (last && last.rows.length === rows.length && rows.every((row, i) => row === last.rows[i])) return last.feed;
  const stacked = stackEmbeddings(input, rows);
  lastStacks.set(session, { rows, feed: stacked });
  return stacked;
}

function stackEmbeddings(input: TensorInfo, rows: WireTensor[]): Feed {
  const [, ...dims] = rows[0].dims;
  const size = rows[0].data.length;
  if (rows.some((row) => row.data.length !== size)) {
    throw new MultiDiffusionError('INVALID_INPUT', 'The embeddings of one picture differ in size: they were made with different models. Encode all prompts with the model that draws.');
  }
  // Half precision for a half-precision graph goes in as it is.
  const asBits = input.type === 'float16' && rows.every((row) => row.dtype === 'float16');
  const stacked = asBits ? new Uint16Array(rows.length * size) : new Float32Array(rows.length * size);
  rows.forEach((row, i) => stacked.set(asBits || row.dtype === 'float32' ? row.data : halfToFloat(row.data), i * size));
  const shape = [rows.length, ...dims];
  return asBits ? { type: 'float16', data: stacked, dims: shape, location: 'cpu' } : feed(input, stacked, shape);
}

export interface DecodeOptions {
  /** Side of a tile in latent cells. */
  tileSize: number;
  /** Least overlap of neighbouring tiles in latent cells. */
  overlap: number;
  /** The picture's left and right edges touch: decode them as neighbours. */
  circular?: boolean;
}

/** What decoding has learnt. */
export interface TileMemory {
  /** Side of the largest tile that memory sufficed for, where a larger one has failed. */
  largest?: number;
}

export interface Pixels {
  /** RGB, row by row. */
  data: Uint8Array;
  /** [H, W, 3] */
  dims: number[];
}

/**
 * VAE latents → picture. What is larger than a tile is decoded tile by tile, and overlaps are blended, so
 * that memory depends on the tile. When memory runs out tiles are halved, and `memory` keeps the smaller size.
 * @param latents [1, C, h, w], already divided by the scaling factor
 */
export async function decode(session: Session, request: Request, latents: Float32Array, dims: number[], options: DecodeOptions, memory: TileMemory = {}): Promise<Pixels> {
  const wrap = options.circular ? Math.min(options.overlap, dims[3]) : 0;
  const field = wrap > 0 ? wrapColumns(latents, dims, wrap) : { data: latents, dims };
  let tileSize = Math.min(options.tileSize, memory.largest ?? Infinity);
  for (;;) {
    try {
      const overlap = Math.min(options.overlap, Math.floor(tileSize / 2));
      const image = await decodeTiles(session, request, field.data, field.dims, tileSize, overlap);
      return quantise(image.data, image.height, image.width, (wrap / field.dims[3]) * image.width);
    } catch (error) {
      if (error instanceof MultiDiffusionError) throw error;
      if (tileSize <= 16) {
        throw new MultiDiffusionError('INFERENCE', `Memory does not suffice to decode even a small tile (${(error as Error).message}).`, { cause: error });
      }
      tileSize = Math.max(16, Math.floor(Math.min(tileSize, Math.max(dims[2], dims[3])) / 2));
      memory.largest = tileSize;
    }
  }
}

async function decodeTiles(session: Session, request: Request, latents: Float32Array, dims: number[], tileSize: number, overlap: number) {
  const [, channels, height, width] = dims;
  const input = session.inputs[0];
  const output = outputOf(session, ['sample']);
  const tileHeight = fixedSize(input, 2) ?? Math.min(tileSize, height);
  const tileWidth = fixedSize(input, 3) ?? Math.min(tileSize, width);
  if (tileHeight > height || tileWidth > width) {
    throw new MultiDiffusionError('INFERENCE', `The vaeDecoder takes latents of ${tileHeight}×${tileWidth} only, and these are ${height}×${width}. Use a canvas of at least that size, or an export with free sizes.`);
  }
  const rows = spreadTiles(height, tileHeight, Math.min(overlap, tileHeight - 1));
  const columns = spreadTiles(width, tileWidth, Math.min(overlap, tileWidth - 1));
  let image = new Float32Array(0);
  let factor = 0;
  let rowWeights: Float32Array[] = [];
  let columnWeights: Float32Array[] = [];
  for (let r = 0; r < rows.length; r++) {
    for (let c = 0; c < columns.length; c++) {
      const tile = cut(latents, channels, width, height, rows[r], columns[c], tileHeight, tileWidth);
      const decoded = (await session.run(request, { [input.name]: feed(input, tile, [1, channels, tileHeight, tileWidth]) }))[output];
      if (factor === 0) {
        factor = decoded.dims[2] / tileHeight;
        image = new Float32Array(3 * height * width * factor * factor);
        rowWeights = tileWeights(rows.map((y) => y * factor), tileHeight * factor, height * factor);
        columnWeights = tileWeights(columns.map((x) => x * factor), tileWidth * factor, width * factor);
      }
      const pixels = toFloat32(decoded);
      if (pixels.some(Number.isNaN)) {
        throw new MultiDiffusionError('INFERENCE', 'The vaeDecoder gave values that are no numbers (NaN). With a half-precision model this is an overflow: use its float32 export.');
      }
      blend(image, width * factor, height * factor, pixels, rows[r] * factor, columns[c] * factor, rowWeights[r], columnWeights[c]);
    }
  }
  return { data: image, height: height * factor, width: width * factor };
}

function cut(values: Float32Array, channels: number, width: number, height: number, top: number, left: number, tileHeight: number, tileWidth: number): Float32Array {
  const tile = new Float32Array(channels * tileHeight * tileWidth);
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < tileHeight; y++) {
      const from = (c * height + top + y) * width + left;
      tile.set(values.subarray(from, from + tileWidth), (c * tileHeight + y) * tileWidth);
    }
  }
  return tile;
}

function blend(image: Float32Array, width: number, height: number, tile: Float32Array, top: number, left: number, rowWeights: Float32Array, columnWeights: Float32Array): void {
  const [tileHeight, tileWidth] = [rowWeights.length, columnWeights.length];
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < tileHeight; y++) {
      const to = (c * height + top + y) * width + left;
      const from = (c * tileHeight + y) * tileWidth;
      for (let x = 0; x < tileWidth; x++) image[to + x] += tile[from + x] * rowWeights[y] * columnWeights[x];
    }
  }
}

/** Latents with `wrap` columns of the other side added on both sides. */
function wrapColumns(latents: Float32Array, dims: number[], wrap: number): { data: Float32Array; dims: number[] } {
  const [, channels, height, width] = dims;
  const wide = width + 2 * wrap;
  const data = new Float32Array(channels * height * wide);
  for (let row = 0; row < channels * height; row++) {
    for (let x = 0; x < wide; x++) data[row * wide + x] = latents[row * width + ((x - wrap + width) % width)];
  }
  return { data, dims: [1, channels, height, wide] };
}

/** Planes in [−1, 1] → interleaved bytes, as diffusers rounds them (x/2 + 0.5, halves to even), without `margin` columns left and right. */
function quantise(image: Float32Array, height: number, width: number, margin: number): Pixels {
  const inner = width - 2 * margin;
  const data = new Uint8ClampedArray(height * inner * 3);
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < height; y++) {
      const from = (c * height + y) * width + margin;
      const to = y * inner * 3 + c;
      for (let x = 0; x < inner; x++) data[to + x * 3] = (image[from + x] / 2 + 0.5) * 255;
    }
  }
  return { data: new Uint8Array(data.buffer), dims: [height, inner, 3] };
}

/**
 * Pictures → VAE latents, the mean of the posterior where the graph gives it, [images, C, h, w]; not yet
 * scaled.
 * @param pixels RGB bytes, [images, H, W, 3]
 */
export async function encodeImages(session: Session, request: Request, pixels: Uint8Array, dims: number[], channels: number): Promise<{ data: Float32Array; dims: number[] }> {
  const [count, height, width] = dims;
  const input = session.inputs[0];
  const output = outputOf(session, ['latent_sample', 'latent_parameters']);
  const plane = height * width;
  let latents = new Float32Array(0);
  let shape: number[] = [];
  for (let i = 0; i < count; i++) {
    const image = new Float32Array(3 * plane);
    for (let c = 0; c < 3; c++) {
      for (let p = 0; p < plane; p++) image[c * plane + p] = pixels[(i * plane + p) * 3 + c] / 127.5 - 1;
    }
    const result = (await session.run(request, { [input.name]: feed(input, image, [1, 3, height, width]) }))[output];
    // latent_parameters holds means and log-variances: twice the channels, means first.
    shape = [channels, result.dims[2], result.dims[3]];
    const size = shape[0] * shape[1] * shape[2];
    if (latents.length === 0) latents = new Float32Array(count * size);
    latents.set(toFloat32(result).subarray(0, size), i * size);
  }
  return { data: latents, dims: [count, ...shape] };
}

function requireInput(session: Session, name: string): TensorInfo {
  const input = session.input(name);
  if (!input) throw new MultiDiffusionError('CHECKPOINT', `The ${session.component} has no input ${name}.`);
  return input;
}

function outputOf(session: Session, names: string[]): string {
  return names.find((name) => session.outputs.some((output) => output.name === name)) ?? session.outputs[0].name;
}

function fixedSize(input: TensorInfo, dimension: number): number | undefined {
  const size = input.shape[dimension];
  return typeof size === 'number' && size > 0 ? size : undefined;
}
