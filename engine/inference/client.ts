/**
 * Asks the inference process. The process is started at the first request and ends when it has been idle,
 * when it is told to, and when this process ends in whatever way.
 *
 * When it dies, it is started again, after pauses that grow while it keeps dying. What it was working on
 * is sent once more, one request at a time, so that a request that kills it fails alone; after a second
 * death the request fails with PROCESS_DIED. A process that hangs is ended and counts as one that died; one that
 * completes nothing within the time limit is ended, too, and what it was working on fails with TIMEOUT.
 */
import { abortReason, CancelledError, MultiDiffusionError } from '../errors';
import type { Tensor } from '../tensor';
import { Child, type ChildOptions } from './child';
import { embeddingsKey } from './embeddings';
import { Pieces, type Piece } from './pieces';
import type { Hang } from './pulse';
import type { CallName, Calls, FromProcess, ProcessSetup, ToProcess } from './protocol';

export type ProcessState =
  | 'stopped' // not started yet, or ended because nobody needed it
  | 'starting'
  | 'loading' // a component's weights, named by `detail`
  | 'warming' // the component named by `detail` is run for the first time with a new size
  | 'ready'
  | 'restarting' // it died, and is started again after a pause
  | 'failed' // it could not be started
  | 'unreachable' // of a pool: its Redis does not answer
  | 'unserved' // of a pool: no worker has this checkpoint
  | 'closed';

export interface ProcessStatus {
  state: ProcessState;
  /** The component that is loaded, or the error's sentence. */
  detail?: string;
}

export interface ClientOptions extends ChildOptions {
  onStatus?: (status: ProcessStatus) => void;
  /** Milliseconds without a request after which the process ends; the next request starts it again. 0: never. */
  idleTimeout?: number;
  /** Told when a process had to be ended because it hung. */
  onHang?: (text: string) => void;
}

interface Pending {
  id: number;
  /** Sends the request to the process, with whatever that process still lacks. */
  send: (child: Child) => void;
  resolve: (result: unknown) => void;
  reject: (error: Error) => void;
  sent: boolean;
  /** How many processes died under it. */
  deaths: number;
}

/** Times that a request sees the process die before it fails. */
const MOST_DEATHS = 2;
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 30_000;

export class InferenceClient {
  private child?: Child;
  private opened = false;
  private closed = false;
  private provider?: string;
  private readonly pending = new Map<number, Pending>();
  private readonly pieces = new Pieces();
  /** Requests that the process has been sent and not answered, cancelled ones too. */
  private readonly unanswered = new Set<number>();
  private nextId = 1;
  /** Deaths since the last answered request. */
  private deaths = 0;
  private pause?: NodeJS.Timeout;
  private startAfter = 0;
  private idle?: NodeJS.Timeout;
  /** What keeps requests waiting: for each component named whether it is loaded or warmed up. */
  private readonly preparing = new Map<string, 'loading' | 'warming'>();
  private leaving: Promise<void> = Promise.resolve();
  private current: ProcessStatus = { state: 'stopped' };

  constructor(
    private readonly setup: ProcessSetup,
    private readonly options: ClientOptions = {},
  ) {}

  get status(): ProcessStatus {
    return this.current;
  }

  /** Whether a request is under way. */
  get busy(): boolean {
    return this.pending.size > 0;
  }

  /** Requests under way. */
  get waiting(): number {
    return this.pending.size;
  }

  /** Id of the running process. */
  get pid(): number | undefined {
    return this.child?.pid;
  }

  /**
   * Starts the process if need be.
   * @returns where the checkpoint runs
   * @throws MultiDiffusionError PROVIDER when the execution provider can't be used, PROCESS_DIED when the process can't be started
   */
  async open(signal?: AbortSignal): Promise<string> {
    return this.provider && this.opened
      ? this.provider
      : (await this.call('open', () => ({ setup: this.setup }), signal)).provider;
  }

