/** Small flows in a real Node-RED runtime, with our nodes, the tiny checkpoint and our English texts. */
import fs from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { closeUnusedCheckpoints } from '../../../dist/engine';

export const ROOT = path.resolve(__dirname, '../../..');
/** Its VAE encoder draws at random inside, so pictures with bootstrapped regions differ from run to run. */
export const TINY = path.join(ROOT, 'test/fixtures/golden/checkpoints/tiny-sd2');
/** Its VAE encoder gives the mean: everything repeats. */
export const TINY_LCM = path.join(ROOT, 'test/fixtures/golden/checkpoints/tiny-lcm');
const TYPES = [
  'diffusion-model',
  'compose',
  'text-encode',
  'region-mask',
  'multidiffusion-sampler',
  'multidiffusion-bootstrap',
  'multidiffusion-denoise',
  'multidiffusion-fuse',
  'vae-encode',
  'vae-decode',
  'save-image',
];
/** NODE_RED names the folder of another Node-RED to test on. */
const NODE_RED = require.resolve(process.env.NODE_RED ?? 'node-red');
const CORE = ['sequence/17-split', 'function/10-function', 'function/10-switch', 'function/15-change'].map((file) =>
  createRequire(NODE_RED).resolve(`@node-red/nodes/core/${file}.js`),
);

// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type Any = any;
export type Message = Record<string, Any>;
export interface FlowNode {
  id: string;
  type: string;
  [property: string]: unknown;
}

// eslint-disable-next-line @typescript-eslint/no-require-imports -- it has no types
export const helper = require('node-red-node-test-helper') as Any;
// eslint-disable-next-line @typescript-eslint/no-require-imports -- of the Node-RED under test
export const { hooks, events } = createRequire(NODE_RED)('@node-red/util') as Any;
helper.init(NODE_RED);

/** A user directory of its own, removed when the process ends. */
export function temporaryDirectory(): string {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'multidiffusion-'));
  process.once('exit', () => fs.rmSync(directory, { recursive: true, force: true }));
  return directory;
}
process.setMaxListeners(0);

export const model = (id = 'model', folder = TINY): FlowNode => ({
  id,
  type: 'diffusion-model',
  checkpoint: 'folder',
  folder,
  provider: 'cpu',
  threads: '1',
});
export const out = (id: string): FlowNode => ({ id, type: 'helper' });
export const encode = (id: string, prompt: string, next: string, more = {}): FlowNode => ({
  id,
  type: 'text-encode',
  model: 'model',
  prompt,
  promptType: 'str',
  wires: [[next]],
  ...more,
});
export const region = (id: string, box: number[], next: string, more = {}): FlowNode => ({
  id,
  type: 'region-mask',
  regionName: id,
  shape: 'box',
  box,
  wires: [[next]],
  ...more,
});
/** 128 pixels, 2 steps, no bootstrapping. */
export const sampler = (id: string, next: string, more = {}): FlowNode => ({
  id,
  type: 'multidiffusion-sampler',
  model: 'model',
  width: '128',
  height: 128,
  steps: 2,
  bootstrapping: 0,
  seedType: 'num',
  seed: '7',
  wires: [[next], [], ['progress']],
  ...more,
});

export class Flow {
  private readonly received = new Map<string, Message[]>();
  private readonly waiting = new Map<string, Array<(msg: Message) => void>>();
  readonly warnings: string[] = [];
  readonly errors: string[] = [];
  readonly statuses: Array<{ id: string; fill?: string; text?: string }> = [];

  constructor(nodes: FlowNode[]) {
    this.listen(nodes);
  }

  listen(nodes: FlowNode[]): void {
    for (const { id, type } of nodes) {
      const node = helper.getNode(id);
      if (type === 'helper') node.on('input', (msg: Message) => this.arrived(id, msg));
      node?.on('call:warn', (call: Any) => this.warnings.push(String(call.firstArg)));
      node?.on('call:error', (call: Any) => this.errors.push(String(call.firstArg?.message ?? call.firstArg)));
      node?.on('call:status', (call: Any) => this.statuses.push({ id, ...call.firstArg }));
    }
  }

