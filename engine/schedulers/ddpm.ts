import { checkSignal, clip, combine, makeScheduler, predictedOriginal, type SchedulerFactory } from './common';
import { CLIP_FIELDS, COMMON_FIELDS, ZERO_SNR_FIELDS, choice, readFields, spacing } from './config';
import { alphasCumprod, vpLevel } from './level';
import { spacedTimesteps } from './timesteps';

const FIELDS = {
  ...COMMON_FIELDS,
  ...CLIP_FIELDS,
  ...ZERO_SNR_FIELDS,
  beta_schedule: choice('linear', ['linear', 'scaled_linear', 'squaredcos_cap_v2', 'laplace', 'sigmoid']),
  timestep_spacing: spacing('leading'),
  // The “log” form is the same variance, kept as a logarithm; learned ones need twice the channels.
  variance_type: choice('fixed_small', ['fixed_small', 'fixed_small_log', 'fixed_large']),
};

/** DDPM (Ho et al. 2020, “Denoising Diffusion Probabilistic Models”, equation 7), over any subset of the timesteps. */
export const ddpm: SchedulerFactory = (config, steps, { startStep }) => {
  const name = 'DDPMScheduler';
  const fields = readFields(name, FIELDS, config);
  const type = fields.prediction_type;
  const alphas = alphasCumprod(fields);
  const timesteps = spacedTimesteps(fields, steps).slice(startStep);
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
      const alphaBar = alphas[timesteps[index]];
      const alphaBarNext = index + 1 < timesteps.length ? alphas[timesteps[index + 1]] : 1;
      const alpha = alphaBar / alphaBarNext; // of this step alone
      const beta = 1 - alpha;

      const original = clip(fields, predictedOriginal(type, output, sample, levels[index]));
      const onOriginal = (Math.sqrt(alphaBarNext) * beta) / (1 - alphaBar);
      const onSample = (Math.sqrt(alpha) * (1 - alphaBarNext)) / (1 - alphaBar);
      if (timesteps[index] === 0) return combine([onOriginal, original], [onSample, sample]);
      const small = Math.max(((1 - alphaBarNext) / (1 - alphaBar)) * beta, 1e-20);
      const variance = fields.variance_type === 'fixed_large' ? beta : small;
      return combine([onOriginal, original], [onSample, sample], [Math.sqrt(variance), noise(index)]);
    },
  });
};
