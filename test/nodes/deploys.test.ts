/** Deploys and shutdowns in the middle of a job. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { acquireCheckpoint, type Checkpoint } from '../../dist/engine';
import { isAlive, until } from '../unit/support/checkpoints';
import { closeModels, deploy, encode, getNode, model, sampler, startFlow, stopFlow, TINY, type Any, type FlowNode } from './support/flow';

/** More by DEPLOYS=100; memory is compared then. */
const DEPLOYS = Number(process.env.DEPLOYS ?? 20);
/** Deploys from which on memory is compared; before, caches fill. */
const SETTLED = 100;
const nodes = (): FlowNode[] => [
  model(),
  encode('encode', 'a sofa', 'sampler'),
  sampler('sampler', 'decode', { width: 64, height: 64, steps: 1 }),
  { id: 'decode', type: 'vae-decode', model: 'model', wires: [['save']] },
  { id: 'save', type: 'save-image', save: false, wires: [['out']] },
];

async function checkpoint(): Promise<Checkpoint> {
  const lease = acquireCheckpoint(TINY, { provider: 'cpu', threads: 1 });
  const found = await lease.checkpoint;
  lease.release();
  return found;
}

/** What would show a leak: open handles by kind, and listeners on the process. */
function handles(): Record<string, number> {
  const kinds: Record<string, number> = {};
  for (const kind of process.getActiveResourcesInfo()) if (!/Immediate|Timeout/.test(kind)) kinds[kind] = (kinds[kind] ?? 0) + 1;
  for (const event of ['exit', 'uncaughtException', 'disconnect']) kinds[event] = process.listenerCount(event);
  return kinds;
}

describe('deploys', function () {
  this.timeout(120_000 + DEPLOYS * 2000);
  afterEach(stopFlow);
  after(closeModels);

  it(`${DEPLOYS} in the middle of a job: one answer to each message that gets one, the model stays loaded, nothing leaks`, async () => {
    const flow = await startFlow(nodes());
    await flow.ok('encode', { job: 'first' });
    const { pid } = await checkpoint();
    let before = handles();
    const answers = new Map<string, number>();
    const count = (): void => void getNode('out').on('input', (msg: Any) => answers.set(msg.job, (answers.get(msg.job) ?? 0) + 1));
    const memory: number[] = [];
    for (let i = 0; i < DEPLOYS; i++) {
      flow.send('encode', { job: `old ${i}`, steps: 900 });
      flow.send('encode', { job: `waiting ${i}`, steps: 1 });
      while ((await flow.next('progress')).payload.event !== 'step');
      await deploy(flow, nodes());
      flow.all('progress').length = 0;
      count();
      assert.equal((await flow.ok('encode', { job: `new ${i}` })).job, `new ${i}`);
      const { pid: now, queue } = await checkpoint();
      assert.equal(now, pid, 'the model was loaded again');
      assert.equal(queue.depth, 0);
      assert.equal(queue.listenerCount('depth'), 0);
      flow.statuses.length = 0;
      if (i === 4) before = handles();
      if (i >= SETTLED / 2 && i % 10 === 0) memory.push(process.memoryUsage().rss);
    }
    assert.deepEqual(handles(), before);
    assert.deepEqual([...answers.entries()].filter(([job, times]) => !job.startsWith('new') || times !== 1), []);
    assert.equal(answers.size, DEPLOYS);
    assert.equal(flow.all('caught').length, 0);
    if (DEPLOYS >= SETTLED) {
      const growth = memory[memory.length - 1] / memory[0] - 1;
      const shown = memory.map((bytes) => Math.round(bytes / 2 ** 20)).join(', ');
      assert.ok(growth < 0.05, `memory grew by ${(growth * 100).toFixed(1)} %: ${shown} MB`);
    }
  });

  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    it(`${signal} for Node-RED in the middle of a job leaves no inference process behind`, async () => {
      const nodeRed = spawn(process.execPath, [path.join(__dirname, 'support/left-running.js')], { stdio: ['ignore', 'pipe', 'inherit'] });
      try {
        const [line] = (await once(nodeRed.stdout, 'data')) as [Buffer];
        const pid = Number(String(line).split('\n')[0]);
        assert.ok(pid > 0 && isAlive(pid), String(line));
        nodeRed.kill(signal);
        await once(nodeRed, 'exit');
        await until(() => !isAlive(pid), 'the inference process ends', 15);
      } finally {
        nodeRed.kill('SIGKILL');
      }
    });
  }
});
