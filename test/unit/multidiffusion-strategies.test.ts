import assert from 'node:assert/strict';
import fc from 'fast-check';
import { backgroundsOf, prepareInputs } from '../../dist/engine/multidiffusion/bootstrap';
import { estimateLatents, latentColours, previewImage } from '../../dist/engine/multidiffusion/colours';
import { fuse } from '../../dist/engine/multidiffusion/fusion';
import { predictNoise } from '../../dist/engine/multidiffusion/guidance';
import { Memo } from '../../dist/engine/multidiffusion/memo';
import type { Plan, SampleRequest } from '../../dist/engine/multidiffusion/plan';
import { predictedOriginal } from '../../dist/engine/schedulers/common';
import { levelBefore, noiseLevel } from '../../dist/engine/schedulers/level';
import { type Evaluate, begin, sample, takeStep } from '../../dist/engine/multidiffusion/sample';
import { cellsOf, roll, spreadViews, windowWeights } from '../../dist/engine/multidiffusion/views';
import { weightsAt } from '../../dist/engine/multidiffusion/weights';
import { resizeImage } from '../../dist/engine/image/resize';
import type { UNetRow } from '../../dist/engine/model';
import { SCHEDULER_NAMES } from '../../dist/engine/options';
import { withScheduler } from '../../dist/engine/schedulers';
import { Tensor } from '../../dist/engine/tensor';
import { AnalyticModel, conditioning, constantLatents, mask, region } from './support/analytic-model';

const small = { width: 96, height: 80, steps: 4, seed: 7, guidanceScale: 4, windowSize: 96 };
const box = mask(10, 12, (y, x) => (x > 1 && x < 6 && y > 1 && y < 6 ? 1 : 0));
const plain = (options: object, more: Partial<SampleRequest> = {}): SampleRequest => ({
  background: conditioning(0.2),
  options: { ...small, ...options },
  ...more,
});
const withBox = (options: object, more: object = {}): SampleRequest =>
  plain(options, { regions: [region(1, box, more)] });
const close = (a: ArrayLike<number>, b: ArrayLike<number>, tolerance = 1e-5): void => {
  assert.equal(a.length, b.length);
  for (let i = 0; i < a.length; i++) assert.ok(Math.abs(a[i] - b[i]) <= tolerance, `${i}: ${a[i]} and ${b[i]}`);
};

describe('window weights', () => {
  const view = { index: 0, x: 0, y: 0, height: 4, width: 8 };

  it('are even, or highest in the middle and never zero', () => {
    assert.deepEqual([...windowWeights('uniform', view)], Array(32).fill(1));
    for (const kind of ['gaussian', 'quartic']) {
      const weights = windowWeights(kind, view);
      for (let i = 0; i < 32; i++) {
        const mirrored = (3 - Math.floor(i / 8)) * 8 + 7 - (i % 8);
        assert.ok(Math.abs(weights[i] - weights[mirrored]) < 1e-15, kind);
        assert.ok(weights[i] > 0 && weights[i] <= 1, kind);
      }
      for (let x = 1; x < 4; x++) assert.ok(weights[x] > weights[x - 1], kind);
    }
  });

  it('have the shapes of their names', () => {
    const [row] = [windowWeights('gaussian', { ...view, height: 1 })];
    // One standard deviation is a tenth of the window: 0.8 cells; the cells next to the middle are 0.5 away.
    assert.ok(Math.abs(row[3] - Math.exp(-((0.5 / 0.8) ** 2) / 2)) < 1e-12);
    const quartic = windowWeights('quartic', { ...view, height: 1 });
    assert.ok(Math.abs(quartic[0] - (1 - (7 / 8) ** 2) ** 2) < 1e-12);
  });

  it('change nothing where there is one window, nor where all windows agree', async () => {
    const uniform = await sample(new AnalyticModel(), withBox({}));
    for (const kind of ['gaussian', 'quartic']) {
      close((await sample(new AnalyticModel(), withBox({ windowWeights: kind }))).latents.data, uniform.latents.data);
      const { plan, state } = await begin(new AnalyticModel(), plain({ windowWeights: kind, windowSize: 40 }));
      assert.ok(plan.views.length > 4);
      const fused = fuse(
        plan,
        plan.strategy,
        state,
        prepareInputs(plan, plan.strategy, state).map(({ view: at, latents }) => ({
          view: at,
          prompt: 0,
          latents,
        })),
      );
      assert.deepEqual(fused.data, state.latents.data);
    }
  });

  it('weigh the windows that share a cell', async () => {
    const { plan } = await begin(
      new AnalyticModel(),
      plain({ width: 96, height: 64, windowSize: 64, windowWeights: 'quartic' }),
    );
    assert.deepEqual(
      plan.views.map(({ x }) => x),
      [0, 4],
    );
    const says = [1, 3].map((value, i) => ({
      view: plan.views[i],
      prompt: 0,
      latents: Tensor.float32(new Float32Array(256).fill(value), [1, 4, 8, 8]),
    }));
    const fused = fuse(plan, plan.strategy, { index: 0 }, says).data;
    const quartic = (x: number) => (1 - ((2 * x + 1) / 8 - 1) ** 2) ** 2;
    for (let x = 0; x < 12; x++) {
      const [a, b] = [x < 8 ? quartic(x) : 0, x >= 4 ? quartic(x - 4) : 0];
      assert.ok(Math.abs(fused[x] - (a + 3 * b) / (a + b)) < 1e-6, `${x}`);
    }
  });
});

