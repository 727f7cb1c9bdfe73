/**
 * Tries an execution provider with a small model: whether its numbers are the CPU's, in single and in half precision, and
 * how its time compares with the CPU's. Run as a program of its own (`node probe.js cuda 0`), it prints the result as
 * JSON: drivers may crash, or never answer, and then only that process is lost.
 */
import { spawn } from 'node:child_process';
import type { InferenceSession } from 'onnxruntime-node';
import { PROBE_INPUT, PROBE_OUTPUT, probeModel, probeValues, type ProbeShape } from '../../onnx/probe-model';
import { PROVIDERS, type ProviderName } from '../providers';

export interface ProbeResult {
  /** Why the provider can't be used, in words that say what to do. */
  obstacle?: string;
  /** Whether half precision gives right numbers, too. */
  half?: boolean;
  /** Milliseconds of one run of a larger model, on the provider and on the CPU; only where they were asked for. */
  milliseconds?: { provider: number; cpu: number };
}

const SMALL: ProbeShape = { channels: 32, side: 32 };
/** About three billion multiplications, as a small UNet. */
const LARGE: ProbeShape = { channels: 128, side: 64 };
/** Largest difference, relative to the largest value. */
const TOLERANCE = { single: 1e-3, half: 2e-2 };
/** With these, sums of squares are beyond what a half can hold: normalisation must not sum in halves. */
const AMPLITUDE = { single: 1, half: 300 };
const TIMED_RUNS = 3;
/** How long a process of its own may take; shaders are compiled meanwhile. */
const PATIENCE = 180_000;

type SessionOptions = InferenceSession.SessionOptions;

/** What a session on the provider is made with. */
export function sessionOptions(name: ProviderName, deviceId: number, threads: number): SessionOptions {
  const { session, options } = PROVIDERS[name];
  const providers = name === 'cpu' ? ['cpu'] : [session(deviceId), 'cpu'];
  return {
    executionProviders: providers as SessionOptions['executionProviders'],
    ...options,
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    logSeverityLevel: 3,
    // Threads that wait for work sleep instead of spinning: spinning takes the cores from Node-RED, and
    // where others work too it even makes inference several times slower.
    extra: { session: { intra_op: { allow_spinning: '0' } } },
  };
}

/** Tries the provider in this process. @param timed whether to compare its time with the CPU's, too */
export async function probe(name: ProviderName, deviceId: number, timed: boolean): Promise<ProbeResult> {
  const [device, cpu] = [sessionOptions(name, deviceId, 0), sessionOptions('cpu', 0, 0)];
  try {
    const single = await difference(device, cpu, false);
    if (!(single <= TOLERANCE.single)) return { obstacle: 'a test model gave wrong numbers on it' };
    const half = await difference(device, cpu, true).catch(() => NaN);
    const milliseconds = timed ? await compareTimes(device, cpu) : undefined;
    return { half: half <= TOLERANCE.half, ...(milliseconds && { milliseconds }) };
  } catch (error) {
    return { obstacle: PROVIDERS[name].explain((error as Error).message) };
  }
}

/** Tries the provider in a process of its own, which may crash or hang. */
export function probeApart(name: ProviderName, deviceId: number): Promise<ProbeResult> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [__filename, name, String(deviceId)], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    let output = '';
    const timer = setTimeout(() => child.kill('SIGKILL'), PATIENCE);
    child.stdout.on('data', (chunk) => (output += String(chunk)));
    child.on('error', (error) => resolve({ obstacle: `the test could not be started: ${error.message}` }));
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      const result = readResult(output);
      const why =
        signal === 'SIGKILL' ? 'gave no answer within three minutes' : `ended with ${signal ?? `exit code ${code}`}`;
      resolve(result ?? { obstacle: `a test model ${why}: update the driver of the graphics card` });
    });
  });
}

function readResult(output: string): ProbeResult | undefined {
  try {
    return JSON.parse(output.trim().split('\n').at(-1) ?? '') as ProbeResult;
  } catch {
    return undefined;
  }
}

/** The largest difference from the CPU's single-precision result, relative to its largest value. */
async function difference(device: SessionOptions, cpu: SessionOptions, half: boolean): Promise<number> {
  const values = probeValues(SMALL, half ? AMPLITUDE.half : AMPLITUDE.single);
  const expected = await runOnce(probeModel(SMALL), cpu, values);
  return relativeDifference(await runOnce(probeModel(SMALL, half), device, values), expected);
}

/** The largest difference, relative to the largest expected value; NaN where a value is none. */
export function relativeDifference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let [worst, largest] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs(actual[i] - expected[i]);
    if (Number.isNaN(difference)) return NaN;
    worst = Math.max(worst, difference);
    largest = Math.max(largest, Math.abs(expected[i]));
  }
  return worst / Math.max(largest, Number.MIN_VALUE);
}

async function runOnce(model: Uint8Array, options: SessionOptions, values: Float32Array): Promise<Float32Array> {
  const { run, release } = await open(model, options, SMALL, values);
  const output = await run();
  await release();
  return output;
}

/** On the larger model, unless the small one has shown already that the provider is far slower: a GPU in software. */
async function compareTimes(device: SessionOptions, cpu: SessionOptions): Promise<ProbeResult['milliseconds']> {
  for (const shape of [SMALL, LARGE]) {
    const milliseconds = { provider: await time(device, shape), cpu: await time(cpu, shape) };
    // A small run on a GPU is mostly its way there and back, some milliseconds at most.
    if (shape === LARGE || milliseconds.provider > 50 + 2 * milliseconds.cpu) return milliseconds;
  }
}

/** The fastest of a few runs, after one that loads and compiles. */
async function time(options: SessionOptions, shape: ProbeShape): Promise<number> {
  const { run, release } = await open(probeModel(shape), options, shape, probeValues(shape, 1));
  await run();
  let fastest = Infinity;
  for (let i = 0; i < TIMED_RUNS; i++) {
    const started = performance.now();
    await run();
    fastest = Math.min(fastest, performance.now() - started);
  }
  await release();
  return fastest;
}

async function open(model: Uint8Array, options: SessionOptions, { channels, side }: ProbeShape, values: Float32Array) {
  const { InferenceSession, Tensor } = require('onnxruntime-node') as typeof import('onnxruntime-node');
  const session = await InferenceSession.create(model, options);
  const feeds = { [PROBE_INPUT]: new Tensor('float32', values, [1, channels, side, side]) };
  return {
    run: async () => (await session.run(feeds))[PROBE_OUTPUT].data as Float32Array,
    release: () => session.release(),
  };
}

if (require.main === module) {
  const [name, deviceId] = process.argv.slice(2);
  void probe(name as ProviderName, Number(deviceId), true).then((result) => {
    process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit());
  });
}
