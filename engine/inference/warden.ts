/**
 * Ends inference processes whose parent was killed while they could not hear of it, such as stopped ones. A shell
 * of about a megabyte reads their ids from a pipe; the pipe ends with this process, however that ends, and then the
 * shell kills what is still on its list. It is there only while there are inference processes. On Windows, where no
 * process can be stopped by a signal, the processes' own threads suffice (process/pulse.ts).
 */
import { spawn, type ChildProcess } from 'node:child_process';

const SCRIPT = `
trap '' HUP INT TERM
pids=
while read -r sign pid; do
  case $sign in
    +) pids="$pids $pid" ;;
    -) kept=; for one in $pids; do [ "$one" = "$pid" ] || kept="$kept $one"; done; pids=$kept ;;
  esac
done
for one in $pids; do kill -KILL "$one" 2>/dev/null; done
`;

const guarded = new Set<number>();
let shell: ChildProcess | undefined;

/** To be called before a process is started that is to be guarded. */
export function callWarden(): void {
  if (shell || process.platform === 'win32') return;
  try {
    const started = spawn('/bin/sh', ['-c', SCRIPT], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
    shell = started;
    const gone = (): void => {
      if (shell === started) shell = undefined;
    };
    // Where there is no shell, the signs of life must do.
    started.once('error', gone).once('exit', gone);
    started.stdin?.on('error', () => undefined);
    started.unref();
    (started.stdin as unknown as { unref?: () => void } | null)?.unref?.();
    guarded.forEach((pid) => write('+', pid));
  } catch {
    shell = undefined;
  }
}

/** The process is to end with this one. */
export function guard(pid: number | undefined): void {
  if (pid === undefined) return;
  guarded.add(pid);
  write('+', pid);
}

/** The process has ended. */
export function unguard(pid: number | undefined): void {
  if (pid === undefined || !guarded.delete(pid)) return;
  write('-', pid);
  if (guarded.size > 0) return;
  shell?.stdin?.end();
  shell = undefined;
}

function write(sign: '+' | '-', pid: number): void {
  if (shell?.stdin?.writable) shell.stdin.write(`${sign} ${pid}\n`);
}
