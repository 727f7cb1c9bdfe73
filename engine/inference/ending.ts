/** Waiting without the event loop: at a process's exit it no longer turns. */
import fs from 'node:fs';

/** Milliseconds. What a driver or the system holds back may take any time. */
const LONGEST_WAIT = 2000;
const INTERVAL = 2;

/**
 * Returns when these killed children of this process have ended, or after two seconds. The system ends a killed process
 * only thread by thread, as each gets its turn, which on a busy machine takes a while.
 *
 * Linux alone tells: an ended process stays listed, as a zombie, till its parent's event loop has taken note of it, and
 * elsewhere only that loop can see the difference. There it returns at once.
 */
export function waitForEnd(pids: number[]): void {
  const clock = new Int32Array(new SharedArrayBuffer(4));
  const deadline = performance.now() + LONGEST_WAIT;
  while (pids.some(runs) && performance.now() < deadline) Atomics.wait(clock, 0, 0, INTERVAL);
}

/** Whether it has threads left beside the zombie; as long as it has, so has it its memory. */
function runs(pid: number): boolean {
  const folder = `/proc/${pid}`;
  try {
    return fs.readdirSync(`${folder}/task`).length > 1 || !/\) [ZX] /.test(fs.readFileSync(`${folder}/stat`, 'utf8'));
  } catch {
    return false;
  }
}
