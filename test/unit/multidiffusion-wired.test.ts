import assert from 'node:assert/strict';
import fc from 'fast-check';
import { MultiDiffusionError } from '../../dist/engine/errors';
import { prepareInputs } from '../../dist/engine/multidiffusion/bootstrap';
import type { SampleRequest, SamplingJob } from '../../dist/engine/multidiffusion/job';
import { type Evaluate, sample } from '../../dist/engine/multidiffusion/sample';
import { describeStep, fuseWired, mix, predictInputs, readCanvas, readGuidance, readInputs, readPredictions, varyBootstrapping, varyFusion, wireInputs, wirePredictions, type WiredStep } from '../../dist/engine/multidiffusion/wired';
import { SCHEDULER_NAMES } from '../../dist/engine/options';
import { Tensor } from '../../dist/engine/tensor';
import { AnalyticModel, conditioning, mask, region } from './support/analytic-model';

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

  it('can be bootstrapped otherwise than the sampler has it, at any step', async () => {
    const model = new AnalyticModel();
    const job = await firstStep({}, model);
    const own = job.options.bootstrappingBackground;
    assert.equal((await varyBootstrapping(job, model, 'none')).bootstrapEvaluations, 0);
    const images = model.images;
    const same = await varyBootstrapping(job, model, own);
    assert.equal(model.images, images, 'the backgrounds are there already');
    assert.deepEqual(wireInputs(prepareInputs(same, 0)), wireInputs(prepareInputs(job, 0)));
    assert.ok(prepareInputs(same, 4).length > prepareInputs(job, 4).length, 'also after the sampler has stopped');
    const white = await varyBootstrapping(job, model, 'white');
    assert.ok(model.images > images);
    assert.notDeepEqual(wireInputs(prepareInputs(white, 0)), wireInputs(prepareInputs(job, 0)));
    assert.equal(job.options.bootstrappingBackground, own);
  });

  it('can be fused otherwise, and mixed', async () => {
    const model = new AnalyticModel();
    const job = await firstStep({}, model);
    const predictions = await predictInputs(model, job, 2, prepareInputs(job, 2), readGuidance(job, undefined)); // both regions act at step 2
    const [first, last] = ['first', 'last'].map((fusion) => fuseWired(job, varyFusion(job, fusion), 2, predictions));
    assert.notDeepEqual(first.data, last.data);
    assert.equal(mix(first, last, 1), last);
    assert.deepEqual(mix(first, last, 0).data, first.data);
    mix(first, last, 0.25).data.forEach((value, i) => assert.ok(Math.abs(value - (0.75 * first.data[i] + 0.25 * last.data[i])) < 1e-6));
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
