/**
 * `npm run bench:load`: many clients over HTTP and MQTT against one Node-RED with one model, all in this
 * process and on 127.0.0.1. Prints throughput, waiting times, fairness between clients and refusals, and fails
 * when an answer is lost or comes twice. Options come after `--`:
 *
 *   --http N      HTTP clients (default 200)
 *   --mqtt N      MQTT clients (default 100)
 *   --jobs N      jobs of each client, one after the other (default 3)
 *   --greedy N    HTTP clients among them that ask for all they want as fast as they can, 16 jobs at a time, until
 *                 half of the others have all theirs (default 1)
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
    greedy: { type: 'string', default: '1' },
    seconds: { type: 'string', default: '120' },
    model: { type: 'string', default: path.join(root, 'test/fixtures/golden/checkpoints/tiny-sd2') },
    queue: { type: 'string', default: '32' },
    kills: { type: 'string', default: '0' },
    json: { type: 'boolean', default: false },
  },
});
const number = (name: 'http' | 'mqtt' | 'jobs' | 'greedy' | 'seconds' | 'queue' | 'kills'): number =>
  Number(values[name]);
const LAYOUT = {
  prompt: 'a living room',
  width: 64,
  height: 64,
  steps: 1,
  regions: [{ prompt: 'a sofa', box: [0.05, 0.3, 0.9, 0.7] }],
};
const ANSWER_MS = 120_000;
const GREED = 16;

type Answer = 'done' | 'refused' | { failed: string } | { lost: string };

/** What became of a client's jobs. */
class Client {
  /** Milliseconds from the request to the picture; and from the first request, where some were refused. */
  readonly waits: number[] = [];
  readonly delays: number[] = [];
  /** Why. */
  readonly failed: string[] = [];
  readonly lost: string[] = [];
  refused = 0;
  twice = 0;

  constructor(
    readonly name: string,
    readonly greedy = false,
  ) {}

  note(answer: Answer, wait: number, delay: number): void {
    if (answer === 'done') {
      this.waits.push(wait);
      this.delays.push(delay);
    } else if (answer === 'refused') this.refused++;
    else if ('failed' in answer) this.failed.push(answer.failed);
    else this.lost.push(answer.lost);
  }
}

/** Refused jobs are asked for again, a little later each time, as a well-behaved client does. */
async function askAll(client: Client, ask: () => Promise<Answer>, end: number, over = () => false): Promise<void> {
  for (let job = 0; (client.greedy ? !over() : job < number('jobs')) && Date.now() < end; job++) {
    const first = performance.now();
    for (let pause = 200; Date.now() < end; pause = Math.min(5000, pause * 1.5)) {
      const started = performance.now();
      const answer = await ask();
      client.note(answer, performance.now() - started, performance.now() - first);
      if (answer !== 'refused') break;
      await sleep(pause * (0.5 + Math.random()));
    }
  }
}

function overHttp(url: string, agent: http.Agent, client: Client): () => Promise<Answer> {
  return () =>
    new Promise((resolve) => {
      const request = http.request(
        `${url}/multidiffusion`,
        {
          method: 'POST',
          agent,
          timeout: ANSWER_MS,
          headers: { 'content-type': 'application/json', authorization: `Bearer ${client.name}` },
        },
        (response) => {
          const parts: Buffer[] = [];
          response.on('data', (part: Buffer) => parts.push(part));
          response.once('end', () =>
            resolve(
              response.statusCode === 200
                ? 'done'
                : response.statusCode === 503
                  ? 'refused'
                  : { failed: `HTTP ${response.statusCode}: ${Buffer.concat(parts).toString('utf8', 0, 200)}` },
            ),
          );
          response.once('error', (error) => resolve({ lost: `in the middle of the answer: ${error.message}` }));
        },
      );
      request.once('timeout', () => request.destroy(new Error('no answer in time')));
      request.once('error', (error) => resolve({ lost: `HTTP: ${error.message}` }));
      request.end(JSON.stringify(LAYOUT));
    });
}

/** Each job is asked for under an answer topic of its own. */
function overMqtt(connection: mqtt.MqttClient, client: Client): () => Promise<Answer> {
  const waiting = new Map<string, (answer: Answer) => void>();
  connection.on('message', (topic, payload) => {
    const settle = waiting.get(topic);
    if (!settle) return void client.twice++;
    waiting.delete(topic);
    if (payload[0] === 0x89) settle('done');
    else settle(payload.includes('QUEUE_FULL') ? 'refused' : { failed: `MQTT: ${payload.toString('utf8', 0, 200)}` });
  });
  let count = 0;
  return async () => {
    const topic = `answers/${client.name}/${count++}`;
    const answer = new Promise<Answer>((resolve) => waiting.set(topic, resolve));
    await connection.publishAsync(
      `multidiffusion/layout/${client.name}`,
      JSON.stringify({ ...LAYOUT, answer: topic }),
      { qos: 1 },
    );
    return Promise.race([answer, sleep<Answer>(ANSWER_MS, { lost: 'MQTT: no answer in time' }, { ref: false })]);
  };
}

/** The MQTT example, told where to answer by the layout: the broker here speaks MQTT 3.1.1 only. */
function mqttFlow(port: number) {
  const { flow } = applySettings(readFlow(path.join(root, 'examples/07-mqtt.json')), SETTINGS);
  Object.assign(flow.find(({ type }) => type === 'mqtt-broker')!, { broker: '127.0.0.1', port });
  const input = flow.find(({ type }) => type === 'mqtt in')!;
  const id = 'feedfacefeedface';
  flow.push({
    id,
    type: 'function',
    z: input.z,
    x: 0,
    y: 0,
    outputs: 1,
    libs: [],
    func: 'msg.responseTopic = msg.payload.answer; return msg;',
    wires: input.wires,
  });
  input.wires = [[id]];
  return flow;
}

