/**
 * The schedule that Euler's, Euler's ancestral and Heun's method share. As in k-diffusion (Karras et al. 2022)
 * a sample at level σ is picture + σ · noise, and the model sees it divided by √(σ² + 1).
 */
import { InvalidInputError } from '../errors';
import {
  exponentialSigmas, karrasSigmas, linspaceTimesteps, sigmaAt, sigmaRange, spacedTimesteps, timestepOfSigma, trainingSigmas,
  type BetaFields, type SpacingFields,
} from './common';

interface Fields extends BetaFields, SpacingFields {
  use_karras_sigmas?: boolean;
  use_exponential_sigmas?: boolean;
  sigma_min?: number;
  sigma_max?: number;
  interpolation_type?: string;
}

/** Timesteps, often fractional, and the σ at each, noisy to clean; the caller appends the final σ. */
export function kDiffusionSchedule(fields: Fields, steps: number): { timesteps: number[]; sigmas: number[] } {
  const table = trainingSigmas(fields);
  const train = fields.num_train_timesteps;
  let timesteps = (fields.timestep_spacing === 'linspace' ? linspaceTimesteps(steps, train) : spacedTimesteps(fields, steps)).map(Math.fround);
  let sigmas = timesteps.map((t) => sigmaAt(t, table));
  if (fields.interpolation_type === 'log_linear') sigmas = exponentialSigmas({ max: table[train - 1], min: table[0] }, steps + 1);

  const spread = spreading(fields);
  if (spread) {
    sigmas = spread(sigmaRange(fields, sigmas[0], sigmas[sigmas.length - 1]), steps);
    timesteps = sigmas.map((sigma) => timestepOfSigma(sigma, table));
  }
  return { timesteps: timesteps.map(Math.fround), sigmas: sigmas.map(Math.fround) };
}

/** The function that spreads σ itself, where the configuration asks for one. */
export function spreading(fields: { use_karras_sigmas?: boolean; use_exponential_sigmas?: boolean }): typeof karrasSigmas | undefined {
  if (fields.use_karras_sigmas && fields.use_exponential_sigmas) {
    throw new InvalidInputError('use_exponential_sigmas', true, 'false where use_karras_sigmas is true');
  }
  if (fields.use_karras_sigmas) return karrasSigmas;
  if (fields.use_exponential_sigmas) return exponentialSigmas;
  return undefined;
}

/** diffusers' rule: leading spacing doesn't begin at the noisiest level, so the picture's own variance counts. */
export function kDiffusionInitNoise(timestepSpacing: string, sigmas: number[]): number {
  return timestepSpacing === 'leading' ? Math.hypot(sigmas[0], 1) : sigmas[0];
}
