/**
 * npm run bench:pool [-- PART…]: what a pool costs and stands, as JSON. Starts Redis servers (redis-server) and workers of its
 * own on this machine. Parts: overhead, scaling, faults, memory; by default all. bench/README.md says what the figures mean.
 *
 *   --pairs N      overhead: pictures on this machine's own process, and as many on the pool (default 24)
 *   --pictures N   faults: pictures (default 500); memory takes four times as many
 *   --seed N       of what happens in faults (default 1)
 */
import os from 'node:os';
import { parseArgs } from 'node:util';
import { openCheckpoint, sample } from '../dist/engine';
import { identityOf } from '../dist/engine/pool/identity';
import { openPool, type PoolCheckpoint } from '../dist/engine/pool/model';
import { bytesOf, composition } from '../test/pool/support/pictures';
import { RedisServer } from '../test/pool/support/redis';
import { WorkerProcess } from '../test/pool/support/worker';
import {
  livingRoom,
  median,
  MODEL,
  perPicture,
  POCKET,
  readCounters,
  rounded,
  seeded,
  sleep,
  startStandIns,
} from './pool/machine';
import { openStandIn } from './pool/stand-in';

const PARTS = { overhead: measureOverhead, scaling: measureScaling, faults: measureFaults, memory: measureMemory };
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    pairs: { type: 'string', default: '24' },
    pictures: { type: 'string', default: '500' },
    seed: { type: 'string', default: '1' },
  },
});
/** A row of the stand-in, and a picture's. */
const WAIT = 50;
const STEPS = 20;
const PICTURES_EACH = 6;
const STAND_IN = '5'.repeat(32);
const WORKERS = 4;

function open(redis: RedisServer, identity: string): Promise<PoolCheckpoint> {
  return openPool({ address: redis.address, pool: 'default', wish: { identity }, called: 'it', patience: 60_000 });
}

/** What a pool adds to a picture of the bundled model: one on this machine's own process, one on a worker, in turns. */
async function measureOverhead() {
  const redis = await RedisServer.start();
  const own = await openCheckpoint(POCKET, { provider: 'cpu', threads: 1 });
  const worker = await WorkerProcess.start(redis.url, POCKET);
  const pool = await open(redis, await identityOf(POCKET));
  const look = redis.look();
  try {
    const request = await livingRoom(own);
    const draw = async (checkpoint: typeof own, seed: number): Promise<[number, string]> => {
      const started = performance.now();
      const { latents } = await checkpoint.queue.add(({ signal }) =>
        sample(checkpoint, { ...request(seed), signal, onStep: () => undefined }),
      ).result;
      return [performance.now() - started, bytesOf(latents)];
    };
    for (const seed of [1, 2]) for (const checkpoint of [own, pool]) await draw(checkpoint, seed);
    const here: number[] = [];
    const there: number[] = [];
    let same = 0;
    const before = await readCounters(look);
    for (let pair = 0; pair < Number(values.pairs); pair++) {
      const seed = 100 + pair;
      const order = pair % 2 ? [pool, own] : [own, pool];
      const found = new Map<unknown, string>();
      for (const checkpoint of order) {
        const [took, bytes] = await draw(checkpoint, seed);
        (checkpoint === own ? here : there).push(took);
        found.set(checkpoint, bytes);
      }
      if (found.get(own) === found.get(pool)) same++;
    }
    const differences = there.map((took, i) => took - here[i]);
    const sorted = [...differences].sort((a, b) => a - b);
    return {
      pairs: here.length,
      ownMilliseconds: rounded(median(here), 1),
      poolMilliseconds: rounded(median(there), 1),
      overheadMilliseconds: rounded(median(differences), 1),
      overheadQuartiles: [0.25, 0.75].map((part) => rounded(sorted[Math.floor(part * (sorted.length - 1))], 1)),
      overheadPercent: rounded((100 * median(differences)) / median(here), 2),
      samePictures: same,
      redisPerPicture: perPicture(before, await readCounters(look), here.length),
      goal: 'at most 30 ms and 3 %',
    };
  } finally {
    look.disconnect();
    await pool.close();
    await own.close();
    await worker.kill();
    await redis.close();
  }
}

