/**
 * A step as a message, for steps that are wired as nodes: plain data and tensors that any other node may
 * read, replace or leave out, and their way back into what the method's functions take.
 */
import { InvalidInputError, MissingInputError } from '../errors';
import { BOOTSTRAP_OPTIONS, checkOption, SAMPLER_OPTIONS } from '../options';
import { findNotFinite, Tensor } from '../tensor';
import type { StepInput } from './bootstrap';
import type { Prediction } from './fusion';
import { levelBefore } from '../schedulers/level';
import type { Plan } from './plan';
import type { State } from './state';
import { type BootstrapOptions, type Strategy } from './strategy';
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

/** The message's description of the next step of the job `id`. */
export function describeStep(plan: Plan, { index }: State, id: string): WiredStep {
  const { evaluations, grid, prompts, regions, scheduler } = plan;
  const { masks, bootstrapped } = weightsAt(plan, plan.strategy, index);
  const { alpha, sigma } = levelBefore(scheduler, index);
  const plane = (data: Float32Array): Tensor<'float32'> => Tensor.float32(data.slice(), [1, grid.height, grid.width]);
  const everywhere = new Float32Array(grid.height * grid.width).fill(1);
  return {
    job: id,
    index,
    total: evaluations,
    fraction: index / evaluations,
    timestep: scheduler.timesteps[index],
    ...(scheduler.sigmas && { sigma: scheduler.sigmas[index] }),
    levels: { signal: alpha, noise: sigma },
    noise: copy(plan.noise),
    views: plan.views.map((view) => ({ ...view })),
    prompts: prompts.map(({ name, guidanceScale }, p) => ({
      name,
      weight: p === 0 ? 1 : regions[p - 1].weight,
      guidanceScale,
      bootstrapped: bootstrapped[p],
      mask: plane(p === 0 ? everywhere : regions[p - 1].mask.soft),
      weights: plane(masks[p]),
    })),
  };
}

/** A tensor that may be written into without harm to the job. */
export function copy(tensor: Tensor<'float32'>): Tensor<'float32'> {
  return Tensor.float32(tensor.data.slice(), tensor.dims);
}

export const wireInputs = (inputs: StepInput[]): WiredInput[] =>
  inputs.map(({ view, prompts, latents, moved }) => ({
    view: view.index,
    prompts: [...prompts],
    latents,
    ...(moved && { moved }),
  }));

export const wirePredictions = (predictions: Prediction[]): WiredPrediction[] =>
  predictions.map(({ view, prompt, latents }) => ({ view: view.index, prompt, prediction: latents }));

/**
 * A tensor of the canvas: the shared latents or the fused prediction.
 * @param name how to call it in errors
 * @throws MissingInputError, InvalidInputError
 */
export function readCanvas({ grid }: Plan, value: unknown, name: string, remedy: string): Tensor<'float32'> {
  if (value === undefined || value === null) throw new MissingInputError(name, remedy);
  return readTensor(value, [1, grid.channels, grid.height, grid.width], name);
}

/**
 * What the UNet is to see, and how each prompt is guided.
 * @param value step.inputs
 * @param prompts step.prompts, of which the guidance scales are read
 * @throws MissingInputError, InvalidInputError
 */
export function readInputs(plan: Plan, value: unknown, prompts: unknown): StepInput[] {
  const scales = readGuidance(plan, prompts);
  return readList(value, 'step.inputs', 'Send the message through multidiffusion-bootstrap first.').map((entry, i) => {
    const name = `step.inputs[${i}]`;
    const view = readView(plan, entry.view, name);
    const own = readPrompts(plan, entry.prompts, `${name}.prompts`);
    const latents = readTensor(entry.latents, [1, plan.grid.channels, view.height, view.width], `${name}.latents`);
    return {
      view,
      prompts: own,
      latents,
      guidanceScales: own.map((prompt) => scales[prompt]),
      ...readMoved(entry.moved, `${name}.moved`),
    };
  });
}

/**
 * What was predicted.
 * @param value step.predictions
 * @param strategy with which they are to be fused: everything that counts must be there
 * @throws MissingInputError, InvalidInputError
 */
