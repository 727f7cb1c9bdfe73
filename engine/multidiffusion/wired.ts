/**
 * A step as a message, for steps that are wired as nodes: plain data and tensors that any other node may
 * read, replace or leave out, and their way back into what the method's functions take.
 */
import { InvalidInputError, MissingInputError } from '../errors';
import type { CallOptions, DiffusionModel } from '../model';
import { checkOption, SAMPLER_OPTIONS } from '../options';
import { findNotFinite, Tensor } from '../tensor';
import type { StepInput } from './bootstrap';
import { addPredictions, finishFusion, type FusionSum, type Prediction, startFusion } from './fusion';
import { predictNoise } from './guidance';
import type { SamplingJob } from './job';
import { levelBefore } from './levels';
import type { View } from './views';
import { Reach, weightsAt } from './weights';

/** One step, as msg.step. Every tensor in it is the receiver's own. */
export interface WiredStep {
  job: string;
  /** Model evaluations done, of how many; fraction is index / total. */
  index: number;
  total: number;
  fraction: number;
  timestep: number;
  /** Noise level in the scheduler's own scale, where it has one. */
  sigma?: number;
  /** A picture x₀ at this step's noise level is levels.signal · x₀ + levels.noise · (unit noise). */
  levels: { signal: number; noise: number };
  /** The unit noise that the picture began with, [1, C, H, W]. */
  noise: Tensor<'float32'>;
  /** The windows, in latent cells; one for a canvas that the model can draw at once. */
  views: View[];
  /** The background, then the regions. */
  prompts: WiredPrompt[];
  /** Added by multidiffusion-bootstrap: how it bootstrapped, which multidiffusion-fuse must know for its weights. */
  bootstrapping?: string;
  inputs?: WiredInput[];
  /** Added by multidiffusion-denoise. */
  predictions?: WiredPrediction[];
  /** Added by multidiffusion-fuse: the canvas' prediction, [1, C, H, W]. */
  fused?: Tensor<'float32'>;
}

export interface WiredPrompt {
  name: string;
  weight: number;
  /** What multidiffusion-denoise guides with: another node may change it. */
  guidanceScale: number;
  /** Whether the sampler would bootstrap it at this step. */
  bootstrapped: boolean;
  /** Its place on the latent grid, [1, H, W] in [0, 1]. */
  mask: Tensor<'float32'>;
  /** How much its prediction counts at each cell with the sampler's own fusion, [1, H, W]. */
  weights: Tensor<'float32'>;
}

/** What the UNet is to see of a window, for one or several prompts. */
export interface WiredInput {
  /** Index into step.views. */
  view: number;
  /** Indices into step.prompts. */
  prompts: number[];
  /** [1, C, h, w] of the window's size, in the scale of msg.latents. */
  latents: Tensor<'float32'>;
  /** How many cells down and to the right the latents were moved: multidiffusion-denoise moves its prediction back. */
  moved?: [down: number, right: number];
}

/** What the UNet predicted, after guidance. */
export interface WiredPrediction {
  view: number;
  prompt: number;
  /** [1, C, h, w] of the window's size. */
  prediction: Tensor<'float32'>;
}

/** The message's description of the job's next step. */
export function describeStep(job: SamplingJob, id: string): WiredStep {
  const { index, scheduler, grid } = job;
  const total = scheduler.timesteps.length;
  const { masks, bootstrapped } = weightsAt(job, index);
  const level = levelBefore(scheduler, index);
  const plane = (data: Float32Array): Tensor<'float32'> => Tensor.float32(data.slice(), [1, grid.height, grid.width]);
  const everywhere = new Float32Array(grid.height * grid.width).fill(1);
  return {
    job: id,
    index,
    total,
    fraction: index / total,
    timestep: scheduler.timesteps[index],
    ...(scheduler.sigmas && { sigma: scheduler.sigmas[index] }),
    levels: { signal: level.alpha, noise: level.sigma },
    noise: copy(job.noise),
    views: job.views.map((view) => ({ ...view })),
    prompts: job.prompts.map(({ name, guidanceScale }, p) => ({
      name,
      weight: p === 0 ? 1 : job.regions[p - 1].weight,
      guidanceScale,
      bootstrapped: bootstrapped[p],
      mask: plane(p === 0 ? everywhere : job.regions[p - 1].mask.soft),
      weights: plane(masks[p]),
    })),
  };
}

/** A tensor that may be written into without harm to the job. */
export function copy(tensor: Tensor<'float32'>): Tensor<'float32'> {
  return Tensor.float32(tensor.data.slice(), tensor.dims);
}