describe('background weight', () => {
  it('lets the background have its say inside regions, at every step', async () => {
    const { plan } = await begin(new AnalyticModel(), withBox({ backgroundWeight: 0.1, bootstrapping: 0.5 }));
    for (const index of [0, 3]) {
      const [background, inside] = weightsAt(plan, plan.strategy, index).masks;
      background.forEach((weight, cell) => assert.equal(weight, inside[cell] ? Math.fround(0.1) : 1));
    }
    const says = [10, 21].map((value, prompt) => ({
      view: plan.views[0],
      prompt,
      latents: Tensor.float32(new Float32Array(480).fill(value), [1, 4, 10, 12]),
    }));
    const fused = fuse(plan, plan.strategy, { index: 3 }, says).data;
    fused.forEach((value, i) => assert.ok(Math.abs(value - (box.data[i % 120] ? 20 : 10)) < 1e-4));
  });

  it('does not make the background seem uncovered', async () => {
    const everywhere = region(
      1,
      mask(8, 8, () => 1),
    );
    const { state } = await begin(new AnalyticModel(), {
      ...plain({ backgroundWeight: 0.1 }),
      background: { ...conditioning(0), prompt: '' },
      regions: [everywhere],
    });
    assert.deepEqual(state.findings, []);
  });
});

describe('growing masks', () => {
  const cells = (m: Float32Array): number => m.reduce((sum, v) => sum + v, 0);

  it('grow from the inmost cells to more than the region, step by step', async () => {
    const { plan } = await begin(
      new AnalyticModel(),
      withBox({ growingMasks: true, steps: 20, bootstrapping: 0 }, { feather: 0.1 }),
    );
    let before: Float32Array = new Float32Array(120);
    const sizes: number[] = [];
    for (let index = 0; index < 20; index++) {
      const { masks } = weightsAt(plan, plan.strategy, index);
      const level = noiseLevel(plan.scheduler, index);
      const peak = Math.max(...plan.regions[0].blurred!);
      masks[1].forEach((m, cell) => {
        assert.ok(m === 0 || m === 1);
        assert.ok(m >= before[cell], 'no cell is lost again');
        if (level < peak) assert.equal(m, plan.regions[0].blurred![cell] > level ? 1 : 0);
        assert.equal(masks[0][cell], 1 - m);
      });
      sizes.push(cells(masks[1]));
      before = masks[1];
    }
    assert.ok(sizes[0] >= 1 && sizes[0] < 16 && sizes[19] > 16, sizes.join());
  });

  it('never lose a region, however small', async () => {
    const dot = region(
      1,
      mask(10, 12, (y, x) => (x === 5 && y === 5 ? 1 : 0)),
    );
    const { plan } = await begin(
      new AnalyticModel(),
      plain({ growingMasks: true, bootstrapping: 1 }, { regions: [dot] }),
    );
    assert.deepEqual(
      [...weightsAt(plan, plan.strategy, 0).masks[1]].flatMap((m, i) => (m ? [i] : [])),
      [65],
    );
    assert.ok(
      (
        await sample(new AnalyticModel(), plain({ growingMasks: true, bootstrapping: 1 }, { regions: [dot] }))
      ).latents.data.every(Number.isFinite),
    );
  });

  it('blur round the edge of a circular canvas', async () => {
    const left = region(
      1,
      mask(10, 12, (_, x) => (x < 3 ? 1 : 0)),
    );
    const blurred = async (circular: boolean) =>
      (await begin(new AnalyticModel(), plain({ growingMasks: true, circular }, { regions: [left] }))).plan.regions[0]
        .blurred!;
    assert.ok((await blurred(true))[11] > 0.1);
    assert.ok((await blurred(false))[11] < 1e-6);
  });

  it('take the noise level of any scheduler as the square root of 1 − ᾱ', async () => {
    for (const name of SCHEDULER_NAMES) {
      const { scheduler } = (await begin(new AnalyticModel(), plain({ scheduler: name, steps: 10 }))).plan;
      const levels = scheduler.timesteps.map((_, index) => noiseLevel(scheduler, index));
      assert.ok(levels[0] > 0.95 && levels[0] <= 1, `${name}: ${levels[0]}`);
      assert.ok(
        levels.every((level, i) => i === 0 || level <= levels[i - 1] + 1e-9),
        name,
      );
    }
  });
});

