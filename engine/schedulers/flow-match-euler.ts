import { combine, makeScheduler, predictedOriginal, type SchedulerFactory } from './common';
import { flag, readFields } from './config';
import { FLOW_MATCH_FIELDS, flowMatchSigmas } from './flow';
import { flowLevel } from './level';

const FIELDS = { ...FLOW_MATCH_FIELDS, stochastic_sampling: flag(false) };

/**
 * Euler's method along dx/dσ, which is what a flow-matching model predicts (Esser et al. 2024, section 2); or each
 * time fresh noise on the predicted picture.
 */
export const flowMatchEuler: SchedulerFactory = (config, steps, run) => {
  const name = 'FlowMatchEulerDiscreteScheduler';
  const fields = readFields(name, FIELDS, config);
  const sigmas = [...flowMatchSigmas(fields, steps, run), 0].slice(run.startStep);
  const levels = sigmas.map(flowLevel);

  return makeScheduler({
    name,
    config,
    predictionType: 'flow_prediction',
    timesteps: sigmas.slice(0, -1).map((sigma) => Math.fround(sigma * fields.num_train_timesteps)),
    sigmas,
    levels: levels.slice(0, -1),
    initNoiseSigma: 1,
    advance(output, index, sample, noise) {
      if (!fields.stochastic_sampling)
        return combine([1, sample], [Math.fround(sigmas[index + 1] - sigmas[index]), output]);
      const original = predictedOriginal('flow_prediction', output, sample, levels[index]);
      const { alpha, sigma } = levels[index + 1];
      return combine([alpha, original], [sigma, noise(index)]);
    },
  });
};
