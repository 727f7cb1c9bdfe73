/** What a process may take of its device's memory, and has taken. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

/** How much memory a process may take on its device; memory.ts makes one. */
export interface MemoryBudget {
  /** Bytes that the process may take, weights included. */
  most: number;
  /** Bytes that it has taken so far. What a run took is kept for the next one, so this is the peak. */
  taken(): Promise<number>;
}

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

/** Bytes that processes hold on GPUs; undefined where the driver does not tell, or knows them by other numbers, as in a container. */
export async function gpuBytesOf(pids: number[]): Promise<number | undefined> {
  const answer = await askTool(['--query-compute-apps=pid,used_memory']);
  const own = answer?.filter(([pid]) => pids.includes(pid)).map(([, used]) => used * MEBIBYTE) ?? [];
  return own.length > 0 && own.every(Number.isFinite) ? own.reduce((sum, bytes) => sum + bytes) : undefined;
}

/** Bytes in use by all processes, and free; ONNX Runtime tells neither. */
async function askDriver(deviceId: number): Promise<{ used: number; free: number } | undefined> {
  // Inside the process devices are counted among the visible ones only.
  const device = process.env.CUDA_VISIBLE_DEVICES?.split(',')[deviceId]?.trim() || String(deviceId);
  const [[used, free]] = (await askTool(['-i', device, '--query-gpu=memory.used,memory.free'])) ?? [[NaN, NaN]];
  return Number.isFinite(used) && Number.isFinite(free) ? { used: used * MEBIBYTE, free: free * MEBIBYTE } : undefined;
}

/** The numbers in each line of the driver's answer; undefined where there is none. */
async function askTool(query: string[]): Promise<number[][] | undefined> {
  try {
    const { stdout } = await promisify(execFile)('nvidia-smi', [...query, '--format=csv,noheader,nounits'], {
      timeout: PATIENCE,
    });
    return stdout
      .trim()
      .split('\n')
      .map((line) => line.split(',').map(Number));
  } catch {
    return undefined;
  }
}

/** CUDA's, Direct3D's, Vulkan's and the C++ library's words for it. */
const OUT_OF_MEMORY = new RegExp(
  [
    /out of (device |host )?memory|not enough memory|failed to allocate|bad_alloc|bad allocation/,
    /CUDA failure 2:|CUDA error 2\b|ALLOC_FAILED|E_OUTOFMEMORY|exceeds the max(imum)? buffer size/,
  ]
    .map(({ source }) => source)
    .join('|'),
  'i',
);

/** Whether the error means that the device's or the machine's memory did not suffice. */
export function isOutOfMemory(error: unknown): boolean {
  const message = error instanceof Error ? error.message : String(error);
  return OUT_OF_MEMORY.test(message);
}
