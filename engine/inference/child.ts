/** One inference process: how it is started, spoken to, and let go. */
import { fork, type ChildProcess } from 'node:child_process';
import path from 'node:path';
import type { Socket } from 'node:net';
import { HeldEmbeddings } from './embeddings';
import { waitForEnd } from './ending';
import { libraryFolders } from './libraries';
import { cutPixels } from './pieces';
import { Pulse, type Hang, type PulseLimits } from './pulse';
import { callWarden, guard, unguard } from './warden';
import type { FromProcess, ToProcess } from './protocol';
import { turnIsOver } from '../turns';

export interface ChildOptions extends PulseLimits {
  /** Folders with the libraries that CUDA needs, separated as in PATH; see libraries.ts. */
  libraryPath?: string;
  /** Another program in the inference process' place; for tests. */
  processFile?: string;
}

interface Listener {
  onMessage(message: FromProcess): void;
  /** It is gone, unless leave() was called. @param how it ended @param hang why it was given up, if it was */
  onEnd(how: string, hang?: Hang): void;
}

/**
 * A process in the middle of a long run hears of our end only after it, so at an orderly exit it is killed, and its end
 * waited for: whoever starts Node-RED again finds its memory free, a GPU's too.
 */
const running = new Set<ChildProcess>();
process.on('exit', () => {
  running.forEach((child) => child.kill('SIGKILL'));
  waitForEnd([...running].flatMap(({ pid }) => pid ?? []));
});

const PROCESS_FILE = path.join(__dirname, 'process', 'main.js');
/** How long a process may take to leave by itself. */
const LEAVE_TIME = 500;
const STDERR_TAIL = 4000;

export class Child {
  readonly embeddings = new HeldEmbeddings((message) => this.post(message));
  private readonly process: ChildProcess;
  private readonly pulse: Pulse;
  private readonly outbox: ToProcess[] = [];
  /** The end of what it wrote to its standard error. */
  stderr = '';

  /** @throws what fork throws, such as for no memory */
  constructor({ libraryPath, processFile = PROCESS_FILE, ...limits }: ChildOptions, listener: Listener) {
    // Neither the debugger's port nor preloaded modules of this process are the child's business.
    // GPUs are numbered as nvidia-smi lists them, unless the environment says otherwise.
    const { NODE_OPTIONS: _, ...env }: NodeJS.ProcessEnv = { CUDA_DEVICE_ORDER: 'PCI_BUS_ID', ...process.env };
    if (libraryPath) env.LD_LIBRARY_PATH = libraryFolders(libraryPath, env.LD_LIBRARY_PATH);
    callWarden();
    const child = fork(processFile, [], {
      serialization: 'advanced',
      execArgv: [],
      env,
      stdio: ['ignore', 'ignore', 'pipe', 'ipc', 'pipe'],
    });
    this.process = child;
    running.add(child);
    guard(child.pid);
    child.once('exit', () => {
      running.delete(child);
      unguard(child.pid);
      this.pulse.watched = false;
    });
    this.pulse = new Pulse(child.stdio[4] as Socket | null, child.pid, limits, (hang, milliseconds) => {
      // Also reaches a process that has been stopped. It is not waited for: in the system's hands it may stay a while.
      child.kill('SIGKILL');
      listener.onEnd(describeHang(hang, milliseconds), hang);
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr = (this.stderr + text).slice(-STDERR_TAIL);
    });
    child.on('message', (message) => {
      this.pulse.progress();
      listener.onMessage(message as FromProcess);
    });
    child.on('error', (error) => {
      this.stderr += `${error.message}\n`;
      if (child.pid !== undefined) return;
      running.delete(child);
      listener.onEnd(`it could not be started: ${error.message}`);
    });
    // 'close' rather than 'exit': by then all of stderr has been read.
    child.on('close', (code, signal) => listener.onEnd(signal ? `signal ${signal}` : `exit code ${code}`));
  }

  get pid(): number | undefined {
    return this.process.pid;
  }

  post(message: ToProcess): void {
    const { pieces, rest } = 'id' in message ? cutPixels(message.id, message) : { pieces: [], rest: message };
    const idle = this.outbox.length === 0;
    this.outbox.push(...pieces, rest);
    if (idle) this.sendNext();
  }

  /** All in order, those that are many with turns of the event loop in between. */
  private sendNext(): void {
    while (this.outbox.length > 0) {
      // A send that fails is followed by the process's end, which is handled there.
      if (this.process.connected) this.process.send(this.outbox[0], () => undefined);
      this.outbox.shift();
      if (this.outbox.length > 0 && turnIsOver()) return void setImmediate(() => this.sendNext());
    }
  }

  /** Whether it has been asked for something that it has not answered: then it must show signs of life. */
  set watched(watched: boolean) {
    this.pulse.watched = watched;
  }

  /** Whether it keeps this process alive. */
  set keepsAlive(keeps: boolean) {
    const { channel, stderr, stdio } = this.process;
    for (const handle of [this.process, channel, stderr as Socket | null, stdio[4] as Socket | null]) {
      if (keeps) handle?.ref();
      else handle?.unref();
    }
  }

  /** Lets it go; resolves when it is gone. */
  async leave(): Promise<void> {
    const child = this.process;
    this.pulse.watched = false;
    if (child.exitCode !== null || child.signalCode !== null) return;
    await new Promise<void>((resolve) => {
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
}

function describeHang(hang: Hang, milliseconds: number): string {
  const seconds = Number((milliseconds / 1000).toPrecision(2));
  return hang === 'silent'
    ? `it showed no sign of life for ${seconds} seconds and was ended`
    : `it completed nothing for ${seconds} seconds and was ended`;
}
