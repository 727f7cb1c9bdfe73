/** How many rows of a denoiser one run takes. */

/**
 * Most rows of one run on a CPU. Batches help small models; with large ones they only make runs long, so
 * that nothing else gets its turn and a cancelled job goes on. The product of weights and cells stands for
 * the work: the bundled model at its own size takes 8 rows, Stable Diffusion at 512×512 takes one.
 * A function of the model and the size alone, so that a picture never depends on a machine's speed.
 */
export function largestCpuBatch(unetBytes: number, cells: number): number {
  const budget = 2 ** 41;
  const rows = budget / Math.max(1, unetBytes * cells);
  return Math.max(1, Math.min(8, 2 ** Math.floor(Math.log2(rows))));
}
