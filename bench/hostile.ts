/**
 * `npm run bench:hostile`: messages that are made to cost, by every way in (HTTP, MQTT, files, checkpoints, a hub),
 * one after the other against one Node-RED with the flows of examples 06 and 07, one that starts from photographs, the
 * tests' tiny model and default limits. Prints as JSON what each cost Node-RED's own process, and fails when one held
 * its event loop for more than 100 ms or took more than 300 MB. Nothing else should run meanwhile: delays are those of
 * the whole machine, and `nothing` says what of them it makes by itself. Cases called `alone` send a message to a flow
 * without a node of this package: what they cost is Node-RED's own, and they don't count. Options come after `--`:
 *
 *   --only TEXT   only cases whose name holds the text
 */
import { execFileSync, fork, type ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { crc32, deflateSync, gzipSync } from 'node:zlib';
import mqtt from 'mqtt';
import sharp from 'sharp';
import { startBroker } from '../scripts/lib/broker.js';
import { applySettings, type FlowNode, readFlow } from '../scripts/lib/flow.js';

const MOST_MILLISECONDS = 100;
const MOST_MEGABYTES = 300;
const PATIENCE = 180_000;

const root = path.join(__dirname, '..');
const tiny = path.join(root, 'test/fixtures/golden/checkpoints/tiny-sd2');
const { values: options } = parseArgs({ options: { only: { type: 'string', default: '' } } });

interface Cost {
  loopMilliseconds: number;
  megabytes: number;
}

interface Case {
  name: string;
  /** Sends it, and says what became of it. */
  send: () => Promise<string>;
}

interface Result extends Cost {
  name: string;
  outcome: string;
  seconds: number;
}

// Pictures

function chunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(data.length);
  check.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, check]);
}

