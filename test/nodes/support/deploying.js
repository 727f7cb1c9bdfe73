'use strict';
// A Node-RED that deploys its flow anew in the middle of a job, again and again, until SIGUSR2 comes. Prints a line of
// JSON after each deploy, and the answers at the end. To be started with --expose-gc.
const fs = require('node:fs');
const path = require('node:path');
const { startNodeRed } = require('../../../scripts/lib/headless');
const { acquireCheckpoint } = require('../../../dist/engine');

const folder = path.join(__dirname, '../../fixtures/golden/checkpoints/tiny-sd2');
const flow = [
  { id: 'tab', type: 'tab', label: 'test' },
  { id: 'model', type: 'diffusion-model', checkpoint: 'folder', folder, provider: 'cpu', threads: '1' },
  ...[
    { id: 'encode', type: 'text-encode', model: 'model', prompt: 'a sofa', promptType: 'str', wires: [['sampler']] },
    {
      id: 'sampler',
      type: 'multidiffusion-sampler',
      model: 'model',
      width: 64,
      height: 64,
      steps: 1,
      bootstrapping: 0,
      seedType: 'num',
      seed: 7,
      wires: [['decode'], [], ['progress']],
    },
    { id: 'decode', type: 'vae-decode', model: 'model', wires: [['save']] },
    { id: 'save', type: 'save-image', save: false, wires: [['out']] },
    { id: 'out', type: 'function', func: '', outputs: 0, wires: [] },
    { id: 'progress', type: 'function', func: '', outputs: 0, wires: [] },
    { id: 'catch', type: 'catch', scope: null, wires: [['caught']] },
    { id: 'caught', type: 'function', func: '', outputs: 0, wires: [] },
  ].map((node) => ({ z: 'tab', x: 1, y: 1, ...node })),
];

/** What would show a leak: open handles by kind, and listeners on the process. */
function handles() {
  const kinds = {};
  for (const kind of process.getActiveResourcesInfo())
    if (!/Immediate|Timeout/.test(kind)) kinds[kind] = (kinds[kind] ?? 0) + 1;
  for (const event of ['exit', 'uncaughtException', 'disconnect']) kinds[event] = process.listenerCount(event);
  return kinds;
}

/** What the inference process takes, where the system tells in files. */
function inference(pid) {
  const status = `/proc/${pid}/status`;
  if (!fs.existsSync(status)) return {};
  return { 'the inference process': Number(/VmRSS:\s+(\d+)/.exec(fs.readFileSync(status, 'utf8'))[1]) * 1024 };
}

async function main() {
  const nodeRed = await startNodeRed();
  const node = (id) => nodeRed.RED.nodes.getNode(id);
  const answers = [];
  /** The first message at that node that will do; of the node as it is now deployed. */
  const next = (id, will) => new Promise((resolve) => node(id).on('input', (msg) => will(msg) && resolve(msg)));
  const listen = () => {
    node('out').on('input', ({ job }) => answers.push(job));
    node('caught').on('input', ({ job, error }) => answers.push(`${job}: ${error.message}`));
  };
  const ask = (job) => {
    const answer = next('out', (msg) => msg.job === job);
    node('encode').receive({ job });
    return answer;
  };

  let enough = false;
  process.on('SIGUSR2', () => (enough = true));
  await nodeRed.deploy(flow);
  await ask('first');
  for (let i = 0; !enough; i++) {
    const working = next('progress', ({ payload }) => payload.job === `old ${i}` && payload.event === 'step');
    node('encode').receive({ job: `old ${i}`, steps: 900 });
    node('encode').receive({ job: `waiting ${i}` });
    await working;
    await nodeRed.deploy(flow);
    listen();
    await ask(`new ${i}`);
    const lease = acquireCheckpoint(folder, { provider: 'cpu', threads: 1 });
    const { pid, queue } = await lease.get();
    lease.release();
    global.gc();
    const { heapUsed, arrayBuffers, rss } = process.memoryUsage();
    const memory = { heap: heapUsed + arrayBuffers, 'Node-RED': rss, ...inference(pid) };
    console.log(
      JSON.stringify({ pid, depth: queue.depth, listeners: queue.listenerCount('depth'), handles: handles(), memory }),
    );
  }
  console.log(JSON.stringify({ answers }));
  await nodeRed.stop();
  process.exit();
}

void main();
