/** Checkpoint folders with what is no file, or no number; and places for images that change under one's hands. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import fsp from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { openCheckpoint, torchNoise } from '../../dist/engine';
import { readLayout } from '../../dist/engine/checkpoint/layout';
import { ONNX } from '../../dist/engine/onnx/header';
import { bytesField, textField } from '../../dist/engine/onnx/protobuf';
import { saveFile } from '../../dist/nodes/save-image/save';
import { copyCheckpoint } from './support/checkpoints';
import { field, rewrite } from './support/onnx';

const posix = process.platform !== 'win32';
/** Each is read before anything is loaded, but the last, which the inference process reads. */
const FILES = [
  'model_index.json',
  'vocabulary.json',
  'scheduler/scheduler_config.json',
  'unet/config.json',
  'unet/model.onnx',
  'unet/weights.pb',
  'tokenizer/vocab.json',
  'tokenizer/tokenizer_config.json',
  'tokenizer/special_tokens_map.json',
  'tokenizer/added_tokens.json',
  'tokenizer/merges.txt',
];

describe('a checkpoint folder of others', function () {
  this.timeout(30_000);
  let folder: string;
  beforeEach(() => (folder = copyCheckpoint('tiny-sd2')));
  afterEach(() => fs.rmSync(folder, { recursive: true }));

  const refused = async (pattern: RegExp): Promise<void> => {
    await assert.rejects(openCheckpoint(folder, { provider: 'cpu', threads: 1 }), (error: Error & { code: string }) => {
      assert.equal(error.code, 'CHECKPOINT', error.message);
      assert.match(error.message, pattern);
      assert.ok(error.message.length < 2000);
      return true;
    });
  };
  const edit = (file: string, change: object): void => {
    const place = path.join(folder, file);
    const json = fs.existsSync(place) ? (JSON.parse(fs.readFileSync(place, 'utf8')) as object) : {};
    fs.writeFileSync(place, JSON.stringify({ ...json, ...change }));
  };

  if (posix) {
    const kinds: Record<string, (place: string) => void> = {
      'a named pipe': (place) => void execFileSync('mkfifo', [place]),
      'a link to /dev/zero': (place) => fs.symlinkSync('/dev/zero', place),
      'a folder': (place) => fs.mkdirSync(place),
    };
    for (const [what, make] of Object.entries(kinds)) {
      it(`${what} in the place of any file: refused at once, by its name`, async () => {
        for (const file of FILES) {
          const place = path.join(folder, file);
          const kept = fs.existsSync(place) ? fs.readFileSync(place) : undefined;
          fs.rmSync(place, { force: true });
          make(place);
          await refused(new RegExp(`${file.replaceAll('.', '\\.')} cannot be used: it is no regular file`));
          fs.rmSync(place, { recursive: true });
          if (kept) fs.writeFileSync(place, kept);
        }
      });
    }
  }

  it('a model of millions of parts, or of a graph without end: refused', async () => {
    const place = path.join(folder, 'unet/model.onnx');
    fs.writeFileSync(place, Buffer.alloc(4_000_000, Buffer.from([0x3a, 0])));
    await refused(/unet.model\.onnx is damaged: it has more than 1000000 parts/);
    const node = bytesField(ONNX.graph.node, textField(ONNX.node.input, 'x'.repeat(60_000)));
    const nodes = Array.from({ length: 1200 }, () => node);
    fs.writeFileSync(place, bytesField(ONNX.model.graph, ...nodes));
    await refused(/unet.model\.onnx is damaged: its graph has more than 67108864 bytes without its weights/);
  });

  it('a configuration or a vocabulary that is too long: refused unread', async () => {
    for (const file of ['model_index.json', 'vocabulary.json', 'scheduler/scheduler_config.json', 'unet/config.json']) {
      const place = path.join(folder, file);
      const kept = fs.existsSync(place) ? fs.readFileSync(place) : undefined;
      fs.writeFileSync(place, JSON.stringify({ words: ['x'.repeat(2 ** 20)] }));
      await refused(/has \d+ bytes, and 1048576 are read at most/);
      if (kept) fs.writeFileSync(place, kept);
      else fs.rmSync(place);
    }
  });

  it('numbers out of range: refused, naming the field', async () => {
    const wrong: Array<[string, object, RegExp]> = [
      ['unet/config.json', { sample_size: 1e9 }, /sample_size of .* is 1000000000/],
      ['vae_decoder/config.json', { scaling_factor: 1e300 }, /scaling_factor of/],
      ['vae_decoder/config.json', { scaling_factor: 0.18, shift_factor: 1e300 }, /shift_factor of/],
    ];
    for (const [file, change, pattern] of wrong) {
      const place = path.join(folder, file);
      const kept = fs.existsSync(place) ? fs.readFileSync(place) : undefined;
      edit(file, change);
      await refused(pattern);
      if (kept) fs.writeFileSync(place, kept);
      else fs.rmSync(place);
    }
  });

  it('a name that is a path, or no name, becomes a name', async () => {
    const names: Array<[string, string]> = [
      ['C:\\Users\\someone\\models\\my model', 'my model'],
      ['\\\\server\\share\\model', 'model'],
      ['/home/someone/model/', 'model'],
      ['C:\\models\\', 'models'],
      [`<img src=x>${'x'.repeat(100_000)}`, 'x'.repeat(200)],
      ['a\u0000b\nc', 'abc'],
    ];
    for (const [stated, name] of names) {
      edit('model_index.json', { _name_or_path: stated });
      const { name: shown } = await readLayout(folder);
      assert.ok(shown === name || (shown.length === 200 && shown.length === name.length), shown.slice(0, 50));
      assert.ok(!/[\\/]/.test(shown));
    }
    for (const stated of ['/', '\\', '', '   ']) {
      edit('model_index.json', { _name_or_path: stated });
      assert.equal((await readLayout(folder)).name, path.basename(folder));
    }
  });

  it('a UNet whose answer has another shape: told when it first runs', async () => {
    const place = path.join(folder, 'unet/model.onnx');
    // The output becomes the sum of the sample, one number.
    const model = fs.readFileSync(place);
    const reduce = field(1, Buffer.concat([field(1, 'sample'), field(2, 'out_sample'), field(4, 'ReduceSum')]));
    const unet = rewrite(model, [7], (graph) =>
      Buffer.concat([
        rewrite(
          rewrite(graph, [1, 2], (name) => renamed(name)),
          [1, 1],
          (name) => renamed(name),
        ),
        reduce,
      ]),
    );
    fs.writeFileSync(place, unet);
    const checkpoint = await openCheckpoint(folder, { provider: 'cpu', threads: 1 });
    try {
      const [{ embeddings }] = await checkpoint.encodePrompts(['a sofa']);
      const latents = torchNoise(1, [1, 4, 8, 8]);
      await assert.rejects(
        checkpoint.predict([{ latents, embeddings }], 500),
        (error: { code: string; message: string }) => {
          assert.equal(error.code, 'CHECKPOINT', error.message);
          assert.match(error.message, /answers with \[.*\] where \[1, 4, 8, 8\] is expected/);
          return true;
        },
      );
    } finally {
      await checkpoint.close();
    }
  });
});

