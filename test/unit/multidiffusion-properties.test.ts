import assert from 'node:assert/strict';
import fc from 'fast-check';
import { backgroundsOf, pickBackgrounds, prepareInputs } from '../../dist/engine/multidiffusion/bootstrap';
import { fuse } from '../../dist/engine/multidiffusion/fusion';
import { predictNoise } from '../../dist/engine/multidiffusion/guidance';
import type { SampleRequest } from '../../dist/engine/multidiffusion/plan';
import { begin, sample, takeStep } from '../../dist/engine/multidiffusion/sample';
import type { Region } from '../../dist/engine/types';
import { type Shape, shapeMask } from '../../dist/engine/regions/shapes';
import { Reach, weightsAt } from '../../dist/engine/multidiffusion/weights';
import { PAPER_OPTIONS, SAMPLER_OPTIONS, SCHEDULER_NAMES } from '../../dist/engine/options';
import { withScheduler } from '../../dist/engine/schedulers';
import { Tensor } from '../../dist/engine/tensor';
import { AnalyticModel, conditioning, mask, region } from './support/analytic-model';

const full = mask(8, 8, () => 1);
const small = { width: 96, height: 80, steps: 4, seed: 7, guidanceScale: 4, windowSize: 96 };

/** Overlapping boxes, soft masks and lines; now and then one that covers everything. */
const place = fc
  .tuple(
    fc.nat(11),
    fc.nat(9),
    fc.integer({ min: 1, max: 12 }),
    fc.integer({ min: 1, max: 10 }),
    fc.constantFrom(1, 1, 0.6),
  )
  .map(([left, top, w, h, value]) =>
    mask(10, 12, (y, x) => (x >= left && x < left + w && y >= top && y < top + h ? value : 0)),
  );
const anyRegion: fc.Arbitrary<Region> = fc
  .record({
    prompt: fc.integer({ min: 1, max: 3 }),
    place,
    weight: fc.constantFrom(1, 1, 0.3, 5),
    feather: fc.constantFrom(0, 0, 0.2),
    bootstrap: fc.boolean(),
    span: fc.constantFrom<[number, number][]>([0, 1], [0, 1], [0, 0.5], [0.3, 0.8]),
    guidanceScale: fc.constantFrom(undefined, 1, 6),
    seed: fc.constantFrom(undefined, 3),
  })
  .map(({ prompt, place: where, span: [start, end], ...more }) => region(prompt, where, { ...more, start, end }));
const anyRequest: fc.Arbitrary<SampleRequest> = fc.record({
  background: fc.constant(conditioning(0.2)),
  regions: fc.array(anyRegion, { maxLength: 4 }),
  options: fc.record({
    width: fc.constant(96),
    height: fc.constant(80),
    steps: fc.constant(4),
    seed: fc.nat(),
    bootstrapping: fc.constantFrom(0, 0.5, 1),
    fusion: fc.constantFrom('average', 'first', 'last'),
    windowSize: fc.constantFrom(40, 64, 96),
  }),
});

