/** Whole pictures against what diffusers and the official MultiDiffusion program computed with the same files. */
import assert from 'node:assert/strict';
import { openCheckpoint, sample, type Checkpoint, type Region } from '../../dist/engine';
import { halfToFloat } from '../../dist/engine/inference/process/float16';
import { TorchGenerator } from '../../dist/engine/noise';
import { PAPER_OPTIONS } from '../../dist/engine/options';
import { Tensor } from '../../dist/engine/tensor';
import {
  checkpointFolder,
  SLOWNESS,
  TEST_PROVIDER,
  difference,
  golden,
  goldenResult,
  shareBeyond,
} from './support/checkpoints';
import { readNpy } from './support/npy';

const floats = (tensor: Tensor): ArrayLike<number> =>
  tensor.dtype === 'float16' ? halfToFloat(tensor.data) : tensor.data;

const checkpoints = {
  'tiny-sd2': { tolerance: 1e-3, imageTolerance: 2, cases: ['txt2img', 'txt2img_wide'] },
  'tiny-sd15-fp16': { tolerance: 3e-2, imageTolerance: 6, cases: ['txt2img'] },
};

for (const [name, { tolerance, imageTolerance, cases }] of Object.entries(checkpoints)) {
  describe(`${name} as diffusers`, () => {
    let checkpoint: Checkpoint;
    before(async () => {
      checkpoint = await openCheckpoint(checkpointFolder(name), { provider: TEST_PROVIDER });
    });
    after(() => checkpoint.close());

    for (const folder of cases) {
      const result = goldenResult(`${name}-results/${folder}`);
      const {
        prompt,
        negative_prompt: negative,
        steps,
        guidance_scale: guidanceScale,
        height,
        width,
        token_ids: ids,
      } = result.case;

      it(`${folder}: prompt embeddings`, async () => {
        const [encoded] = await checkpoint.encodePrompts([prompt]);
        assert.deepEqual(encoded.tokenIds, ids);
        assert.ok(difference(floats(encoded.embeddings), result.tensor('prompt_embeddings').data) < tolerance);
      });

      it(`${folder}: one UNet evaluation`, async () => {
        const [{ embeddings }] = await checkpoint.encodePrompts([prompt]);
        const [output] = await checkpoint.predict([{ latents: result.tensor('initial_noise'), embeddings }], 501);
        assert.ok(difference(output.data, result.tensor('unet_t501').data) < tolerance);
      });

      it(`${folder}: final latents`, async () => {
        const { latents } = await sample(checkpoint, {
          background: await checkpoint.encodeConditioning(prompt, negative),
          options: { steps, guidanceScale, height, width },
          initialNoise: result.tensor('initial_noise'),
        });
        const off = difference(latents.data, result.tensor('final_latents').data);
        assert.ok(off < tolerance, `differs by ${off}`);
      });

      it(`${folder}: image`, async () => {
        const image = await checkpoint.decode(result.tensor('final_latents'));
        assert.deepEqual(image.dims, [height, width, 3]);
        assert.ok(shareBeyond(image.data, result.bytes('image'), imageTolerance) <= 0.01);
      });
    }
  });
}

/**
 * The latents that the recorded run began with. Its initial_noise.npy is the first Gaussian draw of the run, which
 * went into the posterior of the first background; the latents came after the colours (9 uniform numbers)
 * and three such posteriors.
 */
function noiseOfRegionsCase(shape: number[]): Tensor<'float32'> {
  const generator = new TorchGenerator(7);
  const { uniform } = generator as unknown as { uniform: () => number };
  const colours = Float32Array.from({ length: 9 }, () => uniform.call(generator));
  assert.deepEqual(colours, readNpy(`${golden}/tiny-sd2-results/regions/background_rgb.npy`).data);
  for (let posterior = 0; posterior < 3; posterior++) generator.randn(shape);
  return generator.randn(shape);
}

