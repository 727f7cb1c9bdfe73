/**
 * Plain pictures as latents, with as little of the encoder's work as gives the same numbers: a colour that
 * was encoded before is remembered, and where a cell's latents depend on nearby pixels only, a small picture tells
 * all of a large one.
 */
import { MultiDiffusionError } from '../errors';
import type { CallOptions, DiffusionModel } from '../model';
import { Tensor } from '../tensor';

/** Red, green, blue from 0 to 255. */
export type Colour = readonly number[];
type Size = readonly [height: number, width: number];

/** Encoding stays within this much memory, whatever the number of colours. */
const IMAGES_PER_CALL = 8;
/** Bytes of latents that are remembered for each model. */
const REMEMBERED = 16 * 2 ** 20;
/** Equal but for rounding, as a share of the largest latent. */
const SAME = 1e-5;

/** What is known of one model's encoder. */
interface Memory {
  /** By colour and size, least recently used first. */
  latents: Map<string, Tensor<'float32'>>;
  /** By size, the smaller size that will do. */
  enough: Map<string, Size>;
}
const memories = new WeakMap<DiffusionModel, Memory>();

/**
 * The latents of plain pictures.
 * @param height, width in pixels
 * @returns [1, C, h, w] per colour; they are shared, so nobody may write into them
 */
export async function encodeColours(
  model: DiffusionModel,
  colours: Colour[],
  [height, width]: Size,
  options: CallOptions = {},
): Promise<Tensor<'float32'>[]> {
  const memory = memories.get(model) ?? { latents: new Map(), enough: new Map() };
  memories.set(model, memory);
  const keyOf = (colour: Colour): string => `${colour.join()} ${height}x${width}`;
  const found = new Map<string, Tensor<'float32'>>();
  for (const colour of colours) {
    const known = memory.latents.get(keyOf(colour));
    if (known) found.set(keyOf(colour), known);
  }
  const missing = new Map(
    colours.filter((colour) => !found.has(keyOf(colour))).map((colour) => [keyOf(colour), colour]),
  );
  const encoded = await encodeEach(model, [...missing.values()], [height, width], memory, options);
  [...missing.keys()].forEach((key, i) => found.set(key, encoded[i]));
  keepUsed(memory, found);
  return colours.map((colour) => found.get(keyOf(colour))!);
}

async function encodeEach(
  model: DiffusionModel,
  colours: Colour[],
  size: Size,
  { enough }: Memory,
  options: CallOptions,
): Promise<Tensor<'float32'>[]> {
  const key = size.join();
  const encoded: Tensor<'float32'>[] = [];
  if (colours.length > 0 && !enough.has(key)) {
    const [whole] = await encodePlain(model, colours.slice(0, 1), size, options);
    enough.set(key, await smallestEnough(model, colours[0], size, whole, options));
    encoded.push(whole);
  }
  const small = await encodePlain(model, colours.slice(encoded.length), enough.get(key) ?? size, options);
  const { latentFactor } = model.facts;
  return [...encoded, ...small.map((latents) => stretch(latents, size[0] / latentFactor, size[1] / latentFactor))];
}

/**
 * Half the size where that gives the same latents, else the size itself. It does not for encoders whose
 * normalisations or attention look at the whole picture.
 */
async function smallestEnough(
  model: DiffusionModel,
  colour: Colour,
  size: Size,
  whole: Tensor<'float32'>,
  options: CallOptions,
): Promise<Size> {
  const multiple = model.facts.sizeMultiple ?? 8 * model.facts.latentFactor;
  const half = size.map((side) => Math.min(side, Math.ceil(side / 2 / multiple) * multiple)) as unknown as Size;
  if (half.join() === size.join()) return size;
  try {
    const [small] = await encodePlain(model, [colour], half, options);
    const stretched = stretch(small, whole.dims[2], whole.dims[3]).data;
    const peak = whole.data.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    return whole.data.every((value, i) => Math.abs(value - stretched[i]) <= SAME * peak) ? half : size;
  } catch (error) {
    // An encoder that was exported for one size.
    if (error instanceof MultiDiffusionError && error.code === 'INFERENCE') return size;
    throw error;
  }
}

/** Latents with a middle as large as needed: its rows and columns repeat the ones in the middle. */
function stretch(latents: Tensor<'float32'>, height: number, width: number): Tensor<'float32'> {
  const [, channels, fromHeight, fromWidth] = latents.dims;
  if (fromHeight === height && fromWidth === width) return latents;
  const rows = stretchedLine(fromHeight, height);
  const columns = stretchedLine(fromWidth, width);
  const source = latents.data;
  const data = new Float32Array(channels * height * width);
  for (let c = 0, i = 0; c < channels; c++) {
    for (const row of rows) {
      for (const column of columns) data[i++] = source[(c * fromHeight + row) * fromWidth + column];
    }
  }
  return Tensor.float32(data, [1, channels, height, width]);
}

/** For each cell of the longer line, the one of the shorter line that stands for it. */
function stretchedLine(from: number, to: number): number[] {
  const middle = Math.floor(from / 2);
  return Array.from({ length: to }, (_, i) => Math.max(Math.min(i, middle), i - (to - from)));
}

async function encodePlain(
  model: DiffusionModel,
  colours: Colour[],
  [height, width]: Size,
  options: CallOptions,
): Promise<Tensor<'float32'>[]> {
  const encoded: Tensor<'float32'>[] = [];
  for (let i = 0; i < colours.length; i += IMAGES_PER_CALL) {
    const images = colours.slice(i, i + IMAGES_PER_CALL).map((colour) => plainImage(colour, height, width));
    encoded.push(...(await model.encodeImages(images, options)));
  }
  return encoded;
}

/** uint8 [height, width, 3] */
export function plainImage(colour: Colour, height: number, width: number): Tensor<'uint8'> {
  const data = new Uint8Array(height * width * 3);
  for (let i = 0; i < data.length; i++) data[i] = colour[i % 3];
  return Tensor.uint8(data, [height, width, 3]);
}

function keepUsed({ latents }: Memory, used: Map<string, Tensor<'float32'>>): void {
  for (const [key, value] of used) {
    latents.delete(key);
    latents.set(key, value);
  }
  let bytes = [...latents.values()].reduce((sum, { buffer }) => sum + buffer.byteLength, 0);
  for (const [oldest, { buffer }] of latents) {
    if (bytes <= REMEMBERED) return;
    latents.delete(oldest);
    bytes -= buffer.byteLength;
  }
}
