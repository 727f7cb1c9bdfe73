/**
 * Checkpoints shared by everybody in this process who asks for the same folder on the same device: loaded
 * once, kept a while after the last user let go, so that a redeploy finds them loaded.
 */
import { resolve } from 'node:path';
import { MultiDiffusionError } from '../errors';
import { openCheckpoint, type Checkpoint, type CheckpointOptions, type ProcessStatus } from './checkpoint';

export interface LeaseOptions extends CheckpointOptions {
  /** Milliseconds that the checkpoint stays loaded after its last user released it. */
  linger?: number;
}

/** One user's hold on a shared checkpoint. */
export interface CheckpointLease {
  /** The checkpoint, opened when somebody first asks; after a failure, and once its files have changed, anew. */
  readonly checkpoint: Promise<Checkpoint>;
  /** Lets go; a second time does nothing. */
  release(): void;
}

const LINGER = 30_000;

interface Entry {
  users: number;
  opening?: Promise<Checkpoint>;
  status: ProcessStatus;
  listeners: Set<(status: ProcessStatus) => void>;
  timer?: NodeJS.Timeout;
}

const entries = new Map<string, Entry>();

/**
 * Holds the checkpoint in `folder`. Users who differ in provider, devices, threads, idle time, batch size, memory budget or library path get
 * different ones; the other options are those of the first user.
 */
export function acquireCheckpoint(folder: string, options: LeaseOptions = {}): CheckpointLease {
  const { linger = LINGER, onStatus } = options;
  const key = JSON.stringify([resolve(folder), options.provider ?? 'auto', [options.deviceId ?? 0].flat(), options.threads ?? null, options.idleTimeout ?? 0, options.libraryPath ?? '', options.batchSize ?? 0, options.memoryBudget ?? 0]);
  const entry = entries.get(key) ?? { users: 0, status: { state: 'stopped' }, listeners: new Set() };
  entries.set(key, entry);
  entry.users++;
  clearTimeout(entry.timer);
  if (onStatus) {
    entry.listeners.add(onStatus);
    onStatus(entry.status);
  }

  let released = false;
  return {
    get checkpoint() {
      if (released) return Promise.reject(new MultiDiffusionError('CANCELLED', 'The model was released.'));
      return current(entry, folder, options);
    },
    release() {
      if (released) return;
      released = true;
      if (onStatus) entry.listeners.delete(onStatus);
      if (--entry.users > 0) return;
      entry.timer = setTimeout(() => void closeEntry(key, entry), linger).unref();
    },
  };
}

/** Ends every checkpoint that nobody holds without waiting longer; for tests and for a shutdown. */
export async function closeUnusedCheckpoints(): Promise<void> {
  const unused = [...entries].filter(([, entry]) => entry.users === 0);
  await Promise.all(unused.map(([key, entry]) => closeEntry(key, entry)));
}

/** The opened checkpoint; once its files have changed and nobody is at work on it, it is opened anew. */
async function current(entry: Entry, folder: string, options: LeaseOptions): Promise<Checkpoint> {
  const opening = (entry.opening ??= openEntry(entry, folder, options));
  const checkpoint = await opening;
  if (checkpoint.busy || !(await checkpoint.hasChanged())) return checkpoint;
  if (entry.opening === opening && !checkpoint.busy) {
    entry.opening = undefined;
    void checkpoint.close();
  }
  return (entry.opening ??= openEntry(entry, folder, options));
}

function openEntry(entry: Entry, folder: string, options: LeaseOptions): Promise<Checkpoint> {
  const tell = (status: ProcessStatus): void => {
    entry.status = status;
    for (const listener of entry.listeners) listener(status);
  };
  const opening = openCheckpoint(folder, { ...options, onStatus: tell });
  opening.catch((error: Error) => {
    entry.opening = undefined;
    tell({ state: 'failed', detail: error.message });
  });
  return opening;
}

async function closeEntry(key: string, entry: Entry): Promise<void> {
  clearTimeout(entry.timer);
  entries.delete(key);
  const checkpoint = await entry.opening?.catch(() => undefined);
  await checkpoint?.close();
}
