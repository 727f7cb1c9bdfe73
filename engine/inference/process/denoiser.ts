/**
 * The model that predicts: a UNet, or a transformer. What its inputs are called, their types and ranks are taken
 * from the loaded graph, because every exporter has its own habits; see ../bindings.ts.
 */
import { MultiDiffusionError } from '../../errors';
import { bindDenoiser, type DenoiserRole } from '../bindings';
import type { WireTensor } from '../protocol';
import type { Batch, BatchMemory } from './batching';
import { halfToFloat } from './float16';
import {
  checkNumbers,
  checkShape,
  feed,
  outputOf,
  toFloat32,
  type Feed,
  type Request,
  type Session,
  type TensorInfo,
} from './sessions';
import { guidanceEmbedding } from './timestep-cond';

export interface DenoiserInput {
  /** [rows, C, h, w] */
  latents: Float32Array;
  dims: number[];
  /** From 0 to 1000. */
  timestep: number;
  /** One [1, L, D] per row. */
  embeddings: WireTensor[];
  /** One [1, P] per row, where the model takes them. */
  pooled?: WireTensor[];
  guidanceScales?: number[];
  /** Sizes and crop, per row. */
  timeIds?: number[][];
}

/** Models of packed latents take timesteps from 0 to 1. */
const TRAIN_TIMESTEPS = 1000;

/** The model's output for every row, [rows, C, h, w]. */
export async function predict(
  session: Session,
  request: Request,
  input: DenoiserInput,
  memory: BatchMemory,
): Promise<Float32Array> {
  const { inputs, missing, unknown } = bindDenoiser(session.inputs);
  if (missing.length > 0)
    throw new MultiDiffusionError('CHECKPOINT', `The ${session.component} has no input ${missing.join(', ')}.`);
  if (unknown.length > 0)
    throw new MultiDiffusionError(
      'CHECKPOINT',
      `The ${session.component} asks for an unknown input ${unknown[0].name}.`,
    );
  const sample = inputs.sample!;
  const output = outputOf(session, ['out_sample', 'out_hidden_states']);
  const [rows, ...rowDims] = input.dims;
  const rowSize = rowDims.reduce((product, dim) => product * dim, 1);
  const outputs = new Float32Array(rows * rowSize);
  const packed = sample.shape.length === 3;
  if (packed && (rowDims[1] % 2 || rowDims[2] % 2))
    throw new MultiDiffusionError('INFERENCE', `The ${session.component} takes latents of even height and width only.`);

  await memory.run(sample, input.dims, async (start, batch) => {
    // Padding repeats the batch's last row.
    const rowAt = (i: number): number => start + Math.min(i, batch.rows - 1);
    const each = <T>(values: readonly T[]): T[] => Array.from({ length: batch.size }, (_, i) => values[rowAt(i)]);
    const latents = gather(input.latents, rowSize, rowAt, batch);
    const feeds: Record<string, Feed> = {};
    const give = (role: DenoiserRole, make: (info: TensorInfo) => Feed): void => {
      const info = inputs[role];
      if (info) feeds[info.name] = make(info);
    };
    give('sample', (info) =>
      packed
        ? feed(info, pack(latents, batch.size, rowDims), [batch.size, ...packedDims(rowDims)])
        : feed(info, latents, [batch.size, ...rowDims]),
    );
    give('timestep', (info) =>
      timestepFeed(info, inputs, packed ? input.timestep / TRAIN_TIMESTEPS : input.timestep, batch.size),
    );
    give('states', (info) => stacked(session, info, each(input.embeddings)));
    give('pooled', (info) => stacked(session, info, each(requirePooled(session, input.pooled))));
    give('timeIds', (info) =>
      feed(info, each(requireSizes(session, input.timeIds)).flat(), [batch.size, widthOf(info, 6)]),
    );
    const scales = each(input.guidanceScales ?? []).map((scale) => scale ?? 1);
    give('timestepCond', (info) => {
      const width = widthOf(info, 256);
      return feed(info, guidanceEmbedding(scales, width), [batch.size, width]);
    });
    give('guidance', (info) => feed(info, scales, [batch.size]));
    give('imageIds', (info) => placesFeed(info, imagePlaces(rowDims[1] / 2, rowDims[2] / 2), batch.size));
    give('textIds', (info) => placesFeed(info, new Float32Array(3 * input.embeddings[0].dims[1]), batch.size));

    const answered = (await session.run(request, feeds))[output];
    checkShape(session, answered, [batch.size, ...(packed ? packedDims(rowDims) : rowDims)], 'that denoises');
    checkNumbers(session, answered);
    const result = toFloat32(answered);
    const predicted = packed ? unpack(result, batch.size, rowDims) : result;
    outputs.set(predicted.subarray(0, batch.rows * rowSize), start * rowSize);
  });
  return outputs;
}

function requirePooled(session: Session, pooled: WireTensor[] | undefined): WireTensor[] {
  if (pooled) return pooled;
  throw new MultiDiffusionError(
    'INVALID_INPUT',
    `The ${session.component} asks for pooled embeddings, and a prompt has none: ` +
      'it was encoded with another model. Encode all prompts with the model that draws.',
  );
}

function requireSizes(session: Session, timeIds: number[][] | undefined): number[][] {
  if (timeIds) return timeIds;
  throw new MultiDiffusionError('INFERENCE', `The ${session.component} needs sizes (time_ids), but got none.`);
}

