/** diffusion-model: which checkpoint, and where it runs. Nodes that name the same share one loaded copy. */
import type { NodeAPI, NodeDef } from 'node-red';
import { MissingInputError } from '../engine/errors';
import { MODEL_OPTIONS, resolveOptions } from '../engine/options';
import { ModelUse, POCKET_FOLDER, type ModelNode } from './kit/model';
import { readSettings } from './kit/settings';

interface DiffusionModelDef extends NodeDef {
  checkpoint?: 'pocket' | 'folder';
  folder?: string;
  provider?: string;
  deviceId?: string | number;
  threads?: string | number;
}

export = function (RED: NodeAPI): void {
  RED.nodes.registerType('diffusion-model', function (this: ModelNode, config: DiffusionModelDef) {
    RED.nodes.createNode(this, config);
    const options = () => resolveOptions(MODEL_OPTIONS, config as unknown as Record<string, unknown>);
    this.model = new ModelUse(() => ({ folder: folderOf(config), ...options(), queue: readSettings(RED).queue }));
    this.on('close', () => this.model.release());
  });
};

function folderOf({ checkpoint, folder }: DiffusionModelDef): string {
  if (checkpoint !== 'folder') return POCKET_FOLDER;
  if (!folder) throw new MissingInputError('folder', 'Name the folder of the checkpoint in the diffusion-model node.');
  return folder;
}
