/** Latents to pictures, tile by tile, and pictures to latents. */
import { MultiDiffusionError } from '../../errors';
import {
  checkNumbers,
  checkShape,
  feed,
  outputOf,
  toFloat32,
  type Request,
  type Session,
  type TensorInfo,
} from './sessions';
import { spreadTiles, tileWeights } from './tiles';

/** How the latents of the VAE become those of the denoiser, channel by channel where it is normalised so. */
export interface LatentScale {
  scalingFactor: number;
  shiftFactor: number;
  latentsMean?: number[];
  latentsStd?: number[];
}

/** The denoiser's latents [1, C, h, w] as the VAE decodes them (diffusers: latents / scaling + shift, or by mean and deviation). */
export function toVae(latents: Float32Array, channels: number, scale: LatentScale): Float32Array {
  const { scalingFactor, shiftFactor, latentsMean, latentsStd } = scale;
  if (!latentsMean || !latentsStd) return latents.map((value) => value / scalingFactor + shiftFactor);
  const cells = latents.length / channels;
  return latents.map((value, i) => {
    const channel = Math.floor(i / cells) % channels;
    return (value * latentsStd[channel]) / scalingFactor + latentsMean[channel];
  });
}

/** The VAE's latents [images, C, h, w] as the denoiser takes them. */
export function fromVae(
  latents: Float32Array,
  [, channels, height, width]: number[],
  scale: LatentScale,
): Float32Array {
  const { scalingFactor, shiftFactor, latentsMean, latentsStd } = scale;
  if (!latentsMean || !latentsStd) return latents.map((value) => (value - shiftFactor) * scalingFactor);
  return latents.map((value, i) => {
    const channel = Math.floor(i / (height * width)) % channels;
    return ((value - latentsMean[channel]) * scalingFactor) / latentsStd[channel];
  });
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
export async function decode(
  session: Session,
  request: Request,
  latents: Float32Array,
  dims: number[],
  options: DecodeOptions,
  memory: TileMemory = {},
): Promise<Pixels> {
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
        throw new MultiDiffusionError(
          'INFERENCE',
          `Not enough memory to decode even a small tile (${(error as Error).message}).`,
          { cause: error },
        );
      }
      tileSize = Math.max(16, Math.floor(Math.min(tileSize, Math.max(dims[2], dims[3])) / 2));
      memory.largest = tileSize;
    }
  }
}

async function decodeTiles(
  session: Session,
  request: Request,
  latents: Float32Array,
  dims: number[],
  tileSize: number,
  overlap: number,
) {
  const [, channels, height, width] = dims;
  const input = session.inputs[0];
  const output = outputOf(session, ['sample']);
  const tileHeight = fixedSize(input, 2) ?? Math.min(tileSize, height);
  const tileWidth = fixedSize(input, 3) ?? Math.min(tileSize, width);
  if (tileHeight > height || tileWidth > width) {
    throw new MultiDiffusionError(
      'INFERENCE',
      `The vaeDecoder takes latents of ${tileHeight}×${tileWidth} only, and these are ` +
        `${height}×${width}. Use a canvas of at least that size, or an export with free sizes.`,
    );
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
      const decoded = (
        await session.run(request, { [input.name]: feed(input, tile, [1, channels, tileHeight, tileWidth]) })
      )[output];
      if (factor === 0) {
        factor = Math.round(decoded.dims[2] / tileHeight) || 1;
        checkShape(session, decoded, [1, 3, factor * tileHeight, factor * tileWidth], 'that decodes latents');
        image = new Float32Array(3 * height * width * factor * factor);
        rowWeights = tileWeights(
          rows.map((y) => y * factor),
          tileHeight * factor,
          height * factor,
        );
        columnWeights = tileWeights(
          columns.map((x) => x * factor),
          tileWidth * factor,
          width * factor,
        );
      }
      const pixels = toFloat32(decoded);
      if (pixels.some(Number.isNaN)) {
        throw new MultiDiffusionError(
          'INFERENCE',
          'The vaeDecoder gave values that are no numbers (NaN). With a half-precision model this is an overflow: use its float32 export.',
        );
      }
      blend(
        image,
        width * factor,
        height * factor,
        pixels,
        rows[r] * factor,
        columns[c] * factor,
        rowWeights[r],
        columnWeights[c],
      );
    }
  }
  return { data: image, height: height * factor, width: width * factor };
}

function cut(
  values: Float32Array,
  channels: number,
  width: number,
  height: number,
  top: number,
  left: number,
  tileHeight: number,
  tileWidth: number,
): Float32Array {
  const tile = new Float32Array(channels * tileHeight * tileWidth);
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < tileHeight; y++) {
      const from = (c * height + top + y) * width + left;
      tile.set(values.subarray(from, from + tileWidth), (c * tileHeight + y) * tileWidth);
    }
  }
  return tile;
}

function blend(
  image: Float32Array,
  width: number,
  height: number,
  tile: Float32Array,
  top: number,
  left: number,
  rowWeights: Float32Array,
  columnWeights: Float32Array,
): void {
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

/**
 * Planes in [−1, 1] → interleaved bytes, as diffusers rounds them (x/2 + 0.5, halves to even), without `margin`
 * columns left and right.
 */
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
export async function encodeImages(
  session: Session,
  request: Request,
  pixels: Uint8Array,
  dims: number[],
  channels: number,
): Promise<{ data: Float32Array; dims: number[] }> {
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
    const cell = Math.round(height / result.dims[2]) || 1;
    const planes = result.dims[1] === 2 * channels ? 2 * channels : channels;
    checkShape(
      session,
      result,
      [1, planes, Math.floor(height / cell), Math.floor(width / cell)],
      'that encodes pictures',
    );
    shape = [channels, result.dims[2], result.dims[3]];
    const size = shape[0] * shape[1] * shape[2];
    if (latents.length === 0) latents = new Float32Array(count * size);
    checkNumbers(session, result);
    latents.set(toFloat32(result).subarray(0, size), i * size);
  }
  return { data: latents, dims: [count, ...shape] };
}

function fixedSize(input: TensorInfo, dimension: number): number | undefined {
  const size = input.shape[dimension];
  return typeof size === 'number' && size > 0 ? size : undefined;
}
