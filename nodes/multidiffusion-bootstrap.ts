/** multidiffusion-bootstrap: the shared latents → what each prompt sees of each window. */
import type { Node, NodeAPI, NodeDef } from 'node-red';
import { prepareInputs } from '../engine/multidiffusion/bootstrap';
import { bootstrappingNow, varyBootstrapping } from '../engine/multidiffusion/vary';
import { wireInputs } from '../engine/multidiffusion/wired';
import { BOOTSTRAP_OPTIONS } from '../engine/options';
import { handleSteps, stepOptions } from './kit/steps';

export = function (RED: NodeAPI): void {
  RED.nodes.registerType('multidiffusion-bootstrap', function (this: Node, config: NodeDef) {
    RED.nodes.createNode(this, config);

    handleSteps(RED, this, async (msg, step, loop, job) => {
      const options = stepOptions(BOOTSTRAP_OPTIONS, step, config);
      const strategy = { ...options, bootstrapping: bootstrappingNow(job, options) as typeof options.bootstrapping };
      const latents = loop.latentsOf(msg);
      const variant = await loop.variant(['bootstrap', strategy], (plain) => varyBootstrapping(plain, loop.model, strategy, loop.signal));
      for (const finding of variant.findings.splice(0)) this.warn(finding.message);
      variant.latents = latents;
      step.inputs = wireInputs(prepareInputs(variant, job.index));
      step.bootstrapping = strategy.bootstrapping;
    });
  });
};
