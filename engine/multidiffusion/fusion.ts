/**
 * Fusion: from each prompt's prediction in each window to one prediction for the canvas (paper, equation 5).
 * What is fused is the guided model output in its own space. With binary masks this gives the same numbers
 * as the paper's averaging after the step, because the step is affine in it; but then one step is
 * taken on one state, which is what multistep and stochastic schedulers need.
 */
import { InvalidInputError } from '../errors';
import { Tensor } from '../tensor';
import { atOnce, type Steps } from '../turns';
import type { Plan } from './plan';
import type { State } from './state';
import type { Strategy } from './strategy';
import { cellsOf, type View, windowWeights } from './views';
import { paintedShare, weightsAtInSteps } from './weights';

/** The guided prediction of one prompt in one window. */
export interface Prediction {
  view: View;
  /** Index of the prompt: 0 the background, 1 the first region. */
  prompt: number;
  /** [1, C, h, w] */
  latents: Tensor<'float32'>;
}

/** Σ w·M_p·ε_p and Σ w·M_p over windows and prompts, w the window's weight. */
interface Sum {
  /** In double precision: predictions that are equal fuse to exactly themselves, whatever their weights. */
  value: Float64Array;
  weight: Float64Array;
}

/**
 * Σ w·M_p·ε_p / Σ w·M_p. A bootstrapped region counts only where its input was the shared latents. Where nothing
 * was predicted that counts with a fusion other than the plan's, because inputs were prepared for the plan's, that holds.
 * @param strategy how the inputs were prepared, and how to fuse
 * @param predictions in any order
 * @returns [1, C, H, W]; zero in cells without a prediction that are thrown away anyhow
 * @throws InvalidInputError when a cell got no prediction
 */
export function fuse(
  plan: Plan,
  strategy: Strategy,
  state: Pick<State, 'index'>,
  predictions: Prediction[],
): Tensor<'float32'> {
  return atOnce(fuseInSteps(plan, strategy, state, predictions));
}

/** As fuse, in steps of a prediction. */
export function* fuseInSteps(
  plan: Plan,
  strategy: Strategy,
  { index }: Pick<State, 'index'>,
  predictions: Prediction[],
): Steps<Tensor<'float32'>> {
  const prepared = { ...strategy, fusion: plan.strategy.fusion };
  const own = yield* weightsAtInSteps(plan, prepared, index);
  const chosen = yield* weightsAtInSteps(plan, strategy, index);
  const masks = chosen.masks.map((mask, p) =>
    own.bootstrapped[p] && chosen !== own ? mask.map((weight, cell) => (own.masks[p][cell] > 0 ? weight : 0)) : mask,
  );
  const sum = yield* sumUp(plan, strategy, masks, predictions);
  if (chosen !== own && sum.weight.includes(0)) fillGaps(sum, yield* sumUp(plan, prepared, own.masks, predictions));
  return quotient(plan, sum);
}

/** In the order of windows and prompts, so that the order in which predictions come makes no difference. */
function* sumUp(
  { grid, memo, views }: Plan,
  { fusion }: Strategy,
  masks: readonly Float32Array[],
  predictions: Prediction[],
): Steps<Sum> {
  const planeSize = grid.height * grid.width;
  const [value, weight] = [new Float64Array(grid.channels * planeSize), new Float64Array(planeSize)];
  const inWindow = memo.recall(['window weights', fusion.windowWeights], () =>
    windowWeights(fusion.windowWeights, views[0]),
  );
  for (const { view, prompt, latents } of [...predictions].sort(
    (a, b) => a.view.index - b.view.index || a.prompt - b.prompt,
  )) {
    const cells = cellsOf(view, grid.width);
    const noise = latents.data;
    for (let i = 0; i < cells.length; i++) {
      const cell = cells[i];
      const w = masks[prompt][cell] * inWindow[i];
      if (w === 0) continue;
      weight[cell] += w;
      for (let c = 0; c < grid.channels; c++) value[c * planeSize + cell] += w * noise[c * cells.length + i];
    }
    yield;
  }
  return { value, weight };
}

function fillGaps(sum: Sum, other: Sum): void {
  const cells = sum.weight.length;
  for (let i = 0; i < sum.value.length; i++) if (sum.weight[i % cells] === 0) sum.value[i] = other.value[i];
  for (let i = 0; i < cells; i++) if (sum.weight[i] === 0) sum.weight[i] = other.weight[i];
}

function quotient(plan: Plan, { value, weight }: Sum): Tensor<'float32'> {
  const { grid } = plan;
  const painted = paintedShare(plan);
  const missing = weight.findIndex((sum, cell) => sum === 0 && painted?.[cell] !== 0);
  if (missing >= 0) {
    const cell = `cell (${missing % grid.width}, ${Math.floor(missing / grid.width)}) has none`;
    throw new InvalidInputError('predictions', cell, 'at least one prediction for every latent cell');
  }
  const fused = new Float32Array(value.length);
  for (let i = 0; i < fused.length; i++)
    fused[i] = weight[i % weight.length] === 0 ? 0 : value[i] / weight[i % weight.length];
  return Tensor.float32(fused, [1, grid.channels, grid.height, grid.width]);
}
