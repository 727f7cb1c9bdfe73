/** What is known of execution providers without any of their devices. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { recall, remember } from '../../dist/engine/files/machine-memory';
import { isOffered, obstacleTo, PROVIDER_NAMES, PROVIDERS } from '../../dist/engine/inference/providers';
import { judge } from '../../dist/engine/inference/process/trust';
import { MODEL_OPTIONS } from '../../dist/engine/options';
import { readCatalogue } from './support/editor';

const SYSTEMS = {
  'linux x64': ['cpu', 'cuda', 'webgpu'],
  'linux arm64': ['cpu'],
  'win32 x64': ['cpu', 'directml', 'webgpu'],
  'win32 arm64': ['cpu', 'directml', 'webgpu'],
  'darwin arm64': ['coreml', 'cpu', 'webgpu'],
  'darwin x64': ['coreml', 'cpu', 'webgpu'],
};

describe('providers', () => {
  it('are the choices of a model, and have their names in the dialog', () => {
    assert.deepEqual([...MODEL_OPTIONS.provider.choices].sort(), ['auto', 'pool', ...PROVIDER_NAMES].sort());
    const catalogue = readCatalogue('en-US', 'diffusion-model') as Record<
      string,
      Record<string, Record<string, string>>
    >;
    for (const name of PROVIDER_NAMES) assert.ok(catalogue['diffusion-model'].provider[name], name);
  });

  for (const [system, names] of Object.entries(SYSTEMS)) {
    it(`on ${system}: ${names.join(', ')}`, () => {
      const [platform, arch] = system.split(' ');
      const offered = PROVIDER_NAMES.filter((name) => isOffered(name, { platform, arch }));
      assert.deepEqual(offered.sort(), names);
      for (const name of PROVIDER_NAMES) {
        if (offered.includes(name)) continue;
        const { label } = PROVIDERS[name];
        assert.match(
          obstacleTo(name, { platform, arch })!,
          new RegExp(`^${label} needs .*this is ${platform} ${arch}$`),
        );
      }
    });
  }

  it('know when a device is lost, and when a run has merely failed', () => {
    const lost = {
      cuda: [
        'CUDA failure 700: an illegal memory access was encountered',
        'CUDA failure 719: unspecified launch failure',
      ],
      webgpu: [
        'Device is lost. reason: Destroyed',
        'vkQueueSubmit failed with VK_ERROR_DEVICE_LOST',
        'ID3D12Device::GetDeviceRemovedReason failed with DXGI_ERROR_DEVICE_HUNG',
        'A valid external Instance reference no longer exists. Instance dropped.',
      ],
      directml: ['887A0005 The GPU device instance has been suspended. DXGI_ERROR_DEVICE_REMOVED'],
    } as const;
    const failed = ['CUDA failure 2: out of memory', 'Invalid rank for input: sample', 'Failed to allocate memory'];
    for (const [name, messages] of Object.entries(lost)) {
      const pattern = PROVIDERS[name as keyof typeof lost].lost!;
      for (const message of messages) assert.match(message, pattern);
      for (const message of failed) assert.doesNotMatch(message, pattern);
    }
  });

  it('explain what WebGPU says in words that say what to do', () => {
    const { explain } = PROVIDERS.webgpu;
    assert.match(explain('… was false. Failed to get a WebGPU adapter: No supported adapters'), /update its driver/);
    assert.equal(explain('/a/b.cc:1 f() x was false. Something else\nat c'), 'Something else');
    assert.match(
      explain('vkAllocateMemory failed with VK_ERROR_OUT_OF_DEVICE_MEMORY: Out of memory'),
      /memory is full/,
    );
  });
});

describe('trust in a provider', () => {
  let before: string | undefined;
  beforeEach(() => {
    before = process.env.MULTIDIFFUSION_CACHE;
    process.env.MULTIDIFFUSION_CACHE = fs.mkdtempSync(path.join(os.tmpdir(), 'trust-'));
  });
  afterEach(() => {
    if (before === undefined) delete process.env.MULTIDIFFUSION_CACHE;
    else process.env.MULTIDIFFUSION_CACHE = before;
  });

  const values =
    (...numbers: number[]) =>
    async () =>
      Float32Array.from(numbers);
  const never = async (): Promise<Float32Array> => assert.fail('it was compared again');

  it('what agrees with the CPU up to rounding is trusted, and not compared again', async () => {
    const trial = { key: ['a'], bytes: 1, onDevice: values(1, 2, 3.01), onCpu: values(1, 2, 3) };
    assert.deepEqual(await judge(trial), {});
    assert.deepEqual(await judge({ ...trial, onDevice: never, onCpu: never }), {});
  });

  it('wrong values and NaN are not, with what to do', async () => {
    const trial = { bytes: 1, onCpu: values(1, 2) };
    const wrong = await judge({ ...trial, key: ['b'], onDevice: values(1, 3) });
    assert.match(wrong.fault!, /wrong values \(up to 50 % off the CPU’s\).*single-precision export/);
    const nan = await judge({ ...trial, key: ['c'], onDevice: values(1, NaN), onCpu: never });
    assert.match(nan.fault!, /NaN.*single-precision export/);
  });

  it('a device without half precision is no place for a model that needs it', async () => {
    const onDevice = (): Promise<Float32Array> =>
      Promise.reject(new Error('Program Gather requires f16 but the device does not support it.'));
    assert.match((await judge({ key: ['d'], bytes: 1, onDevice, onCpu: never })).fault!, /needs half precision/);
  });

  it('what the CPU can’t run, or has no memory for, is not compared, and that is said', async () => {
    const trial = { onDevice: values(1, 2), onCpu: never };
    assert.match((await judge({ ...trial, key: ['e'], bytes: 1e15 })).skipped!, /memory/);
    const onCpu = (): Promise<Float32Array> => Promise.reject(new Error('Failed to find kernel for BiasSplitGelu'));
    assert.match((await judge({ ...trial, key: ['f'], bytes: 1, onCpu })).skipped!, /can’t run/);
  });

  it('a failure that is no verdict is not remembered', async () => {
    const onDevice = (): Promise<Float32Array> => Promise.reject(new Error('out of memory'));
    const trial = { key: ['g'], bytes: 1, onCpu: values(1) };
    await assert.rejects(judge({ ...trial, onDevice }), /out of memory/);
    assert.deepEqual(await judge({ ...trial, onDevice: values(1) }), {});
  });

  it('facts are forgotten with age, and a damaged or read-only file does no harm', async () => {
    await remember('x', { a: 1 });
    assert.deepEqual(recall('x', 1000), { a: 1 });
    assert.equal(recall('x', -1), undefined);
    assert.equal(recall('toString', 1000), undefined);
    fs.writeFileSync(path.join(process.env.MULTIDIFFUSION_CACHE!, 'providers.json'), '{"x":');
    assert.equal(recall('x', 1000), undefined);
    process.env.MULTIDIFFUSION_CACHE = '/proc/nowhere';
    await remember('y', 1);
    assert.equal(recall('y', 1000), undefined);
  });
});
