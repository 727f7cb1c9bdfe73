/** Every example flow, run in a headless Node-RED as a user would run it. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import mqtt from 'mqtt';
import sharp from 'sharp';
import { exampleLayout, modulesOf, readFlow, type FlowNode } from '../../scripts/lib/flow.js';
import { startNodeRed, temporaryFolder } from '../../scripts/lib/headless.js';
import { startBroker } from '../../scripts/lib/broker.js';
import { allEvents, readEvents, watchListeners } from './support/events';
import { askedFor, openBundledJudge, seenIn } from './support/judged';

const examples = path.join(__dirname, '..', '..', 'examples');

/** The bundled model's. */
const NATIVE_SIZE = 128;
/** Pictures that are put together from several. */
const MONTAGES: Record<string, number[]> = {
  '10-bootstrapping-strategies.json': [5 * NATIVE_SIZE, NATIVE_SIZE],
  '13-paint-into-a-photo.json': [2 * NATIVE_SIZE, NATIVE_SIZE],
  '15-fusion-strategies.json': [7 * NATIVE_SIZE, NATIVE_SIZE],
};

/** How far an example turns its circular picture, as a fraction of the width. */
const TURNED: Record<string, number> = { '12-circular-panorama.json': 0.5 };

type NodeRed = Awaited<ReturnType<typeof startNodeRed>>;

const load = (file: string): FlowNode[] => readFlow(path.join(examples, file));

function configure(flow: FlowNode[], type: string, values: Record<string, unknown>): void {
  for (const node of flow) if (node.type === type) Object.assign(node, values);
}

