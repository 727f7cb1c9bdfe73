/** multidiffusion-fuse: what the UNet predicts for each prompt and window → one prediction for the canvas. */
import type { NodeAPI } from 'node-red';
import { FUSE_OPTIONS } from '../../engine/options';
import { registerNode } from '../shared/register';
import { handleSteps, stepOptions } from '../shared/steps';

export = function (RED: NodeAPI): void {
  registerNode(RED, 'multidiffusion-fuse', (node, config) => {
    handleSteps(RED, node, (_msg, step, { method, plan, state }) => {
      const { interpolate, readBootstrapping, readCanvas, readPredictions } = method;
      const { mix, ...options } = stepOptions(FUSE_OPTIONS, step, config);
      const prepared = method.withBootstrapping(plan, { bootstrapping: readBootstrapping(step.bootstrapping) });
      const strategy = method.withFusion(prepared, options);
      const fused = method.fuse(plan, strategy, state, readPredictions(plan, strategy, state, step.predictions));
      const before = step.fused === undefined ? fused : readCanvas(plan, step.fused, 'step.fused', '');
      step.fused = interpolate(before, fused, mix);
    });
  });
};
