/**
 * Checkpoints shared by everybody in this process who asks for the same folder on the same device: loaded
 * once, kept a while after the last user let go, so that a redeploy finds them loaded.
 */
import { resolve } from 'node:path';
import { CancelledError } from '../errors';
import type { HubProgress } from '../hub/hub';
import type { CallOptions, ModelFacts } from '../model';
import type { Checkpoint, CheckpointOptions, ProcessStatus } from './checkpoint';

export interface UseOptions extends CheckpointOptions {
  /** Milliseconds that the checkpoint stays loaded after its last user released it. */
  linger?: number;
}

/** Which checkpoint, and how to run it. Functions are asked when it is needed, and may throw. */
export interface CheckpointSource {
  /** The checkpoint's folder, downloaded if need be. */
  folder: string | ((signal: AbortSignal, onProgress: ProgressListener) => Promise<string>);
  /** The checkpoint's folder, if it is there without a download. */
  present?(): Promise<string | undefined>;
  options(): UseOptions;
  /** Where it is not to run here; undefined where it is. */
  elsewhere?(): Promise<Elsewhere | undefined>;
}

/** A checkpoint that others run, such as a pool of workers. */
export interface Elsewhere {
  /** By which users of the same know it. */
  key: string;
  open: (onStatus: (status: ProcessStatus) => void, signal: AbortSignal) => Promise<Checkpoint>;
}

/** What keeps a checkpoint from working. */
export type Hindrance = 'loading' | 'unreachable' | 'unserved';

const HINDRANCES: Partial<Record<ProcessStatus['state'], Hindrance>> = {
  starting: 'loading',
  loading: 'loading',
  restarting: 'loading',
  unreachable: 'unreachable',
  unserved: 'unserved',
};

export type ProgressListener = (progress: HubProgress) => void;

/** What a user of a checkpoint wants to hear. */
export interface CheckpointEvents {
  onStatus?: (status: ProcessStatus) => void;
  /** It has been opened: for the first time, or again because its files have changed. */
  onOpen?: (checkpoint: Checkpoint) => void;
  /** An inference process hung and was ended. */
  onHang?: (text: string) => void;
}

const LINGER = 30_000;
/** Nothing has to be loaded anew after it. */
const ELSEWHERE_LINGER = 5000;

/** A checkpoint that is shared. */
interface Entry {
  key: string;
  users: number;
  /** With the options of the first user. */
  open: (onStatus: (status: ProcessStatus) => void, signal: AbortSignal) => Promise<Checkpoint>;
  opening?: Promise<Checkpoint>;
  /** Gives up what is being opened. */
  giveUp?: AbortController;
  status: ProcessStatus;
  listeners: Set<(status: ProcessStatus) => void>;
  timer?: NodeJS.Timeout;
}

const entries = new Map<string, Entry>();

/** One user's hold on a shared checkpoint, downloaded and opened when it is first asked for. */
export class CheckpointUse {
  private entry: Entry | undefined;
  private joining: Promise<Entry> | undefined;
  private opened: Checkpoint | undefined;
  private loading: { done: Promise<void>; cancel: AbortController } | undefined;
  private linger = LINGER;
  private readonly released = new AbortController();
  private readonly progressListeners = new Set<ProgressListener>();
  private readonly watchers = new Set<(hindrance: Hindrance | undefined) => void>();
  /** What keeps it from working now. */
  hindrance: Hindrance | undefined;
  private readonly listener = (status: ProcessStatus): void => {
    this.on.onStatus?.(status);
    this.hindrance = HINDRANCES[status.state];
    this.watchers.forEach((watcher) => watcher(this.hindrance));
  };

  constructor(
    private readonly source: CheckpointSource,
    private readonly on: CheckpointEvents = {},
  ) {
    if (typeof source.folder === 'string') this.join(source.folder, source.options());
  }

  /**
   * The opened checkpoint. A download or an opening that failed is tried again the next time; once its files have
   * changed and nobody is at work on it, it is opened anew.
   * @throws CancelledError after release
   */
  async get(onProgress?: ProgressListener): Promise<Checkpoint> {
    this.released.signal.throwIfAborted();
    if (onProgress) this.progressListeners.add(onProgress);
    try {
      const entry = this.entry ?? (await (this.joining ??= this.find()));
      const checkpoint = await current(entry);
      if (checkpoint !== this.opened) this.on.onOpen?.(checkpoint);
      this.opened = checkpoint;
      return checkpoint;
    } finally {
      if (onProgress) this.progressListeners.delete(onProgress);
    }
  }

  /** Whether it has been opened before. */
  get isOpen(): boolean {
    return this.opened !== undefined;
  }

  /**
   * What is known of the checkpoint without loading or downloading it.
   * @returns undefined when its files aren't there yet
   * @throws MultiDiffusionError CHECKPOINT when they can't be understood
   */
  async facts(): Promise<ModelFacts | undefined> {
    if (this.opened) return this.opened.facts;
    const folder = await this.source.present?.();
    if (folder === undefined) return undefined;
    const [{ readLayout }, { readModelFacts }] = await Promise.all([import('./layout'), import('./model-facts')]);
    return readModelFacts(await readLayout(folder), '');
  }