function png(side: number, extra: Buffer[] = [], pixels?: Buffer): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(side, 0);
  header.writeUInt32BE(side, 4);
  header[8] = 8;
  return Buffer.concat([
    Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
    chunk('IHDR', header),
    ...extra,
    chunk(
      'IDAT',
      pixels ?? deflateSync(Buffer.alloc((side + 1) * side, Buffer.concat([Buffer.of(0), Buffer.alloc(side, 255)]))),
    ),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

const times = <T>(count: number, make: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i));

/** Files of at most a few megabytes, by what is wrong with them. */
async function pictures(): Promise<Record<string, Buffer>> {
  const inflating = deflateSync(Buffer.alloc(50e6, 65), { level: 9 });
  const text = (head: string): Buffer => Buffer.concat([Buffer.from(head, 'latin1'), inflating]);
  const noise = Buffer.from(times(3 * 1024 * 1024, (i) => (i * 2654435761) >>> 24));
  return {
    'zTXt of 2 GB': png(
      8,
      times(40, (i) => chunk('zTXt', text(`k${i}\0\0`))),
    ),
    'iTXt of 2 GB': png(
      8,
      times(40, (i) => chunk('iTXt', text(`k${i}\0\x01\0\0\0`))),
    ),
    'profile of 50 MB': png(8, [chunk('iCCP', text('icc\0\0'))]),
    'pixels of 500 MB': png(8, [], deflateSync(Buffer.alloc(500e6))),
    '200,000 text chunks': png(
      8,
      times(200_000, (i) => chunk('tEXt', Buffer.from(`k${i}\0v`))),
    ),
    '4096 × 4096 pixels': png(4096),
    'a photograph of a megapixel': await sharp(noise, { raw: { width: 1024, height: 1024, channels: 3 } })
      .jpeg()
      .toBuffer(),
    'a million segments of JPEG': Buffer.concat([
      Buffer.from([0xff, 0xd8]),
      Buffer.alloc(3_500_000, Buffer.from([0xff, 0xe1, 0, 2])),
    ]),
    'a recipe of empty objects': png(8, [
      chunk(
        'zTXt',
        Buffer.concat([
          Buffer.from('multidiffusion\0\0', 'latin1'),
          deflateSync(JSON.stringify({ prompt: 'a', more: times(1_400_000, () => ({})) })),
        ]),
      ),
    ]),
    SVG: Buffer.from(`<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8">${'<g/>'.repeat(800_000)}</svg>`),
  };
}

/** 50 megapixels, turned and with a colour profile, with the grain that photographs have. */
async function photographs(): Promise<Record<string, Buffer>> {
  const [width, height] = [8660, 5774];
  const grain = await sharp(Buffer.from(times(3 * 512 * 512, (i) => 96 + ((i * 2654435761) >>> 26))), {
    raw: { width: 512, height: 512, channels: 3 },
  })
    .png()
    .toBuffer();
  const photograph = sharp({ create: { width, height, channels: 3, background: 'black' } })
    .composite([{ input: grain, tile: true }])
    .withMetadata({ orientation: 6 })
    .withIccProfile('p3');
  return {
    'a JPEG of 50 megapixels': await photograph.clone().jpeg().toBuffer(),
    'a PNG of 50 megapixels': await photograph.clone().png({ compressionLevel: 1 }).toBuffer(),
    'a WebP of 50 megapixels': await photograph.clone().webp({ effort: 0 }).toBuffer(),
  };
}

// Layouts

const small = { width: 64, height: 64, steps: 1 };
const star = (corners: number) => times(corners, (i) => [((i * 7919) % 1000) / 1000, ((i * 104_729) % 997) / 997]);

/** JSON bodies of at most 5 MB. */
function layouts(): Record<string, string> {
  const nested = (levels: number): string => `{"prompt":5,"x":${'['.repeat(levels)}${']'.repeat(levels)}}`;
  const of = (regions: object[], more: object = {}): string =>
    JSON.stringify({ prompt: 'a room', ...small, ...more, regions });
  return {
    'nested 100,000 deep': nested(100_000),
    '64 boxes': of(times(64, (i) => ({ prompt: `thing ${i}`, box: [0, 0, 0.5 + i / 200, 0.5] }))),
    '63 boxes and the rest': of([
      ...times(63, (i) => ({ prompt: `thing ${i}`, box: [0, 0, 0.5 + i / 200, 0.5] })),
      { prompt: 'wall', rest: true },
    ]),
    '10 polygons of 1,000 corners': of(times(10, () => ({ prompt: 'thing', polygon: star(1000) }))),
    '64 polygons of 150 corners': of(times(64, (i) => ({ prompt: `thing ${i}`, polygon: star(150) }))),
    '64 polygons of 1,000 corners': of(times(64, () => ({ prompt: 'thing', polygon: star(1000) }))),
    '4 MB of numbers': of([], { more: times(400_000, (i) => 1e9 + i) }),
    '4 MB of empty objects': of([], { more: times(1_400_000, () => ({})) }),
    '4 MB of pairs': of([], { more: times(600_000, () => [1, 2]) }),
    '4 MB of names': of([], Object.fromEntries(times(350_000, (i) => [`x${i}`, 1]))),
    'regions as 4 MB of text': JSON.stringify({ prompt: 'a', ...small, regions: `[${'{},'.repeat(1_400_000)}{}]` }),
    'a prompt of 20,000 spaces': of([], { prompt: `a${' '.repeat(19_998)}b` }),
    'a prompt of 20,000 lines': of([], { prompt: `a${' \n'.repeat(9999)}` }),
    'a picture of 1024 × 1024': of([], { width: 1024, height: 1024 }),
    // The largest canvas of the default limits.
    'a picture of 4096 × 4096': of([], { width: 4096, height: 4096 }),
    '16 regions on 4096 × 4096': of(
      times(16, (i) => ({
        prompt: `thing ${i % 4}`,
        feather: 0.02,
        box: [(i % 8) / 8, Math.floor(i / 8) / 8, 0.12, 0.12],
      })),
      { width: 4096, height: 4096, bootstrapping: 0 },
    ),
    'soft, growing regions on 1024 × 1024': of(
      times(64, (i) => ({ prompt: `thing ${i % 4}`, feather: 0.5, box: [0, 0, 0.5 + i / 200, 0.5] })),
      { width: 1024, height: 1024, growingMasks: true, bootstrapping: 0 },
    ),
  };
}

// A hub

/** @returns its address, for repositories named after what it does */
async function lyingHub(): Promise<{ url: string; repositories: string[]; stop: () => void }> {
  const bomb = gzipSync(Buffer.alloc(500e6, 32));
  const tree = '{"sha":"0123456789abcdef0123456789abcdef01234567"}';
  const lies: Record<string, (request: http.IncomingMessage, response: http.ServerResponse) => void> = {
    endless: (_, response) => {
      const more = (): void =>
        void (response.destroyed || response.write(Buffer.alloc(1e6, 32), () => setImmediate(more)));
      more();
    },
    inflating: (_, response) => void response.writeHead(200, { 'content-encoding': 'gzip' }).end(bomb),
    pages: (request, response) =>
      void (request.url!.includes('/tree/')
        ? response.writeHead(200, { link: `<${request.url}&>; rel="next"` }).end('[]')
        : response.end(tree)),
    nested: (_, response) => void response.end(`${'['.repeat(1e6)}${']'.repeat(1e6)}`),
    entries: (request, response) =>
      void response.end(request.url!.includes('/tree/') ? JSON.stringify(times(100_000, () => null)) : tree),
  };
  const server = http.createServer((request, response) => {
    const lie = Object.keys(lies).find((name) => request.url!.includes(`/lies/${name}`));
    if (lie) lies[lie]!(request, response);
    else response.writeHead(404).end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    repositories: Object.keys(lies).map((name) => `lies/${name}`),
    stop: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

// Checkpoints

/** Folders with something wrong in them, by what it is. */
function checkpoints(base: string): Record<string, string> {
  const spoil = (name: string, change: (folder: string) => void): string => {
    const folder = path.join(base, name);
    fs.cpSync(tiny, folder, { recursive: true });
    change(folder);
    return folder;
  };
  const put = (file: string, bytes: Buffer | string) => (folder: string) =>
    fs.writeFileSync(path.join(folder, file), bytes);
  const instead = (file: string, make: (place: string) => void) => (folder: string) => {
    fs.rmSync(path.join(folder, file), { force: true });
    make(path.join(folder, file));
  };
  const words = JSON.stringify({ words: times(1_000_000, (i) => `word number ${i}`) });
  return {
    '24 MB of words': spoil('words', put('vocabulary.json', words)),
    'a scheduler with an unclosed text': spoil(
      'unclosed',
      put('scheduler/scheduler_config.json', `{"a":"${'\\"'.repeat(400_000)}`),
    ),
    'a UNet of 20 MB of graphs': spoil('graphs', put('unet/model.onnx', Buffer.alloc(20e6, Buffer.from([0x3a, 0])))),
    ...(process.platform === 'win32'
      ? {}
      : {
          'a pipe': spoil(
            'pipe',
            instead('model_index.json', (place) => void execFileSync('mkfifo', [place])),
          ),
          'a link to /dev/zero': spoil(
            'zero',
            instead('vocabulary.json', (place) => fs.symlinkSync('/dev/zero', place)),
          ),
        }),
  };
}

// Ways in

const dataUri = (bytes: Buffer): string => `data:image/png;base64,${bytes.toString('base64')}`;

async function post(url: string, body: string): Promise<string> {
  const answer = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body,
    signal: AbortSignal.timeout(PATIENCE),
  });
  const text = Buffer.from(await answer.arrayBuffer());
  return answer.ok ? `HTTP ${answer.status}` : `HTTP ${answer.status} ${text.toString('utf8', 0, 100)}`;
}

async function postPicture(url: string, body: Buffer): Promise<string> {
  const answer = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/octet-stream' },
    body: new Uint8Array(body),
    signal: AbortSignal.timeout(PATIENCE),
  });
  const text = Buffer.from(await answer.arrayBuffer());
  return answer.ok ? `HTTP ${answer.status}` : `HTTP ${answer.status} ${text.toString('utf8', 0, 100)}`;
}

