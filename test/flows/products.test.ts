/**
 * The examples as they are used: in a Node-RED of an administrator who keeps contexts on disk, has moved both roots and
 * asks for a password, imported twice, restarted in between, and sent messages that lack what they need.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import mqtt from 'mqtt';
import sharp from 'sharp';
import { isErrorCode } from '../../dist/engine/errors';
import { startBroker } from '../../scripts/lib/broker.js';
import { exampleLayout, findStart, readFlow, type FlowNode } from '../../scripts/lib/flow.js';
import { startNodeRed, temporaryFolder } from '../../scripts/lib/headless.js';
import { until as untilSoon } from '../unit/support/checkpoints';
import { allEvents } from './support/events';

const EXAMPLES = path.resolve(__dirname, '../../examples');
const CHECKPOINT = path.resolve(__dirname, '../fixtures/golden/checkpoints/tiny-lcm');
const USERS = [{ username: 'admin', password: '', permissions: '*' }];
const ROOTS = { httpNodeRoot: '/nodes', httpAdminRoot: '/admin' };
const STEPS = 3;
const QUIET = 700;
const ERROR = 20;
/** Of core nodes and of Function nodes that take any message. */
const ANY: Array<Record<string, unknown>> = [
  {},
  { payload: null },
  { payload: 5, topic: 6, headers: 'x', filename: 7 },
  { payload: { prompt: 5, regions: 'none', steps: 'many' } },
  { payload: [], regions: {}, conditioning: 'a', latents: [], image: 5, step: 7, generation: 3, parts: 1, error: 'x' },
  { image: [], latents: { dims: 'x', data: 4 }, step: { views: 1 }, regions: [null], before: 'a', picture: true },
];

/** The machine may be busy. */
const until = (condition: () => boolean, what: string): Promise<void> => untilSoon(condition, what, 90);

type NodeRed = Awaited<ReturnType<typeof startNodeRed>>;
interface Completed {
  node: { id: string };
  msg: { filename: string };
  error?: unknown;
}
interface Entry {
  level: number;
  type?: string;
  name?: string;
  id?: string;
  msg: unknown;
}

/** Thirty layouts at once, in each of two tabs: more than the queue holds. */
const BURST = '18-burst.json';
const BURSTS = 60;

/** Without the package of its widgets an example is started by a button, and shows nothing. */
function withoutWidgets(flow: FlowNode[]): FlowNode[] {
  return flow
    .filter(({ type, x }) => type !== 'global-config' && (!type.startsWith('ui-') || x !== undefined))
    .map((node) => {
      const { id, type, z, x, y, wires } = node;
      if (type === 'ui-form')
        return { id, type: 'inject', z, x, y, wires, props: [{ p: 'payload' }], payload: FORM, payloadType: 'json' };
      return type.startsWith('ui-') ? { id, type: 'debug', z, x, y, wires: [], active: false } : node;
    });
}
const FORM = JSON.stringify({
  everywhere: 'a living room',
  right: 'a red sofa in a living room',
  seed: '12',
  steps: 3,
});

/** An example with a small model and few steps, that writes its pictures. */
function example(file: string, port: number): FlowNode[] {
  const flow = withoutWidgets(readFlow(path.join(EXAMPLES, file)));
  for (const node of flow) {
    if (node.type === 'diffusion-model')
      Object.assign(node, { checkpoint: 'folder', folder: CHECKPOINT, provider: 'cpu' });
    if (node.type === 'multidiffusion-sampler') node.steps = STEPS;
    if (node.type === 'save-image') node.save = true;
    if (node.type === 'mqtt-broker') Object.assign(node, { broker: '127.0.0.1', port });
  }
  return flow;
}

/** The same flow as the editor imports it a second time: with ids of its own. */
function copyOf(flow: FlowNode[]): FlowNode[] {
  const ids = new Set(flow.map(({ id }) => id));
  const text = JSON.stringify(flow).replace(/[0-9a-f]{16}/g, (id) => (ids.has(id) ? [...id].reverse().join('') : id));
  return JSON.parse(text) as FlowNode[];
}

