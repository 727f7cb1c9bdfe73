/**
 * Asks the inference process. The process is started at the first request and ends when it has been idle,
 * when it is told to, and when this process ends in whatever way.
 *
 * When it dies, it is started again, after pauses that grow while it keeps dying. What it was working on
 * is sent once more, one request at a time, so that a request that kills it fails alone; after a second
 * death the request fails with PROCESS_DIED.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import path from 'node:path';
import type { Socket } from 'node:net';
import { CancelledError, InvalidInputError, MultiDiffusionError } from '../errors';
import { Tensor } from '../tensor';
import { libraryFolders } from './libraries';
import type { CallName, Calls, FromProcess, ProcessSetup, ToProcess, WireTensor } from './protocol';

export type ProcessState =
  | 'stopped' // not started yet, or ended because nobody needed it
  | 'starting'
  | 'loading' // a component's weights, named by `detail`
  | 'warming' // the component named by `detail` is run for the first time with a new size
  | 'ready'
  | 'restarting' // it died, and is started again after a pause
  | 'failed' // it could not be started
  | 'closed';

export interface ProcessStatus {
  state: ProcessState;
  /** The component that is loaded, or the error's sentence. */
  detail?: string;
}

export interface ClientOptions {
  onStatus?: (status: ProcessStatus) => void;
  /** Milliseconds without a request after which the process ends; the next request starts it again. 0: never. */
  idleTimeout?: number;
  /** Folders with the libraries that CUDA needs, separated as in PATH; see libraries.ts. */
  libraryPath?: string;
  /** Another program in the inference process' place; for tests. */
  processFile?: string;
}

interface Pending {
  id: number;
  /** Sends the request to the process, with whatever that process still lacks. */
  send: (child: ChildProcess) => void;
  resolve: (result: unknown) => void;
  reject: (error: Error) => void;
  sent: boolean;
  /** How many processes died under it. */
  deaths: number;
}

/** A process in the middle of a long run hears of our end only after it, so at an orderly exit it is killed. */
const children = new Set<ChildProcess>();
process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));

const PROCESS_FILE = path.join(__dirname, 'process.js');
/** Times that a request sees the process die before it fails. */
const MOST_DEATHS = 2;
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 30_000;
/** How long a process may take to leave by itself. */
const LEAVE_TIME = 500;
/** Bytes of embeddings that the process keeps. */
const HELD_BYTES = 256 * 2 ** 20;
const STDERR_TAIL = 4000;

