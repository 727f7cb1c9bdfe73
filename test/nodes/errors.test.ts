import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import {
  closeModels,
  encode,
  getNode,
  model,
  region,
  sampler,
  startFlow,
  stopFlow,
  temporaryDirectory,
  TINY,
  type Flow,
  type FlowNode,
  type Message,
} from './support/flow';

const decode: FlowNode = { id: 'decode', type: 'vae-decode', model: 'model', wires: [['out']] };
const save: FlowNode = { id: 'save', type: 'save-image', save: false, wires: [['out']] };

/** Bad messages: the node they go to, what is in them, the error's code and what it must name. */
const BAD: Array<[string, string, () => Message, string, RegExp]> = [
  [
    'a prompt that is no text',
    'encode',
    () => ({ prompt: { a: 1 } }),
    'INVALID_INPUT',
    /^prompt is \{"a":1\}; allowed: text/,
  ],
  ['no prompt at all', 'bare', () => ({ payload: 5 }), 'MISSING_INPUT', /prompt is missing.*msg\.prompt/],
  [
    'a prompt of 10,000 words',
    'encode',
    () => ({ prompt: 'sofa '.repeat(10_000) }),
    'LIMIT',
    /50000 characters; allowed: up to 20000 \(multidiffusion\.maxPromptLength/,
  ],
  [
    'a negative prompt that is no text',
    'encode',
    () => ({ negativePrompt: 3 }),
    'INVALID_INPUT',
    /negativePrompt is 3/,
  ],
  ['JSON that is broken', 'encode', () => ({ payload: '{"prompt": "a", ' }), 'INVALID_INPUT', /layout as JSON/],
  ['JSON with single quotes', 'bare', () => ({ payload: "{'prompt': 'a'}" }), 'INVALID_INPUT', /layout as JSON/],
  [
    'a list of layouts',
    'bare',
    () => ({ payload: '[{"prompt": "a"}, {"prompt": "b"}]' }),
    'INVALID_INPUT',
    /payload is \[\{"prompt":"a"\}.*one layout.*split/,
  ],
  [
    'a layout whose regions are no array',
    'encode',
    () => ({ payload: { prompt: 'a', regions: 'b' } }),
    'INVALID_INPUT',
    /payload\.regions is "b"/,
  ],
  [
    'a layout region without a prompt',
    'encode',
    () => ({ payload: { regions: [{ box: [0, 0, 1, 1] }] } }),
    'MISSING_INPUT',
    /payload\.regions\[0\]\.prompt/,
  ],
  [
    'a layout region without a place',
    'encode',
    () => ({ payload: { regions: [{ prompt: 'a' }] } }),
    'MISSING_INPUT',
    /payload\.regions\[0\]\.box/,
  ],
  [
    'a layout region with two places',
    'encode',
    () => ({ payload: { regions: [{ prompt: 'a', box: [0, 0, 1, 1], rest: true }] } }),
    'INVALID_INPUT',
    /only one/,
  ],
  [
    'a layout region that is no object',
    'encode',
    () => ({ payload: { regions: [7] } }),
    'INVALID_INPUT',
    /payload\.regions\[0\] is 7/,
  ],
  [
    'a layout region with a wrong option',
    'encode',
    () => ({ payload: { regions: [{ prompt: 'a', box: [0, 0, 1, 1], weight: 'x' }] } }),
    'INVALID_INPUT',
    /payload\.regions\[0\]\.weight is "x"/,
  ],
  [
    'a layout region that ends before it starts',
    'encode',
    () => ({ payload: { regions: [{ prompt: 'a', box: [0, 0, 1, 1], start: 0.5, end: 0.25 }] } }),
    'INVALID_INPUT',
    /^payload\.regions\[0\]\.end is 0\.25; allowed: more than start, which is 0\.5/,
  ],
  [
    'a region that ends before it starts',
    'encodeRegion',
    () => ({ region: { start: 1 } }),
    'INVALID_INPUT',
    /^region\.end is 1; allowed: more than start/,
  ],
  [
    'a picture to start from that is null',
    'encodePicture',
    () => ({ image: null }),
    'MISSING_INPUT',
    /^image is missing/,
  ],
  [
    'a layout with a wrong file format',
    'encode',
    () => ({ payload: { prompt: 'a', format: 'bmp' } }),
    'INVALID_INPUT',
    /^payload\.format is "bmp"; allowed: one of png, jpeg, webp/,
  ],
  [
    'a layout with a wrong tile',
    'encode',
    () => ({ payload: { prompt: 'a', tileSize: 1 } }),
    'INVALID_INPUT',
    /^payload\.tileSize is 1; allowed: a whole number from 64/,
  ],
  [
    'a layout with wrong steps',
    'encode',
    () => ({ payload: { prompt: 'a', steps: 'many' } }),
    'INVALID_INPUT',
    /^payload\.steps is "many"/,
  ],
  [
    'too many layout regions',
    'encode',
    () => ({ payload: { regions: Array(65).fill({ prompt: 'a', box: [0, 0, 1, 1] }) } }),
    'LIMIT',
    /65 regions; allowed: up to 64/,
  ],
  ['a region without a conditioning', 'region', () => ({}), 'MISSING_INPUT', /conditioning is missing.*text-encode/],
  [
    'a box with no area',
    'encodeRegion',
    () => ({ box: [0, 0, 0, 0.5] }),
    'INVALID_INPUT',
    /^box is \[0,0,0,0\.5\]; allowed: .*greater than 0/,
  ],
  [
    'a box outside the canvas',
    'encodeRegion',
    () => ({ box: [10, 10, 100, 100] }),
    'INVALID_INPUT',
    /overlaps the canvas/,
  ],
  ['a box of three numbers', 'encodeRegion', () => ({ box: [0, 0, 1] }), 'INVALID_INPUT', /^box is \[0,0,1\]/],
  [
    'a box of three numbers in msg.region',
    'encodeRegion',
    () => ({ region: { box: [0, 0, 1] } }),
    'INVALID_INPUT',
    /^region\.box is \[0,0,1\]/,
  ],
  [
    'a box of three numbers that moves an ellipse',
    'encodeEllipse',
    () => ({ box: [0, 0, 1] }),
    'INVALID_INPUT',
    /^box is \[0,0,1\]/,
  ],
  [
    'a layout region with a wrong box',
    'encode',
    () => ({
      payload: {
        regions: [
          { prompt: 'a', box: [0, 0, 1, 1] },
          { prompt: 'a', box: [0, 0, 1] },
        ],
      },
    }),
    'INVALID_INPUT',
    /^payload\.regions\[1\]\.box is \[0,0,1\]/,
  ],
  [
    'a layout region whose shape has a wrong box',
    'encode',
    () => ({ payload: { regions: [{ prompt: 'a', shape: 'ellipse', box: 'left' }] } }),
    'INVALID_INPUT',
    /^payload\.regions\[0\]\.box is "left"/,
  ],
  [
    'a layout region whose shape has wrong points',
    'encode',
    () => ({
      payload: {
        regions: [
          {
            prompt: 'a',
            shape: 'polygon',
            points: [
              [0, 0],
              [1, 1],
              [0.5, 0.5],
            ],
          },
        ],
      },
    }),
    'INVALID_INPUT',
    /^payload\.regions\[0\]\.points is .* on one line/,
  ],
  [
    'a polygon without area',
    'encodeRegion',
    () => ({
      region: {
        polygon: [
          [0, 0],
          [1, 1],
          [1, 0],
          [0, 0],
          [1, 1],
          [1, 0],
        ],
      },
    }),
    'INVALID_INPUT',
    /^region is .*some area/,
  ],
  [
    'a box of words',
    'encodeRegion',
    () => ({ box: ['a', 'b', 'c', 'd'] }),
    'INVALID_INPUT',
    /box is \["a","b","c","d"\]/,
  ],
  [
    'a region option out of range',
    'encodeRegion',
    () => ({ region: { feather: 2 } }),
    'INVALID_INPUT',
    /feather is 2; allowed: a number from 0 to 0\.5/,
  ],
  [
    'an unknown shape',
    'encodeRegion',
    () => ({ region: { shape: 'star' } }),
    'INVALID_INPUT',
    /shape is "star"; allowed: one of box, ellipse/,
  ],
  ['a region that is no object', 'encodeRegion', () => ({ region: 'left' }), 'INVALID_INPUT', /region is "left"/],
  [
    'a mask image that is none',
    'encodeRegion',
    () => ({ region: { image: Buffer.from('nonsense') } }),
    'INVALID_INPUT',
    /^region\.image is .* PNG, JPEG/,
  ],
  [
    'a mask image of the node that is none',
    'encodeImage',
    () => ({ picture: Buffer.from('nonsense') }),
    'INVALID_INPUT',
    /^picture is .* PNG, JPEG/,
  ],
  ['no mask image where the node looks for it', 'encodeImage', () => ({}), 'MISSING_INPUT', /^picture is missing/],
  [
    'a mask image of the wrong type where the node looks for it',
    'encodeImage',
    () => ({ picture: 5 }),
    'INVALID_INPUT',
    /^picture is 5/,
  ],
  ['a mask image of a wrong type', 'encodeRegion', () => ({ region: { image: 5 } }), 'INVALID_INPUT', /image is 5/],
  [
    'a mask file outside its directory',
    'encodeRegion',
    () => ({ region: { image: '../../../etc/passwd' } }),
    'INVALID_INPUT',
    /region\.image is .* in the mask directory; addresses are not fetched/,
  ],
  [
    'a mask by address',
    'encodeRegion',
    () => ({ region: { image: 'http://127.0.0.1/mask.png' } }),
    'INVALID_INPUT',
    /region\.image is .* in the mask directory; addresses are not fetched/,
  ],
  [
    'a decompression bomb',
    'encodeRegion',
    () => ({ region: { image: bomb() } }),
    'LIMIT',
    /30000x30000.*allowed: up to 67108864 pixels .multidiffusion\.maxMaskPixels/,
  ],
  ['regions that are none', 'sampler', () => ({ regions: [1] }), 'INVALID_INPUT', /regions\[0\] is 1/],
  [
    'a region without a mask',
    'sampler',
    () => ({ regions: [{ conditioning: {} }] }),
    'MISSING_INPUT',
    /regions\[0\]\.mask/,
  ],
  ['a background that is none', 'sampler', () => ({ background: 'a room' }), 'INVALID_INPUT', /background is "a room"/],
  [
    'a width that is no number',
    'sampler',
    () => ({ width: 'wide' }),
    'INVALID_INPUT',
    /width is "wide"; allowed: a whole number from 16/,
  ],
  ['no steps', 'sampler', () => ({ steps: 0 }), 'INVALID_INPUT', /steps is 0/],
  ['a broken number of steps', 'sampler', () => ({ steps: 2.5 }), 'INVALID_INPUT', /steps is 2\.5/],
  [
    'a guidance scale that is not a number',
    'sampler',
    () => ({ guidanceScale: NaN }),
    'INVALID_INPUT',
    /guidanceScale is NaN/,
  ],
  [
    'an unknown scheduler',
    'sampler',
    () => ({ scheduler: 'Magic' }),
    'INVALID_INPUT',
    /scheduler is "Magic"; allowed: one of checkpoint, DDIMScheduler/,
  ],
  [
    'a huge canvas',
    'sampler',
    () => ({ width: 16384, height: 16384 }),
    'LIMIT',
    /16384x16384 has 268435456 pixels; allowed: up to 16777216/,
  ],
  [
    'many regions of a large canvas',
    'sampler',
    () => ({ width: 4096, height: 4096, regions: Array(17).fill({ conditioning: {}, shape: { box: [0, 0, 1, 1] } }) }),
    'LIMIT',
    /17 regions of a canvas of 4096x4096 have 285212672 pixels; allowed: up to 268435456 .multidiffusion\.maxRegionPixels/,
  ],
  ['a negative seed', 'sampler', () => ({ seed: -2 }), 'INVALID_INPUT', /seed is -2/],
  ['no latents', 'decode', () => ({}), 'MISSING_INPUT', /latents is missing.*multidiffusion-sampler/],
  ['latents that are none', 'decode', () => ({ latents: [1, 2, 3] }), 'INVALID_INPUT', /latents is \[1,2,3\]/],
  [
    'latents that lie about their size',
    'decode',
    () => ({
      latents: { kind: 'multidiffusion/tensor', dtype: 'float32', dims: [1, 4, 999, 999], buffer: new ArrayBuffer(16) },
    }),
    'INVALID_INPUT',
    /buffer/,
  ],
  [
    'latents of another model',
    'decode',
    () => ({
      latents: { kind: 'multidiffusion/tensor', dtype: 'float32', dims: [1, 8, 2, 2], buffer: new ArrayBuffer(128) },
    }),
    'INVALID_INPUT',
    /latents is/,
  ],
  ['no image', 'save', () => ({}), 'MISSING_INPUT', /image is missing.*vae-decode/],
  ['an image that is none', 'save', () => ({ image: 'cat.png' }), 'INVALID_INPUT', /image is "cat\.png"/],
  [
    'an image of a wrong shape',
    'save',
    () => ({ image: { kind: 'multidiffusion/tensor', dtype: 'uint8', dims: [4], buffer: new ArrayBuffer(4) } }),
    'INVALID_INPUT',
    /image is/,
  ],
  [
    'an unknown format',
    'save',
    () => ({ image: 1, format: 'bmp' }),
    'INVALID_INPUT',
    /format is "bmp"; allowed: one of png, jpeg, webp/,
  ],
  [
    'a property that fails when it is read',
    'sampler',
    () =>
      Object.defineProperty({}, 'steps', {
        enumerable: true,
        get: () => {
          throw new Error('boo');
        },
      }),
    'INVALID_INPUT',
    /steps/,
  ],
];

/** Prompts whose errors come from the region-mask after them. */
const THROUGH: Record<string, string> = { encodeRegion: 'region', encodeEllipse: 'ellipse', encodeImage: 'image' };

describe('bad input', function () {
  this.timeout(20_000);
  let flow: Flow;

  before(async () => {
    flow = await startFlow([
      model(),
      encode('encode', 'a sofa', 'out'),
      encode('bare', '', 'out'),
      encode('encodeRegion', 'a sofa', 'region'),
      region('region', [0, 0, 0.5, 0.5], 'out'),
      encode('encodeEllipse', 'a sofa', 'ellipse'),
      region('ellipse', [0, 0, 0.5, 0.5], 'out', { shape: 'ellipse' }),
      encode('encodeImage', 'a sofa', 'image'),
      region('image', [], 'out', { shape: 'image', imageType: 'msg', image: 'picture' }),
      sampler('sampler', 'out'),
      decode,
      save,
      { id: 'encodePicture', type: 'vae-encode', model: 'model', width: '', height: '', wires: [['out']] },
    ]);
  });
  after(stopFlow);
  after(closeModels);

  for (const [what, id, message, code, says] of BAD) {
    it(`${what}: an error with code ${code}, and the next message works`, async () => {
      if (what.startsWith('a property that fails')) {
        // Node-RED can't clone such a message for Catch, which is told with what of it can be.
        getNode(id).emit('input', message());
        const { error } = await flow.next('caught');
        assert.equal(error.code, code, error.message);
        assert.match(error.message, says);
        await new Promise((resolve) => setImmediate(resolve));
        assert.equal(flow.statuses.filter((entry) => entry.id === id).at(-1)!.fill, 'red');
      } else {
        const error = await flow.fails(id, message());
        assert.equal(error.code, code, error.message);
        assert.match(error.message, says);
        assert.doesNotMatch(error.message, /^\w*Error\b/);
        assert.equal(error.source.id, THROUGH[id] ?? id);
        await new Promise((resolve) => setImmediate(resolve));
        const status = flow.statuses.filter((entry) => entry.id === error.source.id).at(-1)!;
        assert.equal(status.fill, 'red');
        assert.ok(status.text!.length <= 25, status.text);
      }
      const good = await flow.ok('encodeRegion', {});
      assert.equal(good.regions.length, 1);
    });
  }
});

describe('a model that cannot be used', function () {
  this.timeout(20_000);
  afterEach(stopFlow);
  after(closeModels);

  const copy = (change: (folder: string) => void): string => {
    const folder = path.join(temporaryDirectory(), 'model');
    fs.cpSync(TINY, folder, { recursive: true });
    change(folder);
    return folder;
  };
  const broken: Array<[string, () => string, RegExp]> = [
    ['a folder that is not there', () => '/nowhere/at/all', /nowhere/],
    ['no folder', () => '', /folder is missing/],
    ['a missing file', () => copy((folder) => fs.rmSync(path.join(folder, 'unet/model.onnx'))), /unet/],
    [
      'a damaged file',
      () => copy((folder) => fs.writeFileSync(path.join(folder, 'unet/model.onnx'), 'nonsense')),
      /unet/,
    ],
    [
      'a missing tokenizer',
      () => copy((folder) => fs.rmSync(path.join(folder, 'tokenizer'), { recursive: true })),
      /tokenizer/,
    ],
  ];
  for (const [what, folder, says] of broken) {
    it(`${what}: an error that names it; when it is put right, the next message works`, async () => {
      const place = folder();
      const flow = await startFlow([
        model('model', place),
        encode('encode', 'a sofa', 'sampler'),
        sampler('sampler', 'out'),
      ]);
      const error = await flow.fails('encode', {});
      assert.match(error.code, /^(CHECKPOINT|INFERENCE|MISSING_INPUT)$/, error.message);
      assert.match(error.message, says);
      if (!place.includes('multidiffusion-')) return;
      fs.cpSync(TINY, place, { recursive: true });
      await flow.ok('encode', {});
    });
  }

  it('a diffusion-model node that was deleted: an error that says so', async () => {
    const flow = await startFlow([encode('encode', 'a sofa', 'out')]);
    const error = await flow.fails('encode', {});
    assert.equal(error.code, 'MISSING_INPUT');
    assert.match(error.message, /diffusion-model.*missing or disabled/);
  });
});

/** 30,000 x 30,000 pixels, as a PNG header says; the data behind it does not matter. */
function bomb(): Buffer {
  const header = Buffer.from('89504e470d0a1a0a0000000d49484452000075300000753008000000000000000000000000', 'hex');
  return Buffer.concat([
    withChecksum(header.subarray(0, 29)),
    Buffer.from('0000000a49444154789c636000000002000148afa4710000000049454e44ae426082', 'hex'),
  ]);
}

function withChecksum(start: Buffer): Buffer {
  const { crc32 } = require('node:zlib') as typeof import('node:zlib');
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(crc32(start.subarray(12)));
  return Buffer.concat([start, sum]);
}
