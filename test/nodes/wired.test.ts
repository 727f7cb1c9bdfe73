import assert from 'node:assert/strict';
import {
  closeModels,
  encode,
  model,
  region,
  sampler,
  startFlow,
  stopFlow,
  TINY_LCM,
  type Any,
  type FlowNode,
  type Message,
} from './support/flow';
import { bootstrap, denoise, func, fuse, loop, wired } from './support/loop';

const LEFT = [0, 0, 0.6, 1];
const LOW = [0.3, 0.5, 0.7, 0.5];
const bytes = (tensor: { buffer: ArrayBuffer }): Buffer => Buffer.from(tensor.buffer);

/** A background with two regions that overlap, on its way to the node `next`. */
const prompts = (next: string, folder?: string, more = {}): FlowNode[] => [
  model('model', folder),
  encode('encode', 'a room', 'encode2', { negativePrompt: 'blurry', negativePromptType: 'str' }),
  encode('encode2', 'a red sofa', 'left'),
  region('left', LEFT, 'encode3', { feather: 0.1, weight: 2, ...more }),
  encode('encode3', 'a plant', 'low'),
  region('low', LOW, next, more),
];
const small = { width: 64, height: 64, steps: 4 };

describe('wired steps', function () {
  this.timeout(60_000);
  afterEach(stopFlow);
  after(closeModels);

  /** The latents of the same message by a sampler in built-in mode, and by the flow that is given. */
  async function compare(
    options: object,
    nodes: FlowNode[],
    folder?: string,
    ours: object = {},
  ): Promise<{ builtIn: Message; byWire: Message }> {
    const flow = await startFlow([
      ...prompts('both', folder, ours),
      func('both', 'return [msg, RED.util.cloneMessage(msg)];', ['plain', 'sampler']),
      sampler('plain', 'other', options),
      { id: 'other', type: 'helper' },
      ...nodes,
    ]);
    const byWire = await flow.ok('encode', {});
    return { byWire, builtIn: await flow.next('other') };
  }
  const same = ({ builtIn, byWire }: { builtIn: Message; byWire: Message }): void =>
    assert.ok(bytes(builtIn.latents).equals(bytes(byWire.latents)), 'the latents differ');
  const different = ({ builtIn, byWire }: { builtIn: Message; byWire: Message }): void =>
    assert.ok(!bytes(builtIn.latents).equals(bytes(byWire.latents)), 'the latents are the same');

  describe('give the same latents as built-in steps, bit for bit', () => {
    it('with two overlapping regions', async () => {
      const messages = await compare(small, loop('sampler', small));
      same(messages);
      const { timings: _, created: __, stepMode, ...facts } = messages.byWire.generation;
      const { timings: ___, created: ____, stepMode: other, ...others } = messages.builtIn.generation;
      assert.deepEqual(facts, others);
      assert.deepEqual([stepMode, other], ['wired', 'built-in']);
      assert.equal(facts.startedFromImage, false);
    });

    it('with windows, more of them than one call of the model takes', async () => {
      const options = { width: 160, height: 96, steps: 2, windowSize: 64, windowOverlap: 0.75 };
      same(await compare(options, loop('sampler', options)));
    });

    for (const scheduler of [
      'DDIMScheduler',
      'DPMSolverMultistepScheduler',
      'EulerDiscreteScheduler',
      'EulerAncestralDiscreteScheduler',
      'HeunDiscreteScheduler',
      'UniPCMultistepScheduler',
    ]) {
      it(`with ${scheduler}`, async () => {
        const options = { ...small, scheduler };
        same(await compare(options, loop('sampler', options)));
      });
    }

    for (const fusion of ['first', 'last']) {
      it(`with the ${fusion} region on top, chosen in the sampler or in multidiffusion-fuse`, async () => {
        same(await compare({ ...small, fusion }, loop('sampler', { ...small, fusion })));
        await stopFlow();
        same(await compare({ ...small, fusion }, loop('sampler', small, { fuse: { fusion } })));
        await stopFlow();
        different(await compare(small, loop('sampler', small, { fuse: { fusion } })));
      });
    }

    for (const bootstrappingBackground of ['random', 'white']) {
      it(`with bootstrapping on ${bootstrappingBackground}`, async () => {
        const options = { ...small, bootstrapping: 0.5, bootstrappingBackground };
        same(await compare(options, loop('sampler', options), TINY_LCM));
      });
    }

    const strategies = {
      bootstrapping: 0.5,
      bootstrappingBackground: 'colour',
      bootstrappingColour: '#d0a040',
      maskCentring: true,
      backgroundWeight: 0.2,
      growingMasks: true,
      windowWeights: 'gaussian',
    };
    it('with centred and growing masks, a background everywhere, and weighted windows that go round the edge', async () => {
      const options = { ...strategies, width: 128, height: 64, steps: 4, windowSize: 64, circular: true };
      same(await compare(options, loop('sampler', options), TINY_LCM));
    });

    it('with windows, bootstrapping, and regions that come and go', async () => {
      const options = {
        width: 96,
        height: 64,
        steps: 4,
        windowSize: 64,
        bootstrapping: 0.5,
        scheduler: 'EulerAncestralDiscreteScheduler',
      };
      same(await compare(options, loop('sampler', options), TINY_LCM, { start: 0.25, end: 0.8 }));
    });
  });

  describe('can be rewired', () => {
    const bootstrapped = { ...small, bootstrapping: 0.5 };
    const byStep = (id: string, first: string, later: string): FlowNode => ({
      id,
      type: 'switch',
      property: 'step.fraction',
      propertyType: 'msg',
      rules: [{ t: 'lt', v: '0.5', vt: 'num' }, { t: 'else' }],
      checkall: 'false',
      outputs: 2,
      wires: [[first], [later]],
    });

    it('so that a Switch chooses the bootstrapping by step', async () => {
      same(
        await compare(
          bootstrapped,
          [
            wired('sampler', 'switch', 'out', bootstrapped),
            byStep('switch', 'early', 'late'),
            bootstrap('early', 'denoise', { bootstrapping: 'random' }),
            bootstrap('late', 'denoise', { bootstrapping: 'none' }),
            denoise('denoise', 'fuse'),
            fuse('fuse', 'sampler'),
          ],
          TINY_LCM,
        ),
      );
    });

    it('so that the bootstrap node bootstraps whatever the sampler says, or not at all', async () => {
      const [off, on] = [
        { ...small, bootstrapping: 0 },
        { ...small, bootstrapping: 1, bootstrappingBackground: 'white' },
      ];
      same(await compare(off, loop('sampler', bootstrapped, { bootstrap: { bootstrapping: 'none' } }), TINY_LCM));
      await stopFlow();
      same(await compare(on, loop('sampler', off, { bootstrap: { bootstrapping: 'white' } }), TINY_LCM));
    });

    it('so that the bootstrap node moves regions to the middle or leaves them, whatever the sampler says', async () => {
      for (const maskCentring of [true, false]) {
        const [one, other] = [
          { ...bootstrapped, maskCentring },
          { ...bootstrapped, maskCentring: !maskCentring },
        ];
        same(
          await compare(
            one,
            loop('sampler', other, { bootstrap: { centring: maskCentring ? 'on' : 'off' } }),
            TINY_LCM,
          ),
        );
        await stopFlow();
        different(await compare(one, loop('sampler', other), TINY_LCM));
        await stopFlow();
      }
    });

    it('so that the nodes hold every strategy, and the sampler none', async () => {
      const canvas = { width: 96, height: 64, steps: 4, windowSize: 64, bootstrapping: 0, maskCentring: false };
      const bootstrapping = {
        bootstrapping: 2,
        bootstrappingUnit: 'steps',
        bootstrappingBackground: 'colour',
        bootstrappingColour: '#d0a040',
        maskCentring: true,
      };
      const node = {
        bootstrapping: 'colour',
        colour: '#d0a040',
        duration: '0.5',
        durationUnit: 'fraction',
        centring: 'on',
      };
      const weights = { backgroundWeight: 0.2, windowWeights: 'quartic' };
      same(
        await compare(
          { ...canvas, ...bootstrapping, ...weights },
          loop('sampler', canvas, { bootstrap: node, fuse: { ...weights, feather: '0.1' } }),
          TINY_LCM,
          { feather: 0.1 },
        ),
      );
      await stopFlow();
      same(
        await compare(
          { ...canvas, ...weights, fusion: 'last', growingMasks: true },
          loop('sampler', canvas, { fuse: { ...weights, fusion: 'last', growingMasks: 'on' } }),
          TINY_LCM,
        ),
      );
    });

    it('with several fuse nodes that are mixed', async () => {
      const nodes = (mix: number): FlowNode[] => [
        wired('sampler', 'bootstrap', 'out', small),
        bootstrap('bootstrap', 'denoise'),
        denoise('denoise', 'fuse'),
        fuse('fuse', 'fuse2', { fusion: 'first' }),
        fuse('fuse2', 'sampler', { fusion: 'last', mix }),
      ];
      same(await compare({ ...small, fusion: 'first' }, nodes(0)));
      await stopFlow();
      same(await compare({ ...small, fusion: 'last' }, nodes(1)));
      await stopFlow();
      const half = await compare({ ...small, fusion: 'last' }, nodes(0.5));
      different(half);
    });

    it('by options in the message, which come before the nodes’ own', async () => {
      same(
        await compare({ ...small, fusion: 'first' }, [
          wired('sampler', 'set', 'out', small),
          func('set', "msg.step.options = { fusion: 'first' }; return msg;", 'bootstrap'),
          bootstrap('bootstrap', 'denoise'),
          denoise('denoise', 'fuse'),
          fuse('fuse', 'sampler', { fusion: 'last' }),
        ]),
      );
    });

    it('with guidance that changes by step', async () => {
      const code = 'for (const prompt of msg.step.prompts) prompt.guidanceScale = 3; return msg;';
      const nodes = [
        wired('sampler', 'guide', 'out', small),
        func('guide', code, 'bootstrap'),
        bootstrap('bootstrap', 'denoise'),
        denoise('denoise', 'fuse'),
        fuse('fuse', 'sampler'),
      ];
      same(await compare({ ...small, guidanceScale: 3 }, nodes));
    });

    it('with a Function node in the place of each of the three', async () => {
      const tensor =
        "const tensor = (data, dims) => ({ kind: 'multidiffusion/tensor', dtype: 'float32', dims, " +
        'buffer: Float32Array.from(data).buffer });\n';
      const prepare = `const [view] = msg.step.views;
        msg.step.inputs = [{ view: view.index, prompts: msg.step.prompts.map((_, p) => p), latents: msg.latents }];
        return msg;`;
      const average = `${tensor}
        const [, channels, height, width] = msg.latents.dims;
        const cells = height * width;
        const fused = new Float32Array(channels * cells);
        for (let i = 0; i < fused.length; i++) {
          let [sum, weight] = [0, 0];
          for (const { prompt, prediction } of msg.step.predictions) {
            const share = msg.step.prompts[prompt].weights.data[i % cells];
            sum += share * prediction.data[i];
            weight += share;
          }
          fused[i] = sum / weight;
        }
        msg.step.fused = tensor(fused, msg.latents.dims);
        return msg;`;
      same(
        await compare(small, [
          wired('sampler', 'bootstrap', 'out', small),
          func('bootstrap', prepare, 'denoise'),
          denoise('denoise', 'fuse'),
          func('fuse', average, 'sampler'),
        ]),
      );
      await stopFlow();
      const constant = `${tensor}
        const { data, dims } = msg.latents;
        const prediction = () => tensor(data.map((x) => 0.1 * x), dims);
        msg.step.predictions = [0, 1, 2].map((prompt) => ({ view: 0, prompt, prediction: prediction() }));
        return msg;`;
      const { byWire } = await compare(small, [
        wired('sampler', 'predict', 'out', small),
        func('predict', constant, 'fuse'),
        fuse('fuse', 'sampler'),
      ]);
      assert.ok(byWire.latents.data.every(Number.isFinite));
    });

    it('so that a branch looks at the latents on the way, even if it writes into them', async () => {
      const spoil =
        'const planes = msg.step.prompts.flatMap((p) => [p.mask, p.weights]);' +
        'for (const t of [msg.latents, msg.step.noise, ...planes]) t.data.fill(NaN); return msg;';
      const { byWire, builtIn } = await compare(small, [
        { ...wired('sampler', 'bootstrap', 'out', small), wires: [['out'], ['bootstrap', 'look'], ['progress']] },
        ...loop('sampler', small)
          .slice(1)
          .map((node) => (node.id === 'sampler-bootstrap' ? { ...node, id: 'bootstrap' } : node)),
        func('look', spoil, ''),
      ]);
      same({ byWire, builtIn });
    });

    it('so that latents are changed on the way: here nothing is drawn on the right', async () => {
      const paint = `const { data, dims } = msg.latents;
        const { buffer } = data.map((x, i) => (i % dims[3] >= dims[3] / 2 ? 0 : x));
        msg.latents = { kind: msg.latents.kind, dtype: 'float32', dims, buffer };
        return msg;`;
      const { byWire } = await compare(small, [
        wired('sampler', 'bootstrap', 'out', small),
        bootstrap('bootstrap', 'denoise'),
        denoise('denoise', 'zero'),
        func('zero', paint, 'fuse'),
        fuse('fuse', 'sampler'),
      ]);
      assert.ok(byWire.latents.data.every(Number.isFinite));
    });
  });

  it('carry the message that was sent, and what nodes add to it, and send on the original', async () => {
    const seen: Any[] = [];
    const flow = await startFlow([
      ...prompts('sampler'),
      wired('sampler', 'note', 'out', small),
      func('note', 'msg.noted = (msg.noted || 0) + 1; return msg;', 'bootstrap'),
      bootstrap('bootstrap', 'denoise'),
      denoise('denoise', 'fuse'),
      fuse('fuse', 'look'),
      {
        id: 'look',
        type: 'function',
        func: 'return [msg, RED.util.cloneMessage(msg)];',
        outputs: 2,
        wires: [['sampler'], ['seen']],
      },
      { id: 'seen', type: 'helper' },
    ]);
    const res = { _res: { once() {}, removeListener() {} } };
    const parts = { id: 'p', index: 0, count: 1 };
    const msg = await flow.ok('encode', { topic: 'kept', parts, res, payload: 5, job: 'mine' });
    for (let i = 0; i < 4; i++) seen.push(await flow.next('seen'));
    assert.equal(msg.res, res);
    assert.deepEqual(
      [msg.topic, msg.parts, msg.payload, msg.job, msg.noted, msg.step],
      ['kept', parts, 5, 'mine', undefined, undefined],
    );
    assert.deepEqual(
      seen.map(({ noted }) => noted),
      [1, 2, 3, 4],
    );
    assert.deepEqual(
      seen.map(({ step }) => [step.job, step.index, step.total, step.fraction]),
      [0, 1, 2, 3].map((index) => ['mine', index, 4, index / 4]),
    );
    const [{ step, latents, topic, regions }] = seen;
    assert.equal(regions, undefined, 'what the sampler has used up does not travel');
    assert.equal(msg.regions.length, 2);
    assert.equal(topic, 'kept');
    assert.deepEqual(latents.dims, [1, 4, 8, 8]);
    assert.deepEqual(
      step.prompts.map(({ name, weight }: Any) => [name, weight]),
      [
        ['background', 1],
        ['left', 2],
        ['low', 1],
      ],
    );
    assert.deepEqual(step.prompts[1].mask.dims, [1, 8, 8]);
    assert.deepEqual(step.views, [{ index: 0, x: 0, y: 0, height: 8, width: 8 }]);
    assert.deepEqual(
      step.predictions.map(({ view, prompt, prediction }: Any) => [view, prompt, prediction.dims]),
      [0, 1, 2].map((p) => [0, p, [1, 4, 8, 8]]),
    );
    assert.ok(seen.every((other, i) => i === 0 || other.step.timestep < seen[i - 1].step.timestep));
    const events = flow.all('progress').map(({ payload }) => payload.event);
    assert.deepEqual(events, ['queued', 'started', 'step', 'step', 'step', 'step', 'done']);
    assert.deepEqual(
      flow.warnings.filter((text) => /ignored/.test(text)),
      [],
    );
  });
});
