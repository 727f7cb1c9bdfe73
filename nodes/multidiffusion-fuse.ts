/** multidiffusion-fuse: what the UNet predicts for each prompt and window → one prediction for the canvas. */
import type { Node, NodeAPI, NodeDef } from 'node-red';
import { fuseWired, mix, readCanvas, readPredictions } from '../engine/multidiffusion/wired';
import { BOOTSTRAP_OPTIONS, FUSE_OPTIONS, resolveOptions } from '../engine/options';
import { handleSteps } from './kit/loop';
import { own, pick } from './kit/message';

interface FuseDef extends NodeDef {
  fusion?: string;
  mix?: number | string;
}

export = function (RED: NodeAPI): void {
  RED.nodes.registerType('multidiffusion-fuse', function (this: Node, config: FuseDef) {
    RED.nodes.createNode(this, config);

    handleSteps(RED, this, async (_msg, step, loop, job) => {
      const { fusion, mix: share } = resolveOptions(FUSE_OPTIONS, pick(own(step, 'options'), NAMES), pick(config, NAMES));
      const { bootstrapping } = resolveOptions(BOOTSTRAP_OPTIONS, pick(step, ['bootstrapping']));
      const predictions = readPredictions(job, step.predictions);
      const fused = fuseWired(job, await loop.variant(bootstrapping, fusion), job.index, predictions);
      const before = step.fused === undefined ? fused : readCanvas(job, step.fused, 'step.fused', '');
      step.fused = mix(before, fused, share);
    });
  });
};

const NAMES = Object.keys(FUSE_OPTIONS);
