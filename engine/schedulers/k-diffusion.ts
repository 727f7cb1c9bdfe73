/**
 * The schedule that Euler's, Euler's ancestral and Heun's method share. As in k-diffusion (Karras et al. 2022)
 * a sample at level σ is picture + σ · noise, and the model sees it divided by √(σ² + 1).
 */
import { InvalidInputError } from '../errors';
import { Tensor } from '../tensor';
import { makeScheduler, predictedOriginal } from './common';
import { veLevel, linspace, trainingSigmas, type BetaFields } from './level';
import type { PredictionType, Scheduler, SchedulerConfig, StepNoise } from './scheduler';
import {
  betaSigmas,
  exponentialSigmas,
  karrasSigmas,
  linspaceTimesteps,
  sigmaAt,
  sigmaRange,
  spacedTimesteps,
  timestepOfSigma,
  type SpacingFields,
} from './timesteps';

type Latents = Tensor<'float32'>;

/** Ways to spread the noise levels themselves instead of the timesteps. */
export interface SpreadFields {
  use_karras_sigmas?: boolean;
  use_exponential_sigmas?: boolean;
  use_beta_sigmas?: boolean;
}

interface Fields extends BetaFields, SpacingFields, SpreadFields {
  sigma_min?: number;
  sigma_max?: number;
  interpolation_type?: string;
}

/** Timesteps, often fractional, and the σ at each, noisy to clean; the caller appends the final σ. */
export function kDiffusionSchedule(fields: Fields, steps: number): { timesteps: number[]; sigmas: number[] } {
  const table = trainingSigmas(fields);
  const train = fields.num_train_timesteps;
  let timesteps = (
    fields.timestep_spacing === 'linspace' ? linspaceTimesteps(steps, train) : spacedTimesteps(fields, steps)
  ).map(Math.fround);
  let sigmas = timesteps.map((t) => sigmaAt(t, table));
  if (fields.interpolation_type === 'log_linear')
    sigmas = [...linspace(Math.log(table[train - 1]), Math.log(table[0]), steps + 1).map(Math.exp)];

  const spread = spreading(fields);
  if (spread) {
    sigmas = spread(sigmaRange(fields, sigmas[0], sigmas[sigmas.length - 1]), steps);
    timesteps = sigmas.map((sigma) => timestepOfSigma(sigma, table));
  }
  return { timesteps: timesteps.map(Math.fround), sigmas: sigmas.map(Math.fround) };
}

const SPREADS = {
  use_karras_sigmas: karrasSigmas,
  use_exponential_sigmas: exponentialSigmas,
  use_beta_sigmas: betaSigmas,
};

/**
 * The function that spreads σ itself, where the configuration asks for one.
 * @throws InvalidInputError when it asks for several
 */
export function spreading(fields: SpreadFields): typeof karrasSigmas | undefined {
  const [first, second] = (Object.keys(SPREADS) as Array<keyof SpreadFields>).filter((name) => fields[name]);
  if (second) throw new InvalidInputError(second, true, `false where ${first} is true`);
  return first && SPREADS[first];
}

interface Parts {
  name: string;
  config: SchedulerConfig;
  fields: { prediction_type: PredictionType; timestep_spacing: string };
  timesteps: number[];
  /** One more than timesteps. */
  sigmas: number[];
  /** The sample after step `index`, where the model foresees the picture `original`. */
  advance(original: Latents, index: number, sample: Latents, noise: StepNoise): Latents;
}

/** Puts a scheduler in this scale together. */
export function makeKDiffusion({ fields, sigmas, advance, ...parts }: Parts): Scheduler {
  const type = fields.prediction_type;
  const levels = sigmas.slice(0, -1).map(veLevel);
  return makeScheduler({
    ...parts,
    sigmas,
    levels,
    exploding: true,
    predictionType: type,
    // diffusers' rule: leading spacing doesn't begin at the noisiest level, so the picture's own variance counts.
    initNoiseSigma: fields.timestep_spacing === 'leading' ? Math.hypot(sigmas[0], 1) : sigmas[0],
    advance: (output, index, sample, noise) =>
      advance(predictedOriginal(type, output, sample, levels[index]), index, sample, noise),
  });
}

/**
 * The slope dx/dσ = (x − x0)/σ, and below the step along it. Both round like single-precision programs after
 * each operation: where σ is in the thousands (zero terminal SNR), that is what their results show.
 */
export function slopeAt(sample: Latents, original: Latents, sigma: number): Latents {
  const pictures = original.data;
  return Tensor.float32(
    sample.data.map((x, i) => Math.fround(x - pictures[i]) / sigma),
    sample.dims,
  );
}

/** The sample after its noise level changed by `change` along `slope`. */
export function follow(sample: Latents, slope: Latents, change: number): Latents {
  const slopes = slope.data;
  const distance = Math.fround(change);
  return Tensor.float32(
    sample.data.map((x, i) => x + Math.fround(slopes[i] * distance)),
    sample.dims,
  );
}