/** As the dialog of diffusion-model checks a model. */
async function check(url: string, config: object): Promise<string> {
  const started = await fetch(`${url}/multidiffusion/checks`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(config),
  });
  const { check: id } = (await started.json()) as { check: string };
  let outcome = 'no end';
  for (const end = Date.now() + PATIENCE; Date.now() < end && outcome === 'no end'; await sleep(50)) {
    const now = (await (await fetch(`${url}/multidiffusion/checks/${id}`)).json()) as {
      state: string;
      message?: string;
    };
    if (now.state === 'done' || now.state === 'failed') outcome = `${now.state} ${(now.message ?? '').slice(0, 100)}`;
  }
  await fetch(`${url}/multidiffusion/checks/${id}`, { method: 'DELETE' });
  return outcome;
}

/**
 * What the examples do not have: a photograph that is encoded and is a region's mask and what lies behind it, and
 * messages that no node of this package sees.
 * @param model the id of a diffusion-model
 * @param broker the id of an mqtt-broker
 */
function moreFlows(model: string, broker: string): FlowNode[] {
  const on = (z: string, nodes: FlowNode[]): FlowNode[] => nodes.map((node) => ({ ...node, z }));
  const httpIn = (id: string, url: string, next: string, more = {}): FlowNode => ({
    id,
    type: 'http in',
    url,
    method: 'post',
    skipBodyParsing: true,
    wires: [[next]],
    ...more,
  });
  const copy = 'for (const name of ["image", "mask", "bootstrappingImage"]) msg[name] = msg.payload;\n';
  return [
    { id: 'photographs', type: 'tab', label: 'photographs' },
    ...on('photographs', [
      httpIn('photo-in', '/photographs', 'photo-copy'),
      { id: 'photo-copy', type: 'function', func: `${copy}delete msg.payload; return msg;`, wires: [['photo-vae']] },
      { id: 'photo-vae', type: 'vae-encode', model, wires: [['photo-text']] },
      { id: 'photo-text', type: 'text-encode', model, prompt: 'a sofa', promptType: 'str', wires: [['photo-mask']] },
      {
        id: 'photo-mask',
        type: 'region-mask',
        shape: 'image',
        image: 'mask',
        imageType: 'msg',
        wires: [['photo-sampler']],
      },
      {
        id: 'photo-sampler',
        type: 'multidiffusion-sampler',
        model,
        steps: 2,
        bootstrapping: 1,
        bootstrappingBackground: 'image',
        wires: [['photo-answer'], [], []],
      },
      { id: 'photo-answer', type: 'change', rules: [{ t: 'set', p: 'payload', to: 'ok' }], wires: [['photo-out']] },
      { id: 'photo-catch', type: 'catch', wires: [['photo-wrong']] },
      {
        id: 'photo-wrong',
        type: 'function',
        func: 'msg.statusCode = 400; msg.payload = msg.error.message; return msg;',
        wires: [['photo-out']],
      },
      { id: 'photo-out', type: 'http response', headers: {} },
    ]),
    { id: 'alone', type: 'tab', label: 'alone' },
    ...on('alone', [
      httpIn('alone-in', '/alone', 'alone-answer'),
      httpIn('alone-read', '/alone/read', 'alone-answer', { skipBodyParsing: false }),
      { id: 'alone-answer', type: 'change', rules: [{ t: 'set', p: 'payload', to: 'ok' }], wires: [['alone-out']] },
      { id: 'alone-out', type: 'http response', headers: {} },
      {
        id: 'alone-mqtt',
        type: 'mqtt in',
        topic: 'alone/message',
        qos: '1',
        datatype: 'buffer',
        broker,
        wires: [['alone-length']],
      },
      { id: 'alone-length', type: 'change', rules: [{ t: 'set', p: 'payload', to: 'ok' }], wires: [['alone-publish']] },
      { id: 'alone-publish', type: 'mqtt out', topic: 'alone/answer', qos: '1', broker },
    ]),
  ];
}

