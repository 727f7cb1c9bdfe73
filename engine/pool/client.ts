/**
 * Asks a pool. A request becomes a job of BullMQ, found by its id; it ends here exactly once: when its result or its failure
 * is heard of, when it is cancelled, or when it has taken too long. What Redis lost, or a worker could not find, is sent again;
 * what happened while Redis was away is asked for. So a client needs nothing but that Redis comes back.
 */
import { randomUUID } from 'node:crypto';
import { EventEmitter } from 'node:events';
import type { Queue, QueueEvents } from 'bullmq';
import type { Redis } from 'ioredis';
import { CancelledError, isErrorCode, MultiDiffusionError, type ErrorCode } from '../errors';
import { batch, BlobStore, fetchAll, MissingBlobs } from './blobs';
import { pack, referencesOf, unpack, type Blobs } from './codec';
import { checkServer, connect, explain, isPassing, unreachable, type RedisAddress } from './connection';
import {
  ENDED_JOBS,
  type JobData,
  type JobKind,
  KEPT_EVENTS,
  MOST_JSON,
  Names,
  PROTOCOL,
  type QueueKind,
  readWorker,
  text,
  TIMES,
  type WorkerInfo,
} from './schema';

export interface CallOptions {
  signal?: AbortSignal;
  /** Milliseconds that it may take, waiting included; default: as long as it takes. */
  patience?: number;
  /** Higher goes first, among the jobs of all clients. */
  priority?: number;
  /** A worker has begun, perhaps once more. */
  onActive?: () => void;
  /** What the worker tells meanwhile; not checked yet. @param fetch gets what the worker says it has put somewhere */
  onProgress?: (progress: unknown, fetch: (body: unknown) => Promise<unknown>) => void;
}

interface Pending {
  id: string;
  kind: QueueKind;
  identity: string;
  /** Once it has been sent. */
  link?: Link;
  name: JobKind;
  body: unknown;
  blobs: Blobs;
  options: CallOptions;
  /** How often it has been sent. */
  sent: number;
  /** Whether it is being sent now. */
  sending: boolean;
  /** When something was last heard of it. */
  heard: number;
  active: boolean;
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
}

/** A queue, and what is heard of its jobs. */
interface Link {
  identity: string;
  name: string;
  queue: Queue;
  events: QueueEvents;
  eventsRedis: Redis;
}

/** Codes by which a worker says that a job is to be sent again. */
export const RESEND = ['MISSING', 'ORPHAN'] as const;
const MOST_SENDS = 5;
/** Milliseconds after which a job that nothing was heard of is asked about. */
const SILENCE = 4000;
const LOOK = 2000;
const RETRY = 1000;
const CLIENT_BEAT = TIMES.orphaned / 6;
const MIDDLE_PRIORITY = 1_000_000;

/** What a pool's clients see of it: state, and workers, have changed. */
interface Events {
  change: [];
}

export class PoolClient extends EventEmitter<Events> {
  readonly id = randomUUID();
  readonly names: Names;
  /** Why nothing can be asked now. */
  trouble: MultiDiffusionError | undefined;
  /** Whether the first attempt to connect is under way. */
  connecting = true;
  /** Those that were there at the last look. */
  workers: WorkerInfo[] = [];
  /** Bytes that were sent and fetched. */
  traffic = { sent: 0, fetched: 0 };
  private redis!: Redis;
  private blobs!: BlobStore;
  private ready = false;
  private looked = false;
  private closed = false;
  private beaten = 0;
  private serial = 0;
  private ticking = false;
  private readonly links = new Map<string, Promise<Link>>();
  private readonly pending = new Map<string, Pending>();
  /** Ids of jobs that were given up while a worker may have been at them. */
  private readonly abandoned = new Set<string>();
  private clock: NodeJS.Timeout | undefined;

  private constructor(
    readonly address: RedisAddress,
    pool: string,
  ) {
    super();
    this.setMaxListeners(0);
    this.names = new Names(pool);
    this.trouble = unreachable(address, 'connecting');
  }

  /**
   * Begins to connect; goes on for as long as it takes.
   * @throws InvalidInputError for an address or a pool's name that is none
   */
  static async open(address: RedisAddress, pool: string): Promise<PoolClient> {
    const client = new PoolClient(address, pool);
    client.redis = await connect(address, `multidiffusion client ${client.id.slice(0, 8)}`);
    client.blobs = new BlobStore(client.redis, (hash) => client.names.blob(hash));
    client.redis.on('ready', () => void client.onReady());
    client.redis.on('close', () => client.onTrouble(unreachable(address)));
    client.redis.on('error', (error) => client.onTrouble(explain(error, address) ?? unreachable(address)));
    client.redis.connect().catch(() => undefined);
    client.clock = setInterval(() => void client.tick(), LOOK).unref();
    return client;
  }

