/** How nodes come by the loaded checkpoint: through their diffusion-model node, or the bundled one without. */
import type { Node, NodeAPI } from 'node-red';
import type { Checkpoint, ProcessStatus } from '../../engine/checkpoint/checkpoint';
import type { HubProgress } from '../../engine/checkpoint/hub';
import { acquireCheckpoint, type CheckpointLease } from '../../engine/checkpoint/pool';
import { CancelledError, MissingInputError } from '../../engine/errors';
import { modelSource, type ModelSource } from './checkpoints';
import { asksFor, own, type Message } from './message';
import { readSettings } from './settings';
import { Status } from './status';
import { orAborted, type Task } from './tasks';

export { POCKET_FOLDER } from './checkpoints';

type ProgressListener = (progress: HubProgress) => void;

/** A hold on a checkpoint, downloaded and loaded when it is first asked for, shared with everybody who asks for the same. */
export class ModelUse {
  /** Resolved once the flows have been started; only where the model is to be loaded then. */
  atDeploy: Promise<unknown> | undefined;
  private opened: Checkpoint | undefined;
  private loading: { done: Promise<void>; cancel: AbortController } | undefined;
  private lease: Promise<CheckpointLease> | undefined;
  private readonly closed = new AbortController();
  private readonly listeners = new Set<ProgressListener>();
  private readonly watchers = new Set<(loading: boolean) => void>();

  /** @param source which checkpoint and how to run it; asked when it is needed, and may throw */
  constructor(
    private readonly source: ModelSource,
    private readonly on: { onStatus?: (status: ProcessStatus) => void; onOpen?: (checkpoint: Checkpoint) => void } = {},
  ) {}

  /**
   * The loaded checkpoint; a download or a load that failed is tried again the next time.
   * @throws CancelledError after release
   */
  async get(onProgress?: ProgressListener): Promise<Checkpoint> {
    this.closed.signal.throwIfAborted();
    if (onProgress) this.listeners.add(onProgress);
    try {
      this.lease ??= this.acquire();
      const checkpoint = await (await this.lease).checkpoint;
      if (checkpoint !== this.opened) this.on.onOpen?.(checkpoint);
      this.opened = checkpoint;
      return checkpoint;
    } finally {
      if (onProgress) this.listeners.delete(onProgress);
    }
  }

  /** Loads all that a picture needs, before it is needed; a load that is under way is shared. */
  load(): Promise<void> {
    if (!this.loading) {
      const cancel = new AbortController();
      const signal = AbortSignal.any([cancel.signal, this.closed.signal]);
      const loading = this.get().then((checkpoint) => checkpoint.load({ signal }));
      this.loading = { cancel, done: loading.finally(() => (this.loading = undefined)) };
    }
    return this.loading.done;
  }

  /** Tells when the model's process begins to load something, and when it has done so. @returns ends it */
  watch(watcher: (loading: boolean) => void): () => void {
    this.watchers.add(watcher);
    return () => this.watchers.delete(watcher);
  }

  /** Ends the model's process and frees its memory, if it is loaded; the next message loads it again. */
  async unload(): Promise<void> {
    this.loading?.cancel.abort(new CancelledError('The model was unloaded.'));
    const lease = await this.lease?.catch(() => undefined);
    const checkpoint = await lease?.checkpoint.catch(() => undefined);
    await checkpoint?.unload();
  }

  /** Gives the hold back for good; the checkpoint stays loaded for a while, so that a redeploy finds it. */
  release(): void {
    this.closed.abort(new CancelledError('The diffusion-model was closed.'));
    void this.lease?.then((lease) => lease.release()).catch(() => undefined);
  }

  private tell(status: ProcessStatus): void {
    this.on.onStatus?.(status);
    const loading = ['starting', 'loading', 'restarting'].includes(status.state);
    this.watchers.forEach((watcher) => watcher(loading));
  }

  private async acquire(): Promise<CheckpointLease> {
    try {
      const options = this.source.options();
      const folder = await this.source.folder(this.closed.signal, (progress) => this.listeners.forEach((listener) => listener(progress)));
      this.closed.signal.throwIfAborted();
      return acquireCheckpoint(folder, { ...options, onStatus: (status) => this.tell(status) });
    } catch (error) {
      this.lease = undefined;
      throw error;
    }
  }
}

