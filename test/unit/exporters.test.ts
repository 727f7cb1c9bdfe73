/** One small checkpoint as every exporter would write it: what comes out must be the same. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { openCheckpoint, Tensor, type Checkpoint } from '../../dist/engine';
import { readModelFacts, readVaeFacts } from '../../dist/engine/checkpoint/model-facts';
import { readLayout } from '../../dist/engine/checkpoint/layout';
import { BatchMemory } from '../../dist/engine/inference/process/batching';
import { predict } from '../../dist/engine/inference/process/denoiser';
import { halfToFloat } from '../../dist/engine/inference/process/float16';
import type { ProcessSetup } from '../../dist/engine/inference/protocol';
import { Sessions } from '../../dist/engine/inference/process/sessions';
import { checkpointFolder, copyCheckpoint, difference, goldenResult, shareBeyond } from './support/checkpoints';
import { retypeInput, retypeOutput, rewrite, type ElementType } from './support/onnx';

type Dims = Array<number | string>;

const result = goldenResult('tiny-sd2-results/txt2img');
const folders: string[] = [];
const copy = (): string => {
  folders.push(copyCheckpoint('tiny-sd2'));
  return folders.at(-1) as string;
};
after(() => folders.forEach((folder) => fs.rmSync(folder, { recursive: true })));

/** Changes a model of the folder. */
const edit = (folder: string, component: string, change: (model: Buffer) => Buffer): void => {
  const file = path.join(folder, component, 'model.onnx');
  fs.writeFileSync(file, change(fs.readFileSync(file)));
};
const writeJson = (folder: string, file: string, content: object): void =>
  fs.writeFileSync(path.join(folder, file), JSON.stringify(content));
const readJson = (folder: string, file: string): Record<string, unknown> =>
  JSON.parse(fs.readFileSync(path.join(folder, file), 'utf8'));

describe('a timestep', function () {
  this.timeout(60_000);
  const embeddings = result.tensor('prompt_embeddings');
  const rows = 3;
  const noise = result.tensor('initial_noise');
  const expected = result.tensor('unet_t501');
  const latents = new Float32Array(rows * noise.size);
  for (let row = 0; row < rows; row++) latents.set(noise.data, row * noise.size);

  for (const type of ['int64', 'int32', 'float32', 'float16', 'float64'] as ElementType[]) {
    for (const dims of [[], [1], ['steps'], ['batch']] as Dims[]) {
      it(`of type ${type} and shape [${dims.join()}]`, async () => {
        const folder = copy();
        edit(folder, 'unet', (model) => retypeInput(model, 'timestep', 'float32', type, dims));
        const sessions = new Sessions(
          { components: { unet: path.join(folder, 'unet/model.onnx') } } as ProcessSetup,
          { executionProviders: ['cpu'], intraOpNumThreads: 1, logSeverityLevel: 3 },
          () => undefined,
        );
        const unet = await sessions.get('unet');
        assert.deepEqual([unet.input('timestep')?.type, unet.input('timestep')?.shape], [type, dims]);
        const held = { dtype: 'float32' as const, dims: embeddings.dims, data: embeddings.data };
        const output = await predict(
          unet,
          { cancelled: false, runMilliseconds: 0 },
          { latents, dims: [rows, ...noise.dims.slice(1)], timestep: 501, embeddings: [held, held, held] },
          new BatchMemory({ gpu: false, unetBytes: 1 }),
        );
        for (let row = 0; row < rows; row++)
          assert.ok(difference(output.subarray(row * noise.size, (row + 1) * noise.size), expected.data) < 1e-3);
      });
    }
  }
});

/** All floating-point inputs and outputs of the four models as half precision. */
function toHalf(folder: string): void {
  const latents: Dims = ['batch', 4, 'height', 'width'];
  edit(folder, 'text_encoder', (model) =>
    retypeOutput(model, 'last_hidden_state', 'float16', ['batch', 'sequence', 32]),
  );
  edit(folder, 'unet', (model) =>
    retypeOutput(
      retypeInput(
        retypeInput(model, 'sample', 'float32', 'float16', latents),
        'encoder_hidden_states',
        'float32',
        'float16',
        ['batch', 'sequence', 32],
      ),
      'out_sample',
      'float16',
      latents,
    ),
  );
  edit(folder, 'vae_decoder', (model) =>
    retypeOutput(retypeInput(model, 'latent_sample', 'float32', 'float16', latents), 'sample', 'float16', [
      'batch',
      3,
      'height',
      'width',
    ]),
  );
  if (fs.existsSync(path.join(folder, 'vae_encoder')))
    edit(folder, 'vae_encoder', (model) =>
      retypeOutput(
        retypeInput(model, 'sample', 'float32', 'float16', ['batch', 3, 'height', 'width']),
        'latent_sample',
        'float16',
        latents,
      ),
    );
}

