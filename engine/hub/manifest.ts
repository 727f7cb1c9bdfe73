/** The repository.json in a downloaded checkpoint: what the folder holds, and that it was complete. */
import { readRegular } from '../files/regular-file';
import { join } from 'node:path';
import type { RemoteFile } from './download';

const MOST_BYTES = 2 ** 20;

export const MANIFEST = 'repository.json';

export interface HubManifest {
  /** owner/name */
  repository: string;
  /** What was asked for: a branch, a tag or the commit. */
  revision: string;
  commit: string;
  files: Array<{ path: string; size: number; hash: RemoteFile['hash'] }>;
}

/** @returns what the folder's manifest says, or undefined when it has none */
export async function readManifest(folder: string): Promise<HubManifest | undefined> {
  try {
    const manifest = JSON.parse(
      (await readRegular(join(folder, MANIFEST), MOST_BYTES)).toString('utf8'),
    ) as Partial<HubManifest> | null;
    const { repository, commit, files } = manifest ?? {};
    return typeof repository === 'string' && typeof commit === 'string' && Array.isArray(files)
      ? (manifest as HubManifest)
      : undefined;
  } catch {
    return undefined;
  }
}
