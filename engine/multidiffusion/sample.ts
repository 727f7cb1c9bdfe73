/**
 * MultiDiffusion (Bar-Tal et al. 2023, "MultiDiffusion: Fusing Diffusion Paths for Controlled Image Generation").
 *
 * Every step prepares what each prompt sees of each window (bootstrapping), predicts (UNet and guidance), fuses
 * the predictions into one for the whole canvas, and takes one scheduler step with it.
 */
import { MultiDiffusionError, throwIfCancelled } from '../errors';
import type { DiffusionModel } from '../model';
import { findNotFinite, Tensor } from '../tensor';
import { prepareInputs } from './bootstrap';
import { addPredictions, finishFusion, startFusion } from './fusion';
import { predictNoise } from './guidance';
import type { SampleRequest, SamplingJob, Timings } from './job';
import { foresee } from './levels';
import { createJob } from './prepare';
import type { Finding } from './types';
import type { View } from './views';
import { Reach, weightsAt } from './weights';

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

/** Asks for the canvas' model output at evaluation `index`, [1, C, H, W]; may replace job.latents before the step. */
export type Evaluate = (model: DiffusionModel, job: SamplingJob, index: number, signal?: AbortSignal) => Promise<Tensor<'float32'>>;

/**
 * Makes the latents of a picture.
 * @param evaluate prepares, predicts and fuses one step; another one, such as a loop of nodes, must end in the same tensor
 * @throws InvalidInputError and MissingInputError for what is wrong with the request; CancelledError between two
 *   calls of the model when the request's signal is aborted; whatever the model throws
 */
export async function sample(model: DiffusionModel, request: SampleRequest, evaluate: Evaluate = evaluateWindows): Promise<SampleResult> {
  const { signal, onStep } = request;
  throwIfCancelled(signal);
  const job = await createJob(model, request);
  const started = performance.now();
  const total = job.scheduler.timesteps.length;
  while (job.index < total) {
    const { index } = job;
    throwIfCancelled(signal);
    const fused = await evaluate(model, job, index, signal);
    takeStep(job, index, fused);
    await onStep?.({ index: job.index, total, timestep: job.scheduler.timesteps[index], latents: job.latents, foresee: job.foresee });
  }
  job.timings.total += performance.now() - started;
  return resultOf(job);
}

/** Bootstrapping, prediction and fusion, a batch of windows after the other. */
async function evaluateWindows(model: DiffusionModel, job: SamplingJob, index: number, signal?: AbortSignal): Promise<Tensor<'float32'>> {
  const sum = startFusion(job);
  for (const views of viewBatches(job, index)) {
    throwIfCancelled(signal);
    const inputs = prepareInputs(job, index, views);
    const predictions = await predictNoise(model, job, index, inputs, { signal });
    addPredictions(job, index, sum, predictions);
  }
  return finishFusion(job, sum);
}

/**
 * One scheduler step on the shared latents: moves the job on.
 * @param fused the canvas' model output, [1, C, H, W]
 * @throws MultiDiffusionError INFERENCE when it is not finite
 */
export function takeStep(job: SamplingJob, index: number, fused: Tensor<'float32'>): void {
  if (findNotFinite(fused.data) >= 0) {
    throw new MultiDiffusionError(
      'INFERENCE',
      `The model's output at step ${index + 1} of ${job.scheduler.timesteps.length} is not finite (NaN or infinite). ` +
        'The model may have overflowed in half precision, or its files are damaged: try a float32 export.',
    );
  }
  const { latents, scheduler } = job;
  const { kept } = job;
  job.foresee = () => {
    const foreseen = foresee(scheduler, index, latents, fused);
    return kept ? keepOutside(foreseen, kept.image, kept.painted) : foreseen;
  };
  job.latents = scheduler.step(fused, index, job.latents, job.stepNoise);
  if (kept) job.latents = keepOutside(job.latents, levelOfKept(job, index + 1, kept.image), kept.painted);
  job.index = index + 1;
}

/** The picture that is kept, noised to the level before evaluation `index`; in the end as it is. */
function levelOfKept({ scheduler, noise }: SamplingJob, index: number, image: Tensor<'float32'>): Tensor<'float32'> {
  return index < scheduler.timesteps.length ? scheduler.addNoise(image, noise, index) : image;
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

/** Whole windows, as many at a time as fit into one call of the model: memory is bounded by the call, not by the canvas. */
function* viewBatches(job: SamplingJob, index: number): Generator<View[]> {
  const { reach } = weightsAt(job, index);
  let batch: View[] = [];
  let rows = 0;
  for (const view of job.views) {
    const more = 2 * reach[view.index].filter((extent) => extent !== Reach.None).length;
    if (batch.length && rows + more > job.rowsPerCall) {
      yield batch;
      batch = [];
      rows = 0;
    }
    batch.push(view);
    rows += more;
  }
  yield batch;
}

function resultOf(job: SamplingJob): SampleResult {
  const evaluations = job.scheduler.timesteps.length;
  return {
    latents: job.latents,
    width: job.width,
    height: job.height,
    seed: job.seed,
    steps: job.steps,
    scheduler: job.scheduler.name,
    findings: job.findings,
    timings: job.timings,
    unetRows: job.unetRows,
    referenceRows: 2 * job.prompts.length * job.views.length * evaluations,
    bootstrapEvaluations: job.bootstrapEvaluations,
    evaluations,
    views: job.views.length,
  };
}
