/**
 * Masks as plain arithmetic: reading a mask tensor, reducing it to the latent grid, soft edges.
 * Masks are row-major Float32Arrays in [0, 1]. What goes over all of one is done in steps of a row.
 */
import { Flaw, InvalidInputError, show } from '../errors';
import { Tensor } from '../tensor';
import type { Steps } from '../turns';

export interface Plane {
  data: Float32Array;
  height: number;
  width: number;
}

/** A mask on the latent grid. */
export interface LatentMask {
  /** How much of each cell the region covers: the fusion weight. */
  soft: Float32Array;
  /** 1 where the region holds the cell: where a bootstrapped input keeps the shared latents. */
  hard: Uint8Array;
}

/** Rounding leaves values such as 0.9999999; those would cost a needless row, so they count as what they mean. */
const NEARLY = 1e-6;

/**
 * Checks a mask and gives its numbers.
 * @param value float32 tensor [1, H, W] (or [H, W]) in [0, 1], not zero everywhere
 * @param name how to call it in errors, such as regions[0].mask
 * @throws InvalidInputError
 */
export function* maskPlane(value: unknown, name: string): Steps<Plane> {
  const tensor = Tensor.from(value, name);
  const [height = 0, width = 0] = tensor.dims.slice(-2);
  const leading = tensor.dims.slice(0, -2);
  if (
    tensor.dtype !== 'float32' ||
    tensor.dims.length < 2 ||
    tensor.dims.length > 4 ||
    leading.some((d) => d !== 1) ||
    height < 1 ||
    width < 1
  ) {
    throw new InvalidInputError(name, `${tensor.dtype} [${tensor.dims.join(', ')}]`, 'a float32 tensor [1, H, W]');
  }
  const data = tensor.data as Float32Array;
  let peak = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const m = data[y * width + x];
      if (!(m >= 0 && m <= 1))
        throw new InvalidInputError(name, `${show(m)} at row ${y}, column ${x}`, 'values from 0 to 1');
      if (m > peak) peak = m;
    }
    yield;
  }
  if (peak === 0)
    throw new InvalidInputError(name, new Flaw('zero everywhere'), 'a mask that covers some of the canvas');
  return { data, height, width };
}

/**
 * Averages a plane over the area of each cell of another grid, of any ratio, coarser or finer.
 * A constant plane stays exactly that constant where it is 0 or 1.
 */
export function* resizeByArea(plane: Plane, height: number, width: number): Steps<Float32Array> {
  if (plane.height === height && plane.width === width) return plane.data.slice();
  const columns = overlaps(plane.width, width);
  const rows = overlaps(plane.height, height);
  const narrow = new Float64Array(plane.height * width);
  for (let y = 0; y < plane.height; y++) {
    for (let x = 0; x < width; x++) {
      const { start, shares } = columns[x];
      let sum = 0;
      for (let k = 0; k < shares.length; k++) sum += shares[k] * plane.data[y * plane.width + start + k];
      narrow[y * width + x] = sum;
    }
    yield;
  }
  const result = new Float32Array(height * width);
  for (let y = 0; y < height; y++) {
    const { start, shares } = rows[y];
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let k = 0; k < shares.length; k++) sum += shares[k] * narrow[(start + k) * width + x];
      result[y * width + x] = sum < NEARLY ? (sum > 0 ? sum : 0) : sum > 1 - NEARLY ? 1 : sum;
    }
    yield;
  }
  return result;
}

/**
 * Brings a mask to the latent grid without ever losing the region. The paper thresholds at 0.5 and takes the
 * nearest pixel, under which anything thinner than a cell vanishes; here the area decides, and a region that
 * reaches half of no cell keeps the cells it covers best, at the strength it had in the mask.
 */
export function* reduceMask(plane: Plane, height: number, width: number): Steps<LatentMask> {
  const soft = yield* resizeByArea(plane, height, width);
  const best = largest(soft);
  const hard = new Uint8Array(soft.length);
  if (best >= 0.5) {
    for (let i = 0; i < soft.length; i++) hard[i] = soft[i] >= 0.5 ? 1 : 0;
    return { soft: dropTraces(soft), hard };
  }
  const strength = largest(plane.data) / best;
  for (let i = 0; i < soft.length; i++) {
    hard[i] = soft[i] >= best / 2 ? 1 : 0;
    soft[i] = hard[i] ? Math.min(1, soft[i] * strength) : 0;
  }
  return { soft, hard };
}

/**
 * A soft edge: the weight rises linearly from the region's outline inwards and reaches the mask's own value at
 * `radius` cells (or in the middle of a region narrower than that). It rises inwards so that the region
 * never weighs anything where its bootstrapped input is not the shared latents. The canvas' border is no outline.
 * @param circular whether the left and right border touch
 */
