/**
 * The schedule that Euler's, Euler's ancestral and Heun's method share. As in k-diffusion (Karras et al. 2022)
 * a sample at level σ is picture + σ · noise, and the model sees it divided by √(σ² + 1).
 */
import { InvalidInputError } from '../errors';
import { Tensor } from '../tensor';
import { linspace, trainingSigmas, type BetaFields } from './noise-levels';
import { exponentialSigmas, karrasSigmas, linspaceTimesteps, sigmaAt, sigmaRange, spacedTimesteps, timestepOfSigma, type SpacingFields } from './timesteps';

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
  if (fields.interpolation_type === 'log_linear') sigmas = [...linspace(Math.log(table[train - 1]), Math.log(table[0]), steps + 1).map(Math.exp)];

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

/**
 * The slope dx/dσ = (x − x0)/σ, and below the step along it. Both round like single-precision programs after
 * each operation: where σ is in the thousands (zero terminal SNR), that is what their results show.
 */
export function slopeAt(sample: Tensor<'float32'>, original: Tensor<'float32'>, sigma: number): Tensor<'float32'> {
  const pictures = original.data;
  return Tensor.float32(sample.data.map((x, i) => Math.fround(x - pictures[i]) / sigma), sample.dims);
}

/** The sample after its noise level changed by `change` along `slope`. */
export function follow(sample: Tensor<'float32'>, slope: Tensor<'float32'>, change: number): Tensor<'float32'> {
  const slopes = slope.data;
  const distance = Math.fround(change);
  return Tensor.float32(sample.data.map((x, i) => x + Math.fround(slopes[i] * distance)), sample.dims);
}
