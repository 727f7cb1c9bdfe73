/** Half precision (IEEE 754 binary16) as raw bits in a Uint16Array: Node 20 has no Float16Array. */

let table: Float32Array | undefined;

/** Every value a half can have, by its bits. */
function allHalves(): Float32Array {
  const values = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const exponent = (bits >> 10) & 31;
    const mantissa = bits & 1023;
    const sign = bits & 0x8000 ? -1 : 1;
    if (exponent === 0) values[bits] = sign * mantissa * 2 ** -24;
    else if (exponent === 31) values[bits] = mantissa ? NaN : sign * Infinity;
    else values[bits] = sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
  }
  return values;
}

/** The exact values of `bits` (half precision). */
export function halfToFloat(bits: ArrayLike<number>): Float32Array {
  table ??= allHalves();
  const values = new Float32Array(bits.length);
  for (let i = 0; i < values.length; i++) values[i] = table[bits[i]];
  return values;
}

const float = new Float32Array(1);
const word = new Uint32Array(float.buffer);

/** `values` rounded to the nearest half, ties to even, as raw bits; too large becomes infinite. */
export function floatToHalf(values: ArrayLike<number>): Uint16Array {
  const bits = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) {
    float[0] = values[i];
    const sign = (word[0] >>> 16) & 0x8000;
    const magnitude = word[0] & 0x7fffffff;
    if (magnitude > 0x7f800000) {
      bits[i] = sign | 0x7e00; // NaN
    } else if (magnitude >= 0x47800000) {
      bits[i] = sign | 0x7c00;
    } else if (magnitude < 0x38800000) {
      // Smaller than the smallest normal half: count in steps of 2^-24..
      bits[i] = sign | roundToEven(Math.abs(float[0]) * 2 ** 24);
    } else {
      // Rebias the exponent, then round the 13 bits away; a carry goes into the exponent, as it should.
      const odd = (magnitude >>> 13) & 1;
      bits[i] = sign | ((magnitude - 0x38000000 + 0xfff + odd) >>> 13);
    }
  }
  return bits;
}

function roundToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
