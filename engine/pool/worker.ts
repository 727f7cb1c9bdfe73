/**
 * Works for a pool: draws pictures and answers calls with a checkpoint that is loaded here. BullMQ gives the jobs out, keeps each
 * locked while its worker shows signs of life, and gives it to another worker when it doesn't.
 */
import { randomUUID } from 'node:crypto';
import { EventEmitter } from 'node:events';
import os from 'node:os';
import type { Job, Worker } from 'bullmq';
import type { Redis } from 'ioredis';
import type { Checkpoint } from '../checkpoint/checkpoint';
import { CancelledError, InvalidInputError, MissingInputError, MultiDiffusionError } from '../errors';
import type { CallName } from '../inference/protocol';
import type { Progress, SampleRequest } from '../multidiffusion/plan';
import { sample } from '../multidiffusion/sample';
import { SAMPLER_OPTIONS } from '../options';
import { batch, BlobStore, MissingBlobs, toBuffer } from './blobs';
import { pack, unpack, type Blobs } from './codec';
import { checkServer, connect, explain, isPassing, type RedisAddress } from './connection';
import { readCallParams, readHeld } from './results';
import {
  CALLS,
  ENDED_JOBS,
  Names,
  PROTOCOL,
  readJobData,
  TIMES,
  type JobKind,
  type QueueKind,
  type WorkerInfo,
} from './schema';

export interface WorkerOptions {
  address: RedisAddress;
  pool: string;
  /** What it does its work with. */
  checkpoint: Checkpoint;
  /** See identity.ts. */
  identity: string;
  /** Where the checkpoint was downloaded from. */
  source?: { repository: string; revision: string; commit: string };
  /** Pictures at a time; default: as many as the checkpoint has processes. */
  slots?: number;
  /** What others call this worker; default: the machine's name. */
  name?: string;
  /** Of the package. */
  version: string;
  /** Milliseconds without a sign of life after which its jobs go to another worker; default 15 s. */
  patience?: number;
  /** Pixels of the largest canvas that it draws; default: 4096 · 4096. */
  maxPixels?: number;
}

/** How a job ended. */
export interface JobRecord {
  id: string;
  name: string;
  kind: QueueKind;
  /** done; or failed with a code; or handed back to the pool; or lost, because another worker has it. */
  outcome: 'done' | 'cancelled' | 'failed' | 'returned' | 'lost';
  code?: string;
  /** Milliseconds that it waited in the pool, and that it took. */
  waited: number;
  took: number;
}

interface Events {
  job: [JobRecord];
  /** Something went wrong that is no job's. */
  trouble: [Error];
}

const PATIENCE = 15_000;
/** Calls that are worked on at once: they share the inference processes with the pictures. */
const CALLS_PER_SLOT = 4;
/** Steps are told of together when they follow each other more quickly. */
const TELL_INTERVAL = 60;
const MOST_PIXELS = 4096 * 4096;
/**
 * A worker that comes back was not killed by its job, so that does not count: BullMQ fails a job that was found without its
 * worker twice. KEYS: the job; ARGV: how often it may be.
 */
const NOT_MY_DEATH = `
  if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
  local count = redis.call('HINCRBY', KEYS[1], 'stc', -1)
  if count <= tonumber(ARGV[1]) then redis.call('HDEL', KEYS[1], 'defa') end
  return 1`;
const MOST_DEATHS = 1;

/** Why a job's signal is aborted. */
class HandBack extends Error {}
class LostJob extends Error {}

export class PoolWorker extends EventEmitter<Events> {
  readonly id = randomUUID();
  readonly names: Names;
  readonly slots: number;
  draining = false;
  /** Jobs that ended here, and the time that they took. */
  readonly counts = new Map<string, { jobs: number; milliseconds: number }>();
  private redis!: Redis;
  private listener!: Redis;
  private blobs!: BlobStore;
  private readonly workers: Worker[] = [];
  private readonly connections: Redis[] = [];
  private readonly running = new Map<string, { kind: QueueKind; worker: Worker }>();
  private readonly since = Date.now();
  private clock: NodeJS.Timeout | undefined;
  private said = '';
  /** When what outlives a beat was refreshed. */
  private refreshed = 0;

  private constructor(private readonly options: WorkerOptions) {
    super();
    this.names = new Names(options.pool);
    this.slots = options.slots ?? Math.max(1, options.checkpoint.queue.concurrency);
  }

