import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { CancelledError, MultiDiffusionError } from '../../dist/engine/errors';
import { JobQueue, type JobContext, type JobOptions } from '../../dist/engine/queue/queue';

/** A job that ends when told to, or when it is cancelled. */
function controlled() {
  let end!: () => void;
  let started = false;
  const gate = new Promise<void>((resolve) => (end = resolve));
  const work = ({ signal }: JobContext): Promise<string> => {
    started = true;
    return new Promise((resolve, reject) => {
      void gate.then(() => resolve('made'));
      signal.addEventListener('abort', () => reject(signal.reason));
    });
  };
  return { work, end, hasStarted: () => started };
}

describe('job queue', () => {
  it('runs more jobs at once as soon as it may, and ends none when it may run fewer', async () => {
    const queue = new JobQueue();
    const jobs = [controlled(), controlled(), controlled()];
    const added = jobs.map(({ work }) => queue.add(work));
    await sleep(1);
    assert.deepEqual(
      added.map(({ state }) => state),
      ['running', 'queued', 'queued'],
    );
    queue.concurrency = 3;
    await sleep(1);
    assert.deepEqual(
      added.map(({ state }) => state),
      ['running', 'running', 'running'],
    );
    queue.concurrency = 1;
    const last = queue.add(controlled().work);
    for (const job of jobs.slice(0, 2)) job.end();
    await Promise.all(added.slice(0, 2).map(({ result }) => result));
    await sleep(1);
    assert.deepEqual([added[2].state, last.state], ['running', 'queued']);
    queue.close();
  });

  it('says of a job that took too long what it waited for, where that is known; and which job a signal ends', async () => {
    let reason = undefined as Error | undefined;
    const queue = new JobQueue({ explainTimeout: () => reason });
    const signals: AbortSignal[] = [];
    const never = ({ signal }: { signal: AbortSignal }): Promise<never> => (
      signals.push(signal), new Promise(() => undefined)
    );
    await assert.rejects(queue.add(never, { timeout: 10 }).result, { code: 'TIMEOUT' });
    reason = new MultiDiffusionError('NO_REDIS', 'away');
    const second = queue.add(never, { timeout: 50, priority: 3 });
    await sleep(1);
    assert.equal(queue.jobOf(signals[1]), second);
    assert.equal(queue.jobOf(undefined), undefined);
    await assert.rejects(second.result, reason);
    assert.equal(queue.jobOf(signals[1]), undefined);
  });

  it('runs one job at a time, in order', async () => {
    const queue = new JobQueue();
    let running = 0;
    const order: number[] = [];
    const jobs = Array.from({ length: 8 }, (_, i) =>
      queue.add(async () => {
        assert.equal(++running, 1);
        await sleep(1);
        running--;
        order.push(i);
        return i;
      }),
    );
    assert.deepEqual(await Promise.all(jobs.map((job) => job.result)), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert.deepEqual(order, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert.equal(queue.depth, 0);
  });

  it('runs as many jobs at a time as there are processes, and lets the others wait', async () => {
    const queue = new JobQueue({ concurrency: 2, limit: 1 });
    const work = [controlled(), controlled(), controlled()];
    const jobs = work.map((job, i) => queue.add(job.work, { id: String(i) }));
    await sleep(1);
    assert.deepEqual(
      work.map((job) => job.hasStarted()),
      [true, true, false],
    );
    assert.deepEqual(
      ['0', '1', '2'].map((id) => queue.position(id)),
      [0, 0, 2],
    );
    assert.throws(() => queue.add(controlled().work), { code: 'QUEUE_FULL' });
    work[1].end();
    await jobs[1].result;
    await sleep(1);
    assert.equal(jobs[2].state, 'running');
    assert.equal(queue.cancelAll(), 2);
    assert.equal(queue.depth, 0);
  });

  it('prefers higher priorities, and keeps the order within one', async () => {
    const queue = new JobQueue();
    const order: string[] = [];
    const add = (name: string, priority: number) => queue.add(async () => void order.push(name), { priority });
    const blocker = controlled();
    const first = queue.add(blocker.work);
    await sleep(0);
    const jobs = [add('low', -1), add('a', 0), add('high', 5), add('b', 0), add('higher', 9)];
    assert.equal(queue.position(jobs[4].id), 1);
    blocker.end();
    await Promise.all([first.result, ...jobs.map((job) => job.result)]);
    assert.deepEqual(order, ['higher', 'high', 'a', 'b', 'low']);
  });

  it('goes on after a job that fails', async () => {
    const queue = new JobQueue();
    const bad = queue.add(() => Promise.reject(new Error('no')));
    const thrown = queue.add(() => {
      throw new Error('at once');
    });
    const good = queue.add(async () => 'yes');
    await assert.rejects(bad.result, /no/);
    await assert.rejects(thrown.result, /at once/);
    assert.equal(await good.result, 'yes');
    assert.deepEqual([bad.state, thrown.state, good.state], ['failed', 'failed', 'done']);
  });

  it('refuses more than its limit, with a code', async () => {
    const queue = new JobQueue({ limit: 2 });
    const blocker = controlled();
    queue.add(blocker.work);
    await sleep(0);
    queue.add(blocker.work);
    queue.add(blocker.work);
    assert.throws(() => queue.add(blocker.work), { code: 'QUEUE_FULL' });
    assert.equal(queue.cancelAll(), 3);
  });

  for (const [overflow, victim] of [
    ['replace-newest', 2],
    ['replace-oldest', 1],
  ] as const) {
    it(`lets a new job replace a waiting one (${overflow})`, async () => {
      const queue = new JobQueue({ limit: 2, overflow });
      const blocker = controlled();
      const jobs = [queue.add(blocker.work)];
      await sleep(0);
      for (let i = 0; i < 3; i++) {
        jobs.push(queue.add(blocker.work));
        await sleep(2);
      }
      await assert.rejects(jobs[victim].result, { code: 'QUEUE_FULL' });
      blocker.end();
      const results = await Promise.allSettled(jobs.map((job) => job.result));
      assert.deepEqual(
        results.map(({ status }, i) => status === 'rejected' && i).filter((i) => i !== false),
        [victim],
      );
    });
  }

  it('takes the place of no job of a higher priority, and of the lowest first', async () => {
    const queue = new JobQueue({ limit: 2, overflow: 'replace-newest' });
    const blocker = controlled();
    queue.add(blocker.work);
    await sleep(0);
    const high = queue.add(blocker.work, { priority: 5 });
    const normal = queue.add(blocker.work);
    assert.throws(() => queue.add(blocker.work, { priority: -1 }), { code: 'QUEUE_FULL' });
    const urgent = queue.add(blocker.work, { priority: 9 });
    await assert.rejects(normal.result, { code: 'QUEUE_FULL' });
    blocker.end();
    await Promise.all([high.result, urgent.result]);
  });

  it('takes no more than its share of one client', async () => {
    const queue = new JobQueue({ perClient: 2 });
    const blocker = controlled();
    const mine = { client: 'me' };
    const jobs = [queue.add(blocker.work, mine), queue.add(blocker.work, mine)];
    assert.throws(() => queue.add(blocker.work, mine), { code: 'QUEUE_FULL', message: /This client has 2 jobs/ });
    jobs.push(
      queue.add(blocker.work, { client: 'you' }),
      queue.add(blocker.work),
      queue.add(blocker.work),
      queue.add(blocker.work),
    );
    queue.cancel(jobs[1].id);
    jobs[1] = queue.add(blocker.work, mine);
    blocker.end();
    await Promise.all(jobs.map((job) => job.result));
  });

  describe('lets clients take turns', () => {
    /** Queues jobs named by client and number behind one that runs, and gives the order in which they were done. */
    async function orderOf(
      asked: string[],
      options: (name: string) => JobOptions = () => ({}),
      whileRunning?: (name: string, add: (name: string) => void) => void,
    ): Promise<string> {
      const queue = new JobQueue({ limit: 1000 });
      const blocker = controlled();
      const done: string[] = [];
      const results: Array<Promise<unknown>> = [queue.add(blocker.work).result];
      await sleep(0);
      const add = (name: string): void => {
        const work = async (): Promise<void> => {
          done.push(name);
          whileRunning?.(name, add);
        };
        results.push(queue.add(work, { id: name, client: /^[a-z]+/.exec(name)![0], ...options(name) }).result);
      };
      asked.forEach(add);
      const foretold = queue.jobs.slice(1).map(({ id }) => id);
      blocker.end();
      for (let i = 0; i < results.length; i++) await results[i];
      if (!whileRunning) assert.deepEqual(foretold, done, 'what position told');
      return done.join(' ');
    }
    const many = (client: string, count: number): string[] =>
      Array.from({ length: count }, (_, i) => `${client}${i + 1}`);

    it('so that who asks for one thing does not wait for thirty of another', async () => {
      assert.equal(
        await orderOf([...many('a', 30), 'b1', 'c1']),
        ['a1', 'b1', 'c1', ...many('a', 30).slice(1)].join(' '),
      );
    });

    it('each in the order of its asking', async () => {
      assert.equal(await orderOf(['a1', 'a2', 'a3', 'b1', 'c1', 'b2', 'c2', 'a4']), 'a1 b1 c1 a2 b2 c2 a3 a4');
    });

    it('and nobody in particular takes turns with them as one client', async () => {
      const nobody = (name: string): JobOptions =>
        name.startsWith('x') || name.startsWith('y') ? { client: undefined } : {};
      assert.equal(await orderOf(['x1', 'y1', 'x2', 'y2'], nobody), 'x1 y1 x2 y2');
      assert.equal(await orderOf(['x1', 'y1', 'x2', 'a1', 'y2'], nobody), 'x1 a1 y1 x2 y2');
    });

    it('within one priority', async () => {
      const urgent = (name: string): JobOptions => ({ priority: Number(name.endsWith('2')) });
      assert.equal(await orderOf(['a1', 'a2', 'a12', 'b1', 'b2'], urgent), 'a2 b2 a12 a1 b1');
    });

    it('and who asks again and again keeps nobody from their turn', async () => {
      let more = 10;
      const again = (name: string, add: (name: string) => void): void => {
        if (/[bc]/.test(name) && more-- > 0) add(`${name[0]}${more + 10}`);
      };
      const order = (await orderOf(['b1', 'c1', ...many('a', 4)], undefined, again)).split(' ');
      assert.deepEqual(
        order.flatMap((name, i) => (name.startsWith('a') ? [i] : [])),
        [2, 5, 8, 11],
      );
    });

    it('whichever of their jobs are cancelled', async () => {
      const names = fc.constantFrom('a', 'b', 'c');
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.record({ client: names, cancelled: fc.boolean() }), { minLength: 1, maxLength: 30 }),
          async (asked) => {
            const queue = new JobQueue({ limit: 100 });
            const blocker = controlled();
            queue.add(blocker.work);
            await sleep(0);
            const done: number[] = [];
            const jobs = asked.map(({ client }, i) => queue.add(async () => void done.push(i), { client }));
            asked.forEach(({ cancelled }, i) => cancelled && queue.cancel(jobs[i].id));
            blocker.end();
            await Promise.allSettled(jobs.map((job) => job.result));
            assert.equal(done.length, asked.filter(({ cancelled }) => !cancelled).length);
            for (const client of ['a', 'b', 'c']) {
              const own = done.filter((i) => asked[i].client === client);
              assert.deepEqual(
                own,
                [...own].sort((one, other) => one - other),
                'the order of asking',
              );
            }
            // Whoever is not through yet comes up before anybody comes up twice.
            const turns = done.map((i) => asked[i].client);
            turns.forEach((client, at) => {
              const again = turns.indexOf(client, at + 1);
              for (const other of new Set(turns.slice(again + 1)))
                if (again > 0 && other !== client)
                  assert.ok(turns.slice(at + 1, again).includes(other), turns.join(' '));
            });
          },
        ),
        { numRuns: 200 },
      );
    });
  });

  it('cancels a waiting job, and a running one, and starts the next at once', async () => {
    const queue = new JobQueue();
    const [first, second, third] = [controlled(), controlled(), controlled()];
    const jobs = [queue.add(first.work), queue.add(second.work), queue.add(third.work)];
    await sleep(0);
    assert.ok(queue.cancel(jobs[1].id, 'not wanted'));
    await assert.rejects(jobs[1].result, { code: 'CANCELLED', message: 'not wanted' });
    assert.ok(queue.cancel(jobs[0].id));
    await assert.rejects(jobs[0].result, { code: 'CANCELLED' });
    await sleep(0);
    assert.ok(third.hasStarted());
    assert.ok(!second.hasStarted());
    assert.equal(queue.cancel(jobs[0].id), false);
    third.end();
    assert.equal(await jobs[2].result, 'made');
  });

  it('does not wait for work that ignores its signal', async () => {
    const queue = new JobQueue();
    const deaf = queue.add(() => sleep(5_000, undefined, { ref: false }));
    const next = queue.add(async () => 'next');
    await sleep(0);
    queue.cancel(deaf.id);
    assert.equal(await next.result, 'next');
    assert.equal(deaf.state, 'cancelled');
  });

  it('obeys a signal, before and after the start', async () => {
    const queue = new JobQueue();
    const early = new AbortController();
    early.abort();
    await assert.rejects(queue.add(async () => 1, { signal: early.signal }).result, { code: 'CANCELLED' });
    const late = new AbortController();
    const job = queue.add(controlled().work, { signal: late.signal });
    await sleep(0);
    late.abort(new CancelledError('The request was closed.'));
    await assert.rejects(job.result, { message: 'The request was closed.' });
  });

  it('ends a job that takes too long', async () => {
    const queue = new JobQueue();
    await assert.rejects(queue.add(controlled().work, { timeout: 5 }).result, { code: 'TIMEOUT' });
    assert.equal(queue.depth, 0);
  });

  it('refuses an id that is in use', () => {
    const queue = new JobQueue();
    queue.add(controlled().work, { id: 'mine' });
    assert.throws(() => queue.add(controlled().work, { id: 'mine' }), { code: 'INVALID_INPUT' });
    queue.cancelAll();
  });

  it('is not stopped by a listener that throws', async () => {
    const queue = new JobQueue();
    queue.once('done', () => {
      throw new Error('listener');
    });
    const jobs = [queue.add(async () => 1), queue.add(async () => 2)];
    assert.deepEqual(await Promise.all(jobs.map((job) => job.result)), [1, 2]);
  });

  it('ends every job exactly once, whatever happens', async () => {
    const action = fc.constantFrom('done', 'fail', 'cancel-before', 'cancel-while', 'signal', 'timeout', 'cancel-all');
    await fc.assert(
      fc.asyncProperty(fc.array(action, { minLength: 1, maxLength: 40 }), async (actions) => {
        const queue = new JobQueue({ limit: 20 });
        const ends = new Map<string, number>();
        for (const event of ['done', 'failed', 'cancelled'] as const) {
          queue.on(event, (job: { id: string }) => ends.set(job.id, (ends.get(job.id) ?? 0) + 1));
        }
        let refused = 0;
        const results: Promise<unknown>[] = [];
        const ids: string[] = [];
        for (const what of actions) {
          const abort = new AbortController();
          try {
            const job = queue.add(
              async ({ id, signal }) => {
                if (what === 'fail') throw new Error('fail');
                if (what === 'cancel-while') queue.cancel(id);
                if (what === 'signal') abort.abort();
                if (what === 'cancel-all') queue.cancelAll();
                if (what === 'timeout')
                  await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
              },
              { signal: abort.signal, timeout: what === 'timeout' ? 1 : undefined },
            );
            ids.push(job.id);
            results.push(job.result);
            if (what === 'cancel-before') queue.cancel(job.id);
          } catch (error) {
            assert.equal((error as { code: string }).code, 'QUEUE_FULL');
            refused++;
          }
        }
        await Promise.allSettled(results);
        assert.equal(ids.length + refused, actions.length);
        assert.deepEqual(
          ids.map((id) => ends.get(id)),
          ids.map(() => 1),
        );
        assert.equal(queue.depth, 0);
      }),
      { numRuns: 150 },
    );
  });
});