export class InferenceClient {
  private child?: ChildProcess;
  private opened = false;
  private closed = false;
  private provider?: string;
  private readonly pending = new Map<number, Pending>();
  private nextId = 1;
  /** Deaths since the last answered request. */
  private deaths = 0;
  private pause?: NodeJS.Timeout;
  private startAfter = 0;
  private idle?: NodeJS.Timeout;
  private stderr = '';
  /** What keeps requests waiting: for each component named whether it is loaded or warmed up. */
  private readonly preparing = new Map<string, 'loading' | 'warming'>();
  /** Keys of embeddings that the current process holds, least recently used first, with their bytes. */
  private readonly held = new Map<string, number>();
  private readonly keys = new WeakMap<ArrayBuffer, string>();
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
    return this.provider && this.opened ? this.provider : (await this.call('open', () => ({ setup: this.setup }), signal)).provider;
  }

  /**
   * @param build makes the request's parameters; called again when the request is repeated on a new process
   * @throws CancelledError or the signal's own error when it is aborted
   * @throws MultiDiffusionError what the process answered, or PROCESS_DIED
   */
  call<N extends CallName>(name: N, build: () => Calls[N]['params'], signal?: AbortSignal): Promise<Calls[N]['result']> {
    return new Promise((resolve, reject) => {
      if (this.closed) return reject(new CancelledError('The model was unloaded.'));
      if (signal?.aborted) return reject(abortReason(signal));
      const id = this.nextId++;
      const onAbort = (): void => this.cancel(id, abortReason(signal as AbortSignal));
      signal?.addEventListener('abort', onAbort, { once: true });
      this.pending.set(id, {
        id,
        send: (child) => this.post(child, { type: name, id, ...build() } as ToProcess),
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
   * Makes sure that the process holds these embeddings: they cross once for each content and process.
   * To be called while a request is built.
   * @param tensor [1, L, D], float32 or float16
   * @returns the key by which requests name them
   * @throws InvalidInputError when it is no such tensor
   */
  hold(tensor: Tensor): string {
    let key = this.keys.get(tensor.buffer);
    if (!key) {
      key = createHash('sha1').update(`${tensor.dtype} ${tensor.dims.join('x')} `).update(new Uint8Array(tensor.buffer)).digest('base64');
      this.keys.set(tensor.buffer, key);
    }
    if (this.child && !this.held.has(key)) {
      const { dtype, dims, data } = Tensor.from(tensor, 'embeddings');
      if (dtype !== 'float32' && dtype !== 'float16') throw new InvalidInputError('embeddings.dtype', dtype, 'float32 or float16');
      this.post(this.child, { type: 'hold', key, tensor: { dtype, dims, data } as WireTensor });
    }
    this.held.delete(key);
    this.held.set(key, tensor.buffer.byteLength);
    return key;
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
      } catch (error) {
        this.settle(request.id)?.reject(error as Error);
      }
    }
    this.dropOldest(this.child);
  }

  /** Only a process with work keeps this one alive, and only one without work is timed. */
  private updateHolds(): void {
    clearTimeout(this.idle);
    const busy = this.pending.size > 0;
    if (!busy) {
      clearTimeout(this.pause);
      this.pause = undefined;
    }
    const channels = [this.child, this.child?.channel, this.child?.stderr as Socket | null | undefined];
    for (const channel of channels) {
      if (busy) channel?.ref();
      else channel?.unref();
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
    this.stderr = '';
    this.held.clear();
    this.preparing.clear();
    // Neither the debugger's port nor preloaded modules of this process are the child's business.
    // GPUs are numbered as nvidia-smi lists them, unless somebody wants them otherwise.
    const { NODE_OPTIONS: _, ...env }: NodeJS.ProcessEnv = { CUDA_DEVICE_ORDER: 'PCI_BUS_ID', ...process.env };
    const { libraryPath } = this.options;
    if (libraryPath) env.LD_LIBRARY_PATH = libraryFolders(libraryPath, env.LD_LIBRARY_PATH);
    let child: ChildProcess;
    try {
      child = fork(this.options.processFile ?? PROCESS_FILE, [], { serialization: 'advanced', execArgv: [], env, stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
    } catch (error) {
      // Such as no memory for another process.
      const message = `The inference process could not be started: ${(error as Error).message}.`;
      this.setStatus('failed', message);
      return this.rejectAll(new MultiDiffusionError('PROCESS_DIED', message, { cause: error }));
    }
    this.child = child;
    children.add(child);
    child.once('exit', () => children.delete(child));
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr = (this.stderr + text).slice(-STDERR_TAIL);
    });
    child.on('message', (message) => this.receive(child, message as FromProcess));
    child.on('error', (error) => {
      this.stderr += `${error.message}\n`;
      if (child.pid !== undefined) return;
      children.delete(child);
      this.died(child, `it could not be started: ${error.message}`);
    });
    // 'close' rather than 'exit': by then all of stderr has been read.
    child.on('close', (code, signal) => this.died(child, signal ? `signal ${signal}` : `exit code ${code}`));
    this.post(child, { type: 'open', id: 0, setup: this.setup });
    this.updateHolds();
  }

  private receive(child: ChildProcess, message: FromProcess): void {
    if (child !== this.child) return;
    if ('component' in message) return this.notePreparing(message);
    if (message.id === 0) return this.onOpened(message);
    this.deaths = 0;
    const request = this.settle(message.id);
    if (message.type === 'result') request?.resolve(message.result);
    else request?.reject(new MultiDiffusionError(message.code, message.message));
    this.dispatch();
  }

  private onOpened(message: Extract<FromProcess, { id: number }>): void {
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

  private died(child: ChildProcess, how: string): void {
    if (child !== this.child) return;
    const wasOpen = this.opened;
    this.child = undefined;
    this.opened = false;
    this.deaths++;
    // The first restart is immediate.
    this.startAfter = this.deaths < 2 ? 0 : Date.now() + Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (this.deaths - 2));
    const error = new MultiDiffusionError('PROCESS_DIED', describeDeath(how, wasOpen, this.stderr));
    this.setStatus('stopped');
    for (const request of [...this.pending.values()]) {
      // A process that dies at its start kills everything that waits for it.
      if (request.sent || !wasOpen) request.deaths++;
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
    if (request.sent && this.child) this.post(this.child, { type: 'cancel', id });
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
    this.setStatus(state, detail);
    if (child && child.exitCode === null && child.signalCode === null) {
      this.leaving = new Promise((resolve) => {
        // In the middle of a run it can't hear; it holds nothing that could be left half-written.
        const timer = setTimeout(() => child.kill('SIGKILL'), LEAVE_TIME);
        child.ref();
        child.once('exit', () => {
          clearTimeout(timer);
          resolve();
        });
        if (child.connected) child.disconnect();
      });
    }
    return this.leaving;
  }

  private dropOldest(child: ChildProcess): void {
    let bytes = [...this.held.values()].reduce((sum, size) => sum + size, 0);
    for (const [key, size] of this.held) {
      if (bytes <= HELD_BYTES) return;
      this.post(child, { type: 'drop', key });
      this.held.delete(key);
      bytes -= size;
    }
  }

  private post(child: ChildProcess, message: ToProcess): void {
    // A send that fails is followed by the process's end, which is handled there.
    if (child.connected) child.send(message, () => undefined);
  }

  private setStatus(state: ProcessState, detail?: string): void {
    if (this.current.state === state && this.current.detail === detail) return;
    this.current = { state, detail };
    this.options.onStatus?.(this.current);
  }
}

function abortReason(signal: AbortSignal): Error {
  return signal.reason instanceof MultiDiffusionError ? signal.reason : new CancelledError();
}

function describeDeath(how: string, wasOpen: boolean, stderr: string): string {
  const when = wasOpen ? 'while it worked on this request' : 'while it started';
  const memory = how.includes('SIGKILL') ? ' The system may have ended it because memory ran out.' : '';
  const said = stderr.trim().slice(-600);
  return `The inference process ended twice ${when} (${how}).${memory} The next request starts it again.${said ? ` It said: ${said}` : ''}`;
}