function renamed(name: Buffer): Buffer {
  return name.toString() === 'out_sample' ? Buffer.from('out_sample_inner') : name;
}

describe('places for images', function () {
  this.timeout(30_000);
  let base: string;
  beforeEach(() => (base = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'places-')))));
  afterEach(() => fs.rmSync(base, { recursive: true }));
  const save = (filename: string, generation: object = {}, bytes = 'x', folder = ''): Promise<string> =>
    saveFile(Buffer.from(bytes), 'png', { folder, filename, overwrite: false }, base, generation);

  it('a fixed name is saved again and again without trying all the names before', async () => {
    const real = fsp.link;
    let links = 0;
    fsp.link = (async (...args: Parameters<typeof real>) => {
      links++;
      return real(...args);
    }) as typeof real;
    try {
      for (let i = 0; i < 200; i++) await save('same');
    } finally {
      fsp.link = real;
    }
    assert.equal(fs.readdirSync(base).length, 200);
    assert.ok(links <= 210, `${links} names were tried`);
    assert.ok(fs.existsSync(path.join(base, 'same-200.png')));
  });

  it('values are no patterns', async () => {
    const names = [
      await save('{prompt}', { prompt: '{counter}' }),
      await save('{prompt}', { prompt: '{counter} {seed}', seed: 7 }),
      await save('a-{counter}-{prompt}', { prompt: '{counter}' }),
    ].map((file) => path.basename(file));
    assert.deepEqual(names, ['_counter_.png', '_counter_-_seed_.png', 'a-0001-_counter_.png']);
  });

  it('without hard links every picture that is reported is there', async () => {
    const real = fsp.link;
    for (const code of ['EPERM', 'ENOTSUP', 'ENOSYS']) {
      fsp.link = () => Promise.reject(Object.assign(new Error(code), { code }));
      try {
        const saved = await Promise.all(Array.from({ length: 40 }, (_, i) => save('fat', {}, `${code} ${i}`)));
        assert.equal(new Set(saved).size, 40);
        const contents = new Set(saved.map((file) => fs.readFileSync(file, 'utf8')));
        assert.equal(contents.size, 40);
      } finally {
        fsp.link = real;
      }
    }
    assert.deepEqual(
      fs.readdirSync(base).filter((name) => name.endsWith('.part')),
      [],
    );
  });

  it('a name that is none is refused', async () => {
    for (const name of ['.', './', '/', './.']) {
      await assert.rejects(save(name, {}, 'x', 'folder'), { code: 'INVALID_INPUT' });
    }
    assert.deepEqual(fs.readdirSync(base), []);
  });

  if (posix) {
    it('a folder that becomes a link while an image is written: nothing is reported that landed elsewhere', async () => {
      const outside = fs.mkdtempSync(path.join(os.tmpdir(), 'outside-'));
      const real = fsp.link;
      fsp.link = (async (...args: Parameters<typeof real>) => {
        const place = path.join(base, 'swapped');
        if (!fs.existsSync(`${place}.kept`)) {
          fs.cpSync(place, outside, { recursive: true });
          fs.renameSync(place, `${place}.kept`);
          fs.symlinkSync(outside, place);
        }
        return real(...args);
      }) as typeof real;
      try {
        await assert.rejects(save('x', {}, 'x', 'swapped'), { code: 'FILE' });
        assert.deepEqual(fs.readdirSync(outside), []);
      } finally {
        fsp.link = real;
        fs.rmSync(outside, { recursive: true });
      }
    });
  }
});