describe('tiny-sd2 as the official MultiDiffusion program', () => {
  interface RegionsCase {
    prompts: string[];
    negative_prompts: string[];
    boxes_latent_y0_y1_x0_x1: number[][];
    height: number;
    width: number;
    steps: number;
    bootstrap_steps: number;
    guidance_scale: number;
    background_picks: number[][];
    unet_samples: number;
    window: number;
  }

  it('three prompts with bootstrapping', async function () {
    this.timeout(SLOWNESS * 300_000);
    const checkpoint = await openCheckpoint(checkpointFolder('tiny-sd2'), { provider: TEST_PROVIDER });
    try {
      const result = goldenResult<RegionsCase>('tiny-sd2-results/regions');
      const { prompts, negative_prompts: negatives, height, width, steps, window } = result.case;
      const conditionings = await Promise.all(
        prompts.map((prompt, i) => checkpoint.encodeConditioning(prompt, negatives[i])),
      );
      const masks = readNpy(`${golden}/tiny-sd2-results/regions/masks.npy`);
      const cells = masks.dims[2] * masks.dims[3];
      const regions: Region[] = conditionings.slice(1).map((conditioning, i) => ({
        name: conditioning.prompt,
        conditioning,
        mask: Tensor.float32(Float32Array.from(masks.data.slice((i + 1) * cells, (i + 2) * cells)), [
          1,
          masks.dims[2],
          masks.dims[3],
        ]),
      }));
      const backgrounds = result.tensor('background_latents');
      const size = backgrounds.size / backgrounds.dims[0];
      const made = await sample(checkpoint, {
        background: conditionings[0],
        regions,
        options: {
          ...PAPER_OPTIONS,
          steps,
          height,
          width,
          guidanceScale: result.case.guidance_scale,
          windowSize: window * 8,
          bootstrapping: result.case.bootstrap_steps,
          bootstrappingUnit: 'steps',
        },
        initialNoise: noiseOfRegionsCase([1, 4, height / 8, width / 8]),
        backgrounds: Array.from({ length: backgrounds.dims[0] }, (_, i) =>
          Tensor.float32(backgrounds.data.slice(i * size, (i + 1) * size), [1, ...backgrounds.dims.slice(1)]),
        ),
        backgroundPicks: result.case.background_picks,
      });
      const off = difference(made.latents.data, result.tensor('final_latents').data);
      assert.ok(off < 1e-3, `differs by ${off}`);
      assert.ok(made.unetRows < result.case.unet_samples, `${made.unetRows} rows`);
    } finally {
      await checkpoint.close();
    }
  });
});

describe('tiny-lcm as diffusers', () => {
  const result = goldenResult('tiny-lcm-results/txt2img');
  let checkpoint: Checkpoint;
  before(async () => {
    checkpoint = await openCheckpoint(checkpointFolder('tiny-lcm'), { provider: TEST_PROVIDER });
  });
  after(() => checkpoint.close());

  it('one UNet evaluation, with the guidance scale as an input', async () => {
    const [{ embeddings }] = await checkpoint.encodePrompts([result.case.prompt]);
    const row = { latents: result.tensor('initial_noise'), embeddings, guidanceScale: 8 };
    const [output] = await checkpoint.predict([row], 499);
    assert.ok(difference(output.data, result.tensor('unet_t499').data) < 1e-3);
    const [other] = await checkpoint.predict([{ ...row, guidanceScale: 2 }], 499);
    assert.ok(difference(other.data, output.data) > 1e-3, 'the guidance scale has no effect');
  });

  it('final latents', async () => {
    const noises = result.tensor('step_noises');
    const shape = result.tensor('initial_noise').dims;
    const size = shape.reduce((product, dim) => product * dim, 1);
    const made = await sample(checkpoint, {
      background: await checkpoint.encodeConditioning(result.case.prompt),
      options: { steps: result.case.steps, guidanceScale: result.case.guidance_scale, height: 128, width: 128 },
      initialNoise: result.tensor('initial_noise'),
      stepNoise: (index) => Tensor.float32(noises.data.slice(index * size, (index + 1) * size), shape),
    });
    const off = difference(made.latents.data, result.tensor('final_latents').data);
    assert.ok(off < 1e-3, `differs by ${off}`);
    assert.equal(made.unetRows, result.case.steps);
  });
});
