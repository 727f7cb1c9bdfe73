import type { SchedulerFactory } from './common';
import { COMMON_FIELDS, SIGMA_FIELDS, ZERO_SNR_FIELDS, choice, readFields, spacing } from './config';
import { follow, kDiffusionSchedule, makeKDiffusion, slopeAt } from './k-diffusion';
import { trainingSigmas } from './level';

const FIELDS = {
  ...COMMON_FIELDS,
  ...SIGMA_FIELDS,
  ...ZERO_SNR_FIELDS,
  timestep_spacing: spacing('linspace'),
  interpolation_type: choice('linear', ['linear', 'log_linear']),
  timestep_type: choice('discrete', ['discrete', 'continuous']),
  final_sigmas_type: choice('zero', ['zero', 'sigma_min']),
};

/**
 * Euler's method along dx/dσ (Karras et al. 2022, “Elucidating the Design Space”, algorithm 2 without churn;
 * k-diffusion, sample_euler).
 */
export const euler: SchedulerFactory = (config, steps, { startStep }) => {
  const name = 'EulerDiscreteScheduler';
  const fields = readFields(name, FIELDS, config);
  const schedule = kDiffusionSchedule(fields, steps);
  const sigmas = [...schedule.sigmas, fields.final_sigmas_type === 'zero' ? 0 : trainingSigmas(fields)[0]].slice(
    startStep,
  );
  const continuous = fields.timestep_type === 'continuous' && fields.prediction_type === 'v_prediction';
  const timesteps = continuous
    ? sigmas.slice(0, -1).map((sigma) => Math.fround(0.25 * Math.log(sigma)))
    : schedule.timesteps.slice(startStep);

  return makeKDiffusion({
    name,
    config,
    fields,
    timesteps,
    sigmas,
    advance: (original, index, sample) =>
      follow(sample, slopeAt(sample, original, sigmas[index]), sigmas[index + 1] - sigmas[index]),
  });
};