  /**
   * Connects and begins to work; resolves when the pool knows of it.
   * @throws InvalidInputError; MultiDiffusionError REDIS_REFUSED or REDIS_UNFIT. While Redis can't be reached it is tried again
   */
  static async start(options: WorkerOptions, onTrouble?: (error: Error) => void): Promise<PoolWorker> {
    const worker = new PoolWorker(options);
    if (onTrouble) worker.on('trouble', onTrouble);
    await worker.begin();
    return worker;
  }

  /** Whether Redis answers. */
  get connected(): boolean {
    return this.redis.status === 'ready';
  }

  /** Pictures that are being drawn. */
  get busy(): number {
    return [...this.running.values()].filter(({ kind }) => kind === 'pictures').length;
  }

  /** Jobs that are worked on. */
  get active(): number {
    return this.running.size;
  }

  /**
   * Takes no new jobs, ends those that it has, and leaves the pool. Those that take longer go back to it, for another worker.
   * @param time milliseconds that they may take
   */
  async drain(time: number): Promise<void> {
    if (this.draining) return;
    this.draining = true;
    void this.announce().catch(() => undefined);
    const pausing = this.workers.map((worker) => worker.pause());
    const timer = setTimeout(() => this.handBack(), time);
    await Promise.all(pausing).finally(() => clearTimeout(timer));
    await this.close();
  }

  /** Gives the jobs that it has back at once. */
  handBack(): void {
    for (const [id, { worker }] of this.running) cancelJob(worker, id, new HandBack());
  }

  /** Leaves at once. */
  async close(): Promise<void> {
    this.draining = true;
    clearInterval(this.clock);
    if (this.connected) {
      const leaving = batch(this.redis, (pipeline) => {
        pipeline.srem(this.names.workers, this.id);
        pipeline.del(this.names.worker(this.id));
      });
      await Promise.race([leaving.catch(() => undefined), new Promise((resolve) => setTimeout(resolve, 1000))]);
    }
    await Promise.race([
      Promise.all(this.workers.map((worker) => worker.close(true).catch(() => undefined))),
      new Promise((resolve) => setTimeout(resolve, 2000)),
    ]);
    for (const connection of [this.redis, this.listener, ...this.connections]) connection.disconnect();
  }

  /** Jobs of all clients that wait for workers with this checkpoint. */
  async countWaiting(): Promise<number> {
    const counts = await batch(this.redis, (pipeline) => {
      for (const kind of ['pictures', 'calls'] as const) {
        const queue = `${this.names.base}:${this.names.queue(kind, this.options.identity)}`;
        pipeline.llen(`${queue}:wait`);
        pipeline.zcard(`${queue}:prioritized`);
      }
    });
    return counts.reduce<number>((sum, count) => sum + Number(count), 0);
  }

  private async begin(): Promise<void> {
    const { address, pool } = this.options;
    const name = `multidiffusion worker ${this.id.slice(0, 8)}`;
    this.redis = await connect(address, name);
    this.listener = await connect(address, `${name} cancellations`);
    this.blobs = new BlobStore(this.redis, (hash) => this.names.blob(hash));
    try {
      await this.firstConnection();
    } catch (error) {
      this.redis.disconnect();
      this.listener.disconnect();
      throw error;
    }
    this.listener.on('message', (_, id) => this.cancel(id));
    await this.listener.subscribe(this.names.cancellations);
    await this.announce();
    this.redis.on('ready', () => {
      // A Redis that was started anew may have lost everything.
      this.refreshed = 0;
      void this.announce().catch(() => undefined);
    });
    this.clock = setInterval(() => this.announce().catch((error: Error) => this.tellTrouble(error)), TIMES.beat);
    for (const kind of ['pictures', 'calls'] as const) await this.work(kind, pool);
  }

  /** Waits for Redis; what can't get better by waiting is thrown. */
  private async firstConnection(): Promise<void> {
    const { redis } = this;
    const { address } = this.options;
    await new Promise<void>((resolve, reject) => {
      const onError = (error: Error): void => {
        const known = explain(error, address);
        if (known && !isPassing(known)) reject(known);
        else this.tellTrouble(error);
      };
      redis.on('error', onError);
      redis.once('ready', () => {
        redis.off('error', onError);
        resolve();
      });
      redis.connect().catch(() => undefined);
    });
    try {
      await checkServer(redis);
    } catch (error) {
      throw explain(error, address) ?? error;
    }
    redis.on('error', (error: Error) => this.tellTrouble(error));
  }

