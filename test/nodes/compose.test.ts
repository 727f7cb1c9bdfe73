/** compose: the layout of its dialog, and what a message makes of it. */
import assert from 'node:assert/strict';
import path from 'node:path';
import {
  closeModels,
  encode,
  model,
  out,
  region,
  ROOT,
  sampler,
  startFlow,
  stopFlow,
  TINY_LCM,
  type FlowNode,
} from './support/flow';

const SOFA = { name: 'sofa', prompt: 'a red sofa', box: [0, 0.5, 0.5, 0.5] };
const PLANT = { name: 'plant', prompt: 'a plant', ellipse: [0.5, 0, 0.5, 0.5], weight: 2 };
const compose = (more = {}, next = 'out'): FlowNode => ({
  id: 'compose',
  type: 'compose',
  prompt: 'a living room',
  negativePrompt: '',
  width: '',
  height: '',
  seed: '',
  regions: [SOFA, PLANT],
  wires: [[next]],
  ...more,
});
const bytes = (tensor: { buffer: ArrayBuffer }): Buffer => Buffer.from(tensor.buffer);

describe('compose', function () {
  this.timeout(20_000);
  afterEach(stopFlow);
  after(closeModels);

  it('sends its layout, whatever an inject node says besides', async () => {
    const flow = await startFlow([compose({ width: '96', seed: 3 })]);
    for (const payload of [1700000000000, 'a text', undefined, true, [1, 2], Buffer.from('bytes')]) {
      const msg = await flow.ok('compose', { topic: 'kept', payload });
      assert.deepEqual(msg.payload, { prompt: 'a living room', width: '96', seed: 3, regions: [SOFA, PLANT] });
      assert.equal(msg.topic, 'kept');
      assert.equal(msg.findings, undefined);
    }
    assert.equal(flow.statuses.at(-1)!.text, 'regions: 2');
    assert.deepEqual(flow.warnings, []);
  });

  it('draws what the same layout draws, and what rows of nodes draw, to the last bit', async () => {
    const flow = await startFlow([
      model('model', TINY_LCM),
      compose({ negativePrompt: 'a cat', seed: 11 }, 'layout'),
      encode('layout', '', 'sampler'),
      encode('first', 'a living room', 'second', { negativePrompt: 'a cat' }),
      encode('second', 'a red sofa', 'sofa', { negativePrompt: 'a cat' }),
      region('sofa', SOFA.box, 'third'),
      encode('third', 'a plant', 'plant', { negativePrompt: 'a cat' }),
      region('plant', PLANT.ellipse, 'sampler', { shape: 'ellipse', weight: 2 }),
      sampler('sampler', 'out', { bootstrapping: 0.5 }),
    ]);
    const composed = await flow.ok('compose', {});
    const wired = await flow.ok('first', { seed: 11 });
    const sent = await flow.ok('layout', { payload: { ...composed.layout } });
    assert.equal(composed.generation.seed, 11);
    assert.deepEqual(bytes(composed.latents), bytes(wired.latents));
    assert.deepEqual(bytes(composed.latents), bytes(sent.latents));
  });

  describe('overridden by a message', () => {
    const cases: Array<[string, object, object]> = [
      ['words', { prompt: 'a kitchen' }, { prompt: 'a kitchen' }],
      [
        'words by the payload before those of the message',
        { prompt: 'a', payload: { prompt: 'a barn' } },
        { prompt: 'a barn' },
      ],
      ['size and seed', { width: 64, height: '96', seed: 5 }, { width: 64, height: '96', seed: 5 }],
      ['other options', { payload: { steps: 4, fusion: 'first' } }, { steps: 4, fusion: 'first' }],
      [
        'a region by its name',
        { payload: { regions: { sofa: { prompt: 'a blue sofa' } } } },
        { regions: [{ ...SOFA, prompt: 'a blue sofa' }, PLANT] },
      ],
      [
        'a region in an array',
        { payload: { regions: [{ name: 'plant', weight: 3 }] } },
        { regions: [SOFA, { ...PLANT, weight: 3 }] },
      ],
      [
        'a place by one of another kind',
        { payload: { regions: { plant: { box: [0, 0, 1, 1] } } } },
        { regions: [SOFA, { name: 'plant', prompt: 'a plant', weight: 2, box: [0, 0, 1, 1] }] },
      ],
      ['no region', { payload: { regions: { sofa: null } } }, { regions: [PLANT] }],
      [
        'one more region',
        { payload: { regions: { lamp: { prompt: 'a lamp', box: [0, 0, 0.2, 0.2] } } } },
        { regions: [SOFA, PLANT, { prompt: 'a lamp', box: [0, 0, 0.2, 0.2], name: 'lamp' }] },
      ],
      [
        'JSON text, as from MQTT',
        { payload: Buffer.from('\ufeff{"prompt": "a garden", "regions": {"sofa": null}}') },
        { prompt: 'a garden', regions: [PLANT] },
      ],
    ];
    for (const [name, msg, expected] of cases) {
      it(name, async () => {
        const flow = await startFlow([compose()]);
        const { payload, prompt, negativePrompt } = await flow.ok('compose', msg);
        assert.deepEqual(payload, { prompt: 'a living room', regions: [SOFA, PLANT], ...expected });
        assert.deepEqual([prompt, negativePrompt], [undefined, undefined], 'used up');
      });
    }

    it('a region without a name is called by its number', async () => {
      const { name: _, ...unnamed } = PLANT;
      const flow = await startFlow([compose({ regions: [SOFA, unnamed] })]);
      const { payload } = await flow.ok('compose', { payload: { regions: { 'region 2': { prompt: 'a tree' } } } });
      assert.deepEqual(payload.regions, [SOFA, { ...unnamed, prompt: 'a tree' }]);
    });

    it('what means nothing is a finding', async () => {
      const flow = await startFlow([compose()]);
      const { findings } = await flow.ok('compose', { payload: { promt: 'a kitchen', seed: 1 } });
      assert.deepEqual(findings, [
        { code: 'UNKNOWN_PROPERTY', message: 'Unknown in msg.payload, and ignored: promt.' },
      ]);
      assert.deepEqual(flow.warnings, ['Unknown in msg.payload, and ignored: promt.']);
    });

    it('takes nothing from where no layout comes from', async () => {
      const flow = await startFlow([compose()]);
      const payload = JSON.parse('{"__proto__": {"prompt": "x"}, "regions": {"__proto__": {"prompt": "y"}}}') as object;
      const failure = await flow.fails('compose', { payload });
      assert.match(failure.message, /payload\.regions\.__proto__ is "__proto__"; allowed: one of sofa, plant/);
      assert.equal(({} as Record<string, unknown>).prompt, undefined);
    });
  });

  describe('refuses', () => {
    const cases: Array<[string, object, object, RegExp]> = [
      [
        'an unknown region',
        {},
        { payload: { regions: { sofaa: { prompt: 'x' } } } },
        /payload\.regions\.sofaa is "sofaa"; allowed: one of sofa, plant, or a whole region/,
      ],
      ['to remove an unknown region', {}, { payload: { regions: { x: null } } }, /payload\.regions\.x is "x"/],
      [
        'a region that is no object',
        {},
        { payload: { regions: { sofa: 3 } } },
        /payload\.regions\.sofa is 3; allowed: an object/,
      ],
      [
        'regions that are none',
        {},
        { payload: { regions: 'sofa' } },
        /payload\.regions is "sofa"; allowed: regions by name/,
      ],
      [
        'an array without names',
        {},
        { payload: { regions: [{ prompt: 'x' }] } },
        /payload\.regions\[0\]\.name is undefined/,
      ],
      ['a width out of range', {}, { width: 3 }, /payload\.width is 3; allowed: a whole number from 16/],
      [
        'a place off the canvas',
        {},
        { payload: { regions: { sofa: { box: [2, 2, 1, 1] } } } },
        /payload\.regions\[0\]\.box/,
      ],
      ['half a layout', {}, { payload: '{"prompt": ' }, /payload/],
      ['a flow with wrong regions', { regions: 'all' }, {}, /regions is "all"; allowed: an array of regions/],
      ['a flow with a region without a place', { regions: [{ prompt: 'x' }] }, {}, /payload\.regions\[0\]\.box/],
    ];
    for (const [name, more, msg, reason] of cases) {
      it(name, async () => {
        const flow = await startFlow([compose(more)]);
        const failure = await flow.fails('compose', msg);
        assert.match(failure.message, reason);
        assert.ok(['INVALID_INPUT', 'MISSING_INPUT'].includes(failure.code), failure.code);
        assert.equal(failure.source.id, 'compose');
      });
    }
  });

  it('hands on what cancels, loads and unloads', async () => {
    const flow = await startFlow([compose(), out('spare')]);
    for (const msg of [{ reset: true }, { cancel: 'job' }, { load: true }, { unload: true }]) {
      const received = await flow.ok('compose', { ...msg, payload: 'kept' });
      assert.equal(received.payload, 'kept');
    }
  });
});

