/** Checkpoints as different exporters leave them, made from the tiny ones; and where they can't run. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { openCheckpoint, Tensor, torchNoise, type Checkpoint } from '../../dist/engine';
import { readModelFacts, readVaeFacts } from '../../dist/engine/checkpoint/model-facts';
import { readLayout } from '../../dist/engine/checkpoint/layout';
import { libraryFolders } from '../../dist/engine/inference/libraries';
import { explainCudaFailure } from '../../dist/engine/inference/providers';
import { missingFiles, selectFiles } from '../../dist/engine/hub/selection';
import { readDevices } from '../../dist/engine/options';
import { checkpointFolder, copyCheckpoint } from './support/checkpoints';
import { field, integer, rewrite, valueInfo } from './support/onnx';

describe('layouts', function () {
  this.timeout(60_000);
  const folders: string[] = [];
  after(() => folders.forEach((folder) => fs.rmSync(folder, { recursive: true })));
  const copy = (name: string): string => {
    folders.push(copyCheckpoint(name));
    return folders.at(-1) as string;
  };
  const use = async <T>(folder: string, act: (checkpoint: Checkpoint) => Promise<T>): Promise<T> => {
    const checkpoint = await openCheckpoint(folder, { provider: 'cpu', threads: 1 });
    return act(checkpoint).finally(() => checkpoint.close());
  };
  const predictOnce = async (checkpoint: Checkpoint): Promise<Float32Array> => {
    const [{ embeddings }] = await checkpoint.encodePrompts(['a sofa']);
    return (await checkpoint.predict([{ latents: torchNoise(1, [1, 4, 8, 8]), embeddings }], 500))[0].data;
  };

  describe('external data', () => {
    let expected: Float32Array;
    before(async () => {
      expected = await use(checkpointFolder('tiny-sd2'), predictOnce);
    });
    // diffusers' own name, weights.pb, is the one of tiny-sd2.
    for (const name of ['model.onnx_data', 'model.onnx.data']) {
      it(`is found as ${name}`, async () => {
        const folder = copy('tiny-sd2');
        const model = path.join(folder, 'unet/model.onnx');
        // graph, initializer, external_data, value
        fs.writeFileSync(
          model,
          rewrite(fs.readFileSync(model), [7, 5, 13, 2], (value) =>
            value.toString() === 'weights.pb' ? Buffer.from(name) : value,
          ),
        );
        fs.renameSync(path.join(folder, 'unet/weights.pb'), path.join(folder, 'unet', name));
        assert.deepEqual([...(await readLayout(folder)).denoiser.externalData.keys()], [name]);
        assert.deepEqual(await use(folder, predictOnce), expected);
        const files = selectFiles([`unet/${name}`, 'unet/model.onnx']);
        assert.deepEqual(files, [`unet/${name}`, 'unet/model.onnx'], 'a download takes it along');
      });
    }
  });

  it('whose VAE encoder draws its latents and keeps its weights beside it give the means all the same', async () => {
    const folder = copy('tiny-sd2');
    const image = Tensor.uint8(
      Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => (i * 7) % 256),
      [64, 64, 3],
    );
    const encode = async (checkpoint: Checkpoint): Promise<Float32Array> =>
      (await checkpoint.encodeImages([image]))[0].data;
    const expected = await use(folder, encode);
    const model = path.join(folder, 'vae_encoder/model.onnx');
    const data: Buffer[] = [];
    let offset = 0;
    const moveOut = (tensor: Buffer): Buffer => {
      // A tensor's raw_data becomes external_data and data_location.
      const entry = (key: string, value: string): Buffer => field(13, Buffer.concat([field(1, key), field(2, value)]));
      let raw: Buffer | undefined;
      const rest = rewrite(tensor, [9], (content) => {
        raw = content;
        return Buffer.alloc(0);
      });
      if (!raw) return tensor;
      data.push(raw);
      offset += raw.length;
      // An empty raw_data, a tag and a length, is left out.
      const at = rest.indexOf(field(9, Buffer.alloc(0)));
      return Buffer.concat([
        rest.subarray(0, at),
        rest.subarray(at + 2),
        entry('location', 'weights.pb'),
        entry('offset', String(offset - raw.length)),
        entry('length', String(raw.length)),
        integer(14, 1),
      ]);
    };
    fs.writeFileSync(model, rewrite(fs.readFileSync(model), [7, 5], moveOut));
    fs.writeFileSync(path.join(folder, 'vae_encoder/weights.pb'), Buffer.concat(data));
    assert.ok(data.length > 10 && fs.statSync(model).size < 200_000);
    assert.deepEqual([...(await readLayout(folder)).vaeEncoder!.externalData.keys()], ['weights.pb']);
    assert.deepEqual(await use(folder, encode), expected);
    assert.deepEqual(await use(folder, encode), expected);
  });

  it('without config files use Stable Diffusion’s numbers', async () => {
    const folder = copy('tiny-lcm');
    for (const file of ['text_encoder', 'unet', 'vae_decoder', 'vae_encoder'].map(
      (component) => `${component}/config.json`,
    ))
      fs.rmSync(path.join(folder, file));
    for (const file of ['model_index.json', 'tokenizer/tokenizer_config.json', 'tokenizer/special_tokens_map.json'])
      fs.rmSync(path.join(folder, file));
    const layout = await readLayout(folder);
    const facts = readModelFacts(layout, 'cpu');
    assert.deepEqual(
      { ...facts, schedulerConfig: undefined, name: undefined },
      {
        name: undefined,
        schedulerConfig: undefined,
        vocabulary: undefined,
        latentChannels: 4,
        latentFactor: 8,
        scalingFactor: 0.18215,
        nativeSize: 512,
        sizeMultiple: 16,
        guidanceEmbedded: true,
        maxTokens: 77,
        canEncodeImages: true,
        provider: 'cpu',
      },
    );
    assert.equal(readVaeFacts(layout).shiftFactor, 0);
    assert.equal((await use(folder, predictOnce)).length, 256);
  });

  it('run as many rows at a time as they are told, with the same result', async () => {
    const batch = async (batchSize?: number): Promise<Float32Array[]> => {
      const checkpoint = await openCheckpoint(checkpointFolder('tiny-lcm'), { provider: 'cpu', threads: 1, batchSize });
      try {
        const [{ embeddings }] = await checkpoint.encodePrompts(['a sofa']);
        const rows = [1, 2, 3].map((seed) => ({ latents: torchNoise(seed, [1, 4, 8, 8]), embeddings }));
        return (await checkpoint.predict(rows, 500)).map(({ data }) => data);
      } finally {
        await checkpoint.close();
      }
    };
    const [alone, together] = [await batch(1), await batch(3)];
    alone.forEach((row, i) => assert.ok(row.every((value, j) => Math.abs(value - together[i][j]) < 1e-5)));
    await assert.rejects(batch(0), { code: 'INVALID_INPUT', message: /batchSize/ });
  });

  it('that lack a text encoder which the UNet asks for name it', async () => {
    const folder = copy('tiny-lcm');
    const model = path.join(folder, 'unet/model.onnx');
    fs.writeFileSync(
      model,
      rewrite(fs.readFileSync(model), [7], (graph) =>
        Buffer.concat([
          graph,
          field(11, valueInfo('text_embeds', 1, ['batch', 1280])),
          field(11, valueInfo('time_ids', 1, ['batch', 6])),
        ]),
      ),
    );
    await assert.rejects(readLayout(folder), {
      code: 'CHECKPOINT',
      message: /text_encoder_2\/model\.onnx is missing/,
    });
  });

  it('with an input that nobody knows are refused by its name', async () => {
    const folder = copy('tiny-lcm');
    const model = path.join(folder, 'unet/model.onnx');
    fs.writeFileSync(
      model,
      rewrite(fs.readFileSync(model), [7], (graph) =>
        Buffer.concat([graph, field(11, valueInfo('class_labels', 7, ['batch']))]),
      ),
    );
    await assert.rejects(readLayout(folder), {
      code: 'CHECKPOINT',
      message: /asks for an input class_labels, which is not understood/,
    });
  });

  it('optimised for CUDA say on the CPU what they are and what to do', async () => {
    const folder = copy('tiny-lcm');
    // A fused operator as ONNX Runtime's optimiser makes them, which has a kernel for CUDA only.
    const node = Buffer.concat([
      field(1, 'encoder_hidden_states'),
      field(1, 'bias'),
      field(2, 'out_sample'),
      field(4, 'BiasSplitGelu'),
      field(7, 'com.microsoft'),
    ]);
    const graph = Buffer.concat([
      field(1, node),
      field(2, 'unet'),
      field(5, Buffer.concat([integer(1, 32), integer(2, 1), field(8, 'bias'), field(9, Buffer.alloc(128))])),
      field(11, valueInfo('sample', 1, ['batch', 4, 'height', 'width'])),
      field(11, valueInfo('timestep', 7, [])),
      field(11, valueInfo('encoder_hidden_states', 1, ['batch', 77, 32])),
      field(12, valueInfo('out_sample', 1, ['batch', 'sequence', 'half'])),
    ]);
    const opset = (domain: string, version: number): Buffer =>
      field(8, Buffer.concat([...(domain ? [field(1, domain)] : []), integer(2, version)]));
    fs.writeFileSync(
      path.join(folder, 'unet/model.onnx'),
      Buffer.concat([integer(1, 8), field(7, graph), opset('', 17), opset('com.microsoft', 1)]),
    );
    await assert.rejects(use(folder, predictOnce), {
      code: 'CHECKPOINT',
      message:
        /unet\/model\.onnx holds operations .*BiasSplitGelu.*optimised for CUDA: use the cuda provider, or the plain \(unfused\) export/s,
    });
  });
});

describe('files of a repository', () => {
  it('are chosen without other precisions, weights for PyTorch and pictures', () => {
    const wanted = [
      'model_index.json',
      'unet/model.onnx',
      'unet/config.json',
      'unet/model.onnx_data',
      'scheduler/scheduler_config.json',
      'tokenizer/merges.txt',
      'vae_encoder/weights.pb',
    ];
    const others = [
      'README.md',
      'unet/model_fp16.onnx',
      'unet/model.safetensors',
      'unet/old/model.onnx',
      'tokenizer/notes.txt',
      'safety_checker/model.onnx',
      'feature_extractor/preprocessor_config.json',
      'unet/model.onnx.bak',
      '../unet/model.onnx',
    ];
    assert.deepEqual(selectFiles([...others, ...wanted]), wanted);
  });

  it('that are known are the same in the dialog and in the documentation', () => {
    const read = (file: string): string => fs.readFileSync(path.join(__dirname, '../..', file), 'utf8');
    const known = [
      ...read('resources/model-check.js').matchAll(
        /repository: '([^']+)',\s*(?:revision: '([^']+)',\s*)?family[^}]*? size: '([^']+)'/g,
      ),
    ].map(([, repository, revision = 'main', size]) => `${repository} ${revision} ${size} GB`);
    const documented = [
      ...read('docs/checkpoints.md').matchAll(/^\| ([\w.-]+\/[\w.-]+) \| ?(\w*) ?\|[^|]*\| ([^|]+ GB) \|/gm),
    ].map(([, repository, revision, size]) => `${repository} ${revision || 'main'} ${size}`);
    assert.ok(known.length > 4);
    assert.deepEqual(documented, known);
  });

  it('need no vocab.json beside a tokenizer.json', () => {
    const files = [
      'text_encoder/model.onnx',
      'unet/model.onnx',
      'vae_decoder/model.onnx',
      'scheduler/scheduler_config.json',
      'tokenizer/tokenizer.json',
    ];
    assert.equal(missingFiles(files, files), undefined);
    assert.match(
      missingFiles(files.slice(0, 4), files.slice(0, 4)) as string,
      /has no tokenizer\/vocab\.json, tokenizer\/merges\.txt/,
    );
  });
});

describe('CUDA', () => {
  /** As ONNX Runtime 1.29 says it. */
  const thrown = (failure: string): string =>
    '/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:154 std::conditional_t<THRW, ' +
    'void, onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, const char*, ' +
    'SUCCTYPE, const char*, const char*, int) [with ERRTYPE = cudaError; ' +
    `bool THRW = true] ${failure} ; GPU=-1 ; hostname=secret ; ` +
    'file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider.cc ; line=345 ; ' +
    'expr=cudaSetDevice(info_.device_id); ';
  for (const [message, meaning] of [
    [
      thrown('CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version'),
      /^driver too old: .*580.* \(CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version\)$/,
    ],
    [
      thrown('CUDA failure 100: no CUDA-capable device is detected'),
      /^no NVIDIA GPU found: .*nvidia-smi.* \(CUDA failure 100: no CUDA-capable device is detected\)$/,
    ],
    [
      thrown('CUDA failure 101: invalid device ordinal'),
      /^no GPU has this number.*\(CUDA failure 101: invalid device ordinal\)$/,
    ],
    [thrown('CUDA failure 209: no kernel image is available for execution on the device'), /^GPU too old: .*Turing/],
    [thrown('CUDA failure 2: out of memory'), /^GPU memory is full: .*\(CUDA failure 2: out of memory\)$/],
    [thrown('CUDNN failure 1001: CUDNN_STATUS_NOT_INITIALIZED'), /^CUDNN failure 1001: CUDNN_STATUS_NOT_INITIALIZED$/],
    ['cuDNN is unavailable or disabled for CUDA Execution Provider: Conv', /^cuDNN 9 missing: .*libraryPath.*Conv\)$/],
    [
      'cuDNN is not available. Install cuDNN, update the system library search path, or set enable_cudnn=0',
      /^cuDNN 9 missing/,
    ],
    ['something else\nat line 5', /^something else$/],
  ] as const) {
    it(`explains “${(/\w+ failure [^;]*/.exec(message) ?? message.split('\n'))[0].trim()}”`, () =>
      assert.match(explainCudaFailure(message), meaning));
  }

  it('names what the provider could not be loaded without', () => {
    const explain = (...missing: string[]): string =>
      explainCudaFailure(
        'OrtSessionOptionsAppendExecutionProvider_Cuda: Failed to load shared library',
        (library) => !missing.includes(library),
      );
    assert.match(
      explain('libcuda.so.1', 'libcublas.so.13'),
      /^NVIDIA driver not installed \(libcuda\.so\.1 is missing\): .*580/,
    );
    assert.match(
      explain('libcudart.so.13', 'libcurand.so.10'),
      /^CUDA 13 missing \(libcudart\.so\.13, libcurand\.so\.10\): .*libraryPath/,
    );
    assert.match(explain(), /^OrtSessionOptionsAppend.*Failed to load shared library$/);
  });

  it('is refused by name where it can’t be had, and the setup says the same', async function () {
    this.timeout(60_000);
    const script = path.join(__dirname, '../../scripts/setup-cuda.js');
    const setup = spawnSync(process.execPath, [script, '--check'], { encoding: 'utf8' });
    if (setup.status === 0) return; // this machine has it
    await assert.rejects(openCheckpoint(checkpointFolder('tiny-lcm'), { provider: 'cuda' }), {
      code: 'PROVIDER',
      message: /CUDA cannot be used: .*Fix that, or set the provider to auto or cpu/,
    });
    assert.match(setup.stderr, /npm run setup:cuda|Linux x64 only|docs\/gpu\.md/);
  });

  it('finds libraries where pip puts them', () => {
    const nvidia = fs.mkdtempSync(path.join(os.tmpdir(), 'nvidia-'));
    for (const name of ['cudnn/lib', 'cu13/lib', 'other/include'])
      fs.mkdirSync(path.join(nvidia, name), { recursive: true });
    const folders = libraryFolders(nvidia, '/usr/lib').split(path.delimiter);
    assert.deepEqual(
      folders.sort(),
      ['/usr/lib', nvidia, path.join(nvidia, 'cu13/lib'), path.join(nvidia, 'cudnn/lib')].sort(),
    );
    assert.equal(libraryFolders('/nowhere'), '/nowhere');
    fs.rmSync(nvidia, { recursive: true });
  });

  it('devices are one number, or several', () => {
    assert.deepEqual(['', undefined, 3, '1', '0,1', ' 2 , 2, 0 '].map(readDevices), [
      [0],
      [0],
      [3],
      [1],
      [0, 1],
      [2, 0],
    ]);
    for (const wrong of ['a', '0,', '-1', '1.5', '0;1', '100'])
      assert.throws(() => readDevices(wrong), { code: 'INVALID_INPUT', message: /deviceId/ });
  });
});
