/** What other programs and forms write, and how it is understood. */
import assert from 'node:assert/strict';
import sharp from 'sharp';
import { SCHEDULER_NAMES } from '../../dist/engine/options';
import {
  closeModels,
  encode,
  model,
  region,
  sampler,
  startFlow,
  stopFlow,
  type Any,
  type Flow,
  type FlowNode,
} from './support/flow';

const nodes: FlowNode[] = [
  model(),
  encode('encode', '', 'sampler'),
  sampler('sampler', 'out'),
  sampler('sourced', 'out', { seed: 'given', seedType: 'msg' }),
  encode('words', '', 'out'),
  encode('masked', 'a sofa', 'region'),
  region('region', [0, 0, 0.5, 0.5], 'out'),
  encode('saved', '', 'drawn'),
  sampler('drawn', 'decode'),
  { id: 'decode', type: 'vae-decode', model: 'model', wires: [['save']] },
  { id: 'save', type: 'save-image', wires: [['out']] },
  {
    id: 'compose',
    type: 'compose',
    prompt: 'a room',
    seed: 5,
    regions: [{ name: 'sofa', prompt: 'a sofa', box: [0, 0, 0.5, 0.5] }],
    wires: [['encode']],
  },
];

describe('what the trade writes', function () {
  this.timeout(30_000);
  let flow: Flow;
  before(async () => {
    flow = await startFlow(nodes);
  });
  after(stopFlow);
  after(closeModels);

  describe('a seed of -1', () => {
    const places: Array<[string, string, (seed: unknown) => Any]> = [
      ['in a message', 'encode', (seed) => ({ prompt: 'a', seed })],
      ['in a layout', 'encode', (seed) => ({ payload: { prompt: 'a', seed } })],
      ['in a layout as text', 'encode', (seed) => ({ payload: JSON.stringify({ prompt: 'a', seed }) })],
      ['over the one of compose', 'compose', (seed) => ({ payload: { seed } })],
      ['where the sampler takes it from', 'sourced', (given) => ({ given })],
    ];
    for (const [place, start, messageOf] of places)
      for (const seed of [-1, '-1'])
        it(`${place}, ${typeof seed}: another picture each time, and its seed is reported`, async () => {
          const made = [];
          for (let i = 0; i < 3; i++) made.push((await flow.ok(start, messageOf(seed))).generation.seed as number);
          assert.equal(new Set(made).size, 3, made.join());
          assert.ok(made.every((number) => Number.isInteger(number) && number >= 0));
          assert.equal((await flow.ok(start, messageOf(9))).generation.seed, 9);
        });

    it('of a region is none', async () => {
      const box = [0, 0, 0.5, 0.5];
      const draw = async (more: object): Promise<Any> =>
        flow.ok('encode', { payload: { prompt: 'a', seed: 4, regions: [{ prompt: 'b', box, ...more }] } });
      const [without, minus, seven] = [await draw({}), await draw({ seed: -1 }), await draw({ seed: 7 })];
      assert.deepEqual(minus.latents.data, without.latents.data);
      assert.notDeepEqual(seven.latents.data, without.latents.data);
      assert.equal('seed' in minus.regions[0], false);
    });

    it('is the only negative one', async () => {
      for (const seed of [-2, -1.5, '-1x'])
        assert.match((await flow.fails('encode', { prompt: 'a', seed })).message, /seed is .*from 0 to/);
    });
  });

  describe('the name of a sampler', () => {
    const names: Array<[string, (typeof SCHEDULER_NAMES)[number]]> = [
      ['Euler', 'EulerDiscreteScheduler'],
      ['Euler a', 'EulerAncestralDiscreteScheduler'],
      ['euler_ancestral', 'EulerAncestralDiscreteScheduler'],
      ['DPM++ 2M', 'DPMSolverMultistepScheduler'],
      ['DPM++ 2M Karras', 'DPMSolverMultistepScheduler'],
      ['dpmpp_2m_karras', 'DPMSolverMultistepScheduler'],
      ['Heun', 'HeunDiscreteScheduler'],
      ['UniPC', 'UniPCMultistepScheduler'],
      ['PLMS', 'PNDMScheduler'],
      ['ddim', 'DDIMScheduler'],
      ['LCM', 'LCMScheduler'],
      ['eulerancestraldiscretescheduler', 'EulerAncestralDiscreteScheduler'],
    ];
    for (const [name, scheduler] of names)
      it(`${name} is ${scheduler}`, async () => {
        for (const msg of [
          { prompt: 'a', scheduler: name, steps: 5 },
          { payload: { prompt: 'a', scheduler: name, steps: 5 } },
        ])
          assert.equal((await flow.ok('encode', msg)).generation.scheduler, scheduler);
      });
  });

  describe('what a node further on would refuse', () => {
    for (const msg of [{ format: 'bmp' }, { quality: 101 }, { tileSize: 'x' }, { filename: '../x' }])
      it(`${JSON.stringify(msg)} is refused before anything is drawn`, async () => {
        const [name] = Object.keys(msg);
        const error = await flow.fails('sampler', { ...msg, job: name });
        assert.equal(error.source.id, 'sampler');
        assert.match(error.message, new RegExp(`^${name} is`));
        const events = flow.all('progress').filter(({ payload }) => payload.job === name);
        assert.deepEqual(
          events.map(({ payload }) => payload.event),
          ['failed'],
        );
      });
  });

  it('a box that reaches over the canvas is drawn, with a finding', async () => {
    const payload = { prompt: 'a room', regions: [{ name: 'sofa', prompt: 'a sofa', box: [0.3, 0.5, 1, 2] }] };
    const { findings } = await flow.ok('encode', { payload });
    assert.ok(findings.some(({ code, region: name }: Any) => code === 'CUT_OFF' && name === 'sofa'));
    assert.equal(flow.statuses.filter(({ id }) => id === 'sampler').at(-1)!.fill, 'yellow');
  });

  it('a sampler without any prompt draws, with a finding', async () => {
    const { findings } = await flow.ok('sampler', {});
    assert.deepEqual(
      findings.map(({ code }: Any) => code),
      ['NO_PROMPT'],
    );
    assert.equal(flow.statuses.filter(({ id }) => id === 'sampler').at(-1)!.fill, 'yellow');
  });

  describe('the fields of a form', () => {
    const box = [0.25, 0.5, 0.5, 0.25];
    const polygon = [
      [0, 0],
      [1, 0],
      [0, 1],
    ];
    const one = { prompt: 'a sofa', box };
    const form = (regions: unknown): Any => ({ payload: { prompt: 'a room', regions } });
    const shapeOf = async (msg: Any): Promise<Any> => (await flow.ok('words', msg)).regions[0].shape;

    for (const [what, regions] of Object.entries({
      JSON: JSON.stringify([one]),
      'JSON with spaces': ` ${JSON.stringify([one], null, 2)}\n`,
      'JSON of a single one': JSON.stringify(one),
      'a single one': one,
      'a list of JSON': [JSON.stringify(one)],
      numbered: { 0: one },
      'numbered JSON': { 0: JSON.stringify(one) },
    }))
      it(`regions: ${what}`, async () => assert.deepEqual(await shapeOf(form(regions)), { box }));

    for (const regions of ['', '[]', [], {}])
      it(`regions: none by ${JSON.stringify(regions)}`, async () =>
        assert.deepEqual((await flow.ok('words', form(regions))).regions, []));

    for (const regions of ['[{', '{"prompt"', 'a sofa', 5, true])
      it(`regions: ${JSON.stringify(regions)} are refused by their name`, async () =>
        assert.match((await flow.fails('words', form(regions))).message, /^payload\.regions is/));

    for (const kind of ['box', 'ellipse'])
      for (const text of ['[0.25,0.5,0.5,0.25]', '0.25, 0.5, 0.5, 0.25', ' [ ".25", "0.5", "5e-1", "0.25" ] '])
        it(`${kind}: ${text}`, async () =>
          assert.deepEqual(await shapeOf(form([{ prompt: 'b', [kind]: text }])), { [kind]: box }));

    for (const value of [{ 0: 0.25, 1: 0.5, 2: 0.5, 3: 0.25 }, ['0.25', '0.5', '0.5', '0.25']])
      it(`box: ${JSON.stringify(value)}`, async () =>
        assert.deepEqual(await shapeOf(form([{ prompt: 'b', box: value }])), { box }));

    for (const value of [JSON.stringify(polygon), '[0,0],[1,0],[0,1]', { 0: ['0', '0'], 1: [1, 0], 2: { 0: 0, 1: 1 } }])
      it(`polygon: ${JSON.stringify(value)}`, async () =>
        assert.deepEqual(await shapeOf(form([{ prompt: 'b', polygon: value }])), { polygon }));

    it('fields left empty are not there, and the rest may be on', async () => {
      const empty = { box: '', ellipse: ' ', polygon: '', image: '' };
      assert.deepEqual(await shapeOf(form([{ prompt: 'b', ...empty, rest: 'on' }])), { rest: true });
      assert.deepEqual(await shapeOf(form([{ prompt: 'b', ...empty, rest: 'true' }])), { rest: true });
      assert.deepEqual(await shapeOf(form([{ prompt: 'b', ...empty, rest: 'false', box }])), { box });
    });

    for (const text of ['left', '0.1,0.2', '[0.1,0.2', '0,0,"a",1'])
      it(`box: ${text} is refused by its name`, async () =>
        assert.match(
          (await flow.fails('words', form([{ prompt: 'b', box: text }]))).message,
          /^payload\.regions\[0\]\.box/,
        ));

    it('msg.box and msg.region of region-mask, and the regions of compose', async () => {
      const text = JSON.stringify(box);
      assert.deepEqual((await flow.ok('masked', { box: text })).regions[0].shape, { box });
      assert.deepEqual((await flow.ok('masked', { region: { ellipse: text } })).regions[0].shape, { ellipse: box });
      const msg = await flow.ok('compose', { payload: { regions: JSON.stringify([{ name: 'sofa', box: text }]) } });
      assert.deepEqual(msg.regions[0].shape, { box });
    });
  });

  it('a layout without a prompt names the missing property and the unknown ones', async () => {
    for (const payload of [
      { promt: 'a room' },
      JSON.stringify({ promt: 'a room' }),
      Buffer.from('{"promt": "a room"}'),
    ]) {
      const error = await flow.fails('words', { payload });
      assert.equal(error.code, 'MISSING_INPUT');
      assert.match(error.message, /payload\.prompt/);
      assert.match(error.message, /promt/);
    }
  });

  describe('a picture where words are expected', () => {
    const png = async (): Promise<Buffer> =>
      sharp({ create: { width: 64, height: 64, channels: 3, background: 'red' } })
        .png()
        .toBuffer();
    const forms: Array<[string, (file: Buffer) => unknown]> = [
      ['bytes', (file) => file],
      ['a typed array', (file) => new Uint8Array(file)],
      ['what JSON makes of a Buffer', (file) => JSON.parse(JSON.stringify(file)) as unknown],
      ['Base64', (file) => file.toString('base64')],
      ['a data URI', (file) => `data:image/png;base64,${file.toString('base64')}`],
      ['a data URI with a parameter', (file) => ` data:image/png;name=a.png;base64,${file.toString('base64')}`],
    ];
    for (const [form, made] of forms) {
      it(`as ${form}: its recipe is drawn`, async () => {
        const { payload } = await flow.ok('saved', { prompt: 'a sofa', seed: 11, steps: 2 });
        const { generation } = await flow.ok('encode', { payload: made(payload as Buffer) });
        assert.deepEqual([generation.prompt, generation.seed, generation.steps], ['a sofa', 11, 2]);
      });

      it(`as ${form} without a recipe: it is no prompt`, async () => {
        const error = await flow.fails('words', { payload: made(await png()) });
        assert.equal(error.code, 'MISSING_INPUT');
        assert.match(error.message, /holds no recipe/);
      });
    }
  });
});
