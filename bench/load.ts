/**
 * `npx tsx bench/load.ts`: many clients over HTTP and MQTT against one Node-RED with one model, all in this
 * process and on 127.0.0.1. Prints throughput, waiting times, fairness between clients and refusals, and fails
 * when an answer is lost or comes twice.
 *
 *   --http N      HTTP clients (default 200)
 *   --mqtt N      MQTT clients (default 100)
 *   --jobs N      jobs of each client (default 3)
 *   --seconds N   no new jobs after this time (default 120)
 *   --model DIR   checkpoint (default: the tests' tiny one)
 *   --queue N     queueLimit (default 32)
 *   --kills N     kill the inference process this often meanwhile (default 0)
 *   --json        the figures as JSON
 */
import { setTimeout as sleep } from 'node:timers/promises';
import path from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import http from 'node:http';
import mqtt from 'mqtt';
import { acquireCheckpoint } from '../dist/engine';
import { startBroker } from '../scripts/lib/broker.js';
import { applySettings, readFlow } from '../scripts/lib/flow.js';
import { startNodeRed } from '../scripts/lib/headless.js';

const root = path.join(__dirname, '..');
const { values } = parseArgs({
  options: {
    http: { type: 'string', default: '200' },
    mqtt: { type: 'string', default: '100' },
    jobs: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '120' },
    model: { type: 'string', default: path.join(root, 'test/fixtures/golden/checkpoints/tiny-sd2') },
    queue: { type: 'string', default: '32' },
    kills: { type: 'string', default: '0' },
    json: { type: 'boolean', default: false },
  },
});
const number = (name: 'http' | 'mqtt' | 'jobs' | 'seconds' | 'queue' | 'kills'): number => Number(values[name]);
const LAYOUT = { prompt: 'a living room', width: 64, height: 64, steps: 1, regions: [{ prompt: 'a sofa', box: [0.05, 0.3, 0.9, 0.7] }] };
const ANSWER_MS = 120_000;

/** What became of a client's jobs. */
class Client {
  readonly waits: number[] = [];
  refused = 0;
  failed = 0;
  lost = 0;
  twice = 0;

  constructor(readonly name: string) {}

  note(answer: 'done' | 'refused' | 'failed' | 'lost', milliseconds: number): void {
    if (answer === 'done') this.waits.push(milliseconds);
    else this[answer]++;
  }
}

/** Refused jobs are asked for again, a little later each time, as a well-behaved client does. */
async function askAll(client: Client, ask: () => Promise<'done' | 'refused' | 'failed' | 'lost'>, end: number): Promise<void> {
  for (let job = 0; job < number('jobs') && Date.now() < end; job++) {
    for (let pause = 200; Date.now() < end; pause = Math.min(5000, pause * 1.5)) {
      const started = performance.now();
      const answer = await ask();
      client.note(answer, performance.now() - started);
      if (answer !== 'refused') break;
      await sleep(pause * (0.5 + Math.random()));
    }
  }
}

function overHttp(url: string, agent: http.Agent, client: Client): () => Promise<'done' | 'refused' | 'failed' | 'lost'> {
  return () =>
    new Promise((resolve) => {
      const request = http.request(`${url}/multidiffusion`, { method: 'POST', agent, timeout: ANSWER_MS, headers: { 'content-type': 'application/json', authorization: `Bearer ${client.name}` } }, (response) => {
        response.resume().once('end', () => resolve(response.statusCode === 200 ? 'done' : response.statusCode === 503 ? 'refused' : 'failed'));
      });
      request.once('timeout', () => request.destroy());
      request.once('error', () => resolve('lost'));
      request.end(JSON.stringify(LAYOUT));
    });
}

/** Each job is asked for under an answer topic of its own. */
function overMqtt(connection: mqtt.MqttClient, client: Client): () => Promise<'done' | 'refused' | 'failed' | 'lost'> {
  const waiting = new Map<string, (answer: 'done' | 'refused' | 'failed') => void>();
  connection.on('message', (topic, payload) => {
    const settle = waiting.get(topic);
    if (!settle) return void client.twice++;
    waiting.delete(topic);
    if (payload[0] === 0x89) settle('done');
    else settle(payload.includes('QUEUE_FULL') ? 'refused' : 'failed');
  });
  let count = 0;
  return async () => {
    const topic = `answers/${client.name}/${count++}`;
    const answer = new Promise<'done' | 'refused' | 'failed'>((resolve) => waiting.set(topic, resolve));
    await connection.publishAsync('multidiffusion/layout', JSON.stringify({ ...LAYOUT, answer: topic, client: client.name }), { qos: 1 });
    return Promise.race([answer, sleep(ANSWER_MS, 'lost' as const, { ref: false })]);
  };
}