  /** Whether Redis answers, and the workers have been asked for. */
  get connected(): boolean {
    return this.ready && this.looked;
  }

  /** Jobs of this client that have not ended. */
  get waiting(): number {
    return this.pending.size;
  }

  /** The workers that draw with this checkpoint. */
  workersOf(identity: string): WorkerInfo[] {
    return this.workers.filter((worker) => worker.identity === identity && worker.protocol === PROTOCOL);
  }

  /** The facts of a checkpoint, as its workers published them; null where none did. */
  async factsOf(identity: string): Promise<string | null> {
    return this.redis.get(this.names.facts(identity));
  }

  /** Jobs of all clients that wait for a worker of this checkpoint. */
  async countWaiting(identity: string): Promise<number> {
    const counts = await batch(this.redis, (pipeline) => {
      for (const kind of ['pictures', 'calls'] as const) {
        const queue = `${this.names.base}:${this.names.queue(kind, identity)}`;
        pipeline.llen(`${queue}:wait`);
        pipeline.zcard(`${queue}:prioritized`);
      }
    });
    return counts.reduce<number>((sum, count) => sum + Number(count), 0);
  }

  /**
   * Has something done by a worker.
   * @returns what it made; not checked yet
   * @throws InvalidInputError for what can't be sent
   * @throws MultiDiffusionError what the worker said; PROCESS_DIED when two workers died of it; NO_REDIS, NO_WORKER or TIMEOUT
   *   when it took too long; REDIS_REFUSED, REDIS_UNFIT, REDIS_FULL
   */
  async run(
    kind: QueueKind,
    identity: string,
    name: JobKind,
    value: unknown,
    options: CallOptions = {},
  ): Promise<unknown> {
    const { signal, patience } = options;
    if (this.closed) throw new CancelledError('The model was unloaded.');
    if (signal?.aborted) throw reasonOf(signal);
    if (isFinal(this.trouble)) throw this.trouble!;
    const { body, blobs } = pack(value, name);
    // The hyphens of BullMQ's own ids are digits only, so ours never meet them.
    const id = `${this.id}-${++this.serial}`;
    return new Promise((resolve, reject) => {
      const onAbort = (): void => this.abandon(id, reasonOf(signal!));
      const timer = patience && setTimeout(() => this.abandon(id, this.whyLate(identity, patience)), patience);
      const settled = (): void => {
        signal?.removeEventListener('abort', onAbort);
        clearTimeout(timer || undefined);
      };
      const pending: Pending = {
        ...{ id, kind, identity, name, body, blobs, options },
        ...{ sent: 0, sending: false, heard: Date.now(), active: false },
        resolve: (result) => (settled(), resolve(result)),
        reject: (error) => (settled(), reject(error)),
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.pending.set(id, pending);
      this.updateHold();
      if (signal?.aborted) onAbort();
      else void this.send(pending);
    });
  }

  /** Why what was asked of this checkpoint's workers has not been done yet; undefined where they may be at it. */
  troubleOf(identity: string): MultiDiffusionError | undefined {
    if (this.trouble) return this.trouble;
    if (this.workersOf(identity).length > 0) return undefined;
    const other = this.workers.find((worker) => worker.identity === identity);
    return other
      ? new MultiDiffusionError(
          'VERSION_MISMATCH',
          `The pool "${this.names.pool}" has workers for this checkpoint, but of version ${other.version}, ` +
            'which this version of the package does not understand. Install the same version on both.',
        )
      : noWorker(this.names.pool);
  }

  /** Gives all its jobs up and lets the connections go. */
  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    clearInterval(this.clock);
    for (const id of [...this.pending.keys()]) this.abandon(id, new CancelledError('The model was unloaded.'));
    if (this.ready) {
      const leaving = this.redis.del(this.names.client(this.id)).catch(() => undefined);
      await Promise.race([leaving, new Promise((resolve) => setTimeout(resolve, 1000).unref())]);
    }
    for (const opening of this.links.values()) {
      const link = await opening.catch(() => undefined);
      link?.eventsRedis.disconnect();
      void link?.events.close().catch(() => undefined);
      void link?.queue.close().catch(() => undefined);
    }
    this.redis.disconnect();
    this.emit('change');
  }