  /**
   * @param build makes the request's parameters; called again when the request is repeated on a new process
   * @throws CancelledError or the signal's own error when it is aborted
   * @throws MultiDiffusionError what the process answered, or PROCESS_DIED
   */
  call<N extends CallName>(
    name: N,
    build: () => Calls[N]['params'],
    signal?: AbortSignal,
  ): Promise<Calls[N]['result']> {
    return new Promise((resolve, reject) => {
      if (this.closed) return reject(new CancelledError('The model was unloaded.'));
      if (signal?.aborted) return reject(abortReason(signal));
      const id = this.nextId++;
      const onAbort = (): void => this.cancel(id, abortReason(signal as AbortSignal));
      signal?.addEventListener('abort', onAbort, { once: true });
      this.pending.set(id, {
        id,
        send: (child) => child.post({ type: name, id, ...build() } as ToProcess),
        resolve: (result) => {
          signal?.removeEventListener('abort', onAbort);
          resolve(result as Calls[N]['result']);
        },
        reject: (error) => {
          signal?.removeEventListener('abort', onAbort);
          reject(error);
        },
        sent: false,
        deaths: 0,
      });
      this.dispatch();
    });
  }

  /**
   * Makes sure that the process holds these embeddings; to be called while a request is built.
   * @param tensor [1, L, D], float32 or float16
   * @returns the key by which requests name them
   * @throws InvalidInputError when it is no such tensor
   */
  hold(tensor: Tensor): string {
    return this.child ? this.child.embeddings.hold(tensor) : embeddingsKey(tensor);
  }

  /** Ends the process, and with it every request; the next one starts it again. */
  async unload(): Promise<void> {
    this.rejectAll(new CancelledError('The model was unloaded.'));
    await this.end('stopped');
  }

  /** Ends the process for good. */
  async close(): Promise<void> {
    this.closed = true;
    this.rejectAll(new CancelledError('The model was unloaded.'));
    await this.end('closed');
  }

  /** Sends what can be sent; starts the process when there is something to send. */
  private dispatch(): void {
    this.updateHolds();
    if (this.pending.size === 0) return;
    if (!this.child) return this.startSoon();
    if (!this.opened) return;
    const waiting = [...this.pending.values()];
    if (waiting.some((request) => request.sent && request.deaths > 0)) return;
    const suspect = waiting.find((request) => request.deaths > 0);
    for (const request of suspect ? [suspect] : waiting) {
      if (request.sent) continue;
      request.sent = true;
      try {
        request.send(this.child);
        this.unanswered.add(request.id);
      } catch (error) {
        this.settle(request.id)?.reject(error as Error);
      }
    }
    this.child.embeddings.dropOldest();
    this.updateHolds();
  }

  /** Only a process with work keeps this one alive, and only one without work is timed. */
  private updateHolds(): void {
    clearTimeout(this.idle);
    const busy = this.pending.size > 0;
    if (!busy) {
      clearTimeout(this.pause);
      this.pause = undefined;
    }
    if (this.child) {
      this.child.keepsAlive = busy;
      this.child.watched = !this.opened || this.unanswered.size > 0;
    }
    if (!busy && this.child && this.options.idleTimeout) {
      this.idle = setTimeout(() => void this.end('stopped'), this.options.idleTimeout).unref();
    }
  }

  private startSoon(): void {
    if (this.pause) return;
    const wait = this.startAfter - Date.now();
    if (wait <= 0) return this.start();
    this.setStatus('restarting');
    this.pause = setTimeout(() => {
      this.pause = undefined;
      if (this.pending.size > 0 && !this.child) this.start();
    }, wait);
  }

  private start(): void {
    this.setStatus(this.deaths > 0 ? 'restarting' : 'starting');
    this.preparing.clear();
    try {
      const child: Child = new Child(this.options, {
        onMessage: (message) => this.receive(child, message),
        onEnd: (how, hang) => this.died(child, how, hang),
      });
      this.child = child;
      child.post({ type: 'open', id: 0, setup: this.setup });
    } catch (error) {
      // Such as no memory for another process.
      const message = `The inference process could not be started: ${(error as Error).message}.`;
      this.setStatus('failed', message);
      return this.rejectAll(new MultiDiffusionError('PROCESS_DIED', message, { cause: error }));
    }
    this.updateHolds();
  }

  private receive(child: Child, message: FromProcess): void {
    if (child !== this.child) return;
    if (message.type === 'progress') return;
    if (message.type === 'piece') return this.takePiece(message);
    if ('component' in message) return this.notePreparing(message);
    if (message.id === 0) return this.onOpened(message);
    this.deaths = 0;
    this.unanswered.delete(message.id);
    const request = this.settle(message.id);
    if (message.type === 'result') request?.resolve(this.pieces.join(message.id, message.result));
    else request?.reject(new MultiDiffusionError(message.code, message.message));
    this.pieces.drop(message.id);
    this.dispatch();
  }

