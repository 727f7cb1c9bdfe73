'use strict';
// A Node-RED whose editor asks who is there; prints its address and the routes that our nodes have added.
const path = require('node:path');
const { startNodeRed, temporaryFolder } = require('../../../scripts/lib/headless');

const folder = path.join(__dirname, '../../fixtures/golden/checkpoints/tiny-sd2');
const flow = [
  { id: 'tab', type: 'tab', label: 'test' },
  { id: 'model', type: 'diffusion-model', checkpoint: 'folder', folder, provider: 'cpu', threads: '1' },
  { id: 'draw', z: 'tab', x: 1, y: 1, type: 'inject', props: [], repeat: '', once: false, wires: [['encode']] },
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
    width: 128,
    height: 128,
    steps: 1,
    bootstrapping: 0,
    seedType: 'num',
    seed: 7,
    wires: [[], [], [], []],
  },
];

/** A token is the permissions that it gives. */
const adminAuth = {
  type: 'credentials',
  users: [],
  tokens: async (/** @type {string} */ token) =>
    token.startsWith('may:') ? { username: token, permissions: token.slice(4).split(',') } : null,
};

/** Every method and path that is ours, whichever node added it. */
function ourRoutes(/** @type {any} */ app) {
  /** @type {Array<{ route?: { path: string, methods: Record<string, boolean> } }>} */
  const { stack } = app._router;
  return stack.flatMap(({ route }) =>
    route && String(route.path).includes('multidiffusion')
      ? Object.keys(route.methods).map((method) => `${method.toUpperCase()} ${route.path}`)
      : [],
  );
}

async function main() {
  const nodeRed = await startNodeRed({ userDir: temporaryFolder(), editor: true, settings: { adminAuth } });
  await nodeRed.deploy(flow);
  console.log(JSON.stringify({ url: nodeRed.url, routes: ourRoutes(nodeRed.RED.runtime.httpAdmin) }));
  process.once('SIGTERM', () => nodeRed.stop().then(() => process.exit()));
}

void main();
