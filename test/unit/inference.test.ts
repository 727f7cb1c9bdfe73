import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { openCheckpoint, Tensor, torchNoise, type Checkpoint, type ProcessStatus } from '../../dist/engine';
import { InferenceClient } from '../../dist/engine/inference/client';
import type { ProcessSetup } from '../../dist/engine/inference/protocol';
import { BatchMemory } from '../../dist/engine/inference/process/batching';
import { predict } from '../../dist/engine/inference/process/denoiser';
import { encodeTokens } from '../../dist/engine/inference/process/text';
import { decode, encodeImages } from '../../dist/engine/inference/process/vae';
import { floatToHalf, halfToFloat } from '../../dist/engine/inference/process/float16';
import { probe, probeApart, relativeDifference } from '../../dist/engine/inference/process/probe';
import { chooseProvider } from '../../dist/engine/inference/process/choose-provider';
import { feed, Sessions } from '../../dist/engine/inference/process/sessions';
import { spreadTiles, tileWeights } from '../../dist/engine/inference/process/tiles';
import { guidanceEmbedding } from '../../dist/engine/inference/process/timestep-cond';
import { checkpointFolder, difference, goldenResult, isAlive, until } from './support/checkpoints';

const folder = checkpointFolder('tiny-sd2');

describe('inference process', function () {
  this.timeout(20_000);
  let checkpoint: Checkpoint;
  let statuses: ProcessStatus[];
  let embeddings: Tensor;

  beforeEach(async () => {
    statuses = [];
    checkpoint = await openCheckpoint(folder, {
      provider: 'cpu',
      threads: 1,
      onStatus: (status) => statuses.push(status),
    });
    [{ embeddings }] = await checkpoint.encodePrompts(['a sofa']);
  });
  afterEach(() => checkpoint.close());

  const large = torchNoise(1, [1, 4, 32, 32]);
  /** Long enough to be interrupted: many large rows. */
  const longPredict = (signal?: AbortSignal) =>
    checkpoint.predict(
      Array.from({ length: 40 }, () => ({ latents: large, embeddings })),
      500,
      { signal },
    );
  const shortPredict = async () =>
    (await checkpoint.predict([{ latents: torchNoise(1, [1, 4, 8, 8]), embeddings }], 500))[0];
  const kill = (pid = checkpoint.pid as number): boolean => process.kill(pid, 'SIGKILL');

  it('killed once: the interrupted request is repeated, and nobody notices', async () => {
    const expected = await shortPredict();
    const long = longPredict();
    await new Promise((resolve) => setTimeout(resolve, 20));
    kill();
    assert.equal((await long).length, 40);
    assert.deepEqual((await shortPredict()).data, expected.data);
    assert.ok(statuses.some(({ state }) => state === 'restarting'));
  });

  it('killed while it has nothing to do: the next request starts it', async () => {
    const pid = checkpoint.pid as number;
    kill();
    await until(() => checkpoint.pid !== pid, 'its end is noticed');
    assert.deepEqual(checkpoint.status, { state: 'stopped', detail: undefined });
    assert.deepEqual((await shortPredict()).dims, [1, 4, 8, 8]);
  });

  it('killed at random under load: every request ends once', async () => {
    let settled = 0;
    const requests = Array.from({ length: 60 }, (_, i) =>
      (i % 3 ? shortPredict() : checkpoint.decode(torchNoise(i, [1, 4, 16, 16]))).then(
        () => void settled++,
        (error: { code: string }) => {
          assert.equal(error.code, 'PROCESS_DIED');
          settled++;
        },
      ),
    );
    for (let i = 0; i < 3; i++) {
      await new Promise((resolve) => setTimeout(resolve, 60));
      if (checkpoint.pid) kill();
    }
    await Promise.all(requests);
    assert.equal(settled, 60);
    await shortPredict();
  });

  it('aborted: the request ends at once, and the process goes on with the next', async () => {
    const abort = new AbortController();
    const long = longPredict(abort.signal);
    setTimeout(() => abort.abort(), 20);
    const started = Date.now();
    await assert.rejects(long, { code: 'CANCELLED' });
    const pid = checkpoint.pid as number;
    await shortPredict();
    assert.ok(Date.now() - started < 5_000);
    assert.equal(checkpoint.pid, pid);
    await assert.rejects(longPredict(AbortSignal.abort()), { code: 'CANCELLED' });
  });

  it('encoding and decoding go between the runs of a long request', async () => {
    const order: string[] = [];
    await Promise.all([
      longPredict().then(() => order.push('long')),
      checkpoint.encodePrompts(['something new']).then(() => order.push('encoded')),
      checkpoint.decode(torchNoise(1, [1, 4, 8, 8])).then(() => order.push('decoded')),
    ]);
    assert.equal(order[2], 'long');
  });

  it('pictures larger than a message cross in pieces, and are what they were', async function () {
    this.timeout(60_000);
    const [side, count] = [40, 2];
    const sessions = new Sessions(
      {
        components: Object.fromEntries(
          [
            ['vaeDecoder', 'vae_decoder'],
            ['vaeEncoder', 'vae_encoder'],
          ].map(([component, name]) => [component, path.join(folder, name, 'model.onnx')]),
        ),
      } as ProcessSetup,
      { executionProviders: ['cpu'], intraOpNumThreads: 1, logSeverityLevel: 3 },
      () => undefined,
    );
    const request = { cancelled: false, runMilliseconds: 0 };
    const scale = 0.18215;
    const latents = torchNoise(1, [1, 4, side, side]);
    const vaeLatents = latents.data.map((value) => value / scale);
    const whole = { tileSize: side, overlap: 0 };
    const { data, dims } = await decode(await sessions.get('vaeDecoder'), request, vaeLatents, latents.dims, whole);
    assert.ok(data.length > 1.1 * 2 ** 18);

    // One that nobody waits for any longer leaves nothing behind.
    const abort = new AbortController();
    const cancelled = checkpoint.decode(latents, { ...whole, signal: abort.signal });
    const pictures = Promise.all(Array.from({ length: count }, () => checkpoint.decode(latents, whole)));
    abort.abort();
    await assert.rejects(cancelled, { code: 'CANCELLED' });
    for (const picture of await pictures) {
      assert.deepEqual(picture.dims, dims);
      assert.ok(Buffer.from(picture.data).equals(Buffer.from(data)));
    }

    const image = Tensor.uint8(data, dims);
    const expected = await encodeImages(await sessions.get('vaeEncoder'), request, data, [1, ...dims], 4);
    for (const images of [[image], [image, image]])
      for (const encoded of await checkpoint.encodeImages(images))
        assert.ok(
          difference(
            encoded.data,
            expected.data.map((value) => value * scale),
          ) < 1e-6,
        );
  });

  it('answers many callers, each with its own result', async () => {
    const latents = Array.from({ length: 12 }, (_, i) => torchNoise(i, [1, 4, 8, 8]));
    const predictAt = async (i: number) => (await checkpoint.predict([{ latents: latents[i], embeddings }], i))[0].data;
    const expected = [];
    for (const i of latents.keys()) expected.push(await predictAt(i));
    assert.deepEqual(await Promise.all([...latents.keys()].map(predictAt)), expected);
  });

  it('rows that see the same latents get what they would get alone', async () => {
    const [a, b] = [torchNoise(1, [1, 4, 8, 8]), torchNoise(2, [1, 4, 8, 8])];
    const { negativeEmbeddings } = await checkpoint.encodeConditioning('a cat');
    const rows = [a, a, b, a].map((latents, i) => ({ latents, embeddings: i % 2 ? negativeEmbeddings : embeddings }));
    const together = await checkpoint.predict(rows, 500);
    const apart = await checkpoint.predict(
      rows.map(({ latents, ...row }) => ({ ...row, latents: Tensor.float32(latents.data.slice(), latents.dims) })),
      500,
    );
    assert.deepEqual(
      together.map(({ data }) => data),
      apart.map(({ data }) => data),
    );
    assert.deepEqual(together[3].data, together[1].data);
    assert.notDeepEqual(together[2].data, together[0].data);
  });

  it('closed: the process is gone, what was asked is cancelled, and asking again is an error', async () => {
    const pid = checkpoint.pid as number;
    const long = longPredict();
    const job = checkpoint.queue.add(() => longPredict());
    await new Promise((resolve) => setTimeout(resolve, 30));
    await Promise.all([
      assert.rejects(long, { code: 'CANCELLED' }),
      assert.rejects(job.result, { code: 'CANCELLED' }),
      checkpoint.close(),
    ]);
    assert.ok(!isAlive(pid));
    assert.equal(checkpoint.status.state, 'closed');
    await assert.rejects(shortPredict(), { code: 'CANCELLED' });
    await checkpoint.close();
  });

  it('unloaded: the process is gone, and comes back when needed', async () => {
    const pid = checkpoint.pid as number;
    await checkpoint.unload();
    assert.ok(!isAlive(pid));
    assert.equal(checkpoint.status.state, 'stopped');
    await shortPredict();
    assert.notEqual(checkpoint.pid, pid);
  });

  it('idle for its time: the process ends by itself', async () => {
    const idle = await openCheckpoint(folder, { provider: 'cpu', threads: 1, idleTimeout: 50 });
    try {
      const pid = idle.pid as number;
      await until(() => !isAlive(pid), 'the process ends');
      assert.equal((await idle.encodePrompts(['a'])).length, 1);
    } finally {
      await idle.close();
    }
  });

  it('shows what it is doing', async () => {
    await shortPredict();
    assert.deepEqual(
      statuses.map(({ state, detail }) => (detail ? `${state} ${detail}` : state)),
      ['starting', 'ready', 'loading textEncoder', 'ready', 'loading unet', 'ready'],
    );
  });
});