  private async work(kind: QueueKind, _pool: string): Promise<void> {
    const { Worker: BullWorker } = await import('bullmq');
    const { identity, patience = PATIENCE, address } = this.options;
    // Redis takes whole milliseconds only.
    const stalledInterval = Math.max(500, Math.round(patience / 3));
    const connection = await connect(address, `multidiffusion ${kind} ${this.id.slice(0, 8)}`);
    this.connections.push(connection);
    const worker: Worker = new BullWorker(
      this.names.queue(kind, identity),
      async (job, token, signal) => this.perform(kind, worker, job, token, signal),
      {
        connection,
        prefix: this.names.base,
        name: this.id,
        concurrency: kind === 'pictures' ? this.slots : CALLS_PER_SLOT * this.slots,
        lockDuration: Math.round(patience),
        stalledInterval,
        maxStalledCount: MOST_DEATHS,
        drainDelay: 5,
        runRetryDelay: 1000,
        skipVersionCheck: true,
        removeOnComplete: ENDED_JOBS,
        removeOnFail: ENDED_JOBS,
        autorun: false,
      },
    );
    // An error ends BullMQ's search for jobs that lost their worker, which must go on.
    let searching: NodeJS.Timeout | undefined;
    worker.on('error', (error) => {
      this.tellTrouble(error);
      searching ??= setTimeout(() => {
        searching = undefined;
        if (!this.draining) worker.startStalledCheckTimer().catch((failure: Error) => this.tellTrouble(failure));
      }, stalledInterval).unref();
    });
    worker.on('lockRenewalFailed', (ids) => {
      for (const id of ids) this.lose(worker, id);
    });
    this.workers.push(worker);
    void worker.run().catch((error: Error) => this.tellTrouble(error));
    await worker.waitUntilReady();
  }

