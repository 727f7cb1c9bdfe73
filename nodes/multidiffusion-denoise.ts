/** multidiffusion-denoise: what each prompt sees of each window → what the UNet predicts for it, with guidance. */
import type { Node, NodeAPI, NodeDef } from 'node-red';
import { predictInputs, readGuidance, readInputs, wirePredictions } from '../engine/multidiffusion/wired';
import { handleSteps } from './kit/steps';

export = function (RED: NodeAPI): void {
  RED.nodes.registerType('multidiffusion-denoise', function (this: Node, config: NodeDef) {
    RED.nodes.createNode(this, config);

    handleSteps(RED, this, async (_msg, step, loop, job, task) => {
      const inputs = readInputs(job, step.inputs);
      const guidance = readGuidance(job, step.prompts);
      const signal = AbortSignal.any([loop.signal, task.signal]);
      step.predictions = wirePredictions(await predictInputs(loop.model, job, job.index, inputs, guidance, { signal }));
    });
  });
};