export const wireInputs = (inputs: StepInput[]): WiredInput[] => inputs.map((input) => ({ ...input, view: input.view.index, prompts: [...input.prompts] }));

export const wirePredictions = (predictions: Prediction[]): WiredPrediction[] =>
  predictions.map(({ view, prompt, latents }) => ({ view: view.index, prompt, prediction: latents }));

/**
 * A tensor of the canvas: the shared latents or the fused prediction.
 * @param name how to call it in errors
 * @throws MissingInputError, InvalidInputError
 */
export function readCanvas({ grid }: SamplingJob, value: unknown, name: string, remedy: string): Tensor<'float32'> {
  if (value === undefined || value === null) throw new MissingInputError(name, remedy);
  return readTensor(value, [1, grid.channels, grid.height, grid.width], name);
}

/** @throws MissingInputError, InvalidInputError */
export function readInputs(job: SamplingJob, value: unknown): StepInput[] {
  return readList(value, 'step.inputs', 'Send the message through multidiffusion-bootstrap first.').map((entry, i) => {
    const name = `step.inputs[${i}]`;
    const view = readView(job, entry.view, name);
    const prompts = entry.prompts;
    if (!Array.isArray(prompts) || prompts.length === 0) throw new InvalidInputError(`${name}.prompts`, prompts, 'an array of at least one index into step.prompts');
    prompts.forEach((prompt) => checkPrompt(job, prompt, `${name}.prompts`));
    if (new Set(prompts).size < prompts.length) throw new InvalidInputError(`${name}.prompts`, prompts, 'each prompt once');
    const latents = readTensor(entry.latents, [1, job.grid.channels, view.height, view.width], `${name}.latents`);
    return { view, prompts: prompts as number[], latents, ...readMoved(entry.moved, `${name}.moved`) };
  });
}

/** @throws MissingInputError, InvalidInputError */
export function readPredictions(job: SamplingJob, value: unknown): Prediction[] {
  const known = new Set<string>();
  return readList(value, 'step.predictions', 'Send the message through multidiffusion-denoise first.').map((entry, i) => {
    const name = `step.predictions[${i}]`;
    const view = readView(job, entry.view, name);
    const prompt = checkPrompt(job, entry.prompt, `${name}.prompt`);
    const pair = `${view.index} ${prompt}`;
    if (known.has(pair)) throw new InvalidInputError(name, `a second one for prompt ${prompt} in window ${view.index}`, 'one prediction for each prompt and window');
    known.add(pair);
    return { view, prompt, latents: readTensor(entry.prediction, [1, job.grid.channels, view.height, view.width], `${name}.prediction`) };
  });
}

/**
 * The guidance scales of a message's prompts.
 * @throws InvalidInputError
 */
export function readGuidance(job: SamplingJob, value: unknown): number[] {
  return job.prompts.map(({ guidanceScale }, p) => {
    const entry: unknown = Array.isArray(value) ? value[p] : undefined;
    const own = typeof entry === 'object' && entry !== null ? (entry as WiredPrompt).guidanceScale : undefined;
    return (checkOption(`step.prompts[${p}].guidanceScale`, SAMPLER_OPTIONS.guidanceScale, own) as number | undefined) ?? guidanceScale;
  });
}

/** Predicts for a message's inputs, in the same calls of the model as the built-in loop: whole windows, up to rowsPerCall rows. */
export async function predictInputs(model: DiffusionModel, job: SamplingJob, index: number, inputs: StepInput[], guidance: number[], options?: CallOptions): Promise<Prediction[]> {
  const prompts = job.prompts.map((prompt, p) => (prompt.guidanceScale === guidance[p] ? prompt : { ...prompt, guidanceScale: guidance[p] }));
  const guided = { ...job, prompts, unetRows: 0 };
  const predictions: Prediction[] = [];
  for (const batch of batches(inputs, job.rowsPerCall)) predictions.push(...(await predictNoise(model, guided, index, batch, options)));
  job.unetRows += guided.unetRows;
  return predictions;
}

function batches(inputs: StepInput[], limit: number): StepInput[][] {
  const result: StepInput[][] = [];
  let rows = 0;
  for (let start = 0, end = 0; start < inputs.length; start = end) {
    while (end < inputs.length && inputs[end].view === inputs[start].view) end++;
    const window = inputs.slice(start, end);
    const more = 2 * window.reduce((sum, { prompts }) => sum + prompts.length, 0);
    if (result.length === 0 || rows + more > limit) {
      result.push([]);
      rows = 0;
    }
    result[result.length - 1].push(...window);
    rows += more;
  }
  return result;
}

