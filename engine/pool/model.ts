/** A checkpoint that a pool's workers have: used like one that is loaded here. */
import { Checkpoint } from '../checkpoint/checkpoint';
import { CancelledError, MultiDiffusionError } from '../errors';
import type { ProcessStatus } from '../inference/client';
import { embeddingsKey } from '../inference/embeddings';
import type { Holder, Processes } from '../inference/group';
import type { CallName, Calls } from '../inference/protocol';
import type { ModelFacts } from '../model';
import type { Progress, SampleRequest } from '../multidiffusion/plan';
import type { SampleResult } from '../multidiffusion/sample';
import { JobQueue, type JobQueueOptions } from '../queue/queue';
import { Tensor } from '../tensor';
import { isFinal, noWorker, PoolClient, type CallOptions } from './client';
import type { RedisAddress } from './connection';
import { readCallResult, readCanvas, readSampleResult, readSteps } from './results';
import { PROTOCOL, readFacts, type WorkerInfo } from './schema';

/** Which of the checkpoints that a pool's workers have. */
export type Wish =
  | { identity: string }
  | {
      repository: string;
      /** A branch, a tag or a commit. */
      revision: string;
    };

export interface PoolOptions {
  address: RedisAddress;
  pool: string;
  /** Which checkpoint, and what to call it in errors. */
  wish: Wish;
  called: string;
  /** Milliseconds that anything but a picture may take, waiting included, and that is waited for the first worker. */
  patience?: number;
  queue?: JobQueueOptions;
  onStatus?: (status: ProcessStatus) => void;
}

/**
 * Waits until a worker with the checkpoint is there.
 * @param signal ends the waiting
 * @throws MultiDiffusionError NO_REDIS or NO_WORKER after the options' patience; REDIS_REFUSED, REDIS_UNFIT or VERSION_MISMATCH at once
 */
export async function openPool(options: PoolOptions, signal?: AbortSignal): Promise<PoolCheckpoint> {
  const client = await PoolClient.open(options.address, options.pool);
  try {
    const { identity, facts } = await waitForModel(client, options, signal);
    return new PoolCheckpoint(client, identity, facts, options);
  } catch (error) {
    await client.close();
    throw error;
  }
}

function waitForModel(
  client: PoolClient,
  { wish, called, patience, onStatus }: PoolOptions,
  signal?: AbortSignal,
): Promise<{ identity: string; facts: ModelFacts }> {
  return new Promise((resolve, reject) => {
    let ended = false;
    let shown = '';
    const end = (finish: () => void): void => {
      ended = true;
      client.off('change', look);
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      finish();
    };
    const onAbort = (): void => {
      const { reason } = signal!;
      end(() => reject(reason instanceof Error ? reason : new CancelledError()));
    };
    const missing = (): MultiDiffusionError => client.trouble ?? noWorker(client.names.pool, called);
    const look = (): void => {
      if (ended) return;
      if (isFinal(client.trouble)) return end(() => reject(client.trouble!));
      const worker = client.connected ? findWorker(client.workers, wish) : undefined;
      if (!worker) return tell();
      if (worker.protocol !== PROTOCOL) return end(() => reject(client.troubleOf(worker.identity)!));
      client.factsOf(worker.identity).then(
        (json) => {
          const facts = readFacts(json);
          if (!ended && facts)
            end(() => resolve({ identity: worker.identity, facts: { ...facts, provider: runsOn(client, worker) } }));
        },
        () => undefined, // it is looked again when something changes
      );
    };
    const tell = (): void => {
      const { message } = missing();
      if (message === shown) return;
      shown = message;
      if (client.connecting) onStatus?.({ state: 'starting' });
      else onStatus?.({ state: client.trouble ? 'unreachable' : 'unserved', detail: message });
    };
    const timer = patience ? setTimeout(() => end(() => reject(missing())), patience) : undefined;
    signal?.addEventListener('abort', onAbort, { once: true });
    client.on('change', look);
    if (signal?.aborted) onAbort();
    else look();
  });
}

