import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import {
  acquireCheckpoint,
  closeUnusedCheckpoints,
  openCheckpoint,
  Tensor,
  torchNoise,
  type Checkpoint,
  type MultiDiffusionError,
} from '../../dist/engine';
import { readModelFacts } from '../../dist/engine/checkpoint/model-facts';
import { readLayout } from '../../dist/engine/checkpoint/layout';
import { readOnnxHeader } from '../../dist/engine/onnx/header';
import { checkpointFolder, copyCheckpoint, isAlive, shareBeyond, until } from './support/checkpoints';

describe('checkpoint folder', () => {
  it('states the facts, or Stable Diffusion’s own', async () => {
    const factsOf = async (name: string) => {
      const { schedulerConfig, ...facts } = readModelFacts(await readLayout(checkpointFolder(name)), 'cpu');
      return { ...facts, scheduler: schedulerConfig._class_name };
    };
    const common = {
      latentChannels: 4,
      latentFactor: 8,
      scalingFactor: 0.18215,
      sizeMultiple: 16,
      maxTokens: 77,
      vocabulary: undefined,
      canEncodeImages: true,
      provider: 'cpu',
    };
    assert.deepEqual(await factsOf('tiny-sd2'), {
      ...common,
      name: 'tiny-sd2',
      nativeSize: 512,
      guidanceEmbedded: false,
      scheduler: 'DDIMScheduler',
    });
    assert.deepEqual(await factsOf('tiny-sd15-fp16'), {
      ...common,
      name: 'tiny-sd15-fp16',
      nativeSize: 512,
      guidanceEmbedded: false,
      scheduler: 'PNDMScheduler',
    });
    assert.deepEqual(await factsOf('tiny-lcm'), {
      ...common,
      name: 'tiny-lcm',
      nativeSize: 128,
      guidanceEmbedded: true,
      scheduler: 'LCMScheduler',
    });
  });

  it('reads types and ranks of a graph without loading it', async () => {
    const { inputs, outputs, externalData } = await readOnnxHeader(
      path.join(checkpointFolder('tiny-lcm'), 'unet/model.onnx'),
    );
    assert.deepEqual(
      inputs.map(({ name, type, shape }) => `${name} ${type} ${shape.length}`),
      ['sample float32 4', 'timestep int64 0', 'encoder_hidden_states float32 3', 'timestep_cond float32 2'],
    );
    assert.equal(outputs[0].shape[1], 4);
    assert.equal(externalData.size, 0);
    const { externalData: external } = await readOnnxHeader(path.join(checkpointFolder('tiny-sd2'), 'unet/model.onnx'));
    assert.deepEqual(
      [...external],
      [['weights.pb', fs.statSync(path.join(checkpointFolder('tiny-sd2'), 'unet/weights.pb')).size]],
    );
  });

  describe('that can’t work', () => {
    let folder: string;
    beforeEach(() => {
      folder = copyCheckpoint('tiny-sd2');
    });
    afterEach(() => fs.rmSync(folder, { recursive: true }));

    const refused = async (...patterns: RegExp[]): Promise<void> => {
      const error = await readLayout(folder).then(
        (layout) => readModelFacts(layout, 'cpu'),
        (reason: MultiDiffusionError) => reason,
      );
      assert.ok(error instanceof Error, 'it was accepted');
      assert.equal((error as MultiDiffusionError).code, 'CHECKPOINT');
      for (const pattern of patterns) assert.match(error.message, pattern);
    };
    const remove = (file: string): void => fs.rmSync(path.join(folder, file), { recursive: true });
    const write = (file: string, content: string | Buffer): void => fs.writeFileSync(path.join(folder, file), content);
    const read = (file: string): Buffer => fs.readFileSync(path.join(folder, file));

    for (const file of [
      'text_encoder/model.onnx',
      'unet/model.onnx',
      'unet/weights.pb',
      'vae_decoder/model.onnx',
      'vae_encoder/model.onnx',
      'tokenizer/vocab.json',
      'tokenizer/merges.txt',
      'scheduler/scheduler_config.json',
    ]) {
      it(`names the missing ${file}`, async () => {
        remove(file);
        await refused(new RegExp(`${file.replace('.', '\\.')} is missing`));
      });
      if (!file.endsWith('.txt')) {
        it(`names ${file} when it is cut short`, async () => {
          const content = read(file);
          write(file, content.subarray(0, Math.floor(content.length * 0.6)));
          await refused(new RegExp(`${file.replace('.', '\\.')} is damaged`));
        });
      }
    }

    it('names every problem at once', async () => {
      remove('unet/model.onnx');
      remove('tokenizer/vocab.json');
      await refused(/unet\/model\.onnx/, /vocab\.json/);
    });

    it('does not exist', async () => {
      await assert.rejects(readLayout(path.join(folder, 'nowhere')), {
        code: 'CHECKPOINT',
        message: /nowhere does not exist/,
      });
      await assert.rejects(readLayout(path.join(folder, 'model_index.json')), { code: 'CHECKPOINT' });
    });

    it('holds a web page instead of a model', async () => {
      write('unet/model.onnx', '<!DOCTYPE html><html><body>404</body></html>');
      await refused(/unet\/model\.onnx is damaged/, /Fetch/);
    });

    it('holds an empty file', async () => {
      write('unet/model.onnx', '');
      await refused(/unet\/model\.onnx is damaged/);
    });

    it('holds a Git LFS pointer', async () => {
      write('unet/model.onnx', 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n');
      await refused(/Git LFS pointer/, /git lfs pull/);
    });

    it('holds PyTorch weights', async () => {
      remove('unet/model.onnx');
      write('unet/diffusion_pytorch_model.safetensors', 'x');
      await refused(/PyTorch/, /optimum-cli export onnx/);
    });

    it('holds the model under another name', async () => {
      fs.renameSync(path.join(folder, 'unet/model.onnx'), path.join(folder, 'unet/unet.onnx'));
      await refused(/rename unet\.onnx/);
    });

    it('is made for TensorRT', async () => {
      fs.mkdirSync(path.join(folder, 'transformer.opt'));
      await refused(/TensorRT/, /optimum-cli export onnx/);
    });

    it('has another graph in the place of the UNet', async () => {
      fs.copyFileSync(path.join(folder, 'vae_decoder/model.onnx'), path.join(folder, 'unet/model.onnx'));
      await refused(/unet\/model\.onnx has no input timestep/);
    });

    it('keeps weights outside its folder', async () => {
      const model = read('unet/model.onnx');
      const at = model.indexOf('weights.pb');
      assert.ok(at > 0);
      for (let i = at; i >= 0; i = model.indexOf('weights.pb', i + 1)) model.write('../..//etc', i);
      write('unet/model.onnx', model);
      await refused(/outside its folder/);
    });

    it('lists its vocabulary in a way that isn’t understood', async () => {
      write('vocabulary.json', '["a"]');
      await refused(/vocabulary\.json/);
    });

    it('has a VAE that is normalised per channel, but not all of them', async () => {
      for (const config of [
        { latents_mean: [1, 2, 3, 4] },
        { latents_mean: [1, 2, 3], latents_std: [1, 1, 1] },
        { latents_mean: [1, 2, 3, 4], latents_std: [1, 1, 0, 1] },
        { latents_mean: 'a', latents_std: [1, 1, 1, 1] },
      ]) {
        write('vae_decoder/config.json', JSON.stringify(config));
        await assert.rejects(async () => readModelFacts(await readLayout(folder), 'cpu'), {
          code: 'CHECKPOINT',
          message: /latents_mean and latents_std should be two lists of 4 numbers/,
        });
      }
    });

    it('fails when ONNX Runtime refuses a model, and works once it is mended', async () => {
      const model = read('text_encoder/model.onnx');
      const broken = Buffer.from(model);
      for (let i = broken.indexOf('MatMul'); i >= 0; i = broken.indexOf('MatMul', i + 1)) broken.write('NoSuch', i);
      write('text_encoder/model.onnx', broken);
      const damaged = await openCheckpoint(folder, { provider: 'cpu' });
      try {
        await assert.rejects(damaged.encodePrompts(['a']), {
          code: 'CHECKPOINT',
          message: /text_encoder\/model\.onnx cannot be loaded/,
        });
      } finally {
        await damaged.close();
      }
      write('text_encoder/model.onnx', model);
      const mended = await openCheckpoint(folder, { provider: 'cpu' });
      try {
        assert.equal((await mended.encodePrompts(['a'])).length, 1);
      } finally {
        await mended.close();
      }
    });
  });

  it('takes files with byte order marks, and names a word that was added without its embedding', async () => {
    const folder = copyCheckpoint('tiny-sd2');
    const vocabulary = fs.readFileSync(path.join(folder, 'tokenizer/vocab.json'), 'utf8');
    const size = Object.keys(JSON.parse(vocabulary) as object).length;
    fs.writeFileSync(path.join(folder, 'text_encoder/config.json'), JSON.stringify({ vocab_size: size }));
    for (const file of ['text_encoder/config.json', 'tokenizer/vocab.json', 'scheduler/scheduler_config.json'])
      fs.writeFileSync(path.join(folder, file), `\uFEFF${fs.readFileSync(path.join(folder, file), 'utf8')}`);
    fs.writeFileSync(path.join(folder, 'tokenizer/added_tokens.json'), JSON.stringify({ '<cat-toy>': size }));
    const marked = await openCheckpoint(folder, { provider: 'cpu' });
    try {
      assert.equal((await marked.encodePrompts(['a sofa'])).length, 1);
      await assert.rejects(marked.encodePrompts(['a <cat-toy>']), {
        code: 'CHECKPOINT',
        message: new RegExp(`"<cat-toy>" the id ${size}, .* 0 to ${size - 1} only`),
      });
    } finally {
      await marked.close();
      fs.rmSync(folder, { recursive: true });
    }
  });

  it('may lack a VAE encoder', async () => {
    const folder = copyCheckpoint('tiny-sd2');
    fs.rmSync(path.join(folder, 'vae_encoder'), { recursive: true });
    const checkpoint = await openCheckpoint(folder, { provider: 'cpu' });
    try {
      assert.equal(checkpoint.facts.canEncodeImages, false);
      await assert.rejects(checkpoint.encodeImages([Tensor.uint8(new Uint8Array(3 * 64), [8, 8, 3])]), {
        code: 'CHECKPOINT',
      });
    } finally {
      await checkpoint.close();
      fs.rmSync(folder, { recursive: true });
    }
  });

  it('reports the words that a closed vocabulary lacks', async () => {
    const folder = copyCheckpoint('tiny-sd2');
    fs.writeFileSync(path.join(folder, 'vocabulary.json'), JSON.stringify({ words: ['a', 'Red', 'sofa'] }));
    const checkpoint = await openCheckpoint(folder, { provider: 'cpu' });
    try {
      assert.deepEqual(checkpoint.facts.vocabulary, ['a', 'red', 'sofa']);
      const { unknownWords } = await checkpoint.encodeConditioning('a red zebra on a sofa');
      assert.deepEqual(unknownWords, ['zebra', 'on']);
      assert.equal((await checkpoint.encodeConditioning('a sofa')).unknownWords, undefined);
    } finally {
      await checkpoint.close();
      fs.rmSync(folder, { recursive: true });
    }
  });
});

describe('execution provider', () => {
  it('auto says why it is not CUDA', async function () {
    const checkpoint = await openCheckpoint(checkpointFolder('tiny-sd2'));
    try {
      assert.match(checkpoint.facts.provider, /^(cuda:0|cpu \(no CUDA: .+\))$/);
      if (checkpoint.facts.provider.startsWith('cuda')) return;
      await assert.rejects(openCheckpoint(checkpointFolder('tiny-sd2'), { provider: 'cuda' }), {
        code: 'PROVIDER',
        message: /CUDA cannot be used: .+/,
      });
    } finally {
      await checkpoint.close();
    }
  });

  it('refuses options that make no sense', async () => {
    const folder = checkpointFolder('tiny-sd2');
    for (const options of [{ provider: 'tpu' }, { threads: 0 }, { threads: 1.5 }, { deviceId: -1 }]) {
      await assert.rejects(openCheckpoint(folder, options as object), { code: 'INVALID_INPUT' });
    }
  });
});

describe('checkpoint', () => {
  let checkpoint: Checkpoint;
  before(async () => {
    checkpoint = await openCheckpoint(checkpointFolder('tiny-sd2'), { provider: 'cpu', threads: 1 });
  });
  after(() => checkpoint.close());

  const decodeTiled = async (latents: Tensor, tileSize: number, circular?: boolean) =>
    checkpoint.decode(latents, { tileSize, overlap: tileSize / 4, circular });

  it('gives the same embeddings object for the same prompt', async () => {
    const [first, other, again] = await checkpoint.encodePrompts(['a sofa', 'a plant', 'a sofa']);
    assert.equal(first.embeddings, again.embeddings);
    assert.notEqual(first.embeddings, other.embeddings);
    const [later] = await checkpoint.encodePrompts(['a sofa']);
    assert.equal(later.embeddings, first.embeddings);
  });

  it('keeps the prompts used last', async () => {
    const [first] = await checkpoint.encodePrompts(['number 0']);
    await checkpoint.encodePrompts(Array.from({ length: 256 }, (_, i) => `number ${i}`));
    assert.equal((await checkpoint.encodePrompts(['number 0']))[0].embeddings, first.embeddings);
    await checkpoint.encodePrompts(Array.from({ length: 256 }, (_, i) => `other ${i}`));
    assert.notEqual((await checkpoint.encodePrompts(['number 0']))[0].embeddings, first.embeddings);
  });

  it('reports what a long prompt loses, however long it is', async () => {
    const words = Array.from({ length: 10_000 }, (_, i) => (i === 9_999 ? 'last' : 'very'));
    const [{ truncated, tokenIds }] = await checkpoint.encodePrompts([words.join(' ')]);
    assert.equal(tokenIds.length, 77);
    assert.match(truncated as string, /^very very/);
    const [huge] = await checkpoint.encodePrompts(['x'.repeat(20_000_000)]);
    assert.ok((huge.truncated as string).length < 1_000_000);
    await assert.rejects(checkpoint.encodePrompts([7 as unknown as string]), { code: 'INVALID_INPUT' });
  });

  it('gives each row the same output, whatever else is in the call', async () => {
    const prompts = await checkpoint.encodePrompts(['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j']);
    const rows = prompts.map(({ embeddings }, i) => ({ latents: torchNoise(i, [1, 4, 16, 16]), embeddings }));
    const together = await checkpoint.predict(rows, 300);
    for (const [i, row] of rows.entries()) {
      const [alone] = await checkpoint.predict([row], 300);
      assert.deepEqual(together[i].dims, [1, 4, 16, 16]);
      const off = Math.max(...alone.data.map((value, j) => Math.abs(value - together[i].data[j])));
      assert.ok(off < 1e-5, `row ${i} differs by ${off}`);
    }
    assert.deepEqual(await checkpoint.predict([], 300), []);
  });

  it('takes embeddings that came through a message', async () => {
    const [{ embeddings }] = await checkpoint.encodePrompts(['a sofa']);
    const clone = new Tensor(embeddings.dtype, embeddings.dims, embeddings.buffer.slice(0));
    const latents = torchNoise(3, [1, 4, 16, 16]);
    const [one, two] = await checkpoint.predict(
      [
        { latents, embeddings },
        { latents, embeddings: clone },
      ],
      10,
    );
    assert.deepEqual(one.data, two.data);
  });

  it('refuses rows that do not fit', async () => {
    const [{ embeddings }] = await checkpoint.encodePrompts(['a']);
    const rows = [16, 8].map((size) => ({ latents: torchNoise(1, [1, 4, size, size]), embeddings }));
    await assert.rejects(checkpoint.predict(rows, 1), { code: 'INVALID_INPUT' });
    const wrong = { latents: torchNoise(1, [1, 5, 16, 16]), embeddings };
    await assert.rejects(checkpoint.predict([wrong], 1), { code: 'INFERENCE', message: /unet/ });
    const bytes = Tensor.uint8(new Uint8Array(77 * 32), [1, 77, 32]);
    await assert.rejects(checkpoint.predict([{ latents: torchNoise(1, [1, 4, 16, 16]), embeddings: bytes }], 1), {
      code: 'INVALID_INPUT',
      message: /embeddings/,
    });
    const short = Tensor.float32(new Float32Array(77 * 16), [1, 77, 16]);
    await assert.rejects(checkpoint.predict([{ latents: torchNoise(1, [1, 4, 16, 16]), embeddings: short }], 1), {
      code: 'INFERENCE',
    });
  });

  it('decodes in tiles without a seam', async () => {
    // Three tiles a side. Noise, so that every tile has the statistics of the whole: this decoder normalises over
    // what it sees, and its weights are random.
    const latents = torchNoise(1, [1, 4, 48, 48]);
    const whole = await checkpoint.decode(latents, { tileSize: 48 });
    const tiled = await decodeTiled(latents, 24);
    assert.deepEqual(tiled.dims, whole.dims);
    assert.ok(
      meanDifference(tiled.data, whole.data) < 4,
      `differs by ${meanDifference(tiled.data, whole.data)} on average`,
    );
    assert.ok(
      steepestStep(tiled) < 1.05 * steepestStep(whole),
      `a step of ${steepestStep(tiled)}; the whole picture's steepest is ${steepestStep(whole)}`,
    );
  });

  it('decodes any shape, larger or smaller than a tile', async () => {
    for (const [height, width] of [
      [1, 1],
      [8, 40],
      [17, 23],
    ]) {
      const image = await decodeTiled(torchNoise(1, [1, 4, height, width]), 16);
      assert.deepEqual(image.dims, [height * 8, width * 8, 3]);
    }
  });

  it('decodes a panorama whose ends touch', async () => {
    const noise = torchNoise(5, [1, 4, 16, 32]);
    const image = await decodeTiled(noise, 16, true);
    assert.deepEqual(image.dims, [128, 256, 3]);
    const turned = Tensor.float32(
      noise.data.map((_, i) => noise.data[i - (i % 32) + (((i % 32) + 16) % 32)]),
      noise.dims,
    );
    const whole = await decodeTiled(turned, 64, true);
    const back = whole.data.map((_, i) => whole.data[i - (i % 768) + (((i % 768) + 384) % 768)]);
    assert.ok(meanDifference(back, (await decodeTiled(noise, 64, true)).data) < 6);
  });

  it('refuses latents that it can’t decode', async () => {
    for (const latents of [
      torchNoise(1, [4, 16, 16]),
      torchNoise(1, [2, 4, 16, 16]),
      torchNoise(1, [1, 3, 16, 16]),
      Tensor.uint8(new Uint8Array(1024), [1, 4, 16, 16]),
    ]) {
      await assert.rejects(checkpoint.decode(latents), { code: 'INVALID_INPUT', message: /latents/ });
    }
  });

  it('encodes pictures, one like many', async () => {
    const images = [0, 255].map((value) => Tensor.uint8(new Uint8Array(64 * 64 * 3).fill(value), [64, 64, 3]));
    const latents = await checkpoint.encodeImages(images);
    assert.deepEqual(
      latents.map(({ dims }) => dims),
      [
        [1, 4, 8, 8],
        [1, 4, 8, 8],
      ],
    );
    assert.deepEqual(
      (await checkpoint.encodeImages([images[1]]))[0].data,
      latents[1].data,
      'this exporter draws the latents at random; the mean is wanted',
    );
    assert.deepEqual(await checkpoint.encodeImages([]), []);
  });
});

function meanDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += Math.abs(a[i] - b[i]);
  return sum / a.length;
}

