/**
 * What all schedulers share: noise levels, timesteps, the model's prediction in terms of the picture or of
 * the noise, and the frame that keeps steps in order.
 *
 * Tables are kept in single precision, as the programs that trained and published the models computed them.
 */
import { InvalidInputError, MultiDiffusionError } from '../errors';
import { Tensor } from '../tensor';
import type { PredictionType, Scheduler, SchedulerConfig, StepNoise } from './scheduler';

type Latents = Tensor<'float32'>;

/** Choices of a caller, as against those of the checkpoint. */
export interface RunOptions {
  /** How much of DDPM's noise DDIM adds back at each step, in [0, 1]. Default 0. */
  eta?: number;
  /** How many steps to leave out at the noisy end, to start from a picture: noise it by addNoise(picture, noise, 0). Default 0. */
  startStep?: number;
}

/** Makes one scheduler for one run. */
export type SchedulerFactory = (config: SchedulerConfig, steps: number, options: Required<RunOptions>) => Scheduler;

/** A sample at this level is alpha · picture + sigma · unit noise. */
export interface Level {
  alpha: number;
  sigma: number;
}

/** The level at which ᾱ of the signal's variance is left and the rest is noise. */
export function preservingLevel(alphaBar: number): Level {
  return { alpha: Math.sqrt(alphaBar), sigma: Math.sqrt(1 - alphaBar) };
}

/** The same level for a scale in which the picture keeps its size and the noise grows to sigma (k-diffusion). */
export function explodingLevel(sigma: number): Level {
  return { alpha: 1, sigma };
}

/** The variance-preserving level at which the noise is sigma times the picture. */
export function levelOfSigma(sigma: number): Level {
  const alpha = 1 / Math.sqrt(sigma * sigma + 1);
  return { alpha, sigma: sigma * alpha };
}

/** Half the logarithm of the signal-to-noise ratio: the λ of the DPM-Solver papers; infinite without noise. */
export function lambda({ alpha, sigma }: Level): number {
  return Math.log(alpha) - Math.log(sigma);
}

/** Σ coefficient · tensor, summed in double precision. */
export function combine(...terms: [coefficient: number, tensor: Latents][]): Latents {
  const arrays = terms.map(([, tensor]) => tensor.data);
  const sums = new Float32Array(arrays[0].length);
  for (let i = 0; i < sums.length; i++) {
    let sum = 0;
    for (let k = 0; k < arrays.length; k++) sum += terms[k][0] * arrays[k][i];
    sums[i] = sum;
  }
  return Tensor.float32(sums, [...terms[0][1].dims]);
}

/**
 * Of pure noise a noise prediction tells nothing: x0 is infinite, which is only of use where it is clipped.
 * @throws InvalidInputError when there is such a level
 */
export function checkSignal(name: string, fields: ClipFields & { prediction_type: PredictionType }, levels: Level[]): void {
  if (fields.prediction_type !== 'epsilon' || (fields.clip_sample && !fields.thresholding) || levels.every(({ alpha }) => alpha > 0)) return;
  throw new InvalidInputError('prediction_type', 'epsilon', `v_prediction or sample where rescale_betas_zero_snr leaves no signal at the first timestep (${name})`);
}

/** The picture x0 that a model output means for a sample at `level` (v: Salimans and Ho 2022, appendix D). */
export function toOriginal(type: PredictionType, output: Latents, sample: Latents, { alpha, sigma }: Level): Latents {
  const scale = Math.hypot(alpha, sigma); // 1 unless the level is in the exploding scale
  switch (type) {
    case 'epsilon': {
      const factor = 1 / Math.max(alpha, 1e-99); // without any signal x0 becomes ±infinity, not ∞ − ∞
      return combine([factor, sample], [-sigma * factor, output]);
    }
    case 'v_prediction':
      return combine([alpha / scale ** 2, sample], [-sigma / scale, output]);
    case 'sample':
      return output;
  }
}

/** The noise ε that a model output means for a sample at `level`. */
export function toNoise(type: PredictionType, output: Latents, sample: Latents, { alpha, sigma }: Level): Latents {
  const scale = Math.hypot(alpha, sigma);
  switch (type) {
    case 'epsilon':
      return output;
    case 'v_prediction':
      return combine([alpha / scale, output], [sigma / scale ** 2, sample]);
    case 'sample':
      return combine([1 / sigma, sample], [-alpha / sigma, output]);
  }
}

interface ClipFields {
  clip_sample?: boolean;
  clip_sample_range?: number;
  thresholding?: boolean;
  dynamic_thresholding_ratio?: number;
  sample_max_value?: number;
}

