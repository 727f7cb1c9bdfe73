/** multidiffusion-fuse: what the UNet predicts for each prompt and window → one prediction for the canvas. */
import type { Node, NodeAPI, NodeDef } from 'node-red';
import type { SamplingJob } from '../engine/multidiffusion/job';
import { type FuseOptions, varyFusion } from '../engine/multidiffusion/vary';
import { fuseWired, mix, readCanvas, readPredictions } from '../engine/multidiffusion/wired';
import { BOOTSTRAP_OPTIONS, checkOption, FUSE_OPTIONS } from '../engine/options';
import { handleSteps, stepOptions } from './kit/steps';

export = function (RED: NodeAPI): void {
  RED.nodes.registerType('multidiffusion-fuse', function (this: Node, config: NodeDef) {
    RED.nodes.createNode(this, config);

    handleSteps(RED, this, async (_msg, step, loop, job) => {
      const { mix: share, ...options } = stepOptions(FUSE_OPTIONS, step, config);
      const bootstrapping = String(checkOption('step.bootstrapping', BOOTSTRAP_OPTIONS.bootstrapping, step.bootstrapping) ?? 'sampler');
      const predictions = readPredictions(job, step.predictions);
      const vary = (strategy: Partial<FuseOptions>): Promise<SamplingJob> => loop.variant(['fuse', bootstrapping, strategy], (plain) => varyFusion(plain, bootstrapping, strategy));
      const fused = fuseWired(await vary({}), await vary(options), job.index, predictions);
      const before = step.fused === undefined ? fused : readCanvas(job, step.fused, 'step.fused', '');
      step.fused = mix(before, fused, share);
    });
  });
};
