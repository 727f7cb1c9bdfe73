/** By what clients and workers know that they speak of the same checkpoint. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { MultiDiffusionError } from '../errors';
import { stampFolders } from '../files/changed-files';
import { MANIFEST, readManifest } from '../hub/manifest';

/** What lies in checkpoints and has no say in the pictures. */
const NO_PART = /(^|\/)\.|\.(md|png|jpe?g|webp|gif)$|(^|\/)LICEN[CS]E/i;

const known = new Map<string, Promise<string>>();

/**
 * 32 hexadecimal digits: the same for the same repository's same commit; and for folders with the same files, whatever
 * they are called and wherever they lie.
 */
export async function identityOf(folder: string): Promise<string> {
  const manifest = await readManifest(folder);
  if (manifest) return repositoryIdentity(manifest.repository, manifest.commit);
  const files = await filesOf(folder);
  const key = JSON.stringify(await stampFolders([...new Set(files.map((file) => join(file, '..')))]));
  let identity = known.get(key);
  if (!identity) {
    identity = hashFiles(folder, files);
    known.set(key, identity);
    identity.catch(() => known.delete(key));
  }
  return identity;
}

export function repositoryIdentity(repository: string, commit: string): string {
  return shorten(createHash('sha256').update(`${repository}@${commit}`));
}

async function filesOf(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch((cause: Error) => {
    throw new MultiDiffusionError('CHECKPOINT', `The folder ${folder} can't be read.`, { cause });
  });
  return entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((file) => !NO_PART.test(nameIn(folder, file)) && nameIn(folder, file) !== MANIFEST)
    .sort();
}

async function hashFiles(folder: string, files: string[]): Promise<string> {
  const all = createHash('sha256');
  for (const file of files) {
    const one = createHash('sha256');
    await pipeline(createReadStream(file, { highWaterMark: 2 ** 20 }), one);
    all.update(`${nameIn(folder, file)} ${one.digest('hex')}\n`);
  }
  return shorten(all);
}

const nameIn = (folder: string, file: string): string => relative(folder, file).split(sep).join('/');

const shorten = (hash: ReturnType<typeof createHash>): string => hash.digest('hex').slice(0, 32);