/** Throughput of 1 to 16 workers whose model only waits, of as many times that of one without a pool. */
async function measureScaling() {
  const alone = await openStandIn(WAIT);
  const real = await openCheckpoint(MODEL, { provider: 'cpu', threads: 1 });
  const { background } = await composition(real, 1);
  await real.close();
  const request = (seed: number) => ({
    background,
    options: { seed, steps: STEPS, width: 64, height: 64, scheduler: 'DDIMScheduler' as const },
  });
  await sample(alone, request(0));
  const started = performance.now();
  for (let seed = 1; seed <= PICTURES_EACH; seed++) await sample(alone, request(seed));
  const one = (performance.now() - started) / PICTURES_EACH;
  const rows = [];
  for (const count of [1, 2, 4, 8, 16]) {
    const redis = await RedisServer.start();
    const look = redis.look();
    // Two processes, as there are cores; each worker has connections of its own.
    const shares = count === 1 ? [1] : [Math.ceil(count / 2), Math.floor(count / 2)];
    const children = await Promise.all(
      shares.map((share) => startStandIns(redis.url, [String(share), String(WAIT), STAND_IN])),
    );
    const pool = await open(redis, STAND_IN);
    try {
      while (pool.queue.concurrency < count) await sleep(50);
      const draw = (seed: number): Promise<unknown> =>
        pool.queue.add(({ signal }) => sample(pool, { ...request(seed), signal, onStep: () => undefined })).result;
      const all = async (from: number, pictures: number): Promise<void> => {
        let next = from;
        // As many as are drawn wait behind them.
        await Promise.all(
          Array.from({ length: 2 * count }, async () => {
            while (next < from + pictures) await draw(next++);
          }),
        );
      };
      await all(1, count);
      const idle = await readCounters(look);
      await sleep(4000);
      const before = await readCounters(look);
      const pictures = count * PICTURES_EACH;
      const begun = performance.now();
      await all(1000, pictures);
      const took = performance.now() - begun;
      rows.push({
        workers: count,
        pictures,
        picturesPerSecond: rounded((1000 * pictures) / took),
        ofIdealPercent: rounded((100 * PICTURES_EACH * one) / took, 1),
        redisPerPicture: perPicture(before, await readCounters(look), pictures),
        idleOperationsPerSecond: rounded((before.operations - idle.operations) / 4, 0),
      });
    } finally {
      look.disconnect();
      await pool.close();
      for (const child of children) child.kill('SIGKILL');
      await redis.close();
    }
  }
  return { pictureWithoutPoolMilliseconds: rounded(one, 1), rows, goal: 'at least 95 % of the ideal' };
}

/** Pictures while workers are killed, stopped and continued at random, and Redis is restarted twice. */
async function measureFaults() {
  const total = Number(values.pictures);
  const random = seeded(Number(values.seed));
  const redis = await RedisServer.start();
  const args = ['--patience', '2'];
  const identity = await identityOf(MODEL);
  const own = await openCheckpoint(MODEL, { provider: 'cpu', threads: 1 });
  const base = await composition(own, 0, 30);
  const request = (seed: number) => ({ ...base, options: { ...base.options, seed, previewEvery: 0 } });
  const expected: string[] = [];
  for (let seed = 0; seed < total; seed++) expected.push(bytesOf((await sample(own, request(seed))).latents));
  await own.close();

  const workers = await Promise.all(Array.from({ length: WORKERS }, () => WorkerProcess.start(redis.url, MODEL, args)));
  const everybody = [...workers];
  const pool = await open(redis, identity);
  const happened = { kills: 0, stops: 0, redisRestarts: 0 };
  let ended = 0;
  let over = false;
  const endings = new Array<number>(total).fill(0);
  const outcome = { same: 0, other: 0, failed: {} as Record<string, number>, stepsTwice: 0 };

  /** Disturbs every `step`th worker, one at a time. */
  async function disturb(first: number, step: number): Promise<void> {
    while (!over) {
      await sleep(300 + 1200 * random());
      if (over) return;
      const at = first + step * Math.floor((random() * WORKERS) / step);
      const worker = workers[at];
      if (random() < 0.5) {
        happened.kills++;
        await worker.kill();
        workers[at] = await WorkerProcess.start(redis.url, MODEL, args);
        everybody.push(workers[at]);
      } else {
        happened.stops++;
        worker.signal('SIGSTOP');
        await sleep(500 + 4000 * random());
        worker.signal('SIGCONT');
      }
    }
  }
  async function restart(): Promise<void> {
    for (const [when, end] of [
      [0.3, 'stop'],
      [0.65, 'kill'],
    ] as const) {
      while (ended < when * total && !over) await sleep(20);
      if (over) return;
      happened.redisRestarts++;
      await redis[end]();
      await sleep(1000);
      await redis.run();
    }
  }
  const started = performance.now();
  const disturbing = Promise.all([disturb(0, 2), disturb(1, 2), restart()]);
  try {
    const ask = async (seed: number): Promise<void> => {
      let told = 0;
      try {
        const { latents } = await sample(pool, {
          ...request(seed),
          onStep: ({ index }) => {
            if (index <= told) outcome.stepsTwice++;
            told = index;
          },
        });
        outcome[bytesOf(latents) === expected[seed] ? 'same' : 'other']++;
      } catch (error) {
        const { code = 'none' } = error as { code?: string };
        outcome.failed[code] = (outcome.failed[code] ?? 0) + 1;
      }
      endings[seed]++;
      ended++;
    };
    let next = 0;
    // Twice as many as there are workers, so that some wait in Redis whatever happens.
    await Promise.all(
      Array.from({ length: 2 * WORKERS }, async () => {
        while (next < total) await ask(next++);
      }),
    );
  } finally {
    over = true;
    await disturbing;
  }
  const seconds = (performance.now() - started) / 1000;
  const left = redis.look();
  const jobs = (await left.keys('*')).filter((key) => /:result:|-v\d+:[0-9a-f-]{36}-\d+/.test(key)).length;
  left.disconnect();
  await pool.close();
  await Promise.all(workers.map((worker) => worker.kill()));
  await redis.close();
  const lines = everybody.flatMap((worker) => worker.jobs);
  const count = (what: string): number => lines.filter((line) => line.includes(`outcome=${what}`)).length;
  return {
    pictures: total,
    ...happened,
    seconds: rounded(seconds, 0),
    lost: endings.filter((times) => times === 0).length,
    twice: endings.filter((times) => times > 1).length,
    sameBytes: outcome.same,
    otherBytes: outcome.other,
    failed: outcome.failed,
    stepsToldTwice: outcome.stepsTwice,
    workersSaid: { done: count('done'), lost: count('lost'), failed: count('failed') },
    keysOfJobsLeft: jobs,
    goal: '0 lost, 0 twice, all bytes the same',
  };
}