  private async onReady(): Promise<void> {
    try {
      await checkServer(this.redis);
      this.connecting = false;
      this.ready = true;
      this.beaten = 0;
      // Who hears of workers must not be told of trouble that is over.
      const hadTrouble = this.trouble !== undefined;
      this.trouble = undefined;
      await this.look();
      if (hadTrouble) this.emit('change');
      // Of what happened meanwhile nothing was heard.
      for (const pending of this.pending.values()) pending.heard = 0;
      await this.tick();
    } catch (error) {
      this.onTrouble(explain(error, this.address) ?? unreachable(this.address));
    }
  }

  private onTrouble(trouble: MultiDiffusionError): void {
    if (this.closed) return;
    this.connecting = false;
    if (trouble.code === 'NO_REDIS') this.ready = false;
    // That the connection was closed then says less than why.
    if (trouble.code === 'NO_REDIS' && isFinal(this.trouble)) return;
    const changed = this.trouble?.message !== trouble.message;
    this.trouble = trouble;
    if (isFinal(trouble)) for (const { id } of [...this.pending.values()]) this.settle(id)?.reject(trouble);
    if (changed) this.emit('change');
  }

  /** The queue, opened when it is first used. */
  private link(kind: QueueKind, identity: string): Promise<Link> {
    const name = this.names.queue(kind, identity);
    let link = this.links.get(name);
    if (!link) {
      link = this.openLink(name, identity);
      this.links.set(name, link);
      link.catch(() => this.links.delete(name));
    }
    return link;
  }

  private async openLink(name: string, identity: string): Promise<Link> {
    const { Queue: BullQueue, QueueEvents: BullEvents } = await import('bullmq');
    // Nothing of what is sent later is missed, as it could be from '$' on.
    const from = await this.redis.time();
    const prefix = this.names.base;
    const queue = new BullQueue(name, {
      prefix,
      connection: this.redis,
      skipVersionCheck: true,
      streams: { events: { maxLen: KEPT_EVENTS } },
    });
    const eventsRedis = await connect(this.address, `multidiffusion events ${this.id.slice(0, 8)}`);
    const events = new BullEvents(name, {
      prefix,
      connection: eventsRedis,
      skipVersionCheck: true,
      blockingTimeout: 5000,
      lastEventId: `${Number(from[0]) * 1000 - 1000}-0`,
    });
    const link: Link = { identity, name, queue, events, eventsRedis };
    const find = (id: string): Pending | undefined => {
      const pending = this.pending.get(id);
      if (pending) pending.heard = Date.now();
      return pending;
    };
    queue.on('error', () => undefined);
    events.on('error', () => undefined);
    events.on('active', ({ jobId }) => this.onActive(find(jobId)));
    events.on('progress', ({ jobId, data }) => this.onProgress(find(jobId), data));
    events.on('completed', ({ jobId, returnvalue }) => void this.onCompleted(find(jobId), returnvalue));
    events.on('failed', ({ jobId, failedReason }) => {
      void this.onFailed(find(jobId), failedReason);
      if (this.abandoned.delete(jobId)) void queue.remove(jobId).catch(() => undefined);
    });
    this.redis.sadd(this.names.queues, name).catch(() => undefined);
    return link;
  }

  private async send(pending: Pending): Promise<void> {
    if (pending.sending) return;
    pending.sending = true;
    const { id, name, body, blobs, options } = pending;
    try {
      const link = (pending.link ??= await this.link(pending.kind, pending.identity));
      await this.beat();
      this.traffic.sent += await this.blobs.put(blobs);
      if (!this.pending.has(id)) return;
      const data: JobData = { protocol: PROTOCOL, client: this.id, body };
      await link.queue.add(name, data, {
        jobId: id,
        // In BullMQ lower goes first, and jobs without a priority before all others.
        ...(options.priority !== undefined && { priority: MIDDLE_PRIORITY - Math.round(options.priority) }),
        attempts: 1,
        stackTraceLimit: 0,
        sizeLimit: MOST_JSON,
        removeOnComplete: ENDED_JOBS,
        removeOnFail: ENDED_JOBS,
      });
      pending.sent++;
      pending.heard = Date.now();
      this.refresh(link, [id]).catch(() => undefined);
      // Cancelled while it was on its way.
      if (!this.pending.has(id)) this.cancel(id, link);
    } catch (error) {
      if (/exceeds the limit/.test((error as Error).message)) {
        const text = `The request has more than ${MOST_JSON} characters, which is too large for a pool.`;
        return this.settle(id)?.reject(new MultiDiffusionError('LIMIT', text));
      }
      const known = explain(error, this.address);
      if (known && known.code !== 'NO_REDIS') return this.settle(id)?.reject(known);
      if (!known) return this.settle(id)?.reject(error as Error);
      setTimeout(() => this.pending.has(id) && void this.send(pending), RETRY).unref();
    } finally {
      pending.sending = false;
    }
  }

