/** Examples 06 and 14 as strangers use them: what one client asks costs another nothing, and every request is answered. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { startNodeRed, temporaryFolder } from '../../scripts/lib/headless';
import { readRecipe } from '../../dist/engine';
import { readFlow } from '../../scripts/lib/flow';

type NodeRed = Awaited<ReturnType<typeof startNodeRed>>;
const examples = path.join(__dirname, '..', '..', 'examples');
const flows = ['06-http.json', '14-web-page.json'].flatMap((file) => readFlow(path.join(examples, file)));
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
/** Where pictures are asked for without waiting. */
const ENTRIES = ['/multidiffusion?wait=false', '/studio/jobs'];

describe('strangers at the examples', function () {
  this.timeout(120_000);
  let nodeRed: NodeRed;
  before(async () => {
    nodeRed = await startNodeRed({ userDir: temporaryFolder(), onLog: () => undefined });
    await nodeRed.deploy(flows);
  });
  after(() => nodeRed.stop());

  const post = (place: string, body: string | object): Promise<Response> =>
    fetch(nodeRed.url + place, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: typeof body === 'string' ? body : JSON.stringify(body),
      signal: AbortSignal.timeout(20_000),
    });
  const get = (place: string): Promise<Response> => fetch(nodeRed.url + place);
  const open = async (place: string, body: object): Promise<{ job: string; picture: string; progress: string }> =>
    (await (await post(place, body)).json()) as { job: string; picture: string; progress: string };
  const finished = async (picture: string): Promise<Response> => {
    for (;;) {
      const answer = await get(picture);
      if (answer.status !== 409) return answer;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };

  /** Why a job fails that nobody waits for. */
  const failureOf = async (place: string, body: string): Promise<string> => {
    const answer = await post(place, body);
    assert.equal(answer.status, 202);
    const { job } = (await answer.json()) as { job: string };
    const events = await get(`${place.split('?')[0].replace(/\/jobs$/, '')}/jobs/${job}/events`);
    const news = (await events.text()).split('\n').filter((line) => line.startsWith('data:'));
    const last = JSON.parse(news.at(-1)!.slice(5)) as { event: string; code: string; error: string };
    assert.deepEqual([last.event, last.code], ['failed', 'INVALID_INPUT']);
    return last.error;
  };

  it('job ids are random by cryptography', async () => {
    for (const place of ENTRIES) {
      const ids = new Set<string>();
      for (let i = 0; i < 20; i++) ids.add((await open(place, { prompt: 5 })).job);
      assert.equal(ids.size, 20);
      for (const id of ids) assert.match(id, UUID);
    }
  });

  it('a layout nested deep is answered, whether one waits or not', async () => {
    for (const levels of [100, 3000, 10_000, 100_000]) {
      for (const beside of ['"prompt":5', '"prompt":"a","steps":1', '"regions":[{}]']) {
        const body = `{${beside},"x":${'['.repeat(levels)}${']'.repeat(levels)}}`;
        const answer = await post('/multidiffusion', body);
        assert.equal(answer.status, 400, `${levels}`);
        assert.equal(((await answer.json()) as { code: string }).code, 'INVALID_INPUT');
        for (const place of ENTRIES)
          assert.match(await failureOf(place, body), /payload is nested too deep.*64 levels/);
      }
    }
  });

  it('4 MB of what is made to cost, and as much of what is not', async () => {
    const of = (more: unknown): string => JSON.stringify({ prompt: 'a', width: 64, height: 64, steps: 1, more });
    const costs = [of(Array.from({ length: 1_400_000 }, () => ({}))), of(Array.from({ length: 40_000 }, () => [1, 2]))];
    for (const body of costs) {
      const answer = await post('/multidiffusion', body);
      assert.equal(answer.status, 400);
      assert.match(((await answer.json()) as { error: string }).error, /too long.*15000 lists and objects/);
      for (const place of ENTRIES) assert.match(await failureOf(place, body), /too long.*15000 lists and objects/);
    }
    assert.equal((await post('/multidiffusion', of(Array.from({ length: 400_000 }, () => 1)))).status, 200);
    assert.equal((await post('/multidiffusion', of('[{'.repeat(2_000_000)))).status, 200);
  });

  it('a form is a layout, too', async () => {
    const fields = { prompt: 'a d\u00f6g & more', width: '64', height: '64', steps: '1', seed: '7' };
    const regions = JSON.stringify([{ prompt: 'a sofa', box: [0, 0, 0.5, 0.5] }]);
    const answer = await fetch(`${nodeRed.url}/multidiffusion`, {
      method: 'POST',
      body: new URLSearchParams({ ...fields, regions }),
    });
    assert.equal(answer.status, 200);
    const recipe = await readRecipe(Buffer.from(await answer.arrayBuffer()));
    assert.deepEqual([recipe?.prompt, recipe?.seed], ['a d\u00f6g & more', 7]);
    assert.deepEqual(recipe?.regions?.[0].box, [0, 0, 0.5, 0.5]);
  });

  it('refused requests and stuck ones push no finished picture out', async () => {
    const { picture } = await open(ENTRIES[0], { prompt: 'a dog', steps: 1 });
    assert.equal((await finished(picture)).status, 200);
    for (let i = 0; i < 130; i++) await post(ENTRIES[0], { prompt: i % 2 ? 5 : 'a', steps: i % 2 ? 1 : -1 });
    assert.equal((await get(picture)).status, 200);
  });

  it('what failed is told to who asked, the latest at least', async () => {
    const { progress } = await open(ENTRIES[0], { prompt: 5 });
    const answer = (await (await get(progress)).json()) as { event: string; code: string };
    assert.deepEqual([answer.event, answer.code], ['failed', 'INVALID_INPUT']);
  });

  it('a client has so many listeners and no more', async () => {
    const { job } = await open(ENTRIES[1], { prompt: 'a dog', steps: 900, width: 256, height: 256 });
    const stop = new AbortController();
    const statuses: number[] = [];
    for (let i = 0; i < 18; i++)
      statuses.push((await fetch(`${nodeRed.url}/studio/jobs/${job}/events`, { signal: stop.signal })).status);
    assert.deepEqual(statuses, [...Array<number>(16).fill(200), 429, 429]);
    stop.abort();
    await fetch(`${nodeRed.url}/studio/jobs/${job}`, { method: 'DELETE' });
  });

  it('a deploy answers who still waits', async () => {
    const waiting = post('/multidiffusion', { prompt: 'a dog', steps: 900, width: 256, height: 256 });
    await new Promise((resolve) => setTimeout(resolve, 700));
    await nodeRed.deploy(flows);
    const answer = await waiting;
    assert.ok([410, 503].includes(answer.status), String(answer.status));
    assert.equal(((await answer.json()) as { code: string }).code, 'CANCELLED');
  });
});
