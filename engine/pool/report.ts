/** What "Check this model" tells of a pool: who has the model, on what it runs there, and what waits. */
import type { Checkpoint } from '../checkpoint/checkpoint';
import { PoolCheckpoint } from './model';
import type { WorkerInfo } from './schema';

export interface PoolReport {
  pool: string;
  /** The model's. */
  name: string;
  workers: Array<Pick<WorkerInfo, 'name' | 'provider' | 'slots' | 'busy' | 'draining' | 'pictures' | 'version'>>;
  /** Pictures that they draw at a time. */
  slots: number;
  /** Jobs of all clients that wait for one of them. */
  waiting: number;
  /** Workers of the pool that can't draw these pictures: by what they have instead. */
  others: Array<{ model: string; count: number }>;
  canEncodeImages: boolean;
}

/** @throws MultiDiffusionError; TypeError for a checkpoint that is no pool's */
export async function reportPool(checkpoint: Checkpoint): Promise<PoolReport> {
  if (!(checkpoint instanceof PoolCheckpoint)) throw new TypeError('This checkpoint runs here.');
  const { facts, workers } = checkpoint;
  const others = new Map<string, number>();
  for (const { model, version } of checkpoint.otherWorkers) {
    const name = `${model} (${version})`;
    others.set(name, (others.get(name) ?? 0) + 1);
  }
  return {
    pool: checkpoint.pool,
    name: facts.name,
    workers: workers.map(({ name, provider, slots, busy, draining, pictures, version }) => ({
      ...{ name, provider, slots, busy, draining, pictures, version },
    })),
    slots: workers.reduce((sum, { slots, draining }) => sum + (draining ? 0 : slots), 0),
    waiting: await checkpoint.countWaiting(),
    others: [...others].map(([model, count]) => ({ model, count })),
    canEncodeImages: facts.canEncodeImages,
  };
}
