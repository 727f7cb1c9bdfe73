/** Where an image goes: a file name from a pattern, in a folder below the image directory. */
import fs from 'node:fs/promises';
import path from 'node:path';
import { InvalidInputError, MultiDiffusionError } from '../../engine/errors';
import type { ImageFormat } from '../../engine/image/encode';
import { FILE_FIELDS, FILE_OPTIONS } from '../../engine/options';
import { cleanName, makeFolderInside, relativeParts, writeWhole } from '../shared/files';
import { own } from '../shared/message';

const EXTENSIONS: Record<ImageFormat, string> = { png: '.png', jpeg: '.jpg', webp: '.webp' };
const COUNTER = '{counter}';

export interface Place {
  /** Below the image directory; may hold fields. */
  folder: unknown;
  /** With fields such as {date}; '/' leads into folders below. */
  filename: unknown;
  overwrite: boolean;
}

/**
 * Writes an image below the image directory: at the first of several places that can be had. A picture that took minutes
 * is not lost for a name.
 * @param places in the order of preference; the default pattern in the directory itself comes last
 * @returns its path, and why it isn't at the first place
 * @throws as saveFile, for the first place, when there is none
 */
export async function saveSomewhere(
  bytes: Buffer,
  format: ImageFormat,
  places: Place[],
  base: string,
  recipe: unknown,
): Promise<{ file: string; refused?: MultiDiffusionError }> {
  let refused: MultiDiffusionError | undefined;
  for (const place of [...places, { folder: '', filename: FILE_OPTIONS.filename.default, overwrite: false }]) {
    try {
      return { file: await saveFile(bytes, format, place, base, recipe), refused };
    } catch (error) {
      if (!(error instanceof MultiDiffusionError)) throw error;
      refused ??= error;
    }
  }
  throw refused!;
}

/**
 * Writes an image below the image directory.
 * @param recipe for the fields of the name
 * @returns its path
 * @throws InvalidInputError when the place leads outside or names an unknown field, MultiDiffusionError FILE when it can't be written
 */
export async function saveFile(
  bytes: Buffer,
  format: ImageFormat,
  place: Place,
  base: string,
  recipe: unknown,
): Promise<string> {
  const values = fieldValues(recipe);
  const fill = (text: unknown, name: string): string[] =>
    relativeParts(checkText(text, name), base, name).map((part) => cleanName(fillFields(part, values, name)) || '_');
  const parts = fill(place.folder ?? '', 'folder');
  const pattern =
    place.filename === undefined || place.filename === '' ? FILE_OPTIONS.filename.default : place.filename;
  const names = fill(pattern, 'filename');
  const last = names.pop();
  if (last === undefined) throw new InvalidInputError('filename', place.filename, 'the name of a file');
  parts.push(...names);
  const name = last.replace(/\.(png|jpe?g|webp)$/i, '');
  const folder = await makeFolderInside(base, parts);
  const extension = EXTENSIONS[format];
  if (name.includes(COUNTER)) {
    const first = place.overwrite ? 1 : (await highestCounter(folder, name, extension)) + 1;
    return writeWhole(
      folder,
      (attempt) => name.replaceAll(COUNTER, String(first + attempt).padStart(4, '0')) + extension,
      bytes,
      place.overwrite,
    );
  }
  const taken = place.overwrite ? 0 : await takenNumber(folder, name, extension);
  return writeWhole(
    folder,
    (attempt) => (taken + attempt === 0 ? name : `${name}-${taken + attempt + 1}`) + extension,
    bytes,
    place.overwrite,
  );
}

/** A number is a name as well. */
function checkText(value: unknown, name: string): string {
  if (typeof value === 'number' && Number.isFinite(value)) return String(value);
  if (typeof value !== 'string') throw new InvalidInputError(name, value, 'text');
  return value;
}

function fieldValues(generation: unknown): Record<string, string> {
  const two = (value: number): string => String(value).padStart(2, '0');
  const now = new Date();
  const values: Record<string, string> = {
    date: `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`,
    time: [now.getHours(), now.getMinutes(), now.getSeconds()].map(two).join('-'),
    counter: COUNTER,
  };
  for (const field of FILE_FIELDS) {
    if (field in values) continue;
    const value = own(generation, field);
    const text = typeof value === 'string' || typeof value === 'number' ? String(value) : '';
    values[field] = text.slice(0, 60).trim().replace(/\s+/g, '-').replace(/[{}]/g, '_') || `no-${field}`;
  }
  return values;
}

function fillFields(text: string, values: Record<string, string>, name: string): string {
  return text.replace(/\{([^{}]*)\}/g, (_, field: string) => {
    if (!(FILE_FIELDS as readonly string[]).includes(field))
      throw new InvalidInputError(
        `${name} field`,
        `{${field}}`,
        `one of ${FILE_FIELDS.map((known) => `{${known}}`).join(', ')}`,
      );
    return values[field]!;
  });
}

/** How many names NAME, NAME-2, NAME-3, … are taken at least: up to the highest that is there. */
async function takenNumber(folder: string, name: string, extension: string): Promise<number> {
  let highest = 0;
  for (const file of await fs.readdir(folder)) {
    if (!file.startsWith(name) || !file.endsWith(extension)) continue;
    const rest = file.slice(name.length, file.length - extension.length);
    if (rest === '') highest = Math.max(highest, 1);
    else if (/^-\d{1,9}$/.test(rest)) highest = Math.max(highest, Number(rest.slice(1)));
  }
  return highest;
}

/** The highest number that a file of this pattern has in the folder. */
async function highestCounter(folder: string, pattern: string, extension: string): Promise<number> {
  const [before = '', ...after] = pattern.split(COUNTER);
  const end = after.join(COUNTER) + extension;
  let highest = 0;
  for (const file of await fs.readdir(folder)) {
    if (!file.startsWith(before) || !file.endsWith(after.length > 1 ? extension : end)) continue;
    const number = /^\d{1,15}/.exec(file.slice(before.length))?.[0];
    if (number) highest = Math.max(highest, Number(number));
  }
  return highest;
}

/** The name that a message asks for. What an earlier save-image wrote, a path below the directory, is no wish for this one. */
export async function requestedName(filename: unknown, base: string): Promise<unknown> {
  if (filename === null || filename === '') return undefined;
  if (typeof filename !== 'string' || !path.isAbsolute(filename)) return filename;
  const relative = path.relative(await fs.realpath(base).catch(() => base), filename);
  return relative.startsWith('..') || path.isAbsolute(relative) ? filename : undefined;
}
