import assert from 'node:assert/strict';
import {
  closeModels,
  encode,
  getNode,
  model,
  sampler,
  startFlow,
  stopFlow,
  type Any,
  type Flow,
  type FlowNode,
  type Message,
} from './support/flow';

const LONG = 800;
const small = { width: 64, height: 64, steps: 1 };
const nodes = (): FlowNode[] => [model(), encode('encode', 'a sofa', 'sampler'), sampler('sampler', 'out', small)];

async function event(flow: Flow, job: string, ...names: string[]): Promise<Message> {
  for (;;) {
    const { payload } = await flow.next('progress');
    if (payload.job === job && names.includes(payload.event)) return payload;
  }
}

describe('queue', function () {
  this.timeout(60_000);
  let flow: Flow;
  const start = async (multidiffusion: Message = {}): Promise<void> => {
    flow = await startFlow(nodes(), { multidiffusion });
    await flow.ok('encode', { job: 'first' });
  };
  /** A job that runs until it is cancelled. */
  const block = async (): Promise<void> => {
    flow.send('encode', { job: 'blocker', steps: LONG });
    await event(flow, 'blocker', 'step');
  };
  afterEach(stopFlow);
  afterEach(closeModels); // the queue's settings are those of the first who loads the model

  it('lets msg.priority go first, and keeps the order within one', async () => {
    await start();
    await block();
    const priorities = { low: -1, a: undefined, high: '5', b: 0, highest: 7 };
    for (const [job, priority] of Object.entries(priorities)) {
      flow.send('encode', { job, priority });
      await event(flow, job, 'queued');
    }
    flow.send('sampler', { cancel: 'blocker' });
    const order: string[] = [];
    while (order.length < 5) order.push((await flow.next()).job);
    assert.deepEqual(order, ['highest', 'high', 'a', 'b', 'low']);
    assert.equal((await flow.next('caught')).job, 'blocker');
    assert.match(
      (await flow.fails('encode', { priority: 'urgent' })).message,
      /priority is "urgent"; allowed: a number/,
    );
    assert.equal((await flow.fails('encode', { priority: NaN })).code, 'INVALID_INPUT');
  });

  it('keeps the order of messages that take long to prepare and messages that do not', async () => {
    await start();
    const { conditioning } = await flow.ok('encode', {});
    const regions = Array.from({ length: 40 }, (_, i) => ({
      name: `region ${i}`,
      conditioning,
      shape: { ellipse: [0, 0, 1, 1] },
      start: 0.99,
    }));
    const order: string[] = [];
    getNode('progress').on('input', ({ payload }: Any) => payload.event === 'queued' && order.push(payload.job));
    flow.send('sampler', { job: 'heavy', conditioning, regions });
    for (const job of ['light', 'wrong', 'last'])
      flow.send('sampler', { job, conditioning, steps: job === 'wrong' ? -1 : 1 });
    assert.equal((await flow.next('caught')).job, 'wrong');
    assert.deepEqual(
      [(await flow.next()).job, (await flow.next()).job, (await flow.next()).job],
      ['heavy', 'light', 'last'],
    );
    assert.deepEqual(order, ['heavy', 'light', 'last']);
  });

  it("lets clients take turns: who asks for one picture does not wait for all of somebody else's", async () => {
    await start();
    await block();
    const jobs = ['a1', 'a2', 'a3', 'a4', 'b1', 'b2', 'c1'];
    for (const job of jobs) flow.send('encode', { job, client: job[0] });
    assert.equal((await event(flow, 'c1', 'queued')).position, 3);
    flow.send('sampler', { cancel: 'blocker' });
    const order: string[] = [];
    while (order.length < jobs.length) order.push((await flow.next()).job);
    assert.deepEqual(order, ['a1', 'b1', 'c1', 'a2', 'b2', 'a3', 'a4']);
  });

  it('begins in front of the queue: of a flood of messages, as many wait in a node as may', async () => {
    flow = await startFlow(nodes(), { multidiffusion: { maxWaitingMessages: 20 } });
    // The model is loaded meanwhile.
    for (let i = 0; i < 300; i++) flow.send('encode', { job: `job ${i}` });
    flow.send('encode', { cancel: 'nobody' });
    const ends = new Map<string, number>();
    for (let i = 0; i < 280; i++) {
      const { job, error } = await flow.next('caught');
      assert.deepEqual([error.code, error.source.id], ['QUEUE_FULL', 'encode']);
      assert.match(error.message, /20 messages are waiting in this node.*maxWaitingMessages/);
      ends.set(job, (ends.get(job) ?? 0) + 1);
    }
    for (let i = 0; i < 20; i++) assert.equal((await flow.next()).job, `job ${i}`);
    assert.equal(ends.size, 280);
    assert.ok([...ends.keys()].every((job) => Number(job.slice(4)) >= 20));
    assert.equal((await flow.ok('encode', { job: 'later' })).job, 'later');
  });

  it('is left at once by a message that is cancelled while others are prepared before it', async () => {
    await start();
    const { conditioning } = await flow.ok('encode', {});
    const regions = Array.from({ length: 60 }, () => ({
      name: 'region',
      conditioning,
      shape: { ellipse: [0, 0, 1, 1] },
      start: 0.99,
    }));
    flow.send('sampler', { job: 'heavy', conditioning, regions });
    flow.send('sampler', { job: 'cancelled', conditioning });
    flow.send('sampler', { job: 'last', conditioning });
    flow.send('sampler', { cancel: 'cancelled' });
    const { job, error } = await flow.next('caught');
    assert.deepEqual([job, error.code], ['cancelled', 'CANCELLED']);
    assert.equal(
      flow.all('progress').filter(({ payload }) => payload.event === 'queued' && payload.job === 'heavy').length,
      0,
      'heavy is still being prepared',
    );
    assert.deepEqual([(await flow.next()).job, (await flow.next()).job], ['heavy', 'last']);
  });

  it('tells the place and how many there are, in the event and in the status', async () => {
    await start();
    await block();
    flow.send('encode', { job: 'a' });
    flow.send('encode', { job: 'b' });
    const { position, depth } = await event(flow, 'b', 'queued');
    assert.deepEqual({ position, depth }, { position: 2, depth: 3 });
    await event(flow, 'blocker', 'step');
    for (let i = 0; i < 500 && !flow.statuses.some(({ text }) => / \+2$/.test(text ?? '')); i++)
      await event(flow, 'blocker', 'step');
    assert.ok(flow.statuses.some(({ text }) => /^\d+\/800 · [\d.]+\/s \+2$/.test(text ?? '')));
    flow.send('sampler', { cancel: 'blocker' });
    const { generation } = await flow.next();
    assert.ok(generation.timings.queue >= 0 && generation.timings.sample >= 0);
    assert.ok((await event(flow, 'b', 'done')).timings.queue > 0);
  });

  for (const [queueOverflow, victim] of [
    ['refuse', 'c'],
    ['replace-newest', 'b'],
    ['replace-oldest', 'a'],
  ]) {
    it(`that is full: ${queueOverflow}`, async () => {
      await start({ queueLimit: 2, queueOverflow });
      await block();
      for (const job of ['a', 'b', 'c']) flow.send('encode', { job });
      const { error, job } = await flow.next('caught');
      assert.deepEqual([error.code, job], ['QUEUE_FULL', victim]);
      assert.match(error.message, /2 jobs are waiting already/);
      await event(flow, victim, 'failed');
      flow.send('sampler', { cancel: 'blocker' });
      assert.equal((await flow.next('caught')).job, 'blocker');
      const others = [(await flow.next()).job, (await flow.next()).job];
      assert.deepEqual(
        others,
        ['a', 'b', 'c'].filter((name) => name !== victim),
      );
    });
  }

  it('lets a client have its share, by msg.client or by address', async () => {
    await start({ maxJobsPerClient: 2 });
    await block();
    const from = (ip: string): Message => ({ req: { ip } });
    const jobs: Array<[string, Message]> = [
      ['a1', { client: 'a' }],
      ['a2', { client: 'a' }],
      ['a3', { client: 'a' }],
      ['b1', { client: 'b' }],
      ['c1', from('10.0.0.1')],
      ['c2', from('10.0.0.1')],
      ['c3', from('10.0.0.1')],
      ['d1', { req: { socket: { remoteAddress: '10.0.0.2' } } }],
      ['c4', { ...from('10.0.0.1'), client: 'c' }],
      ['e1', {}],
      ['e2', {}],
      ['e3', {}],
    ];
    for (const [job, asker] of jobs) {
      flow.send('encode', { job, ...asker });
      await event(flow, job, 'queued', 'failed');
    }
    const refused = [await flow.next('caught'), await flow.next('caught')];
    assert.deepEqual(
      refused.map(({ job, error }) => [job, error.code]),
      [
        ['a3', 'QUEUE_FULL'],
        ['c3', 'QUEUE_FULL'],
      ],
    );
    assert.match(refused[0].error.message, /This client has 2 jobs/);
    flow.send('sampler', { cancel: 'blocker' });
    for (let i = 0; i < jobs.length - 2; i++) await flow.next();
    assert.equal((await flow.next('caught')).job, 'blocker');
    await flow.ok('encode', { client: 'a' });
  });

  it('ends a job that takes longer than jobTimeout; the next one works', async () => {
    await start({ jobTimeout: 5 });
    flow.send('encode', { job: 'slow', steps: LONG, width: 384, height: 384 });
    flow.send('encode', { job: 'next' });
    const { error } = await flow.next('caught');
    assert.equal(error.code, 'TIMEOUT');
    assert.match(error.message, /longer than its 5 seconds/);
    assert.equal((await event(flow, 'slow', 'failed')).code, 'TIMEOUT');
    assert.equal((await flow.next()).job, 'next');
  });

  it('says what is wrong in settings.js', async () => {
    flow = await startFlow(nodes(), { multidiffusion: { queueOverflow: 'explode' } });
    assert.match(
      (await flow.fails('encode', {})).message,
      /queueOverflow is "explode"; allowed: one of refuse, replace-newest, replace-oldest/,
    );
  });

  it('gives each of thousands of jobs exactly one end, on the wire and on the progress output', async () => {
    await start({ queueLimit: 30, queueOverflow: 'replace-oldest', maxJobsPerClient: 12, maxWaitingMessages: 3000 });
    const count = 2000;
    const wire = new Map<string, string[]>();
    const told = new Map<string, string[]>();
    const note = (ends: Map<string, string[]>, job: string, end: string): void =>
      void ends.set(job, [...(ends.get(job) ?? []), end]);
    getNode('out').on('input', (msg: Any) => note(wire, msg.job, 'done'));
    getNode('caught').on('input', (msg: Any) => note(wire, msg.job, msg.error.code));
    let queued = 0;
    getNode('progress').on('input', ({ payload }: Any) => {
      if (/done|failed|cancelled/.test(payload.event)) note(told, payload.job, payload.event);
      if (payload.event === 'queued' && ++queued % 13 === 0) flow.send('sampler', { cancel: payload.job });
    });
    const names = Array.from({ length: count }, (_, i) => `job ${i}`);
    for (const [i, job] of names.entries()) {
      flow.send('encode', {
        job,
        steps: i % 11 === 3 ? -1 : 1,
        priority: i % 3,
        client: `client ${i % 50 ? i % 7 : 'x'}`,
      });
      if (i === 1500) flow.send('sampler', { reset: true });
      // The queue is full by then.
      while (i % 100 === 0 && wire.size < i - 50) await new Promise((resolve) => setTimeout(resolve, 5));
    }
    while (names.some((job) => !wire.has(job) || !told.has(job)))
      await new Promise((resolve) => setTimeout(resolve, 20));
    await flow.ok('encode', { job: 'last' });
    const all = [...wire.values()].flat();
    const of = (end: string): number => all.filter((found) => found === end).length;
    const same: Record<string, string> = { done: 'done', CANCELLED: 'cancelled' };
    for (const job of names) {
      const [end, ...more] = wire.get(job)!;
      assert.deepEqual(more, [], job);
      assert.deepEqual(told.get(job), [same[end] ?? 'failed'], job);
    }
    for (const end of ['done', 'CANCELLED', 'QUEUE_FULL', 'INVALID_INPUT'])
      assert.ok(of(end) > 10, `${end}: ${of(end)}`);
  });
});
