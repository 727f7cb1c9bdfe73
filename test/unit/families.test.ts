/**
 * Stable Diffusion XL, Stable Diffusion 3 and FLUX.1 against what diffusers and a reference of the method computed
 * with the same files.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { openCheckpoint, sample, Tensor, type Checkpoint, type Region, type SampleRequest } from '../../dist/engine';
import { loadTokenizer } from '../../dist/engine/inference/process/tokenizer';
import { encodeColours } from '../../dist/engine/multidiffusion/plain-colours';
import { PAPER_OPTIONS } from '../../dist/engine/options';
import {
  checkpointFolder,
  SLOWNESS,
  TEST_PROVIDER,
  difference,
  golden,
  goldenResult,
  shareBeyond,
  type GoldenCase,
} from './support/checkpoints';

interface FamilyCase extends Omit<GoldenCase, 'negative_prompt'> {
  negative_prompt: string | null;
  true_cfg_scale?: number;
  max_sequence_length?: number;
  token_ids_2: number[];
  token_ids_3?: number[];
  time_ids?: number[];
  [tokenizer: `tokenizer_${string}`]: Array<{ text: string; ids: number[] }> | undefined;
}

/** Relative to the largest value; graphics cards round in other places than the reference. */
const TOLERANCE = TEST_PROVIDER === 'cpu' ? 1e-4 : 1e-3;

const FAMILIES = {
  'tiny-sdxl': { cases: ['txt2img', 'txt2img_wide'], output: 'unet_t501', timestep: 501, t5: undefined },
  'tiny-sd3': { cases: ['txt2img', 'txt2img_wide'], output: 'transformer_t500', timestep: 500, t5: '_3' },
  'tiny-flux': {
    cases: ['txt2img', 'txt2img_wide', 'txt2img_true_cfg'],
    output: 'transformer_t500',
    timestep: 500,
    t5: '_2',
  },
} as const;

for (const [name, { cases, output, timestep, t5 }] of Object.entries(FAMILIES)) {
  describe(`${name} as diffusers`, function () {
    this.timeout(SLOWNESS * 60_000);
    for (const folder of cases) {
      describe(folder, () => {
        const result = goldenResult<FamilyCase>(`${name}-results/${folder}`);
        const { prompt, negative_prompt: negative, max_sequence_length: t5Tokens } = result.case;
        let checkpoint: Checkpoint;
        before(async () => {
          checkpoint = await openCheckpoint(checkpointFolder(name), { provider: TEST_PROVIDER, t5Tokens });
        });
        after(() => checkpoint.close());

        const near = (
          actual: ArrayLike<number> | undefined,
          expected: ArrayLike<number>,
          tolerance = TOLERANCE,
        ): void => {
          assert.ok(actual, 'there is none');
          const off = difference(actual, expected);
          assert.ok(off < tolerance, `differs by ${off}`);
        };

        it('token ids of every tokenizer', () => {
          for (const [suffix, ids] of [
            ['', result.case.token_ids],
            ['_2', result.case.token_ids_2],
            ['_3', result.case.token_ids_3],
          ] as const) {
            if (!ids) continue;
            const kind = suffix === t5 ? 't5' : 'clip';
            const tokenizerFolder = `${checkpointFolder(name)}/tokenizer${suffix}`;
            const tokenizer = loadTokenizer({ kind, tokenizerFolder, maxTokens: ids.length });
            assert.deepEqual(tokenizer.tokenize(prompt).ids, ids);
            for (const { text, ids: expected } of result.case[`tokenizer${suffix}_cases` as 'tokenizer_cases'] ?? []) {
              const long = loadTokenizer({ kind, tokenizerFolder, maxTokens: expected.length });
              assert.deepEqual(long.tokenize(text).ids, expected, JSON.stringify(text));
            }
          }
        });

        it('embeddings and pooled embeddings, of the negative prompt too', async () => {
          const conditioning = await checkpoint.encodeConditioning(prompt, negative);
          near(conditioning.embeddings.data, result.tensor('prompt_embeddings').data);
          near(conditioning.pooled?.data, result.tensor('pooled_prompt_embeddings').data);
          assert.equal(conditioning.negativeAbsent, negative === null && name !== 'tiny-sd3' ? true : undefined);
          if (name === 'tiny-flux') return;
          const pooled = result.tensor('pooled_negative_prompt_embeddings').data;
          if (negative === null && name === 'tiny-sdxl') {
            assert.deepEqual([...pooled], [...pooled].fill(0));
            assert.deepEqual(conditioning.negativePooled?.data, pooled);
            assert.deepEqual(conditioning.negativeEmbeddings.data, result.tensor('negative_prompt_embeddings').data);
          } else near(conditioning.negativePooled?.data, pooled);
        });

        it('one evaluation', async () => {
          const [{ embeddings, pooled }] = await checkpoint.encodePrompts([prompt]);
          const row = {
            latents: result.tensor('initial_noise'),
            embeddings,
            pooled,
            guidanceScale: result.case.guidance_scale,
          };
          const [predicted] = await checkpoint.predict([row], timestep);
          const expected = result.tensor(output);
          if (expected.dims.length === 4) near(predicted.data, expected.data);
          else near(packed(predicted.data, predicted.dims), expected.data);
        });

        it('final latents', async () => {
          const {
            steps,
            height,
            width,
            guidance_scale: guidanceScale,
            true_cfg_scale: trueGuidanceScale,
          } = result.case;
          const { latents, unetRows, evaluations } = await sample(checkpoint, {
            background: await checkpoint.encodeConditioning(prompt, negative),
            // The tiny models say that they were trained at 128 pixels; the reference knows no windows.
            options: {
              steps,
              guidanceScale,
              height,
              width,
              windowSize: 192,
              ...(trueGuidanceScale && { trueGuidanceScale }),
            },
            initialNoise: result.tensor('initial_noise'),
          });
          near(latents.data, result.tensor('final_latents').data, 1e-3);
          const guided = name === 'tiny-flux' ? (trueGuidanceScale ?? 1) > 1 : guidanceScale > 1;
          assert.equal(unetRows, evaluations * (guided ? 2 : 1));
        });

        it('the picture of the final latents', async () => {
          const image = await checkpoint.decode(result.tensor('final_latents'));
          assert.deepEqual(image.dims, [result.case.height, result.case.width, 3]);
          assert.ok(shareBeyond(image.data, result.bytes('image'), 2) <= 0.01);
        });
      });
    }
  });
}

