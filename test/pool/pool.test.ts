/** A pool's work is the same as one machine's: pictures, encodings, progress, errors, cancelling. */
import assert from 'node:assert/strict';
import { openCheckpoint, type Checkpoint } from '../../dist/engine/checkpoint/checkpoint';
import { InvalidInputError, MultiDiffusionError } from '../../dist/engine/errors';
import type { Progress } from '../../dist/engine/multidiffusion/plan';
import { sample } from '../../dist/engine/multidiffusion/sample';
import { identityOf } from '../../dist/engine/pool/identity';
import { openPool, type PoolCheckpoint } from '../../dist/engine/pool/model';
import { Tensor } from '../../dist/engine/tensor';
import { checkpointFolder, until } from '../unit/support/checkpoints';
import { bytesOf, composition } from './support/pictures';
import { RedisServer } from './support/redis';
import { WorkerProcess } from './support/worker';

const FOLDER = checkpointFolder('tiny-lcm');

describe('a pool', function () {
  this.timeout(120_000);
  let redis: RedisServer;
  let workers: WorkerProcess[];
  let here: Checkpoint;
  let pool: PoolCheckpoint;

  before(async () => {
    redis = await RedisServer.start();
    const starting = [0, 1].map((i) => WorkerProcess.start(redis.url, FOLDER, ['--name', `worker ${i}`]));
    here = await openCheckpoint(FOLDER, { provider: 'cpu', threads: 1 });
    workers = await Promise.all(starting);
    pool = await open();
  });

  after(async () => {
    await pool?.close();
    await here?.close();
    await Promise.all(workers?.map((worker) => worker.kill()) ?? []);
    await redis?.close();
  });

  async function open(): Promise<PoolCheckpoint> {
    const wish = { identity: await identityOf(FOLDER) };
    return openPool({ address: redis.address, pool: 'default', wish, called: 'it', patience: 60_000 });
  }

  const works = (pattern: RegExp): string[] =>
    workers.flatMap((worker) => worker.jobs).filter((line) => pattern.test(line));

  it('knows the model as this machine does', () => {
    const { provider, ...facts } = pool.facts;
    const { provider: _, ...own } = here.facts;
    assert.deepEqual(facts, JSON.parse(JSON.stringify(own)));
    assert.equal(provider, 'the pool "default": cpu');
    assert.deepEqual(pool.workers.map(({ name }) => name).sort(), ['worker 0', 'worker 1']);
    assert.equal(pool.queue.concurrency, 2);
  });

  it('draws the same pictures, to the last bit', async () => {
    for (const [seed, options] of [
      {},
      { keepBackground: true, strength: 0.6 },
      { fusion: 'first' as const, maskCentring: false },
    ].entries()) {
      const request = await composition(here, seed);
      const initialImage =
        'keepBackground' in options
          ? Tensor.float32(
              new Float32Array(4 * 8 * 8).map((_, i) => Math.sin(i)),
              [1, 4, 8, 8],
            )
          : undefined;
      const asked = { ...request, initialImage, options: { ...request.options, ...options } };
      const [expected, actual] = await Promise.all([sample(here, asked), sample(pool, asked)]);
      const { latents, timings: _, ...facts } = actual;
      const { latents: wanted, timings: __, ...own } = expected;
      assert.equal(bytesOf(latents), bytesOf(wanted));
      assert.deepEqual(facts, JSON.parse(JSON.stringify(own)));
    }
  });

  it('encodes prompts, decodes and encodes pictures as here', async () => {
    const prompts = ['a red sofa', 'ein Haus', 'word '.repeat(200)];
    const [expected, actual] = await Promise.all([here.encodePrompts(prompts), pool.encodePrompts(prompts)]);
    expected.forEach(({ embeddings, ...rest }, i) => {
      const { embeddings: own, ...others } = actual[i];
      assert.equal(bytesOf(own), bytesOf(embeddings));
      assert.deepEqual(others, rest);
    });
    const latents = Tensor.float32(
      new Float32Array(4 * 8 * 16).map((_, i) => Math.cos(i)),
      [1, 4, 8, 16],
    );
    const picture = await here.decode(latents, { circular: true });
    assert.equal(bytesOf(await pool.decode(latents, { circular: true })), bytesOf(picture));
    const [encoded] = await here.encodeImages([picture]);
    assert.equal(bytesOf((await pool.encodeImages([picture]))[0]), bytesOf(encoded));
  });

  it('predicts the rows of a wired step as here', async () => {
    const [{ embeddings }, { embeddings: other }] = await here.encodePrompts(['a', 'b']);
    const latents = Tensor.float32(new Float32Array(4 * 8 * 8).fill(0.5), [1, 4, 8, 8]);
    const rows = [embeddings, other, embeddings].map((held) => ({ latents, embeddings: held }));
    const expected = await here.predict(rows, 500);
    const actual = await pool.predict(rows, 500);
    assert.deepEqual(actual.map(bytesOf), expected.map(bytesOf));
    assert.ok(pool.unetMilliseconds > 0);
  });

  it('tells of every step once and in order, with the picture as it is foreseen where it is asked for', async () => {
    const request = await composition(here, 3);
    const seen = (into: Array<[number, number, number, string]>) => (progress: Progress) => {
      const { index, total, timestep } = progress;
      into.push([
        index,
        total,
        timestep,
        index % 3 === 0 ? bytesOf(progress.predictedOriginal()) + bytesOf(progress.latents) : '',
      ]);
    };
    const [expected, actual]: Array<Array<[number, number, number, string]>> = [[], []];
    const options = { ...request.options, previewEvery: 3 };
    await sample(here, { ...request, options, onStep: seen(expected) });
    await sample(pool, { ...request, options, onStep: seen(actual) });
    assert.deepEqual(actual, expected);
    assert.equal(actual.length, 6);
  });

  it('has the picture of the last step also for one who looks slowly, when the result has long been taken', async () => {
    const request = await composition(here, 3);
    const options = { ...request.options, previewEvery: 1 };
    const seen: string[] = [];
    const { latents } = await sample(pool, {
      ...request,
      options,
      onStep: async (progress) => {
        await new Promise((resolve) => setTimeout(resolve, 150));
        seen.push(bytesOf(progress.latents));
      },
    });
    assert.equal(seen.length, 6);
    assert.equal(seen[5], bytesOf(latents));
  });

  it('fails as here: with the code, the property and the sentence', async () => {
    const request = await composition(here, 1);
    const wrong = { ...request, options: { ...request.options, steps: 0 } };
    const expected = await sample(here, wrong).catch((error: InvalidInputError) => error);
    const actual = await sample(pool, wrong).catch((error: InvalidInputError) => error);
    assert.ok(expected instanceof InvalidInputError && actual instanceof MultiDiffusionError);
    assert.deepEqual(
      [actual.code, actual.message, (actual as InvalidInputError).property],
      ['INVALID_INPUT', expected.message, 'steps'],
    );
    await assert.rejects(
      sample(pool, { ...request, stepNoise: () => request.background.embeddings as never }),
      /sample\.stepNoise/,
    );
  });

  it('ends a job of which onStep fails with that error', async () => {
    const failing = { ...(await composition(here, 1)), onStep: () => Promise.reject(new Error('no more')) };
    await assert.rejects(sample(pool, failing), /no more/);
  });

  it('cancels what runs, and what waits', async () => {
    const before = works(/kind=sample outcome=cancelled/).length;
    const done = works(/kind=sample outcome=done/).length;
    const long = await composition(here, 1, 400);
    // The checkpoint's own scheduler takes no more than 50 steps.
    const request = { ...long, options: { ...long.options, scheduler: 'DDIMScheduler' as const } };
    const stops = [0, 1, 2].map(() => new AbortController());
    let begun = 0;
    const jobs = stops.map(({ signal }) => sample(pool, { ...request, signal, onStep: () => void begun++ }));
    for (const job of jobs) job.catch(() => undefined);
    await until(() => begun > 0, 'the first step');
    stops.forEach((stop) => stop.abort());
    for (const job of jobs) await assert.rejects(job, { code: 'CANCELLED' });
    await until(() => works(/kind=sample outcome=cancelled/).length >= before + 2, 'the workers stop');
    // Both are free again at once, and none was drawn to its end.
    await sample(pool, await composition(here, 1));
    await until(() => works(/kind=sample outcome=done/).length > done, 'the line about the last one');
    assert.equal(works(/kind=sample outcome=done/).length, done + 1);
  });

  it('sends embeddings, masks and pictures once', async () => {
    const request = await composition(here, 5);
    await sample(pool, request);
    const before = pool.traffic.sent;
    await Promise.all([6, 7, 8].map((seed) => sample(pool, { ...request, options: { ...request.options, seed } })));
    assert.equal(pool.traffic.sent, before);
    const own = await pool.encodeConditioning('never seen before');
    await sample(pool, { background: own, options: { ...request.options, steps: 1 } });
    assert.equal(pool.traffic.sent, before, 'embeddings of the pool are there already');
  });

  it('keeps nothing in Redis that does not end, and of a client no prompt', async () => {
    const look = redis.look();
    try {
      await sample(pool, await composition(here, 9));
      await new Promise((resolve) => setTimeout(resolve, 500));
      const lasting: string[] = [];
      for (const key of await look.keys('*')) if ((await look.pttl(key)) === -1) lasting.push(key);
      const bookkeeping =
        /^multidiffusion:default:(workers|queues|(pictures|calls)-[0-9a-f]{32}-v1:(id|meta|events|marker|pc|stalled|failed|completed))$/;
      const failed = /^multidiffusion:default:(pictures|calls)-[0-9a-f]{32}-v1:[0-9a-f-]{36}-\d+$/;
      assert.deepEqual(
        lasting.filter((key) => !bookkeeping.test(key) && !failed.test(key)),
        [],
      );
      assert.deepEqual(
        lasting.filter((key) => failed.test(key)),
        [],
        'jobs that ended are removed',
      );
      assert.ok(!/red sofa|living room/.test(workers.map(({ output }) => output).join()), 'the logs');
    } finally {
      look.disconnect();
    }
  });
});
