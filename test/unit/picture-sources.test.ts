/** Every way in which a picture comes in gives the same picture, as a mask too. */
import assert from 'node:assert/strict';
import vm from 'node:vm';
import sharp, { type Sharp } from 'sharp';
import { Tensor } from '../../dist/engine';
import { bytesIn, decodeText } from '../../dist/engine/bytes';
import { decodeMask } from '../../dist/engine/image/mask';
import { readPicture } from '../../dist/engine/image/picture';
import { isPictureText, pictureFormat } from '../../dist/engine/image/source';

const LIMITS = { maxPixels: 1_000_000, maxBytes: 1_000_000 };
const [WIDTH, HEIGHT] = [48, 32];

/** Red on the left, green at the top; grey and alpha: white there at the top left only. */
const raw = (channels: 1 | 2 | 3 | 4): Sharp => {
  const data = Buffer.alloc(WIDTH * HEIGHT * channels);
  for (let y = 0; y < HEIGHT; y++) {
    for (let x = 0; x < WIDTH; x++) {
      const [left, top] = [x < WIDTH / 2, y < HEIGHT / 2];
      const colour = { 1: [left && top], 2: [true, left && top], 3: [left, top, 0], 4: [1, 1, 1, left && top] }[
        channels
      ];
      colour.forEach((value, c) => (data[(y * WIDTH + x) * channels + c] = value ? 255 : 0));
    }
  }
  return sharp(data, { raw: { width: WIDTH, height: HEIGHT, channels } });
};

/** Where the corner of the stored picture lies once it is upright: [at the right, at the bottom, sides swapped]. */
const UPRIGHT: Record<number, [number, number, boolean]> = {
  1: [0, 0, false],
  2: [1, 0, false],
  3: [1, 1, false],
  4: [0, 1, false],
  5: [0, 0, true],
  6: [1, 0, true],
  7: [1, 1, true],
  8: [0, 1, true],
};

