import { COMMON_FIELDS, ZERO_SNR_FIELDS, readFields, spacing } from './config';
import { combine, explodingLevel, makeScheduler, toOriginal, type SchedulerFactory } from './common';
import { kDiffusionInitNoise, kDiffusionSchedule } from './k-diffusion';

const FIELDS = { ...COMMON_FIELDS, ...ZERO_SNR_FIELDS, timestep_spacing: spacing('linspace') };

/** Euler's method down past the next level, then fresh noise up to it (k-diffusion, sample_euler_ancestral with η = 1). */
export const eulerAncestral: SchedulerFactory = (config, steps, { startStep }) => {
  const name = 'EulerAncestralDiscreteScheduler';
  const fields = readFields(name, FIELDS, config);
  const type = fields.prediction_type;
  const schedule = kDiffusionSchedule(fields, steps);
  const timesteps = schedule.timesteps.slice(startStep);
  const sigmas = [...schedule.sigmas, 0].slice(startStep);

  return makeScheduler({
    name, config, predictionType: type, timesteps, sigmas, exploding: true,
    levels: sigmas.slice(0, -1).map(explodingLevel),
    initNoiseSigma: kDiffusionInitNoise(fields.timestep_spacing, sigmas),
    advance(output, index, sample, noise) {
      const [from, to] = [sigmas[index], sigmas[index + 1]];
      const up = (to / from) * Math.sqrt(from ** 2 - to ** 2);
      const down = to ** 2 / from; // √(to² − up²)
      const original = toOriginal(type, output, sample, explodingLevel(from));
      return combine([down / from, sample], [1 - down / from, original], [up, noise(index)]);
    },
  });
};