/** The predicted picture, thresholded or clipped as the configuration asks. */
export function clip(fields: ClipFields, original: Latents): Latents {
  if (fields.thresholding) return threshold(original, fields.dynamic_thresholding_ratio!, fields.sample_max_value!);
  if (!fields.clip_sample) return original;
  const range = fields.clip_sample_range!;
  return Tensor.float32(
    original.data.map((x) => Math.max(-range, Math.min(range, x))),
    original.dims,
  );
}

/** Imagen's dynamic thresholding, picture by picture: clamp to ±s and divide by s, the ratio-quantile of |x|, 1 ≤ s ≤ max. */
function threshold(original: Latents, ratio: number, max: number): Latents {
  const values = original.data.slice();
  const length = values.length / (original.dims[0] ?? 1);
  for (let start = 0; start < values.length; start += length) {
    const picture = values.subarray(start, start + length);
    const sorted = picture.map(Math.abs).sort();
    const place = ratio * (length - 1);
    const below = sorted[Math.floor(place)];
    const quantile = below + (sorted[Math.ceil(place)] - below) * (place % 1);
    const s = Math.min(Math.max(quantile, 1), max);
    for (let i = 0; i < length; i++) picture[i] = Math.max(-s, Math.min(s, picture[i])) / s;
  }
  return Tensor.float32(values, original.dims);
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

function betasOf({ num_train_timesteps: count, beta_start: start, beta_end: end, beta_schedule, trained_betas }: BetaFields): Float32Array {
  if (trained_betas) {
    if (trained_betas.length !== count) throw new InvalidInputError('trained_betas', trained_betas, `${count} numbers, as num_train_timesteps says`);
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
  return Float32Array.from({ length: count }, (_, i) => Math.min(1 - alphaBar((i + 1) / count) / alphaBar(i / count), 0.999));
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
  const rescaled = roots.map((root) => (Math.fround(root - last) * stretch)).map((root) => root * root);
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

export interface SpacingFields {
  num_train_timesteps: number;
  timestep_spacing: string;
  steps_offset: number;
}

/**
 * Timesteps from noisy to clean: a row of table 2 of Lin et al. 2023.
 * @param points how many; diffusers' solvers ask for one more and leave the last out
 * @param from one above the highest timestep (trailing counts down from here)
 */
export function spacedTimesteps(fields: SpacingFields, points: number, from = fields.num_train_timesteps): number[] {
  switch (fields.timestep_spacing) {
    case 'linspace':
      return linspaceTimesteps(points, from).map(roundHalfEven);
    case 'leading': {
      const stride = Math.floor(from / points);
      const first = (points - 1) * stride + fields.steps_offset;
      if (first >= fields.num_train_timesteps) {
        throw new InvalidInputError('steps', points, `fewer: steps_offset ${fields.steps_offset} puts the first timestep at ${first}, beyond num_train_timesteps`);
      }
      return Array.from({ length: points }, (_, i) => (points - 1 - i) * stride + fields.steps_offset);
    }
    default: {
      const stride = fields.num_train_timesteps / points;
      const count = Math.min(points, Math.ceil(from / stride));
      return Array.from({ length: count }, (_, i) => roundHalfEven(from + i * (from - stride - from)) - 1);
    }
  }
}

/** `points` timesteps evenly from `from` − 1 down to 0, not rounded. */
export function linspaceTimesteps(points: number, from: number): number[] {
  const stride = points > 1 ? (from - 1) / (points - 1) : 0;
  return Array.from({ length: points }, (_, i) => (i === 0 && points > 1 ? from - 1 : (points - 1 - i) * stride));
}

export interface SigmaRange {
  max: number;
  min: number;
}

/** Karras et al. 2022, equation 5, with ρ = 7. */
export function karrasSigmas({ max, min }: SigmaRange, count: number): number[] {
  const rho = 7;
  const [from, to] = [max ** (1 / rho), min ** (1 / rho)];
  return ramp(count).map((r) => (from + r * (to - from)) ** rho);
}

/** Evenly spread in log σ. */
export function exponentialSigmas({ max, min }: SigmaRange, count: number): number[] {
  return ramp(count).map((r) => Math.exp(Math.log(max) + r * (Math.log(min) - Math.log(max))));
}

/** The (fractional) training timestep whose σ this is, interpolated in log σ. */
export function timestepOfSigma(sigma: number, sigmas: Float32Array): number {
  const logSigma = Math.log(Math.max(sigma, 1e-10));
  const logAt = (t: number) => logSingle(sigmas[t]);
  let low = 0;
  while (low < sigmas.length - 2 && logAt(low + 1) <= logSigma) low++;
  const weight = (logAt(low) - logSigma) / Math.fround(logAt(low) - logAt(low + 1));
  const w = Math.min(Math.max(weight, 0), 1);
  return (1 - w) * low + w * (low + 1);
}

const LOG_NUMERATOR = [0.02589979117907922693523, 0.3808837741388407920751, 1.480000633576506585156, 2.112677543073053063722, 1, 0].map(Math.fround);
const LOG_DENOMINATOR = [0.00587509540312457434295, 0.1546476374983906719538, 0.9864942958519418960339, 2.453006071784736363091, 2.612677543073109236779, 1].map(Math.fround);

/**
 * log(x) in single precision with the rational approximation that NumPy has (max. error 3.8 ulp), so that
 * fractional timesteps equal those of Python programs to the last bit. x is finite and positive.
 */
function logSingle(x: number): number {
  let exponent = Math.floor(Math.log2(x));
  let mantissa = x / 2 ** exponent;
  if (mantissa > Math.SQRT2) {
    mantissa /= 2;
    exponent++;
  }
  const y = mantissa - 1;
  const evaluate = (coefficients: number[]) => coefficients.reduce((sum, c) => Math.fround(sum * y + c));
  return Math.fround(exponent * Math.fround(Math.LN2) + Math.fround(evaluate(LOG_NUMERATOR) / evaluate(LOG_DENOMINATOR)));
}

/** σ at a (fractional) timestep, interpolated between the training timesteps. */
export function sigmaAt(timestep: number, sigmas: Float32Array): number {
  const last = sigmas.length - 1;
  if (timestep >= last) return sigmas[last];
  const low = Math.floor(timestep);
  return sigmas[low] + (sigmas[low + 1] - sigmas[low]) * (timestep - low);
}

/** The range of Karras' or exponential spreading: the configuration's, else what the schedule has. */
export function sigmaRange(fields: { sigma_min?: number; sigma_max?: number }, max: number, min: number): SigmaRange {
  return { max: fields.sigma_max ?? max, min: fields.sigma_min ?? min };
}

/** Ties go to the even neighbour, as NumPy rounds. */
export function roundHalfEven(x: number): number {
  const rounded = Math.round(x);
  return rounded - x === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

function ramp(count: number): number[] {
  return Array.from({ length: count }, (_, i) => (count > 1 ? i / (count - 1) : 0));
}

/** `count` values evenly from start to end, filled from both ends in single precision, as torch.linspace does. */
export function linspace(start: number, end: number, count: number): Float32Array {
  const [first, last] = [Math.fround(start), Math.fround(end)];
  const stride = count > 1 ? Math.fround(Math.fround(last - first) / (count - 1)) : 0;
  return Float32Array.from({ length: count }, (_, i) => (i < count / 2 ? first + i * stride : last - (count - 1 - i) * stride));
}

interface Parts {
  name: string;
  config: SchedulerConfig;
  predictionType: PredictionType;
  timesteps: number[];
  /** The sample's level before each step. */
  levels: Level[];
  sigmas?: number[];
  initNoiseSigma: number;
  /** Whether levels are in the exploding scale, so that model inputs are scaled down to unit variance. */
  exploding?: boolean;
  /** The sample after step `index`: the scheduler itself. */
  advance(output: Latents, index: number, sample: Latents, noise: StepNoise): Latents;
}

/**
 * Puts a scheduler together: its own step, and around it what all have in common.
 */
export function makeScheduler({ levels, advance, exploding, ...parts }: Parts): Scheduler {
  let next = 0;
  return {
    ...parts,
    scaleModelInput(sample, index) {
      return exploding ? combine([1 / Math.hypot(levels[index].alpha, levels[index].sigma), sample]) : sample;
    },
    addNoise: (original, noise, index) => combine([levels[index].alpha, original], [levels[index].sigma, noise]),
    step(output, index, sample, noise) {
      if (index !== next) {
        throw new MultiDiffusionError('INVALID_INPUT', `${parts.name} was asked for step ${index} when step ${next} of ${levels.length} was due. Take each step once, in order.`);
      }
      if (output.size !== sample.size) {
        throw new InvalidInputError('modelOutput', `[${output.dims.join(', ')}]`, `the shape of the sample, [${sample.dims.join(', ')}]`);
      }
      next++;
      return advance(output, index, sample, noise);
    },
  };
}
