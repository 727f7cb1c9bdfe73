/** Whether files are still the ones that were looked at: by size, time of change and inode, not by content. */
import { readdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';

/** Path to stamp. */
export type Stamps = Record<string, string>;

/** Stamps of the files in these folders, subfolders left out; a folder that isn't there has none. */
export async function stampFolders(folders: string[]): Promise<Stamps> {
  const stamps: Stamps = {};
  for (const folder of folders) {
    for (const name of await readdir(folder).catch(() => [])) {
      const stamp = await stampOf(join(folder, name));
      if (stamp !== undefined) stamps[join(folder, name)] = stamp;
    }
  }
  return stamps;
}

/**
 * @param within only the files of this folder; default: all
 * @returns the first file that is another one now, or gone
 */
export async function findChanged(stamps: Stamps, within?: string): Promise<string | undefined> {
  for (const [path, stamp] of Object.entries(stamps)) {
    if (within !== undefined && dirname(path) !== within) continue;
    if ((await stampOf(path)) !== stamp) return path;
  }
  return undefined;
}

async function stampOf(path: string): Promise<string | undefined> {
  try {
    const facts = await stat(path);
    return facts.isFile() ? `${facts.size} ${facts.mtimeMs} ${facts.ino}` : undefined;
  } catch {
    return undefined;
  }
}
