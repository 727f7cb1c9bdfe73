import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import zlib from 'node:zlib';
import fc from 'fast-check';
import sharp from 'sharp';
import { Tensor } from '../../dist/engine';
import { encodeImage } from '../../dist/engine/image/encode';
import { decodeMask, encodeMask } from '../../dist/engine/image/mask';
import { readRecipe } from '../../dist/engine/image/metadata';
import { insertPngText, readPngText } from '../../dist/engine/image/png';
import { fromParameters, toParameters } from '../../dist/engine/image/parameters';
import { completeRecipe, toRecipe } from '../../dist/engine/image/recipe';
import { atOnce } from '../../dist/engine/turns';
import { insertSegments, insertWebpMetadata } from '../../dist/engine/image/containers';

const image = Tensor.uint8(
  Uint8Array.from({ length: 16 * 12 * 3 }, (_, i) => (i * 7) % 256),
  [12, 16, 3],
);
const LIMITS = { maxPixels: 10_000, maxBytes: 100_000 };

describe('PNG text chunks', () => {
  it('carry any text, and leave the picture as it is', async () => {
    const png = await sharp(image.data, { raw: { width: 16, height: 12, channels: 3 } })
      .png()
      .toBuffer();
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'binary' }), fc.string({ unit: 'grapheme' }), async (one, two) => {
        const written = insertPngText(png, { one, two });
        const texts = await readPngText(written);
        assert.equal(texts.one, one.replaceAll('\0', '').replace(/\p{Surrogate}/gu, '\ufffd'));
        assert.equal(texts.two, two.replaceAll('\0', ''));
        assert.ok((await sharp(written).raw().toBuffer()).equals(Buffer.from(image.buffer)));
      }),
      { numRuns: 50 },
    );
  });

  it('are found by other readers', async () => {
    const bytes = await encodeImage(image, {
      format: 'png',
      quality: 90,
      recipe: { prompt: 'a cat', seed: 5, steps: 3 },
    });
    const { comments } = await sharp(bytes).metadata();
    assert.deepEqual(
      comments!.map(({ keyword }) => keyword),
      ['parameters', 'multidiffusion'],
    );
    assert.equal(comments![0].text, 'a cat\nSteps: 3, Seed: 5');
    assert.deepEqual(JSON.parse(comments![1].text), { prompt: 'a cat', steps: 3, seed: 5 });

    const painted = await encodeImage(image, {
      format: 'png',
      quality: 90,
      recipe: { prompt: 'a cat', strength: 0.4, startedFromImage: true, stepMode: 'wired' },
    });
    const [parameters, recipe] = (await sharp(painted).metadata()).comments!.map(({ text }) => text);
    assert.equal(parameters, 'a cat\nDenoising strength: 0.4');
    assert.deepEqual(JSON.parse(recipe), { prompt: 'a cat', strength: 0.4, stepMode: 'wired', startedFromImage: true });
  });

  it('are read from damaged files without a fuss', async () => {
    const png = await encodeImage(image, { format: 'png', quality: 90, recipe: { prompt: 'a cat' } });
    assert.deepEqual({ ...(await readPngText(Buffer.from('no png'))) }, {});
    await fc.assert(
      fc.asyncProperty(fc.nat(png.length - 1), fc.nat(255), fc.nat(png.length), async (at, value, end) => {
        const damaged = Buffer.from(png.subarray(0, end));
        if (at < damaged.length) damaged[at] = value;
        await readPngText(damaged);
        await readRecipe(damaged);
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
    assert.deepEqual(
      toRecipe({
        prompt: 'a',
        seed: 1,
        steps: { a: 1 },
        width: NaN,
        secret: 1,
        timings: { a: 'b' },
        regions: [{ prompt: 'b', box: [0, 0, 1, 1], mask: image, conditioning: {} }, 5],
      }),
      {
        prompt: 'a',
        seed: 1,
        regions: [{ prompt: 'b', box: [0, 0, 1, 1] }],
      },
    );
    const hostile = JSON.parse('{"__proto__": {"polluted": 1}, "constructor": 1, "prompt": "a"}') as object;
    assert.deepEqual(toRecipe(hostile), { prompt: 'a' });
    assert.equal(({} as Record<string, unknown>).polluted, undefined);
  });

  it('are written as other programs write them', () => {
    const text = toParameters({
      prompt: 'a room,\nbig',
      negativePrompt: 'blur',
      steps: 25,
      scheduler: 'DPMSolverMultistepScheduler',
      guidanceScale: 5,
      seed: 7,
      width: 512,
      height: 256,
      model: 'a, b',
      regions: [{ prompt: 'a sofa', box: [0, 0.5, 1, 0.5] }],
    });
    assert.equal(
      text,
      'a room, big\nNegative prompt: blur\nSteps: 25, Sampler: DPM++ 2M, CFG scale: 5, Seed: 7, ' +
        'Size: 512x256, Model: "a, b", Region 1: a sofa [0 0.5 1 0.5]',
    );
  });

  it('survive every format, in any language', async () => {
    const recipe = {
      prompt: 'ein “Sofa” & <Tisch> 猫 😀',
      negativePrompt: '{"a":1}',
      seed: 2 ** 53 - 1,
      regions: [
        {
          prompt: 'ö',
          polygon: [
            [0, 0],
            [0.1, 0.30000000000000004],
            [1, 1],
          ],
        },
      ],
    };
    for (const format of ['png', 'jpeg', 'webp'] as const) {
      assert.deepEqual(await readRecipe(await encodeImage(image, { format, quality: 80, recipe })), recipe, format);
      assert.equal(await readRecipe(await encodeImage(image, { format, quality: 80 })), undefined);
    }
    assert.equal(await readRecipe(Buffer.from('GIF89a')), undefined);
  });

  it('keep mask images of any size, in every format', async () => {
    const mask = `data:image/png;base64,${randomBytes(800_000).toString('base64')}`;
    const recipe = { prompt: 'a', regions: [{ prompt: 'b', image: mask }] };
    for (const format of ['png', 'jpeg', 'webp'] as const) {
      const file = await encodeImage(image, { format, quality: 90, recipe });
      assert.equal((await readRecipe(file))!.regions![0].image, mask, format);
      assert.equal((await sharp(file).metadata()).width, 16, 'the file is still a picture');
    }
  });

  it('say what they had to leave out, and what no recipe holds', () => {
    const large = `data:image/png;base64,${'A'.repeat(10_000_000)}`;
    const regions = [{ prompt: 'a', image: large }, { prompt: 'b', image: large, weight: {} }, 7];
    const { recipe, left } = completeRecipe({ prompt: 'p', steps: 'x'.repeat(2_000_000), regions });
    assert.deepEqual(left, ['steps', 'regions[1].weight', 'regions from number 3 on', 'regions[0].image']);
    assert.equal(recipe!.regions![1].image, large);
    assert.deepEqual(completeRecipe({ prompt: 'p', startedFromImage: true, stepMode: 'wired' }).apart, [
      'the picture that it was started from',
      'what the nodes of the loop did',
    ]);
    assert.deepEqual(completeRecipe({ prompt: 'p', regions: [{ prompt: 'a', box: [0, 0, 1, 1] }] }).left, []);
  });

  describe('of other programs', () => {
    const TEXT = [
      'a cat, (best:1.2)',
      'by the sea ä 猫',
      'Negative prompt: blurry,',
      'ugly',
      'Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 6.5, Seed: 4294967295, Size: 512x768, ' +
        'Model hash: 6ce0161689, Model: "v1, pruned", Lora hashes: "a: 1, Steps: 3", Version: v1.10.1',
    ].join('\n');
    const RECIPE = {
      prompt: 'a cat, (best:1.2)\nby the sea ä 猫',
      negativePrompt: 'blurry,\nugly',
      seed: 4294967295,
      steps: 20,
      guidanceScale: 6.5,
      width: 512,
      height: 768,
      scheduler: 'EulerAncestralDiscreteScheduler',
    };

    it('are understood', () => {
      assert.deepEqual(fromParameters(TEXT), RECIPE);
      assert.deepEqual(fromParameters('a dog\r\nSteps: 3, Seed: 1, Sampler: Restart'), {
        prompt: 'a dog',
        seed: 1,
        steps: 3,
      });
      for (const [name, scheduler] of [
        ['DPM++ 2M', 'DPMSolverMultistepScheduler'],
        ['DPM++ 2M Karras', 'DPMSolverMultistepScheduler'],
        ['euler', 'EulerDiscreteScheduler'],
        ['UniPC', 'UniPCMultistepScheduler'],
        ['DDIM', 'DDIMScheduler'],
      ])
        assert.equal(fromParameters(`x\nSteps: 3, Sampler: ${name}, Seed: 1`)!.scheduler, scheduler);
      for (const other of [
        '',
        'a photo: of a cat, red: yes, b: c',
        'Steps: 3',
        ','.repeat(100_000),
        ':'.repeat(100_000),
      ])
        assert.equal(fromParameters(other), undefined);
      assert.ok(fromParameters(toParameters({ ...RECIPE, scheduler: 'PNDMScheduler' }))!.scheduler === 'PNDMScheduler');
    });

    const png = (): Promise<Buffer> => encodeImage(image, { format: 'png', quality: 90 });
    const utf16be = (text: string): Buffer => Buffer.from(text, 'utf16le').swap16();
    const comment = (code: string, bytes: Buffer, little = false): Buffer => exifWith(0x9286, code, bytes, little);

    it('are found in PNG text chunks of every kind', async () => {
      const latin1 = TEXT.replace('猫', 'cat');
      const utf8 = Buffer.from(TEXT);
      const files: Array<[string, Buffer, Buffer]> = [
        ['tEXt', Buffer.from('parameters\0'), Buffer.from(latin1, 'latin1')],
        ['zTXt', Buffer.from('parameters\0\0'), zlib.deflateSync(Buffer.from(latin1, 'latin1'))],
        ['iTXt', Buffer.from('parameters\0\0\0de\0Name\0'), utf8],
        ['iTXt', Buffer.from('parameters\0\x01\0\0\0'), zlib.deflateSync(utf8)],
      ];
      for (const [type, before, text] of files) {
        const found = await readRecipe(withChunk(await png(), type, Buffer.concat([before, text])));
        assert.equal(found!.prompt!.replace('cat', 'cat').slice(0, 17), 'a cat, (best:1.2)', type);
        assert.deepEqual(found, type === 'iTXt' ? RECIPE : { ...RECIPE, prompt: RECIPE.prompt.replace('猫', 'cat') });
      }
    });

    it('are found in EXIF, in any encoding and byte order, of JPEG, PNG, WebP and TIFF', async () => {
      const wide = Buffer.from(TEXT, 'utf16le');
      const blocks: Array<[string, Buffer]> = [
        ['big-endian, as A1111 writes it', comment('UNICODE\0', utf16be(TEXT))],
        ['little-endian', comment('UNICODE\0', wide, true)],
        ['big-endian in a little-endian block', comment('UNICODE\0', utf16be(TEXT), true)],
        ['little-endian in a big-endian block', comment('UNICODE\0', wide)],
        ['with a mark', comment('UNICODE\0', Buffer.concat([Buffer.from([0xff, 0xfe]), wide]))],
        ['with the other mark', comment('UNICODE\0', Buffer.concat([Buffer.from([0xfe, 0xff]), utf16be(TEXT)]))],
        ['UTF-8', comment('ASCII\0\0\0', Buffer.from(TEXT))],
        ['without a code', comment('\0\0\0\0\0\0\0\0', Buffer.from(TEXT))],
        ['XPComment', exifWith(0x9c9c, '', Buffer.from(`${TEXT}\0`, 'utf16le'), true)],
        ['ImageDescription', exifWith(0x010e, '', Buffer.from(`${TEXT}\0`))],
      ];
      const jpeg = await encodeImage(image, { format: 'jpeg', quality: 90 });
      const webp = await encodeImage(image, { format: 'webp', quality: 90 });
      for (const [what, block] of blocks) {
        const exif = Buffer.concat([Buffer.from('Exif\0\0'), block]);
        const raw = `\nexif\n${exif.length}\n${exif.toString('hex').replace(/.{72}/g, '$&\n')}\n`;
        const files = {
          JPEG: atOnce(insertSegments(jpeg, [{ marker: 0xe1, data: exif }])),
          PNG: withChunk(await png(), 'eXIf', block),
          'PNG by ImageMagick': withChunk(
            await png(),
            'zTXt',
            Buffer.concat([Buffer.from('Raw profile type exif\0\0'), zlib.deflateSync(Buffer.from(raw))]),
          ),
          WebP: atOnce(insertWebpMetadata(webp, { width: 16, height: 12 }, { exif: block, xmp: Buffer.alloc(0) })),
        };
        for (const [format, file] of Object.entries(files))
          assert.deepEqual(await readRecipe(file), RECIPE, `${what}, ${format}`);
      }
      assert.deepEqual(await readRecipe(comment('UNICODE\0', wide, true)), RECIPE, 'TIFF');
    });

    it('are read where ours is written, in any language', async () => {
      for (const format of ['jpeg', 'webp'] as const) {
        const recipe = { prompt: 'une café à 東京', negativePrompt: 'размыто', seed: 3, steps: 5 };
        const { exif } = await sharp(await encodeImage(image, { format, quality: 90, recipe })).metadata();
        const at = exif!.indexOf('UNICODE\0') + 8;
        assert.equal(
          Buffer.from(exif!.subarray(at)).swap16().toString('utf16le'),
          'une café à 東京\nNegative prompt: размыто\nSteps: 5, Seed: 3',
        );
      }
    });

    it('are passed over where a text would be larger than any recipe', async () => {
      const bomb = zlib.deflateSync(Buffer.alloc(64_000_000, 32), { level: 9 });
      const chunks = [
        ...Array.from({ length: 20 }, (_, i) => Buffer.concat([Buffer.from(`other ${i}\0\0`), bomb])),
        Buffer.concat([Buffer.from('multidiffusion\0\0'), bomb]),
        Buffer.concat([
          Buffer.from('parameters\0\0'),
          zlib.deflateSync(Buffer.from('a\nSteps: 3, Seed: 1, Size: 8x8')),
        ]),
      ];
      let file = await png();
      for (const chunk of chunks.reverse()) file = withChunk(file, 'zTXt', chunk);
      assert.equal((await readRecipe(file))!.prompt, 'a');
    });
  });

  it('of ours survive other programs', async () => {
    const recipe = { prompt: 'a “room” & <sofa>', seed: 5, steps: 3 };
    const [jpeg, file] = await Promise.all(
      (['jpeg', 'png'] as const).map((format) => encodeImage(image, { format, quality: 90, recipe })),
    );
    const xmp = (await sharp(jpeg).metadata()).xmp!.toString();
    const text = /recipe>([^<]*)</.exec(xmp)![1];
    const attribute = xmp
      .replace(/<multidiffusion:recipe>.*<\/multidiffusion:recipe>/, '')
      .replace('rdf:about=""', `rdf:about="" ns1:recipe="${text.replaceAll('"', '&#x22;')}"`)
      .replace('xmlns:multidiffusion', 'xmlns:ns1');
    const cdata = xmp.replace(text, `<![CDATA[${JSON.stringify(recipe)}]]>`);
    const plain = await encodeImage(image, { format: 'png', quality: 90 });
    const moved = await sharp(jpeg).keepMetadata().webp().toBuffer();
    assert.deepEqual(await readRecipe(moved), recipe, 'converted by sharp');
    for (const packet of [xmp, attribute, cdata]) {
      const chunk = Buffer.concat([Buffer.from('XML:com.adobe.xmp\0\0\0\0\0'), Buffer.from(packet)]);
      assert.deepEqual(await readRecipe(withChunk(plain, 'iTXt', chunk)), recipe);
      assert.deepEqual(await readRecipe(await sharp(plain).withXmp(packet).jpeg().toBuffer()), recipe);
    }
    assert.equal((await readRecipe(file))!.prompt, recipe.prompt);
  });
});

/** The PNG file with a chunk behind its header. */
function withChunk(png: Buffer, type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type), data]);
  const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(data.length);
  check.writeUInt32BE(zlib.crc32(body));
  return Buffer.concat([png.subarray(0, 33), length, body, check, png.subarray(33)]);
}

