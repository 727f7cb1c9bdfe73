/** What a process may take of its device's memory, and has taken; only in the inference process. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { MemoryBudget } from './batching';

const MEBIBYTE = 2 ** 20;
/** Of the memory that is free on a GPU when nobody sets a budget; the rest is for what others take later. */
const SHARE = 0.9;
/** A driver that has to be woken takes seconds. */
const PATIENCE = 10_000;

/** Main memory, on the CPU. */
export function mainMemory(mebibytes: number): MemoryBudget {
  return { most: mebibytes * MEBIBYTE, taken: async () => process.memoryUsage.rss() };
}

/**
 * A GPU's memory. To be called before the process uses the GPU: what is taken from then on counts as its own.
 * @param mebibytes default: most of what is free now
 * @returns undefined where the driver does not tell
 */
export async function gpuMemory(deviceId: number, mebibytes?: number): Promise<MemoryBudget | undefined> {
  const before = await askDriver(deviceId);
  if (!before) return undefined;
  return {
    most: mebibytes === undefined ? SHARE * before.free : mebibytes * MEBIBYTE,
    taken: async () => Math.max(0, ((await askDriver(deviceId)) ?? before).used - before.used),
  };
}

/** Bytes in use by all processes, and free; ONNX Runtime tells neither. */
async function askDriver(deviceId: number): Promise<{ used: number; free: number } | undefined> {
  // Inside the process devices are counted among the visible ones only.
  const device = process.env.CUDA_VISIBLE_DEVICES?.split(',')[deviceId]?.trim() || String(deviceId);
  try {
    const { stdout } = await promisify(execFile)('nvidia-smi', ['-i', device, '--query-gpu=memory.used,memory.free', '--format=csv,noheader,nounits'], { timeout: PATIENCE });
    const [used, free] = stdout.split(',').map((text) => Number(text) * MEBIBYTE);
    return Number.isFinite(used) && Number.isFinite(free) ? { used, free } : undefined;
  } catch {
    return undefined;
  }
}
