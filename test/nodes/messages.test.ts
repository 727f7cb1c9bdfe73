import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { isTensor, Tensor } from '../../dist/engine';
import {
  closeModels,
  encode,
  model,
  region,
  sampler,
  startFlow,
  stopFlow,
  type Flow,
  type Message,
} from './support/flow';

// eslint-disable-next-line @typescript-eslint/no-require-imports
const { cloneMessage } = require('@node-red/util').util as { cloneMessage<T>(message: T): T };

/** Messages for each of nine nodes; more by FUZZ=10000. */
const MESSAGES = Number(process.env.FUZZ ?? 2000);
const ROUNDS = 4;
/** What two rounds may add to the memory: less than a small object for each of their messages. */
const MOST_MEGABYTES = 4;

describe('messages', function () {
  this.timeout(120_000 + MESSAGES * 150);
  let flow: Flow;
  before(async () => {
    flow = await startFlow([
      model(),
      encode('encode', 'a sofa', 'region'),
      region('region', [0, 0, 0.5, 0.5], 'sampler'),
      sampler('sampler', 'decode', { steps: 1, width: 64, height: 64 }),
      { id: 'decode', type: 'vae-decode', model: 'model', wires: [['save']] },
      { id: 'save', type: 'save-image', save: false, wires: [['out']] },
    ]);
  });
  after(stopFlow);
  after(closeModels);

  it(`of any kind, ${MESSAGES} to each node, end once, as done or as an error, and leave nothing behind but nodes at work`, async () => {
    const seed = Number(process.env.FUZZ_SEED ?? Math.floor(Math.random() * 1e9));
    // A Node-RED by itself: the one of the other tests remembers every call of a node.
    const nodeRed = spawn(
      process.execPath,
      ['--expose-gc', path.join(__dirname, 'support/fuzzing.js'), String(MESSAGES), String(ROUNDS), String(seed)],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    const said: Message[] = [];
    for await (const line of createInterface(nodeRed.stdout)) said.push(JSON.parse(line) as Message);
    if (nodeRed.exitCode === null) await once(nodeRed, 'exit');
    const again = `FUZZ_SEED=${seed} repeats it`;
    assert.equal(nodeRed.exitCode, 0, again);
    assert.deepEqual(said.pop(), { works: true }, again);
    assert.equal(said.length, ROUNDS);
    const { given, wrong, polluted } = said[ROUNDS - 1];
    assert.deepEqual(wrong, [], again);
    assert.equal(polluted, false);
    for (const id of ['encode', 'region', 'sampler', 'decode', 'save', 'vae-encode', 'bootstrap', 'denoise', 'fuse'])
      assert.ok(given[id] >= MESSAGES, `${id}: ${given[id]}`);
    // It takes no messages: what its dialog asks the server.
    assert.ok(given['diffusion-model'] > 500, String(given['diffusion-model']));
    // Steps of running jobs were tampered with.
    for (const id of ['bootstrap', 'denoise', 'fuse', 'wired'])
      assert.ok(given[`the loop, before ${id}`] >= MESSAGES / 50, JSON.stringify(given));
    const megabytes = said.map((round) => round.megabytes as number);
    assert.ok(
      megabytes[ROUNDS - 1] - megabytes[1] < MOST_MEGABYTES,
      `memory after each round: ${megabytes.map((amount) => amount.toFixed(1)).join(', ')} MB; ${again}`,
    );
  });

  it('can be cloned for a second wire without their tensors losing anything', async () => {
    const image = Tensor.uint8(
      new Uint8Array(512 * 512 * 3).map((_, i) => i),
      [512, 512, 3],
    );
    const copy = cloneMessage({ _msgid: 'x', image }).image;
    assert.ok(copy instanceof Tensor && isTensor(copy));
    assert.deepEqual(copy.dims, image.dims);
    assert.ok(Buffer.from(copy.buffer).equals(Buffer.from(image.buffer)));
    assert.ok(copy.buffer !== image.buffer);
    assert.match(JSON.stringify(copy), /"summary":"Tensor uint8 \[512, 512, 3\]"/);
    const typedArrays = Object.values(copy).filter((value) => ArrayBuffer.isView(value));
    assert.equal(typedArrays.length, 0, 'a typed array would be cloned by the element');
  });

  it('keep what is theirs on their way: topic, parts, req and res', async () => {
    const res = { _res: { once: () => {}, removeListener: () => {}, writableFinished: true } };
    const parts = { id: 'p', index: 1, count: 2 };
    const req = { query: {} };
    const msg = await flow.ok('encode', { topic: 't', parts, req, res, mine: { a: 1 } });
    assert.deepEqual([msg.topic, msg.parts, msg.mine], ['t', parts, { a: 1 }]);
    assert.ok(msg.req === req && msg.res === res);
  });

  it('that went through in clones give the same picture', async () => {
    const first = await flow.ok('encode', {});
    const { background, regions, generation } = cloneMessage({
      background: first.background,
      regions: first.regions,
      generation: first.generation,
    });
    const second = await flow.ok('sampler', { background, regions, seed: generation.seed });
    assert.ok(second.payload.length > 0);
    assert.ok(Buffer.from(second.image.buffer).equals(Buffer.from(first.image.buffer)));
  });
});
