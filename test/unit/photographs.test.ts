/** Photographs as cameras and telephones make them: of up to 50 megapixels, turned, with a colour profile. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import sharp from 'sharp';
import { readPicture } from '../../dist/engine';
import { decodeMask } from '../../dist/engine/image/mask';
import { temporaryFolder } from '../../scripts/lib/headless';

const LIMITS = { maxPixels: 8192 * 8192, maxBytes: 128 * 2 ** 20 };
const [RED, BLUE] = [
  [200, 60, 40],
  [30, 60, 190],
];

/** Red on the left and blue on the right where the camera saw them; held upright, red is above. */
function photograph(format: 'jpeg' | 'png' | 'webp', width: number): Promise<Buffer> {
  const height = (width * 2) / 3;
  const colour = ([r, g, b]: number[]) => ({ r, g, b });
  const right = {
    create: { width: width / 2, height, channels: 3 as const, background: colour(BLUE) },
  };
  return sharp({ create: { width, height, channels: 3, background: colour(RED) } })
    .composite([{ input: right, left: width / 2, top: 0 }])
    .withMetadata({ orientation: 6 })
    .withIccProfile('p3')
    .toFormat(format, format === 'jpeg' ? {} : { effort: format === 'webp' ? 0 : 1 })
    .toBuffer();
}

const near = (found: ArrayLike<number>, expected: number[], what: string): void =>
  expected.forEach((value, c) => assert.ok(Math.abs(found[c] - value) <= 6, `${what}: ${Array.from(found).join()}`));

describe('photographs', function () {
  this.timeout(120_000);
  let large: Buffer;
  before(async () => (large = await photograph('jpeg', 6000)));

  for (const format of ['jpeg', 'png', 'webp'] as const) {
    it(`${format} of 50 megapixels: upright and in sRGB, as a picture of any size and as a mask`, async () => {
      const file = await photograph(format, 8664);
      const { orientation, icc } = await sharp(file).metadata();
      assert.equal(orientation, 6);
      assert.ok(icc);

      const small = await readPicture(file, 'picture', LIMITS, { width: 512, height: 768 });
      assert.deepEqual(small.dims, [768, 512, 3]);
      const at = (y: number) => small.data.subarray((y * 512 + 256) * 3).subarray(0, 3);
      near(at(100), RED, 'above');
      near(at(667), BLUE, 'below');

      const bounded = await readPicture(file, 'picture', LIMITS, 'bounded');
      assert.deepEqual(bounded.dims, [2048, 1365, 3]);
      near(bounded.data, RED, 'above, bounded');

      const mask = await decodeMask(file, 'mask', LIMITS);
      assert.deepEqual(mask.dims, [1, 1024, 683]);
      near([mask.data[0] * 255], [RED[0]], 'the brightest channel above');
      near([mask.data.at(-1)! * 255], [BLUE[2]], 'the brightest channel below');
    });
  }

  it('more pixels than the limits allow: refused, with the number and the limit', async () => {
    await assert.rejects(readPicture(large, 'picture', { ...LIMITS, maxPixels: 23_999_999 }), {
      code: 'LIMIT',
      message: 'picture has 24000000 pixels (6000x4000); allowed: up to 23999999 pixels.',
    });
  });

  it('as masks of many regions they are read at half the size from the seventeenth on', async () => {
    for (const [region, side] of [
      [0, 1024],
      [15, 1024],
      [16, 512],
      [63, 512],
    ])
      assert.equal((await decodeMask(large, 'mask', LIMITS, region)).dims[1], side);
  });

  it('take no memory for their pixels', async () => {
    const file = path.join(temporaryFolder(), 'photograph.jpg');
    fs.writeFileSync(file, large);
    const engine = path.join(__dirname, '../../dist/engine');
    const script = `
      const { readPicture } = require(${JSON.stringify(engine)});
      const { decodeMask } = require(${JSON.stringify(path.join(engine, 'image/mask'))});
      const limits = ${JSON.stringify(LIMITS)};
      const bytes = require('node:fs').readFileSync(${JSON.stringify(file)});
      (async () => {
        // The image library itself, its threads and what it keeps.
        const small = await require('sharp')({ create: { width: 64, height: 64, channels: 3, background: 'red' } }).jpeg().toBuffer();
        await readPicture(small, 'picture', limits, { width: 32, height: 32 });
        const before = process.resourceUsage().maxRSS;
        for (let i = 0; i < 3; i++) {
          await readPicture(bytes, 'picture', limits, { width: 512, height: 768 });
          await decodeMask(bytes, 'mask', limits);
        }
        console.log(process.resourceUsage().maxRSS - before);
      })();`;
    const { stdout } = await promisify(execFile)(process.execPath, ['-e', script]);
    // Its 24 million pixels are 72 MB, and would be there six times.
    assert.ok(Number(stdout) < 60_000, `${stdout} kB`);
  });
});
