/** Files that messages may name: never outside the directory that they are given. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs/promises';
import path from 'node:path';
import { InvalidInputError, MultiDiffusionError } from '../../engine/errors';
import { makeFolder } from '../../engine/files/make-folder';

const MAX_NAME_BYTES = 180;
const MAX_DEPTH = 16;
const DEVICE = /^(con|prn|aux|nul|com\d|lpt\d|conin\$|conout\$)(\.|$)/i;
// Control characters, what file systems forbid, and characters that make a name look like another one.
// eslint-disable-next-line no-control-regex
const FORBIDDEN = /[\u0000-\u001f\u007f-\u009f<>:"|?*\\/\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\uffff]/g;
const LONE_SURROGATES = /\p{Surrogate}/gu;

/** The text as part of a file name: no separators, no control characters, no reserved name. */
export function cleanName(text: string): string {
  const clean = text
    .slice(0, 1000)
    .replace(LONE_SURROGATES, '_')
    .normalize('NFC')
    .replace(FORBIDDEN, '_')
    .replace(/^[. ]+|[. ]+$/g, '');
  return fittingName(DEVICE.test(clean) ? `_${clean}` : clean);
}

/**
 * The folder's parts below its base directory, cleaned.
 * @throws InvalidInputError when it leaves the base directory
 */
export function relativeParts(folder: string, base: string, name: string): string[] {
  const allowed = 'a folder below the base directory, without ".." and drive letters';
  if (folder.includes('\0') || folder.length > 4096) throw new InvalidInputError(name, folder, allowed);
  const inside = path.isAbsolute(folder) ? path.relative(base, folder) : folder;
  if (path.isAbsolute(inside) || /^[a-z]:([\\/]|$)/i.test(inside)) throw new InvalidInputError(name, folder, allowed);
  const parts = inside.split(/[\\/]+/).filter((part) => part !== '' && part !== '.');
  if (parts.length > MAX_DEPTH || parts.some((part) => part.trim() === '..' || /^\.+$/.test(part.normalize('NFKC')))) {
    throw new InvalidInputError(name, folder, allowed);
  }
  return parts.map((part) => cleanName(part) || '_');
}

/**
 * A name that a message gives to a file that is still to be made, checked before the work.
 * @throws InvalidInputError when it names no file, or leads outside; absolute names, which other nodes set, are not looked at
 */
export function checkFileName(filename: unknown, base: string): void {
  if (typeof filename !== 'string' || filename === '' || path.isAbsolute(filename)) return;
  if (relativeParts(filename, base, 'filename').length === 0)
    throw new InvalidInputError('filename', filename, 'the name of a file');
}

/**
 * Makes the folder below the base directory, where it isn't there yet, and makes sure that no symbolic
 * link on the way leads out of it.
 * @returns the real path
 * @throws MultiDiffusionError FILE when it leads out, or can't be made
 */
export async function makeFolderInside(base: string, parts: string[]): Promise<string> {
  try {
    await makeFolder(base);
    const root = await fs.realpath(base);
    let folder = root;
    for (const part of parts) {
      folder = path.join(folder, part);
      await fs.mkdir(folder).catch(ignoreExisting);
      folder = await fs.realpath(folder);
      if (!isInside(root, folder))
        throw new MultiDiffusionError('FILE', `The folder ${parts.join('/')} leads out of the base directory.`);
    }
    return folder;
  } catch (cause) {
    throw fileError(`The folder ${JSON.stringify(parts.join('/') || '.')} in the base directory can't be used`, cause);
  }
}

/**
 * Writes a file that appears whole or not at all.
 * @param nameFor the name of the n-th attempt, n = 0, 1, …: asked again while a file of that name exists
 * @returns the path written to
 * @throws MultiDiffusionError FILE when it can't be written
 */
