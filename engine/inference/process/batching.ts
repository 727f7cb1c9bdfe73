/**
 * How many rows go into one run of a model. A GPU searches for the best convolution algorithms anew for
 * every input shape, so there only a few sizes are used, padded where that wastes little. How large they may
 * be is a matter of memory.
 */
import { MultiDiffusionError } from '../../errors';
import { isOutOfMemory, type MemoryBudget } from '../memory';
import { largestCpuBatch } from '../rows';
import type { ValueShape } from '../bindings';

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

/**
 * Runs an input's shape once with 1, 2, 4 … rows, as far as `count` rows need it and it has not been done
 * before. A GPU looks for its fastest algorithms meanwhile; and because runs of n rows have shown what they
 * take, runs of 2n are begun only if they fit into the budget. What is learnt is kept in `rules`.
 * @param budget default: only memory that runs out bounds the rows
 * @param run runs that many rows, whatever they hold
 */
export async function warmUp(
  count: number,
  rules: BatchRules,
  budget: MemoryBudget | undefined,
  run: (size: number) => Promise<void>,
): Promise<void> {
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
export async function runInBatches(
  count: number,
  rules: BatchRules,
  run: (start: number, batch: Batch) => Promise<void>,
): Promise<void> {
  let start = 0;
  while (start < count) {
    const batch = nextBatch(count - start, rules);
    try {
      await run(start, batch);
      start += batch.rows;
    } catch (error) {
      if (!isOutOfMemory(error)) throw error;
      if (batch.size === 1 || rules.fixed) {
        throw new MultiDiffusionError(
          'INFERENCE',
          `Not enough memory for one row of the model (${(error as Error).message}). ` +
            'Use a smaller canvas or window, or a smaller model.',
          { cause: error },
        );
      }
      rules.largest = Math.floor(batch.size / 2);
    }
  }
}

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
  async run(sample: ValueShape, dims: number[], run: (start: number, batch: Batch) => Promise<void>): Promise<void> {
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

  private rulesFor({ shape }: ValueShape, [, ...dims]: number[]): BatchRules {
    const key = dims.join('x');
    let rules = this.rules.get(key);
    if (!rules) {
      const { gpu, unetBytes, batchSize } = this.options;
      const fixed = typeof shape[0] === 'number' && shape[0] > 0 ? shape[0] : undefined;
      rules = {
        largest: batchSize ?? (gpu ? LARGEST_GPU_BATCH : largestCpuBatch(unetBytes, dims[1] * dims[2])),
        buckets: gpu,
        fixed,
      };
      this.rules.set(key, rules);
    }
    return rules;
  }
}
