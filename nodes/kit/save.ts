/** Where an image goes: a file name from a pattern, in a folder below the image directory. */
import fs from 'node:fs/promises';
import path from 'node:path';
import { InvalidInputError } from '../../engine/errors';
import type { ImageFormat } from '../../engine/image/encode';
import { cleanName, makeFolderInside, relativeParts, writeWhole } from './files';
import { own } from './message';

const EXTENSIONS: Record<ImageFormat, string> = { png: '.png', jpeg: '.jpg', webp: '.webp' };
const DEFAULT_PATTERN = '{date}-{seed}';
const COUNTER = '{counter}';
const FIELDS = ['date', 'time', 'seed', 'prompt', 'model', 'width', 'height', 'steps', 'counter'];

export interface Place {
  /** Below the image directory; may hold fields. */
  folder: unknown;
  /** With fields such as {date}; '/' leads into folders below. */
  filename: unknown;
  overwrite: boolean;
}

/**
 * Writes an image below the image directory.
 * @param generation for the fields of the name
 * @returns its path
 * @throws InvalidInputError when the place leads outside or names an unknown field, MultiDiffusionError FILE when it can't be written
 */
export async function saveFile(bytes: Buffer, format: ImageFormat, place: Place, base: string, generation: unknown): Promise<string> {
  const values = fieldValues(generation);
  const fill = (text: unknown, name: string): string[] =>
    relativeParts(checkText(text, name), base, name).map((part) => cleanName(fillFields(part, values, name)) || '_');
  const parts = [...fill(place.folder ?? '', 'folder'), ...fill(place.filename || DEFAULT_PATTERN, 'filename')];
  const name = parts.pop()!.replace(/\.(png|jpe?g|webp)$/i, '');
  const folder = await makeFolderInside(base, parts);
  const extension = EXTENSIONS[format];
  if (name.includes(COUNTER)) {
    const first = place.overwrite ? 1 : (await highestCounter(folder, name, extension)) + 1;
    return writeWhole(folder, (attempt) => name.replaceAll(COUNTER, String(first + attempt).padStart(4, '0')) + extension, bytes, place.overwrite);
  }
  return writeWhole(folder, (attempt) => (attempt === 0 ? name : `${name}-${attempt + 1}`) + extension, bytes, place.overwrite);
}

function checkText(value: unknown, name: string): string {
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
  for (const field of FIELDS) {
    if (field in values) continue;
    const value = own(generation, field);
    const text = typeof value === 'string' || typeof value === 'number' ? String(value) : '';
    values[field] = text.slice(0, 60).trim().replace(/\s+/g, '-') || `no-${field}`;
  }
  return values;
}

function fillFields(text: string, values: Record<string, string>, name: string): string {
  return text.replace(/\{([^{}]*)\}/g, (_, field: string) => {
    if (!FIELDS.includes(field)) throw new InvalidInputError(`${name} field`, `{${field}}`, `one of ${FIELDS.map((known) => `{${known}}`).join(', ')}`);
    return values[field]!;
  });
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
  if (typeof filename !== 'string' || !path.isAbsolute(filename)) return filename;
  const relative = path.relative(await fs.realpath(base).catch(() => base), filename);
  return relative.startsWith('..') || path.isAbsolute(relative) ? filename : undefined;
}
