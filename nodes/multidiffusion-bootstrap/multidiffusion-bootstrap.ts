/** multidiffusion-bootstrap: the shared latents → what each prompt sees of each window. */
import type { NodeAPI } from 'node-red';
import { BOOTSTRAP_OPTIONS } from '../../engine/options';
import { registerNode } from '../shared/register';
import { handleSteps, stepOptions } from '../shared/steps';

export = function (RED: NodeAPI): void {
  registerNode(RED, 'multidiffusion-bootstrap', (node, config) => {
    handleSteps(RED, node, async (msg, step, loop) => {
      const { method, model, plan, state, signal } = loop;
      const options = stepOptions(BOOTSTRAP_OPTIONS, step, config);
      const bootstrapping = method.bootstrappingAt(plan, state.index, options);
      const strategy = method.withBootstrapping(plan, { ...options, bootstrapping });
      const { index } = state;
      const latents = loop.latentsOf(msg);
      const findings = await method.prepareBackgrounds(model, plan, strategy, state, { signal });
      for (const finding of findings) node.warn(finding.message);
      step.inputs = method.wireInputs(method.prepareInputs(plan, strategy, { index, latents }));
      step.bootstrapping = bootstrapping;
    });
  });
};
