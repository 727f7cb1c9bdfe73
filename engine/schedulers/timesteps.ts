/** The timesteps, or the noise levels σ, that a scheduler visits. */
import { InvalidInputError } from '../errors';

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
        throw new InvalidInputError(
          'steps',
          points,
          `fewer: steps_offset ${fields.steps_offset} puts the first timestep at ${first}, beyond num_train_timesteps`,
        );
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

/** The same, from single-precision logarithms: Lu et al. 2022 spread λ = −log σ evenly. */
export function luSigmas({ max, min }: SigmaRange, count: number): number[] {
  const [from, to] = [logSingle(max), logSingle(min)];
  return ramp(count).map((r) => Math.exp(from + r * (to - from)));
}

/** Closest together at both ends, as the quantiles of a beta distribution are (Lee et al. 2024, “Beta Sampling is All You Need”). */
export function betaSigmas({ max, min }: SigmaRange, count: number): number[] {
  return ramp(count).map((r) => min + betaQuantile(1 - r) * (max - min));
}

/** Both parameters of that distribution. */
const BETA = 0.6;

/** The value below which a beta distribution has `share` of its weight, by bisection. */
function betaQuantile(share: number): number {
  if (share > 0.5) return 1 - betaQuantile(1 - share);
  const wanted = 2 * betaIntegral(0.5) * share;
  let [low, high] = [0, 0.5];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (betaIntegral(middle) < wanted) low = middle;
    else high = middle;
  }
  return low;
}

/** ∫₀ˣ (t(1 − t))^(β−1) dt for x ≤ ½, by the binomial series of (1 − t)^(β−1). */
function betaIntegral(x: number): number {
  let sum = 0;
  for (let n = 0, factor = 1; n < 60; factor *= ((1 - BETA + n) / (n + 1)) * x, n++) sum += factor / (BETA + n);
  return x ** BETA * sum;
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

const LOG_NUMERATOR = [
  0.02589979117907922693523, 0.3808837741388407920751, 1.480000633576506585156, 2.112677543073053063722, 1, 0,
].map(Math.fround);
const LOG_DENOMINATOR = [
  0.00587509540312457434295, 0.1546476374983906719538, 0.9864942958519418960339, 2.453006071784736363091,
  2.612677543073109236779, 1,
].map(Math.fround);

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
  return Math.fround(
    exponent * Math.fround(Math.LN2) + Math.fround(evaluate(LOG_NUMERATOR) / evaluate(LOG_DENOMINATOR)),
  );
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
