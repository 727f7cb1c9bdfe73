/** What a checkpoint of several text encoders may lack, how inputs are found, and what the sampler does for flows and sizes. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { openCheckpoint, sample, torchNoise } from '../../dist/engine';
import { readLayout } from '../../dist/engine/checkpoint/layout';
import { readModelFacts } from '../../dist/engine/checkpoint/model-facts';
import { modelSetup } from '../../dist/engine/checkpoint/parts';
import { foreseeNeeds } from '../../dist/engine/checkpoint/report';
import {
  bindDenoiser,
  penultimateState,
  pooledState,
  projectedText,
  type ValueShape,
} from '../../dist/engine/inference/bindings';
import { pack, unpack } from '../../dist/engine/inference/process/denoiser';
import { Sessions } from '../../dist/engine/inference/process/sessions';
import { arrange, encodeTokens } from '../../dist/engine/inference/process/text';
import { fromVae, toVae } from '../../dist/engine/inference/process/vae';
import type { ProcessSetup } from '../../dist/engine/inference/protocol';
import type { UNetRow } from '../../dist/engine/model';
import { prepareInputs } from '../../dist/engine/multidiffusion/bootstrap';
import { fuse } from '../../dist/engine/multidiffusion/fusion';
import { predictNoise } from '../../dist/engine/multidiffusion/guidance';
import { createPlan, type SampleRequest } from '../../dist/engine/multidiffusion/plan';
import type { Evaluate } from '../../dist/engine/multidiffusion/sample';
import {
  describeStep,
  readCanvas,
  readInputs,
  readPredictions,
  wireInputs,
  wirePredictions,
  type WiredStep,
} from '../../dist/engine/multidiffusion/wire';
import { PAPER_OPTIONS } from '../../dist/engine/options';
import { AnalyticModel, conditioning, mask, region } from './support/analytic-model';
import { checkpointFolder, copyCheckpoint, difference } from './support/checkpoints';
import { rewrite } from './support/onnx';

const value = (name: string, rank: number, type = 'float32'): ValueShape => ({
  name,
  type,
  shape: new Array<string>(rank).fill('n'),
});

describe('the inputs of a denoiser', () => {
  const found = (values: ValueShape[]): Record<string, string> =>
    Object.fromEntries(Object.entries(bindDenoiser(values).inputs).map(([role, { name }]) => [role, name]));

  it('are found by name in any order', () => {
    const names: Array<[string, number]> = [
      ['hidden_states', 3],
      ['encoder_hidden_states', 3],
      ['pooled_projections', 2],
      ['timestep', 1],
      ['img_ids', 2],
      ['txt_ids', 2],
      ['guidance', 1],
    ];
    const expected = {
      sample: 'hidden_states',
      states: 'encoder_hidden_states',
      pooled: 'pooled_projections',
      timestep: 'timestep',
      imageIds: 'img_ids',
      textIds: 'txt_ids',
      guidance: 'guidance',
    };
    const values = names.map(([name, rank]) => value(name, rank));
    assert.deepEqual(found(values), expected);
    assert.deepEqual(found([...values].reverse()), expected);
  });

  it('are found by rank where the name is another', () => {
    const values = [value('t', 0), value('context', 3), value('x', 4), value('vector', 2)];
    assert.deepEqual(found(values), { sample: 'x', states: 'context', timestep: 't', pooled: 'vector' });
    assert.deepEqual(bindDenoiser(values).unknown, []);
  });

  it('are not guessed where two would fit', () => {
    const { missing, unknown } = bindDenoiser([value('sample', 4), value('timestep', 0), value('a', 3), value('b', 3)]);
    assert.deepEqual(missing, ['encoder_hidden_states']);
    assert.deepEqual(
      unknown.map(({ name }) => name),
      ['a', 'b'],
    );
  });
});

describe('the outputs of a text encoder', () => {
  const states = (count: number): ValueShape[] =>
    Array.from({ length: count }, (_, i) => value(`hidden_states.${i}`, 3));
  it('give the state before the last layer, also of more than ten', () => {
    assert.equal(penultimateState(states(13)), 'hidden_states.11');
    assert.equal(penultimateState([...states(34)].reverse()), 'hidden_states.32');
    assert.equal(penultimateState([value('text_embeddings', 3), value('hidden_states', 3)]), 'hidden_states');
    assert.equal(penultimateState([value('last_hidden_state', 3), value('pooler_output', 2)]), undefined);
  });
  it('give the projected text, never what is not projected yet', () => {
    assert.equal(projectedText([value('text_embeds', 2), value('pooler_output', 2)]), 'text_embeds');
    assert.equal(projectedText([value('text_embeddings', 2), value('hidden_states', 3)]), 'text_embeddings');
    assert.equal(projectedText([value('last_hidden_state', 3), value('pooler_output', 2)]), undefined);
    assert.equal(pooledState([value('last_hidden_state', 3), value('pooler_output', 2)]), 'pooler_output');
    assert.equal(pooledState([value('pooled_embeddings', 2)]), 'pooled_embeddings');
  });
});

describe('prompts of several encoders', () => {
  const tensor = (dims: number[], first: number) => ({
    dtype: 'float32' as const,
    dims,
    data: Float32Array.from({ length: dims.reduce((a, b) => a * b) }, (_, i) => first + i),
  });
  const clip = { kind: 'clip' as const };

  it('stand side by side, are filled with zeros, and are followed by T5’s', () => {
    const results = [
      { states: tensor([1, 2, 1], 10), pooled: tensor([1, 2], 1) },
      { states: tensor([1, 2, 2], 20), pooled: tensor([1, 1], 5) },
      { states: tensor([1, 1, 4], 30) },
    ];
    const { embeddings, pooled } = arrange(results, { encoders: [clip, clip, { kind: 't5' }], statesWidth: 4 });
    assert.deepEqual(embeddings.dims, [1, 3, 4]);
    assert.deepEqual([...embeddings.data], [10, 20, 21, 0, 11, 22, 23, 0, 30, 31, 32, 33]);
    assert.deepEqual([...pooled!.data], [1, 2, 5]);
  });

  it('have zeros where T5 is left out, and half precision where all have it', () => {
    const half = { dtype: 'float16' as const, dims: [1, 1, 2], data: Uint16Array.of(7, 8) };
    const whole = arrange([{ states: half }], { encoders: [clip], statesWidth: 3, absentTokens: 2 }).embeddings;
    assert.deepEqual([whole.dtype, whole.dims, [...whole.data]], ['float16', [1, 3, 3], [7, 8, 0, 0, 0, 0, 0, 0, 0]]);
    const mixed = arrange([{ states: half }, { states: tensor([1, 1, 1], 5) }], { encoders: [clip, clip] }).embeddings;
    assert.equal(mixed.dtype, 'float32');
  });
});

it('latents that are packed and unpacked are the same', () => {
  const dims = [4, 6, 8];
  const latents = torchNoise(1, [2, ...dims]).data;
  const tokens = pack(latents, 2, dims);
  assert.deepEqual(unpack(tokens, 2, dims), latents);
  // The second token of the first row: the patch of columns 2 and 3, its first channel.
  assert.deepEqual(
    [...tokens.subarray(16, 20)],
    [2, 3, 10, 11].map((i) => latents[i]),
  );
});

it('latents that are normalised per channel come back', () => {
  const scale = { scalingFactor: 0.5, shiftFactor: 0, latentsMean: [1, -2], latentsStd: [2, 4] };
  const latents = Float32Array.of(1, 2, 3, 4);
  assert.deepEqual([...toVae(latents, 2, scale)], [5, 9, 22, 30]);
  assert.deepEqual(fromVae(toVae(latents, 2, scale), [1, 2, 1, 2], scale), latents);
});

describe('layouts of several text encoders', function () {
  this.timeout(60_000);
  const folders: string[] = [];
  after(() => folders.forEach((folder) => fs.rmSync(folder, { recursive: true })));
  const copy = (name: string): string => {
    folders.push(copyCheckpoint(name));
    return folders.at(-1) as string;
  };
  const refused = (folder: string, message: RegExp) =>
    assert.rejects(readLayout(folder), { code: 'CHECKPOINT', message });

  it('have what their family has', async () => {
    const facts = async (name: string) => readModelFacts(await readLayout(checkpointFolder(name)), 'cpu');
    const { family, timeIds, absentNegative, latentChannels, sizeMultiple } = await facts('tiny-sdxl');
    assert.deepEqual([family, timeIds, absentNegative, latentChannels, sizeMultiple], ['sdxl', 6, 'zeros', 4, 32]);
    const sd3 = await facts('tiny-sd3');
    assert.deepEqual([sd3.family, sd3.patchSize, sd3.largestSide, sd3.maxTokens], ['sd3', 2, 384, 256]);
    const flux = await facts('tiny-flux');
    assert.deepEqual(
      [flux.family, flux.trueGuidance, flux.evenSigmas, flux.guidanceEmbedded, flux.maxTokens, flux.nativeSize],
      ['flux', true, true, true, 512, 1024],
    );
    assert.deepEqual([flux.latentChannels, flux.sizeMultiple, flux.absentNegative], [16, 16, 'none']);
  });

  it('say what loading takes, from the files alone', async () => {
    const needs = await foreseeNeeds(checkpointFolder('tiny-flux'));
    const size = (part: string): number =>
      fs.statSync(path.join(checkpointFolder('tiny-flux'), part, 'model.onnx')).size;
    const parts = ['text_encoder', 'text_encoder_2', 'transformer', 'vae_encoder', 'vae_decoder'];
    assert.equal(
      needs.weightBytes,
      parts.reduce((sum, part) => sum + size(part), 0),
    );
    assert.deepEqual([needs.largest, needs.largestBytes], ['transformer', size('transformer')]);
    assert.ok(needs.cpuRows >= 1);
  });

  it('are refused without the hidden state before the last layer, or the projected text', async () => {
    for (const [part, from, to, message] of [
      [
        'text_encoder',
        /^hidden_states.*/,
        'state',
        /text_encoder\/model\.onnx does not give the hidden state before the last layer.*optimum/,
      ],
      [
        'text_encoder_2',
        /^text_embeds$/,
        'pooler_output',
        /text_encoder_2\/model\.onnx does not give the projected text/,
      ],
    ] as const) {
      const folder = copy('tiny-sdxl');
      const file = path.join(folder, part, 'model.onnx');
      const renamed = rewrite(fs.readFileSync(file), [7, 12, 1], (name) =>
        Buffer.from(name.toString().replace(from, to)),
      );
      fs.writeFileSync(file, renamed);
      await refused(folder, message);
    }
  });

  it('are refused without an encoder or a tokenizer that they need', async () => {
    const sdxl = copy('tiny-sdxl');
    fs.rmSync(path.join(sdxl, 'text_encoder_2'), { recursive: true });
    await refused(sdxl, /text_encoder_2\/model\.onnx is missing/);
    const flux = copy('tiny-flux');
    fs.rmSync(path.join(flux, 'tokenizer_2/tokenizer.json'));
    await refused(flux, /tokenizer_2\/tokenizer\.json is missing: a T5 text encoder needs it.*AutoTokenizer/);
  });

  it('are refused when their parts belong to different models', async () => {
    const folder = copy('tiny-sdxl');
    fs.cpSync(path.join(checkpointFolder('tiny-sd3'), 'text_encoder_2'), path.join(folder, 'text_encoder_2'), {
      recursive: true,
    });
    await refused(folder, /72 wide.*give 64: they belong to different models/);
  });

  it('of Stable Diffusion 3 work without T5, with zeros in its place', async () => {
    const folder = copy('tiny-sd3');
    for (const part of ['text_encoder_3', 'tokenizer_3']) fs.rmSync(path.join(folder, part), { recursive: true });
    const [without, complete] = await Promise.all(
      [folder, checkpointFolder('tiny-sd3')].map(async (each) => {
        const checkpoint = await openCheckpoint(each, { provider: 'cpu', t5Tokens: 100 });
        try {
          return (await checkpoint.encodePrompts(['a sofa']))[0];
        } finally {
          await checkpoint.close();
        }
      }),
    );
    assert.deepEqual(without.embeddings.dims, [1, 177, 64]);
    assert.deepEqual(complete.embeddings.dims, [1, 177, 64]);
    const [own, full] = [without.embeddings.data, complete.embeddings.data];
    assert.deepEqual(own.subarray(0, 77 * 64), full.subarray(0, 77 * 64));
    assert.ok(own.subarray(77 * 64).every((each) => each === 0) && !full.subarray(77 * 64).every((each) => each === 0));
    assert.deepEqual(without.pooled, complete.pooled);
  });

  it('are loaded part by part, and text encoders are given back where memory is short', async () => {
    const setup = modelSetup(await readLayout(checkpointFolder('tiny-sdxl')), {});
    const loaded: string[] = [];
    const sessions = new Sessions(
      { ...setup, bytes: { textEncoder: 10, textEncoder2: 30, unet: 60, vaeDecoder: 5 } } as ProcessSetup,
      { executionProviders: ['cpu'], intraOpNumThreads: 1, logSeverityLevel: 3 },
      (component, done) => done || loaded.push(component),
      { most: 100 }, // of which weights take up to 80
    );
    const [first, second, unet] = [
      await sessions.get('textEncoder'),
      await sessions.get('textEncoder2'),
      await sessions.get('unet'),
    ];
    assert.deepEqual([first.isOpen, second.isOpen, unet.isOpen], [true, false, true], 'the larger encoder is enough');
    const decoder = await sessions.get('vaeDecoder');
    assert.deepEqual([first.isOpen, unet.isOpen, decoder.isOpen], [true, true, true]);
    const encode = async () => {
      const tokens = [new Array<number>(77).fill(1)];
      const request = { cancelled: false, runMilliseconds: 0 };
      return encodeTokens(second, request, { pooled: 'text_embeds' }, tokens);
    };
    const [{ pooled }] = await encode();
    assert.deepEqual([first.isOpen, second.isOpen, unet.isOpen, decoder.isOpen], [false, true, false, false]);
    assert.deepEqual((await encode())[0].pooled, pooled);
    assert.deepEqual(loaded, ['textEncoder', 'textEncoder2', 'unet', 'vaeDecoder', 'textEncoder2']);
  });
});

