'use strict';
// A Node-RED in the middle of a job, to be ended from outside; prints the id of its inference process.
const path = require('node:path');
const { startNodeRed, temporaryFolder } = require('../../../scripts/lib/headless');
const { acquireCheckpoint } = require('../../../dist/engine');

const folder = path.join(__dirname, '../../fixtures/golden/checkpoints/tiny-sd2');
const flow = [
  { id: 'tab', type: 'tab', label: 'test' },
  { id: 'model', type: 'diffusion-model', checkpoint: 'folder', folder, provider: 'cpu', threads: '1' },
  {
    id: 'encode',
    z: 'tab',
    x: 1,
    y: 1,
    type: 'text-encode',
    model: 'model',
    prompt: 'a sofa',
    promptType: 'str',
    wires: [['sampler']],
  },
  {
    id: 'sampler',
    z: 'tab',
    x: 1,
    y: 1,
    type: 'multidiffusion-sampler',
    model: 'model',
    width: 512,
    height: 512,
    steps: 900,
    bootstrapping: 0,
    seedType: 'num',
    seed: 7,
    wires: [[], [], ['progress']],
  },
  {
    id: 'progress',
    z: 'tab',
    x: 1,
    y: 1,
    type: 'function',
    func: "if (msg.payload.event === 'step') node.warn('working');",
    outputs: 1,
    wires: [[]],
  },
];

async function main() {
  const nodeRed = await startNodeRed({
    userDir: temporaryFolder(),
    onLog: async ({ msg }) => {
      if (msg !== 'working') return;
      const lease = acquireCheckpoint(folder, { provider: 'cpu', threads: 1 });
      console.log((await lease.get()).pid);
      lease.release();
    },
  });
  await nodeRed.deploy(flow);
  nodeRed.RED.nodes.getNode('encode').receive({});
  // As Node-RED's own start script does.
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => nodeRed.stop().then(() => process.exit()));
}

void main();