interface RegionsCase {
  prompts: string[];
  negative_prompts: string[];
  height: number;
  width: number;
  steps: number;
  bootstrap_steps: number;
  guidance_scale: number;
  max_sequence_length?: number;
  background_picks: number[][];
  model_rows: number;
}

for (const name of Object.keys(FAMILIES)) {
  describe(`${name} with regions`, function () {
    this.timeout(SLOWNESS * 120_000);
    const result = goldenResult<RegionsCase>(`${name}-results/regions`);
    const { steps, height, width, prompts, negative_prompts: negatives, guidance_scale: guidanceScale } = result.case;
    const cells = [height / 8, width / 8];
    const size = cells[0] * cells[1];
    const masks = result.tensor('masks').data;
    let checkpoint: Checkpoint;
    before(async () => {
      checkpoint = await openCheckpoint(checkpointFolder(name), {
        provider: TEST_PROVIDER,
        t5Tokens: result.case.max_sequence_length,
      });
    });
    after(() => checkpoint.close());

    /** The golden case; of FLUX.1 no prompt has a negative one. */
    const request = async (): Promise<SampleRequest> => {
      const conditionings = await Promise.all(
        prompts.map((prompt, i) =>
          checkpoint.encodeConditioning(prompt, name === 'tiny-flux' ? undefined : negatives[i]),
        ),
      );
      const backgrounds = result.tensor('background_latents');
      const [count, ...dims] = backgrounds.dims;
      const each = backgrounds.size / count;
      return {
        background: conditionings[0],
        regions: conditionings.slice(1).map(
          (conditioning, i): Region => ({
            name: conditioning.prompt,
            conditioning,
            mask: Tensor.float32(masks.slice((i + 1) * size, (i + 2) * size), [1, ...cells]),
          }),
        ),
        options: {
          ...PAPER_OPTIONS,
          steps,
          height,
          width,
          windowSize: 512,
          guidanceScale,
          bootstrapping: result.case.bootstrap_steps,
          bootstrappingUnit: 'steps',
        },
        initialNoise: result.tensor('initial_noise'),
        backgrounds: Array.from({ length: count }, (_, i) =>
          Tensor.float32(backgrounds.data.slice(i * each, (i + 1) * each), [1, ...dims]),
        ),
        backgroundPicks: result.case.background_picks,
      };
    };
    const off = (actual: Tensor<'float32'>, expected: ArrayLike<number>): number => difference(actual.data, expected);

    it('as the reference, after one step and at the end, with fewer rows', async () => {
      const afterSteps: Tensor<'float32'>[] = [];
      const { latents, unetRows } = await sample(checkpoint, {
        ...(await request()),
        onStep: ({ latents: now }) => afterSteps.push(now),
      });
      const first = off(afterSteps[0], result.tensor('latents_after_step_1').data);
      assert.ok(first < 1e-4, `differs by ${first} after one step`);
      const last = off(latents, result.tensor('final_latents').data);
      assert.ok(last < 1e-4, `differs by ${last}`);
      const image = await checkpoint.decode(latents);
      assert.ok(shareBeyond(image.data, result.bytes('image'), 2) <= 0.01);
      // A flow's first evaluation sees no background, so that nothing needs a row of its own.
      const [shared, own] = name === 'tiny-flux' ? [3, 3] : [5, 6];
      const bootstrapped = name === 'tiny-sdxl' ? 3 : 2;
      assert.equal(unetRows, bootstrapped * own + (steps - bootstrapped) * shared);
      assert.ok(unetRows <= result.case.model_rows);
    });

    it('two regions of one prompt are plain sampling', async () => {
      const { background, regions, options, initialNoise } = await request();
      const plain = await sample(checkpoint, { background, options, initialNoise });
      const divided = await sample(checkpoint, {
        background,
        regions: regions!.map((region) => ({ ...region, conditioning: background })),
        options: { ...options, bootstrapping: 0 },
        initialNoise,
      });
      assert.ok(off(divided.latents, plain.latents.data) < 1e-5);
      assert.equal(divided.unetRows, plain.unetRows);
    });

    it('the size of batches makes no difference', async () => {
      const asked = await request();
      const whole = await sample(checkpoint, asked);
      const piecewise = await openCheckpoint(checkpointFolder(name), {
        provider: TEST_PROVIDER,
        batchSize: 1,
        t5Tokens: result.case.max_sequence_length,
      });
      try {
        const single = await sample(piecewise, { ...asked, rowsPerCall: 2 });
        assert.ok(off(single.latents, whole.latents.data) < 1e-5);
      } finally {
        await piecewise.close();
      }
    });
  });
}