/** Remembers what rows it was asked for. */
class Watched extends AnalyticModel {
  rows: UNetRow[] = [];
  override predict(rows: UNetRow[], timestep: number) {
    this.rows.push(...rows);
    return super.predict(rows, timestep);
  }
}

const FLOW = { _class_name: 'FlowMatchEulerDiscreteScheduler', shift: 3 };
const flowModel = (more = {}) => new Watched({ schedulerConfig: FLOW, patchSize: 2, family: 'sd3', ...more });
const half = mask(8, 8, (_, x) => (x < 4 ? 1 : 0));
const request = (options: SampleRequest['options']): SampleRequest => ({
  background: conditioning(0.2, 0.7),
  regions: [region(1.4, half)],
  options: { ...PAPER_OPTIONS, width: 64, height: 64, steps: 4, seed: 7, guidanceScale: 4, ...options },
});

describe('bootstrapping of a flow', () => {
  it('that would be over before a background shows begins after that, and says so', async () => {
    const none = await sample(flowModel(), request({ bootstrapping: 0 }));
    for (const options of [{ bootstrapping: 0.2 }, { bootstrapping: 1, bootstrappingUnit: 'steps' }] as const) {
      const { findings, latents, bootstrapEvaluations } = await sample(flowModel(), request(options));
      assert.equal(bootstrapEvaluations, 2);
      assert.ok(difference(latents.data, none.latents.data) > 1e-3, 'it does nothing');
      assert.deepEqual(
        findings.map(({ code }) => code),
        ['LATE_BOOTSTRAPPING'],
      );
      assert.match(findings[0].message, /noise alone.*up to evaluation 2/);
    }
    assert.deepEqual(none.findings, []);
  });

  it('needs no rows of its own at the first evaluation', async () => {
    const rowsWith = async (bootstrapping: number) => (await sample(flowModel(), request({ bootstrapping }))).unetRows;
    // A background, a region and their negative prompts: 4 rows; a bootstrapped region shares none.
    assert.equal(await rowsWith(0.5), (await rowsWith(0)) + ((await rowsWith(1)) - (await rowsWith(0))) / 3);
  });

  it('is as always with a diffusion model', async () => {
    const { findings, bootstrapEvaluations } = await sample(new AnalyticModel(), request({ bootstrapping: 0.2 }));
    assert.deepEqual([bootstrapEvaluations, findings], [1, []]);
  });
});