  send(id: string, msg: Message): void {
    helper.getNode(id).receive(msg);
  }

  /** The next message at the helper node, one that came already included. */
  next(id = 'out'): Promise<Message> {
    const there = this.received.get(id)?.shift();
    if (there) return Promise.resolve(there);
    return new Promise((resolve) => this.waiting.set(id, [...(this.waiting.get(id) ?? []), resolve]));
  }

  /** Everything that came to the helper node and was not taken by next. */
  all(id: string): Message[] {
    return this.received.get(id) ?? [];
  }

  /** Sends, and gives what comes out or the error that Catch got. */
  async ask(id: string, msg: Message): Promise<Message> {
    this.send(id, msg);
    return Promise.race([this.next('out'), this.next('caught')]).finally(() => this.waiting.clear());
  }

  /** Sends a message that must fail, and gives Catch's msg.error. */
  async fails(id: string, msg: Message): Promise<{ message: string; code: string; source: { id: string } }> {
    const answer = await this.ask(id, msg);
    if (!answer.error) throw new Error('The message was expected to fail, but it went through.');
    return answer.error;
  }

  /** Sends a message that must go well. */
  async ok(id: string, msg: Message): Promise<Message> {
    const answer = await this.ask(id, msg);
    if (answer.error) throw new Error(`${answer.error.source.id}: ${answer.error.message}`);
    return answer;
  }

  private arrived(id: string, msg: Message): void {
    const waiting = this.waiting.get(id)?.shift();
    if (waiting) waiting(msg);
    else this.received.set(id, [...(this.received.get(id) ?? []), msg]);
  }
}

/** Starts a flow; helper nodes `out` and `progress` and a Catch node that leads to `caught` are added. */
export async function startFlow(nodes: FlowNode[], settings: Message = {}, credentials: Message = {}): Promise<Flow> {
  const flow = withEnds(nodes);
  helper.settings({ userDir: temporaryDirectory(), logging: { console: { level: 'off' } }, ...settings });
  await helper.load([...TYPES.map(loadNode), ...CORE.map((file) => require(file))], flow, credentials);
  return new Flow(flow);
}

/** Deploys another flow over the running one, anew or only the nodes that changed. */
export async function deploy(flow: Flow, nodes: FlowNode[], type: 'full' | 'nodes' = 'full'): Promise<void> {
  const all = withEnds(nodes);
  await helper.setFlows(all, type);
  flow.listen(all);
}

export async function stopFlow(): Promise<void> {
  await helper.unload();
}

/** To be called once a test file is through: no inference process stays behind. */
export const closeModels = closeUnusedCheckpoints;

export const getNode = (id: string): Any => helper.getNode(id);

function withEnds(nodes: FlowNode[]): FlowNode[] {
  return [
    { id: 'tab', type: 'tab', label: 'test' },
    ...[
      ...nodes,
      out('out'),
      out('progress'),
      out('caught'),
      { id: 'catch', type: 'catch', scope: null, wires: [['caught']] },
    ].map((node) => (node.type === 'diffusion-model' ? node : { z: 'tab', x: 1, y: 1, ...node })),
  ] as FlowNode[];
}

/** The test helper has no texts: give the node its own. */
function loadNode(type: string): (RED: Any) => void {
  const texts = JSON.parse(
    fs.readFileSync(path.join(ROOT, 'dist/nodes', type, 'locales/en-US', `${type}.json`), 'utf8'),
  ) as Message;
  const say = (key: string, values: Record<string, unknown> = {}): string => {
    const text: unknown = key.split('.').reduce<Any>((at, part) => at?.[part], texts);
    if (typeof text !== 'string') throw new Error(`${type} has no text ${key}`);
    return text.replace(/__(\w+)__/g, (_, name: string) => String(values[name]));
  };
  // eslint-disable-next-line @typescript-eslint/no-require-imports
  const start = require(path.join(ROOT, 'dist/nodes', type, `${type}.js`)) as (RED: Any) => void;
  return (RED) => start(Object.assign(Object.create(RED), { _: say, hooks }));
}
