import {
  checkSignal,
  clip,
  combine,
  makeScheduler,
  predictedNoise,
  predictedOriginal,
  type SchedulerFactory,
} from './common';
import { CLIP_FIELDS, COMMON_FIELDS, ZERO_SNR_FIELDS, flag, readFields, spacing } from './config';
import { alphasCumprod, vpLevel } from './level';
import { spacedTimesteps } from './timesteps';

const FIELDS = {
  ...COMMON_FIELDS,
  ...CLIP_FIELDS,
  ...ZERO_SNR_FIELDS,
  timestep_spacing: spacing('leading'),
  set_alpha_to_one: flag(true),
};

/** DDIM (Song et al. 2021, “Denoising Diffusion Implicit Models”, equations 12 and 16). */
export const ddim: SchedulerFactory = (config, steps, { eta, startStep }) => {
  const name = 'DDIMScheduler';
  const fields = readFields(name, FIELDS, config);
  const type = fields.prediction_type;
  const alphas = alphasCumprod(fields);
  const finalAlpha = fields.set_alpha_to_one ? 1 : alphas[0];
  const timesteps = spacedTimesteps(fields, steps).slice(startStep);
  const levels = timesteps.map((t) => vpLevel(alphas[t]));
  checkSignal(name, fields, levels);
  // diffusers steps back by this stride even where trailing and linspace spacing step a little less or more.
  const stride = Math.floor(fields.num_train_timesteps / steps);

  return makeScheduler({
    name,
    config,
    predictionType: type,
    timesteps,
    levels,
    initNoiseSigma: 1,
    advance(output, index, sample, noise) {
      const level = levels[index];
      const previous = timesteps[index] - stride;
      const next = vpLevel(previous >= 0 ? alphas[previous] : finalAlpha);

      const original = clip(fields, predictedOriginal(type, output, sample, level));
      const epsilon = predictedNoise(type, output, sample, level);
      const deviation = eta * (next.sigma / level.sigma) * Math.sqrt(1 - (level.alpha / next.alpha) ** 2);
      const direction = Math.sqrt(Math.max(0, next.sigma ** 2 - deviation ** 2));
      if (eta === 0) return combine([next.alpha, original], [direction, epsilon]);
      return combine([next.alpha, original], [direction, epsilon], [deviation, noise(index)]);
    },
  });
};
