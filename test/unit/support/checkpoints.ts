/** The tiny checkpoints of the golden folder, and how close to a golden array a result is. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Provider } from '../../../dist/engine/inference/providers';
import { Tensor } from '../../../dist/engine/tensor';
import { readNpy } from './npy';

export const golden = path.join(__dirname, '../../fixtures/golden');
export const checkpointFolder = (name: string): string => path.join(golden, 'checkpoints', name);

export interface GoldenCase {
  prompt: string;
  negative_prompt: string;
  steps: number;
  guidance_scale: number;
  height: number;
  width: number;
  token_ids: number[];
}

/** Where the checkpoints run: npm run test:gpu names another provider than the CPU. */
export const TEST_PROVIDER = (process.env.TEST_PROVIDER ?? 'cpu') as Provider;
/** How much longer than on the CPU tests may take: a GPU in software compiles every shader. */
export const SLOWNESS = TEST_PROVIDER === 'cpu' ? 1 : 20;

/** A folder of golden results: its case.json, and its arrays by name. */
export function goldenResult<C = GoldenCase>(
  name: string,
): { case: C; tensor: (array: string) => Tensor<'float32'>; bytes: (array: string) => Uint8Array } {
  const file = (array: string): string => path.join(golden, name, `${array}.npy`);
  return {
    case: JSON.parse(fs.readFileSync(path.join(golden, name, 'case.json'), 'utf8')),
    tensor: (array) => {
      const { data, dims } = readNpy(file(array));
      return Tensor.float32(data, dims);
    },
    bytes: (array) => readNpy(file(array)).data as Uint8Array,
  };
}

/** Largest difference, relative to the largest magnitude of what is expected. */
export function difference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Infinity;
  let most = 0;
  let scale = 0;
  for (let i = 0; i < expected.length; i++) {
    const distance = Math.abs(actual[i] - expected[i]);
    most = Math.max(most, Number.isNaN(distance) ? Infinity : distance);
    scale = Math.max(scale, Math.abs(expected[i]));
  }
  return most / scale;
}

/** Share of values that differ by more than `tolerance`. */
export function shareBeyond(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): number {
  if (actual.length !== expected.length) return 1;
  let beyond = 0;
  for (let i = 0; i < expected.length; i++) if (Math.abs(actual[i] - expected[i]) > tolerance) beyond++;
  return beyond / expected.length;
}

/** A copy of a tiny checkpoint, to be damaged. */
export function copyCheckpoint(name: string): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'checkpoint-'));
  fs.cpSync(checkpointFolder(name), folder, { recursive: true });
  return folder;
}

/** Whether the process runs; one that has ended and only waits to be taken note of doesn't. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  try {
    return !/\) Z /.test(fs.readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    // No such file system, or gone in between.
    return process.platform !== 'linux';
  }
}

/** Waits until the condition holds, or fails after some seconds. */
export async function until(condition: () => boolean, what: string, seconds = 10): Promise<void> {
  const end = Date.now() + seconds * 1000;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`${what}: not within ${seconds} seconds`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
