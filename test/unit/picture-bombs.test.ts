/** Pictures that are small as files and large as work: every way in, every kind. */
import assert from 'node:assert/strict';
import { crc32, deflateSync } from 'node:zlib';
import sharp from 'sharp';
import { encodeImage, readPicture, readRecipe } from '../../dist/engine';
import { decodeMask } from '../../dist/engine/image/mask';

const LIMITS = { maxPixels: 4096 * 4096, maxBytes: 16 * 1024 * 1024 };
/** What a picture may cost beyond itself. */
const MOST_BYTES = 300 * 2 ** 20;

function chunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(data.length);
  check.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, check]);
}

function png(width: number, height: number, extra: Buffer[] = [], pixels?: Buffer): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header[8] = 8;
  return Buffer.concat([
    Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
    chunk('IHDR', header),
    ...extra,
    chunk('IDAT', pixels ?? deflateSync(Buffer.alloc((width + 1) * height))),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

const inflating = deflateSync(Buffer.alloc(50e6, 65), { level: 9 });
const times = <T>(count: number, make: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i));
const text = (head: string): Buffer => Buffer.concat([Buffer.from(head, 'latin1'), inflating]);

/** 8 × 8 pixels each; all are pictures, and are read as such. */
const READ: Record<string, () => Buffer> = {
  'zTXt that inflates to 2 GB': () =>
    png(
      8,
      8,
      times(40, (i) => chunk('zTXt', text(`k${i}\0\0`))),
    ),
  'iTXt that inflates to 2 GB': () =>
    png(
      8,
      8,
      times(40, (i) => chunk('iTXt', text(`k${i}\0\x01\0\0\0`))),
    ),
  'private chunks': () =>
    png(
      8,
      8,
      times(40, () => chunk('prVt', inflating)),
    ),
  'a profile that inflates to 50 MB': () => png(8, 8, [chunk('iCCP', text('icc\0\0'))]),
  'pixels that inflate to 500 MB': () => png(8, 8, [], deflateSync(Buffer.alloc(500e6))),
  'text behind its pixels': () => {
    const whole = png(8, 8);
    const end = whole.length - 12;
    return Buffer.concat([
      whole.subarray(0, end),
      ...times(40, (i) => chunk('zTXt', text(`k${i}\0\0`))),
      whole.subarray(end),
    ]);
  },
};

/** A baseline JPEG whose scan is there again and again. */
async function manyScans(count: number): Promise<Buffer> {
  const jpeg = await sharp({ create: { width: 64, height: 64, channels: 3, background: 'white' } })
    .jpeg({ progressive: true })
    .toBuffer();
  const start = jpeg.lastIndexOf(Buffer.from([0xff, 0xda]));
  const scan = jpeg.subarray(start, jpeg.length - 2);
  return Buffer.concat([jpeg.subarray(0, start), ...times(count, () => scan), jpeg.subarray(-2)]);
}

async function gif(screen: number, frame: number): Promise<Buffer> {
  const bytes = Buffer.from(
    await sharp({ create: { width: 8, height: 8, channels: 3, background: 'white' } })
      .gif()
      .toBuffer(),
  );
  bytes.writeUInt16LE(screen, 6);
  bytes.writeUInt16LE(screen, 8);
  const descriptor = bytes.indexOf(Buffer.from([0x2c, 0, 0, 0, 0, 8, 0, 8, 0]));
  assert.ok(descriptor > 0);
  bytes.writeUInt16LE(frame, descriptor + 5);
  bytes.writeUInt16LE(frame, descriptor + 7);
  return bytes;
}

/** Refused before anything is decoded. */
const REFUSED: Record<string, () => Buffer | Promise<Buffer>> = {
  'SVG of 900,000 elements': () =>
    Buffer.from(`<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8">${'<g/>'.repeat(900_000)}</svg>`),
  'SVG behind a byte order mark': () =>
    Buffer.from('\ufeff<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>'),
  'PNG of 300,000 text chunks': () =>
    png(
      8,
      8,
      times(300_000, (i) => chunk('tEXt', Buffer.from(`k${i}\0v`))),
    ),
  'PNG of 4 exapixels': () => png(8, 8).fill(0x7f, 16, 24),
  'JPEG of 10,000 scans': () => manyScans(10_000),
  'JPEG of 65,500 × 65,500 pixels': async () => {
    const jpeg = Buffer.from(await manyScans(1));
    let at = 2;
    while (![0xc0, 0xc2].includes(jpeg[at + 1]!)) at += 2 + jpeg.readUInt16BE(at + 2);
    jpeg.writeUInt16BE(65_500, at + 5);
    jpeg.writeUInt16BE(65_500, at + 7);
    return jpeg;
  },
  'JPEG of a million segments': () =>
    Buffer.concat([Buffer.from([0xff, 0xd8]), Buffer.alloc(4e6, Buffer.from([0xff, 0xe1, 0, 2]))]),
  'WebP of half a million chunks': () =>
    Buffer.concat([Buffer.from('RIFF\xff\xff\x3d\0WEBP', 'latin1'), Buffer.alloc(4e6, Buffer.from('XMP \0\0\0\0'))]),
  'GIF whose screen is 65,535 × 65,535': () => gif(65_535, 8),
  'GIF whose picture is larger than its screen': () => gif(8, 65_535),
  'WebP of 16,384 × 16,384 pixels': async () => {
    const webp = Buffer.from(
      await sharp({ create: { width: 8, height: 8, channels: 4, background: '#0000' } })
        .webp()
        .withExif({ IFD0: { Software: 'x' } })
        .toBuffer(),
    );
    const canvas = webp.indexOf('VP8X');
    webp.writeUIntLE(16_383, canvas + 12, 3);
    webp.writeUIntLE(16_383, canvas + 15, 3);
    return webp;
  },
  'TIFF, which is a picture but none of these': () =>
    sharp({ create: { width: 8, height: 8, channels: 3, background: 'white' } })
      .tiff()
      .toBuffer(),
  nothing: () => Buffer.alloc(0),
};

/** @returns bytes by which the process grew at most */
async function growth(work: () => Promise<unknown>): Promise<number> {
  const before = process.memoryUsage.rss();
  let peak = before;
  const watch = setInterval(() => (peak = Math.max(peak, process.memoryUsage.rss())), 5);
  await work().finally(() => clearInterval(watch));
  return Math.max(peak, process.memoryUsage.rss()) - before;
}

const dataUri = (bytes: Buffer): string => `data:image/png;base64,${bytes.toString('base64')}`;

describe('pictures that are bombs', function () {
  this.timeout(60_000);

  for (const [what, make] of Object.entries(READ)) {
    it(`with ${what}: read as a mask, as a picture, as a data URI and for its recipe, at no cost`, async () => {
      const bytes = make();
      const grown = await growth(async () => {
        for (const source of [bytes, dataUri(bytes)]) {
          const mask = await decodeMask(source, 'mask', LIMITS);
          assert.deepEqual(mask.dims, [1, 8, 8]);
          const picture = await readPicture(source, 'image', LIMITS, { width: 16, height: 16 });
          assert.deepEqual(picture.dims, [16, 16, 3]);
        }
        assert.equal(await readRecipe(bytes), undefined);
      });
      assert.ok(grown < MOST_BYTES, `it took ${Math.round(grown / 2 ** 20)} MB`);
    });
  }

  for (const [what, make] of Object.entries(REFUSED)) {
    it(`${what}: refused`, async () => {
      const bytes = await make();
      const grown = await growth(async () => {
        for (const source of [bytes, dataUri(bytes)]) {
          for (const read of [decodeMask(source, 'x', LIMITS), readPicture(source, 'x', LIMITS)])
            await assert.rejects(read, (error: { code: string }) => ['INVALID_INPUT', 'LIMIT'].includes(error.code));
        }
        assert.equal(await readRecipe(bytes), undefined);
      });
      assert.ok(grown < MOST_BYTES, `it took ${Math.round(grown / 2 ** 20)} MB`);
    });
  }

  it('the memory of a picture is given back', async () => {
    const bytes = await sharp({ create: { width: 4000, height: 4000, channels: 3, background: 'white' } })
      .png()
      .toBuffer();
    await decodeMask(bytes, 'mask', LIMITS);
    const { memory, files, items } = sharp.cache();
    assert.deepEqual([memory.max, files.max, items.max], [0, 0, 0]);
  });

  it('a recipe that lies behind many texts of others is found', async () => {
    const own = chunk('tEXt', Buffer.from('multidiffusion\0{"prompt":"a sofa"}'));
    const bytes = png(8, 8, [...times(1000, (i) => chunk('tEXt', Buffer.from(`k${i}\0v`))), own]);
    assert.equal((await readRecipe(bytes))?.prompt, 'a sofa');
    const jpeg = await encodeImage(await readPicture(bytes, 'x', LIMITS), {
      format: 'jpeg',
      quality: 90,
      recipe: { prompt: 'a dog' },
    });
    const others = Buffer.alloc(4000, Buffer.from([0xff, 0xe5, 0, 2]));
    const behind = Buffer.concat([jpeg.subarray(0, 2), others, jpeg.subarray(2)]);
    assert.equal((await readRecipe(behind, { own: true }))?.prompt, 'a dog');
  });
});
