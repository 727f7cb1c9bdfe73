import assert from 'node:assert/strict';
import fc from 'fast-check';
import { MultiDiffusionError } from '../../dist/engine/errors';
import { backgroundsOf, prepareBackgrounds, prepareInputs } from '../../dist/engine/multidiffusion/bootstrap';
import { fuse, type Prediction } from '../../dist/engine/multidiffusion/fusion';
import { predictNoise } from '../../dist/engine/multidiffusion/guidance';
import { Memo } from '../../dist/engine/multidiffusion/memo';
import type { Plan, SampleRequest } from '../../dist/engine/multidiffusion/plan';
import { begin, type Evaluate, sample } from '../../dist/engine/multidiffusion/sample';
import {
  bootstrappingAt,
  type BootstrapOptions,
  type FuseOptions,
  type Strategy,
  withBootstrapping,
  withFusion,
} from '../../dist/engine/multidiffusion/strategy';
import {
  interpolate,
  describeStep,
  readBootstrapping,
  readCanvas,
  readInputs,
  readPredictions,
  wireInputs,
  wirePredictions,
  type WiredStep,
} from '../../dist/engine/multidiffusion/wire';
import { weightsAt } from '../../dist/engine/multidiffusion/weights';
import { BOOTSTRAP_OPTIONS, resolveOptions, SCHEDULER_NAMES } from '../../dist/engine/options';
import { Tensor } from '../../dist/engine/tensor';
import { AnalyticModel, conditioning, constantLatents, mask, region } from './support/analytic-model';

const box = (x: number, y: number, w: number, h: number) =>
  mask(8, 8, (row, column) => (column >= x && column < x + w && row >= y && row < y + h ? 1 : 0));
const regions = [
  region(1.4, box(0, 0, 5, 8), { weight: 2, feather: 0.1 }),
  region(2.1, box(3, 4, 5, 4), { start: 0.2, end: 0.9, guidanceScale: 3 }),
];
const request = (options: SampleRequest['options']): SampleRequest => ({
  background: conditioning(0.2, 0.7),
  regions,
  rowsPerCall: 7,
  options: {
    width: 96,
    height: 64,
    steps: 5,
    seed: 7,
    guidanceScale: 4,
    windowSize: 64,
    bootstrapping: 0.4,
    ...options,
  },
});

/** One step as the nodes take it; between them everything loses its class, as in any copy. */
const byWire: Evaluate = async (model, plan, state) => {
  const { strategy } = plan;
  let step = structuredClone({
    ...describeStep(plan, state, 'job'),
    inputs: wireInputs(prepareInputs(plan, strategy, state)),
  }) as WiredStep;
  const inputs = readInputs(plan, step.inputs, step.prompts);
  step = structuredClone({
    ...step,
    predictions: wirePredictions(await predictNoise(model, plan, inputs, state)),
  }) as WiredStep;
  const fused = structuredClone(fuse(plan, strategy, state, readPredictions(plan, strategy, state, step.predictions)));
  return readCanvas(plan, fused, 'fused', '');
};

/** The plan and the state before the first step. */
const firstStep = (options: SampleRequest['options'] = {}, model = new AnalyticModel()) =>
  begin(model, request(options));