/** An EXIF block with one entry: a user comment in the EXIF directory, or another tag in the first. */
function exifWith(tag: number, code: string, bytes: Buffer, little = false): Buffer {
  const data = Buffer.concat([Buffer.from(code, 'latin1'), bytes]);
  const block = Buffer.alloc(8 + 18 + 18);
  const short = (value: number, at: number): unknown =>
    little ? block.writeUInt16LE(value, at) : block.writeUInt16BE(value, at);
  const long = (value: number, at: number): unknown =>
    little ? block.writeUInt32LE(value, at) : block.writeUInt32BE(value, at);
  const directory = (at: number, [name, type, count, value]: number[]): void => {
    short(1, at);
    short(name, at + 2);
    short(type, at + 4);
    long(count, at + 6);
    long(value, at + 10);
  };
  block.write(little ? 'II*\0' : 'MM\0*', 'latin1');
  long(8, 4);
  const entry = [tag, 7, data.length, 44];
  directory(8, tag === 0x9286 ? [0x8769, 4, 1, 26] : entry);
  directory(26, entry);
  return Buffer.concat([block, data]);
}

describe('mask images', () => {
  const grey = (level: number): Promise<Buffer> =>
    sharp({ create: { width: 20, height: 10, channels: 3, background: { r: level, g: level, b: level } } })
      .png()
      .toBuffer();

  it('become masks: white is inside, transparent is outside', async () => {
    const mask = await decodeMask(await grey(51), 'mask', LIMITS);
    assert.deepEqual(mask.dims, [1, 10, 20]);
    assert.ok(mask.data.every((value) => value === Math.fround(0.2)));
    const clear = await sharp({
      create: { width: 4, height: 4, channels: 4, background: { r: 255, g: 255, b: 255, alpha: 0 } },
    })
      .png()
      .toBuffer();
    assert.ok((await decodeMask(clear, 'mask', LIMITS)).data.every((value) => value === 0));
  });

  it('come back from a recipe as they were', async () => {
    const levels = Float32Array.from({ length: 256 }, (_, i) => i / 255);
    const mask = Tensor.float32(levels, [1, 16, 16]);
    const back = await decodeMask(await encodeMask(mask), 'mask', LIMITS);
    assert.deepEqual(back.data, levels);
  });

  it('are refused when they are too large, in bytes or pixels, before they are decoded', async () => {
    const large = await sharp({ create: { width: 200, height: 200, channels: 3, background: 'white' } })
      .png()
      .toBuffer();
    await assert.rejects(decodeMask(large, 'mask', LIMITS), { code: 'LIMIT', message: /pixels/ });
    await assert.rejects(decodeMask(Buffer.alloc(200_000), 'mask', LIMITS), { code: 'LIMIT', message: /200000 bytes/ });
    await assert.rejects(decodeMask(`data:image/png;base64,${'A'.repeat(200_000)}`, 'mask', LIMITS), { code: 'LIMIT' });
  });

  it('are refused when they are no pictures', async () => {
    const svg = Buffer.from(
      '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>',
    );
    for (const bytes of [
      svg,
      Buffer.alloc(0),
      Buffer.from('x'),
      (await grey(9)).subarray(0, 60),
      'data:text/plain,hello',
      'data:image/png;base64,AAAA',
    ]) {
      await assert.rejects(decodeMask(bytes, 'mask', LIMITS), { code: 'INVALID_INPUT' });
    }
  });
});