function widthOf({ shape }: TensorInfo, usual: number): number {
  return typeof shape[1] === 'number' && shape[1] > 0 ? shape[1] : usual;
}

/**
 * A scalar, [1] or one number a row. A UNet's named dimension is the batch when the sample has the same one; a
 * transformer's always is, whatever it is called.
 */
function timestepFeed(
  timestep: TensorInfo,
  inputs: Partial<Record<DenoiserRole, TensorInfo>>,
  value: number,
  rows: number,
): Feed {
  if (timestep.shape.length === 0) return feed(timestep, [value], []);
  const [length] = timestep.shape;
  const transformer = inputs.pooled !== undefined && inputs.timeIds === undefined;
  const perRow = length !== 1 && (transformer || length === inputs.sample!.shape[0]);
  const count = perRow ? rows : 1;
  return feed(timestep, new Array<number>(count).fill(value), [count]);
}

/** The dimensions of one packed row: a token for each patch of 2×2 cells. */
function packedDims([channels, height, width]: number[]): [tokens: number, width: number] {
  return [(height / 2) * (width / 2), 4 * channels];
}

/**
 * [rows, C, h, w] → [rows, h/2 · w/2, 4C], with the columns in the order of channel, row and column within the patch
 * (as FLUX.1's program has them).
 */
export function pack(latents: Float32Array, rows: number, dims: number[]): Float32Array {
  return permute(latents, rows, dims, (target, source, packedAt, plainAt) => (target[packedAt] = source[plainAt]));
}

/** The way back. */
export function unpack(tokens: Float32Array, rows: number, dims: number[]): Float32Array {
  return permute(tokens, rows, dims, (target, source, packedAt, plainAt) => (target[plainAt] = source[packedAt]));
}

function permute(
  source: Float32Array,
  rows: number,
  [channels, height, width]: number[],
  move: (target: Float32Array, source: Float32Array, packedAt: number, plainAt: number) => void,
): Float32Array {
  const target = new Float32Array(rows * channels * height * width);
  let packedAt = 0;
  for (let row = 0; row < rows; row++) {
    for (let y = 0; y < height; y += 2) {
      for (let x = 0; x < width; x += 2) {
        for (let c = 0; c < channels; c++) {
          const at = ((row * channels + c) * height + y) * width + x;
          move(target, source, packedAt++, at);
          move(target, source, packedAt++, at + 1);
          move(target, source, packedAt++, at + width);
          move(target, source, packedAt++, at + width + 1);
        }
      }
    }
  }
  return target;
}

/** (0, row, column) of each patch. */
function imagePlaces(rows: number, columns: number): Float32Array {
  const places = new Float32Array(3 * rows * columns);
  for (let i = 0; i < rows * columns; i++) {
    places[3 * i + 1] = Math.floor(i / columns);
    places[3 * i + 2] = i % columns;
  }
  return places;
}

/** Places [n, 3], or the same for every row: older exports have a batch axis. */
function placesFeed(info: TensorInfo, places: Float32Array, rows: number): Feed {
  const count = places.length / 3;
  if (info.shape.length === 2) return feed(info, places, [count, 3]);
  const repeated = new Float32Array(rows * places.length);
  for (let row = 0; row < rows; row++) repeated.set(places, row * places.length);
  return feed(info, repeated, [rows, count, 3]);
}

function gather(values: Float32Array, rowSize: number, rowAt: (i: number) => number, batch: Batch): Float32Array {
  if (batch.size === batch.rows) return values.subarray(rowAt(0) * rowSize, (rowAt(0) + batch.rows) * rowSize);
  const gathered = new Float32Array(batch.size * rowSize);
  for (let i = 0; i < batch.size; i++)
    gathered.set(values.subarray(rowAt(i) * rowSize, (rowAt(i) + 1) * rowSize), i * rowSize);
  return gathered;
}

/** What each input of a session was given last: most steps of a picture ask for the same prompts. */
const lastStacks = new WeakMap<Session, Map<string, { rows: WireTensor[]; feed: Feed }>>();

function stacked(session: Session, input: TensorInfo, rows: WireTensor[]): Feed {
  const stacks = lastStacks.get(session) ?? new Map<string, { rows: WireTensor[]; feed: Feed }>();
  lastStacks.set(session, stacks);
  const last = stacks.get(input.name);
  if (last && last.rows.length === rows.length && rows.every((row, i) => row === last.rows[i])) return last.feed;
  const made = stackEmbeddings(input, rows);
  stacks.set(input.name, { rows, feed: made });
  return made;
}

function stackEmbeddings(input: TensorInfo, rows: WireTensor[]): Feed {
  const [, ...dims] = rows[0].dims;
  const size = rows[0].data.length;
  if (rows.some((row) => row.data.length !== size)) {
    throw new MultiDiffusionError(
      'INVALID_INPUT',
      'The embeddings of one picture differ in size: they were made with different models. Encode all prompts with the model that draws.',
    );
  }
  // Half precision for a half-precision graph goes in as it is.
  const asBits = input.type === 'float16' && rows.every((row) => row.dtype === 'float16');
  const stacked = asBits ? new Uint16Array(rows.length * size) : new Float32Array(rows.length * size);
  rows.forEach((row, i) => stacked.set(asBits || row.dtype === 'float32' ? row.data : halfToFloat(row.data), i * size));
  const shape = [rows.length, ...dims];
  return asBits ? { type: 'float16', data: stacked, dims: shape, location: 'cpu' } : feed(input, stacked, shape);
}
