'use strict';
// What strangers and bugs put into messages.

/** Stands for a property whose getter throws. */
const THROWS = Symbol('throws');

const cyclic = { prompt: 'a', regions: [] };
cyclic.self = cyclic;
cyclic.regions.push(cyclic);

let deep = [];
for (let i = 0; i < 5000; i++) deep = [deep];

const huge = Buffer.alloc(50 * 2 ** 20, 'x').toString('latin1');
const tensor = (more) => ({
  kind: 'multidiffusion/tensor',
  dtype: 'float32',
  dims: [1, 4, 16, 16],
  buffer: new ArrayBuffer(4096),
  ...more,
});
const conditioning = (more) => ({
  kind: 'multidiffusion/conditioning',
  prompt: 'a',
  negativePrompt: '',
  embeddings: tensor({ dims: [1, 77, 32], buffer: new ArrayBuffer(77 * 32 * 4) }),
  ...more,
});
const boo = () => {
  throw new Error('boo');
};
const hostile = new Proxy({}, { get: boo, has: boo, ownKeys: boo, getOwnPropertyDescriptor: boo, getPrototypeOf: boo });

const THINGS = [
  THROWS,
  null,
  undefined,
  NaN,
  Infinity,
  -Infinity,
  -0,
  0.5,
  1e308,
  -1e308,
  5e-324,
  2 ** 31,
  2 ** 53,
  2 ** 60,
  -1,
  true,
  false,
  '',
  ' ',
  '\0',
  '../../x',
  '/etc/passwd',
  '\ud800',
  '1e999',
  '-1',
  '0x10',
  'NaN',
  '__proto__',
  'constructor',
  huge,
  `{"prompt": "${'['.repeat(100_000)}`,
  `{"prompt":"a","regions":${'['.repeat(5000)}${']'.repeat(5000)}}`,
  'data:image/png;base64,iVBORw0KGgo=',
  'data:image/svg+xml,<svg xmlns="http://www.w3.org/2000/svg" width="99999" height="99999"/>',
  'http://127.0.0.1:9/x.png',
  [],
  [[[[[[[[[[[[1]]]]]]]]]]]],
  Array.from({ length: 5000 }, () => ({})),
  {},
  cyclic,
  deep,
  hostile,
  Object.create(null),
  JSON.parse('{"__proto__": {"polluted": true}, "constructor": {"prototype": {"polluted": true}}}'),
  { hasOwnProperty: 1, toString: 2, valueOf: boo, toJSON: boo, [Symbol.toPrimitive]: boo },
  { toString: 2, valueOf: 2 },
  { then: (resolve) => resolve(1) },
  { then: boo },
  {
    get length() {
      return boo();
    },
    get prompt() {
      return boo();
    },
  },
  new Date(NaN),
  /x/,
  new Map(),
  new WeakMap(),
  new Error('x'),
  Buffer.alloc(10),
  Buffer.alloc(50 * 2 ** 20),
  Buffer.from('{"prompt": 5}'),
  Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 0]),
  Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="100000" height="100000"/>'),
  new Float32Array(3),
  new BigInt64Array(3),
  new ArrayBuffer(3),
  new SharedArrayBuffer(3),
  new DataView(new ArrayBuffer(3)),
  () => 1,
  boo,
  Symbol('x'),
  10n,
  ...[
    { dims: [1, 4, 2 ** 30, 2 ** 30] },
    { dims: [1, 4, 17, 16] },
    { dims: [1, 4, -16, -16] },
    { dims: [1, 4, 0.5, 512] },
    { dims: [NaN] },
    { dims: [] },
    { dims: 'x' },
    { dims: [2 ** 32, 2 ** 32, 0] },
    { dims: [1, 4, '16', 16] },
    { dims: { length: 4, 0: 1, 1: 4, 2: 16, 3: 16 } },
    { dtype: 'nothing' },
    { dtype: '__proto__' },
    { dtype: 'int64' },
    { dtype: 'float16' },
    { buffer: new ArrayBuffer(8) },
    { buffer: 5 },
    { buffer: new SharedArrayBuffer(4096) },
    { buffer: Buffer.alloc(4096) },
    { buffer: new Float32Array(1024).fill(NaN).buffer },
    { buffer: new Float32Array(1024).fill(3e38).buffer },
    {
      get dims() {
        return boo();
      },
    },
    {
      get buffer() {
        return boo();
      },
    },
    { dtype: 'uint8', dims: [0, 0, 3], buffer: new ArrayBuffer(0) },
    { dtype: 'uint8', dims: [1, 4096, 3], buffer: new ArrayBuffer(3) },
    { dtype: 'uint8', dims: [1, 1365, 3], buffer: new ArrayBuffer(4095) },
  ].map((lie) => Object.defineProperties(tensor(), Object.getOwnPropertyDescriptors(lie))),
  tensor(),
  conditioning(),
  conditioning({ prompt: 5 }),
  conditioning({ embeddings: 'x' }),
  conditioning({ embeddings: tensor() }),
  conditioning({ negativeEmbeddings: tensor({ dims: [1, 2, 3] }) }),
  [{ conditioning: { kind: 'multidiffusion/conditioning' }, mask: 5 }, null],
  [{ conditioning: conditioning(), mask: tensor() }],
  {
    prompt: 'a',
    regions: [
      {
        prompt: 'b',
        polygon: [
          [NaN, 1],
          [1e9, 1],
          [0, 0],
        ],
      },
    ],
  },
  { prompt: 'a', regions: { length: 1e9 } },
  { prompt: 'a', regions: [{ prompt: 'b', image: '../../../etc/passwd' }] },
  { prompt: 'a', regions: [{ prompt: 'b', box: [1e308, 1e308, 1e308, 1e308] }], width: '64', height: [64] },
  { prompt: huge },
  { _res: 5, once: 'x' },
  { _res: { once: boo, removeListener: 1 } },
  { ip: { toString: boo } },
  { box: [0, 0, 1, 1], shape: [] },
];

