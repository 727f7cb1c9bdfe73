/** The lists of jobs of examples 06 and 14, by a clock of their own: what is kept, for how long, and for whom. */
import assert from 'node:assert/strict';
import { startFunction, type Any, type FunctionNode } from './support/function-node';
import { readExamples } from './support/package';

const MINUTE = 60_000;
const MIB = 2 ** 20;
const EXAMPLES = ['06-http.json', '14-web-page.json'];

const functionOf = (example: string, name: string): Any =>
  readExamples()
    .find(({ file }) => file === example)!
    .nodes.find((node) => node.type === 'function' && node.name === name);

/** An HTTP answer that is read when `drain` is called, and takes `room` writes before that. */
function answer(room = Infinity): Any {
  const handlers = new Map<string, () => void>();
  const res: Any = {
    lines: [] as string[],
    ended: false,
    destroyed: false,
    writableNeedDrain: false,
    writeHead() {},
    on: (event: string, call: () => void) => void handlers.set(event, call),
    once: (event: string, call: () => void) => void handlers.set(event, call),
    write(line: string) {
      res.lines.push(line);
      if (res.lines.length >= room) res.writableNeedDrain = true;
    },
    end: () => void (res.ended = true),
    destroy() {
      res.destroyed = true;
      handlers.get('close')?.();
    },
    drain() {
      room += 100;
      res.writableNeedDrain = false;
      handlers.get('drain')?.();
    },
    news: () => res.lines.filter((line: string) => line !== ':\n\n').map((line: string) => JSON.parse(line.slice(5))),
  };
  return res;
}

for (const example of EXAMPLES) {
  describe(`jobs of example ${example.slice(0, 2)}`, () => {
    let time: number;
    let jobs: FunctionNode;
    const begin = async (env: Record<string, string> = {}): Promise<void> => {
      time = 1_000_000;
      jobs = await startFunction(functionOf(example, 'jobs'), { env, now: () => time });
    };
    const accept = (job: string, client = 'c'): Promise<Any> =>
      jobs.run({ payload: { job, event: 'accepted' }, client });
    const tell = (job: string, event: string, more: object = {}): Promise<Any> =>
      jobs.run({ payload: { job, event, ...more } });
    const finish = async (job: string, client: string, bytes = 0): Promise<void> => {
      await accept(job, client);
      const picture = bytes ? { bytes: Buffer.alloc(bytes), type: 'image/png' } : undefined;
      await jobs.run({ payload: { job, event: 'done' }, picture });
    };
    const known = (): string[] => [...jobs.globals.jobs.keys()];
    const listen = async (job: string, res: Any): Promise<Any> =>
      jobs.run({
        req: { method: 'GET', params: { job }, path: `/jobs/${job}/events`, ip: 'c' },
        res: { _res: res },
        client: 'c',
      });
    beforeEach(() => begin());

    it('a job that is heard of no more is cancelled and has failed; news keep it', async () => {
      await accept('silent');
      await accept('slow');
      const res = answer();
      await listen('silent', res);
      time += 359 * MINUTE;
      await tell('slow', 'step', { index: 1 });
      jobs.tick();
      assert.deepEqual(jobs.sent, []);
      time += MINUTE;
      jobs.tick();
      assert.deepEqual(JSON.parse(JSON.stringify(jobs.sent)), [[null, { cancel: 'silent' }]]);
      const last = res.news().at(-1);
      assert.deepEqual([last.event, last.code, res.ended], ['failed', 'TIMEOUT', true]);
      assert.ok(!jobs.globals.jobs.get('slow').ended);
      // What it says after all changes nothing.
      await tell('silent', 'done');
      assert.ok(!jobs.globals.jobs.get('silent').news.has('done'));
    });

    it('STUCK_MINUTES and KEEP_MINUTES are its environment’s; what is no positive number is the default', async () => {
      await begin({ STUCK_MINUTES: '2', KEEP_MINUTES: '3' });
      await accept('silent');
      await finish('ended', 'd');
      time += 2 * MINUTE;
      jobs.tick();
      assert.equal(jobs.globals.jobs.get('silent').ended, true);
      assert.ok(known().includes('ended'));
      time += MINUTE + 1;
      jobs.tick();
      assert.ok(!known().includes('ended'));
      for (const odd of ['0', '-1', 'soon']) {
        await begin({ STUCK_MINUTES: odd, KEEP_MINUTES: odd });
        await accept('silent');
        await finish('ended', 'd');
        time += 59 * MINUTE;
        jobs.tick();
        assert.deepEqual(known(), ['silent', 'ended']);
        assert.ok(!jobs.globals.jobs.get('silent').ended);
      }
    });

    it('of a client twenty pictures and twenty failures are kept, the latest', async () => {
      for (let i = 0; i < 30; i++) {
        await finish(`well ${i}`, 'c');
        await accept(`badly ${i}`);
        await tell(`badly ${i}`, 'failed');
      }
      await finish('other', 'd');
      assert.equal(known().length, 41);
      assert.ok(known().includes('other') && known().includes('well 29') && known().includes('well 10'));
      assert.ok(!known().includes('well 9') && !known().includes('badly 9'));
    });

    it('2,000 jobs are kept in all; who has the most makes room, failures first', async () => {
      for (let i = 0; i < 10; i++) {
        await finish(`well ${i}`, 'greedy');
        await accept(`badly ${i}`, 'greedy');
        await tell(`badly ${i}`, 'failed');
      }
      for (let i = 0; i < 1985; i++)
        jobs.globals.jobs.set(`one ${i}`, {
          client: `client ${i}`,
          at: time,
          ended: true,
          news: new Map([['done', {}]]),
          listeners: new Set(),
        });
      jobs.tick();
      assert.equal(known().length, 2000);
      assert.equal(known().filter((job) => job.startsWith('one')).length, 1985);
      assert.equal(known().filter((job) => job.startsWith('well')).length, 10);
    });

    it('jobs that run are never forgotten, however many there are', async () => {
      for (let i = 0; i < 2100; i++) await accept(`runs ${i}`, `client ${i % 7}`);
      await finish('ended', 'd');
      jobs.tick();
      assert.equal(known().filter((job) => job.startsWith('runs')).length, 2100);
    });

    it('a listener that does not read gets no more until it has read, then the latest of each kind', async () => {
      await accept('job');
      await tell('job', 'started');
      const res = answer(3);
      await listen('job', res);
      const first = res.news().length;
      for (let index = 1; index <= 500; index++) await tell('job', 'step', { index });
      assert.equal(res.lines.length, 3);
      await tell('job', 'done');
      assert.deepEqual([res.lines.length, res.ended], [3, false]);
      res.drain();
      const got = res.news().map((news: Any) => news.index ?? news.event);
      assert.ok(first > 0 && got.includes('started'));
      assert.deepEqual(got.slice(first), [...Array.from({ length: 3 - first }, (_, i) => i + 1), 500, 'done']);
      assert.equal(res.ended, true);
    });

    it('a listener that never reads is left, and takes no place any more', async () => {
      await accept('job');
      await tell('job', 'started');
      const res = answer(1);
      await listen('job', res);
      for (let i = 0; i < 2; i++) jobs.tick();
      assert.equal(res.destroyed, false);
      jobs.tick();
      assert.equal(res.destroyed, true);
      assert.equal(jobs.globals.jobs.get('job').listeners.size, 0);
      assert.equal(res.lines.length, 1);
    });

    it('sixteen listeners of a client, and another when one has left', async () => {
      await accept('job');
      const open = Array.from({ length: 16 }, () => answer());
      for (const res of open) assert.equal(await listen('job', res), undefined);
      const [refused] = await listen('job', answer());
      assert.deepEqual([refused.statusCode, refused.payload.code], [429, 'TOO_MANY_LISTENERS']);
      open[3].destroy();
      assert.equal(await listen('job', answer()), undefined);
    });
  });
}

