/** Flows whose diffusion-model runs on a pool: everything that takes a model works as with one that is loaded here. */
import assert from 'node:assert/strict';
import { Tensor } from '../../dist/engine/tensor';
import {
  closeModels,
  encode,
  getNode,
  helper,
  model,
  region,
  sampler,
  startFlow,
  stopFlow,
  TINY_LCM,
  type Any,
  type Flow,
  type FlowNode,
  type Message,
} from '../nodes/support/flow';
import { loop } from '../nodes/support/loop';
import { until } from '../unit/support/checkpoints';
import { bytesOf } from './support/pictures';
import { RedisServer } from './support/redis';
import { WorkerProcess } from './support/worker';

const SMALL = { width: 64, height: 64, steps: 3, bootstrapping: 0.5 };
/** The model's own scheduler knows no more than fifty steps. */
const LONG = { steps: 800, scheduler: 'DDIMScheduler' };
const PICTURE = Tensor.uint8(
  Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => (i * 7) % 256),
  [64, 64, 3],
);

const decode = (id: string, next: string): FlowNode => ({ id, type: 'vae-decode', model: 'model', wires: [[next]] });
const image = (id: string, next: string): FlowNode => ({
  id,
  type: 'vae-encode',
  model: 'model',
  ...SMALL,
  wires: [[next]],
});
const layout = (last: FlowNode[]): FlowNode[] => [
  encode('encode', 'a room', 'sofa-words'),
  encode('sofa-words', 'a sofa', 'sofa'),
  region('sofa', [0.1, 0.2, 0.5, 0.6], 'sampler'),
  ...last,
];

