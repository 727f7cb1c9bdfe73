/** Where a diffusion-model's checkpoint lies: in the package, in a folder, or in a repository that is downloaded first. */
import path from 'node:path';
import type { CheckpointSource, Elsewhere } from '../../engine/checkpoint/pool';
import { MissingInputError } from '../../engine/errors';
import { MODEL_OPTIONS, POOL_OPTIONS, readDevices, resolveOptions } from '../../engine/options';
import type { PoolOptions } from '../../engine/pool/model';
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
  pool?: string;
  deviceId?: string | number;
  threads?: string | number;
  batchSize?: string | number;
  memoryBudget?: string | number;
  t5Tokens?: string | number;
  idleTimeout?: string | number;
  /** Text where an environment variable holds it. */
  loadAtDeploy?: boolean | string;
}

/** The checkpoint's folder may be downloaded first. */
export interface ModelSource extends CheckpointSource {
  folder: Exclude<CheckpointSource['folder'], string>;
  /** The pool that it runs on; undefined where it runs here. */
  elsewhere(): Promise<Elsewhere | undefined>;
}

/** What only Node-RED's credentials know. */
export interface Secrets {
  /** Of the hub. */
  token?: string;
  /** The address of a pool's Redis. */
  redis?: string;
}

/** @param secrets asked for when they are needed */
export function modelSource(
  config: ModelConfig,
  settings: () => Settings,
  secrets: () => Secrets | undefined = () => undefined,
): ModelSource {
  return {
    async folder(signal, onProgress) {
      switch (config.checkpoint) {
        case 'folder':
          if (!config.folder)
            throw new MissingInputError('folder', 'Name the folder of the checkpoint in the diffusion-model node.');
          return config.folder;
        case 'hub': {
          if (!config.repository)
            throw new MissingInputError(
              'repository',
              'Name the repository of the checkpoint in the diffusion-model node, as owner/name.',
            );
          const { modelDirectory: directory, hubEndpoint: endpoint } = settings();
          const revision = config.revision?.trim() || undefined;
          const { fetchRepository } = await import('../../engine/hub/hub');
          return fetchRepository({
            repository: config.repository.trim(),
            revision,
            token: secrets()?.token || undefined,
            endpoint,
            directory,
            signal,
            onProgress,
          });
        }
        default:
          return POCKET_FOLDER;
      }
    },
    async present() {
      if (config.checkpoint === 'folder') return config.folder || undefined;
      if (config.checkpoint !== 'hub') return POCKET_FOLDER;
      if (!config.repository) return undefined;
      const revision = config.revision?.trim() || undefined;
      const { findRepository } = await import('../../engine/hub/hub');
      return findRepository({ directory: settings().modelDirectory, repository: config.repository.trim(), revision });
    },
    async elsewhere() {
      const { provider } = resolveOptions(MODEL_OPTIONS, config as Record<string, unknown>);
      if (provider !== 'pool') return undefined;
      const { pool } = resolveOptions(POOL_OPTIONS, config as Record<string, unknown>);
      const url = secrets()?.redis?.trim() || process.env.MULTIDIFFUSION_REDIS || '';
      if (!url)
        throw new MissingInputError(
          'redis',
          "Name the address of the pool's Redis in the diffusion-model node, such as redis://host:6379.",
        );
      const { queue, jobTimeout } = settings();
      // A little less than the nodes have themselves: so the pool says why nothing came.
      const patience = jobTimeout && 0.9 * jobTimeout;
      const options = { address: { url }, pool, queue, patience, ...(await wishOf(config)) };
      const { openPool } = await import('../../engine/pool/model');
      return {
        key: JSON.stringify([url, pool, options.wish]),
        open: (onStatus, signal) => openPool({ ...options, onStatus }, signal),
      };
    },
    options() {
      const {
        idleTimeout,
        loadAtDeploy: _,
        provider,
        ...options
      } = resolveOptions(MODEL_OPTIONS, config as Record<string, unknown>);
      const { queue, libraryPath, requestTimeout } = settings();
      return {
        ...options,
        // A pool's workers have their own.
        provider: provider === 'pool' ? 'auto' : provider,
        deviceId: readDevices(config.deviceId),
        idleTimeout: idleTimeout * 1000,
        queue,
        libraryPath,
        requestTimeout,
      };
    },
  };
}

/** By what a pool's workers know the checkpoint. A repository need not be here: they have it. */
async function wishOf(config: ModelConfig): Promise<Pick<PoolOptions, 'wish' | 'called'>> {
  const { checkpoint, folder = '', repository = '', revision } = config;
  if (checkpoint === 'hub') {
    if (!repository.trim())
      throw new MissingInputError(
        'repository',
        'Name the repository of the checkpoint in the diffusion-model node, as owner/name.',
      );
    const wish = { repository: repository.trim(), revision: revision?.trim() || 'main' };
    return { wish, called: `${wish.repository} (${wish.revision})` };
  }
  if (checkpoint === 'folder' && !folder)
    throw new MissingInputError('folder', 'Name the folder of the checkpoint in the diffusion-model node.');
  const { identityOf } = await import('../../engine/pool/identity');
  const identity = await identityOf(checkpoint === 'folder' ? folder : POCKET_FOLDER);
  return {
    wish: { identity },
    called: checkpoint === 'folder' ? `the files of ${path.basename(folder)}` : 'the bundled model',
  };
}