describe('examples', function () {
  this.timeout(120_000);
  const images = temporaryFolder();
  let nodeRed: NodeRed;
  let judge: Awaited<ReturnType<typeof openBundledJudge>>;

  before(async () => {
    judge = await openBundledJudge();
    nodeRed = await startNodeRed({ images, onLog: () => {} });
  });
  after(() => nodeRed.stop());

  for (const file of fs.readdirSync(examples).sort()) {
    const flow = load(file);
    // Those that need other packages have tests of their own.
    if (modulesOf(flow).length > 0) continue;
    const sampler = flow.find(({ type }) => type === 'multidiffusion-sampler')!;

    let picture: string;

    it(`${file} makes a picture`, async () => {
      configure(flow, 'save-image', { save: true });
      configure(flow, 'mqtt-broker', { autoConnect: false });
      await nodeRed.deploy(flow);
      const message = await nodeRed.generate(flow);

      assert.equal(path.dirname(message.filename), path.join(images, path.basename(file, '.json')));
      const { format, width, height } = await sharp(message.filename).metadata();
      assert.equal(format, 'png');
      assert.deepEqual(
        [width, height],
        MONTAGES[file] ?? [sampler.width || NATIVE_SIZE, sampler.height || NATIVE_SIZE],
      );
      const { channels } = await sharp(message.filename).stats();
      assert.ok(Math.max(...channels.map(({ stdev }) => stdev)) > 10, 'the picture is one plain colour');
      const findings = ((message.findings ?? []) as Array<{ code: string }>).map(({ code }) => code);
      // Their pictures take more than a recipe holds: a picture to start from, or a loop.
      assert.deepEqual(findings, sampler.stepMode === 'wired' || file.startsWith('13') ? ['RECIPE_APART'] : []);
      picture = message.filename;
    });

    it(`${file} shows what it asks for, where it asks for it`, async () => {
      const asked = askedFor(flow);
      assert.ok(asked.length > 0, 'it asks for no object that the judge knows');
      const seen = await seenIn(judge, picture, asked, {
        width: sampler.width || NATIVE_SIZE,
        turned: TURNED[file],
      });
      // Strategies that are compared with each other may fail; all of them may not.
      for (const [i, { name }] of asked.entries())
        assert.ok(
          seen.some((names) => names[i] === name),
          `for the ${name} the judge sees ${seen.map((names) => names[i]).join(', ')}`,
        );
    });
  }

  it('03 draws the dog sharp and its background blurred', async () => {
    const flow = load('03-sharp-on-blurred.json');
    await nodeRed.deploy(flow);
    const [picture] = await tilesOf((await nodeRed.generate(flow)).filename);
    const [x, y, width, height] = flow.find(({ regionName }) => regionName === 'dog')!.box as number[];
    const inside = sharpness(picture, (u, v) => {
      const [dx, dy] = [(u - x - width / 2) / (width / 2), (v - y - height / 2) / (height / 2)];
      return Math.hypot(dx, dy) < 0.75;
    });
    const outside = sharpness(picture, (u, v) => u < x || u > x + width || v < y || v > y + height);
    assert.ok(inside > 4 * outside, `${inside.toFixed(1)} inside, ${outside.toFixed(1)} outside`);
    const outline = outlineWidth(picture);
    assert.ok(outline <= 3, `the dog's outline is ${outline} pixels wide`);
  });

  it('10 draws five pictures that differ by eye', async () => {
    const flow = load('10-bootstrapping-strategies.json');
    await nodeRed.deploy(flow);
    const pictures = await tilesOf((await nodeRed.generate(flow)).filename);
    assert.equal(pictures.length, 5);
    for (const [i, one] of pictures.entries())
      for (const [j, other] of pictures.slice(0, i).entries()) {
        const difference = meanDifference(one, other, () => true);
        assert.ok(difference > 8, `pictures ${j + 1} and ${i + 1} differ by ${difference.toFixed(2)} of 255`);
      }
  });

  it('13 shows the photo before and after, equal but for the region', async () => {
    const flow = load('13-paint-into-a-photo.json');
    await nodeRed.deploy(flow);
    const [before, after] = await tilesOf((await nodeRed.generate(flow)).filename);
    const [x, y, width, height] = flow.find(({ regionName }) => regionName === 'sofa')!.box as number[];
    const MARGIN = 0.1; // the feather and what the decoder sees of it
    const kept = meanDifference(
      before,
      after,
      (u, v) => u < x - MARGIN || u > x + width + MARGIN || v < y - MARGIN || v > y + height + MARGIN,
    );
    const painted = meanDifference(before, after, (u, v) => u > x && u < x + width && v > y && v < y + height);
    assert.ok(kept < 5, `what is kept differs by ${kept.toFixed(2)} of 255`);
    assert.ok(painted > 40, `what is painted differs by ${painted.toFixed(2)} of 255`);
  });

  it('02 puts the red sofa where its box is', async () => {
    const flow = load('02-living-room.json');
    await nodeRed.deploy(flow);
    const { filename } = await nodeRed.generate(flow);
    const sofa = flow.find(({ regionName }) => regionName === 'sofa')!;
    const share = await redShareInside(filename, sofa.box as number[]);
    assert.ok(share > 0.7, `of all red pixels ${(100 * share).toFixed(0)} % are inside the sofa's box`);
  });

  it('the same seed gives the same picture, also after a redeploy', async () => {
    const flow = load('01-text-to-image.json');
    await nodeRed.deploy(flow);
    const first = await nodeRed.generate(flow);
    await nodeRed.deploy(flow);
    const second = await nodeRed.generate(flow);
    assert.notEqual(first.filename, second.filename);
    const pixels = await Promise.all([first, second].map(({ filename }) => sharp(filename).raw().toBuffer()));
    assert.ok(pixels[0].equals(pixels[1]));
  });

  it('08 draws by its wires what the sampler draws alone', async () => {
    const flow = load('08-wired-loop.json');
    const pictures: Buffer[] = [];
    for (const stepMode of ['wired', 'built-in']) {
      configure(flow, 'multidiffusion-sampler', { stepMode });
      await nodeRed.deploy(flow);
      pictures.push(
        await sharp((await nodeRed.generate(flow)).filename)
          .raw()
          .toBuffer(),
      );
    }
    assert.ok(pictures[0].equals(pictures[1]));
  });

  describe('06 by an HTTP client', () => {
    const flow = load('06-http.json');
    const layout = { steps: 3, ...(exampleLayout(flow) as object) };

    const post = (body: unknown, query = '', headers: RequestInit['headers'] = {}): Promise<Response> =>
      fetch(`${nodeRed.url}/multidiffusion${query}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...(headers as object) },
        body: JSON.stringify(body),
      });

    before(() => nodeRed.deploy(flow));

    it('answers a layout with a PNG', async () => {
      const answer = await post(layout);
      assert.equal(answer.status, 200);
      assert.equal(answer.headers.get('content-type'), 'image/png');
      const { format, width } = await sharp(Buffer.from(await answer.arrayBuffer())).metadata();
      assert.equal(format, 'png');
      assert.equal(width, NATIVE_SIZE);
    });

    it('answers the same layout with the same picture', async () => {
      const answers = await Promise.all([post(layout), post(layout)]);
      const [first, second] = await Promise.all(
        answers.map(async (answer) =>
          sharp(Buffer.from(await answer.arrayBuffer()))
            .raw()
            .toBuffer(),
        ),
      );
      assert.ok(first.equals(second));
    });

    it('answers at once with a job, tells its progress, and hands out its picture', async () => {
      const accepted = await post(layout, '?wait=false');
      assert.equal(accepted.status, 202);
      const job = (await accepted.json()) as { job: string; progress: string; picture: string };
      assert.equal(accepted.headers.get('location'), job.progress);
      const events = new Set<string>();
      for (let ready = false; !ready; ) {
        const state = (await (await fetch(nodeRed.url + job.progress)).json()) as {
          job: string;
          event: string;
          ready: boolean;
        };
        assert.equal(state.job, job.job);
        events.add(state.event);
        assert.ok(!events.has('failed'));
        ({ ready } = state);
      }
      assert.ok(events.has('done'), [...events].join());
      const picture = await fetch(nodeRed.url + job.picture);
      assert.equal(picture.headers.get('content-type'), 'image/png');
      assert.equal((await sharp(Buffer.from(await picture.arrayBuffer())).metadata()).format, 'png');
      assert.equal((await fetch(`${nodeRed.url}/multidiffusion/jobs/0000000000000000`)).status, 404);
    });

    it('tells its progress as server-sent events, also to one who comes late', async () => {
      const job = (await (await post(layout, '?wait=false')).json()) as {
        job: string;
        events: string;
        picture: string;
      };
      const events = await allEvents(await fetch(nodeRed.url + job.events));
      assert.ok(events.every((news) => news.job === job.job));
      const names = events.map(({ event }) => event);
      assert.deepEqual([...new Set(names)], ['accepted', 'queued', 'started', 'step', 'done'], names.join());
      assert.equal(names.filter((event) => event === 'done').length, 1);
      assert.equal(events.at(-1)!.seed, (layout as { seed?: number }).seed);
      assert.equal(
        (await fetch(nodeRed.url + job.picture)).status,
        200,
        'the picture is there when it is said to be done',
      );

      const late = await allEvents(await fetch(nodeRed.url + job.events));
      assert.deepEqual(late.at(-1), events.at(-1));
      const failed = (await (await post({ ...layout, steps: 0 }, '?wait=false')).json()) as { events: string };
      const news = (await allEvents(await fetch(nodeRed.url + failed.events))).at(-1)!;
      assert.equal(news.event, 'failed');
      assert.match(String(news.error), /steps.*0.*from 1 to 1000/);
    });

    it('forgets a listener that has gone, and ends the others when the flow is deployed', async () => {
      const job = (await (await post({ ...layout, steps: 900 }, '?wait=false')).json()) as {
        job: string;
        events: string;
      };
      const listening = watchListeners(nodeRed.RED, flow);
      const leave = new AbortController();
      const streams = await Promise.all([
        fetch(nodeRed.url + job.events),
        fetch(nodeRed.url + job.events, { signal: leave.signal }),
      ]);
      assert.equal(listening(), 2);
      leave.abort();
      await assert.rejects(allEvents(streams[1]));
      await until(() => listening() === 1);
      await nodeRed.deploy(flow);
      const events = await allEvents(streams[0]);
      assert.equal(events.at(-1)!.event, 'cancelled');
      await until(() => listening() === 0);
    });

    it('cancels a job, and tells that it is', async () => {
      const ended: string[] = [];
      nodeRed.RED.nodes
        .getNode(flow.find(({ name }) => name === 'status and reason')!.id)
        .on('input', (msg: { job: string; error: { code: string } }) => ended.push(`${msg.job} ${msg.error.code}`));
      const { job, progress, events, picture } = (await (
        await post({ ...layout, steps: 900 }, '?wait=false')
      ).json()) as Record<'job' | 'progress' | 'events' | 'picture', string>;
      assert.equal((await fetch(nodeRed.url + picture)).status, 409);
      assert.equal((await fetch(nodeRed.url + progress, { method: 'DELETE' })).status, 202);
      let last = '';
      for await (const { event } of readEvents(await fetch(nodeRed.url + events))) last = event;
      assert.equal(last, 'cancelled');
      const state = (await (await fetch(nodeRed.url + progress)).json()) as { event: string; code: string };
      assert.deepEqual([state.event, state.code], ['cancelled', 'CANCELLED']);
      await until(() => ended.length > 0);
      assert.deepEqual(ended, [`${job} CANCELLED`]);
    });

    it('asks for a token when there are tokens, and shows each client its own jobs alone', async () => {
      const closed = structuredClone(flow);
      configure(closed, 'tab', {
        env: [{ name: 'MULTIDIFFUSION_TOKENS', value: 's3cret=alice, 0ther=bob', type: 'str' }],
      });
      await nodeRed.deploy(closed);
      const as = (token: string): RequestInit => ({ headers: { authorization: `Bearer ${token}` } });
      assert.equal((await post(layout)).status, 401);
      assert.equal((await post(layout, '', as('wrong').headers)).status, 401);
      assert.equal((await post(layout, '', as('s3cret').headers)).status, 200);
      const { progress, events } = (await (await post(layout, '?wait=false', as('s3cret').headers)).json()) as {
        progress: string;
        events: string;
      };
      for (const place of [progress, events]) {
        assert.equal((await fetch(nodeRed.url + place)).status, 401);
        assert.equal((await fetch(nodeRed.url + place, as('0ther'))).status, 404);
      }
      assert.equal((await fetch(nodeRed.url + progress, as('s3cret'))).status, 200);
      assert.equal((await allEvents(await fetch(nodeRed.url + events, as('s3cret')))).at(-1)!.event, 'done');
      await nodeRed.deploy(flow);
    });

    const masked = (image: unknown): object => ({
      ...layout,
      regions: [{ prompt: 'a plant in a living room', image }],
    });

    it('takes a mask as Base64, and as data URIs with what RFC 2397 allows', async () => {
      const mask = await sharp({ create: { width: 8, height: 8, channels: 3, background: 'white' } })
        .png()
        .toBuffer();
      const base64 = mask.toString('base64');
      const pictures: Buffer[] = [];
      for (const image of [
        base64,
        ` ${base64}\n`,
        `data:image/png;base64,${base64}`,
        ` data:image/png;charset=utf-8;base64,${base64}`,
        `DATA:image/png;name="a%2Cb.png";BASE64,${base64}`,
        `data:image/png,${[...mask].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join('')}`,
        mask.toJSON(),
      ]) {
        const answer = await post(masked(image));
        const bytes = Buffer.from(await answer.arrayBuffer());
        assert.equal(answer.status, 200, `${JSON.stringify(image).slice(0, 40)}: ${bytes.toString('utf8', 0, 300)}`);
        pictures.push(await sharp(bytes).raw().toBuffer());
      }
      assert.ok(pictures.every((picture) => picture.equals(pictures[0])));
    });

    it('answers what a client did wrong with 400 and a reason, and goes on', async () => {
      const wrong: Array<[unknown, RegExp]> = [
        [{ ...layout, steps: 0 }, /steps.*0.*from 1 to 1000/],
        [{ ...layout, scheduler: 'Fast' }, /scheduler.*Fast.*DDIMScheduler/],
        [{ ...layout, regions: [{ prompt: 'a sofa', box: [0.2, 0.2, 0, 0.5] }] }, /box.*greater than 0/],
        [{ ...layout, regions: 'none' }, /regions/],
        [masked('https://example.com/mask.png'), /regions\[0\]\.image/],
        [masked('no-such-mask'), /regions\[0\]\.image.*no-such-mask/],
        [masked('../../etc/passwd'), /regions\[0\]\.image/],
        [masked('data:image/png;base64,AAAA'), /regions\[0\]\.image/],
        [masked(42), /payload\.regions\[0\]\.image is 42/],
      ];
      for (const [body, reason] of wrong) {
        const answer = await post(body);
        const { error } = (await answer.json()) as { error: string };
        assert.equal(answer.status, 400, error);
        assert.match(error, reason);
      }
      assert.equal((await post(layout)).status, 200);
    });
  });

  describe('07 through a broker', () => {
    const flow = load('07-mqtt.json');
    const layout = { steps: 3, ...(exampleLayout(flow) as object) };
    const messages: Array<{ topic: string; payload: Buffer }> = [];
    let broker: NonNullable<Awaited<ReturnType<typeof startBroker>>>;
    let client: mqtt.MqttClient;

    before(async () => {
      broker = (await startBroker(0))!;
      configure(flow, 'mqtt-broker', { broker: '127.0.0.1', port: broker.port });
      client = await mqtt.connectAsync(broker.url);
      client.on('message', (topic, payload) => messages.push({ topic, payload }));
      await client.subscribeAsync(['multidiffusion/picture', 'multidiffusion/progress']);
      await nodeRed.deploy(flow);
      await connected();
    });

    after(async () => {
      await client?.endAsync();
      await nodeRed.deploy([]);
      await broker?.stop();
    });

    beforeEach(() => {
      messages.length = 0;
    });

    /** The flow's own subscription takes a moment: a layout sent before it is lost. */
    async function connected(): Promise<void> {
      const id = flow.find(({ type }) => type === 'mqtt-broker')!.id;
      await until(() => {
        const { connected, subscriptions } = nodeRed.RED.nodes.getNode(id);
        return connected && Object.keys(subscriptions).length > 0;
      });
    }

    const progress = (): Array<{ event: string; index?: number; seed?: number; error?: string }> =>
      messages
        .filter(({ topic }) => topic === 'multidiffusion/progress')
        .map(({ payload }) => JSON.parse(payload.toString()));

    it('publishes the picture and the progress', async () => {
      await client.publishAsync('multidiffusion/layout/me', JSON.stringify(layout));
      await until(() => messages.some(({ topic }) => topic === 'multidiffusion/picture'));
      const { payload } = messages.find(({ topic }) => topic === 'multidiffusion/picture')!;
      assert.equal((await sharp(payload).metadata()).format, 'png');

      await until(() => progress().some(({ event }) => event === 'done'));
      const events = progress().map(({ event }) => event);
      assert.equal(events.filter((event) => event === 'step').length, 3);
      assert.ok(events.indexOf('started') < events.indexOf('step'));
      assert.ok(events.lastIndexOf('step') < events.indexOf('done'));
    });

    it('lets those whom the topic names take turns', async () => {
      const seeds = [1, 2, 3, 4, 5];
      for (const seed of seeds)
        await client.publishAsync('multidiffusion/layout/many', JSON.stringify({ ...layout, seed, steps: 20 }));
      await client.publishAsync('multidiffusion/layout/one', JSON.stringify({ ...layout, seed: 6 }));
      const done = (): Array<number | undefined> =>
        progress()
          .filter(({ event }) => event === 'done')
          .map(({ seed }) => seed);
      await until(() => messages.filter(({ topic }) => topic === 'multidiffusion/picture').length === 6);
      assert.deepEqual(
        done().filter((seed) => seed !== 6),
        seeds,
      );
      assert.ok(done().indexOf(6) < 4, `in the order ${done().join()}`);
    });

    it('answers on the response topic, with the picture or with what went wrong', async () => {
      const input = nodeRed.RED.nodes.getNode(flow.find(({ type }) => type === 'mqtt in')!.id);
      await client.subscribeAsync('answers/#');
      const correlationData = Buffer.from('7');
      input.send({ payload: layout, responseTopic: 'answers/good', correlationData });
      input.send({ payload: { ...layout, steps: -1 }, responseTopic: 'answers/bad', correlationData });
      await until(() =>
        ['answers/good', 'answers/bad'].every((wanted) => messages.some(({ topic }) => topic === wanted)),
      );
      const { payload } = messages.find(({ topic }) => topic === 'answers/good')!;
      assert.equal((await sharp(payload).metadata()).format, 'png');
      assert.match(
        JSON.parse(messages.find(({ topic }) => topic === 'answers/bad')!.payload.toString()).error,
        /steps is -1/,
      );
      assert.ok(!messages.some(({ topic }) => topic === 'multidiffusion/picture'));
    });

    it('says that it is there, and once it is gone that it is not', async () => {
      const late = await mqtt.connectAsync(broker.url);
      const said: string[] = [];
      late.on('message', (_, payload) => said.push(payload.toString()));
      await late.subscribeAsync('multidiffusion/available');
      await until(() => said.length === 1);
      await nodeRed.deploy([]);
      await until(() => said.includes('offline'));
      await late.endAsync();
      assert.equal(said[0], 'online');
      await nodeRed.deploy(flow);
      await connected();
    });

    it('publishes what went wrong as progress, and goes on', async () => {
      await client.publishAsync('multidiffusion/layout', JSON.stringify({ ...layout, steps: -1 }));
      await until(() => progress().some(({ event, error }) => event === 'failed' && /steps/.test(String(error))));
      await client.publishAsync('multidiffusion/layout', JSON.stringify({ regions: 'none' })); // fails before it is a job
      await until(() => progress().some(({ error }) => /regions/.test(String(error))));
      assert.equal(progress().filter(({ event }) => event === 'failed').length, 2, 'each failure is told once');
      await client.publishAsync('multidiffusion/layout', JSON.stringify(layout));
      await until(() => messages.some(({ topic }) => topic === 'multidiffusion/picture'));
    });
  });
});

async function until(condition: () => unknown): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 20));
}

/** Of all pixels that are clearly red, the share that lies inside a box [x, y, width, height] of fractions. */
async function redShareInside(file: string, [x, y, width, height]: number[]): Promise<number> {
  const { data, info } = await sharp(file).removeAlpha().raw().toBuffer({ resolveWithObject: true });
  let inside = 0;
  let all = 0;
  for (let row = 0; row < info.height; row++) {
    for (let column = 0; column < info.width; column++) {
      const [red, green, blue] = data.subarray((row * info.width + column) * 3);
      if (red < 100 || red < 2.5 * Math.max(green, blue)) continue;
      const [u, v] = [(column + 0.5) / info.width, (row + 0.5) / info.height];
      if (u >= x && u < x + width && v >= y && v < y + height) inside++;
      all++;
    }
  }
  assert.ok(all > 0.02 * info.width * info.height, `only ${all} pixels are red`);
  return inside / all;
}

/** A picture [height, width, 3] of bytes, as wide as it is high. */
interface Picture {
  size: number;
  data: Buffer;
}

/** The square pictures that a file holds side by side. */
async function tilesOf(file: string): Promise<Picture[]> {
  const { width, height: size } = await sharp(file).metadata();
  return Promise.all(
    Array.from({ length: width / size }, async (_, i) => ({
      size,
      data: await sharp(file)
        .extract({ left: i * size, top: 0, width: size, height: size })
        .removeAlpha()
        .raw()
        .toBuffer(),
    })),
  );
}

/** The mean of a measure over the pixels of a place, which is given as fractions of the picture. */
function meanOver(
  size: number,
  place: (u: number, v: number) => boolean,
  measure: (x: number, y: number) => number,
): number {
  let sum = 0;
  let count = 0;
  for (let y = 1; y < size - 1; y++)
    for (let x = 1; x < size - 1; x++) {
      if (!place((x + 0.5) / size, (y + 0.5) / size)) continue;
      sum += measure(x, y);
      count++;
    }
  assert.ok(count > 0);
  return sum / count;
}

/** The mean absolute difference of two pictures' bytes in a place. */
function meanDifference(one: Picture, other: Picture, place: (u: number, v: number) => boolean): number {
  return meanOver(one.size, place, (x, y) => {
    const at = 3 * (y * one.size + x);
    return [0, 1, 2].reduce((sum, c) => sum + Math.abs(one.data[at + c] - other.data[at + c]), 0) / 3;
  });
}

/** The mean absolute Laplacian of the green channel in a place: 0 where colours change evenly. */
function sharpness({ size, data }: Picture, place: (u: number, v: number) => boolean): number {
  const green = (x: number, y: number): number => data[3 * (y * size + x) + 1];
  return meanOver(size, place, (x, y) =>
    Math.abs(4 * green(x, y) - green(x - 1, y) - green(x + 1, y) - green(x, y - 1) - green(x, y + 1)),
  );
}

/**
 * The pixels that the left outline of what stands before a background takes from a quarter of the contrast to 60 %:
 * the rows' median.
 */
function outlineWidth({ size, data }: Picture): number {
  const widths: number[] = [];
  for (let y = 0; y < size; y++) {
    const row = Array.from({ length: size }, (_, x) => data.subarray(3 * (y * size + x), 3 * (y * size + x) + 3));
    const background = [0, 1, 2].map((c) => row.slice(2, 10).reduce((sum, pixel) => sum + pixel[c], 0) / 8);
    const contrast = row.map((pixel) => Math.hypot(...background.map((value, c) => pixel[c] - value)));
    const most = Math.max(...contrast);
    if (most < 120) continue; // nothing stands in this row
    widths.push(contrast.findIndex((value) => value > 0.6 * most) - contrast.findIndex((value) => value > 0.25 * most));
  }
  assert.ok(widths.length > size / 3, `${widths.length} rows`);
  return widths.sort((a, b) => a - b)[widths.length >> 1];
}
