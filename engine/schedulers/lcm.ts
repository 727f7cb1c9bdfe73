import { InvalidInputError } from '../errors';
import { checkSignal, clip, combine, makeScheduler, predictedOriginal, type SchedulerFactory } from './common';
import { CLIP_FIELDS, COMMON_FIELDS, ZERO_SNR_FIELDS, choice, flag, integer, number, readFields } from './config';
import { alphasCumprod, vpLevel } from './level';

const FIELDS = {
  ...COMMON_FIELDS,
  ...CLIP_FIELDS,
  ...ZERO_SNR_FIELDS,
  beta_start: number(0.00085, 0, 1),
  beta_end: number(0.012, 0, 1),
  beta_schedule: choice('scaled_linear', ['linear', 'scaled_linear', 'squaredcos_cap_v2']),
  clip_sample: flag(false),
  /** Steps of the solver that the model was distilled from: its timesteps are those the model knows. */
  original_inference_steps: integer(50, 1, 100_000),
  timestep_scaling: number(10),
};

/** The data's standard deviation that the boundary condition assumes. */
const SIGMA_DATA = 0.5;

/** Multistep consistency sampling (Luo et al. 2023, “Latent Consistency Models”, algorithm 3). */
export const lcm: SchedulerFactory = (config, steps, { startStep }) => {
  const name = 'LCMScheduler';
  const fields = readFields(name, FIELDS, config);
  const type = fields.prediction_type;
  const alphas = alphasCumprod(fields);
  const timesteps = distilledTimesteps(fields.num_train_timesteps, fields.original_inference_steps, steps).slice(
    startStep,
  );
  const levels = timesteps.map((t) => vpLevel(alphas[t]));
  checkSignal(name, fields, levels);

  return makeScheduler({
    name,
    config,
    predictionType: type,
    timesteps,
    levels,
    initNoiseSigma: 1,
    advance(output, index, sample, noise) {
      const original = clip(fields, predictedOriginal(type, output, sample, levels[index]));
      // The boundary condition f(x, 0) = x of consistency models (Song et al. 2023, appendix C).
      const scaled = timesteps[index] * fields.timestep_scaling;
      const skip = SIGMA_DATA ** 2 / (scaled ** 2 + SIGMA_DATA ** 2);
      const out = scaled / Math.hypot(scaled, SIGMA_DATA);
      if (index === timesteps.length - 1) return combine([out, original], [skip, sample]);
      const next = levels[index + 1];
      return combine([next.alpha * out, original], [next.alpha * skip, sample], [next.sigma, noise(index)]);
    },
  });
};

function distilledTimesteps(train: number, originalSteps: number, steps: number): number[] {
  if (originalSteps > train)
    throw new InvalidInputError('original_inference_steps', originalSteps, `at most num_train_timesteps, ${train}`);
  if (steps > originalSteps)
    throw new InvalidInputError('steps', steps, `1 to ${originalSteps} with LCMScheduler (original_inference_steps)`);
  const stride = Math.floor(train / originalSteps);
  return Array.from({ length: steps }, (_, i) => {
    const place = Math.floor(i * (originalSteps / steps));
    return (originalSteps - place) * stride - 1;
  });
}
