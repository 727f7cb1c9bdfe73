/** Inference processes that hang, told from those that work; and what ends with the process that started them. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { acquireCheckpoint } from '../../dist/engine';
import { InferenceClient, type ClientOptions } from '../../dist/engine/inference/client';
import type { ProcessSetup } from '../../dist/engine/inference/protocol';
import { checkpointFolder, isAlive, until } from './support/checkpoints';

/** See the program: what its requests do is told by their timestep. */
const [ECHO, STOP, STOP_ONCE, COMPUTE, WAIT, WAIT_FOREVER] = [1, 700, 701, 710, 711, 712];
const posix = process.platform !== 'win32';

describe('an inference process that hangs', function () {
  this.timeout(60_000);
  let client: InferenceClient;
  let told: string[];
  let mark: string;
  const start = (options: ClientOptions): void => {
    told = [];
    mark = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'hang-')), 'mark');
    client = new InferenceClient({ textEncoders: [{ tokenizerFolder: mark }] } as ProcessSetup, {
      processFile: path.join(__dirname, 'support/fake-inference.js'),
      onHang: (text) => told.push(text),
      ...options,
    });
  };
  afterEach(async () => {
    await client.close();
    fs.rmSync(path.dirname(mark), { recursive: true, force: true });
  });
  const ask = async (timestep: number, signal?: AbortSignal) =>
    (
      await client.call(
        'predict',
        () => ({ latents: Float32Array.of(timestep), dims: [1], timestep, embeddings: [] }),
        signal,
      )
    ).outputs[0];

  if (posix) {
    it('stopped: is ended, told, and what it was working on is repeated', async () => {
      start({ silence: 1500 });
      assert.equal(await ask(STOP_ONCE), STOP_ONCE);
      assert.equal(told.length, 1);
      assert.match(
        told[0],
        /^The inference process \d+ hung: it showed no sign of life for 1\.5 seconds and was ended\.$/,
      );
    });

    it('stopped twice by a request: this one fails and says so, the others are answered', async () => {
      start({ silence: 1500 });
      const [guilty, ...others] = await Promise.allSettled([ask(STOP), ask(ECHO), ask(ECHO)]);
      assert.equal(guilty.status, 'rejected');
      assert.equal((guilty.reason as { code: string }).code, 'PROCESS_DIED');
      assert.match(String(guilty.reason), /showed no sign of life for 1\.5 seconds.*The next request starts it again/);
      assert.deepEqual(
        others.map(({ status }) => status),
        ['fulfilled', 'fulfilled'],
      );
    });

    it('stopped under a request that was cancelled meanwhile: is ended all the same', async () => {
      start({ silence: 1500 });
      assert.equal(await ask(ECHO), ECHO);
      const pid = client.pid as number;
      const abort = new AbortController();
      const cancelled = ask(STOP, abort.signal);
      setTimeout(() => abort.abort(), 100);
      await assert.rejects(cancelled, { code: 'CANCELLED' });
      await until(() => !isAlive(pid), 'the process is ended');
      assert.equal(await ask(ECHO), ECHO);
    });

    it('stopped: unloading and closing end it', async () => {
      for (const end of ['unload', 'close'] as const) {
        start({});
        assert.equal(await ask(ECHO), ECHO);
        const pid = client.pid as number;
        process.kill(pid, 'SIGSTOP');
        const asked = ask(ECHO);
        await Promise.all([assert.rejects(asked, { code: 'CANCELLED' }), client[end]()]);
        assert.ok(!isAlive(pid));
        await client.close();
      }
    });

    it('stopped while it is opened: unloading gives it up, and the next request opens it', async () => {
      start({});
      const lease = acquireCheckpoint(checkpointFolder('tiny-sd2'), { provider: 'cpu', threads: 1, linger: 0 });
      try {
        const opening = lease.get();
        await lease.unload();
        await assert.rejects(opening, { code: 'CANCELLED' });
        assert.equal((await (await lease.get()).encodePrompts(['a sofa'])).length, 1);
      } finally {
        lease.release();
      }
    });
  }

  it('is not one that computes, nor one that waits for a device', async () => {
    start({ silence: 2000 });
    assert.equal(await ask(COMPUTE), COMPUTE);
    assert.equal(await ask(WAIT), WAIT);
    assert.deepEqual(told, []);
  });

  it('works on one thing for longer than its time limit: TIMEOUT, and the next request is answered', async () => {
    start({ requestTimeout: 2000 });
    await assert.rejects(ask(WAIT_FOREVER), {
      code: 'TIMEOUT',
      message: /completed nothing for 2 seconds.*requestTimeout/,
    });
    assert.equal(await ask(ECHO), ECHO);
    assert.match(told.join(), /completed nothing for 2 seconds/);
  });

  it('works on one of several for longer than its time limit: the others are answered', async () => {
    start({ requestTimeout: 2000 });
    const outcomes = await Promise.allSettled([ask(WAIT_FOREVER), ask(ECHO), ask(ECHO)]);
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      ['rejected', 'fulfilled', 'fulfilled'],
    );
    assert.equal((outcomes[0] as PromiseRejectedResult).reason.code, 'TIMEOUT');
  });

  it('completes one thing after the other: no time limit ends it, however long all of it takes', async () => {
    // Three seconds each.
    start({ requestTimeout: 10_000 });
    const asked = [COMPUTE, WAIT, COMPUTE, WAIT];
    assert.deepEqual(await Promise.all(asked.map((each) => ask(each))), asked);
    assert.deepEqual(told, []);
  });
});