describe('examples as products', function () {
  this.timeout(180_000);
  const userDir = temporaryFolder();
  const images = path.join(userDir, 'images');
  const log: Entry[] = [];
  const files = fs
    .readdirSync(EXAMPLES)
    .filter((file) => file.endsWith('.json'))
    .sort();
  let broker: NonNullable<Awaited<ReturnType<typeof startBroker>>>;
  let nodeRed: NodeRed;
  let flows: Array<{ file: string; tabs: FlowNode[][] }>;
  let sent = 0;

  const start = async (): Promise<void> => {
    nodeRed = await startNodeRed({
      userDir,
      editor: true,
      images,
      onLog: (entry: unknown) => log.push(entry as Entry),
      settings: {
        ...ROOTS,
        contextStorage: { default: { module: 'localfilesystem', config: { flushInterval: 1 } } },
        adminAuth: {
          type: 'credentials',
          users: (username: string) => Promise.resolve(USERS.find((user) => user.username === username) ?? null),
          authenticate: (username: string) => Promise.resolve(USERS.find((user) => user.username === username) ?? null),
        },
      },
    });
    nodeRed.RED.hooks.add('onSend.products', (events: unknown[]) => {
      sent += events.length;
    });
    // What is published before a flow has subscribed is nobody's.
    const brokers = flows.flatMap(({ tabs }) => tabs.flat()).filter(({ type }) => type === 'mqtt-broker');
    await until(
      () =>
        brokers.every(({ id }) => {
          const node = nodeRed.RED.nodes.getNode(id);
          return !node || (node.connected && Object.keys(node.subscriptions).length > 0);
        }),
      'the broker of each flow',
    );
  };
  const restart = async (): Promise<void> => {
    nodeRed.RED.hooks.remove('onSend.products');
    await nodeRed.stop();
    await start();
  };
  /** Waits until nothing has been sent for a while: a flow that loops never is. */
  const quiet = async (): Promise<void> => {
    for (let before = -1; before !== sent; ) {
      before = sent;
      await new Promise((resolve) => setTimeout(resolve, QUIET));
    }
  };
  const noErrors = (): void => {
    const errors = log.splice(0).filter(({ level }) => level <= ERROR);
    assert.deepEqual(
      errors.map(({ type, name, id, msg }) => `${type} ${name ?? id}: ${String((msg as Error)?.stack ?? msg)}`),
      [],
    );
  };
  const url = (place: string): string => `${nodeRed.url}${place}`;
  const post = (place: string, body: unknown): Promise<Response> =>
    fetch(url(place), {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(60_000),
    });

  before(async () => {
    broker = (await startBroker(0))!;
    flows = files.map((file) => {
      const flow = example(file, broker.port);
      return { file, tabs: [flow, copyOf(flow)] };
    });
    await start();
    await nodeRed.deploy(flows.flatMap(({ tabs }) => tabs.flat()));
    await restart();
    log.length = 0;
  });
  after(async () => {
    await nodeRed?.stop();
    await broker?.stop();
  });

  it('the editor asks who one is, and is where it was moved', async () => {
    assert.equal((await fetch(url('/admin/flows'))).status, 401);
    assert.equal((await post('/admin/multidiffusion/checks', {})).status, 401);
    assert.equal((await fetch(url('/flows'))).status, 404);
    const login = { client_id: 'node-red-admin', grant_type: 'password', scope: '*', username: 'admin', password: 'x' };
    const { access_token } = (await (await post('/admin/auth/token', login)).json()) as { access_token: string };
    const headers = { authorization: `Bearer ${access_token}`, accept: 'application/json' };
    assert.equal((await fetch(url('/admin/flows'), { headers })).status, 200);
    assert.equal((await fetch(url('/admin/resources/node-red-contrib-multidiffusion/statuses.js'))).status, 200);
  });

  for (const round of ['with two tabs of each', 'after a restart']) {
    describe(round, () => {
      if (round === 'after a restart') before(restart);

      it(`${BURST} draws all of both tabs, also what the queue refuses at first`, async () => {
        const { tabs } = flows.find(({ file }) => file === BURST)!;
        const saved: string[] = [];
        const [savers, buttons] = ['save-image', 'inject'].map((type) =>
          tabs.map((tab) => tab.find((node) => node.type === type)!.id),
        );
        nodeRed.RED.hooks.add('onComplete.burst', ({ node, msg, error }: Completed) => {
          if (savers.includes(node.id) && !error) saved.push(msg.filename);
        });
        try {
          for (const id of buttons) nodeRed.RED.nodes.getNode(id).receive({});
          await until(() => saved.length >= BURSTS, 'sixty pictures');
        } finally {
          nodeRed.RED.hooks.remove('*.burst');
        }
        await quiet();
        assert.equal(new Set(saved).size, BURSTS);
        assert.equal(saved.length, BURSTS);
        noErrors();
      });

      for (const file of files.filter((name) => name !== BURST)) {
        it(`${file} draws in both tabs at once`, async () => {
          const { tabs } = flows.find((one) => one.file === file)!;
          const layout = exampleLayout(tabs[0]) && { 'payload.steps': STEPS, 'payload.seed': 4 };
          const [one, other] = await Promise.all(
            tabs.map((tab) => nodeRed.generate(tab, { message: layout ?? {}, timeout: 60_000 })),
          );
          assert.notEqual(one.filename, other.filename);
          const pixels = await Promise.all([one, other].map(({ filename }) => sharp(filename).raw().toBuffer()));
          assert.ok(pixels[0].equals(pixels[1]), 'one of the tabs has drawn something else');
          await quiet();
          noErrors();
        });
      }

      it('06 answers under its prefix, at once and later', async () => {
        const layout = { ...(exampleLayout(flows[5].tabs[0]) as object), steps: STEPS };
        assert.equal((await post('/multidiffusion', layout)).status, 404);
        const answer = await post('/nodes/multidiffusion', layout);
        assert.equal(answer.status, 200);
        assert.equal((await sharp(Buffer.from(await answer.arrayBuffer())).metadata()).format, 'png');
        const accepted = await post('/nodes/multidiffusion?wait=false', layout);
        assert.equal(accepted.status, 202);
        const job = (await accepted.json()) as { progress: string; events: string; picture: string };
        assert.match(job.progress, /^\/nodes\/multidiffusion\/jobs\//);
        assert.equal(accepted.headers.get('location'), job.progress);
        assert.equal((await allEvents(await fetch(url(job.events)))).at(-1)!.event, 'done');
        assert.equal((await fetch(url(job.picture))).status, 200);
        noErrors();
      });

      it('07 answers each of its tabs, and no layout that the broker has kept', async () => {
        const client = await mqtt.connectAsync(broker.url);
        const pictures: Buffer[] = [];
        client.on('message', (_, payload) => pictures.push(payload));
        await client.subscribeAsync('multidiffusion/picture');
        const layout = JSON.stringify({ ...(exampleLayout(flows[6].tabs[0]) as object), steps: STEPS });
        await client.publishAsync('multidiffusion/layout/me', layout, { retain: true });
        await until(() => pictures.length === 2, 'a picture from each tab');
        assert.ok(pictures[0].subarray(0, 8).equals(pictures[1].subarray(0, 8)));
        await quiet();
        assert.equal(pictures.length, 2);
        await client.endAsync();
        noErrors();
      });

      it('14 draws under its prefix, and its gallery holds every picture of before', async () => {
        const page = await fetch(url('/nodes/studio'));
        assert.match(await page.text(), /^<!doctype html>/);
        type Gallery = Array<{ name: string }>;
        const gallery = async (): Promise<Gallery> =>
          (await (await fetch(url('/nodes/studio/gallery'))).json()) as Gallery;
        const known = await gallery();
        assert.ok(known.length > (round === 'after a restart' ? 2 : 0), String(known.length));
        const layout = { ...(exampleLayout(flows[13].tabs[0]) as object), steps: STEPS };
        const { job } = (await (await post('/nodes/studio/jobs', layout)).json()) as { job: string };
        const events = await allEvents(await fetch(url(`/nodes/studio/jobs/${job}/events`)));
        assert.equal(events.at(-1)!.event, 'done');
        const now = await gallery();
        assert.deepEqual(now.slice(1), known);
        assert.equal(now[0].name, events.at(-1)!.picture);
        for (const { name } of now) assert.equal((await fetch(url(`/nodes/studio/gallery/${name}`))).status, 200);
        noErrors();
      });
    });
  }

  it('jobs of before a restart are unknown, not in progress', async () => {
    const layout = { ...(exampleLayout(flows[5].tabs[0]) as object), steps: 900 };
    const job = (await (await post('/nodes/multidiffusion?wait=false', layout)).json()) as Record<string, string>;
    assert.equal((await fetch(url(job.progress))).status, 200);
    await restart();
    for (const place of [job.progress, job.events, job.picture])
      assert.equal((await fetch(url(place))).status, 404, place);
    await quiet();
    noErrors();
  });

  describe('a message without what it expects', () => {
    for (const file of files) {
      it(`${file}: a sentence, nothing that was not foreseen, and the next picture is drawn`, async () => {
        const { tabs } = flows.find((one) => one.file === file)!;
        for (const { id, type } of tabs[0]) {
          if (['tab', 'comment', 'inject', 'catch', 'http in', 'mqtt in', 'delay'].includes(type)) continue;
          for (const msg of ANY) nodeRed.RED.nodes.getNode(id)?.receive?.(structuredClone(msg));
        }
        await quiet();
        const unforeseen = log
          .splice(0)
          .filter((entry) => entry.level <= ERROR && (entry.type === 'function' || !isErrorCode(codeOf(entry))))
          .map(({ type, name, msg }) => `${type} ${name}: ${String((msg as Error)?.stack ?? msg)}`);
        assert.deepEqual(unforeseen, []);
        const start = findStart(tabs[0]);
        const message = exampleLayout(tabs[0]) && { 'payload.steps': STEPS };
        assert.ok((await nodeRed.generate(tabs[0], { message: message ?? {}, timeout: 60_000 })).filename, start.id);
        await quiet();
        noErrors();
      });
    }
  });
});

/** With an editor, Node-RED has made text of an error by the time that it is logged. */
function codeOf({ msg }: Entry): unknown {
  if (typeof msg !== 'string') return (msg as { code?: unknown } | undefined)?.code;
  const made = /^\{"__enc__":true,/.test(msg) ? (JSON.parse(msg) as { data?: { code?: unknown } }) : undefined;
  return made?.data?.code;
}
