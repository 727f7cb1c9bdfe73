/**
 * Draws an example with few steps and with a checkpoint of the tests, which stays the same when the bundled
 * model is trained again; and sums up what came out in a few hundred numbers.
 */
import path from 'node:path';
import sharp from 'sharp';
import { exampleLayout, type FlowNode } from '../../../scripts/lib/flow.js';
import type { startNodeRed } from '../../../scripts/lib/headless.js';

/** Its VAE encoder gives the mean: everything repeats. */
const CHECKPOINT = path.resolve(__dirname, '../../fixtures/golden/checkpoints/tiny-lcm');
const STEPS = 6;
const SEED = 4;
/** Blocks that a side is divided into. */
const BLOCKS = 8;

export interface Drawn {
  /** By the sampler's id, in the order in which they drew: dims, and the mean of every block of every channel. */
  latents: Array<{ sampler: string; dims: number[]; means: number[] }>;
  /** The mean of red, green and blue in every block, 0 to 255. */
  picture: { width: number; height: number; means: number[] };
}

interface Sent {
  source: { id: string; port: number };
  msg: { latents?: { dims: number[]; data: Float32Array } };
}

/** Deploys the flow, starts it as its button or a client would, and waits for its picture. */
export async function drawExample(
  nodeRed: Awaited<ReturnType<typeof startNodeRed>>,
  example: FlowNode[],
): Promise<Drawn> {
  const flow = structuredClone(example);
  const change = (type: string, values: object): void =>
    flow.filter((node) => node.type === type).forEach((node) => Object.assign(node, values));
  const model = { id: 'model', type: 'diffusion-model', checkpoint: 'folder', folder: CHECKPOINT, provider: 'cpu' };
  for (const type of ['text-encode', 'multidiffusion-sampler', 'vae-encode', 'vae-decode'])
    change(type, { model: model.id });
  flow.push(model);
  change('multidiffusion-sampler', { steps: STEPS });
  change('mqtt-broker', { autoConnect: false });
  change('save-image', { save: true });
  const samplers = new Set(flow.filter(({ type }) => type === 'multidiffusion-sampler').map(({ id }) => id));
  const latents: Drawn['latents'] = [];
  const hook = 'onSend.draw';
  nodeRed.RED.hooks.add(hook, (events: Sent[]) => {
    for (const { source, msg } of events) {
      if (!samplers.has(source.id) || source.port !== 0 || !msg.latents) continue;
      const { dims, data } = msg.latents;
      const [, channels, height, width] = dims;
      const at = (channel: number, y: number, x: number): number => data[(channel * height + y) * width + x]!;
      latents.push({ sampler: source.id, dims, means: blockMeans(channels!, height!, width!, at) });
    }
  });
  try {
    await nodeRed.deploy(flow);
    const layout = exampleLayout(flow) && { 'payload.steps': STEPS, 'payload.seed': SEED };
    const { filename } = await nodeRed.generate(flow, { message: layout ?? {} });
    const { data, info } = await sharp(filename).removeAlpha().raw().toBuffer({ resolveWithObject: true });
    const { width, height, channels } = info;
    const at = (channel: number, y: number, x: number): number => data[(y * width + x) * channels + channel]!;
    return { latents, picture: { width, height, means: blockMeans(channels, height, width, at) } };
  } finally {
    nodeRed.RED.hooks.remove(hook);
  }
}

function blockMeans(
  channels: number,
  height: number,
  width: number,
  at: (channel: number, y: number, x: number) => number,
): number[] {
  const means: number[] = [];
  for (let channel = 0; channel < channels; channel++) {
    for (let block = 0; block < BLOCKS * BLOCKS; block++) {
      const [top, bottom] = bounds(Math.floor(block / BLOCKS), height);
      const [left, right] = bounds(block % BLOCKS, width);
      let sum = 0;
      for (let y = top; y < bottom; y++) for (let x = left; x < right; x++) sum += at(channel, y, x);
      means.push(Number((sum / ((bottom - top) * (right - left))).toFixed(4)));
    }
  }
  return means;
}

const bounds = (block: number, size: number): [number, number] => [
  Math.floor((block * size) / BLOCKS),
  Math.floor(((block + 1) * size) / BLOCKS),
];
