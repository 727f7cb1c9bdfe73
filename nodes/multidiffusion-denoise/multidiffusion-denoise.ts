/** multidiffusion-denoise: what each prompt sees of each window → what the UNet predicts for it, with guidance. */
import type { NodeAPI } from 'node-red';
import { registerNode } from '../shared/register';
import { handleSteps } from '../shared/steps';

export = function (RED: NodeAPI): void {
  registerNode(RED, 'multidiffusion-denoise', (node) => {
    handleSteps(RED, node, async (_msg, step, { method, model, plan, state, signal }, task) => {
      const inputs = method.readInputs(plan, step.inputs, step.prompts);
      const predictions = await method.predictNoise(model, plan, inputs, state, {
        signal: AbortSignal.any([signal, task.signal]),
      });
      step.predictions = method.wirePredictions(predictions);
    });
  });
};
