/** What our nodes add to Node-RED's admin interface asks for the permission that it needs. */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import path from 'node:path';

/** As far as it is used here; it comes with Node-RED. */
interface Socket {
  on(event: 'message', listener: (data: unknown) => void): void;
  once(event: 'open' | 'close', listener: () => void): void;
  send(data: string): void;
  close(): void;
}
const WebSocket = createRequire(createRequire(require.resolve('node-red')).resolve('@node-red/editor-api'))('ws') as new (url: string) => Socket;

/** Node-RED's own answer to a user who is known but may not: 401 as well. */
const REFUSED = [401, 403];
/** May see everything and change nothing. */
const READER = 'may:read';
const EDITOR = 'may:read,flows.write';

/** Every route that our nodes add: what a request to it says, and how it is answered to one who may. */
const ROUTES: Record<string, { url: string; body?: unknown; answer: number }> = {
  'POST /multidiffusion/checks': { url: '/multidiffusion/checks', body: { checkpoint: 'folder', folder: '/nowhere' }, answer: 200 },
  'GET /multidiffusion/checks/:id': { url: '/multidiffusion/checks/CHECK', answer: 200 },
  'DELETE /multidiffusion/checks/:id': { url: '/multidiffusion/checks/CHECK', answer: 204 },
  'POST /multidiffusion/models/:id/unload': { url: '/multidiffusion/models/model/unload', answer: 204 },
};

describe('adminAuth', function () {
  this.timeout(120_000);
  let nodeRed: ChildProcess;
  let url: string;
  let routes: string[];

  before(async () => {
    nodeRed = spawn(process.execPath, [path.join(__dirname, 'support/admin.js')], { stdio: ['ignore', 'pipe', 'inherit'] });
    ({ url, routes } = JSON.parse(String((await once(nodeRed.stdout!, 'data'))[0])) as { url: string; routes: string[] });
  });
  after(async () => {
    if (nodeRed.exitCode !== null) return;
    nodeRed.kill('SIGTERM');
    await once(nodeRed, 'close');
  });

  const ask = (method: string, address: string, token?: string, body?: unknown): Promise<Response> =>
    fetch(url + address, {
      method,
      headers: { ...(token && { authorization: `Bearer ${token}` }), ...(body !== undefined && { 'content-type': 'application/json' }) },
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

  for (const [route, { url: address, body, answer }] of Object.entries(ROUTES)) {
    const [method] = route.split(' ');

    it(`${route} is for those who may deploy flows`, async () => {
      const target = address.replace('CHECK', await startCheck());
      assert.equal((await ask(method, target, undefined, body)).status, 401);
      assert.equal((await ask(method, target, 'unknown', body)).status, 401);
      for (const token of [READER, 'may:settings.write', 'may:']) {
        const { status } = await ask(method, target, token, body);
        assert.ok(REFUSED.includes(status), `${token} is answered with ${status}`);
      }
      assert.equal((await ask(method, target, EDITOR, body)).status, answer);
    });
  }

  it('a check that was refused is not carried out', async () => {
    const check = await startCheck();
    assert.ok(REFUSED.includes((await ask('DELETE', `/multidiffusion/checks/${check}`, READER)).status));
    assert.equal((await ask('GET', `/multidiffusion/checks/${check}`, EDITOR)).status, 200);
  });

  it('the panel is told of jobs only where somebody may see the status', async () => {
    const [nobody, stranger, without, reader] = await Promise.all([listen(), listen('unknown'), listen('may:flows.write'), listen(READER)]);
    await Promise.all([nobody.closed, stranger.closed, without.closed]);
    assert.equal((await ask('POST', '/inject/draw', 'may:*')).status, 200);
    await reader.heard(/"multidiffusion\/job".*"done"/);
    for (const { all } of [nobody, stranger, without]) assert.doesNotMatch(all(), /multidiffusion/);
    reader.close();
  });

  /** The editor's connection, with a token or without, subscribed to the panel's news. */
  async function listen(token?: string): Promise<{ all: () => string; heard: (what: RegExp) => Promise<void>; closed: Promise<void>; close: () => void }> {
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
});
