import assert from 'node:assert/strict';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { acquireCheckpoint } from '../../dist/engine';
import { orAborted } from '../../dist/nodes/shared/tasks';
import { until } from '../unit/support/checkpoints';
import {
  closeModels,
  deploy,
  encode,
  events,
  getNode,
  model,
  sampler,
  startFlow,
  stopFlow,
  TINY,
  type Any,
  type Flow,
  type FlowNode,
  type Message,
} from './support/flow';

const LONG = 800;
const nodes = (): FlowNode[] => [model(), encode('encode', 'a sofa', 'sampler'), sampler('sampler', 'out')];

const renamed = (all: FlowNode[], id: string): FlowNode[] =>
  all.map((node) => (node.id === id ? { ...node, name: 'changed' } : node));

/** Waits for the job's event on the progress output. */
async function event(flow: Flow, job: string, name: string): Promise<Message> {
  for (;;) {
    const { payload } = await flow.next('progress');
    if (payload.job === job && payload.event === name) return payload;
  }
}

const listening = (server: http.Server): Promise<void> =>
  new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));

describe('cancelling', function () {
  this.timeout(60_000);
  let flow: Flow;
  beforeEach(async () => {
    flow = await startFlow(nodes());
  });
  afterEach(stopFlow);
  after(closeModels);

  it('by msg.reset ends the running job and the waiting ones, each with one error; the next one works', async () => {
    flow.send('encode', { job: 'a', steps: LONG });
    flow.send('encode', { job: 'b', steps: LONG });
    flow.send('encode', { job: 'c', steps: LONG });
    await event(flow, 'a', 'step');
    flow.send('encode', { reset: true }); // through text-encode, which hands it on
    const errors = [await flow.next('caught'), await flow.next('caught'), await flow.next('caught')];
    assert.deepEqual(
      errors.map(({ error }) => error.code),
      ['CANCELLED', 'CANCELLED', 'CANCELLED'],
    );
    assert.deepEqual(errors.map(({ job }) => job).sort(), ['a', 'b', 'c']);
    assert.match(errors[0].error.message, /msg\.reset/);
    assert.equal(flow.statuses.at(-1)!.text, 'cancelled');
    assert.equal(flow.statuses.at(-1)!.fill, 'grey');
    assert.equal((await flow.ok('encode', { job: 'd' })).job, 'd');
    assert.equal(flow.all('out').length + flow.all('caught').length, 0);
  });

  it('by msg.cancel ends the job of that id, and the next in the queue starts', async () => {
    flow.send('encode', { job: 'a', steps: LONG });
    flow.send('encode', { job: 'b', steps: 2 });
    await event(flow, 'a', 'step');
    flow.send('sampler', { cancel: 'nobody' });
    flow.send('sampler', { cancel: 'a' });
    assert.equal((await flow.next('caught')).job, 'a');
    await event(flow, 'a', 'cancelled');
    assert.equal((await flow.next('out')).job, 'b');
  });

  it('by msg.cancel tells in a warning which id no job had', async () => {
    flow.send('sampler', { cancel: 'nobody' });
    flow.send('encode', { cancel: 7 }); // through text-encode, which hands it on
    await flow.ok('encode', { job: 'a' });
    assert.match(
      flow.warnings.join('\n'),
      /^msg\.cancel is "nobody", but no sampler has had a job.*\nmsg\.cancel is 7, but/,
    );
    assert.equal(flow.statuses.at(-1)!.text, 'done');
  });

  it("by msg.cancel is no mistake at other samplers than the job's, nor after its end", async () => {
    await deploy(flow, [...nodes(), sampler('other', 'out')]);
    flow.send('encode', { job: 'b', steps: LONG });
    await event(flow, 'b', 'step');
    for (const id of ['other', 'sampler', 'other']) flow.send(id, { cancel: 'b' });
    assert.equal((await flow.next('caught')).job, 'b');
    for (const id of ['other', 'sampler']) flow.send(id, { cancel: 'b' });
    await flow.ok('encode', {});
    assert.deepEqual(flow.warnings, []);
  });

  it('shows the place in the queue', async () => {
    flow.send('encode', { job: 'a', steps: LONG });
    flow.send('encode', { job: 'b', steps: 1 });
    assert.deepEqual((await event(flow, 'b', 'queued')).position, 1);
    await event(flow, 'a', 'step');
    assert.ok(flow.statuses.some(({ text }) => text === 'queued: 1'));
    flow.send('sampler', { cancel: 'a' });
    await flow.next('out');
  });

  it('follows when the HTTP client goes away, without a word to Catch', async () => {
    const server = http.createServer((_, res) => flow.send('encode', { job: 'a', steps: LONG, res: { _res: res } }));
    try {
      await listening(server);
      const request = http.get({ port: (server.address() as AddressInfo).port, host: '127.0.0.1' });
      request.on('error', () => {});
      await event(flow, 'a', 'step');
      request.destroy();
      assert.equal((await flow.ok('encode', { job: 'b' })).job, 'b');
      assert.equal(flow.all('caught').length, 0);
      assert.equal(flow.all('out').length, 0);
    } finally {
      server.close();
    }
  });

  it('does not follow when the client has had its answer', async () => {
    const server = http.createServer((_, res) => {
      flow.send('encode', { job: 'a', steps: 20, res: { _res: res } });
      res.end('202');
    });
    try {
      await listening(server);
      const request = http.get(
        { port: (server.address() as AddressInfo).port, host: '127.0.0.1', agent: false },
        (response) => response.resume(),
      );
      await new Promise((resolve) => request.once('close', resolve));
      assert.equal((await flow.next('out')).job, 'a');
    } finally {
      server.close();
    }
  });

  it('follows a deploy; the model stays loaded, and the new flow works', async () => {
    await flow.ok('encode', {});
    const lease = acquireCheckpoint(TINY, { provider: 'cpu', threads: 1 });
    const { pid } = await lease.get();
    assert.ok(pid);
    for (let i = 0; i < 5; i++) {
      flow.send('encode', { job: `old ${i}`, steps: LONG });
      await event(flow, `old ${i}`, 'step');
      lease.release();
      await deploy(flow, nodes());
    }
    assert.equal((await flow.ok('encode', { job: 'new' })).job, 'new');
    assert.equal(flow.all('out').length + flow.all('caught').length, 0);
    const again = acquireCheckpoint(TINY, { provider: 'cpu', threads: 1 });
    const checkpoint = await again.get();
    assert.equal(checkpoint.pid, pid);
    assert.equal(checkpoint.queue.depth, 0);
    again.release();
  });

  it('follows when the sampler alone is deployed anew, and what stays is told: the progress output and Catch', async () => {
    flow.send('encode', { job: 'old', steps: LONG });
    await event(flow, 'old', 'step');
    flow.send('encode', { job: 'waiting', steps: LONG });
    await event(flow, 'waiting', 'queued');
    await deploy(flow, renamed(nodes(), 'sampler'), 'nodes');
    const cancelled: string[] = [];
    while (cancelled.length < 2) {
      const { payload } = await flow.next('progress');
      if (payload.event === 'cancelled') cancelled.push(payload.job);
    }
    assert.deepEqual(cancelled.sort(), ['old', 'waiting']);
    const caught = [await flow.next('caught'), await flow.next('caught')];
    assert.deepEqual(caught.map(({ job }) => job).sort(), ['old', 'waiting']);
    for (const { error } of caught) {
      assert.equal(error.code, 'CANCELLED');
      assert.match(error.message, /The node was removed or redeployed\./);
    }
    assert.equal((await flow.ok('encode', { job: 'new', steps: 2 })).job, 'new');
    assert.equal(flow.all('caught').length, 0);
  });

  describe('leaves no status of work that goes on no more', () => {
    /** What the editor shows under each node: Node-RED keeps it over a deploy. */
    const shown = new Map<string, { fill?: string; text?: string }>();
    const keep = ({ id, status = {} }: { id: string; status?: Any }): unknown => shown.set(id, status);
    const busy = (): string[] =>
      [...shown].filter(([, { fill }]) => fill === 'blue').map(([id, { text }]) => `${id}: ${text}`);
    const wired = (): FlowNode[] => [
      model(),
      encode('encode', 'a sofa', 'sampler'),
      sampler('sampler', 'out', { stepMode: 'wired', wires: [['out'], ['bootstrap'], ['progress']] }),
      { id: 'bootstrap', type: 'multidiffusion-bootstrap', wires: [['denoise']] },
      { id: 'denoise', type: 'multidiffusion-denoise', wires: [['fuse']] },
      { id: 'fuse', type: 'multidiffusion-fuse', wires: [['sampler']] },
    ];
    before(() => events.on('node-status', keep));
    after(() => events.off('node-status', keep));
    beforeEach(() => shown.clear());

    for (const [name, flowOf] of [
      ['built-in steps', nodes],
      ['wired steps', wired],
    ] as const) {
      for (const [what, end] of [
        ['a full deploy', () => deploy(flow, flowOf())],
        ['a deploy of the sampler alone', () => deploy(flow, renamed(flowOf(), 'sampler'), 'nodes')],
        ['msg.reset', () => flow.send('sampler', { reset: true })],
      ] as const) {
        it(`${name}: ${what}`, async () => {
          await deploy(flow, flowOf());
          flow.send('encode', { job: 'old', steps: LONG });
          await event(flow, 'old', 'step');
          await until(() => /^\d+\/800/.test(shown.get('sampler')?.text ?? ''), 'the step is shown');
          flow.send('encode', { job: 'waiting', steps: LONG });
          await event(flow, 'waiting', 'queued');
          await end();
          await until(() => busy().length === 0, busy().join());
          assert.deepEqual(shown.get('sampler'), { fill: 'grey', shape: 'ring', text: 'cancelled' });
        });
      }
    }

    it('a full deploy while the model is being loaded', async () => {
      await stopFlow();
      await closeModels();
      flow = await startFlow(nodes());
      flow.send('encode', {});
      await until(() => shown.get('encode')?.fill === 'blue', 'it loads');
      await deploy(flow, nodes());
      assert.deepEqual(
        busy().filter((text) => !text.startsWith('model')),
        [],
      );
    });
  });

  it('leaves every job with exactly one end, whatever happens to it', async () => {
    const names = Array.from({ length: 120 }, (_, i) => `job ${i}`);
    const ends = new Map<string, string[]>();
    const listen = (id: string, what: (msg: Message) => string | undefined): void =>
      getNode(id).on('input', (msg: Any) => {
        const end = what(msg);
        if (end) ends.set(msg.job, [...(ends.get(msg.job) ?? []), end]);
      });
    listen('out', () => 'done');
    listen('caught', (msg) => msg.error.code);
    names.forEach((job, i) => flow.send('encode', { job, steps: i % 7 === 3 ? -1 : 1, width: 64, height: 64 }));
    for (let i = 0; i < names.length; i += 5) setTimeout(() => flow.send('sampler', { cancel: names[i] }), i);
    while (ends.size < names.length) await new Promise((resolve) => setTimeout(resolve, 20));
    await flow.ok('encode', { job: 'last', steps: 1 });
    for (const job of names) assert.equal(ends.get(job)?.length, 1, `${job}: ${String(ends.get(job))}`);
    const found = new Set([...ends.values()].flat());
    assert.ok(found.has('done') && found.has('INVALID_INPUT') && found.has('QUEUE_FULL'), [...found].join());
  });
});

describe('work that nobody waits for any longer', () => {
  it('may fail: that is no unhandled rejection, which would end Node-RED', async () => {
    const unhandled: unknown[] = [];
    const listeners = process.listeners('unhandledRejection');
    process.removeAllListeners('unhandledRejection').on('unhandledRejection', (reason) => unhandled.push(reason));
    try {
      const early = Promise.reject(new Error('too late'));
      await assert.rejects(orAborted(early, AbortSignal.abort(new Error('cancelled'))), /^Error: cancelled$/);
      const control = new AbortController();
      const late = orAborted(
        nextTurn().then(() => Promise.reject(new Error('too late'))),
        control.signal,
      );
      control.abort(new Error('cancelled'));
      await assert.rejects(late, /^Error: cancelled$/);
      await nextTurn();
      await nextTurn();
    } finally {
      process.removeAllListeners('unhandledRejection');
      for (const listener of listeners) process.on('unhandledRejection', listener);
    }
    assert.deepEqual(unhandled, []);
  });
});