export function readPredictions(
  plan: Plan,
  strategy: Strategy,
  { index }: Pick<State, 'index'>,
  value: unknown,
): Prediction[] {
  const known = new Set<string>();
  const predictions = readList(value, 'step.predictions', 'Send the message through multidiffusion-denoise first.').map(
    (entry, i) => {
      const name = `step.predictions[${i}]`;
      const view = readView(plan, entry.view, name);
      const prompt = checkPrompt(plan, entry.prompt, `${name}.prompt`);
      const pair = `${view.index} ${prompt}`;
      if (known.has(pair))
        throw new InvalidInputError(
          name,
          `a second one for prompt ${prompt} in window ${view.index}`,
          'one prediction for each prompt and window',
        );
      known.add(pair);
      const dims = [1, plan.grid.channels, view.height, view.width];
      return { view, prompt, latents: readTensor(entry.prediction, dims, `${name}.prediction`) };
    },
  );
  const prepared = weightsAt(plan, { ...strategy, fusion: plan.strategy.fusion }, index);
  const chosen = weightsAt(plan, strategy, index);
  for (const { index: view } of plan.views) {
    const missing = chosen.reach[view].findIndex(
      (reach, prompt) =>
        reach !== Reach.None && prepared.reach[view][prompt] !== Reach.None && !known.has(`${view} ${prompt}`),
    );
    if (missing >= 0) {
      throw new InvalidInputError(
        'step.predictions',
        `without one for prompt ${missing} (${plan.prompts[missing].name}) in window ${view}`,
        'one for every prompt in every window where it has a part',
      );
    }
  }
  return predictions;
}

/**
 * How the step's inputs were prepared.
 * @param value step.bootstrapping
 * @throws InvalidInputError
 */
export function readBootstrapping(value: unknown): BootstrapOptions['bootstrapping'] {
  const { bootstrapping } = BOOTSTRAP_OPTIONS;
  return (checkOption('step.bootstrapping', bootstrapping, value) ?? 'sampler') as BootstrapOptions['bootstrapping'];
}

/** The guidance scales of a message's prompts. */
function readGuidance({ prompts }: Plan, value: unknown): number[] {
  return prompts.map(({ guidanceScale }, p) => {
    const entry: unknown = Array.isArray(value) ? value[p] : undefined;
    const own = typeof entry === 'object' && entry !== null ? (entry as WiredPrompt).guidanceScale : undefined;
    const checked = checkOption(`step.prompts[${p}].guidanceScale`, SAMPLER_OPTIONS.guidanceScale, own);
    return (checked as number | undefined) ?? guidanceScale;
  });
}

/** (1 − share)·a + share·b. */
export function interpolate(a: Tensor<'float32'>, b: Tensor<'float32'>, share: number): Tensor<'float32'> {
  if (share === 1) return b;
  const [from, to] = [a.data, b.data];
  const mixed = new Float32Array(from.length);
  for (let i = 0; i < mixed.length; i++) mixed[i] = (1 - share) * from[i] + share * to[i];
  return Tensor.float32(mixed, a.dims);
}

function readList(value: unknown, name: string, remedy: string): Array<Record<string, unknown>> {
  if (value === undefined || value === null) throw new MissingInputError(name, remedy);
  if (!Array.isArray(value) || value.length === 0)
    throw new InvalidInputError(name, value, 'an array of at least one entry');
  value.forEach((entry: unknown, i) => {
    if (typeof entry !== 'object' || entry === null) throw new InvalidInputError(`${name}[${i}]`, entry, 'an object');
  });
  return value as Array<Record<string, unknown>>;
}

function readView({ views }: Plan, value: unknown, name: string): View {
  const view = typeof value === 'number' ? views[value] : undefined;
  if (!view)
    throw new InvalidInputError(
      `${name}.view`,
      value,
      `the index of one of ${views.length} windows, from 0 to ${views.length - 1}`,
    );
  return view;
}

function readMoved(value: unknown, name: string): Pick<StepInput, 'moved'> {
  if (value === undefined) return {};
  if (!Array.isArray(value) || value.length !== 2 || !value.every(Number.isSafeInteger))
    throw new InvalidInputError(name, value, '[down, right] as whole numbers of cells');
  return { moved: value as [number, number] };
}

function readPrompts(plan: Plan, value: unknown, name: string): number[] {
  if (!Array.isArray(value) || value.length === 0)
    throw new InvalidInputError(name, value, 'an array of at least one index into step.prompts');
  const prompts = value.map((prompt) => checkPrompt(plan, prompt, name));
  if (new Set(prompts).size < prompts.length) throw new InvalidInputError(name, value, 'each prompt once');
  return prompts;
}

function checkPrompt({ prompts }: Plan, value: unknown, name: string): number {
  if (typeof value !== 'number' || !prompts[value])
    throw new InvalidInputError(
      name,
      value,
      `the index of one of ${prompts.length} prompts, from 0 (the background) to ${prompts.length - 1}`,
    );
  return value;
}

function readTensor(value: unknown, dims: number[], name: string): Tensor<'float32'> {
  const tensor = Tensor.from(value, name);
  if (tensor.dtype !== 'float32' || tensor.dims.join() !== dims.join())
    throw new InvalidInputError(name, String(tensor), `a float32 tensor [${dims.join(', ')}]`);
  const { data } = tensor as Tensor<'float32'>;
  const wrong = findNotFinite(data);
  if (wrong >= 0) throw new InvalidInputError(`${name}.data[${wrong}]`, data[wrong], 'a finite number');
  return tensor as Tensor<'float32'>;
}
