import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { TorchGenerator, addressedNoise, addressedUniform, torchNoise } from '../../dist/engine/noise';
import { InvalidInputError } from '../../dist/engine/errors';

interface Draw {
  first: number[];
  last: number[];
  mean: number;
  sum_of_squares: number;
}
const goldenFile = path.join(__dirname, '../fixtures/golden/noise.json');
const golden: { seed: number; shape: number[]; draws: Draw[] }[] = JSON.parse(fs.readFileSync(goldenFile, 'utf8'));

/** What PyTorch gave for them. */
const SMALL = [
  [-0.61094224, -0.33908165, -0.33875617, 1.0420372],
  [-0.22853635, -1.0248593, 1.0152304],
  [0.88796508, -0.052007623],
  [0.58327347, 1.3975288],
  [0.11038963],
];
const BITS = 3028024414;

const anySeed = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });

describe('noise', () => {
  describe('as PyTorch draws it', () => {
    for (const { seed, shape, draws } of golden) {
      it(`seed ${seed}, [${shape}], ${draws.length} in a row`, () => {
        const generator = new TorchGenerator(seed);
        for (const draw of draws) {
          const noise = generator.randn(shape);
          assert.deepEqual(noise.dims, shape);
          const values = [...noise.data];
          close(values.slice(0, draw.first.length), draw.first, 1e-5);
          close(values.slice(-draw.last.length), draw.last, 1e-5);
          const mean = values.reduce((sum, x) => sum + x, 0) / values.length;
          assert.ok(Math.abs(mean - draw.mean) < 1e-6, `mean ${mean}, expected ${draw.mean}`);
          const squares = values.reduce((sum, x) => sum + x * x, 0);
          assert.ok(
            Math.abs(squares / draw.sum_of_squares - 1) < 1e-6,
            `squares ${squares}, expected ${draw.sum_of_squares}`,
          );
        }
      });
    }

    it('tensors of fewer than 16 values, between others, the second of a pair kept', () => {
      // torch.randn(n, generator=torch.Generator().manual_seed(123456789012)) for n = 4, 3, 31, 2, 1
      const generator = new TorchGenerator(123456789012);
      close([...generator.randn([4]).data], SMALL[0], 1e-6);
      close([...generator.randn([3]).data], SMALL[1], 1e-6);
      close([...generator.randn([31]).data].slice(-2), SMALL[2], 1e-6);
      close([...generator.randn([2]).data], SMALL[3], 1e-6);
      close([...generator.randn([1]).data], SMALL[4], 1e-6);
    });

    it('has no draws in an empty tensor', () => {
      const generator = new TorchGenerator(1);
      assert.equal(generator.randn([0, 4]).size, 0);
      assert.deepEqual(generator.randn([1, 16]).data, torchNoise(1, [1, 16]).data);
    });

    it('is the same to the last bit on every Node version', () => {
      // Computed once; a change means that somebody's seeds give other pictures.
      const noise = torchNoise(42, [1, 4, 8, 8]);
      const bits = new Uint32Array(noise.buffer);
      assert.equal(
        bits.reduce((hash, word) => (Math.imul(hash, 31) + word) >>> 0, 0),
        BITS,
      );
    });
  });

  describe('by address', () => {
    it('depends on seed, purpose and index, and on nothing else', () => {
      fc.assert(
        fc.property(
          anySeed,
          anySeed,
          fc.string(),
          fc.string(),
          fc.nat(),
          fc.nat(),
          (seed, seed2, purpose, purpose2, index, index2) => {
            const here = addressedNoise(seed, purpose, index, [16]);
            assert.deepEqual(addressedNoise(seed, purpose, index, [16]).data, here.data);
            const sameAddress = seed === seed2 && purpose === purpose2 && index === index2;
            if (!sameAddress) assert.notDeepEqual(addressedNoise(seed2, purpose2, index2, [16]).data, here.data);
          },
        ),
      );
    });

    it('tells close addresses apart', () => {
      const seen = new Set<number>();
      for (let seed = 0; seed < 10; seed++) {
        for (const purpose of ['step', 'region', 'step1']) {
          for (let index = 0; index < 10; index++) seen.add(addressedNoise(seed, purpose, index, [1]).data[0]);
        }
      }
      assert.equal(seen.size, 300);
    });

    it('is a unit Gaussian over many indices', () => {
      const values = Array.from({ length: 200 }, (_, index) => [...addressedNoise(7, 'step', index, [64]).data]).flat();
      const mean = values.reduce((sum, x) => sum + x, 0) / values.length;
      const variance = values.reduce((sum, x) => sum + x * x, 0) / values.length;
      assert.ok(Math.abs(mean) < 0.04, `mean ${mean}`);
      assert.ok(Math.abs(variance - 1) < 0.05, `variance ${variance}`);
    });

    it('gives uniform numbers in [0, 1), a longer list beginning like a shorter one', () => {
      fc.assert(
        fc.property(anySeed, fc.nat(1000), fc.integer({ min: 1, max: 50 }), (seed, index, count) => {
          const numbers = addressedUniform(seed, 'colour', index, count);
          assert.equal(numbers.length, count);
          assert.ok(numbers.every((x) => x >= 0 && x < 1));
          assert.deepEqual(addressedUniform(seed, 'colour', index, count + 3).slice(0, count), numbers);
        }),
      );
      const many = addressedUniform(3, 'pick', 0, 10_000);
      for (let tenth = 0; tenth < 10; tenth++) {
        const share = many.filter((x) => Math.floor(x * 10) === tenth).length / many.length;
        assert.ok(Math.abs(share - 0.1) < 0.02, `a share of ${share} in tenth ${tenth}`);
      }
    });
  });

  it('refuses seeds that are no whole numbers', () => {
    for (const seed of [-1, 1.5, NaN, Infinity, 2 ** 53, '7' as unknown as number, undefined as unknown as number]) {
      assert.throws(
        () => torchNoise(seed, [16]),
        (error: unknown) => error instanceof InvalidInputError && error.message.includes('seed'),
      );
      assert.throws(() => addressedNoise(seed, 'step', 0, [16]), InvalidInputError);
      assert.throws(() => addressedUniform(seed, 'step', 0, 1), InvalidInputError);
    }
  });
});

function close(actual: number[], expected: number[], tolerance: number): void {
  assert.equal(actual.length, expected.length);
  actual.forEach((value, i) =>
    assert.ok(Math.abs(value - expected[i]) <= tolerance, `value ${i} is ${value}, expected ${expected[i]}`),
  );
}
