/** How nodes come by the loaded checkpoint: through their diffusion-model node, or the bundled one without. */
import path from 'node:path';
import type { Node, NodeAPI } from 'node-red';
import { acquireCheckpoint, type CheckpointLease } from '../../engine/checkpoint/pool';
import type { Checkpoint, CheckpointOptions } from '../../engine/checkpoint/checkpoint';
import { CancelledError, MissingInputError } from '../../engine/errors';
import { readSettings } from './settings';
import type { Status } from './status';

/** The model that comes with the package. */
export const POCKET_FOLDER = path.resolve(__dirname, '../../../models/pocket');

/** A hold on a checkpoint, loaded when it is first asked for, shared with everybody who asks for the same. */
export class ModelUse {
  private lease: CheckpointLease | undefined;
  private released = false;

  /** @param where which checkpoint and how to run it; asked when it is needed, and may throw */
  constructor(private readonly where: () => CheckpointOptions & { folder: string }) {}

  /**
   * The loaded checkpoint; a load that failed is tried again the next time.
   * @throws CancelledError after release
   */
  get(): Promise<Checkpoint> {
    if (this.released) throw new CancelledError('The diffusion-model was closed.');
    if (!this.lease) {
      const { folder, ...options } = this.where();
      this.lease = acquireCheckpoint(folder, options);
    }
    return this.lease.checkpoint;
  }

  /** Gives the hold back for good; the checkpoint stays loaded for a while, so that a redeploy finds it. */
  release(): void {
    this.released = true;
    this.lease?.release();
  }
}

/** What a diffusion-model node offers to the nodes that name it. */
export interface ModelNode extends Node {
  model: ModelUse;
}

/** The model that a node's configuration names. */
export class NodeModel {
  private readonly bundled: ModelUse | undefined;

  /** @param id of a diffusion-model node; empty for the bundled model */
  constructor(
    private readonly RED: NodeAPI,
    private readonly id: string | undefined,
  ) {
    if (!id) this.bundled = new ModelUse(() => ({ folder: POCKET_FOLDER, queue: readSettings(RED).queue }));
  }

  /**
   * The loaded checkpoint; while it loads, the status says so.
   * @throws MissingInputError when the diffusion-model node is missing or disabled
   */
  async get(status: Status): Promise<Checkpoint> {
    const use = this.bundled ?? (this.RED.nodes.getNode(this.id!) as ModelNode | null)?.model;
    if (!use) throw new MissingInputError('model', 'The diffusion-model that this node names is missing or disabled: choose another in its dialog.');
    const timer = setTimeout(() => status.busy('loading'), 50);
    try {
      return await use.get();
    } finally {
      clearTimeout(timer);
    }
  }

  release(): void {
    this.bundled?.release();
  }
}
