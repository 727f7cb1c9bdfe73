/**
 * Tells a process that hangs from one that works. A thread of its own in the inference process writes a byte a
 * second, however long a run keeps the main thread (process/pulse.ts). A process that has been stopped, or whose
 * system no longer gives it a turn, writes nothing and uses no CPU time.
 */
import { readFileSync } from 'node:fs';
import type { Readable } from 'node:stream';

export interface PulseLimits {
  /** Milliseconds without a sign of life after which the process counts as hung; default 10 000. */
  silence?: number;
  /** Milliseconds that the process may work without completing anything; default: no limit. */
  requestTimeout?: number;
}

/** Why a process is given up. */
export type Hang = 'silent' | 'slow';

const TICK = 1000;
const SILENCE = 10_000;

export class Pulse {
  private timer?: NodeJS.Timeout;
  private beaten = false;
  private cpu: string | undefined;
  /** Time by ticks: when this process itself was suspended, that time does not count. */
  private silent = 0;
  private fruitless = 0;

  constructor(
    beats: Readable | null | undefined,
    private readonly pid: number | undefined,
    private readonly limits: PulseLimits,
    private readonly onHang: (hang: Hang, milliseconds: number) => void,
  ) {
    beats?.on('data', () => (this.beaten = true)).on('error', () => undefined);
  }

  /** The process has completed something. */
  progress(): void {
    this.fruitless = 0;
  }

  /** Whether the process has something to do; only then must it show signs of life. */
  set watched(watched: boolean) {
    if (watched === (this.timer !== undefined)) return;
    clearInterval(this.timer);
    this.timer = undefined;
    if (!watched) return;
    [this.silent, this.fruitless, this.beaten] = [0, 0, true];
    this.timer = setInterval(() => this.tick(), Math.min(TICK, this.silenceLimit / 2)).unref();
  }

  private get silenceLimit(): number {
    return this.limits.silence ?? SILENCE;
  }

  private tick(): void {
    const step = Math.min(TICK, this.silenceLimit / 2);
    this.fruitless += step;
    const cpu = this.beaten ? undefined : cpuTime(this.pid);
    if (this.beaten || (cpu !== undefined && this.cpu !== undefined && cpu !== this.cpu)) this.silent = 0;
    else this.silent += step;
    this.cpu = cpu;
    this.beaten = false;
    const { requestTimeout = Infinity } = this.limits;
    if (this.silent >= this.silenceLimit) this.hang('silent', this.silent);
    else if (this.fruitless >= requestTimeout) this.hang('slow', this.fruitless);
  }

  private hang(hang: Hang, milliseconds: number): void {
    this.watched = false;
    this.onHang(hang, milliseconds);
  }
}

/** CPU time that a process has used, in whatever unit; undefined where the system does not tell. */
function cpuTime(pid: number | undefined): string | undefined {
  if (process.platform !== 'linux') return undefined;
  try {
    // The name, which may hold anything, ends with the last parenthesis; user and system time are fields 14 and 15.
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat
      .slice(stat.lastIndexOf(')') + 2)
      .split(' ', 13)
      .slice(11)
      .join(' ');
  } catch {
    return undefined;
  }
}