describe('nodes with a pool', function () {
  this.timeout(60_000);
  let redis: RedisServer;
  let worker: WorkerProcess;
  let flow: Flow;

  before(async () => {
    redis = await RedisServer.start();
    worker = await WorkerProcess.start(redis.url, TINY_LCM, ['--name', 'the worker']);
  });
  afterEach(stopFlow);
  afterEach(closeModels);
  after(async () => {
    await worker?.kill();
    await redis?.close();
  });

  const pooled = (more: object = {}): FlowNode => ({
    ...model('model', TINY_LCM),
    provider: 'pool',
    pool: 'default',
    ...more,
  });

  async function start(nodes: FlowNode[], settings: Message = {}, url = redis.url): Promise<Flow> {
    flow = await startFlow(nodes, { multidiffusion: settings }, { model: { redis: url } });
    return flow;
  }

  async function event(job: string, ...names: string[]): Promise<Message> {
    for (;;) {
      const { payload } = await flow.next('progress');
      if (payload.job === job && names.includes(payload.event)) return payload;
    }
  }

  /** What comes out of the same flow here and from the pool. */
  async function both(nodes: FlowNode[], msg: () => Message): Promise<[Message, Message]> {
    await start([model('model', TINY_LCM), ...nodes]);
    const here = await flow.ok('encode', msg());
    await stopFlow();
    await start([pooled(), ...nodes]);
    return [here, await flow.ok('encode', msg())];
  }

  function assertSame([here, there]: [Message, Message]): void {
    for (const name of ['latents', 'image'])
      if (here[name]) assert.equal(bytesOf(there[name]), bytesOf(here[name]), name);
    assert.deepEqual(there.findings, here.findings);
    const recipe = ({ generation: { created: _, timings: __, ...facts } }: Message): Message => facts;
    assert.deepEqual(recipe(there), recipe(here));
  }

  it('draw the same with built-in steps, and decode it', async () => {
    const pair = await both(layout([sampler('sampler', 'decode', SMALL), decode('decode', 'out')]), () => ({
      seed: 5,
    }));
    assert.ok(pair[1].image);
    assertSame(pair);
  });

  it('draw the same with wired steps', async () => {
    assertSame(await both(layout(loop('sampler', SMALL)), () => ({ seed: 5 })));
  });

  it('start from a picture, as they do here', async () => {
    const nodes = [
      encode('encode', 'a room', 'image'),
      image('image', 'sampler'),
      sampler('sampler', 'decode', { ...SMALL, strength: 0.7 }),
      decode('decode', 'out'),
    ];
    assertSame(await both(nodes, () => ({ image: PICTURE, seed: 1 })));
  });

  it('tell the same events, and send previews', async () => {
    const events: string[][] = [];
    for (const config of [model('model', TINY_LCM), pooled()]) {
      const nodes = layout([
        sampler('sampler', 'out', {
          ...SMALL,
          steps: 6,
          previewEvery: 2,
          wires: [['out'], [], ['progress'], ['previews']],
        }),
      ]);
      await start([config, ...nodes, { id: 'previews', type: 'helper' }]);
      await flow.ok('encode', { seed: 3, job: 'one' });
      const told = flow
        .all('progress')
        .map(({ payload }) => `${payload.event} ${payload.index ?? payload.position ?? ''}`);
      events.push([
        ...told,
        ...flow.all('previews').map(({ payload, index }) => `${index} ${payload.toString('base64')}`),
      ]);
      await stopFlow();
    }
    assert.deepEqual(events[1], events[0]);
    assert.equal(events[1].filter((line) => line.startsWith('step')).length, 6);
    assert.equal(events[1].length, 2 + 6 + 1 + 3);
  });

  it('let msg.priority go first and clients take turns, and refuse what the queue has no room for', async () => {
    await start([pooled(), ...layout([sampler('sampler', 'out', SMALL)])], { queueLimit: 5 });
    await flow.ok('encode', { seed: 1 });
    flow.send('encode', { job: 'blocker', ...LONG });
    await event('blocker', 'step');
    const asked: Message[] = [
      { job: 'a1', client: 'a' },
      { job: 'a2', client: 'a' },
      { job: 'b1', client: 'b' },
      { job: 'low', priority: -1 },
      { job: 'high', priority: 1 },
    ];
    for (const msg of asked) {
      flow.send('encode', msg);
      assert.ok((await event(msg.job, 'queued')).position >= 1);
    }
    flow.send('encode', { job: 'one more' });
    const refused = await flow.next('caught');
    assert.deepEqual([refused.job, refused.error.code], ['one more', 'QUEUE_FULL']);
    flow.send('sampler', { cancel: 'blocker' });
    assert.equal((await flow.next('caught')).error.code, 'CANCELLED');
    const order: string[] = [];
    while (order.length < 5) order.push((await flow.next()).job);
    assert.deepEqual(order, ['high', 'a1', 'b1', 'a2', 'low']);
  });

  it('cancel at msg.reset and when a job takes too long, and the worker stops', async () => {
    await start([pooled(), ...layout([sampler('sampler', 'out', SMALL)])], { jobTimeout: 6 });
    await flow.ok('encode', { seed: 1 });
    const stopped = (): number => worker.jobs.filter((line) => /outcome=cancelled/.test(line)).length;
    const before = stopped();
    flow.send('encode', { job: 'reset', ...LONG });
    await event('reset', 'step');
    flow.send('sampler', { reset: true });
    assert.equal((await flow.next('caught')).error.code, 'CANCELLED');
    flow.send('encode', { job: 'late', ...LONG, width: 384, height: 384 });
    assert.equal((await flow.next('caught')).error.code, 'TIMEOUT');
    await until(() => stopped() === before + 2, 'the worker gives both up');
    await flow.ok('encode', { seed: 1 });
  });

  it('load and unload: unloading ends this flow’s jobs', async () => {
    await start([pooled(), ...layout([sampler('sampler', 'out', SMALL)])]);
    flow.send('sampler', { load: true });
    await until(() => flow.statuses.some(({ id, text }) => id === 'sampler' && text === 'model loaded'), 'loaded');
    flow.send('encode', { ...LONG, job: 'long' });
    await event('long', 'step');
    flow.send('sampler', { unload: true });
    assert.equal((await flow.next('caught')).error.code, 'CANCELLED');
    await flow.ok('encode', { seed: 1 });
  });

  it('show the model check who has the model, on what it runs there, and what waits', async () => {
    const other = await WorkerProcess.start(redis.url, 'pocket', ['--name', 'another', '--lazy']);
    try {
      await start([pooled()]);
      const check = async (config: Message): Promise<Any> => {
        const { body } = await helper.request().post('/multidiffusion/checks').send(config).expect(200);
        for (;;) {
          const now = await helper.request().get(`/multidiffusion/checks/${body.check}`).expect(200);
          if (['done', 'failed'].includes(now.body.state)) return now.body;
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
      };
      const { type: _, id: __, ...config } = pooled();
      // A worker says every second what it does: the last test's job may still stand there.
      let state: string;
      let report: Any;
      do {
        await new Promise((resolve) => setTimeout(resolve, 1000));
        ({ state, report } = await check({ ...config, redis: redis.url }));
        assert.equal(state, 'done', JSON.stringify(report));
      } while (report.workers.some(({ busy }: Any) => busy));
      const [{ pictures, version, ...first }] = report.workers;
      assert.deepEqual(first, { name: 'the worker', provider: 'cpu', slots: 1, busy: 0, draining: false });
      assert.ok(pictures >= 0 && version);
      assert.deepEqual([report.pool, report.name, report.slots, report.waiting], ['default', 'tiny-lcm', 1, 0]);
      assert.deepEqual(report.others, [{ model: `pocket (${version})`, count: 1 }]);
      // The address that was deployed is used when the dialog does not show it.
      assert.equal((await check({ ...config, id: 'model', redis: '__PWRD__' })).state, 'done');
      assert.match((await check({ ...config, redis: '' })).message, /redis is missing/);
      assert.match((await check({ ...config, redis: 'http://me:secret@host' })).message, /redis:\/\/host:port/);
    } finally {
      await other.kill();
    }
  });

  it('wait for a worker that has the model, say so, and give up when the job’s time is over', async () => {
    await start([pooled({ pool: 'empty' }), ...layout([sampler('sampler', 'out', SMALL)])], { jobTimeout: 6 });
    assert.equal((await flow.fails('encode', {})).code, 'NO_WORKER');
    const shown = (id: string): string[] =>
      flow.statuses.filter((status) => status.id === id).map(({ text }) => text ?? '');
    assert.ok(shown('encode').includes('waiting for a worker'), shown('encode').join());
    assert.equal(shown('encode').at(-1), 'no worker');
    const late = WorkerProcess.start(redis.url, TINY_LCM, ['--pool', 'empty']);
    try {
      await late;
      await flow.ok('encode', { seed: 1 });
    } finally {
      await (await late).kill();
    }
  });

  it('wait for Redis, say so, and go on when it is back', async () => {
    await start([pooled(), ...layout([sampler('sampler', 'out', SMALL)])]);
    const expected = bytesOf((await flow.ok('encode', { seed: 2 })).latents);
    await redis.stop();
    flow.send('encode', { seed: 2, prompt: 'never encoded before' });
    flow.send('sampler', { seed: 2 });
    const shown = (text: string) => (): boolean => flow.statuses.some((status) => status.text === text);
    await until(shown('waiting for Redis'), 'the status', 20);
    await redis.run();
    const answers = [await flow.next(), await flow.next()];
    assert.equal(answers.length, 2);
    assert.equal(bytesOf((await flow.ok('encode', { seed: 2 })).latents), expected);
  });

  it('end with a code of their own when Redis does not come back, and at once when it refuses', async () => {
    await start([pooled(), ...layout([sampler('sampler', 'out', SMALL)])], { jobTimeout: 3 }, 'redis://127.0.0.1:1');
    const { code, message } = await flow.fails('encode', {});
    assert.equal(code, 'NO_REDIS');
    assert.match(message, /127\.0\.0\.1:1 can't be reached/);
    await stopFlow();
    await start([pooled(), ...layout([sampler('sampler', 'out', SMALL)])], {}, redis.url.replace('//', '//me:secret@'));
    const refused = await flow.fails('encode', {});
    assert.equal(refused.code, 'REDIS_REFUSED');
    assert.ok(!refused.message.includes('secret'));
    assert.equal(getNode('model').model.hindrance, undefined);
  });

  it('ask for the address where there is none', async () => {
    await start([pooled(), ...layout([sampler('sampler', 'out', SMALL)])], {}, '');
    assert.equal((await flow.fails('encode', {})).code, 'MISSING_INPUT');
  });
});