export function* featherMask(
  { soft, hard }: LatentMask,
  height: number,
  width: number,
  radius: number,
  circular = false,
): Steps<LatentMask> {
  if (!(radius > 0)) return { soft, hard };
  const distance = yield* distanceInside(hard, height, width, radius, circular);
  const full = Math.min(radius, largest(distance));
  const feathered = new Float32Array(soft.length);
  for (let i = 0; i < soft.length; i++) feathered[i] = hard[i] ? soft[i] * Math.min(1, distance[i] / full) : 0;
  return { soft: feathered, hard };
}

/** For each cell inside, the distance of its centre to the nearest outline, in cells, at most limit + 1. */
function* distanceInside(
  hard: Uint8Array,
  height: number,
  width: number,
  limit: number,
  circular: boolean,
): Steps<Float32Array> {
  const reach = Math.ceil(limit) + 1;
  const vertical = new Float32Array(hard.length);
  for (let x = 0; x < width; x++) {
    for (let y = 0, d = Infinity; y < height; y++) vertical[y * width + x] = d = hard[y * width + x] ? d + 1 : 0;
    for (let y = height - 1, d = Infinity; y >= 0; y--) {
      d = hard[y * width + x] ? d + 1 : 0;
      vertical[y * width + x] = Math.min(vertical[y * width + x], d);
    }
    yield;
  }
  const distance = new Float32Array(hard.length);
  for (let y = 0; y < height; y++) {
    const row = vertical.subarray(y * width, (y + 1) * width);
    const inColumn = (x: number): number => {
      if (x >= 0 && x < width) return row[x];
      return circular ? row[((x % width) + width) % width] : Infinity;
    };
    for (let x = 0; x < width; x++) {
      let nearest = reach * reach;
      // From the cell itself outwards, as long as what comes may be nearer.
      for (let away = 0; away * away < nearest; away++) {
        const v = Math.min(inColumn(x - away), inColumn(x + away));
        nearest = Math.min(nearest, v * v + away * away);
      }
      distance[y * width + x] = Math.max(0, Math.sqrt(nearest) - 0.5);
    }
    yield;
  }
  return distance;
}

/**
 * A mask's Gaussian blur, for masks that grow. What lies beyond the canvas' border counts as its border does.
 * @param radius standard deviation in cells
 * @param circular whether the left and right border touch
 */
export function* blurMask(
  { hard }: LatentMask,
  height: number,
  width: number,
  radius: number,
  circular: boolean,
): Steps<Float32Array> {
  const reach = Math.ceil(3 * radius);
  const bell = Float64Array.from({ length: 2 * reach + 1 }, (_, k) => Math.exp(-(((k - reach) / radius) ** 2) / 2));
  const total = bell.reduce((a, b) => a + b);
  const kernel = bell.map((weight) => weight / total);
  const across = new Float32Array(hard.length);
  const blurred = new Float32Array(hard.length);
  for (let y = 0; y < height; y++) {
    blurLine(hard, across, { start: y * width, step: 1, length: width }, kernel, circular);
    yield;
  }
  for (let x = 0; x < width; x++) {
    blurLine(across, blurred, { start: x, step: width, length: height }, kernel, false);
    yield;
  }
  return blurred;
}

function blurLine(
  from: ArrayLike<number>,
  to: Float32Array,
  line: { start: number; step: number; length: number },
  kernel: Float64Array,
  circular: boolean,
): void {
  const { start, step, length } = line;
  const reach = (kernel.length - 1) / 2;
  const extended = Float64Array.from({ length: length + 2 * reach }, (_, i) => {
    const place = i - reach;
    return from[
      start + step * (circular ? ((place % length) + length) % length : Math.min(length - 1, Math.max(0, place)))
    ];
  });
  for (let i = 0; i < length; i++) {
    let sum = 0;
    for (let k = 0; k < kernel.length; k++) sum += kernel[k] * extended[i + k];
    to[start + i * step] = sum;
  }
}

/** For each target cell, which source cells it overlaps and with what share of its own length. */
function overlaps(source: number, target: number): Array<{ start: number; shares: Float64Array }> {
  const length = source / target;
  return Array.from({ length: target }, (_, cell) => {
    const from = cell * length;
    const to = Math.min(source, from + length);
    const start = Math.floor(from);
    const shares = new Float64Array(Math.max(1, Math.ceil(to - NEARLY) - start));
    for (let k = 0; k < shares.length; k++) {
      shares[k] = Math.max(0, Math.min(to, start + k + 1) - Math.max(from, start + k)) / (to - from);
    }
    return { start, shares };
  });
}

function dropTraces(soft: Float32Array): Float32Array {
  for (let i = 0; i < soft.length; i++) if (soft[i] < NEARLY) soft[i] = 0;
  return soft;
}

export function largest(values: Float32Array): number {
  let max = 0;
  for (let i = 0; i < values.length; i++) if (values[i] > max) max = values[i];
  return max;
}
