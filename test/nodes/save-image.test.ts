import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { Tensor } from '../../dist/engine';
import { encodeImage } from '../../dist/engine/image/encode';
import { cleanName } from '../../dist/nodes/shared/files';
import { startFlow, stopFlow, temporaryDirectory, type Flow, type FlowNode, type Message } from './support/flow';

const image = Tensor.uint8(
  Uint8Array.from({ length: 8 * 6 * 3 }, (_, i) => i),
  [6, 8, 3],
);
const save = (more = {}): FlowNode => ({
  id: 'save',
  type: 'save-image',
  filename: 'picture',
  save: true,
  wires: [['out']],
  ...more,
});

describe('save-image', function () {
  this.timeout(20_000);
  let base: string;
  let flow: Flow;
  const start = async (more = {}): Promise<void> => {
    flow = await startFlow([save(more)], { multidiffusion: { imageDirectory: base } });
  };
  /** Every file below the parent of the base directory, so that one outside would be seen. */
  const files = (): string[] =>
    fs
      .readdirSync(path.dirname(base), { recursive: true, withFileTypes: true })
      .filter((entry) => !entry.isDirectory())
      .map((entry) => path.relative(base, path.join(entry.parentPath, entry.name)));

  beforeEach(() => {
    base = path.join(temporaryDirectory(), 'base');
  });
  afterEach(stopFlow);

  it('writes the bytes that it hands on', async () => {
    await start({ folder: 'a/b' });
    const msg = await flow.ok('save', { image });
    assert.equal(msg.filename, path.join(fs.realpathSync(base), 'a', 'b', 'picture.png'));
    assert.ok(fs.readFileSync(msg.filename).equals(msg.payload));
    const sharp = (await import('sharp')).default;
    assert.ok((await sharp(msg.payload).raw().toBuffer()).equals(Buffer.from(image.buffer)));
    assert.deepEqual(files(), ['a/b/picture.png']);
  });

  it('fills in date, time, seed and prompt, and cleans what they hold', async () => {
    await start({ folder: '{model}', filename: '{date} {time} {seed} {prompt} {width}x{height}' });
    const msg = await flow.ok('save', {
      image,
      generation: { seed: 7, prompt: '../../a "cat"\n:on a\u202emat', model: '../m', width: 8, height: 6 },
    });
    assert.match(
      path.relative(fs.realpathSync(base), msg.filename),
      /^_m\/\d{4}-\d\d-\d\d \d\d-\d\d-\d\d 7 \.\._\.\._a-_cat_-_on-a_mat 8x6\.png$/,
    );
    assert.equal(files().length, 1);
  });

  it('never overwrites, unless it may', async () => {
    await start();
    const names: string[] = [];
    for (let i = 0; i < 3; i++) names.push(path.basename((await flow.ok('save', { image })).filename));
    assert.deepEqual(names, ['picture.png', 'picture-2.png', 'picture-3.png']);
    await stopFlow();
    await start({ overwrite: true });
    assert.equal(path.basename((await flow.ok('save', { image })).filename), 'picture.png');
    assert.equal(files().length, 3);
  });

  it('counts on from the highest number, also when many come at once', async () => {
    fs.mkdirSync(base);
    fs.writeFileSync(path.join(base, 'n0041-x.png'), '');
    await start({ filename: 'n{counter}-x' });
    for (let i = 0; i < 10; i++) flow.send('save', { image });
    const names = [];
    for (let i = 0; i < 10; i++) names.push(path.basename((await flow.next()).filename));
    assert.deepEqual(
      names.sort(),
      Array.from({ length: 10 }, (_, i) => `n00${42 + i}-x.png`),
    );
  });

  it('takes the extension from the format', async () => {
    await start({ filename: 'cat.webp', quality: '50' });
    assert.equal(path.basename((await flow.ok('save', { image })).filename), 'cat.png');
    const jpeg = await flow.ok('save', { image, format: 'jpeg' });
    assert.equal(path.basename(jpeg.filename), 'cat.jpg');
    assert.equal(jpeg.headers['content-type'], 'image/jpeg');
    assert.equal(
      path.basename((await flow.ok('save', { image, format: 'webp', filename: 'dog' })).filename),
      'dog.webp',
    );
  });

  it('knows the format by its usual names', async () => {
    await start();
    for (const [format, extension, type] of [
      ['jpg', '.jpg', 'image/jpeg'],
      ['JPEG', '.jpg', 'image/jpeg'],
      ['Jpg', '.jpg', 'image/jpeg'],
      ['PNG', '.png', 'image/png'],
      ['WebP', '.webp', 'image/webp'],
    ]) {
      const msg = await flow.ok('save', { image, format });
      assert.equal(path.extname(msg.filename), extension);
      assert.equal(msg.headers['content-type'], type);
    }
    assert.match(
      (await flow.fails('save', { image, format: 'jp' })).message,
      /^format is "jp"; allowed: one of png, jpeg, webp/,
    );
  });

  it("saves twice in one flow: the first one's file name is not a wish for the second", async () => {
    flow = await startFlow(
      [
        save({ wires: [['save2']] }),
        save({ id: 'save2', filename: 'small', format: 'webp', folder: 'small', wires: [['out']] }),
      ],
      { multidiffusion: { imageDirectory: base } },
    );
    await flow.ok('save', { image });
    assert.deepEqual(files().sort(), ['picture.png', 'small/small.webp']);
  });

  it('without a file: bytes, a data URI, headers that fit', async () => {
    await start({ save: false, dataUri: true });
    const msg = await flow.ok('save', {
      image,
      headers: { 'content-length': '3', 'x-mine': 'kept', 'Content-Encoding': 'gzip', cookies: {} },
    });
    assert.deepEqual(msg.headers, { 'x-mine': 'kept', 'content-type': 'image/png' });
    assert.ok(Buffer.from(msg.dataUri.split(',')[1], 'base64').equals(msg.payload));
    assert.match(msg.dataUri, /^data:image\/png;base64,/);
    assert.equal(msg.filename, undefined);
    assert.deepEqual(files(), []);
  });

  it('keeps the base directory whatever the message says', async () => {
    const outside = temporaryDirectory();
    fs.mkdirSync(base);
    fs.symlinkSync(outside, path.join(base, 'link'));
    fs.writeFileSync(path.join(outside, 'victim.png'), 'untouched');
    fs.symlinkSync(path.join(outside, 'victim.png'), path.join(base, 'victim.png'));
    await start({ overwrite: true, filename: 'own' });
    const refused: Message[] = [
      { folder: '..' },
      { folder: '../outside' },
      { folder: 'a/../../outside' },
      { folder: 'a\\..\\..\\outside' },
      { folder: '/tmp' },
      { folder: outside },
      { folder: 'link' },
      { folder: 'link/deeper' },
      { folder: 'C:\\Windows' },
      { folder: '\\\\server\\share' + '/..' },
      { folder: 'nul\0l' },
      { folder: '．．/x' },
      { folder: '‥' },
      { folder: ['a'] },
      { folder: 'a/'.repeat(50) },
      { filename: '../escape' },
      { filename: `${outside}/escape.png` },
      { filename: '/etc/passwd' },
      { filename: 'a\0b' },
      { filename: { toString: 1 } },
      { filename: '{constructor}' },
      { filename: '{nothing}' },
    ];
    for (const place of refused) {
      // The picture is kept all the same, where the node itself would have put it.
      const msg = await flow.ok('save', { image, ...place });
      assert.equal(msg.filename, path.join(fs.realpathSync(base), 'own.png'), JSON.stringify(place));
      const [{ code, message }] = msg.findings as Array<{ code: string; message: string }>;
      assert.equal(code, 'OTHER_NAME');
      assert.match(message, /It was saved as own\.png\.$/);
      assert.ok(!message.includes(base), message);
      assert.ok(fs.readFileSync(msg.filename).equals(msg.payload));
    }
    const cleaned: Array<[string, RegExp]> = [
      ['CON', /^_CON\.png$/],
      ['com1.txt', /^_com1\.txt\.png$/],
      ['.hidden', /^hidden\.png$/],
      ['a:b*c?"<>|', /^a_b_c_____\.png$/],
      ['trailing. . ', /^trailing\.png$/],
      ['\u202egnp.exe', /^_gnp\.exe\.png$/],
      ['x'.repeat(3000), /^x{180}\.png$/],
      ['😀'.repeat(300), /^(😀){45}\.png$/],
      ['\ud800lone', /^_lone\.png$/],
      ['victim', /^victim\.png$/], // replaces the link, not what it points to
    ];
    for (const [filename, becomes] of cleaned) {
      const msg = await flow.ok('save', { image, filename });
      assert.match(path.basename(msg.filename), becomes);
      assert.equal(path.dirname(msg.filename), fs.realpathSync(base));
    }
    assert.equal(fs.readFileSync(path.join(outside, 'victim.png'), 'utf8'), 'untouched');
    assert.deepEqual(fs.readdirSync(outside), ['victim.png']);
    assert.ok(!files().some((file) => file.startsWith('..') || file.endsWith('.part')));
  });

  it('says what is wrong when the folder cannot be written', async () => {
    fs.writeFileSync(base, 'a file, not a folder');
    await start();
    const error = await flow.fails('save', { image });
    assert.equal(error.code, 'FILE');
    assert.ok(!error.message.includes(base), 'the path of the server stays here');
    assert.deepEqual(files(), ['']);
  });

  it('finds another place when a name is taken by a folder, or its own pattern means nothing', async () => {
    fs.mkdirSync(path.join(base, 'picture.png'), { recursive: true });
    for (const config of [{ overwrite: true }, { filename: '{nothing}' }, { folder: '..' }, { filename: '.' }]) {
      await start(config);
      const msg = await flow.ok('save', { image, generation: { seed: 7 } });
      assert.match(path.relative(fs.realpathSync(base), msg.filename), /^\d{4}-\d\d-\d\d-7(-\d)?\.png$/);
      assert.equal(msg.findings[0].code, 'OTHER_NAME');
      assert.equal(flow.warnings.length, 1);
      await stopFlow();
    }
    assert.equal(files().length, 4);
    assert.ok(!files().some((file) => file.endsWith('.part')));
  });

  it('takes a number for a name, and an empty one for none', async () => {
    await start();
    for (const [filename, becomes] of [
      [42, '42.png'],
      [0, '0.png'],
      ['', 'picture.png'],
      [null, 'picture-2.png'],
    ] as const) {
      const msg = await flow.ok('save', { image, filename });
      assert.equal(path.basename(msg.filename), becomes);
      assert.equal(msg.findings, undefined);
    }
  });

  it('gives Catch the file when the disk refuses it', async () => {
    fs.writeFileSync(base, 'a file, not a folder');
    await start();
    const msg = await flow.ask('save', { image });
    assert.equal(msg.error.code, 'FILE');
    assert.equal(msg.headers['content-type'], 'image/png');
    assert.ok((await import('sharp')).default(msg.payload).raw());
    assert.ok(Buffer.isBuffer(msg.payload));
  });

  it('tells what the recipe in the file lacks', async () => {
    await start();
    const regions = [{ prompt: 'a', box: [0, 0, 1, 1] }];
    const complete = await flow.ok('save', { image, generation: { prompt: 'p', seed: 1, regions } });
    assert.equal(complete.findings, undefined);
    const apart = await flow.ok('save', { image, generation: { prompt: 'p', startedFromImage: true } });
    assert.deepEqual(apart.findings, [
      { code: 'RECIPE_APART', message: 'The recipe in the file is without the picture that it was started from.' },
    ]);
    assert.deepEqual(flow.warnings, []);
    const lost = await flow.ok('save', { image, generation: { prompt: 'p', regions: [{ prompt: 'x'.repeat(2e6) }] } });
    assert.match(lost.findings[0].message, /without regions\[0\]\.prompt: too large/);
    assert.equal(flow.warnings.length, 1);
  });

  it('writes nothing of the message but the recipe', async () => {
    const bytes = await encodeImage(image, {
      format: 'png',
      quality: 90,
      recipe: {
        seed: 1,
        token: 'hunter2',
        path: '/home/me',
        prompt: 'cat',
        versions: { node: 'v20', 5: {} },
        regions: [{ prompt: 'x', folder: '/secret' }],
      },
    });
    assert.ok(!/hunter2|\/home\/me|\/secret/.test(bytes.toString('latin1')));
    assert.match(bytes.toString('latin1'), /"prompt":"cat"/);
  });

  it('cleans names so that they stay names', () => {
    for (const text of ['', '.', '..', '/', '\\', '\0', 'nul', 'NUL.txt', 'a/b', '. .', '\u2028', '\ud83d']) {
      const clean = cleanName(text);
      assert.ok(!/[/\\\0]/.test(clean) && clean !== '.' && clean !== '..', JSON.stringify(text));
    }
  });
});
