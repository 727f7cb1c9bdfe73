/**
 * Seeded noise, the same on every machine and Node version.
 *
 * TorchGenerator draws what PyTorch's CPU generator draws, so that a seed from another program gives the
 * same initial noise here. Everything else that is random is addressed by (seed, purpose, index) instead of
 * being drawn in turn, so a picture never depends on the order, batching or number of draws.
 *
 * Only + - * / and sqrt are used, which IEEE 754 defines to the last bit: Math.log, Math.sin and Math.cos
 * may differ between engine versions in theirs. PyTorch itself computes in single precision, with its own
 * last bits; the results agree to about 1e-6.
 */
import { createHash } from 'node:crypto';
import { InvalidInputError } from './errors';
import { Tensor } from './tensor';
import { atOnce, type Steps } from './turns';

/** Values that PyTorch turns into Gaussians together. */
const BLOCK = 16;
/** Values between two pauses. */
const STEP = 4096;

/**
 * PyTorch's CPU generator: `torch.Generator().manual_seed(seed)`. Of the seed the low 32 bits count.
 * @throws InvalidInputError when the seed is no whole number from 0 to 2^53 - 1
 */
export class TorchGenerator {
  private readonly twister: MersenneTwister;
  /** The second Gaussian of a pair drawn for a small tensor; PyTorch keeps it for the next small one. */
  private spare: number | undefined;

  constructor(seed: number) {
    this.twister = new MersenneTwister(checkSeed(seed) % 2 ** 32);
  }

  /** `torch.randn(shape, generator=…)`: unit Gaussian, the next draw of this generator. */
  randn(shape: number[]): Tensor<'float32'> {
    return atOnce(this.randnInSteps(shape));
  }

  /** As randn, in steps. */
  *randnInSteps(shape: number[]): Steps<Tensor<'float32'>> {
    const size = shape.reduce((product, d) => product * d, 1);
    const values = new Float32Array(size);
    if (size < BLOCK) {
      for (let i = 0; i < size; i++) values[i] = this.gaussian();
    } else {
      for (let i = 0; i < size; i++) {
        values[i] = this.uniform();
        if (i % STEP === 0) yield;
      }
      for (let i = 0; i + BLOCK <= size; i += BLOCK) {
        boxMuller(values, i);
        if (i % STEP === 0) yield;
      }
      if (size % BLOCK !== 0) {
        // The last 16 values are drawn afresh and overwrite the tail, also the part already Gaussian.
        for (let i = size - BLOCK; i < size; i++) values[i] = this.uniform();
        boxMuller(values, size - BLOCK);
      }
    }
    return Tensor.float32(values, [...shape]);
  }

  /** Uniform in [0, 1), 24 bits. */
  private uniform(): number {
    return (this.twister.next() & 0xffffff) / 2 ** 24;
  }

  /** Uniform in [0, 1), 53 bits: of two outputs the first is the high word. */
  private uniform53(): number {
    const high = this.twister.next() & 0x1fffff;
    return (high * 2 ** 32 + this.twister.next()) / 2 ** 53;
  }

  /** One Gaussian in double precision, as PyTorch draws them for tensors of fewer than 16 values. */
  private gaussian(): number {
    if (this.spare !== undefined) {
      const value = this.spare;
      this.spare = undefined;
      return value;
    }
    const [cos, sin] = cosSinOfTurn(this.uniform53());
    const radius = Math.sqrt(-2 * logOfUnit(1 - this.uniform53()));
    this.spare = radius * sin;
    return radius * cos;
  }
}

/** The first `torch.randn(shape)` after `manual_seed(seed)`: the initial noise that diffusers (on the CPU) and ComfyUI use. */
export function torchNoise(seed: number, shape: number[]): Tensor<'float32'> {
  return new TorchGenerator(seed).randn(shape);
}

