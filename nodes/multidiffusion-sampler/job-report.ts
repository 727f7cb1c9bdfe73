/** The sampler's jobs as the user sees them: an id, events on the progress output, a status, a way to cancel. */
import { randomUUID } from 'node:crypto';
import type { Node } from 'node-red';
import { CancelledError, InvalidInputError, MultiDiffusionError, show } from '../../engine/errors';
import type { JobQueue } from '../../engine/queue/queue';
import { readClient, readPriority } from '../shared/job-origin';
import { isKnownJob, rememberJob } from '../shared/jobs';
import { own, type Message } from '../shared/message';
import type { JobNews } from '../shared/gallery';
import type { Hindrance } from '../../engine/checkpoint/pool';
import type { Task } from '../shared/tasks';

const STATUS_INTERVAL_MS = 200;

export type JobEvent = 'queued' | 'started' | 'step' | 'done' | 'failed' | 'cancelled';

export class JobReport {
  readonly id: string;
  private readonly priority: number;
  private readonly client: string | undefined;
  private queue: JobQueue | undefined;
  private queuedAt = 0;
  private started = 0;
  private shown = 0;

  /**
   * @param tell for the editor: the job's events, though not every step
   * @throws InvalidInputError when msg.job, msg.priority or msg.client is no good
   */
  constructor(
    private readonly task: Task,
    private readonly tell: (news: JobNews) => void,
  ) {
    this.id = readId(task.msg);
    this.priority = readPriority(task.msg);
    this.client = readClient(task.msg);
    rememberJob(this.id);
  }

  /** Milliseconds that the job waited for its turn. */
  get waited(): number {
    return Math.round(this.started - this.queuedAt);
  }

  /**
   * Waits for the job's turn and does the work.
   * @param timeout milliseconds that the work may take
   * @throws what the work throws, CancelledError, or MultiDiffusionError QUEUE_FULL or TIMEOUT
   */
  async run<T>(queue: JobQueue, work: (signal: AbortSignal) => Promise<T>, timeout?: number): Promise<T> {
    this.queue = queue;
    this.queuedAt = performance.now();
    const place = queue.add(
      ({ signal }) => {
        this.started = performance.now();
        this.report('started');
        this.waits();
        return work(signal);
      },
      { id: this.id, priority: this.priority, client: this.client, signal: this.task.signal, timeout },
    );
    const showPlace = (): void => {
      const position = queue.position(this.id);
      if (position > 0) this.task.status.busy('queued', { position });
    };
    this.report('queued', { position: Math.max(0, queue.position(this.id)), depth: queue.depth });
    showPlace();
    queue.on('depth', showPlace);
    return place.result.finally(() => queue.off('depth', showPlace));
  }

  /** What is shown until the next step, which may take minutes. @param hindrance why not yet */
  waits(hindrance?: Hindrance): void {
    if (this.started > 0) this.task.status.busy(hindrance ?? 'drawing');
  }

  /** @param index model evaluations done, of `total` */
  step(index: number, total: number): void {
    const now = performance.now();
    const rate = round((index * 1000) / Math.max(1, now - this.started));
    this.send('step', { index, total, rate });
    if (index < total && now - this.shown < STATUS_INTERVAL_MS) return;
    this.shown = now;
    this.tell({ job: this.id, event: 'step', index, total, rate });
    const waiting = (this.queue?.depth ?? 1) - 1;
    if (waiting > 0) this.task.status.busy('stepWaiting', { index, total, rate, waiting });
    else this.task.status.busy('step', { index, total, rate });
  }

  done(facts: Record<string, unknown>): void {
    this.report('done', facts);
  }

  failed(error: unknown): void {
    if (this.task.signal.aborted || error instanceof CancelledError) this.report('cancelled');
    else
      this.report('failed', {
        error: String((error as Error).message),
        code: error instanceof MultiDiffusionError ? error.code : undefined,
      });
  }

  cancel(reason: string): void {
    this.task.cancel(reason);
  }

  /**
   * Sends a picture of how far the job is on the preview output.
   * @param png the bytes of its file
   */
  preview(png: Buffer, index: number, total: number): void {
    const { _msgid, topic } = this.task.msg;
    this.task.send([
      null,
      null,
      null,
      { _msgid, ...(topic === undefined ? {} : { topic }), payload: png, job: this.id, index, total },
    ]);
  }

  private report(event: JobEvent, facts: Record<string, unknown> = {}): void {
    this.send(event, facts);
    this.tell({ job: this.id, event, ...facts });
  }

  private send(event: JobEvent, facts: Record<string, unknown>): void {
    const { _msgid, topic } = this.task.msg;
    this.task.send([
      null,
      null,
      { _msgid, ...(topic === undefined ? {} : { topic }), payload: { job: this.id, event, ...facts } },
    ]);
  }
}

/**
 * msg.reset cancels every job, msg.cancel the one with that id. The message may have been sent to several samplers,
 * or come when the job has just ended: only an id that no job had in any of them is worth a word.
 */
export function cancelJobs(jobs: ReadonlySet<JobReport>, msg: Message, node: Node): void {
  const id = own(msg, 'cancel');
  if (id !== undefined && !isKnownJob(id))
    node.warn(
      `msg.cancel is ${show(id)}, but no sampler has had a job with this id. ` +
        'Use the msg.job of the request, or the job that the progress output reports.',
    );
  for (const job of jobs) {
    if (id === undefined) job.cancel('The job was cancelled by msg.reset.');
    else if (job.id === id) job.cancel('The job was cancelled by msg.cancel.');
  }
}

/** The flow may name its job by msg.job, so that it can speak of it before it begins. */
function readId(msg: Message): string {
  const id = own(msg, 'job');
  if (id === undefined) return randomUUID();
  if (typeof id !== 'string' || id === '' || id.length > 100)
    throw new InvalidInputError('job', id, 'text of 1 to 100 characters');
  return id;
}

const round = (value: number): number => Number(value.toPrecision(2));
