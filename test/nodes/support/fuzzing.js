'use strict';
// A Node-RED whose nodes get what strangers and bugs send: nasty things at every property, valid messages with one thing in
// them exchanged, and random ones. Prints a line of JSON after each round. To be started with --expose-gc; its arguments are
// messages for each node, rounds, and a seed.
const path = require('node:path');
const fc = require('fast-check');
const { startNodeRed } = require('../../../scripts/lib/headless');
const { closeUnusedCheckpoints } = require('../../../dist/engine');
const { THINGS, EMPTINESS, PROPERTIES, put, exchange, randomFrom } = require('./nasty');

const [count, rounds, seed] = process.argv.slice(2).map(Number);
const folder = path.join(__dirname, '../../fixtures/golden/checkpoints/tiny-lcm');
const small = { width: 64, height: 64, steps: 1, bootstrapping: 0, seedType: 'num', seed: 7 };
const flow = [
  { id: 'tab', type: 'tab', label: 'test' },
  { id: 'model', type: 'diffusion-model', checkpoint: 'folder', folder, provider: 'cpu', threads: '1' },
  ...[
    { id: 'encode', type: 'text-encode', model: 'model', prompt: '', promptType: 'str', wires: [['region']] },
    { id: 'region', type: 'region-mask', shape: 'box', box: [0, 0, 0.5, 0.5], wires: [['sampler', 'wired']] },
    { id: 'sampler', type: 'multidiffusion-sampler', model: 'model', ...small, wires: [['decode'], [], [], []] },
    { id: 'decode', type: 'vae-decode', model: 'model', wires: [['save', 'vae-encode']] },
    { id: 'save', type: 'save-image', save: true, overwrite: true, filename: 'picture', wires: [[]] },
    { id: 'vae-encode', type: 'vae-encode', model: 'model', width: 64, height: 64, wires: [[]] },
    {
      id: 'wired',
      type: 'multidiffusion-sampler',
      model: 'model',
      ...small,
      stepMode: 'wired',
      loopTimeout: 1,
      wires: [[], ['bootstrap'], [], []],
    },
    { id: 'bootstrap', type: 'multidiffusion-bootstrap', wires: [['denoise']] },
    { id: 'denoise', type: 'multidiffusion-denoise', wires: [['fuse']] },
    { id: 'fuse', type: 'multidiffusion-fuse', wires: [['wired']] },
    { id: 'catch', type: 'catch', scope: null, wires: [[]] },
  ].map((node) => ({ z: 'tab', x: 1, y: 1, ...node })),
];
const NODES = ['encode', 'region', 'sampler', 'decode', 'save', 'vae-encode', 'bootstrap', 'denoise', 'fuse'];
/** Nodes that a step comes through; the sampler takes it back. */
const LOOP = ['bootstrap', 'denoise', 'fuse', 'wired'];
const AT_ONCE = 100;
const PATIENCE = 120_000;

/** The things that a request can carry. */
function inJson() {
  return THINGS.flatMap((thing) => {
    try {
      if (thing.length > 2 ** 20 || thing.prompt?.length > 2 ** 20) return []; // Node-RED takes no request so large
      return [JSON.parse(JSON.stringify(thing))];
    } catch {
      return [];
    }
  });
}

