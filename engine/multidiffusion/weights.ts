/** Who counts for how much in which cell, at each model evaluation. */
import type { SamplingJob } from './job';
import { noiseLevel } from './levels';
import { largest } from './masks';
import { cellsOf, type View } from './views';

/** How much of a window a prompt holds. */
export enum Reach {
  None,
  Part,
  Whole,
}

/** The weights in a phase of the job in which they do not change. */
export interface FusionWeights {
  /** Which regions act, and which of them are bootstrapped. */
  phase: string;
  /** Per prompt, over the canvas' cells: M_p. Where a bootstrapped prompt weighs nothing, its input is not the shared latents. */
  masks: Float32Array[];
  /** [view][prompt]: pairs without reach need no evaluation. */
  reach: Reach[][];
  /** Per prompt, whether it has its own input now. */
  bootstrapped: boolean[];
}

/**
 * The weights at a model evaluation. A region weighs as much as its mask; while it is bootstrapped only where
 * it holds the cell, because elsewhere it predicts the noise of another input. The background gets what is
 * left, max(0, 1 − ΣM_p), or the backgroundWeight if that is more. With fusion 'first' or 'last' the regions
 * first hide what lies below them.
 */
export function weightsAt(job: SamplingJob, index: number): FusionWeights {
  const bootstrapped = job.regions.map((region) => region.bootstrap && index < job.bootstrapEvaluations);
  const active = job.regions.map((region) => index >= region.first && index < region.last);
  const growth = job.options.growingMasks ? ` ${index}` : '';
  const phase = active.map((on, p) => (on ? (bootstrapped[p] ? 'b' : 'a') : '-')).join('') + growth;
  if (job.weights?.phase !== phase) {
    const masks = job.regions.map(({ mask, blurred }, p) => {
      if (!active[p]) return new Float32Array(mask.soft.length);
      if (blurred) return grownMask(blurred, noiseLevel(job.scheduler, index));
      return bootstrapped[p] ? mask.soft.map((m, i) => (mask.hard[i] ? m : 0)) : mask.soft.slice();
    });
    job.weights = divide(job, phase, masks, bootstrapped, job.options.backgroundWeight);
  }
  return job.weights;
}

/** The weights after bootstrapping, with every region acting: how the picture is divided in general. */
export function overallWeights(job: SamplingJob): FusionWeights {
  const masks = job.regions.map(({ mask }) => mask.soft.slice());
  return divide(job, 'all', masks, masks.map(() => false), 0);
}

/** @param regions their masks; they become weights in place */
function divide(job: SamplingJob, phase: string, regions: Float32Array[], bootstrapped: boolean[], backgroundWeight: number): FusionWeights {
  const left = job.options.fusion === 'average' ? averaged(job, regions) : stacked(job, regions);
  const painted = discards(job);
  const background = left.map((weight, i) => (painted?.[i] === 0 ? 0 : Math.max(weight, backgroundWeight)));
  const masks = [background, ...regions];
  const reach = job.views.map((view) => {
    const cells = cellsOf(view, job.grid.width);
    return masks.map((mask) => reachOf(mask, cells));
  });
  return { phase, masks, reach, bootstrapped: [false, ...bootstrapped] };
}

/**
 * Where a picture is kept, whatever is predicted is thrown away: there the background need not be evaluated. But not if
 * the scheduler's thresholding makes every cell depend on all.
 * @returns for each cell the share that is painted
 */
export function discards({ kept, scheduler }: SamplingJob): Float32Array | undefined {
  return scheduler.config.thresholding === true ? undefined : kept?.painted;
}

/** The paper's rule, with a weight per region. In place; returns what is left for the background. */
function averaged(job: SamplingJob, masks: Float32Array[]): Float32Array {
  const left = new Float32Array(job.grid.height * job.grid.width).fill(1);
  masks.forEach((mask, p) => {
    const { weight } = job.regions[p];
    for (let i = 0; i < mask.length; i++) {
      left[i] = remains(left[i], mask[i]);
      mask[i] *= weight;
    }
  });
  return left;
}

/** Front to back, each region takes what those before it left. In place; returns what is left for the background. */
function stacked(job: SamplingJob, masks: Float32Array[]): Float32Array {
  const left = new Float32Array(job.grid.height * job.grid.width).fill(1);
  const frontToBack = job.options.fusion === 'first' ? masks : [...masks].reverse();
  for (const mask of frontToBack) {
    for (let i = 0; i < mask.length; i++) {
      mask[i] = Math.min(mask[i], left[i]);
      left[i] = remains(left[i], mask[i]);
    }
  }
  return left;
}

/** a − b, at least 0; a trace left by rounding would cost the background an evaluation for nothing. */
function remains(a: number, b: number): number {
  const rest = a - b;
  return rest > 1e-6 ? rest : 0;
}

function reachOf(mask: Float32Array, cells: Int32Array): Reach {
  let held = 0;
  for (const cell of cells) if (mask[cell] > 0) held++;
  return held === 0 ? Reach.None : held === cells.length ? Reach.Whole : Reach.Part;
}

/**
 * A growing quantised mask (Lee et al. 2024, "SemanticDraw"): the cells where the blurred mask is
 * more than the noise level. Never empty: at first it is the inmost cells alone.
 */
function grownMask(blurred: Float32Array, level: number): Float32Array {
  const threshold = Math.min(level, largest(blurred) * (1 - 1e-6));
  return blurred.map((m) => (m > threshold ? 1 : 0));
}

/**
 * What each cell of a window weighs against the same cell of another window: less towards the edges, where
 * the model sees less of the surroundings. 'gaussian' has a standard deviation of a tenth of the window
 * and 'quartic' is (1 − u²)² (Jiménez 2023, "Mixture of Diffusers", and its program).
 */
export function windowWeights(kind: string, { height, width }: View): Float64Array {
  const profile = (length: number): number[] =>
    Array.from({ length }, (_, i) => {
      const u = (2 * i + 1) / length - 1; // of the cell's middle, from -1 to 1
      if (kind === 'gaussian') return Math.exp(-((u / 2 / 0.1) ** 2) / 2);
      return kind === 'quartic' ? (1 - u * u) ** 2 : 1;
    });
  const [rows, columns] = [profile(height), profile(width)];
  return Float64Array.from({ length: height * width }, (_, i) => rows[Math.floor(i / width)] * columns[i % width]);
}
