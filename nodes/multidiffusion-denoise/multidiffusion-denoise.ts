/** multidiffusion-denoise: what each prompt sees of each window → what the UNet predicts for it, with guidance. */
import type { NodeAPI } from 'node-red';
import { registerNode } from '../shared/register';
import { handleSteps } from '../shared/steps';

export = function (RED: NodeAPI): void {
  registerNode(RED, 'multidiffusion-denoise', (node) => {
    handleSteps(RED, node, async (_msg, step, { model, plan, state, signal }, task) => {
      const { predictNoise } = await import('../../engine/multidiffusion/guidance');
      const { readInputs, wirePredictions } = await import('../../engine/multidiffusion/wire');
      const inputs = readInputs(plan, step.inputs, step.prompts);
      const predictions = await predictNoise(model, plan, inputs, state, {
        signal: AbortSignal.any([signal, task.signal]),
      });
      step.predictions = wirePredictions(predictions);
    });
  });
};