describe('bootstrapping backgrounds', () => {
  const latentsOf = async (options: object, more: Partial<SampleRequest> = {}, model = new AnalyticModel()) => {
    const { plan } = await begin(model, { ...withBox(options), ...more });
    return backgroundsOf(plan, plan.strategy);
  };

  it('are any colour', async () => {
    const [black, ...none] = await latentsOf({ bootstrappingBackground: 'colour', bootstrappingColour: '#000000' });
    assert.equal(none.length, 0);
    close(black.data, constantLatents([0, 0, 0], 10, 12).data);
    const [white] = await latentsOf({ bootstrappingBackground: 'colour', bootstrappingColour: '#FFFFFF' });
    assert.deepEqual(white.data, (await latentsOf({ bootstrappingBackground: 'white' }))[0].data);
  });

  it('are a picture, of the size of a window', async () => {
    const sizes: number[][] = [];
    const model = new (class extends AnalyticModel {
      override encodeImages(images: Tensor<'uint8'>[]) {
        sizes.push(...images.map(({ dims }) => dims));
        return super.encodeImages(images);
      }
    })();
    const bootstrappingImage = Tensor.uint8(new Uint8Array(3 * 5 * 7).fill(51), [5, 7, 3]);
    const [background] = await latentsOf({ bootstrappingBackground: 'image' }, { bootstrappingImage }, model);
    assert.deepEqual(sizes, [[80, 96, 3]]);
    close(background.data, constantLatents([0.2, 0.2, 0.2], 10, 12).data);
  });

  it('name what is missing or wrong', async () => {
    await assert.rejects(latentsOf({ bootstrappingBackground: 'image' }), {
      code: 'MISSING_INPUT',
      property: 'bootstrappingImage',
    });
    const bootstrappingImage = Tensor.float32([1], [1]);
    await assert.rejects(
      latentsOf({ bootstrappingBackground: 'image' }, { bootstrappingImage }),
      /bootstrappingImage.*uint8 tensor \[height, width, 3\]/,
    );
    await assert.rejects(
      latentsOf({ bootstrappingBackground: 'colour', bootstrappingColour: 'red' }),
      /bootstrappingColour is "red"; allowed: a colour as #rrggbb/,
    );
  });

  it('are estimated by turning the decoder round where there is no encoder', async () => {
    const model = new Decoding({ canEncodeImages: false });
    const request = withBox({ bootstrappingBackground: 'colour', bootstrappingColour: '#4080c0' });
    const { plan, state } = await begin(model, request);
    assert.deepEqual(state.findings, []);
    assert.equal(model.decoded, 1);
    const image = await model.decode(backgroundsOf(plan, plan.strategy)[0]);
    [0x40, 0x80, 0xc0].forEach((value, c) => assert.ok(Math.abs(image.data[c] - value) <= 1, `${image.data[c]}`));
    await begin(model, request);
    assert.equal(model.decoded, 2, 'fitted once');
  });
});

/** Decodes by a linear map, saturated and rounded as pixels are. */
class Decoding extends AnalyticModel {
  decoded = 0;

  constructor(facts = {}) {
    super({ nativeSize: 128, ...facts });
  }