describe('pictures of example 06', () => {
  it('take 256 MB in all; who has the most makes room', async () => {
    const jobs = await startFunction(functionOf(EXAMPLES[0], 'jobs'));
    const finish = async (job: string, client: string, bytes: number): Promise<void> => {
      await jobs.run({ payload: { job, event: 'accepted' }, client });
      await jobs.run({ payload: { job, event: 'done' }, picture: { bytes: Buffer.alloc(bytes), type: 'image/png' } });
    };
    await finish('small', 'modest', MIB);
    for (let i = 0; i < 15; i++) await finish(`large ${i}`, 'greedy', 20 * MIB);
    const kept = [...jobs.globals.jobs.keys()];
    assert.deepEqual(kept, ['small', ...Array.from({ length: 12 }, (_, i) => `large ${i + 3}`)]);
  });
});

describe('addresses of example 06 behind a proxy', () => {
  const placeFor = async (originalUrl: string, prefix: unknown): Promise<string> => {
    const { run } = await startFunction(functionOf(EXAMPLES[0], 'open a job'));
    const headers = prefix === undefined ? {} : { 'x-forwarded-prefix': prefix };
    const [, , reply] = await run({ payload: {}, req: { headers, originalUrl, query: { wait: 'false' } }, res: {} });
    const { payload, headers: sent } = reply;
    assert.equal(payload.progress, sent.location);
    assert.equal(payload.events, `${sent.location}/events`);
    assert.equal(payload.picture, `${sent.location}/picture`);
    assert.ok(sent.location.endsWith(`/jobs/${payload.job}`));
    return sent.location.slice(0, -`/jobs/${payload.job}`.length);
  };
  const PATH = '/nodes/multidiffusion';

  for (const [prefix, wanted] of [
    [undefined, PATH],
    ['', PATH],
    ['/', PATH],
    ['/pictures', `/pictures${PATH}`],
    ['/pictures/', `/pictures${PATH}`],
    ['/outer, /inner', `/outer/inner${PATH}`],
    ['/a-b_c.d~e%20f', `/a-b_c.d~e%20f${PATH}`],
    // A proxy that leaves the prefix where it is.
    ['/nodes', PATH],
    // What is no path of this host is left out.
    ['//elsewhere.example', PATH],
    ['https://elsewhere.example', PATH],
    ['/a"><script>', PATH],
    ['/a\r\nset-cookie: b', PATH],
    ['/a/../..//b', PATH],
    ['relative', PATH],
  ] as const) {
    it(`x-forwarded-prefix ${JSON.stringify(prefix)}`, async () => {
      assert.equal(await placeFor(`${PATH}?wait=false`, prefix), wanted);
      assert.equal(await placeFor(`${PATH}/?wait=false`, prefix), wanted);
    });
  }
});