describe('MultiDiffusion', () => {
  it('with one region over everything is plain text-to-image, bit for bit', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({ weight: fc.constantFrom(1, 0.3, 7), feather: fc.constantFrom(0, 0.3), bootstrap: fc.boolean() }),
        fc.constantFrom('average', 'first', 'last'),
        fc.constantFrom(48, 96),
        fc.constantFrom(0, 0.5, 1),
        async (more, fusion, windowSize, bootstrapping) => {
          const options = { ...small, fusion, windowSize, bootstrapping };
          const plain = await sample(new AnalyticModel(), { background: conditioning(1.4), options });
          const composed = await sample(new AnalyticModel(), {
            background: conditioning(0.2),
            regions: [region(1.4, full, more)],
            options,
          });
          assert.deepEqual(composed.latents.data, plain.latents.data);
          assert.equal(composed.unetRows, plain.unetRows);
        },
      ),
      { numRuns: 20 },
    );
  });

  for (const name of SCHEDULER_NAMES) {
    it(`with regions of one prompt, bootstrapping off, is plain text-to-image: ${name}`, async () => {
      const model = () => new AnalyticModel();
      const schedulerConfig = withScheduler(model().facts.schedulerConfig, name);
      const options = { ...small, steps: 6, bootstrapping: 0 };
      const plain = await sample(model(), { background: conditioning(1.4), options, schedulerConfig });
      const half = region(
        1.4,
        mask(10, 12, (_, x) => (x < 6 ? 1 : 0)),
      );
      const soft = region(
        1.4,
        mask(10, 12, (y, x) => (x + y) / 20),
        { weight: 0.3 },
      );
      const composed = await sample(model(), {
        background: conditioning(1.4),
        regions: [half, soft],
        options,
        schedulerConfig,
      });
      assert.deepEqual(composed.latents.data, plain.latents.data);
      assert.equal(composed.unetRows, plain.unetRows, 'regions with one prompt share their rows');
      assert.ok(plain.latents.data.every(Number.isFinite));
    });
  }

  it('fuses equal predictions to themselves: the weights of all windows and prompts sum to 1', async () => {
    await fc.assert(
      fc.asyncProperty(anyRequest, fc.nat(3), async (request, step) => {
        const { plan } = await begin(new AnalyticModel(), request);
        const value = Tensor.float32(
          Float32Array.from({ length: 4 * 120 }, (_, i) => Math.sin(i)),
          [1, 4, 10, 12],
        );
        const predictions = prepareInputs(
          plan,
          { ...plan.strategy, bootstrapping: { ...plan.strategy.bootstrapping, evaluations: 0 } },
          { index: step, latents: value },
        ).flatMap(({ view, prompts, latents }) => prompts.map((prompt) => ({ view, prompt, latents })));
        assert.deepEqual(fuse(plan, plan.strategy, { index: step }, predictions).data, value.data);
      }),
      { numRuns: 50 },
    );
  });

  it('with binary masks gives each cell to its regions, and the background max(0, 1 − ΣM)', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 3 }),
        fc.constantFrom('average', 'first', 'last'),
        async (bits, fusion) => {
          const regions = bits.map((b) =>
            region(
              1,
              mask(8, 8, (y, x) => (b >> (4 * (y >> 1) + (x >> 1))) & 1 || (x === 0 && y === 0 ? 1 : 0)),
            ),
          );
          const { plan } = await begin(new AnalyticModel(), {
            background: conditioning(0),
            regions,
            options: { ...small, width: 64, height: 64, windowSize: 64, fusion },
          });
          const { masks } = weightsAt(plan, plan.strategy, 0);
          for (let cell = 0; cell < 64; cell++) {
            const held = regions.flatMap(({ mask: m }, p) => ((m.data as Float32Array)[cell] ? [p] : []));
            const expected = fusion === 'average' ? held : fusion === 'first' ? held.slice(0, 1) : held.slice(-1);
            assert.deepEqual(
              masks.slice(1).flatMap((m, p) => (m[cell] ? [p] : [])),
              expected,
            );
            assert.equal(masks[0][cell], held.length ? 0 : 1);
          }
        },
      ),
    );
  });

  it('does not depend on how rows are put into calls', async () => {
    await fc.assert(
      fc.asyncProperty(anyRequest, fc.integer({ min: 1, max: 64 }), async (request, rowsPerCall) => {
        const whole = await sample(new AnalyticModel(), { ...request, rowsPerCall: 10_000 });
        const model = new AnalyticModel();
        const pieces = await sample(model, { ...request, rowsPerCall });
        assert.deepEqual(pieces.latents.data, whole.latents.data);
        assert.equal(pieces.unetRows, whole.unetRows);
        const most = 2 * ((request.regions?.length ?? 0) + 1);
        assert.ok(
          model.calls.every(({ rows }) => rows <= Math.max(rowsPerCall, most)),
          'memory is bounded by the call',
        );
      }),
      { numRuns: 30 },
    );
  });

  it('gives the same latents when its four parts are called one by one, the predictions in any order', async () => {
    await fc.assert(
      fc.asyncProperty(anyRequest, fc.infiniteStream(fc.nat()), async (request, order) => {
        const model = new AnalyticModel();
        const { plan, state } = await begin(model, request);
        while (state.index < plan.evaluations) {
          const inputs = prepareInputs(plan, plan.strategy, state);
          const shuffled = (await predictNoise(model, plan, inputs, state))
            .map((prediction) => ({ key: order.next().value as number, prediction }))
            .sort((a, b) => a.key - b.key)
            .map(({ prediction }) => prediction);
          takeStep(plan, state, fuse(plan, plan.strategy, state, shuffled));
        }
        const built = await sample(new AnalyticModel(), request);
        assert.deepEqual(state.latents.data, built.latents.data);
      }),
      { numRuns: 30 },
    );
  });

  it('is the naive algorithm: every prompt in every window with its own two rows', async () => {
    await fc.assert(
      fc.asyncProperty(anyRequest, async (request) => {
        const model = new AnalyticModel();
        const { plan, state } = await begin(model, request);
        const backgrounds = backgroundsOf(plan, plan.strategy);
        for (const index of [0, 1, 2, 3]) {
          const { masks, bootstrapped } = weightsAt(plan, plan.strategy, index);
          const sum = new Float64Array(4 * 120);
          const weight = new Float64Array(120);
          for (const view of plan.views) {
            for (let p = 0; p < masks.length; p++) {
              const cells = view.height * view.width;
              const cellOf = (i: number) =>
                (view.y + Math.floor((i % cells) / view.width)) * 12 + view.x + (i % view.width);
              const at = (canvas: Tensor<'float32'>) =>
                Float32Array.from(
                  { length: 4 * cells },
                  (_, i) => canvas.data[Math.floor(i / cells) * 120 + cellOf(i)],
                );
              const shape = [1, 4, view.height, view.width];
              let input = at(state.latents);
              if (bootstrapped[p] && backgrounds.length) {
                const plain = backgrounds[pickBackgrounds(plan, backgrounds.length, index)[view.index][p - 1]];
                const noised = plan.scheduler.addNoise(plain, Tensor.float32(at(plan.noise), shape), index).data;
                input = input.map((x, i) => (masks[p][cellOf(i)] > 0 ? x : noised[i]));
              }
              const { embeddings, negativeEmbeddings, guidanceScale: g } = plan.prompts[p];
              const latents = plan.scheduler.scaleModelInput(Tensor.float32(input, shape), index);
              const rows = [
                { latents, embeddings },
                { latents, embeddings: negativeEmbeddings },
              ];
              const [c, u] = (await new AnalyticModel().predict(rows, plan.scheduler.timesteps[index])).map(
                (t) => t.data,
              );
              for (let i = 0; i < c.length; i++) {
                const noise = g > 1 ? u[i] + g * (c[i] - u[i]) : c[i];
                sum[Math.floor(i / cells) * 120 + cellOf(i)] += masks[p][cellOf(i)] * noise;
                if (i < cells) weight[cellOf(i)] += masks[p][cellOf(i)];
              }
            }
          }
          const fused = fuse(
            plan,
            plan.strategy,
            state,
            await predictNoise(model, plan, prepareInputs(plan, plan.strategy, state), state),
          );
          fused.data.forEach((value, i) => assert.ok(Math.abs(value - sum[i] / weight[i % 120]) < 1e-5));
          takeStep(plan, state, fused);
        }
      }),
      { numRuns: 25 },
    );
  });

  it('fuses the same whatever the order of the predictions, even where rounding would tell', async () => {
    const everywhere = Array.from({ length: 3 }, (_, p) => region(p, full));
    const { plan, state } = await begin(new AnalyticModel(), {
      background: conditioning(9),
      regions: everywhere,
      options: { ...small, bootstrapping: 0 },
    });
    const predictions = [1e25, 1, -1e25].map((value, p) => ({
      view: plan.views[0],
      prompt: p + 1,
      latents: Tensor.float32(new Float32Array(480).fill(value), [1, 4, 10, 12]),
    }));
    assert.deepEqual(
      fuse(plan, plan.strategy, state, [predictions[2], predictions[0], predictions[1]]).data,
      fuse(plan, plan.strategy, state, predictions).data,
    );
    assert.throws(
      () => fuse(plan, plan.strategy, state, []),
      /cell \(0, 0\) has none.*at least one prediction for every latent cell/,
    );
  });

  it('never loses a region: however small, it has a cell and a window at each of its steps', async () => {
    const outline = fc.record({
      x: fc.double({ min: 0, max: 0.97, noNaN: true }),
      y: fc.double({ min: 0, max: 0.97, noNaN: true }),
      w: fc.double({ min: 0.002, max: 0.03, noNaN: true }),
      h: fc.double({ min: 0.002, max: 0.6, noNaN: true }),
    });
    await fc.assert(
      fc.asyncProperty(
        outline,
        fc.constantFrom('box', 'ellipse'),
        fc.record({
          feather: fc.constantFrom(0, 0.01, 0.5),
          weight: fc.constantFrom(0.001, 1, 1000),
          span: fc.constantFrom<[number, number][]>([0, 1], [0.4, 0.41], [0.999, 1]),
        }),
        fc.record({
          width: fc.constantFrom(64, 96, 168),
          height: fc.constantFrom(64, 80),
          windowSize: fc.constantFrom(40, 64),
          circular: fc.boolean(),
          growingMasks: fc.boolean(),
          maskCentring: fc.boolean(),
          bootstrapping: fc.constantFrom(0, 0.5, 1),
          backgroundWeight: fc.constantFrom(0, 1),
          windowWeights: fc.constantFrom('uniform', 'gaussian', 'quartic'),
        }),
        async ({ x, y, w, h }, shape, { span: [start, end], ...more }, options) => {
          const place = shapeMask({ [shape]: [x, y, w, h] } as unknown as Shape);
          const { plan, state } = await begin(new AnalyticModel(), {
            background: conditioning(0.2),
            regions: [region(1, place, { ...more, start, end })],
            options: { steps: 4, seed: 1, ...options } as SampleRequest['options'],
          });
          const { first, last } = plan.regions[0];
          for (let index = first; index < last; index++) {
            const { masks, reach } = weightsAt(plan, plan.strategy, index);
            assert.ok(
              masks[1].some((weight) => weight > 0),
              `no cell at step ${index}`,
            );
            assert.ok(
              reach.some((view) => view[1] !== Reach.None),
              `no window at step ${index}`,
            );
            assert.ok(
              prepareInputs(plan, plan.strategy, { ...state, index }).some(({ prompts }) => prompts.includes(1)),
              `no input at step ${index}`,
            );
          }
          assert.ok(last > first);
        },
      ),
      { numRuns: 150 },
    );
  });

  it('asks for as many rows at once as a call may have, however large the canvas', async () => {
    for (const width of [96, 384, 768]) {
      const model = new AnalyticModel();
      const half = region(
        1,
        mask(8, 8, (_, x) => (x < 4 ? 1 : 0)),
      );
      const { unetRows } = await sample(model, {
        background: conditioning(0.2, 0.3),
        regions: [half],
        rowsPerCall: 8,
        options: { ...small, width, windowSize: 40, bootstrapping: 0.5 },
      });
      assert.ok(
        model.calls.every(({ rows }) => rows <= 8),
        `${width}: ${Math.max(...model.calls.map(({ rows }) => rows))} rows`,
      );
      assert.equal(
        model.calls.reduce((sum, { rows }) => sum + rows, 0),
        unetRows,
      );
    }
  });

  it('lets a region act from its start to its end, and the background where it does not', async () => {
    const spans = { early: [0, 0.5], late: [0.6, 1], brief: [0.99, 1], all: [0, 1] };
    const regions = Object.entries(spans).map(([name, [start, end]], p) =>
      region(
        p + 1,
        mask(10, 12, (_, x) => (x % 4 === p ? 1 : 0)),
        { name, start, end },
      ),
    );
    const { plan } = await begin(new AnalyticModel(), {
      background: conditioning(9),
      regions,
      options: { ...small, steps: 10 },
    });
    const acting = Array.from({ length: 10 }, (_, index) =>
      weightsAt(plan, plan.strategy, index)
        .masks.map((m) => (m.some((v) => v > 0) ? 1 : 0))
        .join(''),
    );
    assert.deepEqual(acting, [...Array(5).fill('11001'), '10001', ...Array(3).fill('10101'), '10111']);
  });

  it('starts from the noise at the level that the scheduler asks for', async () => {
    const { plan, state } = await begin(new AnalyticModel(), {
      background: conditioning(0),
      options: { ...small, scheduler: 'EulerDiscreteScheduler' },
    });
    const { noise, scheduler } = plan;
    assert.ok(scheduler.initNoiseSigma > 2);
    state.latents.data.forEach((value, i) =>
      assert.equal(value, Math.fround(noise.data[i] * scheduler.initNoiseSigma)),
    );
  });

  it('makes every picture from its seed alone', async () => {
    const regions = [
      region(
        1,
        mask(8, 8, (_, x) => (x < 4 ? 1 : 0)),
      ),
    ];
    const make = async (seed: number, more: Partial<Region> = {}) =>
      (
        await sample(new AnalyticModel(), {
          background: conditioning(0),
          regions: regions.map((r) => ({ ...r, ...more })),
          options: { ...small, seed },
        })
      ).latents.data;
    assert.deepEqual(await make(1), await make(1));
    assert.notDeepEqual(await make(1), await make(2));
    assert.notDeepEqual(await make(1), await make(1, { seed: 5 }));
  });

  it("draws a region's own noise inside its mask only", async () => {
    const request = (seed?: number) => ({
      background: conditioning(0),
      regions: [
        region(
          1,
          mask(10, 12, (_, x) => (x < 6 ? 1 : 0)),
          { seed },
        ),
      ],
      options: small,
    });
    const [plain, own] = [await begin(new AnalyticModel(), request()), await begin(new AnalyticModel(), request(99))];
    const other = await begin(new AnalyticModel(), { ...request(), options: { ...small, seed: 99 } });
    own.plan.noise.data.forEach((value, i) => assert.equal(value, (i % 12 < 6 ? other : plain).plan.noise.data[i]));
  });

  it('reports the seed that it drew', async () => {
    const options = { ...small, seed: undefined };
    const { seed, latents } = await sample(new AnalyticModel(), { background: conditioning(0), options });
    assert.ok(Number.isInteger(seed) && seed >= 0 && seed < 2 ** 32);
    assert.deepEqual(
      (await sample(new AnalyticModel(), { background: conditioning(0), options: { ...options, seed } })).latents.data,
      latents.data,
    );
  });
});