  private async perform(
    kind: QueueKind,
    worker: Worker,
    job: Job,
    token: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<unknown> {
    const id = job.id!;
    const started = performance.now();
    const waited = Math.max(0, Date.now() - job.timestamp);
    this.running.set(id, { kind, worker });
    const record = (outcome: JobRecord['outcome'], code?: string): void => {
      const took = performance.now() - started;
      this.count(`${job.name} ${outcome}`, took);
      this.emit('job', { id, name: job.name, kind, outcome, ...(code && { code }), waited, took });
    };
    try {
      const value = await this.answer(job, signal!);
      signal!.throwIfAborted();
      record('done');
      return value;
    } catch (error) {
      const reason: unknown = signal?.aborted ? signal.reason : error;
      if (reason instanceof HandBack) {
        await job.moveToWait(token);
        record('returned');
        const { WaitingError } = await import('bullmq');
        throw new WaitingError();
      }
      if (reason instanceof LostJob) {
        record('lost');
        throw new Error('another worker has the job');
      }
      const known = failureOf(reason, this.options.address);
      record(known.code === 'CANCELLED' ? 'cancelled' : 'failed', known.code);
      throw asFailure(known);
    } finally {
      this.running.delete(id);
    }
  }

  /** Does a job. @returns what BullMQ keeps of it */
  private async answer(job: Job, signal: AbortSignal): Promise<{ body: unknown; shared?: true }> {
    const { client, body } = readJobData(job.data);
    const [alive, cancelled] = await batch(this.redis, (pipeline) => {
      pipeline.exists(this.names.client(client));
      pipeline.exists(this.names.cancelled(job.id!));
    });
    if (cancelled === 1) throw new CancelledError();
    if (alive !== 1) throw new Resend('ORPHAN');
    const value = await unpack(body, (references) => this.blobs.get(references));
    if (job.name === 'sample') {
      const result = await this.sample(job, value, client, signal);
      return { body: await this.putResult(job.id!, result) };
    }
    if (!CALLS.has(job.name)) throw new InvalidInputError('job', job.name, `sample, ${[...CALLS].join(', ')}`);
    const result = await this.callModel(job.name as Exclude<JobKind, 'sample'>, value, signal);
    // Embeddings come back with every picture: they stay under names that all jobs share.
    if (job.name !== 'encodePrompts') return { body: await this.putResult(job.id!, result) };
    const packed = pack(result, 'result');
    await this.blobs.put(packed.blobs);
    return { body: packed.body, shared: true };
  }

  private callModel(name: Exclude<CallName, 'open'>, value: unknown, signal: AbortSignal): Promise<unknown> {
    const { checkpoint } = this.options;
    const { params, held } = (value ?? {}) as { params?: unknown; held?: unknown };
    if (name === 'load') return checkpoint.load({ signal });
    return checkpoint.call(name, readCallParams(name, params, checkpoint.facts), readHeld(held), signal);
  }

  private async sample(job: Job, value: unknown, client: string, signal: AbortSignal): Promise<unknown> {
    const { checkpoint } = this.options;
    if (typeof value !== 'object' || value === null) throw new InvalidInputError('request', value, 'an object');
    const request = value as SampleRequest;
    this.checkSize(request);
    const every = Number(request.options?.previewEvery ?? SAMPLER_OPTIONS.previewEvery.default);
    const teller = new Teller(async (steps, picture) => {
      const packed = picture && pack(picture, 'picture');
      if (packed) await this.putBlobs(packed.blobs, (hash) => this.names.seen(job.id!, hash));
      await job.updateProgress({ steps, ...(packed && { picture: packed.body }) });
      if (await this.isUnwanted(job.id!, client)) this.cancel(job.id!);
    });
    const result = await sample(checkpoint, {
      ...request,
      signal,
      onStep: (progress: Progress) => {
        const { index, total, timestep, latents } = progress;
        const seen = every > 0 && index % every === 0;
        return teller.tell(
          [index, total, timestep],
          seen ? { latents, original: progress.predictedOriginal() } : undefined,
        );
      },
    });
    await teller.end();
    return result;
  }

  private checkSize({ options }: SampleRequest): void {
    const { nativeSize } = this.options.checkpoint.facts;
    const { maxPixels = MOST_PIXELS } = this.options;
    const pixels = Number(options?.width ?? nativeSize) * Number(options?.height ?? nativeSize);
    if (pixels > maxPixels)
      throw new MultiDiffusionError(
        'LIMIT',
        `The canvas has ${pixels} pixels; the pool's workers draw up to ${maxPixels}.`,
      );
  }

  /** Whether it was cancelled without this worker hearing of it, or its client is gone. */
  private async isUnwanted(id: string, client: string): Promise<boolean> {
    const [cancelled, alive] = await batch(this.redis, (pipeline) => {
      pipeline.exists(this.names.cancelled(id));
      pipeline.exists(this.names.client(client));
    });
    return cancelled === 1 || alive !== 1;
  }

  private async putResult(id: string, result: unknown): Promise<unknown> {
    const { body, blobs } = pack(result, 'result');
    await this.putBlobs(blobs, (hash) => this.names.result(id, hash));
    return body;
  }

  private async putBlobs(blobs: Blobs, keyOf: (hash: string) => string): Promise<void> {
    await batch(this.redis, (pipeline) => {
      for (const [hash, bytes] of blobs) pipeline.set(keyOf(hash), toBuffer(bytes), 'PX', TIMES.result);
    });
  }

  private cancel(id: string): void {
    const running = this.running.get(id);
    if (running) cancelJob(running.worker, id, new CancelledError());
  }

  private lose(worker: Worker, id: string): void {
    cancelJob(worker, id, new LostJob());
    const key = `${this.names.base}:${worker.name}:${id}`;
    this.redis.eval(NOT_MY_DEATH, 1, key, MOST_DEATHS).catch((error: Error) => this.tellTrouble(error));
  }

  /** Says that it is there, and, now and then, what it has. */
  private async announce(): Promise<void> {
    const { identity, checkpoint, source, name, version } = this.options;
    const info: WorkerInfo = {
      id: this.id,
      name: name ?? os.hostname(),
      protocol: PROTOCOL,
      version,
      identity,
      model: checkpoint.facts.name,
      ...source,
      provider: checkpoint.facts.provider,
      slots: this.slots,
      busy: this.busy,
      draining: this.draining,
      pictures: this.counts.get('sample done')?.jobs ?? 0,
      since: this.since,
    };
    const refresh = Date.now() - this.refreshed >= TIMES.refresh;
    await batch(this.redis, (pipeline) => {
      pipeline.set(this.names.worker(this.id), JSON.stringify(info), 'PX', TIMES.gone);
      pipeline.sadd(this.names.workers, this.id);
      if (!refresh) return;
      pipeline.set(this.names.facts(identity), JSON.stringify(checkpoint.facts), 'PX', TIMES.kept);
      for (const kind of ['pictures', 'calls'] as const)
        for (const key of this.names.keysOf(this.names.queue(kind, identity))) pipeline.pexpire(key, TIMES.job);
    });
    if (refresh) this.refreshed = Date.now();
  }

  private count(what: string, took: number): void {
    const { jobs, milliseconds } = this.counts.get(what) ?? { jobs: 0, milliseconds: 0 };
    this.counts.set(what, { jobs: jobs + 1, milliseconds: milliseconds + took });
  }

  private tellTrouble(error: Error): void {
    // The same every second, while Redis is away.
    const text = (explain(error, this.options.address) ?? error).message;
    if (text === this.said || this.draining) return;
    this.said = text;
    setTimeout(() => (this.said = ''), 30_000).unref();
    this.emit('trouble', explain(error, this.options.address) ?? error);
  }
}

/** Tells a client of steps, one message after the other; those that come meanwhile go together. */
class Teller {
  private steps: Array<[number, number, number]> = [];
  private telling: Promise<void> | undefined;
  private timer: NodeJS.Timeout | undefined;
  private last = 0;

