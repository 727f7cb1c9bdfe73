/**
 * Noise levels: how much picture and how much noise there is in a sample, from the betas of the training.
 *
 * Tables are kept in single precision, as the programs that trained and published the models computed them.
 */
import { InvalidInputError } from '../errors';
import { Tensor } from '../tensor';
import type { Scheduler } from './scheduler';

/** A sample at this level is alpha · picture + sigma · unit noise. */
export interface Level {
  alpha: number;
  sigma: number;
}

/** The level at which ᾱ of the signal's variance is left and the rest is noise. */
export function vpLevel(alphaBar: number): Level {
  return { alpha: Math.sqrt(alphaBar), sigma: Math.sqrt(1 - alphaBar) };
}

/** The same level for a scale in which the picture keeps its size and the noise grows to sigma (k-diffusion). */
export function veLevel(sigma: number): Level {
  return { alpha: 1, sigma };
}

/** The variance-preserving level at which the noise is sigma times the picture. */
export function levelOfSigma(sigma: number): Level {
  const alpha = 1 / Math.sqrt(sigma * sigma + 1);
  return { alpha, sigma: sigma * alpha };
}

/** The level of flow matching, between the picture alone (0) and the noise alone (1). */
export function flowLevel(sigma: number): Level {
  return { alpha: 1 - sigma, sigma };
}

/** Half the logarithm of the signal-to-noise ratio: the λ of the DPM-Solver papers; infinite without noise. */
export function lambda({ alpha, sigma }: Level): number {
  return Math.log(alpha) - Math.log(sigma);
}

/** The sample's level before a step: what the scheduler makes of a picture alone and of noise alone. */
export function levelBefore(scheduler: Scheduler, index: number): Level {
  const [zero, one] = [0, 1].map((value) => Tensor.float32([value], [1, 1, 1, 1]));
  return { alpha: scheduler.addNoise(one, zero, index).data[0], sigma: scheduler.addNoise(zero, one, index).data[0] };
}

/** √(1 − ᾱ_t) before a step, from 1 (noise alone) to 0. */
export function noiseLevel(scheduler: Scheduler, index: number): number {
  const { alpha, sigma } = levelBefore(scheduler, index);
  return sigma / Math.hypot(alpha, sigma);
}

export interface BetaFields {
  num_train_timesteps: number;
  beta_start: number;
  beta_end: number;
  beta_schedule: string;
  trained_betas?: number[];
  rescale_betas_zero_snr?: boolean;
}

/**
 * ᾱ for every training timestep.
 * @throws InvalidInputError when trained_betas has another length than num_train_timesteps
 */
export function alphasCumprod(fields: BetaFields): Float32Array {
  const betas = betasOf(fields);
  const cumprod = cumulativeAlphas(betas);
  return fields.rescale_betas_zero_snr ? cumulativeAlphas(zeroTerminalSnr(cumprod)) : cumprod;
}

function betasOf({
  num_train_timesteps: count,
  beta_start: start,
  beta_end: end,
  beta_schedule,
  trained_betas,
}: BetaFields): Float32Array {
  if (trained_betas) {
    if (trained_betas.length !== count)
      throw new InvalidInputError('trained_betas', trained_betas, `${count} numbers, as num_train_timesteps says`);
    return Float32Array.from(trained_betas);
  }
  switch (beta_schedule) {
    case 'scaled_linear': // of latent diffusion models: linear in the square root
      return linspace(Math.sqrt(start), Math.sqrt(end), count).map((root) => root * root);
    case 'squaredcos_cap_v2': // Nichol and Dhariwal 2021
      return betasForAlphaBar(count, (t) => Math.cos((((t + 0.008) / 1.008) * Math.PI) / 2) ** 2);
    case 'exp':
      return betasForAlphaBar(count, (t) => Math.exp(-12 * t));
    case 'laplace': // Hang et al. 2024
      return betasForAlphaBar(count, (t) => {
        const snr = Math.exp(-0.5 * Math.sign(0.5 - t || 1) * Math.log(1 - 2 * Math.abs(0.5 - t) + 1e-6));
        return Math.sqrt(snr / (1 + snr));
      });
    case 'sigmoid': // GeoDiff
      return linspace(-6, 6, count).map((x) => (end - start) / (1 + Math.exp(-x)) + start);
    default:
      return linspace(start, end, count);
  }
}

function betasForAlphaBar(count: number, alphaBar: (t: number) => number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) =>
    Math.min(1 - alphaBar((i + 1) / count) / alphaBar(i / count), 0.999),
  );
}

function cumulativeAlphas(betas: Float32Array): Float32Array {
  let product = 1;
  return betas.map((beta) => (product *= Math.fround(1 - beta)));
}

/** Betas whose √ᾱ are shifted and stretched so that the last is 0 and the first stays. */
function zeroTerminalSnr(cumprod: Float32Array): Float32Array {
  const roots = cumprod.map(Math.sqrt);
  const [first, last] = [roots[0], roots[roots.length - 1]];
  const stretch = Math.fround(first / Math.fround(first - last));
  const rescaled = roots.map((root) => Math.fround(root - last) * stretch).map((root) => root * root);
  return rescaled.map((alphaBar, i) => 1 - Math.fround(i === 0 ? alphaBar : alphaBar / rescaled[i - 1]));
}

/**
 * The noise level σ = √((1 − ᾱ)/ᾱ) of every training timestep. With zero terminal SNR the last would be
 * infinite; diffusers puts ᾱ = 2^-24 there, so σ = 4096.
 */
export function trainingSigmas(fields: BetaFields): Float32Array {
  const cumprod = alphasCumprod(fields);
  if (fields.rescale_betas_zero_snr) cumprod[cumprod.length - 1] = 2 ** -24;
  return cumprod.map((alphaBar) => Math.sqrt(Math.fround(Math.fround(1 - alphaBar) / alphaBar)));
}

/** `count` values evenly from start to end, filled from both ends in single precision, as torch.linspace does. */
export function linspace(start: number, end: number, count: number): Float32Array {
  const [first, last] = [Math.fround(start), Math.fround(end)];
  const stride = count > 1 ? Math.fround(Math.fround(last - first) / (count - 1)) : 0;
  return Float32Array.from({ length: count }, (_, i) =>
    i < count / 2 ? first + i * stride : last - (count - 1 - i) * stride,
  );
}
