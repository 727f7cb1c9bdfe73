/** Example 18: thirty layouts at once, on this machine or on a pool's workers. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import sharp from 'sharp';
import { readFlow, type FlowNode } from '../../scripts/lib/flow.js';
import { startNodeRed, temporaryFolder } from '../../scripts/lib/headless.js';
import { checkpointFolder, until } from '../unit/support/checkpoints';
import { root } from '../unit/support/package';
import { RedisServer } from './support/redis';
import { WorkerProcess } from './support/worker';

// What hooks hand over has no types.
// eslint-disable-next-line @typescript-eslint/no-explicit-any
type Any = any;
const TINY = checkpointFolder('tiny-lcm');
const COUNT = 30;

describe('example 18', function () {
  this.timeout(180_000);
  const images = temporaryFolder();
  let nodeRed: Awaited<ReturnType<typeof startNodeRed>>;
  const outside = process.env.MULTIDIFFUSION_REDIS;

  before(async () => {
    nodeRed = await startNodeRed({ images, onLog: () => {} });
  });
  after(async () => {
    if (outside === undefined) delete process.env.MULTIDIFFUSION_REDIS;
    else process.env.MULTIDIFFUSION_REDIS = outside;
    await nodeRed?.stop();
  });

  /** Presses the button. @returns the pictures by seed, and what the list said of each job, one after the other */
  async function burst(): Promise<{ pictures: Map<string, string>; told: Map<string, string[]> }> {
    fs.rmSync(path.join(images, '18-burst'), { recursive: true, force: true });
    const flow = readFlow(path.join(root, 'examples', '18-burst.json'));
    const change = (type: string, values: Partial<FlowNode>): void =>
      flow.filter((node) => node.type === type).forEach((node) => Object.assign(node, values));
    change('diffusion-model', { checkpoint: 'folder', folder: TINY, threads: '1' });
    change('multidiffusion-sampler', { steps: 2, width: 64, height: 64 });
    change('save-image', { filename: '{seed}', overwrite: true });
    const told = new Map<string, string[]>();
    const files: string[] = [];
    const hook = 'onComplete.burst';
    const { id: list } = flow.find(({ name }) => name === 'all thirty')!;
    nodeRed.RED.hooks.add('onReceive.burst', ({ destination, msg }: Any) => {
      if (destination.id !== list) return;
      told.set(msg.topic, [...(told.get(msg.topic) ?? []), msg.payload[msg.topic]]);
    });
    nodeRed.RED.hooks.add(hook, ({ node, msg, error }: Any) => {
      if (node.node.type === 'save-image' && !error) files.push(msg.filename);
    });
    try {
      await nodeRed.deploy(flow);
      const button = flow.find(({ type }) => type === 'inject')!;
      nodeRed.RED.nodes.getNode(button.id).receive({});
      await until(() => files.length === COUNT, 'thirty pictures', 150);
      await until(() => [...told.values()].every((states) => states.at(-1) === 'done'), 'each job’s end');
    } finally {
      nodeRed.RED.hooks.remove('*.burst');
    }
    const pictures = new Map<string, string>();
    for (const file of files)
      pictures.set(path.basename(file), (await sharp(file).raw().toBuffer()).toString('base64'));
    return { pictures, told };
  }

  function assertTold(told: Map<string, string[]>): void {
    assert.equal(told.size, COUNT);
    for (const [job, states] of told) {
      assert.match(job, /^layout \d+ of [0-9a-f]{6}$/);
      assert.deepEqual(
        states.filter((state) => !/^queued$/.test(state)),
        ['started', 'step 1 of 2', 'step 2 of 2', 'done'],
        job,
      );
      assert.equal(states[0], 'queued');
    }
  }

  it('draws thirty layouts on this machine, and the same with a pool, each with its progress', async () => {
    delete process.env.MULTIDIFFUSION_REDIS;
    const here = await burst();
    assert.equal(here.pictures.size, COUNT);
    assert.equal(new Set(here.pictures.values()).size, COUNT, 'they differ');
    assertTold(here.told);

    const redis = await RedisServer.start();
    const workers = await Promise.all([0, 1].map(() => WorkerProcess.start(redis.url, TINY)));
    try {
      process.env.MULTIDIFFUSION_REDIS = redis.url;
      const there = await burst();
      assertTold(there.told);
      assert.deepEqual([...there.pictures.keys()].sort(), [...here.pictures.keys()].sort());
      for (const [name, pixels] of here.pictures) assert.equal(there.pictures.get(name), pixels, name);
      for (const worker of workers)
        assert.ok(
          worker.jobs.some((line) => /kind=sample outcome=done/.test(line)),
          'each worker draws some',
        );
      const drawn = workers.flatMap(({ jobs }) => jobs).filter((line) => /kind=sample outcome=done/.test(line));
      assert.equal(drawn.length, COUNT);
    } finally {
      await Promise.all(workers.map((worker) => worker.kill()));
      await redis.close();
    }
  });
});
