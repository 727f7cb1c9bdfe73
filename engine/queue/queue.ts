/**
 * The jobs of one loaded checkpoint: one at a time (or as many as it has processes), higher priority first; within a priority the
 * clients take turns, each with its jobs in the order of asking. Every job ends exactly once, as done, failed or cancelled.
 */
import { EventEmitter } from 'node:events';
import { randomUUID } from 'node:crypto';
import { CancelledError, InvalidInputError, MultiDiffusionError } from '../errors';
import { FairLine } from './fair-line';

/** What a full queue does with a new job: refuse it, or let it replace a waiting one. */
export type Overflow = 'refuse' | 'replace-newest' | 'replace-oldest';

export interface JobQueueOptions {
  /** Jobs that run at a time; default 1. */
  concurrency?: number;
  /** Most jobs that wait, the running one not counted. */
  limit?: number;
  overflow?: Overflow;
  /** Most jobs that one client has waiting or running; default: no limit but the queue's. */
  perClient?: number;
  /** What a job's timeout means where something else than the job takes so long; undefined: the job. */
  explainTimeout?: () => Error | undefined;
}

export interface JobOptions {
  /** Default: a new one. */
  id?: string;
  /** Higher goes first; default 0. */
  priority?: number;
  /** Who asked for it. Jobs of nobody in particular are not counted by client, and take turns as one client's. */
  client?: string;
  /** Cancels the job. */
  signal?: AbortSignal;
  /** Milliseconds from its start after which a job ends with TIMEOUT. */
  timeout?: number;
}

export interface JobContext {
  id: string;
  /** Aborted, with the error as its reason, when the job is to stop. */
  signal: AbortSignal;
}

export type JobState = 'queued' | 'running' | 'done' | 'failed' | 'cancelled';

export interface Job<T = unknown> {
  readonly id: string;
  readonly priority: number;
  readonly client?: string;
  readonly state: JobState;
  /** Settles when the job ends. */
  readonly result: Promise<T>;
  /** Milliseconds since the epoch. */
  readonly queuedAt: number;
  readonly startedAt?: number;
  readonly endedAt?: number;
}

export interface JobEvents {
  queued: [Job];
  started: [Job];
  done: [Job];
  failed: [Job, Error];
  cancelled: [Job, Error];
  /** After the number of waiting or running jobs changed. */
  depth: [number];
}

class QueuedJob<T = unknown> implements Job<T> {
  state: JobState = 'queued';
  readonly queuedAt = Date.now();
  startedAt?: number;
  endedAt?: number;
  readonly result: Promise<T>;
  readonly abort = new AbortController();
  settle!: (outcome: { value: T } | { error: Error }) => void;

  constructor(
    readonly id: string,
    readonly priority: number,
    readonly work: (context: JobContext) => Promise<T>,
    readonly timeout: number | undefined,
    readonly client: string | undefined,
    /** Counts up from job to job: the clock may give two the same time. */
    readonly serial: number,
  ) {
    this.result = new Promise((resolve, reject) => {
      this.settle = (outcome) => ('error' in outcome ? reject(outcome.error) : resolve(outcome.value));
    });
    // Who only listens to events must not be hit by an unhandled rejection.
    this.result.catch(() => undefined);
  }
}

export class JobQueue extends EventEmitter<JobEvents> {
  private most: number;
  readonly limit: number;
  readonly overflow: Overflow;
  readonly perClient: number;
  private added = 0;
  private readonly waiting = new FairLine<QueuedJob>();
  private readonly running: QueuedJob[] = [];
  private closed = false;
  private readonly explainTimeout: JobQueueOptions['explainTimeout'];

  constructor(options: JobQueueOptions = {}) {
    super();
    this.setMaxListeners(0);
    this.most = options.concurrency ?? 1;
    this.explainTimeout = options.explainTimeout;
    this.limit = options.limit ?? 32;
    this.overflow = options.overflow ?? 'refuse';
    this.perClient = options.perClient ?? Infinity;
  }

  /** Jobs that run at a time. */
  get concurrency(): number {
    return this.most;
  }

  /** More jobs start at once; where it falls, those that run go on. */
  set concurrency(most: number) {
    this.most = most;
    for (let free = most - this.running.length; free > 0; free--) queueMicrotask(() => this.startNext());
  }

  /** The running job that is given up by this signal: the one that its work was handed. */
  jobOf(signal: AbortSignal | undefined): Job | undefined {
    return this.running.find((job) => job.abort.signal === signal);
  }

  /** Jobs that wait or run. */
  get depth(): number {
    return this.waiting.length + this.running.length;
  }

  /** Jobs before the one with this id, as long as nobody else asks: 0 when it runs, -1 when there is none. */
  position(id: string): number {
    if (this.running.some((job) => job.id === id)) return 0;
    const index = this.waiting.all.findIndex((job) => job.id === id);
    return index < 0 ? -1 : index + this.running.length;
  }

  /** The jobs that run or wait, in order. */
  get jobs(): Job[] {
    return [...this.running, ...this.waiting.all];
  }

