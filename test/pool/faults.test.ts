/** Whatever is killed, stopped, cut off or restarted: each job ends exactly once, with the picture that it would have had. */
import assert from 'node:assert/strict';
import { identityOf } from '../../dist/engine/pool/identity';
import { openPool, type PoolCheckpoint } from '../../dist/engine/pool/model';
import { sample } from '../../dist/engine/multidiffusion/sample';
import { checkpointFolder, until } from '../unit/support/checkpoints';
import { bytesOf, composition } from './support/pictures';
import { RedisServer } from './support/redis';
import { WorkerProcess } from './support/worker';

const FOLDER = checkpointFolder('tiny-lcm');
/** Seconds without a sign of life after which a worker loses its jobs. */
const PATIENCE = 2;
/** A picture that takes seconds. */
const LONG = { scheduler: 'DDIMScheduler' as const, steps: 150 };

describe('a pool in trouble', function () {
  this.timeout(50_000);
  let redis: RedisServer;
  let workers: WorkerProcess[] = [];
  let pool: PoolCheckpoint;

  beforeEach(async () => {
    redis = await RedisServer.start();
  });
  afterEach(async () => {
    await pool?.close();
    await Promise.all(workers.map((worker) => worker.kill()));
    await redis.close();
    workers = [];
  });

  async function start(count: number, others: string[] = []): Promise<void> {
    const more = ['--patience', String(PATIENCE), ...others];
    workers = await Promise.all(Array.from({ length: count }, () => WorkerProcess.start(redis.url, FOLDER, more)));
    const wish = { identity: await identityOf(FOLDER) };
    pool = await openPool({ address: redis.address, pool: 'default', wish, called: 'it', patience: 60_000 });
  }

  /** A picture that is being drawn, and who draws it. */
  async function begin(seed = 1): Promise<{ drawn: Promise<string>; by: WorkerProcess; steps: number[] }> {
    const steps: number[] = [];
    const { options, ...request } = await composition(pool, seed);
    const drawing = sample(pool, {
      ...request,
      options: { ...options, ...LONG },
      onStep: ({ index }) => void steps.push(index),
    });
    const drawn = drawing.then(({ latents }) => bytesOf(latents));
    drawn.catch(() => undefined);
    await until(() => steps.length > 2, 'the first steps', 40);
    const look = redis.look();
    const { queue } = await holder(look);
    look.disconnect();
    return { drawn, by: queue, steps };
  }

  /** Who has the job that is active. */
  async function holder(look: ReturnType<RedisServer['look']>): Promise<{ queue: WorkerProcess }> {
    const [key] = await look.keys('multidiffusion:default:pictures-*:active');
    const [id] = await look.lrange(key, 0, 0);
    const worker = await look.hget(key.replace(/active$/, id), 'pb');
    const found = workers.find(({ output }) => worker && output.includes(worker));
    assert.ok(found, 'nobody has the job');
    return { queue: found };
  }

  /** The picture as it is drawn when nothing happens. */
  async function undisturbed(seed = 1): Promise<string> {
    const { options, ...request } = await composition(pool, seed);
    return bytesOf((await sample(pool, { ...request, options: { ...options, ...LONG } })).latents);
  }

  it('draws the picture of a killed worker with another, and tells no step twice', async () => {
    await start(2);
    const { drawn, by, steps } = await begin();
    await by.kill();
    const bytes = await drawn;
    assert.equal(bytes, await undisturbed());
    assert.deepEqual(
      steps,
      Array.from({ length: LONG.steps }, (_, i) => i + 1),
    );
  });

  it('draws the picture of a stopped worker with another; the one that comes back does no harm', async () => {
    await start(2);
    const { drawn, by } = await begin();
    by.signal('SIGSTOP');
    const bytes = await drawn;
    by.signal('SIGCONT');
    await by.says(/outcome=(lost|done|failed)|could not renew/, 30);
    assert.equal(await undisturbed(), bytes);
    await Promise.all([undisturbed(2), undisturbed(3)]);
  });

  it('gives a job up that two workers died of, and goes on with others', async () => {
    await start(3);
    const { drawn, by } = await begin();
    await by.kill();
    const look = redis.look();
    try {
      const rest = workers.filter((worker) => worker !== by);
      let second: WorkerProcess | undefined;
      await until(
        () => {
          void holder(look).then(
            ({ queue }) => (second = rest.includes(queue) ? queue : second),
            () => undefined,
          );
          return second !== undefined;
        },
        'another worker takes it',
        40,
      );
      await second!.kill();
    } finally {
      look.disconnect();
    }
    await assert.rejects(drawn, { code: 'PROCESS_DIED' });
    assert.ok(await undisturbed(2));
  });

  it('keeps what is asked while Redis is restarted, gracefully or not', async () => {
    await start(2);
    const expected = await undisturbed();
    for (const end of ['stop', 'kill'] as const) {
      const { drawn } = await begin();
      await redis[end]();
      await new Promise((resolve) => setTimeout(resolve, 1000));
      await redis.run();
      assert.equal(await drawn, expected, end);
    }
  });

  it('sends again what a Redis without memory of it has lost', async () => {
    await start(1);
    const expected = await undisturbed();
    const { drawn } = await begin();
    const look = redis.look();
    await look.flushall();
    look.disconnect();
    assert.equal(await drawn, expected);
  });

  it('drains at SIGTERM: ends its picture, or gives it back within its time', async () => {
    await start(2);
    const { drawn, by } = await begin();
    by.signal('SIGTERM');
    const bytes = await drawn;
    assert.equal((await by.ended).code, 0);
    assert.match(by.output, /kind=sample outcome=done/);
    const more = ['--patience', String(PATIENCE), '--drain', '0'];
    workers.push(await WorkerProcess.start(redis.url, FOLDER, more));
    const hasty = workers.at(-1)!;
    for (const worker of workers.slice(0, 2)) await worker.kill();
    const next = await begin();
    assert.equal(next.by, hasty);
    hasty.signal('SIGTERM');
    assert.equal((await hasty.ended).code, 0);
    assert.match(hasty.output, /kind=sample outcome=returned/);
    workers.push(await WorkerProcess.start(redis.url, FOLDER, ['--patience', String(PATIENCE)]));
    assert.equal(await next.drawn, bytes);
  });

  it('ends at SIGTERM while Redis is away, too', async () => {
    await start(1, ['--drain', '1']);
    await redis.stop();
    workers[0].signal('SIGTERM');
    assert.equal((await workers[0].ended).code, 0);
  });

  it('refuses a Redis that would throw jobs away, and says when its memory is full', async () => {
    await start(1);
    const look = redis.look();
    try {
      const request = await composition(pool, 1);
      await look.config('SET', 'maxmemory', '3mb');
      await look.config('SET', 'maxmemory-policy', 'noeviction');
      await assert.rejects(pool.encodePrompts(Array.from({ length: 50 }, (_, i) => `${'long '.repeat(19_000)} ${i}`)), {
        code: 'REDIS_FULL',
      });
      await look.config('SET', 'maxmemory', '200mb');
      await sample(pool, request);
      await look.config('SET', 'maxmemory-policy', 'allkeys-lru');
      const wish = { identity: pool.identity };
      await assert.rejects(openPool({ address: redis.address, pool: 'default', wish, called: 'it' }), {
        code: 'REDIS_UNFIT',
      });
      const refused = WorkerProcess.spawn(['--model', FOLDER, '--provider', 'cpu'], {
        MULTIDIFFUSION_REDIS: redis.url,
      });
      assert.equal((await refused.ended).code, 1);
      assert.match(refused.output, /noeviction/);
    } finally {
      look.disconnect();
    }
  });

  it('gives up the jobs of a client that is gone', async () => {
    await start(1);
    const { by, drawn } = await begin();
    const look = redis.look();
    await look.del(...(await look.keys('multidiffusion:default:client:*')));
    look.disconnect();
    await by.says(/kind=sample outcome=cancelled/, 20);
    await drawn.catch(() => undefined);
  });
});
