/** multidiffusion-fuse: what the UNet predicts for each prompt and window → one prediction for the canvas. */
import type { Node, NodeAPI, NodeDef } from 'node-red';
import { fuseWired, mix, readCanvas, readPredictions } from '../engine/multidiffusion/wired';
import { BOOTSTRAP_OPTIONS, checkOption, FUSE_OPTIONS } from '../engine/options';
import { handleSteps, stepOptions } from './kit/steps';

interface FuseDef extends NodeDef {
  fusion?: string;
  mix?: number | string;
}

export = function (RED: NodeAPI): void {
  RED.nodes.registerType('multidiffusion-fuse', function (this: Node, config: FuseDef) {
    RED.nodes.createNode(this, config);

    handleSteps(RED, this, async (_msg, step, loop, job) => {
      const { fusion, mix: share } = stepOptions(FUSE_OPTIONS, step, config);
      const bootstrapping = checkOption('step.bootstrapping', BOOTSTRAP_OPTIONS.bootstrapping, step.bootstrapping) ?? 'sampler';
      const predictions = readPredictions(job, step.predictions);
      const fused = fuseWired(job, await loop.variant(String(bootstrapping), fusion), job.index, predictions);
      const before = step.fused === undefined ? fused : readCanvas(job, step.fused, 'step.fused', '');
      step.fused = mix(before, fused, share);
    });
  });
};