describe('client of an inference process that dies', () => {
  /** See the program: what its requests do is told by their timestep. */
  const [ECHO, DIE, DIE_ONCE] = [1, 666, 667];
  let client: InferenceClient;
  let statuses: string[];
  let mark: string;
  beforeEach(() => {
    statuses = [];
    mark = path.join(os.tmpdir(), `fake-inference-${process.pid}-${Math.random()}`);
    client = new InferenceClient({ textEncoders: [{ tokenizerFolder: mark }] } as ProcessSetup, {
      processFile: path.join(__dirname, 'support/fake-inference.js'),
      onStatus: ({ state }) => statuses.push(state),
    });
  });
  afterEach(async () => {
    await client.close();
    fs.rmSync(mark, { force: true });
  });

  const ask = (timestep: number, signal?: AbortSignal) =>
    client.call('predict', () => ({ latents: Float32Array.of(timestep), dims: [1], timestep, embeddings: [] }), signal);
  const died = {
    code: 'PROCESS_DIED',
    message:
      /ended twice while it worked on this request \(signal SIGKILL\).*The next request starts it again.*It said: about to die/s,
  };

  it('repeats an interrupted request once, and nobody notices', async () => {
    assert.deepEqual((await ask(DIE_ONCE)).outputs, Float32Array.of(DIE_ONCE));
    assert.deepEqual(
      statuses.filter((state) => state !== 'stopped'),
      ['starting', 'ready', 'restarting', 'ready'],
    );
  });

  it('gives up after the second death, with a code and what to expect, and the next request works', async () => {
    await assert.rejects(ask(DIE), died);
    assert.equal(client.status.state, 'failed');
    assert.deepEqual((await ask(ECHO)).outputs, Float32Array.of(ECHO));
    assert.equal(client.status.state, 'ready');
  });

  it('lets the request that kills the process fail alone', async () => {
    const requests = [ask(ECHO), ask(DIE), ask(ECHO), ask(ECHO), ask(ECHO)];
    const outcomes = await Promise.allSettled(requests);
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      ['fulfilled', 'rejected', 'fulfilled', 'fulfilled', 'fulfilled'],
    );
    await assert.rejects(requests[1], died);
  });

  it('can be told to stop while it repeats', async () => {
    const abort = new AbortController();
    const guilty = ask(DIE, abort.signal);
    const next = ask(ECHO);
    await until(() => statuses.includes('restarting'), 'the restart');
    abort.abort();
    await assert.rejects(guilty, { code: 'CANCELLED' });
    assert.deepEqual((await next).outputs, Float32Array.of(ECHO));
  });

  it('pauses longer and longer while the process dies at once', async () => {
    fs.writeFileSync(mark, 'die at the start');
    const waits: number[] = [];
    for (let i = 0; i < 2; i++) {
      const started = performance.now();
      await assert.rejects(ask(ECHO), {
        code: 'PROCESS_DIED',
        message: /ended twice while it started \(exit code 3\)/,
      });
      waits.push(performance.now() - started);
    }
    // First immediately and again; then half a second later, and a second after that.
    assert.ok(waits[1] >= 1400, `waited ${waits}`);
    fs.rmSync(mark);
    assert.deepEqual((await ask(ECHO)).outputs, Float32Array.of(ECHO));
  });

  it('says so when there is no program to start', async () => {
    const nothing = new InferenceClient({} as ProcessSetup, {
      processFile: path.join(__dirname, 'support/nowhere.js'),
    });
    await assert.rejects(nothing.open(), { code: 'PROCESS_DIED', message: /Cannot find module/ });
    await nothing.close();
  });

  it('sends embeddings once for each content and process', async () => {
    const embeddings = (value: number) => Tensor.float32(Float32Array.of(value), [1, 1, 1]);
    const askWith = (tensor: Tensor) =>
      client.call('predict', () => ({
        latents: new Float32Array(1),
        dims: [1],
        timestep: ECHO,
        embeddings: [client.hold(tensor)],
      }));
    const first = embeddings(1);
    for (const tensor of [first, first, embeddings(1), embeddings(2)]) await askWith(tensor);
    const held = async () => (await client.call('decode', () => ({ latents: new Float32Array(0), dims: [] }))).dims;
    assert.deepEqual(await held(), [2]);
    process.kill(client.pid as number, 'SIGKILL');
    await until(() => client.pid === undefined, 'its end is noticed');
    await askWith(first);
    assert.deepEqual(await held(), [1]);
  });
});

