/**
 * MultiDiffusion (Bar-Tal et al. 2023, "MultiDiffusion: Fusing Diffusion Paths for Controlled Image Generation").
 *
 * Every step prepares what each prompt sees of each window (bootstrapping), predicts (UNet and guidance), fuses
 * the predictions into one for the whole canvas, and takes one scheduler step with it.
 */
import { MultiDiffusionError, throwIfCancelled } from '../errors';
import type { DiffusionModel } from '../model';
import { predictedOriginal } from '../schedulers/common';
import { levelBefore } from '../schedulers/level';
import { findNotFinite, Tensor } from '../tensor';
import { inTurns } from '../turns';
import type { Finding } from '../types';
import { prepareBackgrounds, prepareInputsInSteps } from './bootstrap';
import { findProblems } from './findings';
import { fuseInSteps } from './fusion';
import { predictNoise } from './guidance';
import { createPlan, type Plan, type Progress, type SampleRequest } from './plan';
import { startState, type State, type Timings } from './state';

/** Asks for the canvas' model output at evaluation state.index, [1, C, H, W]; may replace state.latents before the step. */
export type Evaluate = (
  model: DiffusionModel,
  plan: Plan,
  state: State,
  signal?: AbortSignal,
) => Promise<Tensor<'float32'>>;

export interface SampleResult {
  /** [1, C, h, w], scaled as the UNet uses them. */
  latents: Tensor<'float32'>;
  /** In pixels, after rounding. */
  width: number;
  height: number;
  seed: number;
  steps: number;
  /** Class name of the scheduler. */
  scheduler: string;
  findings: Finding[];
  timings: Timings;
  /** UNet rows evaluated, over all steps. */
  unetRows: number;
  /** What the references evaluate: a conditional and an unconditional row per prompt, window and evaluation. */
  referenceRows: number;
  /** Model evaluations that were bootstrapped, of how many. */
  bootstrapEvaluations: number;
  evaluations: number;
  views: number;
}

/**
 * Makes the latents of a picture.
 * @param evaluate prepares, predicts and fuses one step; another one than the built-in, such as a loop of
 *   nodes, must end in the same tensor
 * @throws InvalidInputError and MissingInputError for what is wrong with the request; CancelledError between two
 *   calls of the model when the request's signal is aborted; whatever the model throws
 */
export async function sample(
  model: DiffusionModel,
  request: SampleRequest,
  evaluate?: Evaluate,
): Promise<SampleResult> {
  const { signal, onStep } = request;
  throwIfCancelled(signal);
  if (model.sampleElsewhere && !evaluate) return (await model.sampleElsewhere(request)) as SampleResult;
  const started = performance.now();
  const { plan, state } = await begin(model, request);
  while (state.index < plan.evaluations) {
    throwIfCancelled(signal);
    takeStep(plan, state, await (evaluate ?? evaluateStep)(model, plan, state, signal));
    await onStep?.(progressOf(plan, state));
  }
  state.timings.total = performance.now() - started;
  return resultOf(plan, state);
}

/**
 * The plan of a request, and the state before its first step.
 * @throws InvalidInputError, MissingInputError naming the property; CancelledError
 */
export async function begin(model: DiffusionModel, request: SampleRequest): Promise<{ plan: Plan; state: State }> {
  const plan = await createPlan(model.facts, request);
  const state = startState(plan);
  state.findings.push(...(await inTurns(findProblems(plan, request.regions ?? []))));
  state.findings.push(...(await prepareBackgrounds(model, plan, plan.strategy, state, { signal: request.signal })));
  return { plan, state };
}

/** The model's output for the canvas, as the paper has it. */
async function evaluateStep(
  model: DiffusionModel,
  plan: Plan,
  state: State,
  signal?: AbortSignal,
): Promise<Tensor<'float32'>> {
  const inputs = await inTurns(prepareInputsInSteps(plan, plan.strategy, state));
  const predictions = await predictNoise(model, plan, inputs, state, { signal });
  return inTurns(fuseInSteps(plan, plan.strategy, state, predictions));
}

/**
 * One scheduler step on the shared latents: moves the state on.
 * @param fused the canvas' model output, [1, C, H, W]
 * @throws MultiDiffusionError INFERENCE when it is not finite
 */
export function takeStep(plan: Plan, state: State, fused: Tensor<'float32'>): void {
  const { evaluations, kept, scheduler, stepNoise } = plan;
  const { index, latents } = state;
  if (findNotFinite(fused.data) >= 0) {
    throw new MultiDiffusionError(
      'INFERENCE',
      `The model's output at step ${index + 1} of ${evaluations} is not finite (NaN or infinite). ` +
        'The model may have overflowed in half precision, or its files are damaged: try a float32 export.',
    );
  }
  state.predictedOriginal = () => {
    const level = levelBefore(scheduler, index);
    const predicted = predictedOriginal(scheduler.predictionType, fused, latents, level);
    return kept ? keepOutside(predicted, kept.image, kept.painted) : predicted;
  };
  const stepped = scheduler.step(fused, index, latents, stepNoise);
  state.latents = kept ? keepOutside(stepped, keptBefore(plan, index + 1, kept.image), kept.painted) : stepped;
  state.index = index + 1;
}

/** The picture that is kept, noised to the level before evaluation `index`; in the end as it is. */
function keptBefore({ evaluations, noise, scheduler }: Plan, index: number, image: Tensor<'float32'>) {
  return index < evaluations ? scheduler.addNoise(image, noise, index) : image;
}

/** What is painted, and outside the regions what is kept. */
function keepOutside(latents: Tensor<'float32'>, kept: Tensor<'float32'>, painted: Float32Array): Tensor<'float32'> {
  const outside = kept.data;
  const mixed = latents.data.map((x, i) => {
    const share = painted[i % painted.length];
    if (share === 1) return x;
    return share === 0 ? outside[i] : share * x + (1 - share) * outside[i];
  });
  return Tensor.float32(mixed, latents.dims);
}

function progressOf({ evaluations, scheduler }: Plan, { index, latents, predictedOriginal }: State): Progress {
  return { index, total: evaluations, timestep: scheduler.timesteps[index - 1], latents, predictedOriginal };
}

function resultOf(plan: Plan, { findings, latents, timings, unetRows }: State): SampleResult {
  const { evaluations, height, options, prompts, scheduler, seed, strategy, views, width } = plan;
  return {
    latents,
    width,
    height,
    seed,
    steps: options.steps,
    scheduler: scheduler.name,
    findings,
    timings,
    unetRows,
    referenceRows: 2 * prompts.length * views.length * evaluations,
    bootstrapEvaluations: strategy.bootstrapping.evaluations,
    evaluations,
    views: views.length,
  };
}