  async decode({ data, dims }: Tensor): Promise<Tensor<'uint8'>> {
    this.decoded++;
    const [, , height, width] = dims;
    const factor = this.facts.latentFactor;
    const map = [
      [0.05, 0.02, -0.03, 0.01],
      [0.01, 0.06, 0.02, -0.04],
      [-0.02, 0.01, 0.05, 0.03],
    ];
    const pixels = Uint8Array.from({ length: height * width * factor * factor * 3 }, (_, i) => {
      const [x, y] = [Math.floor(i / 3) % (width * factor), Math.floor(i / 3 / (width * factor))];
      const cell = Math.floor(y / factor) * width + Math.floor(x / factor);
      const value = map[i % 3].reduce((sum, m, c) => sum + m * (data[c * height * width + cell] as number), 0.5);
      return Math.round(255 * Math.min(1, Math.max(0, value)));
    });
    return Tensor.uint8(pixels, [height * factor, width * factor, 3]);
  }
}

describe('latent colours', () => {
  it('preview what the decoder would show, and lead back', async () => {
    const model = new Decoding();
    const colours = (await latentColours(model))!;
    const latents = Tensor.float32(
      Float32Array.from({ length: 4 * 12 }, (_, i) => Math.sin(i)),
      [1, 4, 3, 4],
    );
    const preview = previewImage(colours, latents);
    assert.deepEqual(preview.dims, [3, 4, 3]);
    const decoded = (await model.decode(latents)).data;
    close(
      preview.data,
      preview.data.map((_, i) => decoded[(Math.floor(i / 12) * 8 * 32 + (Math.floor(i / 3) % 4) * 8) * 3 + (i % 3)]),
      1,
    );
    close(previewImage(colours, estimateLatents(colours, preview, 1)).data, preview.data, 1);
  });

  it('saturate, and need a decoder', async () => {
    const colours = (await latentColours(new Decoding()))!;
    const far = Tensor.float32(new Float32Array(4).fill(1000), [1, 4, 1, 1]);
    assert.ok(previewImage(colours, far).data.every((v) => v === 0 || v === 255));
    assert.equal(latentColours(new AnalyticModel()), undefined);
  });

  it('are tried again after a failure', async () => {
    const model = new Decoding();
    const decode = model.decode.bind(model);
    model.decode = () => Promise.reject(new Error('busy'));
    await assert.rejects(latentColours(model)!, /busy/);
    model.decode = decode;
    assert.ok(await latentColours(model));
  });
});

describe('resizing pictures', () => {
  const picture = (height: number, width: number, at: (y: number, x: number) => number) =>
    Tensor.uint8(
      Uint8Array.from({ length: height * width * 3 }, (_, i) =>
        at(Math.floor(i / 3 / width), Math.floor(i / 3) % width),
      ),
      [height, width, 3],
    );

  it('keeps plain pictures plain, whatever the sizes', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 20 }),
        fc.integer({ min: 1, max: 20 }),
        fc.integer({ min: 1, max: 20 }),
        fc.integer({ min: 1, max: 20 }),
        (h, w, height, width) => {
          const resized = resizeImage(
            picture(h, w, () => 137),
            height,
            width,
          );
          assert.deepEqual(resized.dims, [height, width, 3]);
          assert.ok(resized.data.every((v) => v === 137));
        },
      ),
    );
  });

  it('interpolates when it stretches and averages when it shrinks', () => {
    const two = picture(1, 2, (_, x) => 200 * x);
    assert.deepEqual(
      [...resizeImage(two, 1, 4).data].filter((_, i) => i % 3 === 0),
      [0, 50, 150, 200],
    );
    const stripes = picture(8, 32, (_, x) => 200 * (x % 2));
    assert.ok(resizeImage(stripes, 2, 4).data.every((v) => Math.abs(v - 100) <= 5));
  });
});