describe('parent process', function () {
  this.timeout(20_000);
  const script = `
    const { openCheckpoint } = require(${JSON.stringify(path.join(__dirname, '../../dist/engine'))});
    openCheckpoint(${JSON.stringify(folder)}, { provider: 'cpu', threads: 1 }).then((checkpoint) => {
      console.log(checkpoint.pid);
      AFTERWARDS
    });`;
  const start = (afterwards: string, argv: string[] = []) => {
    const parent = spawn(process.execPath, [...argv, '-e', script.replace('AFTERWARDS', afterwards)], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const pid = new Promise<number>((resolve) =>
      parent.stdout.once('data', (text: Buffer) => resolve(Number(text.toString()))),
    );
    const exit = new Promise<number | null>((resolve) => parent.once('exit', resolve));
    return { parent, pid, exit };
  };

  it('killed: the inference process goes too', async () => {
    const { parent, pid } = start('setInterval(() => {}, 1000);');
    const child = await pid;
    assert.ok(isAlive(child));
    parent.kill('SIGKILL');
    await until(() => !isAlive(child), 'the inference process ends');
  });

  it('with nothing more to do: it is not kept alive', async () => {
    const { pid, exit } = start('');
    const child = await pid;
    assert.equal(await exit, 0);
    await until(() => !isAlive(child), 'the inference process ends');
  });

  it('in the middle of a run, told to exit: the inference process goes at once', async () => {
    const { pid, exit } = start('checkpoint.encodePrompts(["a"]); setTimeout(() => process.exit(3), 20);');
    const child = await pid;
    assert.equal(await exit, 3);
    assert.ok(!isAlive(child), 'the inference process outlived its parent');
  });

  it('told to exit on a busy machine: it waits until the inference process has ended', async () => {
    const others = Array.from({ length: 2 * os.cpus().length }, () =>
      spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' }),
    );
    try {
      const { pid, exit } = start(
        `os.setPriority(checkpoint.pid, os.constants.priority.PRIORITY_LOW);
        checkpoint.encodePrompts(Array(1000).fill("a"));
        setTimeout(() => process.exit(3), 100);`,
      );
      const child = await pid;
      assert.equal(await exit, 3);
      assert.ok(!isAlive(child), 'the inference process outlived its parent');
    } finally {
      others.forEach((other) => other.kill('SIGKILL'));
    }
  });

  it('under a debugger: the inference process does not want its port', async () => {
    const { pid, exit } = start('checkpoint.encodePrompts(["a"]).then(() => checkpoint.close());', ['--inspect=0']);
    await pid;
    assert.equal(await exit, 0);
  });
});

describe('inputs of a graph', () => {
  it('are given in the type that it asks for', () => {
    const as = (type: string) => feed({ name: 'x', type, shape: [2] }, [1, 501.0], [2]).data;
    assert.deepEqual(as('int64'), BigInt64Array.of(1n, 501n));
    assert.deepEqual(as('int32'), Int32Array.of(1, 501));
    assert.deepEqual(as('float32'), Float32Array.of(1, 501));
    assert.deepEqual(as('float16'), Uint16Array.of(0x3c00, 0x5fd4));
    assert.throws(() => as('string'), { code: 'CHECKPOINT', message: /input x has the type string/ });
  });

  it('embed the guidance scale as diffusers does', () => {
    const expected = goldenResult('tiny-lcm-results/txt2img').tensor('timestep_cond');
    assert.ok(difference(guidanceEmbedding([8], 256), expected.data) < 1e-4);
    const two = guidanceEmbedding([8, 3], 256);
    assert.deepEqual(two.slice(256), guidanceEmbedding([3], 256));
  });
});

describe('graphs of every exporter', () => {
  type Info = { name: string; type: string; shape: Array<number | string> };
  type Feeds = Record<string, { type: string; data: number[]; dims: number[] }>;
  const request = { cancelled: false, runMilliseconds: 0 };
  const held = (value: number, dtype: 'float32' | 'float16' = 'float32') => ({
    dtype,
    dims: [1, 2, 3],
    data: dtype === 'float32' ? new Float32Array(6).fill(value) : floatToHalf(new Array<number>(6).fill(value)),
  });

  /** A graph that records what it is fed, and answers with what `answer` makes of it. */
  function graph(component: string, inputs: Info[], outputs: string[], answer: (feeds: Feeds) => object) {
    const fed: Feeds[] = [];
    const session = {
      component,
      inputs,
      outputs: outputs.map((name) => ({ name, type: 'float32', shape: [] })),
      input: (name: string) => inputs.find((input) => input.name === name),
      run: async (_: object, feeds: Feeds) => {
        fed.push(feeds);
        return answer(feeds);
      },
    };
    return { session: session as never, fed };
  }

  /** A UNet whose output is its sample. */
  const unet = (timestep: Partial<Info>, sample: Partial<Info> = {}, states: Partial<Info> = {}) =>
    graph(
      'unet',
      [
        { name: 'sample', type: 'float32', shape: ['batch', 4, 'height', 'width'], ...sample },
        { name: 'timestep', type: 'int64', shape: [], ...timestep },
        { name: 'encoder_hidden_states', type: 'float32', shape: ['batch', 'sequence', 3], ...states },
      ],
      ['out_sample'],
      (feeds) => ({ out_sample: feeds.sample }),
    );
  const rows = (count: number) => ({
    latents: Float32Array.from({ length: count * 4 }, (_, i) => i),
    dims: [count, 4, 1, 1],
    timestep: 501,
    embeddings: Array.from({ length: count }, (_, i) => held(i)),
  });
  const memory = () => new BatchMemory({ gpu: false, unetBytes: 1e6 });

  for (const [exporter, timestep, expected] of [
    ['diffusers, int64', { shape: ['batch'], type: 'int64' }, { dims: [3], data: BigInt64Array.of(501n, 501n, 501n) }],
    ['diffusers, float', { shape: ['batch'], type: 'float32' }, { dims: [3], data: Float32Array.of(501, 501, 501) }],
    ['optimum', { shape: [], type: 'int64' }, { dims: [], data: BigInt64Array.of(501n) }],
    ['older optimum', { shape: ['steps'], type: 'int64' }, { dims: [1], data: BigInt64Array.of(501n) }],
    ['Olive', { shape: [1], type: 'float16' }, { dims: [1], data: floatToHalf([501]) }],
  ] as const) {
    it(`timestep as ${exporter} has it`, async () => {
      const { session, fed } = unet({ ...timestep, shape: [...timestep.shape] });
      await predict(session, request, rows(3), memory());
      const { dims, data } = fed[0].timestep;
      assert.deepEqual({ dims, data }, expected);
    });
  }

  it('half precision in and out, single precision between', async () => {
    const { session, fed } = unet({}, { type: 'float16' }, { type: 'float16' });
    const input = { ...rows(2), embeddings: [held(0.5, 'float16'), held(2)] };
    assert.deepEqual(await predict(session, request, input, memory()), input.latents);
    assert.deepEqual(fed[0].sample.data, floatToHalf(input.latents));
    assert.deepEqual(
      [...halfToFloat(fed[0].encoder_hidden_states.data)],
      [...new Array(6).fill(0.5), ...new Array(6).fill(2)],
    );
    const halves = { ...rows(1), embeddings: [held(0.5, 'float16')] };
    await predict(session, request, halves, memory());
    assert.deepEqual(fed[1].encoder_hidden_states.data, halves.embeddings[0].data);
  });

  it('a fixed batch is filled by repeating a row, and what was added is dropped', async () => {
    const { session, fed } = unet({ shape: [2] }, { shape: [2, 4, 1, 1] });
    const input = rows(3);
    assert.deepEqual(await predict(session, request, input, memory()), input.latents);
    assert.deepEqual(
      fed.map(({ sample }) => [...sample.data]),
      [
        [0, 1, 2, 3, 4, 5, 6, 7],
        [8, 9, 10, 11, 8, 9, 10, 11],
      ],
    );
    assert.deepEqual(fed[1].timestep.dims, [2]);
  });

  it('on a GPU a few batch sizes are enough for any number of rows', async () => {
    const { session, fed } = unet({});
    const gpu = new BatchMemory({ gpu: true, unetBytes: 1e6 });
    for (let count = 1; count <= 20; count++) {
      const input = rows(count);
      assert.deepEqual(await predict(session, request, input, gpu), input.latents);
    }
    assert.deepEqual([...new Set(fed.map(({ sample }) => sample.dims[0]))].sort(), [1, 2, 4, 8]);
  });

  it('text encoders with an attention mask, and with other names', async () => {
    const output = (feeds: Feeds) => ({
      type: 'float32',
      data: new Float32Array(feeds.ids.data.length),
      dims: [1, feeds.ids.data.length, 1],
      location: 'cpu',
    });
    const { session, fed } = graph(
      'textEncoder',
      [
        { name: 'ids', type: 'int64', shape: [] },
        { name: 'attention_mask', type: 'int32', shape: [] },
      ],
      ['hidden'],
      (feeds) => ({ hidden: output(feeds) }),
    );
    const encoded = await encodeTokens(session, request, { states: 'hidden' }, [
      [7, 8],
      [9, 10],
    ]);
    assert.deepEqual(
      encoded.map(({ states }) => states?.dims),
      [
        [1, 2, 1],
        [1, 2, 1],
      ],
    );
    assert.deepEqual(fed[1].ids.data, BigInt64Array.of(9n, 10n));
    assert.deepEqual(fed[1].attention_mask.data, Int32Array.of(1, 1));
  });

  it('VAE encoders that give means and variances', async () => {
    const { session, fed } = graph(
      'vaeEncoder',
      [{ name: 'sample', type: 'float32', shape: [] }],
      ['latent_parameters'],
      () => ({
        latent_parameters: { type: 'float32', data: Float32Array.of(1, 2, -9, -9), dims: [1, 4, 1, 1] },
      }),
    );
    const { data, dims } = await encodeImages(
      session,
      request,
      Uint8Array.of(0, 255, 127, 0, 255, 127),
      [2, 1, 1, 3],
      2,
    );
    assert.deepEqual(
      [[...data], dims],
      [
        [1, 2, 1, 2],
        [2, 2, 1, 1],
      ],
    );
    assert.deepEqual(
      [...fed[0].sample.data].map((value) => value.toFixed(3)),
      ['-1.000', '1.000', '-0.004'],
    );
  });

  /** A decoder that makes every cell a 2×2 square of its first channel, and has memory for `most` cells. */
  const decoder = (most: number, shape: Info['shape'] = ['batch', 4, 'height', 'width']) =>
    graph(
      'vaeDecoder',
      [{ name: 'latent_sample', type: 'float32', shape }],
      ['sample'],
      ({ latent_sample: { data, dims } }) => {
        const [, , height, width] = dims;
        if (height * width > most) throw new Error('std::bad_alloc');
        const plane = Array.from({ length: 4 * height * width }, (_, i) =>
          Number(data[Math.floor(i / 4 / width) * width + Math.floor((i % (2 * width)) / 2)]),
        );
        return {
          sample: {
            type: 'float32',
            data: Float32Array.from([...plane, ...plane, ...plane]),
            dims: [1, 3, 2 * height, 2 * width],
          },
        };
      },
    );

  it('decoders that run out of memory get smaller tiles', async () => {
    const { session, fed } = decoder(24 * 24);
    const latents = Float32Array.from({ length: 4 * 40 * 40 }, (_, i) => (i % 1600) / 800 - 1);
    const { data, dims } = await decode(session, request, latents, [1, 4, 40, 40], { tileSize: 64, overlap: 8 });
    assert.deepEqual(dims, [80, 80, 3]);
    assert.deepEqual(
      fed.slice(0, 2).map(({ latent_sample: { dims: tile } }) => tile),
      [
        [1, 4, 40, 40],
        [1, 4, 20, 20],
      ],
    );
    const at = (y: number, x: number) => data[(y * 80 + x) * 3];
    for (const [y, x] of [
      [0, 0],
      [39, 41],
      [79, 79],
    ])
      assert.ok(Math.abs(at(y, x) - (latents[(y >> 1) * 40 + (x >> 1)] / 2 + 0.5) * 255) <= 1);
    const learnt = {};
    for (let i = 0; i < 2; i++)
      await decode(session, request, latents, [1, 4, 40, 40], { tileSize: 64, overlap: 8 }, learnt);
    assert.equal(
      fed.filter(({ latent_sample: { dims: tile } }) => tile[2] === 40).length,
      2,
      'once for the first picture, once for these two',
    );
    await assert.rejects(decode(decoder(1).session, request, latents, [1, 4, 40, 40], { tileSize: 64, overlap: 8 }), {
      code: 'INFERENCE',
      message: /Not enough memory/,
    });
  });

  it('decoders of one size only decode larger pictures in tiles, and say so of smaller ones', async () => {
    const { session, fed } = decoder(1e9, [1, 4, 16, 16]);
    await decode(session, request, new Float32Array(4 * 16 * 24), [1, 4, 16, 24], { tileSize: 64, overlap: 8 });
    assert.ok(fed.every(({ latent_sample: { dims } }) => dims.join() === '1,4,16,16'));
    await assert.rejects(
      decode(session, request, new Float32Array(4 * 8 * 8), [1, 4, 8, 8], { tileSize: 64, overlap: 8 }),
      { code: 'INFERENCE', message: /16×16 only/ },
    );
  });

  it('text encoders and VAE encoders that give no numbers, or another shape, are an error', async () => {
    const values = (dims: number[], value = 1) => ({
      type: 'float32',
      dims,
      data: new Float32Array(dims.reduce((all, each) => all * each, 1)).fill(value),
    });
    const encoder = (answer: object) =>
      encodeTokens(
        graph('textEncoder', [{ name: 'ids', type: 'int64', shape: [1, 'length'] }], ['hidden', 'pooled'], () => answer)
          .session,
        request,
        { states: 'hidden', pooled: 'pooled' },
        [[7, 8, 9]],
      );
    assert.equal((await encoder({ hidden: values([1, 3, 4]), pooled: values([1, 6]) })).length, 1);
    const none = { code: 'CHECKPOINT', message: /textEncoder gives values that are no numbers/ };
    await assert.rejects(encoder({ hidden: values([1, 3, 4], NaN), pooled: values([1, 6]) }), none);
    await assert.rejects(encoder({ hidden: values([1, 3, 4]), pooled: values([1, 6], Infinity) }), none);
    const shape = {
      code: 'CHECKPOINT',
      message: /textEncoder answers with \[1, 2, 4\] where \[1, 3, any\] is expected/,
    };
    await assert.rejects(encoder({ hidden: values([1, 2, 4]), pooled: values([1, 6]) }), shape);
    const encodeWith = (answer: object) =>
      encodeImages(
        graph(
          'vaeEncoder',
          [{ name: 'sample', type: 'float32', shape: [1, 3, 'h', 'w'] }],
          ['latent_parameters'],
          () => ({
            latent_parameters: answer,
          }),
        ).session,
        request,
        new Uint8Array(3 * 64),
        [1, 8, 8, 3],
        4,
      );
    assert.deepEqual((await encodeWith(values([1, 8, 2, 2]))).dims, [1, 4, 2, 2]);
    await assert.rejects(encodeWith(values([1, 8, 2, 2], NaN)), { code: 'CHECKPOINT', message: /no numbers/ });
    await assert.rejects(encodeWith(values([1, 6, 2, 2])), { code: 'CHECKPOINT', message: /vaeEncoder answers with/ });
    await assert.rejects(encodeWith(values([1, 8, 2, 3])), { code: 'CHECKPOINT', message: /vaeEncoder answers with/ });
    const wide = graph(
      'vaeDecoder',
      [{ name: 'latent_sample', type: 'float32', shape: [1, 4, 'h', 'w'] }],
      ['sample'],
      () => ({
        sample: values([1, 1, 16, 16]),
      }),
    );
    await assert.rejects(
      decode(wide.session, request, new Float32Array(4 * 64), [1, 4, 8, 8], { tileSize: 64, overlap: 8 }),
      { code: 'CHECKPOINT', message: /vaeDecoder answers with \[1, 1, 16, 16\] where \[1, 3, 16, 16\] is expected/ },
    );
  });

  it('decoders that give no numbers are an error', async () => {
    const { session } = decoder(1e9);
    await assert.rejects(
      decode(session, request, new Float32Array(4 * 64).fill(NaN), [1, 4, 8, 8], { tileSize: 64, overlap: 8 }),
      { code: 'INFERENCE', message: /NaN/ },
    );
  });
});

describe('tiles', () => {
  it('cover any length, and their weights sum to one', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 300 }),
        fc.integer({ min: 2, max: 64 }),
        fc.double({ min: 0, max: 0.5, noNaN: true }),
        (length, tile, share) => {
          const overlap = Math.floor(tile * share);
          const size = Math.min(tile, length);
          const starts = spreadTiles(length, tile, overlap);
          assert.equal(starts[0], 0);
          assert.equal(starts[starts.length - 1] + size, length);
          const sums = new Float64Array(length);
          tileWeights(starts, size, length).forEach((weights, i) =>
            weights.forEach((weight, x) => (sums[starts[i] + x] += weight)),
          );
          assert.ok(
            sums.every((sum) => Math.abs(sum - 1) < 1e-5),
            `sums ${sums}`,
          );
          for (let i = 1; i < starts.length; i++) assert.ok(starts[i - 1] + size - starts[i] >= overlap);
        },
      ),
    );
  });
});

describe('provider probe', () => {
  it('is a model that really runs, in single and in half precision', async () => {
    assert.deepEqual(await probe('cpu', 0, false), { half: true });
  });

  it('takes wrong numbers for wrong', () => {
    assert.equal(relativeDifference([1, 2], [1, 2.5]), 0.2);
    assert.ok(Number.isNaN(relativeDifference([1, NaN], [1, 2])));
    assert.ok(Number.isNaN(relativeDifference([1], [1, 2])));
  });

  it('measures what it is asked to measure', async () => {
    const { milliseconds } = await probe('cpu', 0, true);
    assert.ok(milliseconds!.provider > 0 && milliseconds!.cpu > 0);
  });

  it('apart: one that crashes or prints nothing is an obstacle', async () => {
    const { obstacle } = await probeApart('nothing' as never, 0);
    assert.match(obstacle!, /^a test model ended with exit code 1: update the driver/);
  });

  it('is not asked for cpu', async () => {
    const { name, description } = await chooseProvider({ provider: 'cpu', deviceId: 0, threads: 1 });
    assert.deepEqual([name, description], ['cpu', 'cpu']);
  });
});
