/**
 * How many rows go into one run of a model. A GPU searches for the best convolution algorithms anew for
 * every input shape, so there only a few sizes are used, padded where that wastes little.
 */
import { MultiDiffusionError } from '../errors';

export interface BatchRules {
  /** Most rows in one run. */
  largest: number;
  /** Only powers of two are run, smaller rests are padded. */
  buckets: boolean;
  /** The graph was exported for exactly this many rows. */
  fixed?: number;
}

export interface Batch {
  /** Rows of the caller in this run. */
  rows: number;
  /** Rows that the model is given: `rows` plus padding. */
  size: number;
}

/** The next batch for `remaining` rows. Padding is used where it is at most a quarter of the run. */
export function nextBatch(remaining: number, rules: BatchRules): Batch {
  if (rules.fixed) return { rows: Math.min(remaining, rules.fixed), size: rules.fixed };
  const most = Math.min(remaining, rules.largest);
  if (!rules.buckets) return { rows: most, size: most };
  const below = 2 ** Math.floor(Math.log2(most));
  const above = below === most ? most : below * 2;
  if (above <= rules.largest && above - most <= above / 4) return { rows: most, size: above };
  return { rows: below, size: below };
}

/** Whether the error means that the device's or the machine's memory did not suffice. */
export function isOutOfMemory(error: unknown): boolean {
  const message = error instanceof Error ? error.message : String(error);
  return /out of memory|failed to allocate memory|bad_alloc|bad allocation|CUDA failure 2:|CUDA error 2\b|ALLOC_FAILED|not enough memory/i.test(message);
}

/**
 * Runs all rows in batches. When memory runs out the batch is halved and tried again, and `rules` keeps
 * the smaller size for later calls.
 * @param run evaluates rows `start` … `start + rows − 1`, padded to `size`
 * @throws MultiDiffusionError INFERENCE when not even one row fits into memory
 */
export async function runInBatches(count: number, rules: BatchRules, run: (start: number, batch: Batch) => Promise<void>): Promise<void> {
  let start = 0;
  while (start < count) {
    const batch = nextBatch(count - start, rules);
    try {
      await run(start, batch);
      start += batch.rows;
    } catch (error) {
      if (!isOutOfMemory(error)) throw error;
      if (batch.size === 1 || rules.fixed) {
        throw new MultiDiffusionError('INFERENCE', `Memory does not suffice for one row of the model (${(error as Error).message}). Use a smaller canvas or window, or a smaller model.`, { cause: error });
      }
      rules.largest = Math.floor(batch.size / 2);
    }
  }
}

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
