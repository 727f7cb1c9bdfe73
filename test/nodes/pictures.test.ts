/** Pictures that go in: to start from, to keep, behind regions; and those that come out on the way. */
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { lookAt } from '../../dist/nodes/shared/gallery';
import sharp from 'sharp';
import { Tensor } from '../../dist/engine';
import { decodeMask } from '../../dist/engine/image/mask';
import {
  closeModels,
  encode,
  model,
  out,
  region,
  sampler,
  startFlow,
  stopFlow,
  TINY_LCM,
  type FlowNode,
  type Message,
} from './support/flow';

const LEFT = [0, 0, 0.5, 1];
const vaeEncode = (next: string, more = {}): FlowNode => ({
  id: 'encode-image',
  type: 'vae-encode',
  model: 'model',
  wires: [[next]],
  ...more,
});
const bytes = (tensor: { buffer: ArrayBuffer }): Buffer => Buffer.from(tensor.buffer);

/** Red, brighter to the right. */
function photo(width: number, height: number): Tensor<'uint8'> {
  const data = Uint8Array.from({ length: width * height * 3 }, (_, i) =>
    i % 3 === 0 ? 100 + Math.floor((100 * (Math.floor(i / 3) % width)) / width) : 30,
  );
  return Tensor.uint8(data, [height, width, 3]);
}
const png = ({ data, dims }: Tensor<'uint8'>): Promise<Buffer> =>
  sharp(data, { raw: { width: dims[1], height: dims[0], channels: 3 } })
    .png()
    .toBuffer();

