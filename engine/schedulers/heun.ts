import type { Tensor } from '../tensor';
import { clip, combine, type SchedulerFactory } from './common';
import { CLIP_FIELDS, COMMON_FIELDS, SIGMA_FIELDS, choice, flag, number, readFields, spacing } from './config';
import { follow, kDiffusionSchedule, makeKDiffusion, slopeAt } from './k-diffusion';

const FIELDS = {
  ...COMMON_FIELDS,
  ...SIGMA_FIELDS,
  beta_start: number(0.00085, 0, 1),
  beta_end: number(0.012, 0, 1),
  beta_schedule: choice('linear', ['linear', 'scaled_linear', 'squaredcos_cap_v2', 'exp']),
  timestep_spacing: spacing('linspace'),
  clip_sample: flag(false),
  clip_sample_range: CLIP_FIELDS.clip_sample_range,
};

/**
 * Heun's method (Karras et al. 2022, algorithm 2 without churn; k-diffusion, sample_heun): an Euler step, and
 * then the same step with the mean of the slopes at its ends. Two evaluations a step, but one for the last.
 */
export const heun: SchedulerFactory = (config, steps, { startStep }) => {
  const name = 'HeunDiscreteScheduler';
  const fields = readFields(name, FIELDS, config);
  const schedule = kDiffusionSchedule(fields, steps);
  const twice = (values: number[]) =>
    values.slice(startStep).flatMap((value, i) => (i === 0 ? [value] : [value, value]));
  const timesteps = twice(schedule.timesteps);
  const sigmas = [...twice(schedule.sigmas), 0];

  let start: Tensor<'float32'>; // where the step under way began
  let slope: Tensor<'float32'>; // dx/dσ there

  return makeKDiffusion({
    name,
    config,
    fields,
    timesteps,
    sigmas,
    advance(original, index, sample) {
      const sigma = sigmas[index];
      const slopeHere = slopeAt(sample, clip(fields, original), sigma);
      if (index % 2 === 0) {
        start = sample;
        slope = slopeHere;
        return follow(sample, slope, sigmas[index + 1] - sigma);
      }
      return follow(start, combine([0.5, slope], [0.5, slopeHere]), sigma - sigmas[index - 1]);
    },
  });
};
