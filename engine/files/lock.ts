/** A lock between processes: a file that its holder keeps touching, so that one left by a dead process is seen to be. */
import { randomUUID } from 'node:crypto';
import { readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { setTimeout as pause } from 'node:timers/promises';

const HEARTBEAT = 5000;
/** A lock that has not been touched for so long has no holder. */
const STALE = 30_000;
const LOOK = 250;

/** Locks held by this process. A container's process often has the same number as its predecessor. */
const held = new Set<string>();

export interface LockOptions {
  signal?: AbortSignal;
  /** Called once when another process holds the lock. */
  onWait?: () => void;
}

/**
 * Does the work while no other process, and nobody else in this one, holds the lock.
 * @throws what the work throws, the system's error when the file can't be made, or the signal's AbortError
 */
export async function withLock<T>(file: string, options: LockOptions, work: () => Promise<T>): Promise<T> {
  const id = randomUUID();
  let waited = false;
  while (!(await take(file, id))) {
    if (!waited) options.onWait?.();
    waited = true;
    await pause(LOOK, undefined, { signal: options.signal });
  }
  const heartbeat = setInterval(
    () => void utimes(file, new Date(), new Date()).catch(() => undefined),
    HEARTBEAT,
  ).unref();
  try {
    return await work();
  } finally {
    clearInterval(heartbeat);
    held.delete(id);
    await rm(file, { force: true });
  }
}

async function take(file: string, id: string): Promise<boolean> {
  held.add(id);
  try {
    await writeFile(file, JSON.stringify({ pid: process.pid, host: hostname(), id }), { flag: 'wx' });
    return true;
  } catch (error) {
    held.delete(id);
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  // Two who find it at once may both go on. What they write is verified, so that this costs time and no more.
  if (await isLeftBehind(file)) await rm(file, { force: true });
  return false;
}

async function isLeftBehind(file: string): Promise<boolean> {
  try {
    const { mtimeMs } = await stat(file);
    if (Date.now() - mtimeMs > STALE) return true;
    const holder = JSON.parse(await readFile(file, 'utf8')) as { pid: number; host: string; id: string };
    if (holder.host !== hostname()) return false;
    if (holder.pid === process.pid) return !held.has(holder.id);
    process.kill(holder.pid, 0);
    return false;
  } catch (error) {
    // Just removed, or just made and not yet written: neither says that its holder is gone.
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}
