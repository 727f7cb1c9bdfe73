/** What our nodes add to Node-RED's admin interface asks for the permission that it needs. */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import path from 'node:path';
import { readRecipe } from '../../dist/engine/image/metadata';

/** As far as it is used here; it comes with Node-RED. */
interface Socket {
  on(event: 'message', listener: (data: unknown) => void): void;
  once(event: 'open' | 'close', listener: () => void): void;
  send(data: string): void;
  close(): void;
}
const WebSocket = createRequire(createRequire(require.resolve('node-red')).resolve('@node-red/editor-api'))(
  'ws',
) as new (
  url: string,
) => Socket;

/** Node-RED's own answer to a user who is known but may not: 401 as well. */
const REFUSED = [401, 403];
/** May see everything and change nothing. */
const READER = 'may:read';
const EDITOR = 'may:read,flows.write';
/** May see everything and press the buttons of inject nodes. */
const INJECTOR = 'may:read,inject.write';

/** What compose's dialog asks for. */
const DRAWING = {
  node: 'compose',
  layout: { prompt: 'a sofa', seed: 3, regions: [{ prompt: 'a plant', box: [0, 0, 0.5, 0.5] }] },
  model: 'model',
  sampler: { width: 64, height: 64, steps: 2, bootstrapping: 0 },
};

/** Every route that our nodes add: what a request to it says, who may, and how it is answered then. */
const ROUTES: Record<string, { url: string; body?: unknown; may?: string; answer: number }> = {
  'POST /multidiffusion/checks': {
    url: '/multidiffusion/checks',
    body: { checkpoint: 'folder', folder: '/nowhere' },
    answer: 200,
  },
  'GET /multidiffusion/checks/:id': { url: '/multidiffusion/checks/CHECK', answer: 200 },
  'DELETE /multidiffusion/checks/:id': { url: '/multidiffusion/checks/CHECK', answer: 204 },
  'POST /multidiffusion/models/:id/unload': { url: '/multidiffusion/models/model/unload', body: {}, answer: 204 },
  'GET /multidiffusion/gallery': { url: '/multidiffusion/gallery', may: READER, answer: 200 },
  'GET /multidiffusion/pictures/:id': { url: '/multidiffusion/pictures/none', may: READER, answer: 404 },
  'GET /multidiffusion/pictures/:id/recipe': { url: '/multidiffusion/pictures/none/recipe', may: READER, answer: 404 },
  'GET /multidiffusion/jobs/:node/:job/look': {
    url: '/multidiffusion/jobs/sampler/none/look',
    may: READER,
    answer: 204,
  },
  'DELETE /multidiffusion/jobs/:node/:job': { url: '/multidiffusion/jobs/sampler/none', may: INJECTOR, answer: 404 },
  'GET /multidiffusion/models/:id/facts': { url: '/multidiffusion/models/model/facts', may: READER, answer: 200 },
  'POST /multidiffusion/drawings': { url: '/multidiffusion/drawings', body: DRAWING, may: INJECTOR, answer: 200 },
  'GET /multidiffusion/drawings/:id': { url: '/multidiffusion/drawings/DRAWING', may: INJECTOR, answer: 200 },
  'DELETE /multidiffusion/drawings/:id': { url: '/multidiffusion/drawings/DRAWING', may: INJECTOR, answer: 204 },
};

