/** multidiffusion-bootstrap: the shared latents → what each prompt sees of each window. */
import type { Node, NodeAPI, NodeDef } from 'node-red';
import { prepareInputs } from '../engine/multidiffusion/bootstrap';
import { wireInputs } from '../engine/multidiffusion/wired';
import { BOOTSTRAP_OPTIONS } from '../engine/options';
import { handleSteps, stepOptions } from './kit/steps';

interface BootstrapDef extends NodeDef {
  bootstrapping?: string;
  centring?: string;
}

export = function (RED: NodeAPI): void {
  RED.nodes.registerType('multidiffusion-bootstrap', function (this: Node, config: BootstrapDef) {
    RED.nodes.createNode(this, config);

    handleSteps(RED, this, async (msg, step, loop, job) => {
      const { bootstrapping, centring } = stepOptions(BOOTSTRAP_OPTIONS, step, config);
      const latents = loop.latentsOf(msg);
      const variant = await loop.variant(bootstrapping);
      for (const finding of variant === job ? [] : variant.findings.splice(0)) this.warn(finding.message);
      variant.latents = latents;
      const moving = centring === 'sampler' ? variant : { ...variant, options: { ...variant.options, maskCentring: centring === 'on' } };
      step.inputs = wireInputs(prepareInputs(moving, job.index));
      step.bootstrapping = bootstrapping;
    });
  });
};
