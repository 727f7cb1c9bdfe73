import assert from 'node:assert/strict';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { acquireCheckpoint } from '../../dist/engine';
import {
  closeModels,
  deploy,
  encode,
  model,
  startFlow,
  stopFlow,
  TINY,
  TINY_LCM,
  type Any,
  type Flow,
  type FlowNode,
  type Message,
} from './support/flow';
import { bootstrap, denoise, func, fuse, loop, wired } from './support/loop';

const small = { width: 64, height: 64, steps: 3 };
const LONG = { ...small, steps: 800 };
const pause = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds));
const prompt = (next = 'sampler'): FlowNode[] => [model(), encode('encode', 'a sofa', next)];
/** The loop with a Function node before one of its nodes. */
const withFunction = (
  before: 'bootstrap' | 'denoise' | 'fuse' | 'sampler',
  code: string,
  more: object = small,
): FlowNode[] => {
  const to = (id: string): string => (id === before ? 'meddler' : id);
  return [
    ...prompt(),
    wired('sampler', to('bootstrap'), 'out', more),
    bootstrap('bootstrap', to('denoise')),
    denoise('denoise', to('fuse')),
    fuse('fuse', to('sampler')),
    func('meddler', code, before),
  ];
};

describe('trouble in a loop of wired steps', function () {
  this.timeout(60_000);
  let flow: Flow;
  afterEach(stopFlow);
  after(closeModels);

  async function event(job: string, name: string): Promise<Message> {
    for (;;) {
      const { payload } = await flow.next('progress');
      if (payload.job === job && payload.event === name) return payload;
    }
  }

  /** After whatever has gone wrong: one error, no picture, the queue free. */
  async function assertFree(): Promise<void> {
    const lease = acquireCheckpoint(TINY, { provider: 'cpu', threads: 1 });
    const { queue } = await lease.get();
    assert.equal(queue.depth, 0);
    lease.release();
    await pause(20);
    assert.equal(flow.all('caught').length + flow.all('out').length, 0, 'nothing comes after the error');
  }

  describe('that swallows a message', () => {
    const swallow = 'if (msg.step.index === 1 && msg.lose) return null; return msg;';

    it('ends the job with TIMEOUT, says so on the sampler, and goes on with the next job', async () => {
      flow = await startFlow(withFunction('denoise', swallow, { ...small, loopTimeout: '1' }));
      flow.send('encode', { lose: true, job: 'a', topic: 'kept' });
      flow.send('encode', { job: 'b' });
      const caught = await flow.next('caught');
      assert.equal(caught.error.code, 'TIMEOUT');
      assert.equal(caught.error.source.id, 'sampler');
      assert.match(caught.error.message, /Step 2 of 3 .* for 1 seconds .* loop timeout/);
      assert.equal(caught.topic, 'kept');
      assert.equal(caught.step, undefined, 'it is the message that asked for the picture');
      assert.equal((await event('a', 'failed')).code, 'TIMEOUT');
      assert.equal((await flow.next('out')).job, 'b');
      assert.ok(flow.statuses.some(({ id, fill, text }) => id === 'sampler' && fill === 'red' && text === 'timed out'));
      await assertFree();
    });

    it('is noticed within the loop timeout, even if nodes of the loop take longer than that in all', async () => {
      flow = await startFlow(
        withFunction('fuse', 'setTimeout(() => node.send(msg), 400);', { ...small, steps: 4, loopTimeout: 1 }),
      );
      assert.deepEqual((await flow.ok('encode', {})).latents.dims, [1, 4, 8, 8]);
    });

    it('does not take a long prediction for a lost message', async () => {
      const size = { width: 512, height: 512, windowSize: 512, steps: 1, loopTimeout: 1 };
      flow = await startFlow([...prompt(), ...loop('sampler', size)]);
      const lease = acquireCheckpoint(TINY, { provider: 'cpu', threads: 1 });
      const checkpoint = (await lease.get()) as Any;
      const predict = checkpoint.predict;
      checkpoint.predict = async (...args: unknown[]) => {
        await pause(1500);
        return predict.apply(checkpoint, args);
      };
      try {
        await flow.ok('encode', {});
      } finally {
        checkpoint.predict = predict;
        lease.release();
      }
    });
  });

  it('without a wire at the output "step" is told at once', async () => {
    flow = await startFlow([...prompt(), wired('sampler', '', 'out', small)]);
    const error = await flow.fails('encode', {});
    assert.equal(error.code, 'MISSING_INPUT');
    assert.match(error.message, /output "step" leads nowhere/);
    await assertFree();
  });

  describe('by somebody who tampers with the message is told by the node that notices', () => {
    const tensor =
      'const tensor = (data, dims) => ({ kind: "multidiffusion/tensor", dtype: "float32", dims, ' +
      'buffer: Float32Array.from(data).buffer });';
    const cases: Array<[string, 'bootstrap' | 'denoise' | 'fuse' | 'sampler', string, string, RegExp]> = [
      [
        'no step, before bootstrap',
        'bootstrap',
        'delete msg.step; return msg;',
        'bootstrap',
        /^step is missing\. Wire this node/,
      ],
      ['no step, before denoise', 'denoise', 'msg.step = 3; return msg;', 'denoise', /^step is missing/],
      ['no step, before fuse', 'fuse', 'delete msg.step; return msg;', 'fuse', /^step is missing/],
      [
        'no step, before the sampler',
        'sampler',
        'delete msg.step; return msg;',
        'sampler',
        /^step is missing\. A node of the loop removed it/,
      ],
      [
        'no latents, before bootstrap',
        'bootstrap',
        'delete msg.latents; return msg;',
        'bootstrap',
        /^latents is missing/,
      ],
      [
        'no latents, before the sampler',
        'sampler',
        'delete msg.latents; return msg;',
        'sampler',
        /^latents is missing/,
      ],
      [
        'latents of another size',
        'bootstrap',
        `${tensor} msg.latents = tensor([1, 2, 3, 4], [1, 4, 1, 1]); return msg;`,
        'bootstrap',
        /^latents is "Tensor float32 \[1, 4, 1, 1\]"; allowed: a float32 tensor \[1, 4, 8, 8\]/,
      ],
      [
        'latents that are not a number',
        'bootstrap',
        'msg.latents.data[5] = NaN; return msg;',
        'bootstrap',
        /^latents\.data\[5\] is NaN; allowed: a finite number/,
      ],
      [
        'a tensor whose dims lie',
        'bootstrap',
        'msg.latents = { ...msg.latents, dims: [1, 4, 9, 9] }; return msg;',
        'bootstrap',
        /buffer is "1024 bytes"/,
      ],
      [
        'no inputs',
        'denoise',
        'delete msg.step.inputs; return msg;',
        'denoise',
        /^step\.inputs is missing\. Send the message through multidiffusion-bootstrap/,
      ],
      [
        'inputs that are no list',
        'denoise',
        'msg.step.inputs = {}; return msg;',
        'denoise',
        /^step\.inputs is \{\}; allowed: an array/,
      ],
      [
        'an input that is nothing',
        'denoise',
        'msg.step.inputs = [null]; return msg;',
        'denoise',
        /^step\.inputs\[0\] is null/,
      ],
      [
        'an input of a window that is not there',
        'denoise',
        'msg.step.inputs[0].view = 1; return msg;',
        'denoise',
        /^step\.inputs\[0\]\.view is 1; allowed: the index of one of 1 windows/,
      ],
      [
        'an input for nobody',
        'denoise',
        'msg.step.inputs[0].prompts = []; return msg;',
        'denoise',
        /^step\.inputs\[0\]\.prompts is \[\]/,
      ],
      [
        'an input for a prompt that is not there',
        'denoise',
        'msg.step.inputs[0].prompts = [7]; return msg;',
        'denoise',
        /^step\.inputs\[0\]\.prompts is 7/,
      ],
      [
        'an input twice for a prompt',
        'denoise',
        'msg.step.inputs[0].prompts = [0, 0]; return msg;',
        'denoise',
        /each prompt once/,
      ],
      [
        'an input moved by halves',
        'denoise',
        'msg.step.inputs[0].moved = [0.5, 0]; return msg;',
        'denoise',
        /^step\.inputs\[0\]\.moved is \[0\.5,0\]/,
      ],
      [
        'a guidance scale that is none',
        'denoise',
        'msg.step.prompts[0].guidanceScale = "much"; return msg;',
        'denoise',
        /^step\.prompts\[0\]\.guidanceScale is "much"; allowed: a number from 0 to 100/,
      ],
      ['no predictions', 'fuse', 'msg.step.predictions = []; return msg;', 'fuse', /^step\.predictions is \[\]/],
      [
        'a prediction without its tensor',
        'fuse',
        'msg.step.predictions[0].prediction = [1, 2]; return msg;',
        'fuse',
        /^step\.predictions\[0\]\.prediction is \[1,2\]; allowed: a tensor/,
      ],
      [
        'a prediction that is not finite',
        'fuse',
        'msg.step.predictions[0].prediction.data[0] = -Infinity; return msg;',
        'fuse',
        /^step\.predictions\[0\]\.prediction\.data\[0\] is -Infinity/,
      ],
      [
        'a prediction twice',
        'fuse',
        'msg.step.predictions.push(msg.step.predictions[0]); return msg;',
        'fuse',
        /^step\.predictions\[1\] is "a second one for prompt 0 in window 0"/,
      ],
      [
        'a fusion that is none',
        'fuse',
        'msg.step.options = { fusion: "best" }; return msg;',
        'fuse',
        /^step\.options\.fusion is "best"; allowed: one of sampler, average/,
      ],
      [
        'a bootstrapping that is none',
        'fuse',
        'msg.step.bootstrapping = 5; return msg;',
        'fuse',
        /^step\.bootstrapping is 5/,
      ],
      [
        'an earlier fusion of another size',
        'fuse',
        `${tensor} msg.step.fused = tensor([1], [1]); return msg;`,
        'fuse',
        /^step\.fused is "Tensor float32 \[1\]"/,
      ],
      [
        'nothing fused',
        'sampler',
        'delete msg.step.fused; return msg;',
        'sampler',
        /^step\.fused is missing\. Send the message through multidiffusion-fuse/,
      ],
      [
        'something fused that is not finite',
        'sampler',
        'msg.step.fused.data.fill(NaN); return msg;',
        'sampler',
        /^step\.fused\.data\[0\] is NaN/,
      ],
    ];
    for (const [what, before, code, source, text] of cases) {
      it(what, async () => {
        flow = await startFlow(withFunction(before, code));
        const error = await flow.fails('encode', { job: 'a' });
        assert.equal(error.source.id, source);
        assert.match(error.message, text);
        assert.match(error.code, /^(INVALID|MISSING)_INPUT$/);
        await event('a', 'failed');
        const red = new Set(flow.statuses.filter(({ fill }) => fill === 'red').map(({ id }) => id));
        assert.deepEqual(
          [...red].sort(),
          [...new Set([source, 'sampler'])].sort(),
          'the node that noticed and the sampler are red',
        );
        await assertFree();
      });
    }

    it('a prediction of a region that is missing', async () => {
      const nodes = withFunction('fuse', 'msg.step.predictions.pop(); return msg;');
      flow = await startFlow([
        model(),
        encode('encode', 'a room', 'second'),
        encode('second', 'a sofa', 'region'),
        {
          id: 'region',
          type: 'region-mask',
          regionName: 'sofa',
          shape: 'box',
          box: [0, 0, 0.5, 1],
          wires: [['sampler']],
        },
        ...nodes.slice(2),
      ]);
      const error = await flow.fails('encode', {});
      assert.equal(error.source.id, 'fuse');
      assert.match(error.message, /step\.predictions is "without one for prompt 1 \(sofa\) in window 0"/);
    });
  });

  it('that is an error in a Function node ends the job at once, with that one error', async () => {
    flow = await startFlow(withFunction('fuse', 'throw new Error("my fault");', { ...small, loopTimeout: 3600 }));
    const error = await flow.fails('encode', { job: 'a' });
    assert.match(error.message, /my fault/);
    assert.equal(error.source.id, 'meddler');
    assert.match((await event('a', 'failed')).error, /A node of the loop failed: .*my fault/);
    await assertFree();
  });

  it('does not come from an error in a branch that has put off its msg.step', async () => {
    const nodes = withFunction(
      'sampler',
      'const copy = RED.util.cloneMessage(msg); delete copy.step; return [msg, copy];',
    );
    flow = await startFlow([
      ...nodes.map((node) => (node.id === 'meddler' ? { ...node, outputs: 2, wires: [['sampler'], ['bad']] } : node)),
      func('bad', 'throw new Error("mine alone");', ''),
    ]);
    flow.send('encode', {});
    await flow.next('out');
    for (let i = 0; i < small.steps; i++) assert.match((await flow.next('caught')).error.message, /mine alone/);
  });

  describe('is not made by', () => {
    it('messages that come twice, too late, or from another loop: they are ignored with a warning', async () => {
      const nodes = withFunction(
        'sampler',
        'return [[msg, RED.util.cloneMessage(msg)], RED.util.cloneMessage(msg)];',
      ).map((node) => (node.id === 'meddler' ? { ...node, outputs: 2, wires: [['sampler'], ['kept']] } : node));
      flow = await startFlow([
        ...nodes,
        { id: 'kept', type: 'helper' },
        ...loop('other', small, {}, 'elsewhere'),
        { id: 'elsewhere', type: 'helper' },
      ]);
      const msg = await flow.ok('encode', {});
      assert.ok(msg.latents.data.every(Number.isFinite));
      await pause(50);
      const twice = flow.warnings.splice(0);
      assert.equal(twice.length, small.steps);
      assert.match(twice[0], /^A message of step 1 of job .* was ignored: the step has been taken already\.$/);
      assert.match(twice.at(-1)!, /was ignored: the (step has been taken already|job has ended)\.$/);
      const late = await flow.next('kept');
      for (const id of ['sampler', 'other', 'bootstrap', 'denoise', 'fuse']) {
        flow.send(id, late);
        await pause(10);
        assert.match(flow.warnings.pop()!, /was ignored: the job has ended\.$/, id);
      }
      assert.equal((await flow.ok('encode', {})).generation.seed, 7);
      assert.equal(flow.all('elsewhere').length, 0);
    });

    it('a message of a job that runs in another sampler', async () => {
      flow = await startFlow([
        ...withFunction(
          'denoise',
          'if (msg.step.index === 0) return [msg, RED.util.cloneMessage(msg)]; return msg;',
        ).map((node) => (node.id === 'meddler' ? { ...node, outputs: 2, wires: [['denoise'], ['other']] } : node)),
        ...loop('other', small, {}, 'elsewhere'),
        { id: 'elsewhere', type: 'helper' },
      ]);
      await flow.ok('encode', {});
      assert.match(flow.warnings[0], /was ignored: it belongs to another sampler\.$/);
    });
  });

  describe('of several jobs', () => {
    it('does not mix them: two samplers of one loop, on one model and on two', async () => {
      const branch = (name: string, folder: string, id = name): FlowNode[] => [
        model(`model-${name}`, folder),
        encode(`encode-${name}`, 'a sofa', id, { model: `model-${name}` }),
        wired(id, 'bootstrap', `done-${name}`, { ...small, steps: 12, model: `model-${name}` }),
        { id: `done-${name}`, type: 'helper' },
      ];
      const shared = (...samplers: string[]): FlowNode[] => [
        bootstrap('bootstrap', 'denoise'),
        denoise('denoise', 'fuse'),
        fuse('fuse', 'back'),
        func('back', `return [${samplers.map((id) => `msg.asker === '${id}' ? msg : null`).join(', ')}];`, samplers),
      ];
      flow = await startFlow([
        ...branch('a', TINY),
        ...branch('b', TINY),
        ...branch('c', TINY_LCM),
        ...shared('a', 'b', 'c'),
      ]);
      const ask = async (name: string, seed: number): Promise<Buffer> => {
        flow.send(`encode-${name}`, { asker: name, seed, job: 'the same name' });
        return Buffer.from((await flow.next(`done-${name}`)).latents.buffer);
      };
      const alone = [await ask('a', 1), await ask('b', 2), await ask('c', 3)];
      const together = await Promise.all([ask('a', 1), ask('c', 3)]);
      assert.ok(together[0].equals(alone[0]) && together[1].equals(alone[2]));
      flow.send('encode-a', { asker: 'a', seed: 1 });
      flow.send('encode-b', { asker: 'b', seed: 2 });
      flow.send('encode-a', { asker: 'a', seed: 1 });
      flow.send('encode-c', { asker: 'c', seed: 3 });
      const [first, second, third] = [await flow.next('done-a'), await flow.next('done-b'), await flow.next('done-a')];
      for (const [msg, expected] of [
        [first, alone[0]],
        [second, alone[1]],
        [third, alone[0]],
        [await flow.next('done-c'), alone[2]],
      ] as const)
        assert.ok(Buffer.from(msg.latents.buffer).equals(expected));
      assert.deepEqual(
        flow.warnings.filter((text) => /ignored/.test(text)),
        [],
      );
      assert.equal(flow.all('caught').length, 0);
    });
  });

  describe('ends cleanly', () => {
    it('by msg.reset, at the sampler or anywhere in the loop', async () => {
      flow = await startFlow([...prompt(), ...loop('sampler', LONG)]);
      for (const id of ['sampler', 'sampler-bootstrap', 'sampler-denoise', 'sampler-fuse']) {
        flow.send('encode', { job: id });
        await event(id, 'step');
        flow.send(id, { reset: true });
        const caught = await flow.next('caught');
        assert.deepEqual([caught.error.code, caught.error.source.id, caught.job], ['CANCELLED', 'sampler', id]);
        await event(id, 'cancelled');
        await assertFree();
      }
    });

    it('by a deploy of everything; the new flow works', async () => {
      const nodes = (): FlowNode[] => [...prompt(), ...loop('sampler', LONG)];
      flow = await startFlow(nodes());
      for (let i = 0; i < 3; i++) {
        flow.send('encode', { job: `old ${i}` });
        await event(`old ${i}`, 'step');
        await deploy(flow, nodes());
        await assertFree();
      }
      assert.equal((await flow.ok('encode', { steps: 2, job: 'new' })).job, 'new');
    });

    it('by a deploy of one node of the loop while the step is in it', async () => {
      const nodes = (name: string): FlowNode[] => [
        ...prompt(),
        ...loop('sampler', LONG).map((node) => (node.type === 'multidiffusion-denoise' ? { ...node, name } : node)),
      ];
      flow = await startFlow(nodes('before'));
      const lease = acquireCheckpoint(TINY, { provider: 'cpu', threads: 1 });
      const checkpoint = (await lease.get()) as Any;
      const predict = checkpoint.predict;
      const predicting = new Promise<void>((resolve) => {
        checkpoint.predict = (_rows: unknown, _timestep: number, { signal }: { signal: AbortSignal }) =>
          new Promise((_, reject) => {
            signal.addEventListener('abort', () => reject(signal.reason as Error));
            resolve();
          });
      });
      try {
        flow.send('encode', { job: 'a' });
        await predicting;
        await deploy(flow, nodes('after'), 'nodes');
      } finally {
        checkpoint.predict = predict;
        lease.release();
      }
      const caught = await flow.next('caught');
      assert.deepEqual([caught.error.code, caught.error.source.id, caught.job], ['CANCELLED', 'sampler', 'a']);
      assert.match(caught.error.message, /multidiffusion-denoise was removed or redeployed/);
      await assertFree();
      assert.equal((await flow.ok('encode', { steps: 2, job: 'b' })).job, 'b');
    });

    it('when the HTTP client goes away, without a word to Catch', async () => {
      flow = await startFlow([...prompt(), ...loop('sampler', LONG)]);
      const server = http.createServer((_, res) => flow.send('encode', { job: 'a', res: { _res: res } }));
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      try {
        const request = http.get({ port: (server.address() as AddressInfo).port, host: '127.0.0.1' });
        request.on('error', () => {});
        await event('a', 'step');
        request.destroy();
        assert.equal((await flow.ok('encode', { steps: 2, job: 'b' })).job, 'b');
        await assertFree();
      } finally {
        server.close();
      }
    });
  });
});