describe('pictures', function () {
  this.timeout(60_000);
  afterEach(stopFlow);
  after(closeModels);

  it('become latents, from a tensor, a file or a data URI alike', async () => {
    const flow = await startFlow([model('model', TINY_LCM), vaeEncode('out', { width: '128', height: '64' })]);
    const image = photo(128, 64);
    const file = await png(image);
    const results: Message[] = [];
    for (const msg of [
      { image },
      { payload: file },
      { payload: `data:image/png;base64,${file.toString('base64')}` },
      { image: file, payload: 'kept' },
    ]) {
      results.push(await flow.ok('encode-image', { topic: 'kept', ...msg }));
    }
    for (const msg of results) {
      assert.deepEqual(msg.initialImage.dims, [1, 4, 8, 16]);
      assert.deepEqual([msg.width, msg.height, msg.topic], [128, 64, 'kept']);
      assert.equal(msg.image, undefined);
      assert.ok(bytes(msg.initialImage).equals(bytes(results[0].initialImage)));
    }
    assert.equal(results[1].payload, undefined);
    assert.equal(results[3].payload, 'kept');
  });

  it('of a file in node leave no name for the picture that is drawn from them', async () => {
    const flow = await startFlow([model('model', TINY_LCM), vaeEncode('out', { width: '64', height: '64' })]);
    const file = await png(photo(64, 64));
    const filename = '/photos/holiday.png';
    for (const payload of [file, new Uint8Array(file), file.toString('base64')])
      assert.equal((await flow.ok('encode-image', { payload, filename })).filename, undefined);
    // A tensor came from no file: its name is one to save under.
    assert.equal((await flow.ok('encode-image', { image: photo(64, 64), filename })).filename, filename);
  });

  it('are scaled to fill the canvas, which fits the model', async () => {
    const flow = await startFlow([model('model', TINY_LCM), vaeEncode('out')]);
    const tall = await flow.ok('encode-image', { image: photo(100, 300), width: 130, height: '60' });
    assert.deepEqual([tall.width, tall.height], [128, 64]);
    assert.deepEqual(tall.initialImage.dims, [1, 4, 8, 16]);
  });

  it('are refused with a reason', async () => {
    const flow = await startFlow([model('model', TINY_LCM), vaeEncode('out')], {
      multidiffusion: { maxMaskPixels: 10_000 },
    });
    const cases: Array<[Message, string, RegExp]> = [
      [{}, 'MISSING_INPUT', /image.*msg\.payload/],
      [{ payload: 12 }, 'INVALID_INPUT', /payload/],
      [
        { payload: 'a photo' },
        'INVALID_INPUT',
        /payload is "a photo"; allowed: a PNG, JPEG, WebP or GIF file as bytes, as a data URI or as Base64/,
      ],
      [{ payload: Buffer.from('no picture') }, 'INVALID_INPUT', /payload.*a PNG, JPEG/],
      [{ payload: (await png(photo(9, 9))).subarray(0, 60) }, 'INVALID_INPUT', /payload.*a whole PNG/],
      [{ payload: Buffer.from('0000001866747970686569630000', 'hex') }, 'INVALID_INPUT', /payload is "HEIC"/],
      [
        { payload: Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>') },
        'INVALID_INPUT',
        /PNG, JPEG, WebP or GIF/,
      ],
      [
        { payload: await png(photo(200, 100)) },
        'LIMIT',
        /payload has 20000 pixels \(200x100\); allowed: up to 10000 pixels \(multidiffusion\.maxMaskPixels in settings\.js\)/,
      ],
      [{ image: Tensor.float32([1], [1]) }, 'INVALID_INPUT', /image.*uint8/],
      [{ image: photo(8, 8), width: 'wide' }, 'INVALID_INPUT', /width/],
    ];
    for (const [msg, code, reason] of cases) {
      const error = await flow.fails('encode-image', msg);
      assert.equal(error.code, code, error.message);
      assert.match(error.message, reason);
    }
  });

  it('are where the sampler starts, and stay where no region is', async () => {
    const flow = await startFlow([
      model('model', TINY_LCM),
      vaeEncode('encode'),
      encode('encode', 'a red sofa', 'region'),
      region('region', LEFT, 'sampler'),
      sampler('sampler', 'out', { steps: 4, keepBackground: true, strength: '0.5' }),
      sampler('free', 'out', { steps: 4 }),
    ]);
    const start = { image: photo(128, 128), width: 128, height: 128 };
    const kept = await flow.ok('encode-image', { ...start });
    assert.equal(kept.initialImage, undefined, 'it has been used');
    const { strength, startedFromImage, stepMode } = kept.generation;
    assert.deepEqual(
      { strength, startedFromImage, stepMode },
      { strength: 0.5, startedFromImage: true, stepMode: 'built-in' },
    );
    await stopFlow();

    const parts = await startFlow([
      model('model', TINY_LCM),
      vaeEncode('out'),
      sampler('free', 'out', { steps: 4, width: '', height: '' }),
    ]);
    const { initialImage } = await parts.ok('encode-image', { ...start });
    const [before, after] = [initialImage.data as Float32Array, kept.latents.data as Float32Array];
    let changed = 0;
    before.forEach((value, i) => {
      if (i % 16 >= 8) assert.equal(after[i], value);
      else if (after[i] !== value) changed++;
    });
    assert.ok(changed > 400);

    const distance = async (strength: number): Promise<number> => {
      const { latents } = await parts.ok('free', { ...start, initialImage, strength });
      return (latents.data as Float32Array).reduce((sum, value, i) => sum + Math.abs(value - before[i]), 0);
    };
    assert.ok((await distance(0.25)) < (await distance(1)));
    const error = await parts.fails('free', { initialImage, width: 64, height: 128 });
    assert.match(error.message, /initialImage is .*\[1, 4, 16, 16\].*\[1, 4, 16, 8\]/);
    assert.equal((await parts.fails('free', { keepBackground: true })).code, 'MISSING_INPUT');
    assert.match(
      (await parts.fails('free', { initialImage: 'a photo' })).message,
      /initialImage is "a photo"; allowed: a PNG, JPEG/,
    );

    const [fromLatents, fromPicture, fromFile] = [initialImage, start.image, await png(start.image)].map((image) => ({
      width: 128,
      height: 128,
      initialImage: image,
    }));
    const latents = bytes((await parts.ok('free', fromLatents)).latents);
    assert.ok(latents.equals(bytes((await parts.ok('free', fromPicture)).latents)));
    assert.ok(latents.equals(bytes((await parts.ok('free', fromFile)).latents)));
  });

  it('stand behind bootstrapped regions', async () => {
    const flow = await startFlow([
      model('model', TINY_LCM),
      encode('encode', 'a red sofa', 'region'),
      region('region', LEFT, 'sampler'),
      sampler('sampler', 'out', { bootstrapping: 1 }),
    ]);
    const latents = async (msg: Message): Promise<Buffer> => bytes((await flow.ok('encode', msg)).latents);
    const green = photo(16, 16);
    const random = await latents({});
    const pictured = await latents({ bootstrappingBackground: 'image', bootstrappingImage: green });
    const file = await latents({ bootstrappingBackground: 'image', bootstrappingImage: await png(green) });
    const coloured = await latents({ bootstrappingBackground: 'colour', bootstrappingColour: '#00ff00' });
    assert.ok(pictured.equals(file));
    assert.ok(!pictured.equals(random) && !pictured.equals(coloured) && !coloured.equals(random));
    assert.equal((await flow.fails('encode', { bootstrappingBackground: 'image' })).code, 'MISSING_INPUT');
    assert.match(
      (await flow.fails('encode', { bootstrappingBackground: 'colour', bootstrappingColour: 'green' })).message,
      /#rrggbb/,
    );
    assert.match(
      (await flow.fails('encode', { bootstrappingBackground: 'image', bootstrappingImage: 'green' })).message,
      /bootstrappingImage/,
    );
  });

  it('a photograph of 24 megapixels: to start from, behind regions, and as a mask', async () => {
    const half = { create: { width: 6000, height: 2000, channels: 3 as const, background: 'white' } };
    const file = await sharp({ create: { width: 6000, height: 4000, channels: 3, background: 'black' } })
      .composite([{ input: half, left: 0, top: 0 }])
      .withMetadata({ orientation: 3 })
      .jpeg()
      .toBuffer();
    const flow = await startFlow([
      model('model', TINY_LCM),
      vaeEncode('encode'),
      encode('encode', 'a red sofa', 'region'),
      region('region', LEFT, 'sampler', { shape: 'image', imageType: 'msg', image: 'mask' }),
      sampler('sampler', 'out', { bootstrapping: 1, bootstrappingBackground: 'image' }),
    ]);
    const { latents, generation } = await flow.ok('encode-image', {
      image: file,
      bootstrappingImage: file,
      mask: file,
    });
    const side = latents.dims[3];
    assert.deepEqual(latents.dims, [1, 4, side, side]);
    // Turned by half: what was white above is below.
    const mask = await decodeMask(generation.regions[0].image, 'mask', { maxPixels: 1e7, maxBytes: 1e7 });
    assert.deepEqual(mask.dims, [1, 683, 1024]);
    assert.deepEqual([mask.data[0], mask.data.at(-1)], [0, 1]);
  });

  it('come as previews every so many steps', async () => {
    const flow = await startFlow([
      model('model', TINY_LCM),
      encode('encode', 'a red sofa', 'sampler'),
      sampler('sampler', 'out', { steps: 5, previewEvery: '2', wires: [['out'], [], ['progress'], ['preview']] }),
      out('preview'),
    ]);
    const plain = await flow.ok('encode', { previewEvery: 0 });
    assert.deepEqual(flow.all('preview'), []);
    const { latents, job } = await flow.ok('encode', { topic: 'mine' });
    assert.ok(bytes(latents).equals(bytes(plain.latents)), 'looking changes nothing');
    const previews = flow.all('preview');
    assert.deepEqual(
      previews.map(({ index, total }) => [index, total]),
      [
        [2, 5],
        [4, 5],
      ],
    );
    for (const preview of previews) {
      assert.deepEqual([preview.job, preview.topic], [job, 'mine']);
      const { format, width, height } = await sharp(preview.payload).metadata();
      assert.deepEqual([format, width, height], ['png', 16, 16]);
    }
  });

  it("are shown with the job in the editor's panel", async () => {
    // eslint-disable-next-line @typescript-eslint/no-require-imports -- of the Node-RED under test
    const { events } = createRequire(require.resolve(process.env.NODE_RED ?? 'node-red'))('@node-red/util') as {
      events: NodeJS.EventEmitter;
    };
    const told: Message[] = [];
    const seen: Buffer[] = [];
    const listen = ({ topic, data, retain }: Message): void => {
      if (topic !== 'multidiffusion/job') return;
      told.push({ ...data, retain });
      if (data.event === 'step') void lookAt(data.node, data.job).then((png) => png && seen.push(png));
    };
    events.on('comms', listen);
    try {
      const flow = await startFlow([
        model('model', TINY_LCM),
        encode('encode', 'a red sofa', 'sampler'),
        sampler('sampler', 'out', { steps: 50, width: '256', height: '256', previewEvery: 2 }),
      ]);
      const { job } = await flow.ok('encode', {});
      await flow.fails('encode', { steps: 0 });
      assert.deepEqual(
        told.map(({ event }) => event).filter((event) => event !== 'step'),
        ['queued', 'started', 'done', 'failed'],
      );
      const steps = told.filter(({ event }) => event === 'step');
      assert.equal(steps.at(-1)?.index, 50);
      assert.ok(told.every(({ node, retain }) => node === 'sampler' && !retain));
      assert.ok(told.slice(0, -1).every((news) => news.job === job));
      // An editor asks for the picture itself, and only while somebody looks.
      assert.ok(told.every((news) => !JSON.stringify(news).includes('data:image')));
      assert.ok(seen.length > 0, 'a running job can be looked at');
      assert.equal((await sharp(seen[0]).metadata()).format, 'png');
      assert.equal(await lookAt('sampler', job), undefined, 'a job that is done can not');
      assert.match(told.at(-1)!.error, /steps is 0/);
    } finally {
      events.off('comms', listen);
    }
  });

  it('close into a full circle', async () => {
    const flow = await startFlow([
      model('model', TINY_LCM),
      encode('encode', 'a red sofa', 'sampler'),
      sampler('sampler', 'out', { width: '256', circular: true }),
      { id: 'decode', type: 'vae-decode', model: 'model', wires: [['out']] },
    ]);
    const msg = await flow.ok('encode', {});
    assert.equal(msg.circular, true);
    const { latents } = msg;
    const moved = Tensor.float32(
      (latents.data as Float32Array).map((_, i, all) => all[i - (i % 32) + (((i % 32) + 16) % 32)]),
      latents.dims,
    );
    const pixels = async (more: Message): Promise<Uint8Array> => (await flow.ok('decode', more)).image.data;
    const seam = async (circular: boolean): Promise<number> => {
      const [still, round] = [await pixels({ latents, circular }), await pixels({ latents: moved, circular })];
      // The columns beside the edge lie in the middle of the other picture.
      return Math.max(...[0, 1, 2, 3].map((x) => Math.abs(still[x * 3] - round[(128 + x) * 3])));
    };
    assert.ok((await seam(true)) <= 2);
    assert.ok((await seam(false)) > (await seam(true)));
  });
});
