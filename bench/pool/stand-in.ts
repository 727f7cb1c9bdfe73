/**
 * A process with workers of a pool whose model only waits, like a GPU that is busy without the CPU.
 * Arguments: how many, milliseconds of a run, the identity of the checkpoint that they say they have.
 */
import { Checkpoint, openCheckpoint } from '../../dist/engine/checkpoint/checkpoint';
import type { Holder, Processes } from '../../dist/engine/inference/group';
import type { CallName, Calls } from '../../dist/engine/inference/protocol';
import { PoolWorker } from '../../dist/engine/pool/worker';
import { JobQueue } from '../../dist/engine/queue/queue';
import { MODEL } from './machine';

/** One device: a run waits until the one before it is over. */
class Waiting implements Processes {
  readonly size = 1;
  readonly status = { state: 'ready' as const };
  readonly busy = false;
  readonly pids: number[] = [];
  private line: Promise<unknown> = Promise.resolve();

  constructor(private readonly milliseconds: number) {}

  async load(): Promise<void> {}
  async unload(): Promise<void> {}
  async close(): Promise<void> {}

  async call<N extends CallName>(name: N, build: (holder: Holder) => Calls[N]['params']): Promise<Calls[N]['result']> {
    if (name !== 'predict') throw new Error(`${name} is not part of what is measured`);
    const { latents, dims, inputOf, embeddings } = build({ hold: () => 'embeddings' }) as Calls['predict']['params'];
    const run = this.line.then(() => new Promise((resolve) => setTimeout(resolve, this.milliseconds)));
    this.line = run;
    await run;
    const size = latents.length / dims[0];
    const outputs = new Float32Array(embeddings.length * size);
    embeddings.forEach((_, row) => {
      const input = inputOf ? inputOf[row] : row;
      outputs.set(latents.subarray(input * size, (input + 1) * size), row * size);
    });
    return { outputs, runMilliseconds: this.milliseconds } as Calls[N]['result'];
  }
}

/** A checkpoint whose model only waits. */
export async function openStandIn(milliseconds: number): Promise<Checkpoint> {
  const real = await openCheckpoint(MODEL, { provider: 'cpu', threads: 1 });
  const { facts } = real;
  await real.close();
  return new Checkpoint(facts, new Waiting(milliseconds), new JobQueue());
}

async function main(): Promise<void> {
  const [count, milliseconds, identity] = process.argv.slice(2);
  for (let i = 0; i < Number(count); i++)
    await PoolWorker.start({
      address: { url: process.env.MULTIDIFFUSION_REDIS! },
      pool: 'default',
      checkpoint: await openStandIn(Number(milliseconds)),
      identity,
      version: '0',
      name: `stand-in ${i}`,
    });
  console.log(' ready ');
}

if (require.main === module) void main();
