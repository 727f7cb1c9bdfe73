/**
 * What all schedulers share: sums of tensors, the model's prediction in terms of the picture or of the noise,
 * and the frame that keeps steps in order.
 */
import { InvalidInputError, MultiDiffusionError } from '../errors';
import { Tensor } from '../tensor';
import type { Level } from './level';
import type { PredictionType, Scheduler, SchedulerConfig, StepNoise } from './scheduler';

type Latents = Tensor<'float32'>;

/** Choices of a caller, as against those of the checkpoint. */
export interface RunOptions {
  /** How much of DDPM's noise DDIM adds back at each step, in [0, 1]. Default 0. */
  eta?: number;
  /** How many steps to leave out at the noisy end, to start from a picture: noise it by addNoise(picture, noise, 0). Default 0. */
  startStep?: number;
  /** Of flow matching: the noise levels before they are shifted, one for each step, instead of the scheduler's own. */
  sigmas?: number[];
  /** Of flow matching with use_dynamic_shifting: how far they are shifted; see dynamicShift. */
  mu?: number;
}

/** The choices with their defaults. */
export type Run = Required<Pick<RunOptions, 'eta' | 'startStep'>> & RunOptions;

/** Makes one scheduler for one run. */
export type SchedulerFactory = (config: SchedulerConfig, steps: number, options: Run) => Scheduler;

/** Where sums are taken, kept because steps are many and garbage costs time; nothing outlives a call. */
let scratch = new Float64Array(0);

/** Σ coefficient · tensor, summed in double precision. */
export function combine(...terms: [coefficient: number, tensor: Latents][]): Latents {
  const { size } = terms[0][1];
  if (scratch.length < size) scratch = new Float64Array(size);
  const sums = scratch.subarray(0, size).fill(0);
  for (const [coefficient, tensor] of terms) {
    const { data } = tensor;
    for (let i = 0; i < size; i++) sums[i] += coefficient * data[i];
  }
  return Tensor.float32(new Float32Array(sums), [...terms[0][1].dims]);
}

/**
 * Of pure noise a noise prediction tells nothing: x0 is infinite, which is only of use where it is clipped.
 * @throws InvalidInputError when there is such a level
 */
export function checkSignal(
  name: string,
  fields: ClipFields & { prediction_type: PredictionType },
  levels: Level[],
): void {
  if (
    fields.prediction_type !== 'epsilon' ||
    (fields.clip_sample && !fields.thresholding) ||
    levels.every(({ alpha }) => alpha > 0)
  )
    return;
  throw new InvalidInputError(
    'prediction_type',
    'epsilon',
    `v_prediction or sample where rescale_betas_zero_snr leaves no signal at the first timestep (${name})`,
  );
}

/**
 * A flow is predicted along flow matching's levels only.
 * @throws InvalidInputError
 */
export function checkFlow(
  name: string,
  fields: { prediction_type: PredictionType; use_flow_sigmas: boolean; shift_terminal?: number },
): void {
  if (fields.use_flow_sigmas) return;
  if (fields.shift_terminal !== undefined)
    throw new InvalidInputError(
      'shift_terminal',
      fields.shift_terminal,
      `none where use_flow_sigmas is false (${name})`,
    );
  if (fields.prediction_type === 'flow_prediction')
    throw new InvalidInputError('use_flow_sigmas', false, `true where prediction_type is flow_prediction (${name})`);
}

/** The picture x0 that a model output means for a sample at `level` (v: Salimans and Ho 2022, appendix D). */
export function predictedOriginal(
  type: PredictionType,
  output: Latents,
  sample: Latents,
  { alpha, sigma }: Level,
): Latents {
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
    case 'flow_prediction': // noise − picture
      return combine([1 / (alpha + sigma), sample], [-sigma / (alpha + sigma), output]);
  }
}

/** The noise ε that a model output means for a sample at `level`. */
export function predictedNoise(
  type: PredictionType,
  output: Latents,
  sample: Latents,
  { alpha, sigma }: Level,
): Latents {
  const scale = Math.hypot(alpha, sigma);
  switch (type) {
    case 'epsilon':
      return output;
    case 'v_prediction':
      return combine([alpha / scale, output], [sigma / scale ** 2, sample]);
    case 'sample':
      return combine([1 / sigma, sample], [-alpha / sigma, output]);
    case 'flow_prediction':
      return combine([1 / (alpha + sigma), sample], [alpha / (alpha + sigma), output]);
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
        throw new MultiDiffusionError(
          'INVALID_INPUT',
          `${parts.name} was asked for step ${index} when step ${next} of ${levels.length} was due. Take each step once, in order.`,
        );
      }
      if (output.size !== sample.size) {
        throw new InvalidInputError(
          'modelOutput',
          `[${output.dims.join(', ')}]`,
          `the shape of the sample, [${sample.dims.join(', ')}]`,
        );
      }
      next++;
      return advance(output, index, sample, noise);
    },
  };
}
