import { COMMON_FIELDS, SIGMA_FIELDS, ZERO_SNR_FIELDS, choice, readFields, spacing } from './config';
import { combine, explodingLevel, makeScheduler, toOriginal, trainingSigmas, type SchedulerFactory } from './common';
import { kDiffusionInitNoise, kDiffusionSchedule } from './k-diffusion';

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
      const original = toOriginal(type, output, sample, explodingLevel(sigmas[index]));
      // x + (x − x0)/σ · (σ' − σ)
      const kept = sigmas[index + 1] / sigmas[index];
      return combine([kept, sample], [1 - kept, original]);
    },
  });
};