/** The largest mean step between two neighbouring rows or columns of pixels. */
function steepestStep({ data, dims: [height, width] }: Tensor): number {
  const rows = new Float64Array(height - 1);
  const columns = new Float64Array(width - 1);
  for (let y = 0; y < height - 1; y++) {
    for (let x = 0; x < width - 1; x++) {
      for (let c = 0; c < 3; c++) {
        const at = (y * width + x) * 3 + c;
        rows[y] += Math.abs(data[at + width * 3] - data[at]) / (3 * (width - 1));
        columns[x] += Math.abs(data[at + 3] - data[at]) / (3 * (height - 1));
      }
    }
  }
  return Math.max(...rows, ...columns);
}

describe('bundled model', () => {
  let pocket: Checkpoint;
  before(async () => {
    pocket = await openCheckpoint(path.join(__dirname, '../../models/pocket'), { provider: 'cpu' });
  });
  after(() => pocket.close());

  it('states its facts', () => {
    const { latentChannels, latentFactor, nativeSize, sizeMultiple, canEncodeImages, guidanceEmbedded } = pocket.facts;
    assert.deepEqual(
      { latentChannels, latentFactor, nativeSize, sizeMultiple, canEncodeImages, guidanceEmbedded },
      {
        latentChannels: 4,
        latentFactor: 4,
        nativeSize: 128,
        sizeMultiple: 16,
        canEncodeImages: true,
        guidanceEmbedded: false,
      },
    );
  });

  it('knows the words of the living room, and tells those that it doesn’t', async () => {
    const words = async (prompt: string) => (await pocket.encodeConditioning(prompt)).unknownWords;
    assert.equal(await words('a living room, a red sofa, a plant and a painting'), undefined);
    assert.deepEqual(await words('a red quasar'), ['quasar']);
  });

  it('draws on every canvas that its facts allow', async () => {
    const [{ embeddings }] = await pocket.encodePrompts(['']);
    for (const [height, width] of [
      [16, 16],
      [48, 112],
      [128, 240],
    ]) {
      const dims = [1, 4, height / 4, width / 4];
      const [output] = await pocket.predict([{ latents: torchNoise(1, dims), embeddings }], 500);
      assert.deepEqual(output.dims, dims);
    }
  });

  it('is decoded in tiles as it is whole', async () => {
    const latents = torchNoise(1, [1, 4, 48, 80]);
    const whole = await pocket.decode(latents, { tileSize: 80 });
    const tiled = await pocket.decode(latents, { tileSize: 24, overlap: 8 });
    assert.equal(shareBeyond(tiled.data, whole.data, 2), 0);
  });

  it('turns a picture into latents and back', async () => {
    const grey = Tensor.uint8(new Uint8Array(64 * 64 * 3).fill(160), [64, 64, 3]);
    const [latents] = await pocket.encodeImages([grey]);
    const back = await pocket.decode(latents);
    assert.ok(meanDifference(back.data, grey.data) < 12, `off by ${meanDifference(back.data, grey.data)}`);
  });
});

