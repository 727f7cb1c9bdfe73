/** Example 14 as its page uses it, by HTTP; test/editor/web-page.test.ts is the page itself. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import sharp from 'sharp';
import { readRecipe } from '../../dist/engine/image/metadata';
import { exampleLayout, readFlow, type FlowNode } from '../../scripts/lib/flow.js';
import { startNodeRed, temporaryFolder } from '../../scripts/lib/headless.js';
import { allEvents, readEvents, watchListeners, type News } from './support/events';

const flow = readFlow(path.join(__dirname, '..', '..', 'examples', '14-web-page.json'));
const layout = { ...(exampleLayout(flow) as { seed: number }), steps: 4 };

interface Picture {
  name: string;
  prompt: string;
}

describe('14 by its page', function () {
  this.timeout(120_000);
  const images = temporaryFolder();
  const written = path.join(images, '14-web-page');
  const userDir = temporaryFolder();
  let nodeRed: Awaited<ReturnType<typeof startNodeRed>>;
  let url: string;

  before(async () => {
    const contextStorage = {
      default: { module: 'memory' },
      disk: { module: 'localfilesystem', config: { flushInterval: 1 } },
    };
    nodeRed = await startNodeRed({ images, userDir, onLog: () => {}, settings: { contextStorage } });
    url = `${nodeRed.url}/studio`;
    await nodeRed.deploy(flow);
  });
  after(() => nodeRed.stop());

  async function draw(body: unknown): Promise<string> {
    const answer = await fetch(`${url}/jobs`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    assert.equal(answer.status, 202);
    return ((await answer.json()) as { job: string }).job;
  }
  const follow = (job: string, init?: RequestInit): Promise<Response> => fetch(`${url}/jobs/${job}/events`, init);
  const end = async (job: string): Promise<News> => (await allEvents(await follow(job))).at(-1)!;
  const gallery = async (): Promise<Picture[]> => (await (await fetch(`${url}/gallery`)).json()) as Picture[];
  const node = (name: string): FlowNode => flow.find((candidate) => (candidate.name ?? candidate.label) === name)!;
  /** A request for a path that is sent as it is: fetch would tidy it up. */
  const statusOf = (pathname: string): Promise<number> =>
    new Promise((resolve, reject) => {
      const { hostname, port } = new URL(url);
      http
        .get({ hostname, port, path: pathname }, (answer) => resolve(answer.resume().statusCode!))
        .on('error', reject);
    });

  it('leads from its address with a slash at the end to the one without', async () => {
    const answer = await fetch(`${url}/`, { redirect: 'manual' });
    assert.equal(answer.status, 302);
    assert.equal(new URL(answer.headers.get('location')!, `${url}/`).href, url);
    const page = await fetch(`${url}/`);
    assert.match(page.headers.get('content-type')!, /^text\/html/);
    assert.match(await page.text(), /^<!doctype html>/);
  });

  it('is one page that asks for nothing from elsewhere', async () => {
    const answer = await fetch(url);
    assert.equal(answer.status, 200);
    assert.match(answer.headers.get('content-type')!, /^text\/html/);
    assert.match(answer.headers.get('content-security-policy')!, /default-src 'none'/);
    const page = await answer.text();
    assert.match(page, /^<!doctype html>\n<html lang="en">/);
    assert.doesNotMatch(page, /https?:\/\/|\{\{/);
  });

  it('has the composer beside it, and no other file of the package', async () => {
    const page = await (await fetch(url)).text();
    const parts = [...page.matchAll(/(?:src|href)="(multidiffusion\/[^"]+)"/g)].map(([, part]) => part);
    assert.deepEqual(parts, ['multidiffusion/composer.css', 'multidiffusion/composer.js']);
    for (const part of parts) {
      const answer = await fetch(new URL(part, url));
      assert.equal(answer.status, 200);
      assert.match(answer.headers.get('content-type')!, part.endsWith('css') ? /^text\/css/ : /^text\/javascript/);
      assert.ok(answer.headers.get('etag'), 'a browser need not load it again');
    }
    for (const other of ['dialog.js', '..%2fgallery.js', '..%2f..%2fpackage.json'])
      assert.equal((await fetch(new URL(`multidiffusion/${other}`, url))).status, 404, other);
  });

  it('tells how a job goes, in order, and then the picture is in the gallery', async () => {
    const before = (await gallery()).length;
    const job = await draw(layout);
    const events = await allEvents(await follow(job));
    assert.ok(events.every((news) => news.job === job));
    const names = events.map(({ event }) => event);
    assert.deepEqual(
      [...new Set(names.filter((event) => event !== 'preview'))],
      ['queued', 'started', 'step', 'done'],
      names.join(),
    );
    const preview = events.find(({ event }) => event === 'preview')!;
    const { format } = await sharp(
      Buffer.from(String(preview.picture).replace('data:image/png;base64,', ''), 'base64'),
    ).metadata();
    assert.equal(format, 'png');

    const { picture, seed } = events.at(-1)!;
    assert.equal(seed, layout.seed);
    const pictures = await gallery();
    assert.equal(pictures.length, before + 1);
    assert.deepEqual(pictures[0], { name: picture, prompt: 'a living room' });
    const answer = await fetch(`${url}/gallery/${picture}`);
    assert.equal(answer.headers.get('content-type'), 'image/png');
    const bytes = Buffer.from(await answer.arrayBuffer());
    assert.ok(bytes.equals(fs.readFileSync(path.join(written, String(picture)))));
    assert.equal((await readRecipe(bytes))!.regions!.length, 2);
  });

  it('shows nothing but the pictures that it has written', async () => {
    fs.writeFileSync(path.join(images, 'private.png'), 'private');
    const [{ name }] = await gallery();
    const tricks = [
      'private.png',
      `..%2f${path.basename(images)}%2f${name}`,
      `.%2f${name}`,
      `..%5c${name}`,
      `${name}%00`,
      `${name}%00.png`,
      '..%2f..%2f..%2fetc%2fpasswd',
      '%2fetc%2fpasswd',
      `../gallery/../${name}`,
      '__proto__',
      'constructor',
      '%20',
    ];
    for (const trick of tricks) {
      const status = await statusOf(`/studio/gallery/${trick}`);
      assert.ok(status === 404 || status === 400, `${trick} is answered with ${status}`);
    }
    assert.equal(await statusOf(`/studio/gallery/${name}`), 200);

    fs.rmSync(path.join(written, name));
    const gone = await fetch(`${url}/gallery/${name}`);
    assert.equal(gone.status, 404);
    assert.doesNotMatch(await gone.text(), new RegExp(path.basename(images)), 'the answer tells nothing of the server');
  });

  it('cancels a job at once, whether it runs or waits', async () => {
    const [running, waiting] = [await draw({ ...layout, steps: 900 }), await draw({ ...layout, steps: 900 })];
    for await (const { event } of readEvents(await follow(running))) if (event === 'step') break;
    const before = (await gallery()).length;
    const ended: string[] = [];
    nodeRed.RED.nodes
      .getNode(node('reason').id)
      .on('input', (msg: { job: string; error: { code: string } }) => ended.push(`${msg.job} ${msg.error.code}`));
    for (const job of [waiting, running]) {
      assert.equal((await fetch(`${url}/jobs/${job}`, { method: 'DELETE' })).status, 202);
      assert.equal((await end(job)).event, 'cancelled');
    }
    while (ended.length < 2) await new Promise((resolve) => setTimeout(resolve, 20));
    assert.deepEqual(ended.sort(), [waiting, running].map((job) => `${job} CANCELLED`).sort());
    assert.equal((await gallery()).length, before);
  });

  it('goes on without its page, and begins again with where the job is', async () => {
    const listening = watchListeners(nodeRed.RED, flow);
    const job = await draw({ ...layout, steps: 12 });
    const leave = new AbortController();
    const stream = await follow(job, { signal: leave.signal });
    for await (const { event } of readEvents(stream)) if (event === 'started') break;
    leave.abort();
    const { event, picture } = await end(job);
    assert.equal(event, 'done');
    assert.equal((await gallery())[0].name, picture);
    const late = await allEvents(await follow(job));
    assert.equal(late.filter(({ event }) => event === 'step').length, 1, 'the last of each kind will do');
    assert.equal(late.at(-1)!.picture, picture);
    assert.equal(listening(), 0);
  });

  it('ends the streams when the flow is deployed', async () => {
    const listening = watchListeners(nodeRed.RED, flow);
    const job = await draw({ ...layout, steps: 900 });
    const stream = await follow(job);
    assert.equal(listening(), 1);
    await nodeRed.deploy(flow);
    assert.equal((await allEvents(stream)).at(-1)!.event, 'cancelled');
  });

  it('says what is wrong with a layout, and knows no job that there is not', async () => {
    const { event, error } = await end(
      await draw({ ...layout, regions: [{ prompt: 'a sofa', box: [0.5, 0.5, 0, 0.2] }] }),
    );
    assert.equal(event, 'failed');
    assert.match(String(error), /box.*greater than 0/);
    assert.equal((await follow('0000000000000000')).status, 404);
    assert.equal((await fetch(`${url}/jobs/constructor`, { method: 'DELETE' })).status, 404);
  });

  it('keeps the gallery in the context store that its environment names', async () => {
    const kept = structuredClone(flow);
    Object.assign(kept.find(({ type }) => type === 'tab')!, {
      env: [{ name: 'GALLERY_STORE', value: 'disk', type: 'str' }],
    });
    await nodeRed.deploy(kept);
    assert.deepEqual(await gallery(), []);
    const { picture } = await end(await draw(layout));
    assert.deepEqual(
      (await gallery()).map(({ name }) => name),
      [picture],
    );
    const file = path.join(userDir, 'context', node('14 Web page').id, 'flow.json');
    while (!fs.existsSync(file)) await new Promise((resolve) => setTimeout(resolve, 100));
    assert.deepEqual(
      (JSON.parse(fs.readFileSync(file, 'utf8')) as { gallery: Picture[] }).gallery.map(({ name }) => name),
      [picture],
    );
  });
});
