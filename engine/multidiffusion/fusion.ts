/**
 * Fusion: from each prompt's prediction in each window to one prediction for the canvas (paper, equation 5).
 * What is fused is the guided model output in its own space. With binary masks this gives the same numbers
 * as the paper's averaging after the step, because the step is affine in it; but then one step is
 * taken on one state, which is what multistep and stochastic schedulers need.
 */
import { InvalidInputError } from '../errors';
import { Tensor } from '../tensor';
import type { SamplingJob } from './job';
import type { View } from './views';

/** The guided prediction of one prompt in one window. */
export interface Prediction {
  view: View;
  /** Index of the prompt: 0 the background, 1 the first region. */
  prompt: number;
  /** [1, C, h, w] */
  latents: Tensor<'float32'>;
}

/** How much of a window a prompt holds. */
export enum Reach {
  None,
  Part,
  Whole,
}

/** Who counts for how much, in a phase of the job in which that does not change. */
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
 * left, max(0, 1 − ΣM_p). With fusion 'first' or 'last' the regions first hide what lies below them.
 */
export function weightsAt(job: SamplingJob, index: number): FusionWeights {
  const bootstrapped = job.regions.map((region) => region.bootstrap && index < job.bootstrapEvaluations);
  const active = job.regions.map((region) => index >= region.first && index < region.last);
  const phase = active.map((on, p) => (on ? (bootstrapped[p] ? 'b' : 'a') : '-')).join('');
  if (job.weights?.phase !== phase) job.weights = makeWeights(job, phase, active, bootstrapped);
  return job.weights;
}

/** The weights after bootstrapping, with every region acting: how the picture is divided in general. */
export function overallWeights(job: SamplingJob): FusionWeights {
  return makeWeights(job, 'all', job.regions.map(() => true), job.regions.map(() => false));
}

function makeWeights(job: SamplingJob, phase: string, active: boolean[], bootstrapped: boolean[]): FusionWeights {
  const regions = regionMasks(job, active, bootstrapped);
  const background = job.fusion === 'average' ? averaged(job, regions) : stacked(job, regions);
  const masks = [background, ...regions];
  const reach = job.views.map((view) => masks.map((mask) => reachOf(mask, view, job.grid.width)));
  return { phase, masks, reach, bootstrapped: [false, ...bootstrapped] };
}

function regionMasks(job: SamplingJob, active: boolean[], bootstrapped: boolean[]): Float32Array[] {
  return job.regions.map(({ mask }, p) => {
    if (!active[p]) return new Float32Array(mask.soft.length);
    return bootstrapped[p] ? mask.soft.map((m, i) => (mask.hard[i] ? m : 0)) : mask.soft.slice();
  });
}

/** The paper's rule, with a weight per region. Turns masks into weights in place; returns the background's. */
function averaged(job: SamplingJob, masks: Float32Array[]): Float32Array {
  const background = new Float32Array(job.grid.height * job.grid.width).fill(1);
  masks.forEach((mask, p) => {
    const { weight } = job.regions[p];
    for (let i = 0; i < mask.length; i++) {
      background[i] = remains(background[i], mask[i]);
      mask[i] *= weight;
    }
  });
  return background;
}

/** Front to back, each region takes what those before it left. In place; returns what is left for the background. */
function stacked(job: SamplingJob, masks: Float32Array[]): Float32Array {
  const left = new Float32Array(job.grid.height * job.grid.width).fill(1);
  const frontToBack = job.fusion === 'first' ? masks : [...masks].reverse();
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

function reachOf(mask: Float32Array, view: View, canvasWidth: number): Reach {
  let held = 0;
  for (let y = view.y; y < view.y + view.height; y++) {
    for (let i = y * canvasWidth + view.x, end = i + view.width; i < end; i++) if (mask[i] > 0) held++;
  }
  return held === 0 ? Reach.None : held === view.height * view.width ? Reach.Whole : Reach.Part;
}

/** A fusion under way: Σ M_p·ε_p and Σ M_p over the windows and prompts added so far. */
export interface FusionSum {
  /** In double precision: predictions that are equal fuse to exactly themselves, whatever their weights. */
  value: Float64Array;
  weight: Float64Array;
}

export function startFusion({ grid }: SamplingJob): FusionSum {
  const cells = grid.height * grid.width;
  return { value: new Float64Array(grid.channels * cells), weight: new Float64Array(cells) };
}

/** Adds predictions in the order of windows and prompts, so that the order in which they come makes no difference. */
export function addPredictions(job: SamplingJob, index: number, sum: FusionSum, predictions: Prediction[]): void {
  const { masks } = weightsAt(job, index);
  const { channels, height, width } = job.grid;
  const cells = height * width;
  for (const { view, prompt, latents } of [...predictions].sort((a, b) => a.view.index - b.view.index || a.prompt - b.prompt)) {
    const mask = masks[prompt];
    const noise = latents.data;
    for (let row = 0; row < view.height; row++) {
      const start = (view.y + row) * width + view.x;
      for (let x = 0; x < view.width; x++) sum.weight[start + x] += mask[start + x];
      for (let c = 0; c < channels; c++) {
        const from = (c * view.height + row) * view.width;
        const to = c * cells + start;
        for (let x = 0; x < view.width; x++) sum.value[to + x] += mask[start + x] * noise[from + x];
      }
    }
  }
}

/**
 * Σ M_p·ε_p / Σ M_p.
 * @returns [1, C, H, W]
 * @throws InvalidInputError when a cell got no prediction
 */
export function finishFusion({ grid }: SamplingJob, { value, weight }: FusionSum): Tensor<'float32'> {
  const fused = new Float32Array(value.length);
  for (let i = 0; i < fused.length; i++) fused[i] = value[i] / weight[i % weight.length];
  const missing = weight.indexOf(0);
  if (missing >= 0) {
    const cell = `cell (${missing % grid.width}, ${Math.floor(missing / grid.width)}) has none`;
    throw new InvalidInputError('predictions', cell, 'at least one prediction for every latent cell');
  }
  return Tensor.float32(fused, [1, grid.channels, grid.height, grid.width]);
}

/** The fused prediction of all windows and prompts at once: what the sampler does piece by piece. */
export function fuse(job: SamplingJob, index: number, predictions: Prediction[]): Tensor<'float32'> {
  const sum = startFusion(job);
  addPredictions(job, index, sum, predictions);
  return finishFusion(job, sum);
}