describe('wired steps', () => {
  for (const scheduler of SCHEDULER_NAMES) {
    it(`give the latents of the built-in loop with ${scheduler}, in the same calls of the model`, async () => {
      for (const more of [
        {},
        { fusion: 'first' },
        { maskCentring: true, circular: true },
        { growingMasks: true, backgroundWeight: 0.3, windowWeights: 'quartic' },
      ] as Array<SampleRequest['options']>) {
        const options = { ...more, scheduler };
        const [builtIn, wired] = [new AnalyticModel(), new AnalyticModel()];
        const expected = await sample(builtIn, request(options));
        const found = await sample(wired, request(options), byWire);
        assert.deepEqual(found.latents, expected.latents);
        assert.deepEqual(wired.calls, builtIn.calls);
        assert.equal(found.unetRows, expected.unetRows);
      }
    });
  }

  it('describe the noise level in two numbers', async () => {
    for (const scheduler of ['DDIMScheduler', 'EulerDiscreteScheduler'] as const) {
      const { plan, state } = await firstStep({ scheduler });
      const { levels, noise } = describeStep(plan, state, 'job');
      const picture = Tensor.float32(
        plan.noise.data.map((_, i) => Math.sin(i)),
        plan.noise.dims,
      );
      const noised = plan.scheduler.addNoise(picture, plan.noise, 0).data;
      noised.forEach((value, i) =>
        assert.ok(
          Math.abs(value - (levels.signal * picture.data[i] + levels.noise * noise.data[i])) <
            1e-4 * (1 + Math.abs(value)),
        ),
      );
    }
  });

  it('carry tensors that nobody else holds', async () => {
    const { plan, state } = await firstStep();
    const step = describeStep(plan, state, 'job');
    const own = [step.noise, ...step.prompts.flatMap(({ mask, weights }) => [mask, weights])];
    own.forEach((tensor) => tensor.data.fill(NaN));
    const again = describeStep(plan, state, 'job');
    assert.ok(
      [again.noise, ...again.prompts.flatMap(({ mask, weights }) => [mask, weights])].every(({ data }) =>
        data.every(Number.isFinite),
      ),
    );
  });

  const bootstrap = (options: Partial<BootstrapOptions>): BootstrapOptions =>
    resolveOptions(BOOTSTRAP_OPTIONS, options);

  /** The strategy of a bootstrap node, its backgrounds prepared. */
  async function bootstrapped(
    { plan, state }: Awaited<ReturnType<typeof firstStep>>,
    model: AnalyticModel,
    options: Partial<BootstrapOptions>,
  ): Promise<Strategy> {
    const strategy = withBootstrapping(plan, bootstrap(options));
    await prepareBackgrounds(model, plan, strategy, state);
    return strategy;
  }

  it('can be bootstrapped otherwise than the sampler has it, at any step', async () => {
    const model = new AnalyticModel();
    const first = await firstStep({}, model);
    const { plan, state } = first;
    const own = plan.options.bootstrappingBackground;
    const byPlan = wireInputs(prepareInputs(plan, plan.strategy, state));
    const inputs = async (options: Partial<BootstrapOptions>, index = 0) =>
      wireInputs(prepareInputs(plan, await bootstrapped(first, model, options), { ...state, index }));
    assert.deepEqual(await inputs({}), byPlan);
    assert.deepEqual(
      new Set((await inputs({ bootstrapping: 'none' })).flatMap(({ prompts }) => prompts.length)),
      new Set([2]),
      'both prompts see the same',
    );
    const images = model.images;
    assert.deepEqual(await inputs({ bootstrapping: own }), byPlan);
    assert.equal(model.images, images, 'the backgrounds are there already');
    assert.ok(
      (await inputs({ bootstrapping: own }, 4)).length > (await inputs({}, 4)).length,
      'also after the sampler has stopped',
    );
    assert.notDeepEqual(await inputs({ bootstrapping: 'white' }), await inputs({}));
    assert.deepEqual(await inputs({}), byPlan);
  });

  it('can be bootstrapped on a colour of the node, and moved to the middle or not', async () => {
    const model = new AnalyticModel();
    const first = await firstStep({ maskCentring: false }, model);
    const { plan, state } = first;
    const backgrounds = async (options: Partial<BootstrapOptions>) =>
      backgroundsOf(plan, await bootstrapped(first, model, options));
    const [white] = await backgrounds({ bootstrapping: 'white' });
    assert.deepEqual((await backgrounds({ bootstrapping: 'colour', colour: '#ffffff' }))[0].data, white.data);
    assert.deepEqual(
      (await backgrounds({ bootstrapping: 'colour' }))[0].data,
      constantLatents(
        [128, 128, 128].map((c) => c / 255),
        8,
        8,
      ).data,
    );
    const moved = async (centring: 'on' | 'off') =>
      prepareInputs(plan, await bootstrapped(first, model, { centring }), state).filter((input) => input.moved);
    assert.ok((await moved('on')).length > 0);
    assert.deepEqual(await moved('off'), []);
  });

  it('say once that the colours of a bootstrapping had to be guessed', async () => {
    const model = new AnalyticModel({ canEncodeImages: false });
    const { plan, state } = await firstStep({ bootstrapping: 0 }, model);
    const strategy = withBootstrapping(plan, bootstrap({ bootstrapping: 'white' }));
    const told = async () => (await prepareBackgrounds(model, plan, strategy, state)).map(({ code }) => code);
    assert.deepEqual([await told(), await told()], [['NO_ENCODER'], []]);
    assert.deepEqual(state.findings, [], 'the sampler itself needs none');
  });

  it('can be bootstrapped for a while: a share of the steps or a number of them', async () => {
    for (const scheduler of ['DDIMScheduler', 'HeunDiscreteScheduler'] as const) {
      const { plan } = await firstStep({ scheduler, steps: 10 });
      const total = plan.evaluations;
      const during = (options: Partial<BootstrapOptions>): number =>
        Array.from({ length: total }, (_, index) =>
          bootstrappingAt(plan, index, bootstrap({ bootstrapping: 'white', ...options })),
        ).filter((kind) => kind === 'white').length;
      assert.equal(during({}), total);
      assert.equal(during({ duration: 0.3 }), Math.round(0.3 * total));
      assert.equal(during({ duration: 3, durationUnit: 'steps' }), Math.round(0.3 * total));
      assert.equal(during({ duration: 0 }), 0);
      assert.equal(bootstrappingAt(plan, total - 1, bootstrap({ duration: 0 })), 'sampler');
      assert.throws(
        () => during({ duration: 3 }),
        /duration is 3; allowed: a fraction from 0 to 1, or a number of steps with durationUnit 'steps'/,
      );
      assert.throws(
        () => during({ duration: 0.5, durationUnit: 'steps' }),
        /duration is 0.5; allowed: a whole number of steps/,
      );
    }
  });

  /** What the model predicts at step 2, at which both regions act. */
  async function atStep2(options: SampleRequest['options'] = {}) {
    const model = new AnalyticModel();
    const { plan, state } = await firstStep(options, model);
    state.index = 2;
    const predictions = await predictNoise(model, plan, prepareInputs(plan, plan.strategy, state), state);
    const fused = (strategy: Partial<FuseOptions>): Tensor<'float32'> =>
      fuse(plan, withFusion(plan.strategy, strategy), state, predictions);
    return { plan, fused };
  }

  it('can be fused otherwise, and mixed', async () => {
    const { fused } = await atStep2();
    const [first, last] = (['first', 'last'] as const).map((fusion) => fused({ fusion }));
    assert.notDeepEqual(first.data, last.data);
    assert.equal(interpolate(first, last, 1), last);
    assert.deepEqual(interpolate(first, last, 0).data, first.data);
    interpolate(first, last, 0.25).data.forEach((value, i) =>
      assert.ok(Math.abs(value - (0.75 * first.data[i] + 0.25 * last.data[i])) < 1e-6),
    );
  });

  it('can be fused in every way that the sampler has', async () => {
    const masks = (plan: Plan, strategy: Partial<FuseOptions>) =>
      weightsAt(plan, withFusion(plan.strategy, strategy), 2).masks;
    const { plan, fused } = await atStep2();
    const alike = fused({}).data;
    for (const options of [
      { fusion: 'first' },
      { backgroundWeight: 0.3 },
      { growingMasks: true },
      { windowWeights: 'quartic' },
    ] as Array<NonNullable<SampleRequest['options']>>) {
      const { plan: own } = await firstStep(options);
      const wired = { ...options, ...('growingMasks' in options && { growingMasks: 'on' }) } as Partial<FuseOptions>;
      assert.deepEqual(masks(plan, wired), weightsAt(own, own.strategy, 2).masks);
      assert.notDeepEqual(fused(wired).data, alike, JSON.stringify(options));
      const off = { fusion: 'average', backgroundWeight: 0, growingMasks: 'off', windowWeights: 'uniform' } as const;
      assert.deepEqual(masks(own, off), weightsAt(plan, plan.strategy, 2).masks);
    }
    const soft = { ...request({}), regions: regions.map((each) => ({ ...each, feather: 0.3 })) };
    const { plan: feathered } = await begin(new AnalyticModel(), soft);
    assert.deepEqual(masks(plan, { feather: 0.3 }), weightsAt(feathered, feathered.strategy, 2).masks);
  });

  it("fall back on the sampler's fusion where everything that counts in another one was left out", async () => {
    const everywhere = mask(8, 8, () => 1);
    const hidden = {
      ...request({ fusion: 'first', bootstrapping: 0 }),
      regions: [region(1.4, everywhere), region(2.1, everywhere)],
    };
    let last: Tensor | undefined;
    await sample(new AnalyticModel(), hidden, async (model, plan, state) => {
      const predictions = await predictNoise(model, plan, prepareInputs(plan, plan.strategy, state), state);
      assert.deepEqual([...new Set(predictions.map(({ prompt }) => prompt))], [1]);
      const fused = fuse(plan, withFusion(plan.strategy, { fusion: 'last' }), state, predictions);
      last = fuse(plan, plan.strategy, state, predictions);
      assert.deepEqual(fused.data, last.data);
      return fused;
    });
    assert.ok(last);
  });

  it('count a bootstrapped region only where it saw the picture', async () => {
    const { plan, state } = await firstStep({ fusion: 'first', bootstrapping: 1, width: 64 });
    const overlap: Plan = {
      ...plan,
      regions: plan.regions.map((each) => ({ ...each, first: 0, last: 9 })),
      memo: new Memo(2),
    };
    const predictions = overlap.prompts.map(
      (_, prompt): Prediction => ({
        view: plan.views[0],
        prompt,
        latents: Tensor.float32(new Float32Array(256).fill(prompt), [1, 4, 8, 8]),
      }),
    );
    const fused = fuse(overlap, withFusion(overlap.strategy, { fusion: 'last' }), state, predictions).data;
    const { masks } = weightsAt(overlap, overlap.strategy, 0);
    let hidden = 0;
    for (let cell = 0; cell < 64; cell++) {
      if (overlap.regions[1].mask.hard[cell] && masks[2][cell] === 0) {
        hidden++;
        assert.equal(fused[cell], 1, 'it was hidden there by the first region, so it was shown a plain background');
      }
    }
    assert.ok(hidden > 0);
  });

  it('refuse whatever is no step with a clear error', async () => {
    const { plan, state } = await firstStep();
    const tensor = fc.record({
      kind: fc.constantFrom('multidiffusion/tensor', 'other'),
      dtype: fc.constantFrom('float32', 'uint8', 'float64'),
      dims: fc.array(fc.constantFrom(1, 4, 8, -1, 0.5)),
      buffer: fc.constantFrom(new ArrayBuffer(1024), new ArrayBuffer(0), new Uint8Array(4), undefined),
    });
    const anything = fc.anything({
      withBigInt: true,
      withTypedArray: true,
      withNullPrototype: true,
      withObjectString: true,
    });
    const entry = fc.oneof(
      anything,
      fc.record({
        view: fc.oneof(fc.integer({ min: -1, max: 4 }), anything),
        prompt: fc.oneof(fc.integer({ min: -1, max: 4 }), anything),
        prompts: fc.oneof(fc.array(fc.integer({ min: -1, max: 4 })), anything),
        latents: fc.oneof(tensor, anything),
        prediction: fc.oneof(tensor, anything),
        moved: anything,
      }),
    );
    const value = fc.oneof(anything, fc.array(entry));
    const allowed = (read: () => unknown): void => {
      try {
        read();
      } catch (error) {
        assert.ok(error instanceof MultiDiffusionError, String(error));
        assert.ok(error.message.length < 400);
      }
    };
    fc.assert(
      fc.property(value, tensor, (list, canvas) => {
        allowed(() => readInputs(plan, list, list));
        allowed(() => readPredictions(plan, plan.strategy, state, list));
        allowed(() => readBootstrapping(list));
        allowed(() => readCanvas(plan, canvas, 'fused', 'Send it.'));
        allowed(() => readCanvas(plan, list, 'fused', 'Send it.'));
      }),
      { numRuns: 500 },
    );
  });
});