describe('mask centring', () => {
  it('shows the region in the middle of its window, and puts the prediction back', async () => {
    const model = new AnalyticModel();
    const request = withBox({ maskCentring: true, bootstrapping: 1 });
    const { plan, state } = await begin(model, request);
    const standing = withBox({ maskCentring: false, bootstrapping: 1 });
    const still = await begin(new AnalyticModel(), standing);
    const own = prepareInputs(plan, plan.strategy, state).find(({ prompts }) => prompts[0] === 1)!;
    const unmoved = prepareInputs(still.plan, still.plan.strategy, still.state).find(
      ({ prompts }) => prompts[0] === 1,
    )!;
    // The box has rows 2 to 5 of 10 and columns 2 to 5 of 12: its middle goes from (3.5, 3.5) to (4.5, 5.5).
    assert.deepEqual(own.moved, [1, 2]);
    assert.deepEqual(own.latents.data, roll(unmoved.latents, 1, 2).data);
    assert.equal(unmoved.moved, undefined);
    // The formula looks at a cell and its neighbour, so it predicts the same wherever the region stands.
    const [a, b] = [
      await predictNoise(model, plan, [own], state),
      await predictNoise(model, still.plan, [unmoved], still.state),
    ];
    close(a[0].latents.data, b[0].latents.data);
    close(
      (await sample(model, request)).latents.data,
      (await sample(new AnalyticModel(), standing)).latents.data,
      1e-4,
    );
  });

  it('leaves alone what is not bootstrapped', async () => {
    const { plan, state } = await begin(new AnalyticModel(), withBox({ maskCentring: true, bootstrapping: 0.5 }));
    assert.ok(prepareInputs(plan, plan.strategy, { ...state, index: 3 }).every(({ moved }) => moved === undefined));
    assert.ok(
      prepareInputs(plan, plan.strategy, { ...state, index: 0 })
        .filter(({ prompts }) => prompts[0] === 0)
        .every(({ moved }) => moved === undefined),
    );
  });
});

describe('circular canvas', () => {
  it('has windows round the edge that cover every cell, every neighbour pair in one of them', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 60 }),
        fc.integer({ min: 2, max: 20 }),
        fc.double({ min: 0.1, max: 0.9, noNaN: true }),
        (width, window, overlap) => {
          const stride = Math.max(1, Math.round(window * (1 - overlap)));
          const views = spreadViews({ channels: 4, height: 3, width }, window, stride, true);
          const covered = new Set(views.flatMap((view) => [...cellsOf(view, width)]));
          assert.equal(covered.size, 3 * width);
          if (stride < Math.min(window, width)) {
            for (let x = 0; x < width; x++) {
              assert.ok(
                views.some((view) => (x - view.x + width) % width < view.width - 1),
                `columns ${x} and ${x + 1}`,
              );
            }
          }
        },
      ),
    );
  });

  /** Sees its window as it is, dark beyond: what a seam comes from. */
  class Padded extends AnalyticModel {
    protected override evaluate({ latents, embeddings }: UNetRow): Tensor<'float32'> {
      const width = latents.dims[3];
      const c = (embeddings.data as Float32Array)[0];
      const at = (i: number, d: number) => ((i % width) + d < 0 || (i % width) + d >= width ? 0 : latents.data[i + d]);
      return Tensor.float32(
        latents.data.map((x, i) => 0.6 * x + 0.2 * Math.sin(at(i, -1) + at(i, 1) + c)),
        latents.dims,
      );
    }
  }

  it('closes the seam: a picture moved round is the moved picture', async () => {
    const noise = (await begin(new AnalyticModel(), plain({ width: 256, height: 64 }))).plan.noise;
    const place = (x: number) => mask(8, 32, (y, at) => ((at - x + 64) % 32 < 7 && y > 1 ? 1 : 0));
    const make = async (move: number, windowWeight: string) => {
      const options = {
        width: 256,
        height: 64,
        windowSize: 64,
        windowOverlap: 0.5,
        circular: true,
        windowWeights: windowWeight,
        bootstrapping: 0.5,
        bootstrappingBackground: 'white' as const,
      };
      const regions = [region(1, place(3 + move), { feather: 0.2 }), region(2, place(27 + move))];
      return (await sample(new Padded(), plain(options, { regions, initialNoise: roll(noise, 0, move) }))).latents;
    };
    for (const kind of ['uniform', 'gaussian']) {
      const still = await make(0, kind);
      for (const move of [4, 12, 28]) close((await make(move, kind)).data, roll(still, 0, move).data, 1e-4);
    }
  });

  it('is told from a canvas with edges', async () => {
    const of = async (circular: boolean) =>
      (await sample(new Padded(), plain({ width: 256, height: 64, windowSize: 64, circular }))).latents.data;
    assert.notDeepEqual(await of(true), await of(false));
  });

  it('has no outline at its edge', async () => {
    const across = region(
      1,
      mask(10, 12, (_, x) => (x < 3 || x > 8 ? 1 : 0)),
      { feather: 0.3 },
    );
    const soft = async (circular: boolean) =>
      (await begin(new AnalyticModel(), plain({ circular }, { regions: [across] }))).plan.regions[0].mask.soft;
    assert.deepEqual(
      [...(await soft(true))].slice(0, 3).map((v) => v.toFixed(2)),
      ['1.00', '0.60', '0.20'],
    );
    const oneSided = region(
      1,
      mask(10, 12, (_, x) => (x < 3 ? 1 : 0)),
      { feather: 0.3 },
    );
    const edge = async (circular: boolean) =>
      (await begin(new AnalyticModel(), plain({ circular }, { regions: [oneSided] }))).plan.regions[0].mask.soft[0];
    assert.equal(await edge(false), 1);
    assert.ok((await edge(true)) < 1);
  });
});

