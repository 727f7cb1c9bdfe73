/** How many rows go into one run, and that pictures do not depend on it. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { openCheckpoint, torchNoise, type CheckpointOptions, type ProcessStatus } from '../../dist/engine';
import {
  BatchMemory,
  nextBatch,
  runInBatches,
  warmUp,
  type Batch,
  type BatchRules,
} from '../../dist/engine/inference/process/batching';
import {
  gpuBytesOf,
  gpuMemory,
  isOutOfMemory,
  mainMemory,
  type MemoryBudget,
} from '../../dist/engine/inference/memory';
import { largestCpuBatch } from '../../dist/engine/inference/rows';
import { checkpointFolder, difference } from './support/checkpoints';

const OUT_OF_MEMORY = 'CUDA failure 2: out of memory';

describe('batches', () => {
  it('cover every row once, within the rules', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 100 }),
        fc.integer({ min: 1, max: 16 }),
        fc.boolean(),
        (count, largest, buckets) => {
          let done = 0;
          while (done < count) {
            const { rows, size } = nextBatch(count - done, { largest, buckets });
            assert.ok(rows >= 1 && rows <= size && size <= largest);
            if (buckets) assert.ok(Number.isInteger(Math.log2(size)) && rows >= 0.75 * size);
            else assert.equal(rows, size);
            done += rows;
          }
          assert.equal(done, count);
        },
      ),
    );
  });

  it('fill a graph of fixed size', () => {
    assert.deepEqual(nextBatch(5, { largest: 8, buckets: false, fixed: 2 }), { rows: 2, size: 2 });
    assert.deepEqual(nextBatch(1, { largest: 8, buckets: true, fixed: 2 }), { rows: 1, size: 2 });
  });

  it('are halved when memory runs out, and stay so', async () => {
    const rules: BatchRules = { largest: 8, buckets: true };
    const sizes: number[] = [];
    const done: number[] = [];
    const run = async (start: number, { rows, size }: { rows: number; size: number }) => {
      sizes.push(size);
      if (size > 2) throw new Error(OUT_OF_MEMORY);
      for (let i = 0; i < rows; i++) done.push(start + i);
    };
    await runInBatches(5, rules, run);
    assert.deepEqual(done, [0, 1, 2, 3, 4]);
    assert.deepEqual(sizes, [4, 2, 2, 1]);
    await runInBatches(4, rules, run);
    assert.deepEqual(sizes.slice(4), [2, 2]);
  });

  it('end with a clear error when not even one row fits', async () => {
    const rules: BatchRules = { largest: 4, buckets: false };
    const failing = runInBatches(4, rules, () =>
      Promise.reject(new Error('Failed to allocate memory for requested buffer')),
    );
    await assert.rejects(failing, { code: 'INFERENCE', message: /Not enough memory.*smaller canvas/ });
    await assert.rejects(
      runInBatches(1, rules, () => Promise.reject(new Error('boom'))),
      /boom/,
    );
    assert.ok(!isOutOfMemory(new Error('Invalid rank for input: sample')));
  });

  it('are large for a small model and single rows for a large one', () => {
    assert.equal(largestCpuBatch(58e6, 32 * 32), 8);
    assert.equal(largestCpuBatch(3.4e9, 64 * 64), 1);
  });
});

/** A device on which a row takes `perRow` bytes beside `weights`, and what runs took stays taken. */
class Device {
  readonly sizes: number[] = [];
  private peak: number;

  constructor(
    private readonly perRow: number,
    private readonly weights = 0,
    private readonly capacity = Infinity,
  ) {
    this.peak = weights;
  }

  run = async (size: number): Promise<void> => {
    this.sizes.push(size);
    if (this.weights + size * this.perRow > this.capacity) throw new Error(OUT_OF_MEMORY);
    this.peak = Math.max(this.peak, this.weights + size * this.perRow);
  };

  budget(most: number): MemoryBudget {
    return { most, taken: async () => this.peak };
  }
}

