/** Workers as processes of their own, started as their users start them. */
import { spawn, type ChildProcess } from 'node:child_process';
import path from 'node:path';
import { root } from '../../unit/support/package';

const CLI = path.join(root, 'dist', 'engine', 'pool', 'cli.js');

export class WorkerProcess {
  output = '';
  /** How it ended. */
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;

  private constructor(readonly child: ChildProcess) {
    const note = (text: Buffer): void => void (this.output += text.toString());
    child.stdout?.on('data', note);
    child.stderr?.on('data', note);
    this.ended = new Promise((resolve) => child.once('exit', (code, signal) => resolve({ code, signal })));
  }

  /** Starts one; see `ready`. @param before words of a command that runs it, such as `ip netns exec NAME` */
  static spawn(args: string[], env: NodeJS.ProcessEnv = {}, before: string[] = []): WorkerProcess {
    const [command, ...rest] = [...before, process.execPath, CLI, ...args];
    const child = spawn(command, rest, {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    return new WorkerProcess(child);
  }

  /** Starts one and waits until the pool has it. */
  static async start(redis: string, model: string, args: string[] = [], before: string[] = []): Promise<WorkerProcess> {
    const worker = WorkerProcess.spawn(
      ['--model', model, '--provider', 'cpu', '--threads', '1', '--http', '0', ...args],
      { MULTIDIFFUSION_REDIS: redis },
      before,
    );
    await worker.says(/ ready /);
    return worker;
  }

  get pid(): number {
    return this.child.pid!;
  }

  /** The lines about jobs. */
  get jobs(): string[] {
    return this.output.split('\n').filter((line) => / job id=/.test(line));
  }

  /** Waits until its output matches. */
  async says(pattern: RegExp, seconds = 60): Promise<RegExpExecArray> {
    const end = Date.now() + 1000 * seconds;
    for (;;) {
      const found = pattern.exec(this.output);
      if (found) return found;
      if (this.child.exitCode !== null || Date.now() > end)
        throw new Error(`the worker did not say ${pattern}, but:\n${this.output}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  async kill(): Promise<void> {
    this.child.kill('SIGCONT');
    this.child.kill('SIGKILL');
    await this.ended;
  }
}