/** Redis's memory after more and more pictures, and at its peak. */
async function measureMemory() {
  const total = 4 * Number(values.pictures);
  const redis = await RedisServer.start(['--auto-aof-rewrite-percentage', '0']);
  const workers = await Promise.all([0, 1].map(() => WorkerProcess.start(redis.url, MODEL)));
  const pool = await open(redis, await identityOf(MODEL));
  const look = redis.look();
  let peak = 0;
  const clock = setInterval(() => {
    void readCounters(look).then(
      ({ memory }) => (peak = Math.max(peak, memory)),
      () => undefined,
    );
  }, 250);
  try {
    const base = await composition(pool, 0, 2);
    let before = await readCounters(look);
    const start = before;
    const marks = [];
    let seed = 0;
    for (let quarter = 1; quarter <= 8; quarter++) {
      const until = (quarter * total) / 8;
      await Promise.all(
        Array.from({ length: 4 }, async () => {
          while (seed < until) await sample(pool, { ...base, options: { ...base.options, seed: seed++ } });
        }),
      );
      await sleep(1000);
      const now = await readCounters(look);
      marks.push({ pictures: seed, megabytes: rounded(now.memory / 1e6, 3), keys: now.keys });
      before = now;
    }
    return {
      pictures: seed,
      atStart: { megabytes: rounded(start.memory / 1e6, 3), keys: start.keys },
      marks,
      peakMegabytes: rounded(peak / 1e6, 2),
      redisPerPicture: perPicture(start, before, seed),
      goal: 'flat',
    };
  } finally {
    clearInterval(clock);
    look.disconnect();
    await pool.close();
    await Promise.all(workers.map((worker) => worker.kill()));
    await redis.close();
  }
}

async function main(): Promise<void> {
  const chosen = positionals.length > 0 ? positionals : Object.keys(PARTS);
  for (const part of chosen)
    if (!Object.hasOwn(PARTS, part)) throw new Error(`${part} is none of ${Object.keys(PARTS).join(', ')}`);
  const report: Record<string, unknown> = {
    node: process.version,
    cpus: `${os.cpus().length} × ${os.cpus()[0].model}`,
    load: rounded(os.loadavg()[0]),
  };
  for (const part of chosen) report[part] = await PARTS[part as keyof typeof PARTS]();
  console.log(JSON.stringify(report, null, 2));
}

main().catch((error: Error) => {
  console.error(error);
  process.exit(1);
});