describe('the first runs of a size', () => {
  const gpuRules = (): BatchRules => ({ largest: 8, buckets: true });

  it('grow as far as the budget allows, and never over it', async () => {
    for (const [most, largest] of [
      [100, 1],
      [109, 1],
      [119, 1],
      [120, 2],
      [139, 2],
      [140, 4],
      [179, 4],
      [180, 8],
      [1e9, 8],
    ]) {
      const [device, rules] = [new Device(10, 100), gpuRules()];
      await warmUp(20, rules, device.budget(most), device.run);
      assert.equal(rules.largest, largest, `with ${most}`);
      assert.deepEqual(device.sizes, [1, 2, 4, 8].slice(0, Math.log2(largest) + 1), `with ${most}`);
    }
  });

  it('are made once, and no larger than somebody needs', async () => {
    const [device, rules] = [new Device(10), gpuRules()];
    for (const count of [1, 1, 3, 2, 20, 20]) await warmUp(count, rules, device.budget(1000), device.run);
    assert.deepEqual(device.sizes, [1, 2, 4, 8]);
  });

  it('take half of what memory did not suffice for, and remember it', async () => {
    const [device, rules] = [new Device(10, 0, 35), gpuRules()];
    for (let i = 0; i < 3; i++) await warmUp(8, rules, undefined, device.run);
    assert.deepEqual(device.sizes, [1, 2, 4]);
    assert.equal(rules.largest, 2);
    const tiny = new Device(10, 0, 5);
    await assert.rejects(warmUp(8, gpuRules(), undefined, tiny.run), { message: OUT_OF_MEMORY });
  });

  it('go back one size when they took more than was foreseen', async () => {
    const rules = gpuRules();
    let taken = 0;
    await warmUp(
      8,
      rules,
      { most: 100, taken: async () => taken },
      async (size) => void (taken = size === 4 ? 150 : size * 10),
    );
    assert.equal(rules.largest, 2);
  });

  it('are not made for a graph of fixed size', async () => {
    const device = new Device(10);
    await warmUp(8, { largest: 8, buckets: true, fixed: 2 }, device.budget(1), device.run);
    assert.deepEqual(device.sizes, []);
  });

  const sample = { name: 'sample', type: 'float32', shape: ['batch', 4, 'h', 'w'] };
  const runAll = async (memory: BatchMemory, dims: number[]): Promise<Batch[]> => {
    const runs: Batch[] = [];
    const rows: number[] = [];
    await memory.run(sample, dims, async (start, batch) => {
      runs.push(batch);
      for (let i = 0; i < batch.rows; i++) rows.push(start + i);
    });
    assert.deepEqual(
      [...new Set(rows)].sort((a, b) => a - b),
      Array.from({ length: dims[0] }, (_, i) => i),
    );
    return runs;
  };

  it('are told, and are others for another size of canvas', async () => {
    const told: boolean[] = [];
    const memory = new BatchMemory({ gpu: true, unetBytes: 1, onWarming: (done) => told.push(done) });
    assert.deepEqual(
      (await runAll(memory, [4, 4, 8, 8])).map(({ size }) => size),
      [1, 2, 4, 4],
    );
    assert.deepEqual(
      (await runAll(memory, [4, 4, 8, 8])).map(({ size }) => size),
      [4],
    );
    assert.deepEqual(told, [false, true]);
    await runAll(memory, [4, 4, 8, 16]);
    assert.deepEqual(told, [false, true, false, true]);
  });

  it('are not needed on a CPU without a budget, nor where a run has one row', async () => {
    assert.deepEqual(await runAll(new BatchMemory({ gpu: false, unetBytes: 1 }), [4, 4, 8, 8]), [{ rows: 4, size: 4 }]);
    assert.deepEqual(await runAll(new BatchMemory({ gpu: true, unetBytes: 1, batchSize: 1 }), [2, 4, 8, 8]), [
      { rows: 1, size: 1 },
      { rows: 1, size: 1 },
    ]);
  });
});

