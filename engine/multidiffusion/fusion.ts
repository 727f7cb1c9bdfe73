/**
 * Fusion: from each prompt's prediction in each window to one prediction for the canvas (paper, equation 5).
 * What is fused is the guided model output in its own space. With binary masks this gives the same numbers
 * as the paper's averaging after the step, because the step is affine in it; but then one step is
 * taken on one state, which is what multistep and stochastic schedulers need.
 */
import { InvalidInputError } from '../errors';
import { Tensor } from '../tensor';
import type { SamplingJob } from './job';
import { cellsOf, type View } from './views';
import { discards, weightsAt } from './weights';

/** The guided prediction of one prompt in one window. */
export interface Prediction {
  view: View;
  /** Index of the prompt: 0 the background, 1 the first region. */
  prompt: number;
  /** [1, C, h, w] */
  latents: Tensor<'float32'>;
}

/** A fusion under way: Σ w·M_p·ε_p and Σ w·M_p over the windows and prompts added so far, w the window's weight. */
export interface FusionSum {
  /** In double precision: predictions that are equal fuse to exactly themselves, whatever their weights. */
  value: Float64Array;
  weight: Float64Array;
}

export function startFusion({ grid }: SamplingJob): FusionSum {
  const cells = grid.height * grid.width;
  return { value: new Float64Array(grid.channels * cells), weight: new Float64Array(cells) };
}

/**
 * Adds predictions in the order of windows and prompts, so that the order in which they come makes no difference.
 * @param masks what each prompt weighs
 */
export function addPredictions(job: SamplingJob, index: number, sum: FusionSum, predictions: Prediction[], { masks } = weightsAt(job, index)): void {
  const planeSize = job.grid.height * job.grid.width;
  for (const { view, prompt, latents } of [...predictions].sort((a, b) => a.view.index - b.view.index || a.prompt - b.prompt)) {
    const cells = cellsOf(view, job.grid.width);
    const noise = latents.data;
    for (let i = 0; i < cells.length; i++) {
      const cell = cells[i];
      const weight = masks[prompt][cell] * job.windowWeights[i];
      if (weight === 0) continue;
      sum.weight[cell] += weight;
      for (let c = 0; c < job.grid.channels; c++) sum.value[c * planeSize + cell] += weight * noise[c * cells.length + i];
    }
  }
}

/**
 * Σ w·M_p·ε_p / Σ w·M_p.
 * @returns [1, C, H, W]; zero in cells without a prediction that are thrown away anyhow
 * @throws InvalidInputError when a cell got no prediction
 */
export function finishFusion(job: SamplingJob, { value, weight }: FusionSum): Tensor<'float32'> {
  const { grid } = job;
  const painted = discards(job);
  const missing = weight.findIndex((sum, cell) => sum === 0 && painted?.[cell] !== 0);
  if (missing >= 0) {
    const cell = `cell (${missing % grid.width}, ${Math.floor(missing / grid.width)}) has none`;
    throw new InvalidInputError('predictions', cell, 'at least one prediction for every latent cell');
  }
  const fused = new Float32Array(value.length);
  for (let i = 0; i < fused.length; i++) fused[i] = weight[i % weight.length] === 0 ? 0 : value[i] / weight[i % weight.length];
  return Tensor.float32(fused, [1, grid.channels, grid.height, grid.width]);
}

/** The fused prediction of all windows and prompts at once: what the sampler does piece by piece. */
export function fuse(job: SamplingJob, index: number, predictions: Prediction[]): Tensor<'float32'> {
  const sum = startFusion(job);
  addPredictions(job, index, sum, predictions);
  return finishFusion(job, sum);
}