  /**
   * @param work does the job; it should stop soon after the signal is aborted. It is not waited for then:
   *   the job has ended, and the next one starts.
   * @throws MultiDiffusionError QUEUE_FULL when the queue or the client's share of it is full, INVALID_INPUT when a
   *   job with this id waits or runs
   */
  add<T>(work: (context: JobContext) => Promise<T>, options: JobOptions = {}): Job<T> {
    const { id = randomUUID(), priority = 0, client, signal } = options;
    if (this.closed) throw new CancelledError('The model was unloaded.');
    if (this.position(id) >= 0) throw new InvalidInputError('job', id, 'an id that no waiting or running job has');
    if (typeof priority !== 'number' || Number.isNaN(priority))
      throw new InvalidInputError('priority', priority, 'a number');
    this.checkClient(client);
    // Where fewer run than may, the first of the waiting jobs are about to.
    if (this.waiting.length >= this.limit + Math.max(0, this.concurrency - this.running.length))
      this.makeRoom(priority);
    const job = new QueuedJob<T>(id, priority, work, options.timeout, client, this.added++);
    this.waiting.add(job as QueuedJob);

    const onAbort = (): void => void this.cancel(id, signal?.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    void job.result.catch(() => undefined).then(() => signal?.removeEventListener('abort', onAbort));
    // Not at once, so that the caller has the job in hand before it starts.
    queueMicrotask(() => this.startNext());
    this.emit('queued', job);
    this.emit('depth', this.depth);
    if (signal?.aborted) onAbort();
    return job;
  }

  /** @returns whether there was such a job */
  cancel(id: string, reason?: unknown): boolean {
    const job = [...this.running, ...this.waiting.all].find((other) => other.id === id);
    if (!job) return false;
    this.finish(job, {
      error:
        reason instanceof MultiDiffusionError
          ? reason
          : new CancelledError(typeof reason === 'string' ? reason : undefined),
    });
    return true;
  }

  /** @returns how many jobs were cancelled */
  cancelAll(reason?: unknown): number {
    const jobs = [...this.waiting.all, ...this.running];
    for (const { id } of jobs) this.cancel(id, reason);
    return jobs.length;
  }

  /** Cancels everything and refuses new jobs. */
  close(): void {
    this.closed = true;
    this.cancelAll('The model was unloaded.');
  }

  private checkClient(client: string | undefined): void {
    if (client === undefined) return;
    const jobs = this.jobs.filter((job) => job.client === client).length;
    if (jobs < this.perClient) return;
    throw new MultiDiffusionError(
      'QUEUE_FULL',
      `This client has ${jobs} jobs waiting or running, the limit for one client. Try again later.`,
    );
  }

  /** Ends a waiting job of the lowest priority, but none that goes before the new one. */
  private makeRoom(priority: number): void {
    const full = `${this.waiting.length} jobs are waiting already, which is the queue's limit`;
    const last = this.waiting.all.at(-1);
    if (this.overflow === 'refuse' || !last || last.priority > priority)
      throw new MultiDiffusionError('QUEUE_FULL', `${full}. Try again later.`);
    const byAge = this.waiting.all.filter((job) => job.priority === last.priority).sort((a, b) => a.serial - b.serial);
    const victim = this.overflow === 'replace-oldest' ? byAge[0] : byAge[byAge.length - 1];
    this.finish(victim, {
      error: new MultiDiffusionError('QUEUE_FULL', `${full}: a newer job took this one's place.`),
    });
  }

  private startNext(): void {
    if (this.running.length >= this.concurrency) return;
    const job = this.waiting.shift();
    if (!job) return;
    this.running.push(job);
    job.state = 'running';
    job.startedAt = Date.now();
    this.emit('started', job);
    // A listener may have cancelled it.
    if (job.state === 'running') void this.perform(job);
  }

  private async perform(job: QueuedJob): Promise<void> {
    const timer =
      job.timeout &&
      setTimeout(
        () =>
          this.finish(job, {
            error:
              this.explainTimeout?.() ??
              new MultiDiffusionError('TIMEOUT', `The job took longer than its ${job.timeout! / 1000} seconds.`),
          }),
        job.timeout,
      );
    try {
      this.finish(job, { value: await job.work({ id: job.id, signal: job.abort.signal }) });
    } catch (error) {
      this.finish(job, { error: error instanceof Error ? error : new Error(String(error)) });
    } finally {
      clearTimeout(timer || undefined);
    }
  }

  /** The one place where a job ends; whatever comes later is ignored. */
  private finish(job: QueuedJob, outcome: { value: unknown } | { error: Error }): void {
    if (job.endedAt !== undefined) return;
    job.endedAt = Date.now();
    const index = this.running.indexOf(job);
    if (index >= 0) this.running.splice(index, 1);
    else this.waiting.remove(job);
    const error = 'error' in outcome ? outcome.error : undefined;
    const cancelled = error instanceof CancelledError;
    job.state = !error ? 'done' : cancelled ? 'cancelled' : 'failed';
    if (error) job.abort.abort(error);
    job.settle(outcome);
    // Asked for before anybody is told, so that a listener that throws does not stop the queue.
    queueMicrotask(() => this.startNext());
    if (!error) this.emit('done', job);
    else if (cancelled) this.emit('cancelled', job, error);
    else this.emit('failed', job, error);
    this.emit('depth', this.depth);
  }
}