  constructor(private readonly send: (steps: Array<[number, number, number]>, picture?: object) => Promise<void>) {}

  /** Resolves at once, but for a step with a picture when the one before it is not through yet. */
  async tell(step: [number, number, number], picture?: object): Promise<void> {
    if (picture) {
      // Nobody else may take the step meanwhile, and tell it without its picture.
      while (this.telling) await this.telling;
      this.steps.push(step);
      return this.flush(picture);
    }
    this.steps.push(step);
    if (this.telling || this.timer) return;
    const wait = this.last + TELL_INTERVAL - performance.now();
    if (wait <= 0) return void this.flush();
    this.timer = setTimeout(() => void this.flush(), wait);
  }

  /** What is left is told with the result, at the latest. */
  async end(): Promise<void> {
    while (this.telling) await this.telling;
    if (this.steps.length > 0) await this.flush();
  }

  private async flush(picture?: object): Promise<void> {
    clearTimeout(this.timer);
    this.timer = undefined;
    const { steps } = this;
    this.steps = [];
    this.last = performance.now();
    // A client that is not told misses a step of the progress, and not its picture.
    const telling = this.send(steps, picture).catch(() => undefined);
    this.telling = telling;
    await telling;
    if (this.telling === telling) this.telling = undefined;
    if (this.steps.length > 0 && !this.timer && !this.telling)
      this.timer = setTimeout(() => void this.flush(), Math.max(0, this.last + TELL_INTERVAL - performance.now()));
  }
}

/** The client is to send the job again. */
class Resend extends Error {}

function cancelJob(worker: Worker, id: string, reason: Error): void {
  // BullMQ hands the reason to the signal as it is.
  worker.cancelJob(id, reason as unknown as string);
}

function failureOf(error: unknown, address: RedisAddress): { code: string; message: string; property?: string } {
  if (error instanceof MissingBlobs) return { code: 'MISSING', message: 'what the job refers to has expired' };
  if (error instanceof Resend) return { code: error.message, message: '' };
  const known = explain(error, address);
  if (error instanceof InvalidInputError || error instanceof MissingInputError)
    return { code: error.code, message: error.message, property: error.property };
  if (known) return { code: known.code, message: known.message };
  return { code: 'INFERENCE', message: String((error as Error | undefined)?.message ?? error) };
}

/** As BullMQ keeps it: what went wrong, without a stack, which would tell of this machine's folders. */
function asFailure(failure: { code: string; message: string; property?: string }): Error {
  const error = new Error(JSON.stringify({ ...failure, message: withoutPaths(failure.message) }));
  error.stack = undefined;
  return error;
}

/** Paths are this machine's own: of each the last part is left. */
function withoutPaths(message: string): string {
  return message.replace(/(?:[A-Za-z]:)?(?:[\\/][^\\/\s"'`:,;()]+){2,}/g, (path) => path.split(/[\\/]/).pop()!);
}