describe('sizes that a model is told', () => {
  const sizes = async (options: SampleRequest['options'], facts = {}) => {
    const model = new Watched({ timeIds: 6, ...facts });
    await sample(model, { ...request({ ...options, steps: 1, windowSize: 64 }), regions: [] });
    return [...new Set(model.rows.map(({ timeIds }) => String(timeIds)))];
  };

  it('are the canvas, the size before it was cropped, and the crop', async () => {
    assert.deepEqual(await sizes({ width: 64, height: 48 }), ['48,64,0,0,48,64']);
    assert.deepEqual(await sizes({ originalWidth: 512, originalHeight: 256, cropLeft: 16, cropTop: 32 }), [
      '256,512,32,16,64,64',
    ]);
  });

  it('are, of a window, its place in the canvas, or those of a picture of its own', async () => {
    const wide = { width: 128, windowOverlap: 0.5 };
    assert.deepEqual(await sizes(wide), ['64,128,0,0,64,128', '64,128,0,32,64,128', '64,128,0,64,64,128']);
    assert.deepEqual(await sizes({ ...wide, windowPlace: 'alone' }), ['64,64,0,0,64,64']);
  });

  it('end with a score for a refiner, which is low for the negative prompt', async () => {
    assert.deepEqual(await sizes({}, { timeIds: 5 }), ['64,64,0,0,6', '64,64,0,0,2.5']);
  });

  it('are told to nobody else', async () => {
    assert.deepEqual(await sizes({}, { timeIds: undefined }), ['undefined']);
  });
});