  private onActive(pending: Pending | undefined): void {
    if (!pending) return;
    pending.active = true;
    pending.options.onActive?.();
  }

  private onProgress(pending: Pending | undefined, progress: unknown): void {
    if (!pending) return;
    if (!pending.active) this.onActive(pending);
    pending.options.onProgress?.(progress, (body) => this.fetch(body, (hash) => this.names.seen(pending.id, hash)));
  }

  private async onCompleted(pending: Pending | undefined, value: unknown): Promise<void> {
    if (!pending) return;
    const { id, link } = pending;
    const { body, shared } = (value ?? {}) as { body?: unknown; shared?: unknown };
    try {
      const result = await (shared === true ? this.fetchShared(body) : this.fetchResult(id, body));
      this.settle(id)?.resolve(result);
    } catch (error) {
      if (error instanceof MissingBlobs) return void (await this.resend(pending));
      const known = explain(error, this.address);
      if (known?.code === 'NO_REDIS') return void (pending.heard = 0); // it is asked for when Redis is back
      this.settle(id)?.reject(known ?? (error as Error));
    }
    this.cleanUp(id, link!, shared === true ? undefined : body);
  }

  private async onFailed(pending: Pending | undefined, reason: unknown): Promise<void> {
    if (!pending) return;
    const { id, link } = pending;
    const failure = readFailure(reason);
    if ('resend' in failure) {
      this.blobs.forget(pending.blobs.keys());
      this.beaten = 0;
      return this.resend(pending);
    }
    this.settle(id)?.reject(failure.error);
    this.cleanUp(id, link!, undefined);
  }

  private async resend(pending: Pending): Promise<void> {
    const { id, link } = pending;
    if (pending.sent >= MOST_SENDS) {
      const text = "The pool's Redis lost what was sent to it again and again: its memory may be too small.";
      return void this.settle(id)?.reject(new MultiDiffusionError('NO_REDIS', text));
    }
    // An id that has ended is not added again.
    await link!.queue.remove(id).catch(() => undefined);
    if (this.pending.has(id)) await this.send(pending);
  }

  private async fetchShared(body: unknown): Promise<unknown> {
    const value = await unpack(body, (references) => this.blobs.get(references));
    this.blobs.noteSent(referencesOf(body).map(({ hash }) => hash));
    return value;
  }

  private fetchResult(id: string, body: unknown): Promise<unknown> {
    return this.fetch(body, (hash) => this.names.result(id, hash));
  }

  private fetch(body: unknown, keyOf: (hash: string) => string): Promise<unknown> {
    return unpack(body, (references) => {
      this.traffic.fetched += references.reduce((sum, { bytes }) => sum + bytes, 0);
      return fetchAll(this.redis, references, keyOf);
    });
  }

  /** What nobody needs any longer; where Redis is away, it expires. */
  private cleanUp(id: string, link: Link, body: unknown): void {
    if (!this.ready) return;
    const keys = body === undefined ? [] : referencesOf(body).map(({ hash }) => this.names.result(id, hash));
    if (keys.length > 0) this.redis.unlink(...keys).catch(() => undefined);
    link.queue.remove(id).catch(() => undefined);
  }

  private abandon(id: string, reason: Error): void {
    const pending = this.settle(id);
    if (!pending) return;
    pending.reject(reason);
    if (pending.link) this.cancel(id, pending.link);
  }

  private cancel(id: string, link: Link): void {
    this.abandoned.add(id);
    if (this.abandoned.size > 10_000) this.abandoned.delete(this.abandoned.values().next().value!);
    const done = batch(this.redis, (pipeline) => {
      pipeline.set(this.names.cancelled(id), '1', 'PX', TIMES.kept);
      pipeline.publish(this.names.cancellations, id);
    });
    // One that waits is gone then; one that a worker has is locked, and fails when the worker hears of it.
    done.then(() => link.queue.remove(id)).catch(() => undefined);
  }

  private settle(id: string): Pending | undefined {
    const pending = this.pending.get(id);
    this.pending.delete(id);
    this.updateHold();
    return pending;
  }

  /** Only while something is asked the process is kept from ending. */
  private updateHold(): void {
    if (this.pending.size > 0) this.clock?.ref();
    else this.clock?.unref();
  }

  private whyLate(identity: string, patience: number): MultiDiffusionError {
    return (
      this.troubleOf(identity) ??
      new MultiDiffusionError('TIMEOUT', `The pool took longer than ${patience / 1000} seconds.`)
    );
  }

