import assert from 'node:assert/strict';
import { CancelledError } from '../../dist/engine/errors';
import type { SampleRequest } from '../../dist/engine/multidiffusion/plan';
import { sample } from '../../dist/engine/multidiffusion/sample';
import type { Region } from '../../dist/engine/types';
import { Tensor } from '../../dist/engine/tensor';
import { AnalyticModel, conditioning, mask, region } from './support/analytic-model';

const options = { width: 128, height: 128, steps: 2, seed: 1 };
const box = mask(16, 16, (y, x) => (x >= 4 && x < 12 && y >= 4 && y < 12 ? 1 : 0));
const request = (regions: unknown, more: object = {}): SampleRequest => ({
  background: conditioning(0),
  regions: regions as Region[],
  options: { ...options, ...more },
});

describe('a request to the sampler', () => {
  it('that makes no sense is refused with the property, the value and what is allowed', async () => {
    const good = region(1, box);
    const cases: Array<[SampleRequest, RegExp]> = [
      [
        { ...request([]), background: undefined as never },
        /background is missing\. Encode its prompt with a text-encode node/,
      ],
      [{ ...request([]), background: 'a room' as never }, /background is "a room"; allowed: a conditioning/],
      [request('sofa'), /regions is "sofa"; allowed: an array/],
      [request({}), /regions is \{\}; allowed: an array/],
      [request([null]), /regions\[0\] is null; allowed: a region/],
      [request([good, []]), /regions\[1\] is \[\]/],
      [request(Array(257).fill(good)), /regions is "257 regions"; allowed: up to 256/],
      [request([{ ...good, conditioning: undefined }]), /regions\[0\]\.conditioning is missing/],
      [request([{ ...good, mask: undefined }]), /regions\[0\]\.mask is missing\. Give the region its place/],
      [request([{ ...good, mask: Tensor.float32([1, NaN], [1, 1, 2]) }]), /regions\[0\]\.mask.*NaN/],
      [request([{ ...good, mask: Tensor.float32([0], [1, 1, 1]) }]), /regions\[0\]\.mask.*zero everywhere/],
      [request([{ ...good, weight: -1 }]), /regions\[0\]\.weight is -1; allowed: a number from 0\.001/],
      [
        request([{ ...good, start: 0.5, end: 0.5 }]),
        /regions\[0\]\.end is 0\.5; allowed: more than start, which is 0\.5/,
      ],
      [request([{ ...good, feather: 'much' }]), /regions\[0\]\.feather is "much"/],
      [
        request([{ ...good, conditioning: { ...good.conditioning, embeddings: Tensor.float32([1, 2], [1, 1, 2]) } }]),
        /regions\[0\]\.conditioning\.embeddings.*same model/,
      ],
      [request([{ ...good, conditioning: { ...good.conditioning, embeddings: undefined } }]), /embeddings is missing/],
      [request([], { steps: 0 }), /steps is 0; allowed: a whole number from 1 to 1000/],
      [request([], { width: 'wide' }), /width is "wide"/],
      [request([], { scheduler: 'Magic' }), /scheduler is "Magic"; allowed: one of checkpoint, DDIMScheduler/],
      [request([], { fusion: 'mix' }), /fusion is "mix"; allowed: one of average, first, last/],
      [{ ...request([]), initialNoise: Tensor.float32([0], [1, 1, 1, 1]) }, /initialNoise.*float32 \[1, 4, 16, 16\]/],
      [{ ...request([good], { bootstrapping: 1 }), backgrounds: [] }, /backgrounds is \[\]; allowed: at least one/],
      [
        { ...request([good], { bootstrapping: 1 }), backgroundPicks: [[5], [0]] },
        /backgroundPicks\[0\] is \[5\]; allowed: an index below 2/,
      ],
    ];
    for (const [bad, reason] of cases) await assert.rejects(sample(new AnalyticModel(), bad), reason);
  });

  it('may come with clones of its tensors, which lost their class', async () => {
    const clone = (tensor: Tensor): Tensor =>
      ({ kind: tensor.kind, dtype: tensor.dtype, dims: tensor.dims, buffer: tensor.buffer }) as Tensor;
    const original = region(1, box);
    const cloned = {
      ...original,
      mask: clone(box),
      conditioning: { ...original.conditioning, embeddings: clone(original.conditioning.embeddings) },
    };
    assert.deepEqual(
      (await sample(new AnalyticModel(), request([cloned]))).latents.data,
      (await sample(new AnalyticModel(), request([original]))).latents.data,
    );
  });

  it('for a size that the model cannot make is rounded to the nearest, with a finding', async () => {
    const model = new AnalyticModel({ sizeMultiple: undefined });
    const result = await sample(model, request([], { width: 150, height: 16, windowSize: 100 }));
    assert.deepEqual([result.width, result.height, result.latents.dims], [128, 64, [1, 4, 8, 16]]);
    assert.deepEqual(result.findings, [
      { code: 'ROUNDED_SIZE', message: 'width 150 was rounded to 128: this model needs multiples of 64.' },
      { code: 'ROUNDED_SIZE', message: 'height 16 was rounded to 64: this model needs multiples of 64.' },
      { code: 'ROUNDED_SIZE', message: 'windowSize 100 was rounded to 128: this model needs multiples of 64.' },
    ]);
    const own = await sample(new AnalyticModel({ nativeSize: 64 }), {
      background: conditioning(0),
      options: { steps: 1 },
    });
    assert.deepEqual([own.width, own.height, own.findings], [64, 64, []]);
  });

  it('is told what may go wrong with it', async () => {
    const codes = async (regions: Region[], more: Partial<SampleRequest> = {}) =>
      (await sample(new AnalyticModel(), { ...request(regions), ...more })).findings.map((finding) =>
        [finding.code, finding.region].filter(Boolean).join(' '),
      );
    const everything = mask(1, 1, () => 1);
    const empty = { ...conditioning(0), prompt: '' };
    assert.deepEqual(await codes([region(1, box)]), []);
    assert.deepEqual(await codes([region(1, box)], { background: empty }), ['UNCOVERED']);
    assert.deepEqual(await codes([region(1, everything)], { background: empty }), []);
    assert.deepEqual(await codes([], { background: empty }), ['NO_PROMPT']);
    const wordless = { ...region(1, everything), conditioning: { ...conditioning(1), prompt: ' ' } };
    assert.deepEqual(await codes([wordless], { background: empty }), ['NO_PROMPT']);
    for (const shape of [
      { box: [0.3, 0.5, 1, 2] },
      { box: [-0.1, 0, 1, 1] },
      { ellipse: [0.5, 0.5, 0.6, 0.5] },
      {
        polygon: [
          [0, 0],
          [1.2, 0],
          [0, 1],
        ],
      },
    ])
      assert.deepEqual(await codes([{ ...region(1, box), shape }]), ['CUT_OFF region 1'], JSON.stringify(shape));
    for (const shape of [{ box: [0.1, 0.3, 0.9, 0.7] }, { rest: true }, { box: 'x' }, { polygon: 5 }, 'x', null])
      assert.deepEqual(await codes([{ ...region(1, box), shape }]), [], JSON.stringify(shape));
    for (const strength of [0.3, 0.45])
      assert.deepEqual(
        await codes([
          region(
            1,
            mask(16, 16, (y) => (y < 8 ? strength : 0)),
          ),
        ]),
        ['WEAK_MASK region 1'],
      );
    assert.deepEqual(
      await codes([
        region(
          1,
          mask(16, 16, (y, x) => (y < 3 && x < 3 ? 1 : 0)),
        ),
      ]),
      ['TINY_REGION region 1'],
    );
    assert.deepEqual(
      await codes([
        region(
          1,
          mask(16, 16, (y) => (y < 2 ? 1 : 0)),
        ),
      ]),
      ['TINY_REGION region 1'],
    );
    const two = [region(1, everything), region(2, box)];
    assert.deepEqual(await codes(two, { options: { ...options, fusion: 'first' } }), ['HIDDEN_REGION region 2']);
    assert.deepEqual(await codes(two, { options: { ...options, fusion: 'last' } }), []);
    assert.deepEqual(await codes([two[0], { ...two[1], weight: 0.01 }]), ['HIDDEN_REGION region 2']);
    const long = { ...conditioning(1), truncated: 'and a cat', unknownWords: ['zebra'] };
    assert.deepEqual(await codes([{ ...region(1, box), conditioning: long }]), [
      'TRUNCATED_PROMPT region 1',
      'UNKNOWN_WORDS region 1',
    ]);
    assert.deepEqual(await codes([], { background: long }), ['TRUNCATED_PROMPT', 'UNKNOWN_WORDS']);
    assert.deepEqual(await codes([region(1, box)], { options: { ...options, bootstrapping: 0.8 } }), [
      'LONG_BOOTSTRAPPING',
    ]);
    assert.deepEqual(await codes([region(1, box)], { options: { ...options, steps: 4, bootstrapping: 0.6 } }), []);
    assert.deepEqual(
      await codes([region(1, box)], {
        options: { ...options, steps: 4, bootstrapping: 3, bootstrappingUnit: 'steps' },
      }),
      ['LONG_BOOTSTRAPPING'],
    );
    assert.deepEqual(await codes([], { options: { ...options, bootstrapping: 0.8 } }), []);
  });

  it('can be cancelled between two calls of the model', async () => {
    for (const after of [0, 1, 2]) {
      const control = new AbortController();
      const model = new AnalyticModel();
      const wide = request([region(1, box)], { width: 256, windowSize: 128 });
      const cancelled = sample(model, {
        ...wide,
        rowsPerCall: 1,
        signal: control.signal,
        onStep: ({ index }) => index === after && control.abort(new CancelledError('Reset.')),
      });
      if (after === 0) control.abort(new CancelledError('Reset.'));
      if (after === 2) {
        assert.ok(await cancelled, 'done before it could be cancelled');
        continue;
      }
      await assert.rejects(cancelled, (error: Error) => error instanceof CancelledError && error.message === 'Reset.');
      assert.equal(model.calls.length, after * 3, 'three windows a step, and none after the cancel');
    }
  });

  it('tells each step to who wants to know', async () => {
    const seen: unknown[] = [];
    await sample(new AnalyticModel(), {
      ...request([]),
      onStep: ({ index, total, timestep, latents }) => seen.push([index, total, timestep, latents.dims]),
    });
    assert.deepEqual(seen, [
      [1, 2, 501, [1, 4, 16, 16]],
      [2, 2, 1, [1, 4, 16, 16]],
    ]);
  });

  it('to a model that gives nonsense ends with an error that says so', async () => {
    const broken = (output: (dims: number[]) => Tensor<'float32'>[]) =>
      Object.assign(new AnalyticModel(), {
        predict: async ([row]: Array<{ latents: Tensor }>) => output(row.latents.dims),
      });
    const run = (model: AnalyticModel) => sample(model, request([], { guidanceScale: 1 }));
    const nan = broken((dims) => [Tensor.float32(new Float32Array(1024).fill(NaN), dims)]);
    await assert.rejects(run(nan), /output at step 1 of 2 is not finite/);
    await assert.rejects(run(broken(() => [])), /does not fit its input.*0 outputs for 1 rows/);
    await assert.rejects(
      run(broken(() => [Tensor.float32([0], [1, 1, 1, 1])])),
      /does not fit its input.*\[1, 1, 1, 1\]/,
    );
  });
});