describe('guidance as an input', () => {
  const facts = { guidanceEmbedded: true, trueGuidance: true, absentNegative: 'none' as const };
  const rowsOf = async (negativeAbsent: boolean, trueGuidanceScale: number) => {
    const model = flowModel(facts);
    const background = { ...conditioning(0.2, 0.7), ...(negativeAbsent && { negativeAbsent }) };
    await sample(model, { ...request({ steps: 1, guidanceScale: 3.5, trueGuidanceScale }), background, regions: [] });
    return model.rows.map(({ embeddings, guidanceScale }) => [embeddings.data[0].toFixed(1), guidanceScale]);
  };

  it('has a row for the negative prompt only where it is given and counts', async () => {
    assert.deepEqual(await rowsOf(true, 2), [['0.2', 3.5]]);
    assert.deepEqual(await rowsOf(false, 1), [['0.2', 3.5]]);
    assert.deepEqual(await rowsOf(false, 2), [
      ['0.2', 3.5],
      ['0.7', 3.5],
    ]);
  });
});

describe('the guidance scale that is not set', () => {
  const scales = { 'tiny-sd2': 7.5, 'tiny-lcm': 8, 'tiny-sdxl': 5, 'tiny-sd3': 7, 'tiny-flux': 3.5 };
  for (const [name, usual] of Object.entries(scales))
    it(`of ${name} is ${usual}, in its regions too`, async () => {
      const { family, guidanceEmbedded } = readModelFacts(await readLayout(checkpointFolder(name)), 'cpu');
      const { facts } = new AnalyticModel({ family, guidanceEmbedded });
      const of = async (guidanceScale: number | undefined, own?: number) => {
        const { prompts } = await createPlan(facts, {
          ...request({ guidanceScale }),
          regions: [region(1.4, half), region(1.4, half, { guidanceScale: own })],
        });
        return prompts.map((prompt) => prompt.guidanceScale);
      };
      assert.deepEqual(await of(undefined), [usual, usual, usual]);
      assert.deepEqual(await of(undefined, 2), [usual, usual, 2]);
      assert.deepEqual(await of(0), [0, 0, 0]);
    });
});