describe('a picture to start from', () => {
  const photo = Tensor.float32(
    Float32Array.from({ length: 480 }, (_, i) => Math.sin(i / 7)),
    [1, 4, 10, 12],
  );

  for (const name of SCHEDULER_NAMES) {
    it(`is noised to the level of the step that strength says, and the rest of the steps are taken: ${name}`, async () => {
      const schedulerConfig = {
        ...withScheduler(new AnalyticModel().facts.schedulerConfig, name),
        skip_prk_steps: true,
      };
      const request = plain({ steps: 10, strength: 0.35 }, { initialImage: photo, schedulerConfig });
      const whole = (await begin(new AnalyticModel(), plain({ steps: 10 }, { schedulerConfig }))).plan;
      const { plan, state } = await begin(new AnalyticModel(), request);
      assert.ok(plan.scheduler.timesteps.length < whole.scheduler.timesteps.length);
      const taken = [...new Set(plan.scheduler.timesteps)];
      assert.equal(taken.length, 3, 'int(10 · 0.35) steps, as diffusers counts');
      assert.deepEqual(taken, [...new Set(whole.scheduler.timesteps)].slice(-3));
      assert.deepEqual(state.latents.data, plan.scheduler.addNoise(photo, plan.noise, 0).data);
      assert.ok((await sample(new AnalyticModel(), request)).latents.data.every(Number.isFinite));
    });
  }

  it('comes back unchanged from a model that sees through the noise', async () => {
    const seeing = new (class extends AnalyticModel {
      plan?: Plan;
      protected override evaluate(): Tensor<'float32'> {
        return this.plan!.noise;
      }
    })();
    for (const name of [
      'DDIMScheduler',
      'DPMSolverMultistepScheduler',
      'UniPCMultistepScheduler',
      'EulerDiscreteScheduler',
      'HeunDiscreteScheduler',
      'PNDMScheduler',
    ]) {
      const schedulerConfig = {
        ...withScheduler(seeing.facts.schedulerConfig, name as (typeof SCHEDULER_NAMES)[number]),
        set_alpha_to_one: true,
      };
      const { plan, state } = await begin(
        seeing,
        plain({ steps: 12, strength: 0.6, guidanceScale: 1 }, { initialImage: photo, schedulerConfig }),
      );
      seeing.plan = plan;
      while (state.index < plan.evaluations) {
        const inputs = prepareInputs(plan, plan.strategy, state);
        takeStep(plan, state, fuse(plan, plan.strategy, state, await predictNoise(seeing, plan, inputs, state)));
        if (name !== 'PNDMScheduler') close(state.predictedOriginal().data, photo.data, 2e-3);
      }
      close(state.latents.data, photo.data, name === 'PNDMScheduler' ? 0.02 : 2e-3);
    }
  });

  it('takes at least one step, all of them at strength 1', async () => {
    const steps = async (strength: number) =>
      (await begin(new AnalyticModel(), plain({ steps: 10, strength }, { initialImage: photo }))).plan.evaluations;
    assert.deepEqual([await steps(0.01), await steps(0.1), await steps(0.99), await steps(1)], [1, 1, 9, 10]);
    const without = await begin(new AnalyticModel(), plain({ steps: 10, strength: 0.1 }));
    assert.equal(without.plan.evaluations, 10, 'strength is nothing without a picture');
  });

  it('leaving too few steps for the scheduler is the strength, and not the steps that were asked for', async () => {
    const schedulerConfig = { _class_name: 'PNDMScheduler', skip_prk_steps: false };
    const request = (more: object, image = {}) =>
      begin(new AnalyticModel(), plain(more, { ...image, schedulerConfig }));
    await assert.rejects(request({ steps: 25, strength: 0.1 }, { initialImage: photo }), {
      code: 'INVALID_INPUT',
      property: 'strength',
      message: /^strength is 0\.1; allowed: more with 25 steps, of which it leaves 2/,
    });
    await assert.rejects(request({ steps: 2 }), { property: 'steps', message: /^steps is 2/ });
  });

  it('bootstraps a share of the steps that are taken, or a number of them', async () => {
    const of = async (more: object) =>
      (await begin(new AnalyticModel(), { ...withBox({ steps: 20, strength: 0.5, ...more }), initialImage: photo }))
        .plan.strategy.bootstrapping.evaluations;
    assert.equal(await of({ bootstrapping: 0.2 }), 2);
    assert.equal(await of({ bootstrapping: 3, bootstrappingUnit: 'steps' }), 3);
    assert.equal(await of({ bootstrapping: 15, bootstrappingUnit: 'steps' }), 10);
  });

  it("must be latents of the canvas' size", async () => {
    const wrong = begin(
      new AnalyticModel(),
      plain({}, { initialImage: Tensor.float32(new Float32Array(4), [1, 4, 1, 1]) }),
    );
    await assert.rejects(wrong, /initialImage is .*\[1, 4, 1, 1\].*; allowed: float32 \[1, 4, 10, 12\]/);
    await assert.rejects(
      begin(new AnalyticModel(), plain({ strength: 0 }, { initialImage: photo })),
      /strength is 0; allowed: a number from 0.01 to 1/,
    );
  });
});

