import assert from 'node:assert/strict';
import fc from 'fast-check';
import { MultiDiffusionError } from '../../dist/engine/errors';
import { prepareInputs } from '../../dist/engine/multidiffusion/bootstrap';
import type { SampleRequest, SamplingJob } from '../../dist/engine/multidiffusion/job';
import { type Evaluate, sample } from '../../dist/engine/multidiffusion/sample';
import { describeStep, fuseWired, mix, predictInputs, readCanvas, readGuidance, readInputs, readPredictions, wireInputs, wirePredictions, type WiredStep } from '../../dist/engine/multidiffusion/wired';
import { type BootstrapOptions, bootstrappingNow, varyBootstrapping, varyFusion } from '../../dist/engine/multidiffusion/vary';
import { weightsAt } from '../../dist/engine/multidiffusion/weights';
import { BOOTSTRAP_OPTIONS, resolveOptions, SCHEDULER_NAMES } from '../../dist/engine/options';
import { Tensor } from '../../dist/engine/tensor';
import { AnalyticModel, conditioning, constantLatents, mask, region } from './support/analytic-model';

const box = (x: number, y: number, w: number, h: number) => mask(8, 8, (row, column) => (column >= x && column < x + w && row >= y && row < y + h ? 1 : 0));
const regions = [region(1.4, box(0, 0, 5, 8), { weight: 2, feather: 0.1 }), region(2.1, box(3, 4, 5, 4), { start: 0.2, end: 0.9, guidanceScale: 3 })];
const request = (options: SampleRequest['options']): SampleRequest => ({ background: conditioning(0.2, 0.7), regions, rowsPerCall: 7, options: { width: 96, height: 64, steps: 5, seed: 7, guidanceScale: 4, windowSize: 64, bootstrapping: 0.4, ...options } });

/** One step as the nodes take it; between them everything loses its class, as in any copy. */
const byWire: Evaluate = async (model, job, index) => {
  let step = structuredClone({ ...describeStep(job, 'job'), inputs: wireInputs(prepareInputs(job, index)) }) as WiredStep;
  step = structuredClone({ ...step, predictions: wirePredictions(await predictInputs(model, job, index, readInputs(job, step.inputs), readGuidance(job, step.prompts))) }) as WiredStep;
  const fused = structuredClone(fuseWired(job, job, index, readPredictions(job, step.predictions)));
  return readCanvas(job, fused, 'fused', '');
};

/** The job before its first step. */
async function firstStep(options: SampleRequest['options'] = {}, model = new AnalyticModel()): Promise<SamplingJob> {
  let found: SamplingJob | undefined;
  await assert.rejects(
    sample(model, request(options), (_, job) => {
      found = job;
      throw new Error('enough');
    }),
    /enough/,
  );
  return found!;
}