describe('plain colours', function () {
  this.timeout(SLOWNESS * 120_000);
  // What onnx's reference evaluator makes of the same files in double precision: four cells of a plain picture of
  // side 256, (0, 0), (3, 5), the middle and the last.
  const EXACT: Record<string, { scale: number; shift: number; largest: number; cells: number[][] }> = JSON.parse(
    fs.readFileSync(path.join(golden, 'plain-colours.json'), 'utf8'),
  );
  for (const [name, { scale, shift, largest, cells }] of Object.entries(EXACT)) {
    it(`${name}: exact to 1e-5 of the largest latent`, async () => {
      const checkpoint = await openCheckpoint(checkpointFolder(name), { provider: 'cpu' });
      try {
        const [{ data, dims }] = await encodeColours(checkpoint, [[128, 128, 128]], [256, 256]);
        const [, channels, height, width] = dims;
        [
          [0, 0],
          [3, 5],
          [height / 2, width / 2],
          [height - 1, width - 1],
        ].forEach(([y, x], i) => {
          for (let c = 0; c < channels; c++) {
            const off = Math.abs(data[(c * height + y) * width + x] / scale + shift - cells[i][c]) / largest;
            assert.ok(off < 1e-5, `channel ${c} of cell (${x}, ${y}) differs by ${off}`);
          }
        });
      } finally {
        await checkpoint.close();
      }
    });
  }
});

/** [1, C, h, w] as FLUX.1 orders it: a token for each 2×2 patch, its columns channel, row, column. */
function packed(data: Float32Array, [, channels, height, width]: number[]): Float32Array {
  return Float32Array.from(data, (_, i) => {
    const [token, column] = [Math.floor(i / (4 * channels)), i % (4 * channels)];
    const [c, dy, dx] = [Math.floor(column / 4), Math.floor(column / 2) % 2, column % 2];
    const [y, x] = [Math.floor(token / (width / 2)), token % (width / 2)];
    return data[(c * height + 2 * y + dy) * width + 2 * x + dx];
  });
}