async function collect(url: string, broker: string, masks: string, temporary: string, hub: string[]): Promise<Case[]> {
  const client = await mqtt.connectAsync(broker);
  await client.subscribeAsync('#', { qos: 1 });
  const overMqtt = async (payload: string | Buffer, topic = 'multidiffusion/layout/stranger'): Promise<string> => {
    const answer = new Promise<string>((resolve) => {
      const take = (topic: string, bytes: Buffer): void => {
        if (
          /^(multidiffusion\/layout|alone\/message)/.test(topic) ||
          /"event":"(queued|started|step|done)"/.test(String(bytes))
        )
          return;
        client.off('message', take);
        resolve(bytes[0] === 0x89 ? 'a picture' : bytes.toString('utf8', 0, 100));
      };
      client.on('message', take);
    });
    await client.publishAsync(topic, payload, { qos: 1 });
    return Promise.race([answer, sleep(PATIENCE, 'no answer', { ref: false })]);
  };

  const cases: Case[] = [{ name: 'nothing', send: () => sleep(1000, 'idle') }];
  const layout = (image: string): string =>
    JSON.stringify({ prompt: 'a room', ...small, regions: [{ prompt: 'a sofa', image }] });
  for (const [name, bytes] of Object.entries(await pictures())) {
    const file = `${name.replace(/\W+/g, '-')}.png`;
    fs.writeFileSync(path.join(masks, file), bytes);
    const whole = layout(dataUri(bytes));
    if (whole.length < 5e6)
      cases.push({ name: `HTTP: a mask, ${name}`, send: () => post(`${url}/multidiffusion`, whole) });
    cases.push({ name: `MQTT: a mask, ${name}`, send: () => overMqtt(whole) });
    cases.push({ name: `MQTT: a picture as a layout, ${name}`, send: () => overMqtt(bytes) });
    cases.push({ name: `file: a mask, ${name}`, send: () => post(`${url}/multidiffusion`, layout(file)) });
  }
  for (const [name, body] of Object.entries(layouts())) {
    if (body.length < 5e6) cases.push({ name: `HTTP: ${name}`, send: () => post(`${url}/multidiffusion`, body) });
    cases.push({ name: `MQTT: ${name}`, send: () => overMqtt(body) });
  }
  const same = (image: string, more = {}): string =>
    JSON.stringify({
      prompt: 'a',
      ...small,
      ...more,
      regions: times(64, (i) => ({ prompt: `thing ${i % 4}`, image })),
    });
  cases.push({
    name: 'file: 64 masks, a photograph of a megapixel',
    send: () => post(`${url}/multidiffusion`, same('a-photograph-of-a-megapixel.png')),
  });
  cases.push({
    name: 'file: 64 masks, a photograph of a megapixel, drawn as a JPEG',
    send: () => post(`${url}/multidiffusion`, same('a-photograph-of-a-megapixel.png', { format: 'jpeg' })),
  });
  const flat = await sharp({ create: { width: 1024, height: 1024, channels: 3, background: 'white' } })
    .webp()
    .toBuffer();
  cases.push({
    name: 'HTTP: 64 masks of 1024 × 1024',
    send: () => post(`${url}/multidiffusion`, same(dataUri(flat).replace('png', 'webp'))),
  });
  for (const [name, picture] of Object.entries(await photographs()))
    cases.push({ name: `photographs: ${name}`, send: () => postPicture(`${url}/photographs`, picture) });
  cases.push({ name: 'MQTT: 30 MB of spaces', send: () => overMqtt(Buffer.alloc(30e6, 32)) });
  cases.push({ name: 'MQTT: 30 MB of JSON', send: () => overMqtt(`{"prompt":"a","x":[${'1,'.repeat(15e6)}1]}`) });
  const { '4 MB of empty objects': objects, '4 MB of numbers': numbers } = layouts();
  for (const [name, body] of Object.entries({ '4 MB of empty objects': objects, '4 MB of numbers': numbers })) {
    cases.push({ name: `alone: ${name}, by HTTP`, send: () => post(`${url}/alone`, body!) });
    cases.push({ name: `alone: ${name}, by HTTP, read by Node-RED`, send: () => post(`${url}/alone/read`, body!) });
  }
  cases.push({
    name: 'alone: 30 MB by MQTT',
    send: () => overMqtt(Buffer.alloc(30e6, 32), 'alone/message'),
  });
  for (const [name, folder] of Object.entries(checkpoints(temporary)))
    cases.push({
      name: `checkpoint: ${name}`,
      send: () => check(url, { checkpoint: 'folder', folder, provider: 'cpu' }),
    });
  for (const repository of hub)
    cases.push({ name: `hub: ${repository}`, send: () => check(url, { checkpoint: 'hub', repository }) });
  return cases;
}

