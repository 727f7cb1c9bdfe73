/**
 * Whether a model's numbers on a device can be trusted: one row of its own denoiser is compared with the CPU's, the first
 * time that it is loaded there. Half precision in particular is right on one device and NaN on another.
 */
import { createHash } from 'node:crypto';
import os from 'node:os';
import { recall, remember } from '../../files/machine-memory';
import { relativeDifference } from './probe';

export interface Verdict {
  /** Why the model must not run there, in words that say what to do. */
  fault?: string;
  /** Why it was not compared. */
  skipped?: string;
}

/** Largest difference relative to the largest value. Rounding stays far below, even in half precision; faults far above. */
const TOLERANCE = 0.05;
/** A session holds its weights, and once more while they are loaded. */
const MEMORY_FACTOR = 2.5;
const YEAR = 365 * 24 * 3600 * 1000;

export interface Trial {
  /** What the model and the device are: the verdict holds as long as these. */
  key: unknown[];
  /** Of the weights. */
  bytes: number;
  /** The same row on the device and on the CPU. */
  onDevice: () => Promise<Float32Array>;
  onCpu: () => Promise<Float32Array>;
}

/** Compares, unless that has been done before. */
export async function judge({ key, bytes, onDevice, onCpu }: Trial): Promise<Verdict> {
  const name = createHash('sha256').update(JSON.stringify(key)).digest('hex').slice(0, 32);
  const known = recall<Verdict>(name, YEAR);
  if (known) return known;
  let output: Float32Array;
  try {
    output = await onDevice();
  } catch (error) {
    const { message } = error as Error;
    if (!/\bf16\b|float16/i.test(message)) throw error;
    return { fault: 'this model needs half precision, which the device lacks. Use its single-precision export' };
  }
  // Told without the CPU, and whatever its memory.
  if (!output.every(Number.isFinite)) return keep(name, { fault: faultOf('values that are no numbers (NaN)') });
  if (MEMORY_FACTOR * bytes > os.freemem()) return { skipped: 'too little main memory to compare it with the CPU' };
  let expected: Float32Array;
  try {
    expected = await onCpu();
  } catch {
    return keep(name, { skipped: 'the CPU can’t run this export, to compare it' });
  }
  const difference = relativeDifference(output, expected);
  if (difference <= TOLERANCE) return keep(name, {});
  const percent = Math.min(999, Math.round(100 * difference));
  return keep(name, { fault: faultOf(`wrong values (up to ${percent} % off the CPU’s)`) });
}

function faultOf(what: string): string {
  return `this model gives ${what} on it. Use its single-precision export`;
}

async function keep(name: string, verdict: Verdict): Promise<Verdict> {
  await remember(name, verdict);
  return verdict;
}