describe('keeping the background', () => {
  const photo = Tensor.float32(
    Float32Array.from({ length: 480 }, (_, i) => Math.cos(i / 5)),
    [1, 4, 10, 12],
  );

  for (const name of SCHEDULER_NAMES) {
    it(`paints the regions alone, and leaves the rest exactly: ${name}`, async () => {
      const schedulerConfig = withScheduler(new AnalyticModel().facts.schedulerConfig, name);
      const request: SampleRequest = {
        ...withBox({ keepBackground: true, strength: 1, steps: 6 }),
        initialImage: photo,
        schedulerConfig,
      };
      const { latents } = await sample(new AnalyticModel(), request);
      let changed = 0;
      latents.data.forEach((value, i) => {
        if (box.data[i % 120]) changed += Math.abs(value - photo.data[i]) > 1e-3 ? 1 : 0;
        else assert.equal(value, photo.data[i]);
      });
      assert.ok(changed > 40, `${changed} of 64 values`);
    });
  }

  for (const name of SCHEDULER_NAMES) {
    it(`evaluates nothing that it would throw away, with the same result: ${name}`, async () => {
      const schedulerConfig = withScheduler(new AnalyticModel().facts.schedulerConfig, name);
      const evaluateAll: Evaluate = async (model, plan, state) => {
        const whole = { ...plan, kept: undefined, memo: new Memo(1) };
        const inputs = prepareInputs(whole, whole.strategy, state);
        return fuse(whole, whole.strategy, state, await predictNoise(model, whole, inputs, state));
      };
      for (const more of [
        {},
        { bootstrapping: 0.5 },
        { growingMasks: true },
        { backgroundWeight: 0.2, fusion: 'first' },
      ] as object[]) {
        for (const feather of [0, 0.2]) {
          const request: SampleRequest = {
            ...withBox({ keepBackground: true, windowSize: 48, windowOverlap: 0.5, steps: 5, ...more }, { feather }),
            initialImage: photo,
            schedulerConfig,
          };
          const models = [new AnalyticModel(), new AnalyticModel()];
          const [sparing, lavish] = [await sample(models[0], request), await sample(models[1], request, evaluateAll)];
          assert.deepEqual(sparing.latents.data, lavish.latents.data, JSON.stringify({ more, feather }));
          const [fewer, all] = models.map(({ calls }) => calls.reduce((sum, { rows }) => sum + rows, 0));
          assert.ok(fewer < all, `${fewer} of ${all} rows`);
        }
      }
    });
  }

  it('evaluates the background everywhere where thresholding makes each cell depend on all', async () => {
    const schedulerConfig = { ...new AnalyticModel().facts.schedulerConfig, thresholding: true };
    const request: SampleRequest = { ...withBox({ keepBackground: true }), initialImage: photo };
    const [{ plan: plainly }, { plan: threshold }] = [
      await begin(new AnalyticModel(), request),
      await begin(new AnalyticModel(), { ...request, schedulerConfig }),
    ];
    assert.ok(weightsAt(plainly, plainly.strategy, 2).masks[0].every((weight) => weight === 0));
    assert.ok(weightsAt(threshold, threshold.strategy, 2).masks[0].some((weight) => weight > 0));
  });

  it('keeps the picture in the predicted original', async () => {
    const { plan, state } = await begin(new AnalyticModel(), {
      ...withBox({ keepBackground: true }),
      initialImage: photo,
    });
    takeStep(plan, state, Tensor.float32(new Float32Array(480).fill(0.3), [1, 4, 10, 12]));
    state.predictedOriginal().data.forEach((value, i) => {
      if (!box.data[i % 120]) assert.equal(value, photo.data[i]);
    });
  });

  it("shows the model the picture at each step's level, softly at the edge of a soft region", async () => {
    const half = region(
      1,
      mask(10, 12, (_, x) => (x < 4 ? 1 : x < 6 ? 0.5 : 0)),
    );
    const request = plain({ keepBackground: true, strength: 1 }, { regions: [half], initialImage: photo });
    const [{ plan, state }, free] = [
      await begin(new AnalyticModel(), request),
      await begin(new AnalyticModel(), { ...request, options: { ...request.options, keepBackground: false } }),
    ];
    const output = Tensor.float32(new Float32Array(480).fill(0.3), [1, 4, 10, 12]);
    takeStep(plan, state, output);
    takeStep(free.plan, free.state, output);
    const level = plan.scheduler.addNoise(photo, plan.noise, 1).data;
    state.latents.data.forEach((value, i) => {
      const share = i % 12 < 4 ? 1 : i % 12 < 6 ? 0.5 : 0;
      assert.ok(Math.abs(value - (share * free.state.latents.data[i] + (1 - share) * level[i])) < 1e-5);
    });
  });

  it('needs no background prompt', async () => {
    const request = {
      ...withBox({ keepBackground: true }),
      background: { ...conditioning(0), prompt: '' },
      initialImage: photo,
    };
    assert.deepEqual((await begin(new AnalyticModel(), request)).state.findings, []);
    const free = { ...request, options: { ...request.options, keepBackground: false } };
    assert.deepEqual(
      (await begin(new AnalyticModel(), free)).state.findings.map(({ code }) => code),
      ['UNCOVERED'],
    );
  });

  it('needs a picture and a region', async () => {
    await assert.rejects(begin(new AnalyticModel(), withBox({ keepBackground: true })), {
      code: 'MISSING_INPUT',
      property: 'initialImage',
    });
    await assert.rejects(begin(new AnalyticModel(), plain({ keepBackground: true }, { initialImage: photo })), {
      code: 'MISSING_INPUT',
      property: 'regions',
    });
  });
});

