/** Where a diffusion-model's checkpoint lies: in the package, in a folder, or in a repository that is downloaded first. */
import path from 'node:path';
import type { CheckpointOptions } from '../../engine/checkpoint/checkpoint';
import { fetchRepository, type HubProgress } from '../../engine/checkpoint/hub';
import { MissingInputError } from '../../engine/errors';
import { MODEL_OPTIONS, readDevices, resolveOptions } from '../../engine/options';
import type { Settings } from './settings';

/** The model that comes with the package. */
export const POCKET_FOLDER = path.resolve(__dirname, '../../../models/pocket');

/** What a diffusion-model's dialog sets. */
export interface ModelConfig {
  checkpoint?: string;
  folder?: string;
  repository?: string;
  revision?: string;
  provider?: string;
  deviceId?: string | number;
  threads?: string | number;
  batchSize?: string | number;
  memoryBudget?: string | number;
  idleTimeout?: string | number;
  loadAtDeploy?: boolean;
}

export interface ModelSource {
  /** The checkpoint's folder, downloaded if need be. */
  folder(signal: AbortSignal, onProgress: (progress: HubProgress) => void): Promise<string>;
  options(): CheckpointOptions;
}

/** @param token of the hub; asked for when a repository is downloaded */
export function modelSource(config: ModelConfig, settings: () => Settings, token: () => string | undefined = () => undefined): ModelSource {
  return {
    async folder(signal, onProgress) {
      switch (config.checkpoint) {
        case 'folder':
          if (!config.folder) throw new MissingInputError('folder', 'Name the folder of the checkpoint in the diffusion-model node.');
          return config.folder;
        case 'hub': {
          if (!config.repository) throw new MissingInputError('repository', 'Name the repository of the checkpoint in the diffusion-model node, as owner/name.');
          const { modelDirectory: directory, hubEndpoint: endpoint } = settings();
          const revision = config.revision?.trim() || undefined;
          return fetchRepository({ repository: config.repository.trim(), revision, token: token() || undefined, endpoint, directory, signal, onProgress });
        }
        default:
          return POCKET_FOLDER;
      }
    },
    options() {
      const { idleTimeout, loadAtDeploy: _, ...options } = resolveOptions(MODEL_OPTIONS, config as Record<string, unknown>);
      const { queue, libraryPath } = settings();
      return { ...options, deviceId: readDevices(config.deviceId), idleTimeout: idleTimeout * 1000, queue, libraryPath };
    },
  };
}