describe('pictures that come in', () => {
  describe('are turned as the camera was held', () => {
    for (const format of ['jpeg', 'png', 'webp'] as const) {
      for (const channels of [1, 2, 3, 4] as const) {
        if (format === 'jpeg' && channels % 2 === 0) continue;
        it(`${format} of ${channels} channels`, async () => {
          for (const [orientation, [right, bottom, swapped]] of Object.entries(UPRIGHT)) {
            const file = await raw(channels)
              .withMetadata({ orientation: Number(orientation) })
              .toFormat(format, { quality: 100 })
              .toBuffer();
            const picture = await readPicture(file, 'picture', LIMITS);
            const mask = await decodeMask(file, 'mask', LIMITS);
            const [width, height] = swapped ? [HEIGHT, WIDTH] : [WIDTH, HEIGHT];
            assert.deepEqual(picture.dims, [height, width, 3], orientation);
            assert.deepEqual(mask.dims, [1, height, width], orientation);
            const at = (x: number, y: number): number =>
              Math.floor((0.25 + y / 2) * height) * width + Math.floor((0.25 + x / 2) * width);
            const marked = at(right, bottom);
            for (const place of [at(0, 0), at(0, 1), at(1, 0), at(1, 1)]) {
              if (channels === 3) {
                // Both colours are at the stored corner, none at the opposite one.
                const both = picture.data[3 * place] > 200 && picture.data[3 * place + 1] > 200;
                assert.equal(both, place === marked, `orientation ${orientation}`);
              } else {
                assert.equal(mask.data[place] > 0.9, place === marked, `orientation ${orientation}`);
              }
            }
          }
        });
      }
    }

    it('before they are brought to another size', async () => {
      const file = await raw(3).withMetadata({ orientation: 6 }).jpeg({ quality: 100 }).toBuffer();
      const { dims, data } = await readPicture(file, 'picture', LIMITS, { width: 16, height: 24 });
      assert.deepEqual(dims, [24, 16, 3]);
      const corner = 3 * (2 * 16 + 13);
      assert.ok(data[corner] > 200 && data[corner + 1] > 200);
    });
  });

  it('are the same in every form', async () => {
    const file = await raw(3).png().toBuffer();
    const base64 = file.toString('base64');
    const lines = base64.replace(/.{76}/g, '$&\r\n');
    const escaped = [...file].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join('');
    const padded = Buffer.concat([Buffer.alloc(5), file, Buffer.alloc(7)]);
    const view = new Uint8Array(padded.buffer, padded.byteOffset + 5, file.length);
    const elsewhere = vm.runInNewContext('new Uint8Array(bytes)', { bytes: [...file] }) as Uint8Array;
    const forms: Record<string, unknown> = {
      Buffer: file,
      Uint8Array: new Uint8Array(file),
      'a view into a larger buffer': view,
      Uint8ClampedArray: new Uint8ClampedArray(file),
      DataView: new DataView(new Uint8Array(file).buffer),
      ArrayBuffer: new Uint8Array(file).buffer,
      'a Uint8Array of a Function node': elsewhere,
      'an ArrayBuffer of a Function node': elsewhere.buffer,
      'a Buffer through JSON': JSON.parse(JSON.stringify(file)),
      Base64: base64,
      'Base64 in lines': lines,
      'Base64 with white space around': `\n  ${base64}\n`,
      'URL-safe Base64': file.toString('base64url'),
      'a data URI': `data:image/png;base64,${base64}`,
      'a data URI in capitals': `DATA:IMAGE/PNG;BASE64,${base64}`,
      'a data URI after a space': ` data:image/png;base64,${base64}`,
      'with parameters': `data:image/png;name=a%20b.png;charset=utf-8;base64,${base64}`,
      'with spaces in it': `data:image/png; charset=utf-8; base64, ${lines}`,
      'of an unknown type': `data:application/octet-stream;base64,${base64}`,
      'without a type': `data:;base64,${base64}`,
      'URL-safe, in a data URI': `data:image/png;base64,${file.toString('base64url')}`,
      'percent-encoded Base64': `data:image/png;base64,${encodeURIComponent(base64)}`,
      'percent-encoded': `data:image/png,${escaped}`,
      'a tensor': await readPicture(file, 'picture', LIMITS),
    };
    const expected = await readPicture(file, 'picture', LIMITS);
    const mask = await decodeMask(file, 'mask', LIMITS);
    for (const [what, form] of Object.entries(forms)) {
      assert.deepEqual(await readPicture(form, 'picture', LIMITS), expected, what);
      assert.deepEqual(await decodeMask(form, 'mask', LIMITS), mask, what);
    }
  });

  it('are told from text', () => {
    for (const text of ['a cat', 'data: charts, graphs', 'iVBOR', 'AAAAAAAAAAAAAAAAAAAAAAAA', '', 'picture.png'])
      assert.equal(isPictureText(text), false, text);
    assert.equal(isPictureText('R0lGODlhAQABAIAAAAAAAP'), true, 'a GIF');
    assert.equal(isPictureText('/9j/4AAQSkZJRgABAQAAAQABAAD'), true, 'a JPEG');
    assert.equal(pictureFormat(Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"/>')), undefined);
  });

  it('are refused by the property, the value and what is allowed', async () => {
    for (const [form, says] of [
      ['a cat', /^mask is "a cat"; allowed: a PNG, JPEG, WebP or GIF file as bytes/],
      [{ type: 'Buffer', data: [1, 256] }, /^mask is \{"type":"Buffer"/],
      [new Float32Array(9), /^mask is Float32Array of 36 bytes; allowed/],
      [
        'data:image/svg+xml,%3Csvg%20xmlns=%22http://www.w3.org/2000/svg%22/%3E',
        /^mask is a Buffer of 41 bytes; allowed: a PNG/,
      ],
      [Buffer.alloc(0), /^mask is a Buffer of 0 bytes/],
    ] as const)
      await assert.rejects(decodeMask(form, 'mask', LIMITS), { code: 'INVALID_INPUT', message: says });
    await assert.rejects(
      decodeMask(await raw(3).png().toBuffer(), 'mask', { ...LIMITS, maxPixels: 100, pixelsSetBy: 'here' }),
      {
        code: 'LIMIT',
        message: 'mask has 1536 pixels (48x32); allowed: up to 100 pixels (here).',
      },
    );
    await assert.rejects(
      decodeMask('iVBORw0KGgoAAAANSUhEUg'.repeat(100), 'mask', { ...LIMITS, maxBytes: 100, bytesSetBy: 'there' }),
      {
        code: 'LIMIT',
        message: /^mask has \d+ bytes; allowed: up to 100 bytes \(there\)\.$/,
      },
    );
  });

  it('are masks in whatever colour they are painted', async () => {
    for (const background of ['#ffffff', '#ff0000', '#00ff00', '#0000ff', '#ff00ff', '#10ff30', 'rgba(0,0,255,1)']) {
      const file = await sharp({ create: { width: 8, height: 8, channels: 4, background } })
        .png()
        .toBuffer();
      assert.ok(
        (await decodeMask(file, 'mask', LIMITS)).data.every((value) => value === 1),
        background,
      );
    }
    const half = { r: 0, g: 0, b: 255, alpha: 0.5 };
    const faint = await sharp({ create: { width: 8, height: 8, channels: 4, background: half } })
      .png()
      .toBuffer();
    assert.ok(Math.abs((await decodeMask(faint, 'mask', LIMITS)).data[0] - 0.5) < 0.01);
  });

  it('are in sRGB, whatever profile they have', async () => {
    const colour = { create: { width: 8, height: 8, channels: 3 as const, background: '#c04080' } };
    const plain = await readPicture(await sharp(colour).png().toBuffer(), 'picture', LIMITS);
    for (const file of [
      await sharp(colour).withIccProfile('p3').png().toBuffer(),
      await sharp(colour).toColourspace('cmyk').withIccProfile('cmyk').jpeg({ quality: 100 }).toBuffer(),
      await sharp(colour).toColourspace('rgb16').png().toBuffer(),
    ]) {
      const { data } = await readPicture(file, 'picture', LIMITS);
      data
        .slice(0, 3)
        .forEach((value, c) => assert.ok(Math.abs(value - plain.data[c]) <= 20, `${[...data.slice(0, 3)]}`));
    }
  });
});

describe('bytes and text', () => {
  it('are read with a byte order mark or without, in UTF-8 and UTF-16', () => {
    const text = '{"prompt":"a café in 東京"}';
    const wide = Buffer.from(`\ufeff${text}`, 'utf16le');
    for (const bytes of [Buffer.from(text), Buffer.from(`\ufeff${text}`), wide, Buffer.from(wide).swap16()])
      assert.equal(decodeText(bytes), text);
    assert.equal(decodeText(Buffer.from([0xff, 0x00])), undefined);
    assert.equal(decodeText(Buffer.from([0x41, 0x00])), undefined);
  });

  it('are not seen where there are none', () => {
    for (const value of ['x', 5, null, undefined, {}, [], { type: 'Buffer' }, { type: 'Buffer', data: 'AA==' }])
      assert.equal(bytesIn(value), undefined);
    assert.equal(bytesIn(Tensor.float32([1], [1])), undefined);
  });
});