  private takePiece(piece: Piece): void {
    // What was cancelled is not wanted any more.
    if (this.pending.has(piece.id)) this.pieces.take(piece);
    else this.pieces.drop(piece.id);
  }

  private onOpened(message: Extract<FromProcess, { type: 'result' | 'error' }>): void {
    if (message.type === 'result') {
      this.opened = true;
      this.provider = (message.result as Calls['open']['result']).provider;
      this.setStatus('ready');
      this.dispatch();
    } else {
      this.rejectAll(new MultiDiffusionError(message.code, message.message));
      void this.end('failed', message.message);
    }
  }

  private notePreparing({ type, component, done }: Extract<FromProcess, { component: string }>): void {
    if (done) this.preparing.delete(component);
    else this.preparing.set(component, type);
    const [[first, state] = []] = this.preparing;
    this.setStatus(state ?? 'ready', first);
  }

  private died(child: Child, how: string, hang?: Hang): void {
    if (child !== this.child) return;
    const wasOpen = this.opened;
    this.child = undefined;
    this.opened = false;
    this.unanswered.clear();
    this.pieces.clear();
    this.deaths++;
    if (hang) this.options.onHang?.(`The inference process ${child.pid} hung: ${how}.`);
    // The first restart is immediate.
    this.startAfter = this.deaths < 2 ? 0 : Date.now() + Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (this.deaths - 2));
    const error =
      hang === 'slow'
        ? new MultiDiffusionError('TIMEOUT', describeTimeout(how))
        : new MultiDiffusionError('PROCESS_DIED', describeDeath(how, wasOpen, child.stderr));
    this.setStatus('stopped');
    const waiting = [...this.pending.values()];
    // What took too long alone would do so again; among several nobody knows which it was.
    const alone = hang === 'slow' && waiting.filter(({ sent }) => sent || !wasOpen).length === 1;
    for (const request of waiting) {
      // A process that dies at its start kills everything that waits for it.
      if (request.sent || !wasOpen) request.deaths += alone ? MOST_DEATHS : 1;
      request.sent = false;
      if (request.deaths < MOST_DEATHS) continue;
      this.settle(request.id)?.reject(error);
      this.setStatus('failed', error.message);
    }
    this.dispatch();
  }

  private cancel(id: number, reason: Error): void {
    const request = this.settle(id);
    if (!request) return;
    if (request.sent && this.child) this.child.post({ type: 'cancel', id });
    request.reject(reason);
    this.dispatch();
  }

  private settle(id: number): Pending | undefined {
    const request = this.pending.get(id);
    this.pending.delete(id);
    return request;
  }

  private rejectAll(error: Error): void {
    for (const id of [...this.pending.keys()]) this.settle(id)?.reject(error);
  }

  /** Lets the process go; resolves when it is gone. */
  private end(state: ProcessState, detail?: string): Promise<void> {
    clearTimeout(this.pause);
    clearTimeout(this.idle);
    this.pause = undefined;
    const { child } = this;
    this.child = undefined;
    this.opened = false;
    this.unanswered.clear();
    this.pieces.clear();
    this.setStatus(state, detail);
    if (child) this.leaving = child.leave();
    return this.leaving;
  }

  private setStatus(state: ProcessState, detail?: string): void {
    if (this.current.state === state && this.current.detail === detail) return;
    this.current = { state, detail };
    this.options.onStatus?.(this.current);
  }
}

function describeDeath(how: string, wasOpen: boolean, stderr: string): string {
  const when = wasOpen ? 'while it worked on this request' : 'while it started';
  const memory = how === 'signal SIGKILL' ? ' The system may have ended it because memory ran out.' : '';
  const said = stderr.trim().slice(-600);
  return (
    `The inference process ended twice ${when} (${how}).${memory} The next request starts it ` +
    `again.${said ? ` It said: ${said}` : ''}`
  );
}

function describeTimeout(how: string): string {
  const limit = `${how} (multidiffusion.requestTimeout in settings.js)`;
  return `The inference process did not finish what it was asked for: ${limit}. The next request starts it again.`;
}