interface Exporter {
  ids: ElementType;
  timestep: [ElementType, Dims];
  half?: boolean;
  change?: (folder: string) => void;
}

/** Each with a config.json a folder, as optimum writes them. */
function writeConfigs(folder: string): void {
  writeJson(folder, 'text_encoder/config.json', { _class_name: 'CLIPTextModel', max_position_embeddings: 77 });
  writeJson(folder, 'unet/config.json', { in_channels: 4, block_out_channels: [32, 64], sample_size: 64 });
  for (const vae of ['vae_decoder', 'vae_encoder'])
    writeJson(folder, `${vae}/config.json`, { scaling_factor: 0.18215, block_out_channels: [8, 16, 16, 16] });
}

const EXPORTERS: Record<string, Exporter> = {
  'diffusers’ script, timestep as int64': { ids: 'int32', timestep: ['int64', ['batch']] },
  'diffusers’ script, timestep as float': { ids: 'int32', timestep: ['float32', ['batch']] },
  optimum: { ids: 'int64', timestep: ['int64', []], change: writeConfigs },
  'optimum, half precision': { ids: 'int64', timestep: ['int64', []], half: true, change: writeConfigs },
  'older optimum': { ids: 'int32', timestep: ['int64', ['steps']], change: writeConfigs },
  'Olive, timestep as int64': {
    ids: 'int32',
    timestep: ['int64', ['batch']],
    half: true,
    change: (folder) => fs.rmSync(path.join(folder, 'vae_encoder'), { recursive: true }),
  },
  'Olive, timestep as half': {
    ids: 'int32',
    timestep: ['float16', [1]],
    half: true,
    change: (folder) => fs.rmSync(path.join(folder, 'vae_encoder'), { recursive: true }),
  },
};

for (const [name, { ids, timestep, half, change }] of Object.entries(EXPORTERS)) {
  describe(`a checkpoint by ${name}`, function () {
    this.timeout(60_000);
    const tolerance = half ? 3e-2 : 1e-3;
    let checkpoint: Checkpoint;
    before(async () => {
      const folder = copy();
      change?.(folder);
      edit(folder, 'text_encoder', (model) => retypeInput(model, 'input_ids', 'int32', ids, ['batch', 'sequence']));
      edit(folder, 'unet', (model) => retypeInput(model, 'timestep', 'float32', ...timestep));
      if (half) toHalf(folder);
      checkpoint = await openCheckpoint(folder, { provider: 'cpu', threads: 1 });
    });
    after(() => checkpoint.close());

    it('encodes, predicts and decodes as the reference', async () => {
      const [{ embeddings, tokenIds }] = await checkpoint.encodePrompts([result.case.prompt]);
      assert.deepEqual(tokenIds, result.case.token_ids);
      assert.equal(embeddings.dtype, half ? 'float16' : 'float32');
      const numbers = embeddings.dtype === 'float16' ? halfToFloat(embeddings.data) : embeddings.data;
      assert.ok(difference(numbers, result.tensor('prompt_embeddings').data) < tolerance);
      const [output] = await checkpoint.predict([{ latents: result.tensor('initial_noise'), embeddings }], 501);
      assert.ok(difference(output.data, result.tensor('unet_t501').data) < tolerance);
      const image = await checkpoint.decode(result.tensor('final_latents'));
      assert.ok(shareBeyond(image.data, result.bytes('image'), half ? 6 : 2) <= 0.01);
      if (!checkpoint.facts.canEncodeImages) return;
      const [latents] = await checkpoint.encodeImages([image]);
      assert.deepEqual(latents.dims, result.tensor('final_latents').dims);
    });
  });
}

