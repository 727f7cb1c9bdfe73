/** Making folders, with those above them. */
import { mkdir, stat } from 'node:fs/promises';
import path from 'node:path';

/**
 * Makes a folder and those above it that aren't there yet. Node's own way to do so tries without end where the
 * system refuses with ENOENT in a folder that exists, as below /proc.
 * @throws NodeJS.ErrnoException; ENOTDIR where a file stands in the way
 */
export async function makeFolder(folder: string): Promise<void> {
  const missing: string[] = [];
  for (let place = path.resolve(folder); !(await isThere(place)); place = path.dirname(place)) {
    missing.unshift(place);
    if (place === path.dirname(place)) break;
  }
  for (const place of missing) {
    await mkdir(place).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error; // another process may have made it meanwhile
    });
  }
  if (!(await stat(folder)).isDirectory()) throw Object.assign(new Error(`${folder} is a file`), { code: 'ENOTDIR' });
}

function isThere(place: string): Promise<boolean> {
  return stat(place).then(
    () => true,
    () => false,
  );
}