describe('wired steps', () => {
  for (const scheduler of SCHEDULER_NAMES) {
    it(`give the latents of the built-in loop with ${scheduler}, in the same calls of the model`, async () => {
      for (const more of [{}, { fusion: 'first' }, { maskCentring: true, circular: true }, { growingMasks: true, backgroundWeight: 0.3, windowWeights: 'quartic' }] as Array<SampleRequest['options']>) {
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
      const job = await firstStep({ scheduler });
      const { levels, noise } = describeStep(job, 'job');
      const picture = Tensor.float32(job.noise.data.map((_, i) => Math.sin(i)), job.noise.dims);
      const noised = job.scheduler.addNoise(picture, job.noise, 0).data;
      noised.forEach((value, i) => assert.ok(Math.abs(value - (levels.signal * picture.data[i] + levels.noise * noise.data[i])) < 1e-4 * (1 + Math.abs(value))));
    }
  });

  it('carry tensors that nobody else holds', async () => {
    const job = await firstStep();
    const step = describeStep(job, 'job');
    const own = [step.noise, ...step.prompts.flatMap(({ mask, weights }) => [mask, weights])];
    own.forEach((tensor) => tensor.data.fill(NaN));
    const again = describeStep(job, 'job');
    assert.ok([again.noise, ...again.prompts.flatMap(({ mask, weights }) => [mask, weights])].every(({ data }) => data.every(Number.isFinite)));
  });

  const bootstrap = (options: Partial<BootstrapOptions>): BootstrapOptions => resolveOptions(BOOTSTRAP_OPTIONS, options);

  it('can be bootstrapped otherwise than the sampler has it, at any step', async () => {
    const model = new AnalyticModel();
    const job = await firstStep({}, model);
    const own = job.options.bootstrappingBackground;
    const inputs = async (options: Partial<BootstrapOptions>, index = 0) => wireInputs(prepareInputs(await varyBootstrapping(job, model, bootstrap(options)), index));
    assert.deepEqual(await inputs({}), wireInputs(prepareInputs(job, 0)));
    assert.deepEqual(new Set((await inputs({ bootstrapping: 'none' })).flatMap(({ prompts }) => prompts.length)), new Set([2]), 'both prompts see the same');
    const images = model.images;
    assert.deepEqual(await inputs({ bootstrapping: own }), wireInputs(prepareInputs(job, 0)));
    assert.equal(model.images, images, 'the backgrounds are there already');
    assert.ok((await inputs({ bootstrapping: own }, 4)).length > (await inputs({}, 4)).length, 'also after the sampler has stopped');
    assert.notDeepEqual(await inputs({ bootstrapping: 'white' }), await inputs({}));
    assert.equal(job.options.bootstrappingBackground, own);
  });

  it('can be bootstrapped on a colour of the node, and moved to the middle or not', async () => {
    const model = new AnalyticModel();
    const job = await firstStep({ maskCentring: false }, model);
    const vary = (options: Partial<BootstrapOptions>) => varyBootstrapping(job, model, bootstrap(options));
    const [white] = (await vary({ bootstrapping: 'white' })).backgrounds;
    assert.deepEqual((await vary({ bootstrapping: 'colour', colour: '#ffffff' })).backgrounds[0].data, white.data);
    assert.deepEqual((await vary({ bootstrapping: 'colour' })).backgrounds[0].data, constantLatents([128, 128, 128].map((c) => c / 255), 8, 8).data);
    assert.ok(prepareInputs(await vary({ centring: 'on' }), 0).some(({ moved }) => moved));
    assert.ok(prepareInputs(await vary({ centring: 'off' }), 0).every(({ moved }) => !moved));
  });

  it('can be bootstrapped for a while: a share of the steps or a number of them', async () => {
    for (const scheduler of ['DDIMScheduler', 'HeunDiscreteScheduler'] as const) {
      const job = await firstStep({ scheduler, steps: 10 });
      const total = job.scheduler.timesteps.length;
      const during = (options: Partial<BootstrapOptions>): number =>
        Array.from({ length: total }, (_, index) => bootstrappingNow({ ...job, index }, bootstrap({ bootstrapping: 'white', ...options }))).filter((kind) => kind === 'white').length;
      assert.equal(during({}), total);
      assert.equal(during({ duration: 0.3 }), Math.round(0.3 * total));
      assert.equal(during({ duration: 3, durationUnit: 'steps' }), Math.round(0.3 * total));
      assert.equal(during({ duration: 0 }), 0);
      assert.equal(bootstrappingNow({ ...job, index: total - 1 }, bootstrap({ duration: 0 })), 'sampler');
      assert.throws(() => during({ duration: 3 }), /duration is 3; allowed: a fraction from 0 to 1, or a number of steps with durationUnit 'steps'/);
      assert.throws(() => during({ duration: 0.5, durationUnit: 'steps' }), /duration is 0.5; allowed: a whole number of steps/);
    }
  });

  it('can be fused otherwise, and mixed', async () => {
    const model = new AnalyticModel();
    const job = await firstStep({}, model);
    const predictions = await predictInputs(model, job, 2, prepareInputs(job, 2), readGuidance(job, undefined)); // both regions act at step 2
    const [first, last] = (['first', 'last'] as const).map((fusion) => fuseWired(job, varyFusion(job, 'sampler', { fusion }), 2, predictions));
    assert.notDeepEqual(first.data, last.data);
    assert.equal(mix(first, last, 1), last);
    assert.deepEqual(mix(first, last, 0).data, first.data);
    mix(first, last, 0.25).data.forEach((value, i) => assert.ok(Math.abs(value - (0.75 * first.data[i] + 0.25 * last.data[i])) < 1e-6));
  });

  it('can be fused in every way that the sampler has', async () => {
    const model = new AnalyticModel();
    const plain = await firstStep({}, model);
    const predictions = await predictInputs(model, plain, 2, prepareInputs(plain, 2), readGuidance(plain, undefined));
    const alike = fuseWired(plain, varyFusion(plain, 'sampler', {}), 2, predictions).data;
    for (const options of [{ fusion: 'first' }, { backgroundWeight: 0.3 }, { growingMasks: true }, { windowWeights: 'quartic' }] as Array<NonNullable<SampleRequest['options']>>) {
      const own = await firstStep(options, model);
      const wired = { ...options, ...('growingMasks' in options && { growingMasks: 'on' }) } as Parameters<typeof varyFusion>[2];
      const variant = varyFusion(plain, 'sampler', wired);
      assert.deepEqual(weightsAt(variant, 2).masks, weightsAt(own, 2).masks);
      const fused = fuseWired(plain, variant, 2, predictions).data;
      assert.notDeepEqual(fused, alike, JSON.stringify(options));
      const off = varyFusion(own, 'sampler', { fusion: 'average', backgroundWeight: 0, growingMasks: 'off', windowWeights: 'uniform' });
      assert.deepEqual(weightsAt(off, 2).masks, weightsAt(plain, 2).masks);
    }
    const soft = { ...request({}), regions: regions.map((each) => ({ ...each, feather: 0.3 })) };
    let feathered: SamplingJob | undefined;
    await sample(model, soft, (at, job, index) => ((feathered ??= { ...job }), byWire(at, job, index)));
    assert.deepEqual(weightsAt(varyFusion(plain, 'sampler', { feather: 0.3 }), 2).masks, weightsAt({ ...feathered!, weights: undefined }, 2).masks);
  });

  it('fall back on the sampler\'s fusion where everything that counts in another one was left out', async () => {
    const model = new AnalyticModel();
    const everywhere = mask(8, 8, () => 1);
    const hidden = { ...request({ fusion: 'first', bootstrapping: 0 }), regions: [region(1.4, everywhere), region(2.1, everywhere)] };
    let last: Tensor | undefined;
    await sample(model, hidden, async (_, job, index) => {
      const predictions = await predictInputs(model, job, index, prepareInputs(job, index), readGuidance(job, undefined));
      assert.deepEqual([...new Set(predictions.map(({ prompt }) => prompt))], [1]);
      const fused = fuseWired(job, varyFusion(job, 'sampler', { fusion: 'last' }), index, predictions);
      last = fuseWired(job, job, index, predictions);
      assert.deepEqual(fused.data, last.data);
      return fused;
    });
    assert.ok(last);
  });

  it('count a bootstrapped region only where it saw the picture', async () => {
    const model = new AnalyticModel();
    const job = await firstStep({ fusion: 'first', bootstrapping: 1, width: 64 }, model);
    const overlap = { ...job, regions: job.regions.map((each) => ({ ...each, first: 0, last: 9 })), weights: undefined };
    const predictions = overlap.prompts.map((_, prompt) => ({ view: job.views[0], prompt, latents: Tensor.float32(new Float32Array(256).fill(prompt), [1, 4, 8, 8]) }));
    const fused = fuseWired(overlap, varyFusion(overlap, 'sampler', { fusion: 'last' }), 0, predictions).data;
    const { masks } = weightsAt(overlap, 0);
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
    const job = await firstStep();
    const tensor = fc.record({ kind: fc.constantFrom('multidiffusion/tensor', 'other'), dtype: fc.constantFrom('float32', 'uint8', 'float64'), dims: fc.array(fc.constantFrom(1, 4, 8, -1, 0.5)), buffer: fc.constantFrom(new ArrayBuffer(1024), new ArrayBuffer(0), new Uint8Array(4), undefined) });
    const anything = fc.anything({ withBigInt: true, withTypedArray: true, withNullPrototype: true, withObjectString: true });
    const entry = fc.oneof(anything, fc.record({ view: fc.oneof(fc.integer({ min: -1, max: 4 }), anything), prompt: fc.oneof(fc.integer({ min: -1, max: 4 }), anything), prompts: fc.oneof(fc.array(fc.integer({ min: -1, max: 4 })), anything), latents: fc.oneof(tensor, anything), prediction: fc.oneof(tensor, anything), moved: anything }));
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
        allowed(() => readInputs(job, list));
        allowed(() => readPredictions(job, list));
        allowed(() => readGuidance(job, list));
        allowed(() => readCanvas(job, canvas, 'fused', 'Send it.'));
        allowed(() => readCanvas(job, list, 'fused', 'Send it.'));
      }),
      { numRuns: 500 },
    );
  });
});