describe('what a checkpoint’s files state', () => {
  const factsOf = async (folder: string) => {
    const layout = await readLayout(folder);
    return { ...readModelFacts(layout, 'cpu'), ...readVaeFacts(layout) };
  };
  const setPrediction = (folder: string, prediction_type: string): void =>
    writeJson(folder, 'scheduler/scheduler_config.json', {
      ...readJson(folder, 'scheduler/scheduler_config.json'),
      prediction_type,
    });

  it('is a native size of 768 where it predicts v, of 512 where it predicts noise, unless a config says otherwise', async () => {
    const folder = copy();
    fs.rmSync(path.join(folder, 'unet/config.json'), { force: true });
    assert.equal((await factsOf(folder)).nativeSize, 512);
    setPrediction(folder, 'v_prediction');
    assert.equal((await factsOf(folder)).nativeSize, 768);
    writeJson(folder, 'unet/config.json', { sample_size: 64 });
    assert.equal((await factsOf(folder)).nativeSize, 512);
  });

  it('is the VAE’s scale, of the decoder or else of the encoder', async () => {
    const folder = copy();
    writeJson(folder, 'vae_encoder/config.json', { scaling_factor: 0.5, block_out_channels: [1, 2, 3] });
    fs.rmSync(path.join(folder, 'vae_decoder/config.json'), { force: true });
    assert.deepEqual([(await factsOf(folder)).scalingFactor, (await factsOf(folder)).latentFactor], [0.5, 4]);
    writeJson(folder, 'vae_decoder/config.json', { scaling_factor: 0.25, shift_factor: 0.1 });
    const { scalingFactor, shiftFactor, latentFactor } = await factsOf(folder);
    assert.deepEqual([scalingFactor, shiftFactor, latentFactor], [0.25, 0.1, 8]);
    writeJson(folder, 'vae_decoder/config.json', { scaling_factor: null });
    assert.equal((await factsOf(folder)).scalingFactor, 0.18215);
  });

  it('scales the latents that go into the decoder and come from the encoder', async () => {
    const folder = copy();
    const latents = result.tensor('final_latents');
    const picture = async (config: object, scale: number): Promise<Uint8Array> => {
      writeJson(folder, 'vae_decoder/config.json', config);
      const checkpoint = await openCheckpoint(folder, { provider: 'cpu', threads: 1 });
      try {
        const image = await checkpoint.decode(
          Tensor.float32(
            latents.data.map((value) => value * scale),
            latents.dims,
          ),
        );
        return image.data;
      } finally {
        await checkpoint.close();
      }
    };
    const standard = await picture({}, 1);
    assert.ok(shareBeyond(await picture({ scaling_factor: 2 * 0.18215 }, 2), standard, 1) === 0);
    assert.ok(shareBeyond(await picture({ scaling_factor: 2 * 0.18215 }, 1), standard, 6) > 0.1);
  });

  it('is how often the UNet and the VAE halve their inputs, where no config says it, also when fused for CUDA', async () => {
    const folder = copy();
    for (const part of ['unet', 'vae_decoder', 'vae_encoder'])
      fs.rmSync(path.join(folder, part, 'config.json'), { force: true });
    const { sizeMultiple, latentFactor } = await factsOf(folder);
    assert.deepEqual([sizeMultiple, latentFactor], [16, 8]);
    for (const part of ['unet', 'vae_encoder'])
      edit(folder, part, (model) =>
        rewrite(model, [7, 1, 4], (operator) => (operator.toString() === 'Conv' ? Buffer.from('NhwcConv') : operator)),
      );
    const fused = await factsOf(folder);
    assert.deepEqual([fused.sizeMultiple, fused.latentFactor], [16, 8]);
  });

  it('is refused of an inpainting or depth model, by its channels', async () => {
    for (const channels of [9, 5]) {
      const folder = copy();
      writeJson(folder, 'unet/config.json', { in_channels: channels });
      await assert.rejects(factsOf(folder), {
        code: 'CHECKPOINT',
        message: new RegExp(`takes ${channels} channels and gives 4: an inpainting or depth model`),
      });
    }
  });

  it('is read with the habits of Python’s json: NaN and Infinity', async () => {
    const folder = copy();
    const file = path.join(folder, 'scheduler/scheduler_config.json');
    fs.writeFileSync(
      file,
      fs
        .readFileSync(file, 'utf8')
        .replace('"clip_sample_range": 1.0', '"clip_sample_range": NaN, "lambda_min_clipped": -Infinity'),
    );
    assert.equal((await factsOf(folder)).schedulerConfig.lambda_min_clipped, -Infinity);
  });
});

describe('golden checkpoints', () => {
  it('were made by diffusers’ script, so that the changes above are changes', async () => {
    const { denoiser, textEncoders } = await readLayout(checkpointFolder('tiny-sd2'));
    assert.deepEqual(
      denoiser.inputs.find(({ name }) => name === 'timestep'),
      { name: 'timestep', type: 'float32', shape: ['batch'] },
    );
    assert.equal(textEncoders[0].model.inputs[0].type, 'int32');
  });
});
