import type { Tensor } from '../tensor';
import { combine, makeScheduler, type SchedulerFactory } from './common';
import { readFields } from './config';
import { FLOW_MATCH_FIELDS, flowMatchSigmas } from './flow';
import { flowLevel } from './level';

/**
 * Heun's method along dx/dσ: an Euler step, and then the same step with the mean of the slopes at its ends. Two
 * evaluations a step, but one for the last.
 */
export const flowMatchHeun: SchedulerFactory = (config, steps, run) => {
  const name = 'FlowMatchHeunDiscreteScheduler';
  const fields = readFields(name, FLOW_MATCH_FIELDS, config);
  const once = flowMatchSigmas(fields, steps, run).slice(run.startStep);
  const sigmas = [...once.flatMap((sigma, i) => (i === 0 ? [sigma] : [sigma, sigma])), 0];

  let start: Tensor<'float32'>; // where the step under way began
  let slope: Tensor<'float32'>; // dx/dσ there

  return makeScheduler({
    name,
    config,
    predictionType: 'flow_prediction',
    timesteps: sigmas.slice(0, -1).map((sigma) => Math.fround(sigma * fields.num_train_timesteps)),
    sigmas,
    levels: sigmas.slice(0, -1).map(flowLevel),
    initNoiseSigma: 1,
    advance(output, index, sample) {
      if (index % 2 === 0) {
        start = sample;
        slope = output;
        return combine([1, sample], [sigmas[index + 1] - sigmas[index], output]);
      }
      const half = (sigmas[index] - sigmas[index - 1]) / 2;
      return combine([1, start], [half, slope], [half, output]);
    },
  });
};
