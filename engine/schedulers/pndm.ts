import { InvalidInputError } from '../errors';
import type { Tensor } from '../tensor';
import { combine, makeScheduler, predictedNoise, type SchedulerFactory } from './common';
import { COMMON_FIELDS, flag, readFields, spacing } from './config';
import { alphasCumprod, vpLevel } from './level';
import { spacedTimesteps } from './timesteps';

const FIELDS = {
  ...COMMON_FIELDS,
  timestep_spacing: spacing('leading'),
  set_alpha_to_one: flag(false),
  skip_prk_steps: flag(false),
};

/** Adams–Bashforth: weights of the last outputs, newest first, when 1, 2, 3 or 4 are known. */
const MULTISTEP = [[1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]];
/** Runge–Kutta: weights of the four outputs at one step. */
const RUNGE_KUTTA = [1 / 6, 1 / 3, 1 / 3, 1 / 6];

type Latents = Tensor<'float32'>;

/**
 * PNDM (Liu et al. 2022, “Pseudo Numerical Methods for Diffusion Models on Manifolds”): a linear multistep
 * method begun by Runge–Kutta steps, or, with skip_prk_steps, by one improved Euler step that evaluates the
 * second timestep twice.
 */
export const pndm: SchedulerFactory = (config, steps, { startStep }) => {
  const name = 'PNDMScheduler';
  const fields = readFields(name, FIELDS, config);
  const type = fields.prediction_type;
  const alphas = alphasCumprod(fields);
  const finalAlpha = fields.set_alpha_to_one ? 1 : alphas[0];
  const alphaAt = (t: number) => (t >= 0 ? alphas[t] : finalAlpha);
  const stride = Math.floor(fields.num_train_timesteps / steps);
  const half = Math.floor(stride / 2);
  const spaced = spacedTimesteps(fields, steps).slice(startStep);
  const begin = fields.skip_prk_steps ? [] : rungeKuttaTimesteps(spaced, half);
  const timesteps = fields.skip_prk_steps ? repeatSecond(spaced) : [...begin, ...spaced.slice(3)];

  /** Equation 9 of the paper: from timestep `from` to `to` along the predicted noise. */
  const transfer = (output: Latents, sample: Latents, from: number, to: number): Latents => {
    const [alpha, next] = [alphas[from], alphaAt(to)];
    const epsilon = predictedNoise(type, output, sample, vpLevel(alpha));
    const divisor = alpha * Math.sqrt(1 - next) + Math.sqrt(alpha * (1 - alpha) * next);
    return combine([Math.sqrt(next / alpha), sample], [-(next - alpha) / divisor, epsilon]);
  };

  let outputs: Latents[] = []; // newest first; of a Runge–Kutta step the first evaluation
  let stages: Latents[] = []; // the evaluations of the Runge–Kutta step under way
  let start: Latents; // the sample at which the Runge–Kutta or improved Euler step began

  const rungeKutta = (output: Latents, index: number, sample: Latents): Latents => {
    const stage = index % 4;
    if (stage === 0) {
      start = sample;
      stages = [];
      outputs.unshift(output);
    }
    stages.push(output);
    const slope = stage < 3 ? output : combine(...stages.map((k, i): [number, Latents] => [RUNGE_KUTTA[i], k]));
    const to = timesteps[index] - (stage % 2 === 0 ? half : 0);
    return transfer(slope, start, timesteps[index - stage], to);
  };

  const multistep = (output: Latents, index: number, sample: Latents): Latents => {
    if (fields.skip_prk_steps && index === 1) {
      // The first step once more, with the mean of the outputs at its two ends.
      return transfer(combine([1 / 2, output], [1 / 2, outputs[0]]), start, timesteps[1] + stride, timesteps[1]);
    }
    if (index === 0) start = sample;
    outputs = [output, ...outputs].slice(0, 4);
    const weights = MULTISTEP[outputs.length - 1];
    return transfer(
      combine(...outputs.map((k, i): [number, Latents] => [weights[i], k])),
      sample,
      timesteps[index],
      timesteps[index] - stride,
    );
  };

  return makeScheduler({
    name,
    config,
    predictionType: type,
    timesteps,
    initNoiseSigma: 1,
    levels: timesteps.map((t) => vpLevel(alphas[t])),
    advance: (output, index, sample) =>
      index < begin.length ? rungeKutta(output, index, sample) : multistep(output, index, sample),
  });
};

function repeatSecond(timesteps: number[]): number[] {
  return timesteps.length > 1 ? [timesteps[0], timesteps[1], ...timesteps.slice(1)] : timesteps;
}

/** Four evaluations for each of the first three steps: at its start, twice in its middle, at its end. */
function rungeKuttaTimesteps(timesteps: number[], half: number): number[] {
  if (timesteps.length < 4)
    throw new InvalidInputError(
      'steps',
      timesteps.length,
      '4 or more with PNDMScheduler where skip_prk_steps is false',
    );
  return [0, 1, 2].flatMap((i) => {
    const middle = timesteps[i + 1] + half;
    return [timesteps[i], middle, middle, timesteps[i + 1]];
  });
}
