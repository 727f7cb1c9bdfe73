import assert from 'node:assert/strict';
import { readRecipe } from '../../dist/engine/image/metadata';
import { readPngText } from '../../dist/engine/image/png';
import { openCheckpoint, sample, type Checkpoint } from '../../dist/engine';
import {
  closeModels,
  encode,
  model,
  region,
  sampler,
  startFlow,
  stopFlow,
  TINY_LCM,
  type FlowNode,
  type Message,
} from './support/flow';

const SOFA = [0, 0.5, 0.5, 0.5];
const PLANT = [0.5, 0, 0.5, 0.5];
const decode = (next: string): FlowNode => ({ id: 'decode', type: 'vae-decode', model: 'model', wires: [[next]] });
const save = (more = {}): FlowNode => ({ id: 'save', type: 'save-image', save: false, wires: [['out']], ...more });
const bytes = (tensor: { buffer: ArrayBuffer }): Buffer => Buffer.from(tensor.buffer);

describe('flows', function () {
  this.timeout(20_000);
  afterEach(stopFlow);
  after(closeModels);

  it('make a picture from one prompt, step by step, with status and progress', async () => {
    const flow = await startFlow([
      model(),
      encode('encode', 'a red sofa', 'sampler'),
      sampler('sampler', 'decode'),
      decode('save'),
      save(),
    ]);
    const msg = await flow.ok('encode', { topic: 'kept', payload: 1700000000000 });
    assert.equal(msg.topic, 'kept');
    assert.deepEqual(msg.latents.dims, [1, 4, 16, 16]);
    assert.deepEqual(msg.image.dims, [128, 128, 3]);
    assert.equal(msg.image.dtype, 'uint8');
    assert.equal(msg.headers['content-type'], 'image/png');
    assert.equal(msg.filename, undefined);
    assert.equal(msg.generation.seed, 7);
    assert.equal(msg.generation.prompt, 'a red sofa');
    assert.equal(msg.generation.model, 'tiny-sd2');
    const events = flow.all('progress').map((event) => event.payload);
    assert.deepEqual(
      events.map(({ event }) => event),
      ['queued', 'started', 'step', 'step', 'done'],
    );
    assert.ok(events.every(({ job }) => job === msg.job));
    assert.deepEqual([events[3].index, events[3].total], [2, 2]);
    const texts = flow.statuses.filter(({ id }) => id === 'sampler').map(({ text }) => text ?? '');
    assert.match(texts.at(-2)!, /^2\/2 · [\d.]+\/s$/);
    assert.ok(flow.statuses.every(({ text }) => (text ?? '').length <= 25));
  });

  it('compute what the engine computes', async () => {
    const flow = await startFlow([
      model('model', TINY_LCM),
      encode('encode', 'a room', 'encode2', { negativePrompt: 'blurry', negativePromptType: 'str' }),
      encode('encode2', 'a red sofa', 'region'),
      region('region', SOFA, 'sampler', { weight: '2', feather: 0.1, seed: '3', bootstrap: true }),
      sampler('sampler', 'out', { steps: 3, bootstrapping: '0.4', guidanceScale: '6' }),
    ]);
    const msg = await flow.ok('encode', {});
    const checkpoint: Checkpoint = await openCheckpoint(TINY_LCM, { provider: 'cpu', threads: 1 });
    try {
      const { latents } = await sample(checkpoint, {
        background: await checkpoint.encodeConditioning('a room', 'blurry'),
        regions: [{ ...msg.regions[0], conditioning: await checkpoint.encodeConditioning('a red sofa') }],
        options: { width: 128, height: 128, steps: 3, seed: 7, bootstrapping: 0.4, guidanceScale: 6 },
      });
      assert.ok(bytes(msg.latents).equals(bytes(latents)));
    } finally {
      await checkpoint.close();
    }
  });

  it('give one result for a chain, for branches brought together by Join, and for a layout', async () => {
    const chain = await startFlow([
      model(),
      encode('encode', 'a room', 'encode1'),
      encode('encode1', 'a red sofa', 'region1'),
      region('region1', SOFA, 'encode2', { regionName: 'sofa' }),
      encode('encode2', 'a plant', 'region2'),
      region('region2', PLANT, 'sampler', { regionName: 'plant' }),
      sampler('sampler', 'out'),
    ]);
    const chained = await chain.ok('encode', {});
    assert.deepEqual(
      chained.regions.map(({ name }: Message) => name),
      ['sofa', 'plant'],
    );
    assert.equal(chained.background.prompt, 'a room');
    assert.equal(chained.conditioning, undefined);
    await stopFlow();

    const branches = await startFlow([
      model(),
      { ...encode('encode', 'a room', ''), wires: [['encode1', 'encode2']] },
      encode('encode1', 'a red sofa', 'region1'),
      region('region1', SOFA, 'join'),
      encode('encode2', 'a plant', 'region2'),
      region('region2', PLANT, 'join'),
      {
        id: 'join',
        type: 'join',
        mode: 'custom',
        build: 'array',
        property: 'regions',
        propertyType: 'msg',
        count: '2',
        wires: [['sampler']],
      },
      sampler('sampler', 'out'),
    ]);
    const joined = await branches.ok('encode', {});
    assert.ok(bytes(joined.latents).equals(bytes(chained.latents)));
    await stopFlow();

    const layout = {
      prompt: 'a room',
      regions: [
        { name: 'sofa', prompt: 'a red sofa', box: SOFA },
        { prompt: 'a plant', box: PLANT.map(String) },
      ],
      width: '128',
      seed: '7',
    };
    for (const between of [true, false]) {
      const flow = await startFlow([
        model(),
        encode('encode', '', between ? 'region' : 'sampler'),
        ...(between ? [region('region', [0, 0, 1, 1], 'sampler')] : []),
        sampler('sampler', 'out', { seedType: 'random' }),
      ]);
      for (const payload of [layout, JSON.stringify(layout), Buffer.from(JSON.stringify(layout))]) {
        const laidOut = await flow.ok('encode', { payload });
        assert.deepEqual(
          laidOut.regions.map(({ name }: Message) => name),
          ['sofa', 'region 2'],
        );
        assert.equal(laidOut.seed, '7');
        assert.equal(laidOut.payload, undefined);
        assert.deepEqual(laidOut.layout, payload);
        assert.ok(bytes(laidOut.latents).equals(bytes(chained.latents)));
      }
      await stopFlow();
    }
  });

  it('take every outline, in the node and in the message', async () => {
    const shapes: Array<[Message, Message]> = [
      [{ shape: 'ellipse', box: SOFA }, { ellipse: SOFA }],
      [
        {
          shape: 'polygon',
          points: [
            [0, 0],
            [1, 0],
            [0, 1],
          ],
        },
        {
          polygon: [
            [0, 0],
            [1, 0],
            [0, 1],
          ],
        },
      ],
      [
        { shape: 'box', box: PLANT },
        { shape: 'box', box: PLANT },
      ],
    ];
    for (const [configuration, message] of shapes) {
      const flow = await startFlow([
        model(),
        encode('encode', 'a sofa', 'region'),
        region('region', [0, 0, 1, 1], 'out', configuration),
        region('other', [0, 0, 1, 1], 'out'),
      ]);
      const [drawn] = (await flow.ok('encode', {})).regions;
      const encoded = await flow.ok('encode', {});
      const [sent] = (
        await flow.ok('other', {
          conditioning: encoded.regions[0].conditioning,
          region: { ...message, name: 'sent', weight: 3 },
        })
      ).regions;
      assert.ok(bytes(drawn.mask).equals(bytes(sent.mask)));
      assert.deepEqual(drawn.shape, sent.shape);
      assert.deepEqual([sent.name, sent.weight], ['sent', 3]);
      await stopFlow();
    }
  });

  it('make the rest of what the other regions leave, wherever it stands', async () => {
    const flow = await startFlow([
      model(),
      encode('encode', 'a meadow', 'rest'),
      region('rest', [], 'encode2', { shape: 'rest' }),
      encode('encode2', 'a house', 'house'),
      region('house', [0, 0, 0.5, 1], 'sampler'),
      sampler('sampler', 'out'),
    ]);
    const { regions } = await flow.ok('encode', {});
    const { data, dims } = regions[0].mask;
    assert.equal(data[0], 0);
    assert.equal(data[dims[2] - 1], 1);
  });

  it('prefer the message, then the node, then the default', async () => {
    const flow = await startFlow([
      model(),
      encode('encode', 'from the node', 'sampler'),
      sampler('sampler', 'out', { steps: 3, guidanceScale: '' }),
    ]);
    const said = await flow.ok('encode', { prompt: 'from the message', steps: '1', seed: 9 });
    assert.deepEqual([said.generation.prompt, said.generation.steps, said.generation.seed], ['from the message', 1, 9]);
    assert.equal(said.prompt, undefined, 'msg.prompt is used up');
    const unsaid = await flow.ok('encode', { payload: 'not this' });
    assert.deepEqual(
      [unsaid.generation.prompt, unsaid.generation.steps, unsaid.generation.guidanceScale],
      ['from the node', 3, 7.5],
    );
    await stopFlow();

    const named = await startFlow([
      model(),
      encode('encode', 'words.here', 'out', { promptType: 'msg' }),
      encode('plain', '', 'out'),
    ]);
    assert.equal(
      (await named.ok('encode', { words: { here: 'from a property' } })).conditioning.prompt,
      'from a property',
    );
    assert.equal((await named.ok('plain', { payload: 'from the payload' })).conditioning.prompt, 'from the payload');
  });

  it('draw a seed at random, and report it', async () => {
    const flow = await startFlow([
      model(),
      encode('encode', 'a sofa', 'sampler'),
      sampler('sampler', 'out', { seedType: 'random' }),
    ]);
    const [one, two] = [await flow.ok('encode', {}), await flow.ok('encode', {})];
    assert.ok(Number.isInteger(one.generation.seed));
    assert.notEqual(one.generation.seed, two.generation.seed);
    const again = await flow.ok('encode', { seed: one.generation.seed });
    assert.ok(bytes(again.latents).equals(bytes(one.latents)));
  });

  it('say which words were cut off', async () => {
    const flow = await startFlow([model(), encode('encode', `${'sofa '.repeat(100)}banana`, 'out')]);
    const msg = await flow.ok('encode', {});
    assert.match(msg.conditioning.truncated, /banana/);
    assert.equal(msg.findings[0].code, 'TRUNCATED_PROMPT');
    assert.ok(flow.warnings.some((warning) => /too long/.test(warning)));
    assert.equal(flow.statuses.at(-1)!.fill, 'yellow');
  });

  it('say which properties of a layout mean nothing, and go on', async () => {
    const flow = await startFlow([model(), encode('encode', '', 'sampler'), sampler('sampler', 'out')]);
    const payload = { prompt: 'a room', stpes: 3, regions: [{ prompt: 'a sofa', box: SOFA, wieght: 2 }] };
    const msg = await flow.ok('encode', { payload });
    const [finding] = msg.findings.filter(({ code }: Message) => code === 'UNKNOWN_PROPERTY');
    assert.match(finding.message, /Unknown in the layout, and ignored: stpes, regions\[0\]\.wieght\./);
    assert.ok(flow.warnings.some((warning) => /wieght/.test(warning)));
    await stopFlow();

    const other = await startFlow([model(), encode('encode', 'a sofa', 'region'), region('region', SOFA, 'out')]);
    const placed = await other.ok('encode', { region: { fether: 0.1 } });
    assert.deepEqual(placed.findings, [
      { code: 'UNKNOWN_PROPERTY', message: 'Unknown in msg.region, and ignored: fether.' },
    ]);
  });

  it('find nothing unknown in a recipe, which says more than a layout needs', async () => {
    const flow = await startFlow([model(), encode('encode', '', 'sampler'), sampler('sampler', 'out')]);
    const msg = await flow.ok('encode', { payload: { prompt: 'a room', regions: [{ prompt: 'a sofa', box: SOFA }] } });
    const again = await flow.ok('encode', { payload: msg.generation });
    assert.deepEqual(
      again.findings.filter(({ code }: Message) => code === 'UNKNOWN_PROPERTY'),
      [],
    );
  });

  it('take words from a Buffer, as MQTT brings them', async () => {
    const flow = await startFlow([model(), encode('encode', '', 'out')]);
    const msg = await flow.ok('encode', { payload: Buffer.from('\ufeffa red sofa') });
    assert.equal(msg.conditioning.prompt, 'a red sofa');
    const layout = await flow.ok('encode', { payload: Buffer.from('\ufeff\n{"prompt": "a room"}') });
    assert.equal(layout.background.prompt, 'a room');
  });

  it('round the canvas to what the model can draw, and say so', async () => {
    const flow = await startFlow([
      model(),
      encode('encode', 'a sofa', 'sampler'),
      sampler('sampler', 'out', { width: 130 }),
    ]);
    const msg = await flow.ok('encode', {});
    assert.equal(msg.generation.width, 128);
    assert.ok(msg.findings.some(({ code }: Message) => code === 'ROUNDED_SIZE'));
    assert.ok(flow.warnings.some((warning) => /width 130/.test(warning)));
  });

  it('write the recipe into the file, from which the same picture comes again, bit for bit', async () => {
    const sharp = (await import('sharp')).default;
    const mask = await sharp({ create: { width: 40, height: 30, channels: 3, background: 'black' } })
      .composite([
        { input: { create: { width: 10, height: 30, channels: 3, background: '#c0c0c0' } }, left: 0, top: 0 },
      ])
      .png()
      .toBuffer();
    const nodes = [
      model('model', TINY_LCM),
      encode('encode', 'a “room”, ünlit', 'encode1', { negativePrompt: 'blur' }),
      encode('encode1', 'a red sofa', 'region1', { negativePrompt: 'legs' }),
      region('region1', SOFA, 'encode2', {
        shape: 'ellipse',
        feather: '0.1',
        guidanceScale: '7',
        start: '0',
        end: '0.9',
      }),
      encode('encode2', 'a plant', 'region2'),
      region('region2', [], 'sampler', {
        shape: 'image',
        image: 'mask',
        imageType: 'msg',
        weight: 2,
        bootstrap: false,
      }),
      sampler('sampler', 'decode', { steps: 3, fusion: 'last', bootstrapping: 0.5 }),
      decode('save'),
      save(),
      encode('again', '', 'sampler2'),
      sampler('sampler2', 'decode', { width: '', height: '', steps: 30, seedType: 'random', guidanceScale: 2 }),
    ];
    const flow = await startFlow(nodes);
    for (const format of ['png', 'jpeg', 'webp']) {
      const first = await flow.ok('encode', { mask, format, secret: 'hunter2' });
      const recipe = (await readRecipe(first.payload))!;
      assert.equal(recipe.prompt, 'a “room”, ünlit');
      assert.equal(recipe.regions!.length, 2);
      assert.ok(!JSON.stringify(recipe).includes('hunter2') && !JSON.stringify(recipe).includes('fixtures'));
      const second = await flow.ok('again', { payload: first.payload, format });
      assert.ok(bytes(second.latents).equals(bytes(first.latents)), format);
      assert.ok(bytes(second.image).equals(bytes(first.image)));
      if (format === 'png') {
        const { parameters } = await readPngText(first.payload);
        assert.match(
          parameters,
          /^a “room”, ünlit\nNegative prompt: blur\nSteps: 3, Sampler: LCM, CFG scale: 8, Seed: 7, Size: 128x128, Model: tiny-lcm/,
        );
      }
    }
  });
});
