import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { sample } from '../../dist/engine/multidiffusion/sample';
import { PAPER_OPTIONS } from '../../dist/engine/options';
import { Tensor } from '../../dist/engine/tensor';
import { AnalyticModel, conditioning, constantLatents, region } from './support/analytic-model';
import { readNpy } from './support/npy';

const golden = path.join(__dirname, '../fixtures/golden/multidiffusion');

describe('MultiDiffusion against the official program', () => {
  for (const name of fs.readdirSync(golden)) {
    it(`gives its latents: ${name}`, async () => {
      const read = (file: string) => readNpy(path.join(golden, name, `${file}.npy`));
      const expected = JSON.parse(fs.readFileSync(path.join(golden, name, 'case.json'), 'utf8'));
      const masks = read('masks');
      const [prompts, , height, width] = masks.dims;
      const cells = height * width;
      const initial = read('initial_latents');
      const colours = read('background_rgb');
      const backgrounds = Array.from({ length: colours.dims[0] }, (_, i) =>
        constantLatents([...colours.data.slice(3 * i, 3 * i + 3)].map(Number), 64, 64),
      );
      const steps: Tensor<'float32'>[] = [];
      const result = await sample(new AnalyticModel(), {
        background: conditioning(expected.prompt_scalars[0], expected.negative_scalars[0]),
        regions: Array.from({ length: prompts - 1 }, (_, p) => ({
          ...region(
            expected.prompt_scalars[p + 1],
            Tensor.float32((masks.data as Float32Array).slice((p + 1) * cells, (p + 2) * cells), [1, height, width]),
          ),
          conditioning: conditioning(expected.prompt_scalars[p + 1], expected.negative_scalars[p + 1]),
        })),
        options: {
          ...PAPER_OPTIONS,
          width: expected.width,
          height: expected.height,
          steps: expected.steps,
          guidanceScale: expected.guidance_scale,
          bootstrapping: expected.bootstrap_steps,
          bootstrappingUnit: 'steps',
          windowSize: 8 * expected.window,
          windowOverlap: 1 - expected.stride / expected.window,
        },
        initialNoise: Tensor.float32(initial.data as Float32Array, initial.dims),
        backgrounds,
        backgroundPicks: expected.background_picks,
        onStep: ({ latents }) => steps.push(latents),
      });
      near(steps[0], read('latents_after_step_1').data as Float32Array);
      near(result.latents, read('final_latents').data as Float32Array);
      assert.equal(result.referenceRows, expected.unet_samples);
      assert.ok(result.unetRows < expected.unet_samples, `${result.unetRows} rows`);
    });
  }
});

function near(actual: Tensor<'float32'>, expected: Float32Array): void {
  assert.equal(actual.size, expected.length);
  const difference = actual.data.reduce((max, value, i) => Math.max(max, Math.abs(value - expected[i])), 0);
  assert.ok(difference <= 1e-4, `differs by ${difference}`);
}
