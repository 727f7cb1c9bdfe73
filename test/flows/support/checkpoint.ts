/** Which checkpoint the flow tests use. */
import fs from 'node:fs';
import path from 'node:path';
import type { FlowNode } from '../../../scripts/lib/flow.js';

export const root = path.join(__dirname, '..', '..', '..');
export const examples = path.join(root, 'examples');

export const tiny = path.join(root, 'test', 'fixtures', 'golden', 'checkpoints', 'tiny-sd2');

/** Whether the bundled model is there; else examples run small, with a checkpoint of random weights. */
export const bundled = fs.existsSync(path.join(root, 'models', 'pocket', 'model_index.json'));

/** The settings with which an example runs on the tiny checkpoint. */
export const TINY_SETTINGS: Record<string, unknown> = {
  'diffusion-model.checkpoint': 'folder',
  'diffusion-model.folder': tiny,
  'multidiffusion-sampler.steps': 3,
  'multidiffusion-sampler.width': 64,
  'multidiffusion-sampler.height': 64,
};

export function configure(flow: FlowNode[], type: string, values: Record<string, unknown>): void {
  for (const node of flow) if (node.type === type) Object.assign(node, values);
}
