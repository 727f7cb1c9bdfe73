import assert from 'node:assert/strict';
import fc from 'fast-check';
import { isTensor, Tensor } from '../../dist/engine';
import { closeModels, encode, getNode, model, region, sampler, startFlow, stopFlow, type Any, type Flow, type Message } from './support/flow';

// eslint-disable-next-line @typescript-eslint/no-require-imports
const { cloneMessage } = require('@node-red/util').util as { cloneMessage<T>(message: T): T };

/** Random messages, beside more than 10,000 made by hand. */
const RUNS = Number(process.env.FUZZ ?? 2000);

const PROPERTIES = [
  'payload', 'prompt', 'negativePrompt', 'conditioning', 'background', 'regions', 'region', 'box', 'width', 'height', 'steps', 'seed', 'scheduler',
  'guidanceScale', 'bootstrapping', 'fusion', 'latents', 'image', 'generation', 'findings', 'headers', 'filename', 'folder', 'format', 'quality',
  'tileSize', 'job', 'step', 'initialImage', 'priority', 'client', 'reset', 'cancel', 'parts', 'res', 'req', 'topic', 'layout',
];

const cyclic: Message = { prompt: 'a', regions: [] };
cyclic.self = cyclic;
cyclic.regions.push(cyclic);
let deep: Any = [];
for (let i = 0; i < 5000; i++) deep = [deep];

/** What strangers and bugs send. */
const nasty = (): Any[] => [
  null, NaN, Infinity, -0, 1e308, 2 ** 60, '', '\0', '../../x', 'x'.repeat(200_000), true, [], [[[[[[[[[[[[1]]]]]]]]]]]], {}, cyclic, deep,
  Object.create(null), JSON.parse('{"__proto__": {"polluted": true}, "constructor": {"prototype": 1}}'), { hasOwnProperty: 1, toString: 2 },
  new Date(NaN), /x/, new Map(), Buffer.alloc(10), new Float32Array(3), new ArrayBuffer(3), () => 1, Symbol('x'), 10n,
  { kind: 'multidiffusion/tensor', dtype: 'float32', dims: [1, 4, 2 ** 30, 2 ** 30], buffer: new ArrayBuffer(8) },
  { kind: 'multidiffusion/tensor', dtype: 'nothing', dims: 'x', buffer: 5 },
  { kind: 'multidiffusion/tensor', dtype: 'uint8', dims: [0, 0, 3], buffer: new ArrayBuffer(0) },
  { kind: 'multidiffusion/conditioning', prompt: 5, embeddings: 'x' },
  [{ conditioning: { kind: 'multidiffusion/conditioning' }, mask: 5 }, null],
  { prompt: 'a', regions: [{ prompt: 'b', polygon: [[NaN, 1], [1e9, 1], [0, 0]] }] }, { prompt: 'a', regions: { length: 1e9 } },
  { _res: 5, once: 'x' }, { _res: { once: () => { throw new Error('boo'); }, removeListener: 1 } }, { box: [0, 0, 1, 1], shape: [] },
];

describe('messages', function () {
  this.timeout(200_000);
  let flow: Flow;
  before(async () => {
    flow = await startFlow([
      model(),
      encode('encode', 'a sofa', 'region'),
      region('region', [0, 0, 0.5, 0.5], 'sampler'),
      sampler('sampler', 'decode', { steps: 1, width: 64, height: 64 }),
      { id: 'decode', type: 'vae-decode', model: 'model', wires: [['save']] },
      { id: 'save', type: 'save-image', save: false, wires: [['out']] },
      { id: 'vae-encode', type: 'vae-encode', model: 'model', wires: [['out']] },
      { id: 'bootstrap', type: 'multidiffusion-bootstrap', wires: [['out']] },
      { id: 'denoise', type: 'multidiffusion-denoise', wires: [['out']] },
      { id: 'fuse', type: 'multidiffusion-fuse', wires: [['out']] },
    ]);
  });
  after(stopFlow);
  after(closeModels);

  it('of any kind end once, as done or as an error, and leave the nodes at work', async () => {
    const ids = ['encode', 'region', 'sampler', 'decode', 'save', 'vae-encode', 'bootstrap', 'denoise', 'fuse'];
    const endings = new Map<string, number>();
    for (const id of ids) {
      const node = getNode(id);
      const complete = node._complete.bind(node) as (msg: Message, error?: unknown) => void;
      node._complete = (msg: Message, error?: unknown) => {
        endings.set(id, (endings.get(id) ?? 0) + 1);
        if (!error) complete(msg);
      };
    }
    const handed = new Map<string, number>();
    const give = (id: string, msg: Message): void => {
      handed.set(id, (handed.get(id) ?? 0) + 1);
      // The handler itself, without what Node-RED would do to such a message on its way.
      getNode(id)._inputCallback(msg, () => {}, (error?: Error) => getNode(id)._complete(msg, error));
    };
    for (const id of ids) for (const property of PROPERTIES) for (const value of nasty()) give(id, { _msgid: 'x', [property]: value });
    fc.assert(
      fc.property(fc.constantFrom(...ids), fc.dictionary(fc.constantFrom(...PROPERTIES), fc.anything({ withTypedArray: true, withBigInt: true, withNullPrototype: true, withSparseArray: true }), { minKeys: 1, maxKeys: 6 }), (id, msg) => give(id, { ...msg })),
      { numRuns: RUNS },
    );
    for (let i = 0; i < 2000 && ids.some((id) => endings.get(id) !== handed.get(id)); i++) await new Promise((resolve) => setTimeout(resolve, 20));
    for (const id of ids) assert.equal(endings.get(id), handed.get(id), id);
    assert.equal(({} as Message).polluted, undefined);
    const good = await flow.ok('encode', {});
    assert.ok(Buffer.isBuffer(good.payload));
  });

  it('can be cloned for a second wire without their tensors losing anything', async () => {
    const image = Tensor.uint8(new Uint8Array(512 * 512 * 3).map((_, i) => i), [512, 512, 3]);
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
    const { background, regions, generation } = cloneMessage({ background: first.background, regions: first.regions, generation: first.generation });
    const second = await flow.ok('sampler', { background, regions, seed: generation.seed });
    assert.ok(second.payload.length > 0);
    assert.ok(Buffer.from(second.image.buffer).equals(Buffer.from(first.image.buffer)));
  });
});
