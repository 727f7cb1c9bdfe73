import assert from 'node:assert/strict';
import fc from 'fast-check';
import sharp from 'sharp';
import { Tensor } from '../../dist/engine';
import { encodeImage } from '../../dist/engine/image/encode';
import { decodeMask, encodeMask } from '../../dist/engine/image/mask';
import { readGeneration } from '../../dist/engine/image/metadata';
import { insertPngText, readPngText } from '../../dist/engine/image/png';
import { toParameters, toRecipe } from '../../dist/engine/image/recipe';

const image = Tensor.uint8(Uint8Array.from({ length: 16 * 12 * 3 }, (_, i) => (i * 7) % 256), [12, 16, 3]);
const LIMITS = { maxPixels: 10_000, maxBytes: 100_000 };

describe('PNG text chunks', () => {
  it('carry any text, and leave the picture as it is', async () => {
    const png = await sharp(image.data, { raw: { width: 16, height: 12, channels: 3 } }).png().toBuffer();
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'binary' }), fc.string({ unit: 'grapheme' }), async (one, two) => {
        const written = insertPngText(png, { one, two });
        const texts = readPngText(written);
        assert.equal(texts.one, one.replaceAll('\0', '').replace(/\p{Surrogate}/gu, '\ufffd'));
        assert.equal(texts.two, two.replaceAll('\0', ''));
        assert.ok((await sharp(written).raw().toBuffer()).equals(Buffer.from(image.buffer)));
      }),
      { numRuns: 50 },
    );
  });

  it('are found by other readers', async () => {
    const bytes = await encodeImage(image, { format: 'png', quality: 90, generation: { prompt: 'a cat', seed: 5, steps: 3 } });
    const { comments } = await sharp(bytes).metadata();
    assert.deepEqual(comments!.map(({ keyword }) => keyword), ['parameters', 'multidiffusion']);
    assert.equal(comments![0].text, 'a cat\nSteps: 3, Seed: 5');
    assert.deepEqual(JSON.parse(comments![1].text), { prompt: 'a cat', steps: 3, seed: 5 });

    const painted = await encodeImage(image, { format: 'png', quality: 90, generation: { prompt: 'a cat', strength: 0.4, startedFromImage: true, stepMode: 'wired' } });
    const [parameters, recipe] = (await sharp(painted).metadata()).comments!.map(({ text }) => text);
    assert.equal(parameters, 'a cat\nDenoising strength: 0.4');
    assert.deepEqual(JSON.parse(recipe), { prompt: 'a cat', strength: 0.4, stepMode: 'wired', startedFromImage: true });
  });

  it('are read from damaged files without a fuss', async () => {
    const png = await encodeImage(image, { format: 'png', quality: 90, generation: { prompt: 'a cat' } });
    assert.deepEqual({ ...readPngText(Buffer.from('no png')) }, {});
    await fc.assert(
      fc.asyncProperty(fc.nat(png.length - 1), fc.nat(255), fc.nat(png.length), async (at, value, end) => {
        const damaged = Buffer.from(png.subarray(0, end));
        if (at < damaged.length) damaged[at] = value;
        readPngText(damaged);
        await readGeneration(damaged);
      }),
      { numRuns: 300 },
    );
  });
});