/**
 * Fuses a message's predictions. A bootstrapped region counts only where its input was the shared latents. Where nothing
 * that counts in the wired fusion was predicted, because it counts for nothing in the sampler's, the sampler's holds.
 * @param base the job as its inputs were prepared, with the sampler's fusion
 * @param variant the same with the fusion that is wired: see varyFusion
 * @throws InvalidInputError when a prediction that the fusion needs is missing
 */
export function fuseWired(base: SamplingJob, variant: SamplingJob, index: number, predictions: Prediction[]): Tensor<'float32'> {
  const [own, wired] = [weightsAt(base, index), weightsAt(variant, index)];
  const there = new Set(predictions.map(({ view, prompt }) => `${view.index} ${prompt}`));
  for (const { index: view } of base.views) {
    const missing = wired.reach[view].findIndex((reach, prompt) => reach !== Reach.None && own.reach[view][prompt] !== Reach.None && !there.has(`${view} ${prompt}`));
    if (missing >= 0) {
      throw new InvalidInputError('step.predictions', `without one for prompt ${missing} (${base.prompts[missing].name}) in window ${view}`, 'one for every prompt in every window where it has a part');
    }
  }
  const masks = wired.masks.map((mask, p) => (own.bootstrapped[p] ? mask.map((weight, cell) => (own.masks[p][cell] > 0 ? weight : 0)) : mask));
  const sum = startFusion(variant);
  addPredictions(variant, index, sum, predictions, { ...wired, masks });
  if (sum.weight.includes(0)) fillGaps(sum, base, index, predictions);
  return finishFusion(variant, sum);
}

function fillGaps(sum: FusionSum, base: SamplingJob, index: number, predictions: Prediction[]): void {
  const own = startFusion(base);
  addPredictions(base, index, own, predictions);
  const cells = sum.weight.length;
  for (let i = 0; i < sum.value.length; i++) if (sum.weight[i % cells] === 0) sum.value[i] = own.value[i];
  for (let i = 0; i < cells; i++) if (sum.weight[i] === 0) sum.weight[i] = own.weight[i];
}

/** (1 − share)·a + share·b. */
export function mix(a: Tensor<'float32'>, b: Tensor<'float32'>, share: number): Tensor<'float32'> {
  if (share === 1) return b;
  const [from, to] = [a.data, b.data];
  const mixed = new Float32Array(from.length);
  for (let i = 0; i < mixed.length; i++) mixed[i] = (1 - share) * from[i] + share * to[i];
  return Tensor.float32(mixed, a.dims);
}

function readList(value: unknown, name: string, remedy: string): Array<Record<string, unknown>> {
  if (value === undefined || value === null) throw new MissingInputError(name, remedy);
  if (!Array.isArray(value) || value.length === 0) throw new InvalidInputError(name, value, 'an array of at least one entry');
  value.forEach((entry: unknown, i) => {
    if (typeof entry !== 'object' || entry === null) throw new InvalidInputError(`${name}[${i}]`, entry, 'an object');
  });
  return value as Array<Record<string, unknown>>;
}

function readView({ views }: SamplingJob, value: unknown, name: string): View {
  const view = typeof value === 'number' ? views[value] : undefined;
  if (!view) throw new InvalidInputError(`${name}.view`, value, `the index of one of ${views.length} windows, from 0 to ${views.length - 1}`);
  return view;
}

function readMoved(value: unknown, name: string): Pick<StepInput, 'moved'> {
  if (value === undefined) return {};
  if (!Array.isArray(value) || value.length !== 2 || !value.every(Number.isSafeInteger)) throw new InvalidInputError(name, value, '[down, right] as whole numbers of cells');
  return { moved: value as [number, number] };
}

function checkPrompt({ prompts }: SamplingJob, value: unknown, name: string): number {
  if (typeof value !== 'number' || !prompts[value]) throw new InvalidInputError(name, value, `the index of one of ${prompts.length} prompts, from 0 (the background) to ${prompts.length - 1}`);
  return value;
}

function readTensor(value: unknown, dims: number[], name: string): Tensor<'float32'> {
  const tensor = Tensor.from(value, name);
  if (tensor.dtype !== 'float32' || tensor.dims.join() !== dims.join()) throw new InvalidInputError(name, String(tensor), `a float32 tensor [${dims.join(', ')}]`);
  const { data } = tensor as Tensor<'float32'>;
  const wrong = findNotFinite(data);
  if (wrong >= 0) throw new InvalidInputError(`${name}.data[${wrong}]`, data[wrong], 'a finite number');
  return tensor as Tensor<'float32'>;
}
