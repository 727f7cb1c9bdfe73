/** How a long side is covered by overlapping tiles, and how their overlaps are blended. */
import { spread } from '../../spread';

/** Starts of the fewest tiles that cover `length` with at least `overlap` between neighbours. */
export function spreadTiles(length: number, tile: number, overlap: number): number[] {
  return spread(length, tile, tile - overlap);
}

/** From 0 to 1 over an overlap. The outer quarter, where a tile lacks its surroundings, counts for nothing. */
function fade(share: number): number {
  return Math.min(1, Math.max(0, 2 * share - 0.5));
}

/**
 * For each tile the weight of each of its pixels along one side: a ramp where it overlaps a neighbour.
 * At every pixel the weights of all tiles sum to 1, so that tiles that agree give exactly what they agree on.
 * @param starts in pixels
 */
export function tileWeights(starts: number[], size: number, length: number): Float32Array[] {
  const weights = starts.map((start, i) => {
    const left = i > 0 ? starts[i - 1] + size - start : 0;
    const right = i + 1 < starts.length ? start + size - starts[i + 1] : 0;
    return Float32Array.from({ length: size }, (_, x) =>
      Math.min(left > 0 ? fade((x + 0.5) / left) : 1, right > 0 ? fade((size - x - 0.5) / right) : 1),
    );
  });
  const sums = new Float32Array(length);
  starts.forEach((start, i) => weights[i].forEach((weight, x) => (sums[start + x] += weight)));
  starts.forEach((start, i) => weights[i].forEach((weight, x) => (weights[i][x] = weight / sums[start + x])));
  return weights;
}