describe('UNet rows', () => {
  const third = (p: number) => mask(12, 12, (y, x) => (y >= 2 && y < 10 && Math.floor(x / 4) === p ? 1 : 0));
  const options = { ...small, width: 96, height: 96, steps: 25 };

  it("are at most 0.72 of the references' for three regions, 25 steps, 20 % bootstrapping", async () => {
    const regions = [0, 1, 2].map((p) => region(p + 1, third(p)));
    const { unetRows, referenceRows, bootstrapEvaluations } = await sample(new AnalyticModel(), {
      background: conditioning(0.2),
      regions,
      options: { ...options, ...PAPER_OPTIONS },
    });
    assert.equal(bootstrapEvaluations, 5);
    assert.equal(referenceRows, 8 * 25);
    assert.equal(unetRows, 5 * 8 + 20 * 5);
    assert.ok(unetRows / referenceRows <= 0.72);
  });

  it('are one per prompt with guidance off, or inside the model', async () => {
    const regions = [0, 1].map((p) => region(p + 1, third(p)));
    const request = {
      background: conditioning(0.2),
      regions,
      options: { ...options, steps: 5, bootstrapping: 0, guidanceScale: 1 },
    };
    assert.equal((await sample(new AnalyticModel(), request)).unetRows, 3 * 5);
    assert.equal(
      (await sample(new AnalyticModel(), { ...request, options: { ...request.options, guidanceScale: 0 } })).unetRows,
      3 * 5,
    );

    const scales: Array<number | undefined> = [];
    const embedded = new (class extends AnalyticModel {
      override predict(...[rows, timestep]: Parameters<AnalyticModel['predict']>) {
        scales.push(...rows.map((row) => row.guidanceScale));
        return super.predict(rows, timestep);
      }
    })({ guidanceEmbedded: true });
    const result = await sample(embedded, { ...request, options: { ...request.options, guidanceScale: 8, steps: 1 } });
    assert.equal(result.unetRows, 3);
    assert.deepEqual(scales, [8, 8, 8]);
  });

  it('are shared between equal prompts from different encodings, whatever their guidance', async () => {
    const regions = [region(1, third(0)), region(1, third(1), { guidanceScale: 2 }), region(0, third(2))];
    const { unetRows } = await sample(new AnalyticModel(), {
      background: conditioning(0.2, 0),
      regions,
      options: { ...options, steps: 1, bootstrapping: 0 },
    });
    assert.equal(unetRows, 3, "background, both regions, and the negative prompt that is the third region's prompt");
  });

  it('leave out windows in which a region has no part', async () => {
    const left = region(
      1,
      mask(8, 24, (_, x) => (x < 8 ? 1 : 0)),
    );
    const { unetRows, views } = await sample(new AnalyticModel(), {
      background: conditioning(0.2),
      regions: [left],
      options: { ...small, width: 192, height: 64, windowSize: 64, windowOverlap: 0, steps: 1, bootstrapping: 1 },
    });
    assert.equal(views, 3);
    assert.equal(unetRows, 3 * 2, 'the region fills the first window, where the background has no part');
  });
});