describe('adminAuth', function () {
  this.timeout(120_000);
  let nodeRed: ChildProcess;
  let url: string;
  let routes: string[];

  before(async () => {
    nodeRed = spawn(process.execPath, [path.join(__dirname, 'support/admin.js')], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    ({ url, routes } = JSON.parse(String((await once(nodeRed.stdout!, 'data'))[0])) as {
      url: string;
      routes: string[];
    });
  });
  after(async () => {
    if (nodeRed.exitCode !== null) return;
    nodeRed.kill('SIGTERM');
    await once(nodeRed, 'close');
  });

  const ask = (method: string, address: string, token?: string, body?: unknown): Promise<Response> =>
    fetch(url + address, {
      method,
      headers: {
        ...(token && { authorization: `Bearer ${token}` }),
        ...(body !== undefined && { 'content-type': 'application/json' }),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });

  /** A check that is under way. */
  async function startCheck(): Promise<string> {
    const answer = await ask('POST', '/multidiffusion/checks', EDITOR, { checkpoint: 'folder', folder: '/nowhere' });
    return ((await answer.json()) as { check: string }).check;
  }

  it('knows all routes that there are', () => {
    assert.deepEqual([...routes].sort(), Object.keys(ROUTES).sort());
  });

  /** A drawing that is under way, or has just ended. */
  async function startDrawing(): Promise<string> {
    const answer = await ask('POST', '/multidiffusion/drawings', INJECTOR, DRAWING);
    return ((await answer.json()) as { drawing: string }).drawing;
  }

  for (const [route, { url: address, body, may = EDITOR, answer }] of Object.entries(ROUTES)) {
    const [method] = route.split(' ');

    it(`${route} is for those who ${may}`, async () => {
      let target = address;
      if (target.endsWith('CHECK')) target = target.replace('CHECK', await startCheck());
      if (target.endsWith('DRAWING')) target = target.replace('DRAWING', await startDrawing());
      assert.equal((await ask(method, target, undefined, body)).status, 401);
      assert.equal((await ask(method, target, 'unknown', body)).status, 401);
      const others = [READER, EDITOR, INJECTOR].filter((token) => may !== READER && token !== may);
      for (const token of [...others, 'may:settings.write', 'may:status.read', 'may:']) {
        const { status } = await ask(method, target, token, body);
        assert.ok(REFUSED.includes(status), `${token} is answered with ${status}`);
      }
      assert.equal((await ask(method, target, may, body)).status, answer);
    });
  }

  it('a drawing that was refused is not cancelled, and draws what the layout draws', async () => {
    const drawing = await startDrawing();
    assert.ok(REFUSED.includes((await ask('DELETE', `/multidiffusion/drawings/${drawing}`, EDITOR)).status));
    const poll = async (): Promise<{ state: string; picture?: string; seed?: number; message?: string }> => {
      const answer = await ask('GET', `/multidiffusion/drawings/${drawing}`, INJECTOR);
      assert.equal(answer.status, 200);
      return (await answer.json()) as { state: string };
    };
    let news = await poll();
    while (!['done', 'failed', 'cancelled'].includes(news.state)) news = await poll();
    assert.equal(news.state, 'done', news.message);
    assert.equal(news.seed, 3);
    const png = Buffer.from(news.picture!.split(',')[1], 'base64');
    const recipe = (await readRecipe(png)) as { prompt: string; regions: Array<{ prompt: string }> };
    assert.deepEqual([recipe.prompt, recipe.regions[0].prompt], ['a sofa', 'a plant']);
  });

  it('a model that is not deployed has no facts, which is no error', async () => {
    assert.equal((await ask('GET', '/multidiffusion/models/none/facts', READER)).status, 204);
    assert.equal((await ask('GET', '/multidiffusion/models/sampler/facts', READER)).status, 204);
  });

  it('a check that was refused is not carried out', async () => {
    const check = await startCheck();
    assert.ok(REFUSED.includes((await ask('DELETE', `/multidiffusion/checks/${check}`, READER)).status));
    assert.equal((await ask('GET', `/multidiffusion/checks/${check}`, EDITOR)).status, 200);
  });

  it('the panel is told of jobs only where somebody may see the status', async () => {
    const [nobody, stranger, without, reader] = await Promise.all([
      listen(),
      listen('unknown'),
      listen('may:flows.write'),
      listen(READER),
    ]);
    await Promise.all([nobody.closed, stranger.closed, without.closed]);
    assert.equal((await ask('POST', '/inject/draw', 'may:*')).status, 200);
    await reader.heard(/"multidiffusion\/job".*"done"/);
    for (const { all } of [nobody, stranger, without]) assert.doesNotMatch(all(), /multidiffusion/);
    reader.close();
  });

  /** The editor's connection, with a token or without, subscribed to the panel's news. */
  async function listen(
    token?: string,
  ): Promise<{ all: () => string; heard: (what: RegExp) => Promise<void>; closed: Promise<void>; close: () => void }> {
    const socket = new WebSocket(`${url.replace('http', 'ws')}/comms`);
    let all = '';
    let onNews = (): void => {};
    socket.on('message', (data) => {
      all += String(data);
      onNews();
    });
    const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
    await new Promise<void>((resolve) => socket.once('open', () => resolve()));
    const heard = (what: RegExp): Promise<void> =>
      new Promise((resolve) => {
        onNews = () => what.test(all) && resolve();
        onNews();
      });
    if (token) socket.send(JSON.stringify({ auth: token }));
    if (token === READER) await heard(/"auth":"ok"/);
    socket.send(JSON.stringify({ subscribe: 'multidiffusion/job' }));
    return { all: () => all, heard, closed, close: () => socket.close() };
  }

  it('a page from elsewhere can ask for nothing: JSON only, which a browser asks for first', async () => {
    const posts = routes.filter((route) => route.startsWith('POST /multidiffusion/'));
    assert.ok(posts.length >= 3, posts.join());
    for (const route of posts) {
      const address = route.slice('POST '.length).replaceAll(/:\w+/g, 'model');
      for (const type of [
        undefined,
        'text/plain',
        'application/x-www-form-urlencoded',
        'multipart/form-data; boundary=x',
      ]) {
        const token = route.includes('drawings') ? INJECTOR : EDITOR;
        const answer = await fetch(url + address, {
          method: 'POST',
          headers: { authorization: `Bearer ${token}`, ...(type && { 'content-type': type }) },
          body: type && 'checkpoint=folder',
        });
        assert.equal(answer.status, 415, `${route} as ${type}`);
      }
    }
  });
});
