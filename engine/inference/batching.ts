/**
 * How many rows go into one run of a model. A GPU searches for the best convolution algorithms anew for
 * every input shape, so there only a few sizes are used, padded where that wastes little. How large they may
 * be is a matter of memory.
 */
import { MultiDiffusionError } from '../errors';

export interface BatchRules {
  /** Most rows in one run. */
  largest: number;
  /** Only powers of two are run, smaller rests are padded. */
  buckets: boolean;
  /** The graph was exported for exactly this many rows. */
  fixed?: number;
  /** Most rows that have been run already; see warmUp. */
  warmed?: number;
  /** Bytes that the process had taken before the first of these runs. */
  takenBefore?: number;
}

/** How much memory a process may take on its device; memory.ts makes one. */
export interface MemoryBudget {
  /** Bytes that the process may take, weights included. */
  most: number;
  /** Bytes that it has taken so far. What a run took is kept for the next one, so this is the peak. */
  taken(): Promise<number>;
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
 * Runs an input's shape once with 1, 2, 4 … rows, as far as `count` rows need it and it has not been done
 * before. A GPU looks for its fastest algorithms meanwhile; and because runs of n rows have shown what they
 * take, runs of 2n are begun only if they fit into the budget. What is learnt is kept in `rules`.
 * @param budget default: only memory that runs out bounds the rows
 * @param run runs that many rows, whatever they hold
 */
export async function warmUp(count: number, rules: BatchRules, budget: MemoryBudget | undefined, run: (size: number) => Promise<void>): Promise<void> {
  if (rules.fixed) return;
  rules.takenBefore ??= await budget?.taken();
  for (let size = rules.warmed ? 2 * rules.warmed : 1; size <= nextBatch(count, rules).size; size *= 2) {
    try {
      await run(size);
    } catch (error) {
      // One row that does not fit is the caller's to report.
      if (!isOutOfMemory(error) || size === 1) throw error;
      rules.largest = size / 2;
      return;
    }
    rules.warmed = size;
    if (!budget) continue;
    const taken = await budget.taken();
    if (taken > budget.most) rules.largest = Math.max(1, size / 2);
    else if (2 * taken - (rules.takenBefore ?? 0) > budget.most) rules.largest = size;
  }
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