/** Split and Gather as the editor does them, without the editor. */
describe('rows of a compose node', function () {
  this.timeout(60_000);
  afterEach(stopFlow);
  after(closeModels);

  interface Rows {
    toRows(
      layout: object,
      place: object,
      newId: () => string,
      defaultsOf: (type: string) => Record<string, unknown>,
    ): Array<FlowNode & { wires: string[][] }>;
    toLayout(chain: FlowNode[]): { layout: object };
  }
  // eslint-disable-next-line @typescript-eslint/no-require-imports
  const part = <T>(name: string): T => require(path.join(ROOT, 'resources/composer', name)) as T;
  for (const name of ['geometry.js', 'layout.js', 'mask.js']) part(name);
  const { toRows, toLayout } = part<Rows>('rows.js');

  /** Eight by eight pixels, white in the lower half. */
  const MASK =
    'data:image/png;base64,' +
    'iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAEElEQVR4nGNgIAL8hwI8DA' +
    'A+Jh/hM0WysAAAAABJRU5ErkJggg==';
  const LAYOUTS: Array<[string, { prompt: string; regions: object[]; [option: string]: unknown }]> = [
    [
      'boxes and ellipses, weights and edges',
      { prompt: 'a room', seed: 5, regions: [SOFA, { ...PLANT, feather: 0.1 }] },
    ],
    [
      'negative words, of the picture and of a region',
      {
        prompt: 'a room',
        negativePrompt: 'a cat',
        seed: 6,
        regions: [SOFA, { ...PLANT, negativePrompt: 'a dog', start: 0.2, end: 0.9, guidanceScale: 2, seed: 9 }],
      },
    ],
    [
      'a polygon, a painted mask and the rest, without words for the whole',
      {
        prompt: '',
        width: 96,
        height: 64,
        seed: 7,
        regions: [
          {
            prompt: 'a roof',
            polygon: [
              [0, 0],
              [1, 0],
              [0.5, 0.6],
            ],
            bootstrap: false,
          },
          { prompt: '', image: MASK },
          { prompt: 'the sky', rest: true },
        ],
      },
    ],
  ];
  for (const [name, layout] of LAYOUTS) {
    it(`draw the same latents to the last bit, and so does the node they are gathered into: ${name}`, async () => {
      let count = 0;
      const rows = toRows(
        { negativePrompt: '', ...layout },
        { model: 'model', x: 1, y: 1, z: 'tab' },
        () => `row${++count}`,
        () => ({}),
      );
      const gathered = toLayout(rows);
      assert.ok('layout' in gathered, JSON.stringify(gathered));
      rows.at(-1)!.wires = [['sampler']];
      const flow = await startFlow([
        model('model', TINY_LCM),
        { ...compose({ width: '', height: '', seed: '', ...layout }, 'encode') },
        encode('encode', '', 'sampler'),
        ...rows,
        { ...compose({ width: '', height: '', seed: '', ...gathered.layout }, 'encode'), id: 'gathered' },
        sampler('sampler', 'out', { steps: 3, bootstrapping: 0.5, seed: '1' }),
      ]);
      const composed = await flow.ok('compose', {});
      const split = await flow.ok(rows[0].id, {});
      const again = await flow.ok('gathered', {});
      assert.equal(composed.generation.seed, layout.seed);
      assert.ok(bytes(composed.latents).some((byte) => byte !== 0));
      assert.deepEqual(bytes(split.latents), bytes(composed.latents));
      assert.deepEqual(bytes(again.latents), bytes(composed.latents));
    });
  }
});