  /** Says that this client lives: the jobs of one that doesn't are orphans. */
  private async beat(): Promise<void> {
    if (Date.now() - this.beaten < CLIENT_BEAT) return;
    await this.redis.set(this.names.client(this.id), '1', 'PX', TIMES.orphaned);
    this.beaten = Date.now();
    const sent = [...this.pending.values()].filter(({ sent: times }) => times > 0);
    for (const link of new Set(sent.map((pending) => pending.link!)))
      await this.refresh(
        link,
        sent.filter((pending) => pending.link === link).map(({ id }) => id),
      );
  }

  /** Keeps a queue and these of its jobs alive. Where no worker ever comes, they end some time after their client. */
  private async refresh({ name }: Link, jobs: string[]): Promise<void> {
    await batch(this.redis, (pipeline) => {
      for (const key of this.names.keysOf(name, jobs)) pipeline.pexpire(key, TIMES.job);
    });
  }

  private async tick(): Promise<void> {
    if (this.ticking || this.closed) return;
    // Somebody may have set right what was wrong with it.
    if (!this.ready && this.redis.status === 'ready') return this.onReady();
    if (!this.ready) return;
    this.ticking = true;
    try {
      if (this.pending.size > 0) await this.beat();
      await this.look();
      for (const pending of [...this.pending.values()])
        if (!pending.sending && pending.sent > 0 && Date.now() - pending.heard > SILENCE) await this.ask(pending);
    } catch {
      // Redis went away meanwhile; it is looked at again when it is back.
    } finally {
      this.ticking = false;
    }
  }

  /** Asks for what may have been missed of a job. */
  private async ask(pending: Pending): Promise<void> {
    const { id } = pending;
    const { queue } = pending.link!;
    const state = await queue.getJobState(id);
    if (!this.pending.has(id) || pending.sending) return;
    pending.heard = Date.now();
    if (state === 'unknown') return this.send(pending);
    if (state === 'active' && !pending.active) return this.onActive(pending);
    if (state !== 'completed' && state !== 'failed') return;
    const job = await queue.getJob(id);
    if (state === 'completed') await this.onCompleted(pending, job?.returnvalue);
    else await this.onFailed(pending, job?.failedReason);
  }

  /** Looks who is there. */
  private async look(): Promise<void> {
    const ids = await this.redis.smembers(this.names.workers);
    const said = ids.length > 0 ? await this.redis.mget(ids.map((id) => this.names.worker(id))) : [];
    const gone = ids.filter((_, i) => said[i] === null);
    if (gone.length > 0) await this.redis.srem(this.names.workers, ...gone);
    const before = JSON.stringify(this.workers);
    this.workers = said
      .map(readWorker)
      .filter((worker) => worker !== undefined)
      .sort((a, b) => a.since - b.since || (a.id < b.id ? -1 : 1));
    this.looked = true;
    if (JSON.stringify(this.workers) !== before) this.emit('change');
  }
}

/** Whether it does not go away by itself. */
export function isFinal(trouble: MultiDiffusionError | undefined): boolean {
  return trouble !== undefined && !isPassing(trouble);
}

export function noWorker(pool: string, what = 'this checkpoint'): MultiDiffusionError {
  return new MultiDiffusionError(
    'NO_WORKER',
    `No worker of the pool "${pool}" has ${what}. Start one with it: npx multidiffusion-worker --help.`,
  );
}

/** A failure of a job as its worker said it, or BullMQ. */
function readFailure(reason: unknown): { error: MultiDiffusionError } | { resend: true } {
  const said = typeof reason === 'string' ? reason : '';
  if (/stalled more than allowable/.test(said)) {
    return {
      error: new MultiDiffusionError(
        'PROCESS_DIED',
        'Two workers died, or were cut off, while they were at this job. It was given up, so that it does no harm to others.',
      ),
    };
  }
  try {
    const { code, message, property } = JSON.parse(said) as Record<string, unknown>;
    if ((RESEND as readonly unknown[]).includes(code)) return { resend: true };
    if (isErrorCode(code)) return { error: remoteError(code, text(message, 2000), text(property, 200)) };
  } catch {
    // It is no worker's own word.
  }
  return {
    error: new MultiDiffusionError('INFERENCE', `The worker failed: ${text(said, 500) || 'it does not say why'}`),
  };
}

function remoteError(code: ErrorCode, message: string, property: string): MultiDiffusionError {
  if (code === 'CANCELLED') return new CancelledError(message);
  const error = new MultiDiffusionError(code, message);
  return property ? Object.assign(error, { property }) : error;
}

function reasonOf(signal: AbortSignal): Error {
  return signal.reason instanceof MultiDiffusionError ? signal.reason : new CancelledError();
}
