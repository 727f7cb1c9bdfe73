/** How nodes come by the loaded checkpoint: through their diffusion-model node, or the bundled one without. */
import type { Node, NodeAPI } from 'node-red';
import type { Checkpoint } from '../../engine/checkpoint/checkpoint';
import type { HubProgress } from '../../engine/hub/hub';
import { CheckpointUse, type Hindrance } from '../../engine/checkpoint/pool';
import { CancelledError, MissingInputError } from '../../engine/errors';
import { modelSource } from './checkpoints';
import { asksFor, own, type Message } from './message';
import { readSettings } from './settings';
import { Status, type StatusKey } from './status';
import { isCancellation, orAborted, type Task } from './tasks';

export { POCKET_FOLDER } from './checkpoints';

/** What a diffusion-model node offers to the nodes that name it. */
export interface ModelNode extends Node {
  model: CheckpointUse;
  /** Resolved once the flows have been started; only where the model is to be loaded then. */
  atDeploy?: Promise<unknown>;
}

/** The model that a node's configuration names. */
export class NodeModel {
  private readonly bundled: CheckpointUse | undefined;
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
    if (!id)
      this.bundled = new CheckpointUse(
        modelSource({}, () => readSettings(RED)),
        { onHang: (text) => RED.log.warn(text) },
      );
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
    // Of one that is open only its files are looked at, unless they have changed.
    const timer = setTimeout(() => status.busy(use.hindrance ?? 'loading'), use.isOpen ? 1000 : 50);
    const stopWatching = use.watch((hindrance) => {
      if (hindrance && hindrance !== 'loading' && !signal.aborted) status.busy(hindrance);
    });
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
      stopWatching();
      clearTimeout(timer);
    }
  }

  /** As CheckpointUse.watch. */
  watch(watcher: (hindrance: Hindrance | undefined) => void): () => void {
    return this.use?.watch(watcher) ?? (() => {});
  }

  /** Shows what is being done with the model until it is done; meanwhile also that a pool can't be reached. */
  async during<T>(status: Status, key: StatusKey, work: () => Promise<T>): Promise<T> {
    status.busy(key);
    const stopWatching = this.watch((hindrance) => status.busy(hindrance && hindrance !== 'loading' ? hindrance : key));
    return work().finally(stopWatching);
  }

  /** Does what msg.load or msg.unload asks for: loads all that a picture needs, or ends the model's process. */
  async loadOrUnload({ msg, status, signal }: Task): Promise<void> {
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
    const deployed = this.node?.atDeploy;
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

  /** The diffusion-model node that is named, if there is one. */
  private get node(): ModelNode | null {
    return this.id ? (this.RED.nodes.getNode(this.id) as ModelNode | null) : null;
  }

  private get use(): CheckpointUse | undefined {
    return this.bundled ?? this.node?.model;
  }

  private find(): CheckpointUse {
    const { use } = this;
    if (!use)
      throw new MissingInputError(
        'model',
        'The diffusion-model that this node names is missing or disabled: choose another in its dialog.',
      );
    return use;
  }
}

/** Whether the message only says that the model is to be loaded or unloaded; such messages go no further. */
export function isModelCommand(msg: Message): boolean {
  return isLoad(msg) || isUnload(msg);
}

export function isUnload(msg: Message): boolean {
  return asksFor(msg, 'unload');
}

/** Whether the message ends work in a node that uses a model. */
export function endsWork(msg: Message): boolean {
  return isCancellation(msg) || isUnload(msg);
}

/** Whether it asks for that only; in other flows' messages `load` may be a number of something else. */
export function isLoad(msg: Message): boolean {
  return ['true', true].includes(own(msg, 'load') as string | boolean) && !asksFor(msg, 'unload');
}