/** A worker that has what is wished for; where a branch means several commits, the one that most pictures are drawn with at a time. */
export function findWorker(workers: WorkerInfo[], wish: Wish): WorkerInfo | undefined {
  const fitting = workers.filter((worker) =>
    'identity' in wish
      ? worker.identity === wish.identity
      : worker.repository === wish.repository && (worker.revision === wish.revision || worker.commit === wish.revision),
  );
  const slots = new Map<string, number>();
  for (const { identity, protocol, slots: own } of fitting)
    slots.set(identity, (slots.get(identity) ?? 0) + (protocol === PROTOCOL ? own : 0));
  const [[best] = []] = [...slots].sort(([a, more], [b, fewer]) => fewer - more || (a < b ? -1 : 1));
  const served = fitting.filter(({ identity }) => identity === best);
  return served.find(({ protocol }) => protocol === PROTOCOL) ?? served[0];
}

function runsOn(client: PoolClient, worker: WorkerInfo): string {
  const providers = new Set(client.workersOf(worker.identity).map(({ provider }) => provider.replace(/ \(.*/s, '')));
  return `the pool "${client.names.pool}": ${[...providers].join(', ')}`;
}

/** The calls of the inference process, done by workers. */
class PoolProcesses implements Processes {
  private current: ProcessStatus = { state: 'ready' };
  private calls = 0;
  /** Aborted by unload: what is asked later is not concerned. */
  private unloading = new AbortController();

  constructor(
    readonly client: PoolClient,
    readonly identity: string,
    private readonly facts: ModelFacts,
    private readonly options: PoolOptions,
  ) {
    client.on('change', this.onChange);
    this.onChange();
  }

  get size(): number {
    const workers = this.client.workersOf(this.identity).filter(({ draining }) => !draining);
    return Math.max(
      1,
      workers.reduce((sum, { slots }) => sum + slots, 0),
    );
  }

  get status(): ProcessStatus {
    return this.current;
  }

  get busy(): boolean {
    return this.calls > 0;
  }

  /** They are on other machines. */
  readonly pids: number[] = [];

  async load(signal?: AbortSignal): Promise<void> {
    await this.call('load', () => ({}), signal);
  }

  async call<N extends CallName>(
    name: N,
    build: (holder: Holder) => Calls[N]['params'],
    signal?: AbortSignal,
  ): Promise<Calls[N]['result']> {
    if (name === 'open') return { provider: this.facts.provider } as Calls[N]['result'];
    const held = new Map<string, Tensor>();
    const params = build({
      hold(tensor) {
        const key = embeddingsKey(tensor);
        held.set(key, tensor);
        return key;
      },
    });
    const value = await this.run(
      'calls',
      name as Exclude<N, 'open'>,
      { params, held: [...held.values()] },
      {
        signal,
        patience: this.options.patience,
      },
    );
    return readCallResult(name, value, params, this.facts);
  }

  async run(
    kind: 'pictures' | 'calls',
    name: 'sample' | Exclude<CallName, 'open'>,
    value: unknown,
    options: CallOptions,
  ): Promise<unknown> {
    this.calls++;
    const signals = [this.unloading.signal, ...(options.signal ? [options.signal] : [])];
    try {
      return await this.client.run(kind, this.identity, name, value, { ...options, signal: AbortSignal.any(signals) });
    } finally {
      this.calls--;
    }
  }

  /** Ends what was asked here; the workers and their models serve others. */
  async unload(): Promise<void> {
    this.unloading.abort(new CancelledError('The model was unloaded.'));
    this.unloading = new AbortController();
    this.tell({ state: 'stopped' });
    this.current = { state: 'ready' };
  }

  async close(): Promise<void> {
    this.unloading.abort(new CancelledError('The model was unloaded.'));
    this.client.off('change', this.onChange);
    await this.client.close();
    this.tell({ state: 'closed' });
  }

  /** Why nothing gets done now. */
  get trouble(): MultiDiffusionError | undefined {
    return this.client.troubleOf(this.identity);
  }

  private readonly onChange = (): void => {
    const { trouble } = this;
    if (!trouble) return this.tell({ state: 'ready' });
    const state = isFinal(trouble) ? 'failed' : this.client.trouble ? 'unreachable' : 'unserved';
    this.tell({ state, detail: trouble.message });
  };

  private tell(status: ProcessStatus): void {
    const { state, detail } = this.current;
    this.current = status;
    if (status.state !== state || status.detail !== detail) this.options.onStatus?.(status);
  }
}

export class PoolCheckpoint extends Checkpoint {
  private readonly served: PoolProcesses;

  /** Use openPool. */
  constructor(
    client: PoolClient,
    readonly identity: string,
    facts: ModelFacts,
    options: PoolOptions,
  ) {
    const pool = new PoolProcesses(client, identity, facts, options);
    super(facts, pool, new JobQueue({ concurrency: pool.size, ...options.queue, explainTimeout: () => pool.trouble }));
    this.served = pool;
    client.on('change', () => {
      if (this.queue.concurrency !== pool.size) this.queue.concurrency = pool.size;
    });
  }

  /** Who draws with this checkpoint. */
  get workers(): WorkerInfo[] {
    return this.served.client.workersOf(this.identity);
  }

  /** The pool's name. */
  get pool(): string {
    return this.served.client.names.pool;
  }

  /** Workers of the pool that can't draw with this checkpoint. */
  get otherWorkers(): WorkerInfo[] {
    const own = new Set(this.workers);
    return this.served.client.workers.filter((worker) => !own.has(worker));
  }

  /** Jobs of all clients that wait in the pool for this checkpoint's workers. */
  countWaiting(): Promise<number> {
    return this.served.client.countWaiting(this.identity);
  }

  /** Bytes that have been sent to the pool's Redis and fetched from it. */
  get traffic(): { sent: number; fetched: number } {
    return this.served.client.traffic;
  }

  /**
   * Has a worker make the latents of a picture: as sample() does with a checkpoint that is loaded here, to the last bit.
   * @throws what sample() throws; and as PoolClient.run does
   */
  async sampleElsewhere(request: SampleRequest): Promise<SampleResult> {
    const { signal, onStep, regions, ...rest } = request;
    const stop = new AbortController();
    const signals = [stop.signal, ...(signal ? [signal] : [])];
    // Outlines are for metadata and editors; the masks are what counts.
    const value = { ...rest, ...(regions && { regions: regions.map(({ shape: _, ...region }) => region) }) };
    let told = 0;
    let telling: Promise<unknown> = Promise.resolve();
    let failure: Error | undefined;
    const tell = async (progress: unknown, fetch: (body: unknown) => Promise<unknown>): Promise<void> => {
      const { steps, picture } = (progress ?? {}) as { steps?: unknown; picture?: unknown };
      const fresh = readSteps(steps).filter(([index]) => index > told);
      const canvas = picture === undefined ? undefined : ((await fetch(picture).catch(() => undefined)) as Canvases);
      for (const [i, [index, total, timestep]] of fresh.entries()) {
        // Of a picture that is begun again no step is told twice.
        if (index <= told) continue;
        told = index;
        const seen = i === fresh.length - 1 ? canvas : undefined;
        await onStep?.(describe(index, total, timestep, seen, this.facts));
      }
    };
    try {
      const result = await this.served.run('pictures', 'sample', value, {
        signal: AbortSignal.any(signals),
        priority: this.queue.jobOf(signal)?.priority,
        onProgress: (progress, fetch) => {
          telling = telling
            .then(() => tell(progress, fetch))
            .catch((error: Error) => {
              failure ??= error;
              stop.abort(error);
            });
        },
      });
      await telling;
      if (failure) throw failure;
      return readSampleResult(result, this.facts);
    } catch (error) {
      throw failure ?? error;
    }
  }
}

type Canvases = { latents?: unknown; original?: unknown } | undefined;

function describe(index: number, total: number, timestep: number, canvas: Canvases, facts: ModelFacts): Progress {
  const there = (name: 'latents' | 'original'): Tensor<'float32'> => {
    const tensor = readCanvas(canvas?.[name], facts);
    if (tensor) return tensor;
    throw new MultiDiffusionError(
      'INFERENCE',
      `The latents of step ${index} did not come from the pool: they come with every step that the option previewEvery names.`,
    );
  };
  return {
    index,
    total,
    timestep,
    get latents() {
      return there('latents');
    },
    predictedOriginal: () => there('original'),
  };
}