const SETTINGS = {
  'diffusion-model.checkpoint': 'folder',
  'diffusion-model.folder': values.model,
  'diffusion-model.provider': 'cpu',
  'multidiffusion-sampler.bootstrapping': 0,
};

async function killAtTimes(times: number, over: () => boolean): Promise<number> {
  let killed = 0;
  for (; killed < times && !over(); killed++) {
    await sleep(1000 + Math.random() * 2000);
    const lease = acquireCheckpoint(values.model, { provider: 'cpu' });
    const { pid } = await lease.get();
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
  const nodeRed = await startNodeRed({
    onLog: () => {},
    settings: { multidiffusion: { queueLimit: number('queue') } },
  });
  const flow = [
    ...applySettings(readFlow(path.join(root, 'examples/06-http.json')), SETTINGS).flow,
    ...mqttFlow(broker.port),
  ];
  await nodeRed.deploy(flow);
  // What is published before the flow has subscribed is nobody's.
  const brokerId = flow.find(({ type }) => type === 'mqtt-broker')!.id;
  while (
    Object.keys(nodeRed.RED.nodes.getNode(brokerId).subscriptions).length === 0 ||
    !nodeRed.RED.nodes.getNode(brokerId).connected
  )
    await sleep(20);
  const agent = new http.Agent({ maxSockets: Infinity });
  await overHttp(nodeRed.url, agent, new Client(names[0]!))(); // loads the model

  const end = Date.now() + number('seconds') * 1000;
  const delay = monitorEventLoopDelay({ resolution: 10 });
  delay.enable();
  const started = performance.now();
  const clients = names.map((name, i) => new Client(name, i < number('greedy')));
  let over = false;
  let served = 0;
  const crowded = (): boolean => served < (clients.length - number('greedy')) / 2;
  const work: Array<Promise<void>> = [];
  const greed: Array<Promise<void>> = [];
  for (const client of clients) {
    const ask = overHttp(nodeRed.url, agent, client);
    if (client.greedy) for (let lane = 0; lane < GREED; lane++) greed.push(askAll(client, ask, end, () => !crowded()));
    else work.push(askAll(client, ask, end).then(() => void served++));
  }
  const connections: mqtt.MqttClient[] = [];
  for (let i = 0; i < number('mqtt'); i++) {
    const client = new Client(`mqtt-${i}`);
    const connection = await mqtt.connectAsync(broker.url);
    await connection.subscribeAsync(`answers/${client.name}/#`, { qos: 1 });
    connections.push(connection);
    clients.push(client);
    work.push(askAll(client, overMqtt(connection, client), end).then(() => void served++));
  }
  const kills = killAtTimes(number('kills'), () => over);
  await Promise.all(work);
  over = true;
  await Promise.all(greed);
  const seconds = (performance.now() - started) / 1000;
  delay.disable();
  report(clients, seconds, delay.percentile(99) / 1e6, delay.max / 1e6, await kills);

  await Promise.all(connections.map((connection) => connection.endAsync(true)));
  agent.destroy();
  await nodeRed.stop();
  await broker.stop();
  if (clients.some(({ lost, twice }) => lost.length + twice > 0)) throw new Error('Answers were lost, or came twice.');
}

function report(clients: Client[], seconds: number, p99: number, max: number, kills: number): void {
  const sum = (of: (client: Client) => number): number => clients.reduce((total, client) => total + of(client), 0);
  const modest = clients.filter(({ greedy }) => !greedy);
  const greedy = clients.filter((client) => client.greedy);
  const mean = (numbers: number[]): number => numbers.reduce((total, one) => total + one, 0) / numbers.length;
  const pictures = sum((client) => client.waits.length);
  const figures = {
    clients: clients.length,
    seconds: Number(seconds.toFixed(1)),
    pictures,
    picturesPerSecond: Number((pictures / seconds).toFixed(1)),
    waitMilliseconds: spread(modest.flatMap((client) => client.waits)),
    withRefusalsMilliseconds: spread(modest.flatMap((client) => client.delays)),
    meanWaitOfAClient: spread(modest.filter((client) => client.delays.length > 0).map((client) => mean(client.delays))),
    greedyWaitMilliseconds: spread(greedy.flatMap((client) => client.waits)),
    greedyPictures: greedy.reduce((total, client) => total + client.waits.length, 0),
    refused: sum((client) => client.refused),
    failed: sum((client) => client.failed.length),
    lost: sum((client) => client.lost.length),
    twice: sum((client) => client.twice),
    kills,
    eventLoopDelayMilliseconds: { p99: Number(p99.toFixed(1)), max: Number(max.toFixed(1)) },
  };
  for (const reason of new Set(clients.flatMap(({ failed, lost }) => [...failed, ...lost]))) console.error(reason);
  if (values.json) return console.log(JSON.stringify(figures, null, 2));
  for (const [name, value] of Object.entries(figures))
    console.log(
      `${name.padEnd(30)}${
        typeof value === 'object'
          ? Object.entries(value)
              .map(([key, part]) => `${key} ${part}`)
              .join(', ')
          : value
      }`,
    );
}

function spread(values: number[]): Record<'least' | 'median' | 'p95' | 'most', number> {
  values.sort((a, b) => a - b);
  const at = (share: number): number =>
    Math.round(values[Math.min(values.length - 1, Math.floor(values.length * share))] ?? 0);
  return { least: at(0), median: at(0.5), p95: at(0.95), most: at(1) };
}

main().then(
  () => process.exit(0),
  (error: Error) => {
    console.error(error);
    process.exit(1);
  },
);