describe('memory of a device', () => {
  it('in main memory is what the process holds', async () => {
    const budget = mainMemory(64);
    assert.equal(budget.most, 64 * 2 ** 20);
    assert.ok((await budget.taken()) > 20e6);
  });

  describe('of a GPU', () => {
    const bin = fs.mkdtempSync(path.join(os.tmpdir(), 'driver-'));
    const { PATH, CUDA_VISIBLE_DEVICES: VISIBLE } = process.env;
    before(() => (process.env.PATH = `${bin}${path.delimiter}${PATH}`));
    after(() => {
      process.env.PATH = PATH;
      fs.rmSync(bin, { recursive: true });
    });
    afterEach(() => {
      delete process.env.CUDA_VISIBLE_DEVICES;
      if (VISIBLE !== undefined) process.env.CUDA_VISIBLE_DEVICES = VISIBLE;
    });
    /** A driver's tool that answers with `text` for the device `id`. */
    const answer = (text: string, id = '0'): void =>
      fs.writeFileSync(
        path.join(bin, 'nvidia-smi'),
        `#!/bin/sh\n[ "$1 $2" = "-i ${id}" ] || exit 1\necho '${text}'\n`,
        { mode: 0o755 },
      );

    it('is asked of the driver: most of what is free, and what was added since', async function () {
      if (process.platform === 'win32') return this.skip();
      answer('1000, 23000');
      const budget = await gpuMemory(0);
      assert.equal(budget?.most, 0.9 * 23000 * 2 ** 20);
      answer('3500, 20500');
      assert.equal(await budget?.taken(), 2500 * 2 ** 20);
      assert.equal((await gpuMemory(0, 4096))?.most, 4096 * 2 ** 20);
    });

    it('is that of the device as the process counts them', async function () {
      if (process.platform === 'win32') return this.skip();
      answer('0, 100', '3');
      process.env.CUDA_VISIBLE_DEVICES = '5, 3';
      assert.ok(await gpuMemory(1));
      assert.equal(await gpuMemory(0), undefined);
    });

    it('is counted by process', async function () {
      if (process.platform === 'win32') return this.skip();
      fs.writeFileSync(
        path.join(bin, 'nvidia-smi'),
        '#!/bin/sh\n[ "$1" = --query-compute-apps=pid,used_memory ] || exit 1\nprintf "71, 500\\n72, 3000\\n73, 10\\n"\n',
        { mode: 0o755 },
      );
      assert.equal(await gpuBytesOf([72, 73]), 3010 * 2 ** 20);
      assert.equal(await gpuBytesOf([99]), undefined);
    });

    it('is unknown where the driver does not tell', async function () {
      if (process.platform === 'win32') return this.skip();
      answer('[N/A], [N/A]');
      assert.equal(await gpuMemory(0), undefined);
      answer('No devices were found');
      assert.equal(await gpuMemory(0), undefined);
    });
  });
});

describe('a picture', function () {
  this.timeout(60_000);
  const prompts = ['a', 'b', 'c', 'd', 'e', 'f', 'g'];
  const predictWith = async (name: string, options: CheckpointOptions): Promise<Float32Array[]> => {
    const checkpoint = await openCheckpoint(checkpointFolder(name), { provider: 'cpu', ...options });
    try {
      const encoded = await checkpoint.encodePrompts(prompts);
      const rows = encoded.map(({ embeddings }, i) => ({ latents: torchNoise(i, [1, 4, 16, 16]), embeddings }));
      return (await checkpoint.predict(rows, 300)).map(({ data }) => data);
    } finally {
      await checkpoint.close();
    }
  };

  // To the last bit where all kernels add in the same order; not every processor's do.
  for (const [name, tolerance] of [
    ['tiny-sd2', 1e-5],
    ['tiny-lcm', 1e-5],
    ['tiny-sd15-fp16', 2e-3],
  ] as const) {
    it(`of ${name} is the same however its rows are run`, async () => {
      const expected = await predictWith(name, { threads: 1, batchSize: 1 });
      for (const options of [
        { threads: 1, batchSize: 7 },
        { threads: 2, batchSize: 3 },
        { threads: 1, memoryBudget: 64 },
        { threads: 1, memoryBudget: 100_000 },
        {},
      ]) {
        const rows = await predictWith(name, options);
        rows.forEach((row, i) =>
          assert.ok(difference(row, expected[i]) < tolerance, `row ${i} with ${JSON.stringify(options)}`),
        );
      }
    });
  }

  it('is preceded by the first runs of its size when there is a budget, as the status says', async () => {
    const statuses: ProcessStatus[] = [];
    await predictWith('tiny-sd2', { threads: 1, memoryBudget: 1000, onStatus: (status) => statuses.push(status) });
    const shown = statuses.map(({ state, detail }) => (detail ? `${state} ${detail}` : state));
    assert.deepEqual(shown.slice(shown.indexOf('loading unet')), [
      'loading unet',
      'ready',
      'warming unet',
      'ready',
      'closed',
    ]);
  });

  it('is not drawn with a budget that makes no sense', async () => {
    for (const memoryBudget of [0, -1, NaN, '1' as never]) {
      await assert.rejects(predictWith('tiny-sd2', { memoryBudget }), {
        code: 'INVALID_INPUT',
        message: /memoryBudget/,
      });
    }
  });
});