function next<T>(child: ChildProcess): Promise<T> {
  return new Promise((resolve, reject) => {
    const onExit = (code: number | null): void => reject(new Error(`Node-RED ended (${code}).`));
    child.once('exit', onExit);
    child.once('message', (message) => {
      child.off('exit', onExit);
      resolve(message as T);
    });
  });
}

async function measure(child: ChildProcess, { name, send }: Case): Promise<Result> {
  child.send('begin');
  await next(child);
  const started = performance.now();
  const outcome = await send().catch((error: Error) => `lost: ${error.message}`);
  const seconds = (performance.now() - started) / 1000;
  await sleep(100);
  child.send('end');
  const { loopMilliseconds, megabytes } = await next<Cost>(child);
  const round = (value: number): number => Number(value.toFixed(1));
  return {
    name,
    outcome,
    seconds: round(seconds),
    loopMilliseconds: round(loopMilliseconds),
    megabytes: round(megabytes),
  };
}

async function main(): Promise<void> {
  const temporary = fs.mkdtempSync(path.join(os.tmpdir(), 'hostile-'));
  const masks = path.join(temporary, 'masks');
  fs.mkdirSync(masks);
  const broker = await startBroker(0);
  if (!broker) throw new Error('No port is free for the broker.');
  const hub = await lyingHub();
  const model = {
    'diffusion-model.checkpoint': 'folder',
    'diffusion-model.folder': tiny,
    'diffusion-model.provider': 'cpu',
  };
  const flow = ['06-http.json', '07-mqtt.json'].flatMap(
    (file) => applySettings(readFlow(path.join(root, 'examples', file)), model).flow,
  );
  const mqttBroker = flow.find(({ type }) => type === 'mqtt-broker')!;
  Object.assign(mqttBroker, { broker: '127.0.0.1', port: broker.port });
  flow.push(...moreFlows(flow.find(({ type }) => type === 'diffusion-model')!.id, mqttBroker.id));
  const child = fork(path.join(__dirname, 'hostile-node-red.js'), [], { execArgv: ['--expose-gc'] });
  try {
    const settings = {
      apiMaxLength: '5mb',
      multidiffusion: { maskDirectory: masks, hubEndpoint: hub.url, modelDirectory: temporary },
    };
    child.send({ flow, settings });
    const { url } = await next<{ url: string }>(child);
    const cases = await collect(url, broker.url, masks, temporary, hub.repositories);
    // Loads the model and the image library, as the first honest picture does.
    const first = cases.find(({ name }) => name.startsWith('HTTP: a mask, a photograph'))!;
    for (let i = 0; i < 3; i++) await first.send();
    const results: Result[] = [];
    for (const one of cases) {
      if (!one.name.includes(options.only)) continue;
      const result = await measure(child, one);
      console.error(
        `${result.loopMilliseconds} ms, ${result.megabytes} MB, ${result.seconds} s  ${one.name}: ${result.outcome}`,
      );
      results.push(result);
    }
    const over = results.filter(
      ({ name, loopMilliseconds, megabytes, outcome }) =>
        !name.startsWith('alone') &&
        (loopMilliseconds > MOST_MILLISECONDS || megabytes > MOST_MEGABYTES || /^(lost|no )/.test(outcome)),
    );
    const limits = { loopMilliseconds: MOST_MILLISECONDS, megabytes: MOST_MEGABYTES };
    console.log(
      JSON.stringify({ node: process.version, limits, results, over: over.map(({ name }) => name) }, null, 2),
    );
    process.exitCode = over.length > 0 ? 1 : 0;
  } finally {
    child.kill('SIGKILL');
    hub.stop();
    await broker.stop();
    fs.rmSync(temporary, { recursive: true, force: true });
  }
}

main().then(
  () => process.exit(),
  (error: Error) => {
    console.error(error);
    process.exit(1);
  },
);