describe('the predicted original', () => {
  it('is x0 of the prediction, in every scale, and comes with every step', async () => {
    for (const name of ['DDIMScheduler', 'EulerDiscreteScheduler']) {
      const { scheduler, noise } = (await begin(new AnalyticModel(), plain({ scheduler: name }))).plan;
      const picture = Tensor.float32(
        Float32Array.from({ length: 480 }, (_, i) => Math.sin(i)),
        noise.dims,
      );
      const noised = scheduler.addNoise(picture, noise, 1);
      const level = levelBefore(scheduler, 1);
      close(predictedOriginal(scheduler.predictionType, noise, noised, level).data, picture.data, 1e-3);
    }
    const seen: Float32Array[] = [];
    const { latents } = await sample(
      new AnalyticModel(),
      plain({}, { onStep: (progress) => seen.push(progress.predictedOriginal().data) }),
    );
    assert.equal(seen.length, 4);
    assert.notDeepEqual(seen[0], seen[3]);
    assert.equal(seen[3].length, latents.data.length);
  });

  it('waits for whoever looks at a step', async () => {
    const order: string[] = [];
    await sample(
      new AnalyticModel(),
      plain(
        { steps: 2 },
        {
          onStep: async ({ index }) => {
            order.push(`begin ${index}`);
            await new Promise((resolve) => setImmediate(resolve));
            order.push(`end ${index}`);
          },
        },
      ),
    );
    assert.deepEqual(order, ['begin 1', 'end 1', 'begin 2', 'end 2']);
  });
});