/** Nothing but a length. Not among the things, because Node-RED itself dies of cloning one. */
const EMPTINESS = new Array(2 ** 32 - 1);

const PROPERTIES = [
  'payload',
  'prompt',
  'negativePrompt',
  'conditioning',
  'background',
  'regions',
  'region',
  'box',
  'width',
  'height',
  'steps',
  'seed',
  'scheduler',
  'guidanceScale',
  'bootstrapping',
  'fusion',
  'latents',
  'image',
  'generation',
  'findings',
  'headers',
  'filename',
  'folder',
  'format',
  'quality',
  'tileSize',
  'circular',
  'job',
  'step',
  'initialImage',
  'bootstrappingImage',
  'strength',
  'priority',
  'client',
  'reset',
  'cancel',
  'unload',
  'parts',
  'res',
  'req',
  'topic',
  'layout',
  '_msgid',
];

/** Sets the property, or makes one that throws. */
function put(target, property, thing) {
  if (thing === THROWS) Object.defineProperty(target, property, { enumerable: true, configurable: true, get: boo });
  else Object.defineProperty(target, property, { enumerable: true, configurable: true, writable: true, value: thing });
  return target;
}

const isInner = (value) =>
  typeof value === 'object' &&
  value !== null &&
  !ArrayBuffer.isView(value) &&
  !(value instanceof ArrayBuffer) &&
  Object.keys(value).length > 0;

/**
 * A copy with the thing in one place of it, near the top or deep inside.
 * @param {() => number} random from 0 to 1
 */
function exchange(value, thing, random) {
  const keys = Object.keys(value);
  const key = keys[Math.floor(random() * keys.length)];
  const copy = Array.isArray(value) ? [...value] : Object.assign(Object.create(Object.getPrototypeOf(value)), value);
  return put(copy, key, isInner(value[key]) && random() < 0.7 ? exchange(value[key], thing, random) : thing);
}

/** Random numbers that repeat with their seed (mulberry32). */
function randomFrom(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

module.exports = { THINGS, EMPTINESS, PROPERTIES, put, exchange, randomFrom };