/** The MQTT example, told where to answer by the layout: the broker here speaks MQTT 3.1.1 only. */
function mqttFlow(port: number) {
  const { flow } = applySettings(readFlow(path.join(root, 'examples/07-mqtt.json')), SETTINGS);
  Object.assign(flow.find(({ type }) => type === 'mqtt-broker')!, { broker: '127.0.0.1', port });
  const input = flow.find(({ type }) => type === 'mqtt in')!;
  const id = 'feedfacefeedface';
  flow.push({ id, type: 'function', z: input.z, x: 0, y: 0, outputs: 1, libs: [], func: 'msg.responseTopic = msg.payload.answer; msg.client = msg.payload.client; return msg;', wires: input.wires });
  input.wires = [[id]];
  return flow;
}

const SETTINGS = { 'diffusion-model.checkpoint': 'folder', 'diffusion-model.folder': values.model, 'diffusion-model.provider': 'cpu', 'multidiffusion-sampler.bootstrapping': 0 };

async function killAtTimes(times: number, over: () => boolean): Promise<number> {
  let killed = 0;
  for (; killed < times && !over(); killed++) {
    await sleep(1000 + Math.random() * 2000);
    const lease = acquireCheckpoint(values.model, { provider: 'cpu' });
    const { pid } = await lease.checkpoint;
    lease.release();
    if (pid) process.kill(pid, 'SIGKILL');
  }
  return killed;
}

async function main(): Promise<void> {
  const broker = await startBroker(0);
  if (!broker) throw new Error('No port is free for the broker.');
  const names = Array.from({ length: number('http') }, (_, i) => `http-${i}`);
  process.env.MULTIDIFFUSION_TOKENS = names.map((name) => `${name}=${name}`).join(',');
  const nodeRed = await startNodeRed({ onLog: () => {}, settings: { multidiffusion: { queueLimit: number('queue') } } });
  const flow = [...applySettings(readFlow(path.join(root, 'examples/06-http.json')), SETTINGS).flow, ...mqttFlow(broker.port)];
  await nodeRed.deploy(flow);
  // What is published before the flow has subscribed is nobody's.
  const brokerId = flow.find(({ type }) => type === 'mqtt-broker')!.id;
  while (Object.keys(nodeRed.RED.nodes.getNode(brokerId).subscriptions).length === 0 || !nodeRed.RED.nodes.getNode(brokerId).connected) await sleep(20);
  const agent = new http.Agent({ maxSockets: Infinity });
  await overHttp(nodeRed.url, agent, new Client(names[0]!))(); // loads the model

  const end = Date.now() + number('seconds') * 1000;
  const delay = monitorEventLoopDelay({ resolution: 10 });
  delay.enable();
  const started = performance.now();
  const clients = names.map((name) => new Client(name));
  const work = clients.map((client) => askAll(client, overHttp(nodeRed.url, agent, client), end));
  const connections: mqtt.MqttClient[] = [];
  for (let i = 0; i < number('mqtt'); i++) {
    const client = new Client(`mqtt-${i}`);
    const connection = await mqtt.connectAsync(broker.url);
    await connection.subscribeAsync(`answers/${client.name}/#`, { qos: 1 });
    connections.push(connection);
    clients.push(client);
    work.push(askAll(client, overMqtt(connection, client), end));
  }
  let over = false;
  const kills = killAtTimes(number('kills'), () => over);
  await Promise.all(work);
  over = true;
  const seconds = (performance.now() - started) / 1000;
  delay.disable();
  report(clients, seconds, delay.percentile(99) / 1e6, delay.max / 1e6, await kills);

  await Promise.all(connections.map((connection) => connection.endAsync(true)));
  agent.destroy();
  await nodeRed.stop();
  await broker.stop();
  if (clients.some(({ lost, twice }) => lost + twice > 0)) throw new Error('Answers were lost, or came twice.');
}

function report(clients: Client[], seconds: number, p99: number, max: number, kills: number): void {
  const waits = clients.flatMap((client) => client.waits).sort((a, b) => a - b);
  const at = (share: number): number => Math.round(waits[Math.min(waits.length - 1, Math.floor(waits.length * share))] ?? 0);
  const sum = (of: (client: Client) => number): number => clients.reduce((total, client) => total + of(client), 0);
  const done = clients.map((client) => client.waits.length).sort((a, b) => a - b);
  const figures = {
    clients: clients.length,
    seconds: Number(seconds.toFixed(1)),
    pictures: waits.length,
    picturesPerSecond: Number((waits.length / seconds).toFixed(1)),
    waitMilliseconds: { median: at(0.5), p95: at(0.95), max: at(1) },
    picturesPerClient: { least: done[0], median: done[Math.floor(done.length / 2)], most: done[done.length - 1] },
    refused: sum((client) => client.refused),
    failed: sum((client) => client.failed),
    lost: sum((client) => client.lost),
    twice: sum((client) => client.twice),
    kills,
    eventLoopDelayMilliseconds: { p99: Number(p99.toFixed(1)), max: Number(max.toFixed(1)) },
  };
  if (values.json) return console.log(JSON.stringify(figures, null, 2));
  for (const [name, value] of Object.entries(figures)) console.log(`${name.padEnd(30)}${typeof value === 'object' ? Object.entries(value).map(([key, part]) => `${key} ${part}`).join(', ') : value}`);
}

main().then(
  () => process.exit(0),
  (error: Error) => {
    console.error(error);
    process.exit(1);
  },
);