async function main() {
  const { RED, url, deploy, stop } = await startNodeRed({
    onLog: () => {},
    editor: true,
    settings: { multidiffusion: { maxCanvasPixels: 128 * 128, maxSteps: 3 } },
  });
  await deploy(flow);
  const random = randomFrom(seed);
  const any = (list) => list[Math.floor(random() * list.length)];

  /** Ends when the node has ended its work on the message, with how often it has. */
  async function give(id, msg, send = () => {}) {
    const node = RED.nodes.getNode(id);
    let ends = 0;
    await new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${id} does not end`)), PATIENCE);
      // The handler itself, without what Node-RED would do to such a message on its way.
      node._inputCallback(msg, send, (error) => {
        ends++;
        clearTimeout(timer);
        resolve();
        node._complete(
          Object.values(Object.getOwnPropertyDescriptors(msg)).some(({ value }) => value === EMPTINESS) ? {} : msg,
          error,
        );
      });
    });
    return () => ends;
  }

  /** Valid messages as they come to each node. */
  const valid = {};
  RED.hooks.add('onReceive.valid', ({ msg, destination: { id } }) => void (valid[id] ??= RED.util.cloneMessage(msg)));
  const layout = {
    prompt: 'a room',
    negativePrompt: 'blurred',
    width: 64,
    height: 64,
    steps: 1,
    regions: [{ name: 'it', prompt: 'a sofa', box: [0, 0, 0.5, 0.5], weight: 2, feather: 0.1 }],
  };
  RED.nodes.getNode('encode').receive({ payload: layout, topic: 'x', headers: { a: 'b' } });
  while (NODES.some((id) => !valid[id])) await new Promise((resolve) => setTimeout(resolve, 20));
  RED.hooks.remove('onReceive.valid');

  const junk = fc.dictionary(
    fc.constantFrom(...PROPERTIES),
    fc.anything({ withTypedArray: true, withBigInt: true, withNullPrototype: true, withSparseArray: true }),
    { minKeys: 1, maxKeys: 6 },
  );
  let spare = [];
  /** Lets the sampler read everything, but not draw: it would draw thousands of pictures of nothing. */
  const dull = (id) => (id === 'sampler' ? { background: 5 } : {});
  function message(id, i) {
    // There are 43 properties, a prime number: of 10,000 messages each thing comes at each property, of fewer a bit of everything.
    if (i % 2 === 0)
      return put(
        { _msgid: 'x', ...dull(id) },
        PROPERTIES[(i / 2) % PROPERTIES.length],
        THINGS[(i / 2) % THINGS.length],
      );
    if (i % 8 === 1) return exchange(valid[id], any(THINGS), random);
    if (spare.length === 0) spare = fc.sample(junk, { numRuns: 500, seed: Math.floor(random() * 2 ** 31) });
    return { ...dull(id), ...spare.pop() };
  }

  const given = {};
  const wrong = [];
  async function batch(id, messages, send) {
    const counts = await Promise.all(messages.map((msg) => give(id, msg, send)));
    for (const ends of counts) if (ends() !== 1) wrong.push(`${id}: ${ends()} ends`);
    given[id] = (given[id] ?? 0) + messages.length;
  }

  /** A job whose step comes to a node of the loop with something wrong in it. */
  async function tamper(id, i) {
    const job = `live ${id} ${i}`;
    let met = 0;
    RED.hooks.add('onReceive.tamper', ({ msg, destination }) => {
      if (destination.id !== id || msg.step?.job !== job || met++ > 0) return;
      // Without its job's name or its place a message is lost, which only the loop's timeout ends.
      const { job: _job, index: _index, ...inner } = msg.step;
      const changed = exchange({ latents: msg.latents, step: inner }, any(THINGS), random);
      for (const name of ['latents', 'step'])
        Object.defineProperty(msg, name, Object.getOwnPropertyDescriptor(changed, name));
      const { value: step } = Object.getOwnPropertyDescriptor(msg, 'step');
      if (step && step !== msg.step) return;
      if (typeof step === 'object' && step !== null && Object.isExtensible(step))
        Object.assign(step, { job, index: _index });
    });
    const node = RED.nodes.getNode('wired');
    await batch('wired', [{ ...RED.util.cloneMessage(valid.sampler), job }], (out) => node.send(out));
    RED.hooks.remove('onReceive.tamper');
    given[`the loop, before ${id}`] = (given[`the loop, before ${id}`] ?? 0) + Math.min(1, met);
  }

  /** What the dialog of diffusion-model asks the server, with a thing instead of one of its texts. */
  async function ask(property, thing) {
    const body = JSON.stringify({ checkpoint: 'folder', folder: '/nowhere', [property]: thing });
    const headers = { 'content-type': 'application/json' };
    const response = await fetch(`${url}/multidiffusion/checks`, { method: 'POST', headers, body });
    if (![200, 400, 413].includes(response.status)) wrong.push(`a check of ${property}: HTTP ${response.status}`);
    if (response.ok) await fetch(`${url}/multidiffusion/checks/${(await response.json()).check}`, { method: 'DELETE' });
    given['diffusion-model'] = (given['diffusion-model'] ?? 0) + 1;
  }
  for (const property of [
    'folder',
    'repository',
    'revision',
    'provider',
    'deviceId',
    'threads',
    'batchSize',
    'memoryBudget',
    'id',
    'token',
  ])
    for (const thing of inJson()) await ask(property, thing);
  for (const id of NODES)
    await batch(
      id,
      PROPERTIES.map((property) => ({ [property]: EMPTINESS })),
    );
  for (let round = 0; round < rounds; round++) {
    for (const id of NODES) {
      for (
        let i = Math.round((round * count) / rounds), end = Math.round(((round + 1) * count) / rounds);
        i < end;
        i += AT_ONCE
      ) {
        await batch(
          id,
          Array.from({ length: Math.min(AT_ONCE, end - i) }, (_, k) => message(id, i + k)),
        );
      }
    }
    for (const id of LOOP) for (let i = 0; i < count / rounds / 50; i++) await tamper(id, i);
    spare = [];
    // What is on its way to or from the inference process and the disk comes to rest.
    for (let i = 0; i < 5; i++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      global.gc();
    }
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    console.log(
      JSON.stringify({ given, wrong, megabytes: (heapUsed + arrayBuffers) / 2 ** 20, polluted: {}.polluted === true }),
    );
  }
  // After all that: a picture.
  const picture = new Promise((resolve) =>
    RED.hooks.add('onComplete.good', ({ node, error }) => node.node.id === 'save' && resolve(error === undefined)),
  );
  RED.nodes.getNode('encode').receive({ payload: layout });
  console.log(JSON.stringify({ works: await picture }));
  await stop();
  await closeUnusedCheckpoints();
  process.exit();
}

void main();