  /** Loads all that a picture needs, before it is needed; a load that is under way is shared. */
  load(): Promise<void> {
    if (!this.loading) {
      const cancel = new AbortController();
      const options: CallOptions = { signal: AbortSignal.any([cancel.signal, this.released.signal]) };
      const loading = this.get().then((checkpoint) => checkpoint.load(options));
      this.loading = { cancel, done: loading.finally(() => (this.loading = undefined)) };
    }
    return this.loading.done;
  }

  /** Tells what keeps it from working, such as that its process loads something, and when it works again. @returns ends it */
  watch(watcher: (hindrance: Hindrance | undefined) => void): () => void {
    this.watchers.add(watcher);
    return () => this.watchers.delete(watcher);
  }

  /**
   * Ends the checkpoint's processes, frees their memory and cancels its jobs, if it is open; the next request starts
   * them again. One that is being opened is given up.
   */
  async unload(): Promise<void> {
    this.loading?.cancel.abort(new CancelledError('The model was unloaded.'));
    const opening = this.entry?.opening;
    this.entry?.giveUp?.abort(new CancelledError('The model was unloaded.'));
    await (await opening?.catch(() => undefined))?.unload();
  }

  /** Lets go for good; the checkpoint stays loaded for a while, so that a redeploy finds it. A second time does nothing. */
  release(): void {
    if (this.released.signal.aborted) return;
    this.released.abort(new CancelledError('The model was released.'));
    const { entry } = this;
    if (!entry) return;
    entry.listeners.delete(this.listener);
    if (--entry.users === 0) entry.timer = setTimeout(() => void closeEntry(entry), this.linger).unref();
  }

  private async find(): Promise<Entry> {
    try {
      const options = this.source.options();
      const elsewhere = await this.source.elsewhere?.();
      if (elsewhere) {
        this.released.signal.throwIfAborted();
        return this.enter(elsewhere.key, elsewhere.open, ELSEWHERE_LINGER);
      }
      const { folder } = this.source as { folder: Exclude<CheckpointSource['folder'], string> };
      const found = await folder(this.released.signal, (progress) =>
        this.progressListeners.forEach((listener) => listener(progress)),
      );
      this.released.signal.throwIfAborted();
      return this.join(found, options);
    } finally {
      this.joining = undefined;
    }
  }

  /**
   * Users who differ in what decides where and how fast a checkpoint runs get different ones; the other options, such
   * as the queue and the time limit, are those of the first user.
   */
  private join(folder: string, options: UseOptions): Entry {
    const key = JSON.stringify([
      resolve(folder),
      options.provider ?? 'auto',
      [options.deviceId ?? 0].flat(),
      options.threads ?? null,
      options.idleTimeout ?? 0,
      options.libraryPath ?? '',
      options.batchSize ?? 0,
      options.memoryBudget ?? 0,
    ]);
    const { onHang } = this.on;
    const open: Entry['open'] = async (onStatus, signal) => {
      const { openCheckpoint } = await import('./checkpoint');
      return openCheckpoint(folder, { onHang, ...options, onStatus }, signal);
    };
    return this.enter(key, open, options.linger ?? LINGER);
  }

  private enter(key: string, open: Entry['open'], linger: number): Entry {
    const entry: Entry = entries.get(key) ?? {
      key,
      users: 0,
      open,
      status: { state: 'stopped' },
      listeners: new Set(),
    };
    entries.set(key, entry);
    entry.users++;
    clearTimeout(entry.timer);
    this.linger = linger;
    this.entry = entry;
    entry.listeners.add(this.listener);
    this.listener(entry.status);
    return entry;
  }
}

/** Holds the checkpoint in `folder`. */
export function acquireCheckpoint(folder: string, options: UseOptions = {}): CheckpointUse {
  return new CheckpointUse({ folder, options: () => options }, options);
}

/** Ends every checkpoint that nobody holds without waiting longer; for tests and for a shutdown. */
export async function closeUnusedCheckpoints(): Promise<void> {
  await Promise.all([...entries.values()].filter(({ users }) => users === 0).map(closeEntry));
}

/** The opened checkpoint; once its files have changed and nobody is at work on it, it is opened anew. */
async function current(entry: Entry): Promise<Checkpoint> {
  const opening = (entry.opening ??= openEntry(entry));
  const checkpoint = await opening;
  if (checkpoint.busy || !(await checkpoint.hasChanged())) return checkpoint;
  if (entry.opening === opening && !checkpoint.busy) {
    entry.opening = undefined;
    void checkpoint.close();
  }
  return (entry.opening ??= openEntry(entry));
}

function openEntry(entry: Entry): Promise<Checkpoint> {
  const tell = (status: ProcessStatus): void => {
    entry.status = status;
    for (const listener of entry.listeners) listener(status);
  };
  const giveUp = new AbortController();
  entry.giveUp = giveUp;
  const opening = entry.open(tell, giveUp.signal);
  opening.catch((error: Error) => {
    entry.opening = undefined;
    tell(error instanceof CancelledError ? { state: 'stopped' } : { state: 'failed', detail: error.message });
  });
  return opening;
}

async function closeEntry(entry: Entry): Promise<void> {
  clearTimeout(entry.timer);
  entries.delete(entry.key);
  entry.giveUp?.abort(new CancelledError('The model was unloaded.'));
  const checkpoint = await entry.opening?.catch(() => undefined);
  await checkpoint?.close();
}