/**
 * Unit Gaussian noise that belongs to (seed, purpose, index) alone, whatever else is drawn.
 * @param purpose what it is for, such as 'step' or 'region'; different purposes are independent
 */
export function addressedNoise(seed: number, purpose: string, index: number, shape: number[]): Tensor<'float32'> {
  return torchNoise(derivedSeed(seed, purpose, index), shape);
}

/** `count` numbers, uniform in [0, 1), that belong to (seed, purpose, index) alone. */
export function addressedUniform(seed: number, purpose: string, index: number, count: number): number[] {
  const twister = new MersenneTwister(derivedSeed(seed, purpose, index));
  return Array.from({ length: count }, () => twister.next() / 2 ** 32);
}

/** The first 32 bits of SHA-256 over the address: no two addresses of a picture are likely to share a stream. */
function derivedSeed(seed: number, purpose: string, index: number): number {
  return createHash('sha256')
    .update(JSON.stringify([checkSeed(seed), purpose, index]))
    .digest()
    .readUInt32LE(0);
}

function checkSeed(seed: number): number {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new InvalidInputError('seed', seed, `a whole number from 0 to ${Number.MAX_SAFE_INTEGER}`);
  }
  return seed;
}

/** Turns 16 uniforms at `start` into Gaussians: the first eight are the radii, the last eight the angles. */
function boxMuller(values: Float32Array, start: number): void {
  for (let i = start; i < start + BLOCK / 2; i++) {
    const radius = Math.sqrt(-2 * logOfUnit(1 - values[i]));
    const [cos, sin] = cosSinOfTurn(values[i + BLOCK / 2]);
    values[i] = radius * cos;
    values[i + BLOCK / 2] = radius * sin;
  }
}

/** log(x) for x in (0, 1]: x = m·2^-k with m in [√½, √2), log m = 2·artanh((m − 1)/(m + 1)). */
function logOfUnit(x: number): number {
  let power = 0;
  while (x < Math.SQRT1_2) {
    x *= 2;
    power++;
  }
  const s = (x - 1) / (x + 1);
  let series = 0;
  for (let n = 21; n > 0; n -= 2) series = series * s * s + 1 / n;
  return 2 * s * series - power * Math.LN2;
}

/** [cos 2πu, sin 2πu] for u in [0, 1): the nearest eighth of a turn exactly, the rest by the Taylor series. */
function cosSinOfTurn(u: number): [number, number] {
  const quarter = Math.floor(4 * u + 0.5);
  const angle = 2 * Math.PI * (u - quarter / 4); // at most π/4 either way
  const square = angle * angle;
  let cos = 0;
  let sin = 0;
  for (let n = 16; n > 0; n -= 2) {
    cos = ((1 - cos) * square) / (n * (n - 1));
    sin = ((1 - sin) * square) / (n * (n + 1));
  }
  cos = 1 - cos;
  sin = angle * (1 - sin);
  switch (quarter % 4) {
    case 0:
      return [cos, sin];
    case 1:
      return [-sin, cos];
    case 2:
      return [-cos, -sin];
    default:
      return [sin, -cos];
  }
}

/** MT19937 (Matsumoto and Nishimura 1998), seeded by one 32-bit word. */
class MersenneTwister {
  private readonly state = new Uint32Array(624);
  private position = 624;

  constructor(seed: number) {
    this.state[0] = seed;
    for (let i = 1; i < 624; i++) {
      const last = this.state[i - 1] ^ (this.state[i - 1] >>> 30);
      this.state[i] = Math.imul(1812433253, last) + i;
    }
  }

  /** The next 32 bits. */
  next(): number {
    if (this.position === 624) this.twist();
    let y = this.state[this.position++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  private twist(): void {
    for (let i = 0; i < 624; i++) {
      const y = (this.state[i] & 0x80000000) | (this.state[(i + 1) % 624] & 0x7fffffff);
      this.state[i] = this.state[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.position = 0;
  }
}
