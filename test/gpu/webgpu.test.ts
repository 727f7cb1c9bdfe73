/** WebGPU on a GPU in software: npm run test:gpu. The goldens of test/unit run on it, too; here stands what else matters. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {
  openCheckpoint,
  sample,
  shapeMask,
  torchNoise,
  type Box,
  type Checkpoint,
  type CheckpointOptions,
} from '../../dist/engine';
import { readFlow } from '../../scripts/lib/flow.js';
import { checkpointFolder, difference } from '../unit/support/checkpoints';

const folder = checkpointFolder('tiny-lcm');
const open = (options: CheckpointOptions = {}): Promise<Checkpoint> =>
  openCheckpoint(folder, { provider: 'webgpu', threads: 1, ...options });

/** Does something with other drivers than the tests' own. */
async function withDrivers<T>(files: string, act: () => Promise<T>): Promise<T> {
  const { VK_ICD_FILENAMES, MULTIDIFFUSION_CACHE } = process.env;
  Object.assign(process.env, {
    VK_ICD_FILENAMES: files,
    MULTIDIFFUSION_CACHE: fs.mkdtempSync(path.join(os.tmpdir(), 'cache-')),
  });
  try {
    return await act();
  } finally {
    Object.assign(process.env, { VK_ICD_FILENAMES, MULTIDIFFUSION_CACHE });
  }
}

describe('WebGPU', function () {
  this.timeout(600_000);

  it('automatic does not take a GPU in software, and says why', async () => {
    const checkpoint = await open({ provider: 'auto' });
    const { provider } = checkpoint.facts;
    await checkpoint.close();
    assert.match(provider, /^cpu \(.*no WebGPU: it takes \d+\.\d times as long as the CPU\)$/);
  });

  it('a half-precision model is refused where the device has no half precision, with what to do', async () => {
    await assert.rejects(openCheckpoint(checkpointFolder('tiny-sd15-fp16'), { provider: 'webgpu' }), {
      code: 'PROVIDER',
      message: /^WebGPU cannot be used: .*half precision.*single-precision export/,
    });
  });

  it('without a driver it is refused, and automatic takes the CPU', async () => {
    await withDrivers('/nowhere/icd.json', async () => {
      await assert.rejects(open(), { code: 'PROVIDER', message: /WebGPU cannot be used: no Vulkan driver installed/ });
      const checkpoint = await open({ provider: 'auto' });
      assert.match(checkpoint.facts.provider, /^cpu \(.*no WebGPU: no Vulkan driver/);
      await checkpoint.close();
    });
  });

  it('with a driver that has no adapter it is refused', async () => {
    const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'icd-')), 'icd.json');
    fs.writeFileSync(
      file,
      JSON.stringify({ file_format_version: '1.0.0', ICD: { library_path: '/nowhere.so', api_version: '1.1.0' } }),
    );
    await withDrivers(file, () =>
      assert.rejects(open(), { code: 'PROVIDER', message: /WebGPU cannot be used: no GPU that WebGPU can use/ }),
    );
  });

  describe('with a model', () => {
    let checkpoint: Checkpoint;
    before(async () => {
      checkpoint = await open();
    });
    after(() => checkpoint.close());

    const draw = async (seed: number, act?: (index: number) => void) => {
      const background = await checkpoint.encodeConditioning('a room');
      const { latents } = await sample(checkpoint, {
        background,
        options: { steps: 2, width: 64, height: 64, seed },
        initialNoise: torchNoise(seed, [1, 4, 8, 8]),
        onStep: ({ index }) => act?.(index),
      });
      return latents.data;
    };

    it('says where it runs', () => assert.equal(checkpoint.facts.provider, 'webgpu'));

    it('jobs at the same time draw what they draw one after the other', async () => {
      const [first, second] = [await draw(1), await draw(2)];
      const both = await Promise.all([draw(1), draw(2)]);
      assert.ok(difference(both[0], first) < 1e-5);
      assert.ok(difference(both[1], second) < 1e-5);
      assert.ok(difference(first, second) > 0.1);
    });

    it('goes on with a picture whose process is killed', async () => {
      const expected = await draw(1);
      const latents = await draw(1, (index) => index === 1 && process.kill(checkpoint.pid!, 'SIGKILL'));
      assert.ok(difference(latents, expected) < 1e-5);
    });

    it('draws the picture of the CPU', async () => {
      const latents = await draw(1);
      const cpu = await open({ provider: 'cpu' });
      const row = { latents: torchNoise(1, [1, 4, 8, 8]), guidanceScale: 5 };
      const [own] = await checkpoint.encodePrompts(['a room']);
      const [other] = await cpu.encodePrompts(['a room']);
      const [a] = await checkpoint.predict([{ ...row, embeddings: own.embeddings }], 500);
      const [b] = await cpu.predict([{ ...row, embeddings: other.embeddings }], 500);
      await cpu.close();
      assert.ok(difference(a.data, b.data) < 1e-3);
      assert.equal(latents.length, 256);
    });
  });

  it('draws the living room of example 02, in three steps by the bundled model, as the CPU does', async () => {
    const root = path.join(__dirname, '..', '..');
    const flow = readFlow(path.join(root, 'examples/02-living-room.json'));
    const prompts = flow.filter(({ type }) => type === 'text-encode').map(({ prompt }) => prompt as string);
    const masks = flow.filter(({ type }) => type === 'region-mask').map(({ box }) => shapeMask({ box: box as Box }));
    assert.deepEqual([prompts.length, masks.length], [4, 3]);

    const paint = async (provider: CheckpointOptions['provider']): Promise<Uint8Array> => {
      const checkpoint = await openCheckpoint(path.join(root, 'models/pocket'), { provider });
      try {
        const [background, ...others] = await Promise.all(prompts.map((text) => checkpoint.encodeConditioning(text)));
        const { latents } = await sample(checkpoint, {
          background,
          regions: others.map((conditioning, i) => ({ name: conditioning.prompt, conditioning, mask: masks[i] })),
          options: { steps: 3, seed: 12 },
        });
        return (await checkpoint.decode(latents)).data;
      } finally {
        await checkpoint.close();
      }
    };
    const [cpu, gpu] = [await paint('cpu'), await paint('webgpu')];
    assert.equal(gpu.length, 128 * 128 * 3);
    const differences = cpu.map((value, i) => Math.abs(value - gpu[i]));
    const near = differences.filter((by) => by <= 2).length / differences.length;
    const told = `${(100 * near).toFixed(2)} % of the values differ by at most 2 of 255; the largest by ${Math.max(...differences)}`;
    assert.ok(near >= 0.99, told);
  });
});
