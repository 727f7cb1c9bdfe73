import { makeScheduler, toOriginal, type SchedulerFactory } from './common';
import { COMMON_FIELDS, SIGMA_FIELDS, ZERO_SNR_FIELDS, choice, readFields, spacing } from './config';
import { follow, kDiffusionInitNoise, kDiffusionSchedule, slopeAt } from './k-diffusion';
import { explodingLevel, trainingSigmas } from './noise-levels';

const FIELDS = {
  ...COMMON_FIELDS, ...SIGMA_FIELDS, ...ZERO_SNR_FIELDS,
  timestep_spacing: spacing('linspace'),
  interpolation_type: choice('linear', ['linear', 'log_linear']),
  timestep_type: choice('discrete', ['discrete', 'continuous']),
  final_sigmas_type: choice('zero', ['zero', 'sigma_min']),
};

/** Euler's method along dx/dσ (Karras et al. 2022, “Elucidating the Design Space”, algorithm 2 without churn; k-diffusion, sample_euler). */
export const euler: SchedulerFactory = (config, steps, { startStep }) => {
  const name = 'EulerDiscreteScheduler';
  const fields = readFields(name, FIELDS, config);
  const type = fields.prediction_type;
  const schedule = kDiffusionSchedule(fields, steps);
  const sigmas = [...schedule.sigmas, fields.final_sigmas_type === 'zero' ? 0 : trainingSigmas(fields)[0]].slice(startStep);
  const continuous = fields.timestep_type === 'continuous' && type === 'v_prediction';
  const timesteps = continuous ? sigmas.slice(0, -1).map((sigma) => Math.fround(0.25 * Math.log(sigma))) : schedule.timesteps.slice(startStep);

  return makeScheduler({
    name, config, predictionType: type, timesteps, sigmas, exploding: true,
    levels: sigmas.slice(0, -1).map(explodingLevel),
    initNoiseSigma: kDiffusionInitNoise(fields.timestep_spacing, sigmas),
    advance(output, index, sample) {
      const sigma = sigmas[index];
      const original = toOriginal(type, output, sample, explodingLevel(sigma));
      return follow(sample, slopeAt(sample, original, sigma), sigmas[index + 1] - sigma);
    },
  });
};
