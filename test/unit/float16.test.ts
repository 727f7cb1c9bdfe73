/** Half-precision numbers; on Node 20 and 22 they are raw bits, from 24 on a type of their own. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { floatToHalf, halfToFloat } from '../../dist/engine/inference/process/float16';
import { toFloat32, toWire } from '../../dist/engine/inference/process/sessions';

describe('half precision', () => {
  it('survives the way there and back, for every value', () => {
    const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const values = halfToFloat(bits);
    const back = floatToHalf(values);
    for (let i = 0; i < 65536; i++) {
      if (Number.isNaN(values[i])) assert.ok((back[i] & 0x7c00) === 0x7c00 && (back[i] & 0x3ff) !== 0);
      else assert.equal(back[i], i);
    }
    assert.deepEqual([...halfToFloat([0x3c00, 0xc000, 0x7bff, 0x0001, 0x7c00])], [1, -2, 65504, 2 ** -24, Infinity]);
  });

  it('rounds to the nearest, ties to even', () => {
    const values = halfToFloat(Uint16Array.from({ length: 0x7c00 }, (_, i) => i));
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 0x7bfe }), fc.double({ min: 0, max: 1, noNaN: true }), (below, share) => {
        const value = Math.fround(values[below] + share * (values[below + 1] - values[below]));
        const [low, high] = [value - values[below], values[below + 1] - value];
        const [bits] = floatToHalf([value]);
        assert.equal(bits, low < high ? below : high < low ? below + 1 : below + (below % 2));
        assert.equal(floatToHalf([-value])[0], bits | 0x8000);
      }),
    );
    assert.deepEqual([...floatToHalf([65519, 65520, 1e9, 2 ** -25, 1.5 * 2 ** -25])], [0x7bff, 0x7c00, 0x7c00, 0, 1]);
  });

  it('of an output is read on every version of Node', () => {
    const output = (data: unknown) => ({ type: 'float16', data, dims: [2], location: 'cpu' }) as never;
    assert.deepEqual([...toFloat32(output(Uint16Array.of(0x3c00, 0xc000)))], [1, -2]);
    const { Float16Array: Half } = globalThis as unknown as { Float16Array?: { of(...values: number[]): unknown } };
    if (!Half) return;
    assert.deepEqual([...toFloat32(output(Half.of(1, -2)))], [1, -2]);
    assert.deepEqual([...(toWire(output(Half.of(1, -2))).data as Uint16Array)], [0x3c00, 0xc000]);
  });
});