it('a window beyond the places that a model knows is refused, a canvas is not', async () => {
  const model = flowModel({ largestSide: 64, nativeSize: 512 });
  await assert.rejects(sample(model, request({ width: 128, windowSize: 128 })), /windowSize is 128; allowed: up to 64/);
  const { views } = await sample(model, request({ width: 128, steps: 1 }));
  assert.equal(views, 3);
});

describe('wired steps of every family', function () {
  this.timeout(60_000);
  const byWire: Evaluate = async (model, plan, state) => {
    const { strategy } = plan;
    let step = structuredClone({
      ...describeStep(plan, state, 'job'),
      inputs: wireInputs(prepareInputs(plan, strategy, state)),
    }) as WiredStep;
    const inputs = readInputs(plan, step.inputs, step.prompts);
    const predictions = await predictNoise(model, plan, inputs, state);
    step = structuredClone({ ...step, predictions: wirePredictions(predictions) }) as WiredStep;
    const fused = fuse(plan, strategy, state, readPredictions(plan, strategy, state, step.predictions));
    return readCanvas(plan, structuredClone(fused), 'fused', '');
  };
  for (const name of ['tiny-sdxl', 'tiny-sd3', 'tiny-flux']) {
    it(`${name}: give the built-in loop's latents, bit for bit`, async () => {
      const checkpoint = await openCheckpoint(checkpointFolder(name), { provider: 'cpu', t5Tokens: 64 });
      try {
        const asked: SampleRequest = {
          background: await checkpoint.encodeConditioning('a room', 'blurry'),
          regions: [{ name: 'sofa', conditioning: await checkpoint.encodeConditioning('a red sofa'), mask: half }],
          options: { width: 128, height: 96, windowSize: 96, steps: 3, seed: 3, trueGuidanceScale: 2 },
        };
        const builtIn = await sample(checkpoint, asked);
        const wired = await sample(checkpoint, asked, byWire);
        assert.deepEqual(wired.latents, builtIn.latents);
        assert.equal(wired.unetRows, builtIn.unetRows);
      } finally {
        await checkpoint.close();
      }
    });
  }
});
