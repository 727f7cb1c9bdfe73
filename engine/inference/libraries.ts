/** Where the CUDA libraries lie, when the system's loader does not know them. */
import { existsSync, readdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/**
 * A process's LD_LIBRARY_PATH: the folders given, and their subfolders' `lib`, which is where pip's nvidia
 * packages keep theirs (site-packages/nvidia/cudnn/lib), before what was set already.
 * @param libraryPath folders, separated as in PATH
 */
export function libraryFolders(libraryPath: string, inherited = ''): string {
  const folders = libraryPath.split(delimiter).filter(Boolean);
  const all = folders.flatMap((folder) => [folder, ...subfolders(folder)]);
  return [...all, ...inherited.split(delimiter).filter(Boolean)].join(delimiter);
}

function subfolders(folder: string): string[] {
  try {
    return readdirSync(folder)
      .map((name) => join(folder, name, 'lib'))
      .filter((lib) => existsSync(lib));
  } catch {
    return [];
  }
}