describe('recipes', () => {
  it('keep what is known and of the right kind, and nothing else', () => {
    assert.equal(toRecipe(undefined), undefined);
    assert.equal(toRecipe('x'), undefined);
    assert.equal(toRecipe({ password: 'x', filename: '/x' }), undefined);
    assert.deepEqual(toRecipe({ prompt: 'a', seed: 1, steps: { a: 1 }, width: NaN, secret: 1, timings: { a: 'b' }, regions: [{ prompt: 'b', box: [0, 0, 1, 1], mask: image, conditioning: {} }, 5] }), {
      prompt: 'a',
      seed: 1,
      regions: [{ prompt: 'b', box: [0, 0, 1, 1] }],
    });
    const hostile = JSON.parse('{"__proto__": {"polluted": 1}, "constructor": 1, "prompt": "a"}') as object;
    assert.deepEqual(toRecipe(hostile), { prompt: 'a' });
    assert.equal(({} as Record<string, unknown>).polluted, undefined);
  });

  it('are written as other programs write them', () => {
    const text = toParameters({ prompt: 'a room,\nbig', negativePrompt: 'blur', steps: 25, scheduler: 'DPMSolverMultistepScheduler', guidanceScale: 5, seed: 7, width: 512, height: 256, model: 'a, b', regions: [{ prompt: 'a sofa', box: [0, 0.5, 1, 0.5] }] });
    assert.equal(text, 'a room, big\nNegative prompt: blur\nSteps: 25, Sampler: DPM++ 2M, CFG scale: 5, Seed: 7, Size: 512x256, Model: "a, b", Region 1: a sofa [0 0.5 1 0.5]');
  });

  it('survive every format, in any language', async () => {
    const generation = { prompt: 'ein “Sofa” & <Tisch> 猫 😀', negativePrompt: '{"a":1}', seed: 2 ** 53 - 1, regions: [{ prompt: 'ö', polygon: [[0, 0], [0.1, 0.30000000000000004], [1, 1]] }] };
    for (const format of ['png', 'jpeg', 'webp'] as const) {
      assert.deepEqual(await readGeneration(await encodeImage(image, { format, quality: 80, generation })), generation, format);
      assert.equal(await readGeneration(await encodeImage(image, { format, quality: 80 })), undefined);
    }
    assert.equal(await readGeneration(Buffer.from('GIF89a')), undefined);
  });

  it('leave mask images out of a JPEG that has no room for them', async () => {
    const mask = `data:image/png;base64,${'A'.repeat(200_000)}`;
    const generation = { prompt: 'a', regions: [{ prompt: 'b', image: mask }] };
    assert.equal((await readGeneration(await encodeImage(image, { format: 'png', quality: 90, generation })))!.regions![0].image, mask);
    assert.deepEqual(await readGeneration(await encodeImage(image, { format: 'jpeg', quality: 90, generation })), { prompt: 'a', regions: [{ prompt: 'b' }] });
  });
});

describe('mask images', () => {
  const grey = (level: number): Promise<Buffer> => sharp({ create: { width: 20, height: 10, channels: 3, background: { r: level, g: level, b: level } } }).png().toBuffer();

  it('become masks: white is inside, transparent is outside', async () => {
    const mask = await decodeMask(await grey(51), 'mask', LIMITS);
    assert.deepEqual(mask.dims, [1, 10, 20]);
    assert.ok(mask.data.every((value) => value === Math.fround(0.2)));
    const clear = await sharp({ create: { width: 4, height: 4, channels: 4, background: { r: 255, g: 255, b: 255, alpha: 0 } } }).png().toBuffer();
    assert.ok((await decodeMask(clear, 'mask', LIMITS)).data.every((value) => value === 0));
  });

  it('come back from a recipe as they were', async () => {
    const levels = Float32Array.from({ length: 256 }, (_, i) => i / 255);
    const mask = Tensor.float32(levels, [1, 16, 16]);
    const back = await decodeMask(await encodeMask(mask), 'mask', LIMITS);
    assert.deepEqual(back.data, levels);
  });

  it('are refused when they are too large, in bytes or pixels, before they are decoded', async () => {
    const large = await sharp({ create: { width: 200, height: 200, channels: 3, background: 'white' } }).png().toBuffer();
    await assert.rejects(decodeMask(large, 'mask', LIMITS), { code: 'LIMIT', message: /pixels/ });
    await assert.rejects(decodeMask(Buffer.alloc(200_000), 'mask', LIMITS), { code: 'LIMIT', message: /200000 bytes/ });
    await assert.rejects(decodeMask(`data:image/png;base64,${'A'.repeat(200_000)}`, 'mask', LIMITS), { code: 'LIMIT' });
  });

  it('are refused when they are no pictures', async () => {
    const svg = Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>');
    for (const bytes of [svg, Buffer.alloc(0), Buffer.from('x'), (await grey(9)).subarray(0, 60), 'data:text/plain,hello', 'data:image/png;base64,AAAA']) {
      await assert.rejects(decodeMask(bytes, 'mask', LIMITS), { code: 'INVALID_INPUT' });
    }
  });
});