describe('bootstrapping', () => {
  const box = mask(10, 12, (y, x) => (x > 2 && x < 8 && y > 2 && y < 8 ? 1 : 0));
  const request = (more: object, over: Partial<Region> = {}) => ({
    background: conditioning(0.2),
    regions: [
      region(1, box, over),
      region(
        2,
        mask(10, 12, (_, x) => (x > 8 ? 1 : 0)),
        { bootstrap: false },
      ),
    ],
    options: { ...small, steps: 10, ...more },
  });

  it('lasts a share of the steps or a number of them, never more than all', async () => {
    const of = async (more: object) =>
      (await begin(new AnalyticModel(), request(more))).plan.strategy.bootstrapping.evaluations;
    assert.equal(await of({}), Math.round(10 * SAMPLER_OPTIONS.bootstrapping.default));
    assert.equal(await of({ bootstrapping: 0.2 }), 2);
    assert.equal(await of({ bootstrapping: 0 }), 0);
    assert.equal(await of({ bootstrapping: 1 }), 10);
    assert.equal(await of({ bootstrapping: 3, bootstrappingUnit: 'steps' }), 3);
    assert.equal(await of({ bootstrapping: 50, bootstrappingUnit: 'steps' }), 10);
    await assert.rejects(of({ bootstrapping: 3 }), /bootstrapping is 3; allowed: a fraction from 0 to 1/);
    await assert.rejects(
      of({ bootstrapping: 0.4, bootstrappingUnit: 'steps' }),
      /bootstrapping is 0.4; allowed: a whole number of steps/,
    );
    await assert.rejects(of({ bootstrappingUnit: 'steps' }), /allowed: a whole number of steps/);
  });

  it('keeps its share with schedulers that evaluate the model more often than they step', async () => {
    const { plan } = await begin(
      new AnalyticModel(),
      request({ scheduler: 'HeunDiscreteScheduler', bootstrapping: 0.2 }),
    );
    assert.equal(plan.scheduler.timesteps.length, 19);
    assert.equal(plan.strategy.bootstrapping.evaluations, 4);
  });

  it('shows a region its part of the picture on a noised plain background, the others the whole', async () => {
    const { plan, state } = await begin(
      new AnalyticModel(),
      request({ ...PAPER_OPTIONS, scheduler: 'EulerDiscreteScheduler' }),
    );
    const [shared, own] = prepareInputs(plan, plan.strategy, state);
    assert.deepEqual(shared.prompts, [0, 2]);
    assert.equal(shared.latents, state.latents);
    assert.deepEqual(own.prompts, [1]);
    const backgrounds = backgroundsOf(plan, plan.strategy);
    const plain = backgrounds[pickBackgrounds(plan, backgrounds.length, 0)[0][0]];
    const noised = plan.scheduler.addNoise(plain, plan.noise, 0).data;
    own.latents.data.forEach((value, i) => assert.equal(value, box.data[i % 120] ? state.latents.data[i] : noised[i]));
  });

  it('lets a soft region weigh nothing where its input is not the shared latents', async () => {
    const ramp = mask(10, 12, (_, x) => x / 12);
    const { plan } = await begin(new AnalyticModel(), {
      background: conditioning(0.2),
      regions: [region(1, ramp)],
      options: small,
    });
    const row = (index: number, prompt: number) =>
      [...weightsAt(plan, plan.strategy, index).masks[prompt].slice(0, 12)].map((v) => Math.round(12 * v));
    assert.deepEqual(row(0, 1), [0, 0, 0, 0, 0, 0, 6, 7, 8, 9, 10, 11]);
    assert.deepEqual(row(0, 0), [12, 12, 12, 12, 12, 12, 6, 5, 4, 3, 2, 1]);
    assert.deepEqual(row(3, 1), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  });

  it('takes as many colours as bootstrapped evaluations, or white', async () => {
    const { plan } = await begin(new AnalyticModel(), request({ ...PAPER_OPTIONS, bootstrapping: 0.6 }));
    assert.equal(backgroundsOf(plan, plan.strategy).length, 6);
    const picks = Array.from({ length: 6 }, (_, index) => pickBackgrounds(plan, 6, index)[0][0]);
    assert.ok(new Set(picks).size > 1);
    const { plan: whitely } = await begin(new AnalyticModel(), request({ bootstrappingBackground: 'white' }));
    const white = backgroundsOf(whitely, whitely.strategy);
    assert.equal(white.length, 1);
    assert.deepEqual([...white[0].data.filter((_, i) => i % 120 === 0)], [1.5, 0.75, 1.100000023841858, 1]);
  });

  it('encodes nothing when no region needs a background', async () => {
    const model = new AnalyticModel();
    await sample(model, request({}, { mask: full }));
    await sample(model, request({}, { bootstrap: false }));
    await sample(model, request({ bootstrapping: 0 }));
    assert.equal(model.images, 0);
  });

  it('does without a VAE encoder, and says so', async () => {
    const { findings } = await sample(new AnalyticModel({ canEncodeImages: false }), request({}));
    assert.deepEqual(
      findings.map(({ code }) => code),
      ['NO_ENCODER'],
    );
  });
});