describe('shared checkpoints', () => {
  const folder = checkpointFolder('tiny-sd2');

  it('are loaded once, and linger until their time is over', async () => {
    const first = acquireCheckpoint(folder, { provider: 'cpu', linger: 50 });
    const second = acquireCheckpoint(`${folder}/`, { provider: 'cpu', linger: 50 });
    const other = acquireCheckpoint(folder, { provider: 'cpu', threads: 1, linger: 50 });
    const checkpoint = await first.get();
    assert.equal(await second.get(), checkpoint);
    assert.notEqual(await other.get(), checkpoint);
    const pid = checkpoint.pid as number;

    first.release();
    first.release();
    second.release();
    const third = acquireCheckpoint(folder, { provider: 'cpu', linger: 50 });
    assert.equal(await third.get(), checkpoint);
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.ok(isAlive(pid), 'it was closed while somebody held it');

    third.release();
    await until(() => !isAlive(pid), 'the process ends');
    other.release();
    await closeUnusedCheckpoints();
    await assert.rejects(third.get(), { code: 'CANCELLED' });
  });

  it('are tried again after a failure', async () => {
    const copy = copyCheckpoint('tiny-sd2');
    const statuses: string[] = [];
    const lease = acquireCheckpoint(copy, { provider: 'cpu', onStatus: ({ state }) => statuses.push(state) });
    try {
      fs.renameSync(path.join(copy, 'unet'), path.join(copy, 'unet.away'));
      await assert.rejects(lease.get(), { code: 'CHECKPOINT' });
      fs.renameSync(path.join(copy, 'unet.away'), path.join(copy, 'unet'));
      await lease.get();
      assert.deepEqual(statuses, ['stopped', 'failed', 'starting', 'ready']);
    } finally {
      lease.release();
      await closeUnusedCheckpoints();
      fs.rmSync(copy, { recursive: true });
    }
  });
});
