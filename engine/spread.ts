/**
 * Starts of the fewest pieces that cover `length`, neighbours no further apart than the stride: spread evenly,
 * the last one ending on the border. One piece where it fits.
 */
export function spread(length: number, size: number, stride: number): number[] {
  const steps = Math.max(0, Math.ceil((length - size) / stride));
  return Array.from({ length: steps + 1 }, (_, i) => (steps ? Math.round((i * (length - size)) / steps) : 0));
}