export async function writeWhole(
  folder: string,
  nameFor: (attempt: number) => string,
  bytes: Buffer,
  overwrite: boolean,
): Promise<string> {
  const temporary = path.join(folder, `.${randomBytes(8).toString('hex')}.part`);
  try {
    await fs.writeFile(temporary, bytes, { flag: 'wx', flush: true });
    for (let attempt = 0; attempt < 100_000; attempt++) {
      const target = path.join(folder, nameFor(attempt));
      if (!(await moveTo(temporary, target, overwrite))) continue;
      await checkStill(folder, target);
      return target;
    }
    throw new MultiDiffusionError('FILE', `No free file name such as ${nameFor(0)} was found.`);
  } catch (cause) {
    throw fileError(`The image ${nameFor(0)} can't be written`, cause);
  } finally {
    await fs.rm(temporary, { force: true }).catch(() => {});
  }
}

/**
 * The real path of an existing file below the base directory.
 * @throws MultiDiffusionError FILE when there is no such file inside; the message tells nothing of what lies outside
 */
export async function existingFileInside(base: string, file: string, maxBytes: number, what: string): Promise<string> {
  const refused = new MultiDiffusionError(
    'FILE',
    `The ${what} ${JSON.stringify(file.slice(0, 100))} is not a file in the directory that settings.js allows for it.`,
  );
  if (file.includes('\0') || file.length > 4096) throw refused;
  try {
    const root = await fs.realpath(base);
    const real = await fs.realpath(path.resolve(root, file));
    const facts = await fs.stat(real);
    if (!isInside(root, real) || !facts.isFile()) throw refused;
    if (facts.size > maxBytes)
      throw new MultiDiffusionError(
        'LIMIT',
        `The ${what} ${JSON.stringify(file.slice(0, 100))} has ${facts.size} bytes; allowed: up to ${maxBytes}.`,
      );
    return real;
  } catch (error) {
    throw error instanceof MultiDiffusionError ? error : refused;
  }
}

/** @throws MultiDiffusionError FILE, without the file, when its folder has become another one while it was written */
async function checkStill(folder: string, target: string): Promise<void> {
  if ((await fs.realpath(folder).catch(() => undefined)) === folder) return;
  await fs.rm(target, { force: true }).catch(() => {});
  throw new MultiDiffusionError(
    'FILE',
    'The folder was replaced while the image was written into it; nothing was saved.',
  );
}

/** @returns false when a file of that name exists and may not be overwritten */
async function moveTo(temporary: string, target: string, overwrite: boolean): Promise<boolean> {
  if (overwrite) {
    await fs.rename(temporary, target);
    return true;
  }
  try {
    await fs.link(temporary, target); // unlike rename, a link never replaces a file
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return false;
    if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'EOPNOTSUPP' && code !== 'ENOSYS' && code !== 'EACCES')
      throw error;
  }
  // A file system without hard links: an empty file claims the name, of which only one writer can be the first.
  try {
    await (await fs.open(target, 'wx')).close();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
  try {
    await fs.rename(temporary, target);
    return true;
  } catch (error) {
    await fs.rm(target, { force: true }).catch(() => {});
    throw error;
  }
}

function isInside(root: string, place: string): boolean {
  const relative = path.relative(root, place);
  return relative === '' || (!relative.startsWith('..') && !path.isAbsolute(relative));
}

function fittingName(name: string): string {
  let short = name;
  while (Buffer.byteLength(short) > MAX_NAME_BYTES) short = short.slice(0, -1);
  return short.replace(LONE_SURROGATES, '');
}

function ignoreExisting(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EEXIST') throw error;
}

function fileError(what: string, cause: unknown): MultiDiffusionError {
  if (cause instanceof MultiDiffusionError) return cause;
  const code = (cause as NodeJS.ErrnoException).code ?? 'unknown';
  const reasons: Record<string, string> = {
    ENOSPC: 'the disk is full',
    EACCES: 'Node-RED has no permission to write there',
    EPERM: 'Node-RED has no permission to write there',
    EROFS: 'the file system is read-only',
    ENOENT: 'it is not there, and the system does not let it be made',
    ENOTDIR: 'a file stands where a folder should be',
    EISDIR: 'a folder of that name is there',
    EDQUOT: 'the disk quota is used up',
    EFBIG: 'the file is too large for the file system',
  };
  return new MultiDiffusionError('FILE', `${what}: ${reasons[code] ?? code}.`, { cause });
}
