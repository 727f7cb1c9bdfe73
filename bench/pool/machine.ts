/** What the parts of the pool's bench share: pictures to draw, processes, Redis's own counters. */
import { spawn, type ChildProcess } from 'node:child_process';
import path from 'node:path';
import type { Redis } from 'ioredis';
import type { Checkpoint } from '../../dist/engine/checkpoint/checkpoint';
import { PAPER_OPTIONS, shapeMask } from '../../dist/engine';
import type { SampleRequest } from '../../dist/engine/multidiffusion/plan';

export const root = path.join(__dirname, '..', '..');
/** The tests' tiny one. */
export const MODEL = path.join(root, 'test/fixtures/golden/checkpoints/tiny-lcm');
export const POCKET = path.join(root, 'models', 'pocket');

/** A living room of a background and three regions, as in bench.ts. */
export async function livingRoom(checkpoint: Checkpoint): Promise<(seed: number) => SampleRequest> {
  const prompts: Array<[string, [number, number, number, number]]> = [
    ['a red sofa in a living room', [0.28, 0.48, 0.44, 0.4]],
    ['a plant in a living room', [0.02, 0.4, 0.26, 0.5]],
    ['a painting on a living room wall', [0.62, 0.06, 0.32, 0.34]],
  ];
  const background = await checkpoint.encodeConditioning('a living room');
  const regions = await Promise.all(
    prompts.map(async ([prompt, box]) => ({
      name: prompt,
      conditioning: await checkpoint.encodeConditioning(prompt),
      mask: shapeMask({ box }),
    })),
  );
  return (seed) => ({ background, regions, options: { ...PAPER_OPTIONS, steps: 25, seed } });
}

export const median = (values: number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  return sorted.length % 2 ? sorted[Math.floor(middle)] : (sorted[middle - 1] + sorted[middle]) / 2;
};
export const rounded = (value: number, digits = 2): number => Number(value.toFixed(digits));
export const sleep = (milliseconds: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, milliseconds));

/** The same numbers for the same seed (mulberry32). @returns from 0 to 1 */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Starts stand-ins.ts and waits until the pool has its workers. */
export async function startStandIns(url: string, args: string[]): Promise<ChildProcess> {
  const child = spawn(process.execPath, ['--import', 'tsx', path.join(__dirname, 'stand-in.ts'), ...args], {
    cwd: root,
    env: { ...process.env, MULTIDIFFUSION_REDIS: url },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await new Promise<void>((resolve, reject) => {
    child.stdout!.on('data', (text: Buffer) => / ready /.test(text.toString()) && resolve());
    child.once('exit', (code) => reject(new Error(`the stand-ins ended with ${code}`)));
  });
  return child;
}

/** Redis's counters since it was started. */
export interface Counters {
  operations: number;
  received: number;
  sent: number;
  cpuMilliseconds: number;
  memory: number;
  keys: number;
}

export async function readCounters(redis: Redis): Promise<Counters> {
  const info = await redis.info('all');
  const fact = (name: string): number => Number(new RegExp(`^${name}:([\\d.]+)`, 'm').exec(info)?.[1] ?? NaN);
  // What scripts call counts too, unlike in total_commands_processed.
  const operations = [...info.matchAll(/^cmdstat_.*?:calls=(\d+)/gm)].reduce(
    (sum, [, calls]) => sum + Number(calls),
    0,
  );
  return {
    operations,
    received: fact('total_net_input_bytes'),
    sent: fact('total_net_output_bytes'),
    cpuMilliseconds: 1000 * (fact('used_cpu_user') + fact('used_cpu_sys')),
    memory: fact('used_memory'),
    keys: await redis.dbsize(),
  };
}

/** What each of so many pictures took. */
export function perPicture(before: Counters, after: Counters, pictures: number) {
  const each = (name: 'operations' | 'received' | 'sent' | 'cpuMilliseconds'): number =>
    (after[name] - before[name]) / pictures;
  return {
    operations: rounded(each('operations'), 0),
    kilobytesToRedis: rounded(each('received') / 1000, 1),
    kilobytesFromRedis: rounded(each('sent') / 1000, 1),
    redisCpuMilliseconds: rounded(each('cpuMilliseconds'), 2),
  };
}