/** What a diffusion-model node offers to the nodes that name it. */
export interface ModelNode extends Node {
  model: ModelUse;
}

/** The model that a node's configuration names. */
export class NodeModel {
  private readonly bundled: ModelUse | undefined;
  /** How often the model has been asked for. */
  private asked = 0;

  /**
   * @param id of a diffusion-model node; empty for the bundled model
   * @param node that uses it: its status tells of a load at deploy
   */
  constructor(
    private readonly RED: NodeAPI,
    private readonly id: string | undefined,
    node: Node,
  ) {
    if (!id) this.bundled = new ModelUse(modelSource({}, () => readSettings(RED)));
    else this.showLoadAtDeploy(node);
  }

  /**
   * The loaded checkpoint; while it is downloaded and loaded, the status says so.
   * @param signal ends the waiting, not the download or the load, which others may wait for
   * @throws MissingInputError when the diffusion-model node is missing or disabled
   */
  async get(status: Status, signal: AbortSignal): Promise<Checkpoint> {
    this.asked++;
    const use = this.find();
    const timer = setTimeout(() => status.busy('loading'), 50);
    let shown = '';
    const onProgress = ({ phase, received, total }: HubProgress): void => {
      clearTimeout(timer);
      const percent = total > 0 ? Math.floor((100 * received) / total) : 0;
      if (signal.aborted || shown === `${phase} ${percent}`) return;
      shown = `${phase} ${percent}`;
      if (phase === 'waiting') status.busy('waiting');
      else if (percent === 100) status.busy('loading');
      else status.busy('downloading', { percent });
    };
    try {
      return await orAborted(use.get(onProgress), signal);
    } finally {
      clearTimeout(timer);
    }
  }

  /** As ModelUse.watch. */
  watch(watcher: (loading: boolean) => void): () => void {
    return this.use?.watch(watcher) ?? (() => {});
  }

  /** Does what msg.load or msg.unload asks for: loads all that a picture needs, or ends the model's process. */
  async obey({ msg, status, signal }: Task): Promise<void> {
    if (isLoad(msg)) return this.load(status, signal);
    await this.find().unload();
    status.idle('unloaded');
  }

  release(): void {
    this.bundled?.release();
  }

  private async load(status: Status, signal: AbortSignal): Promise<void> {
    const use = this.find();
    status.busy('loading');
    // Asked for twice, because the one shows how far a download is.
    const loading = Promise.all([this.get(status, signal), orAborted(use.load(), signal)]);
    const { asked } = this;
    await loading;
    // A message that came meanwhile shows how it fares itself.
    if (asked === this.asked) status.ok('loaded');
  }

  /** The diffusion-model itself loads, and reports what goes wrong. */
  private showLoadAtDeploy(node: Node): void {
    const deployed = this.use?.atDeploy;
    if (!deployed) return;
    const status = new Status(this.RED, node);
    const closed = new AbortController();
    node.on('close', () => {
      status.close();
      closed.abort();
    });
    deployed
      .then(() => this.load(status, closed.signal))
      .catch((error) => (error instanceof CancelledError ? status.idle() : status.failed(error)));
  }

  private get use(): ModelUse | undefined {
    return this.bundled ?? (this.RED.nodes.getNode(this.id!) as ModelNode | null)?.model;
  }

  private find(): ModelUse {
    const { use } = this;
    if (!use) throw new MissingInputError('model', 'The diffusion-model that this node names is missing or disabled: choose another in its dialog.');
    return use;
  }
}

/** Whether the message only says that the model is to be loaded or unloaded; such messages go no further. */
export function isOrder(msg: Message): boolean {
  return isLoad(msg) || asksFor(msg, 'unload');
}

/** Whether it asks for that only; in other flows' messages `load` may be a number of something else. */
export function isLoad(msg: Message): boolean {
  return ['true', true].includes(own(msg, 'load') as string | boolean) && !asksFor(msg, 'unload');
}
