/** Reading messages, in which anything may lie, and writing into them. */
import type { NodeMessageInFlow } from 'node-red';
import { bytesIn, decodeText, withoutMark } from '../../engine/bytes';
import { Flaw, InvalidInputError } from '../../engine/errors';
import type { Recipe } from '../../engine/image/recipe';
import { isPictureText } from '../../engine/image/source';
import { isTensor } from '../../engine/tensor';

export type Message = NodeMessageInFlow;

/**
 * A property of the object itself: nothing inherited, and no exception from a getter.
 * @throws InvalidInputError when the property can't be read
 */
export function own(source: unknown, name: string): unknown {
  if (!isObject(source) || !Object.hasOwn(source, name)) return undefined;
  try {
    return source[name];
  } catch {
    throw new InvalidInputError(name, 'a property that fails when it is read', 'a plain value');
  }
}

/** The named properties of the object itself, those that it has. */
export function pick(source: unknown, names: readonly string[]): Record<string, unknown> {
  const picked: Record<string, unknown> = {};
  for (const name of names) {
    const value = own(source, name);
    if (value !== undefined) picked[name] = value;
  }
  return picked;
}

/** Whether the message asks for what the property names, as `reset = true` does; text from an HTTP query may say so, too. */
export function asksFor(msg: Message, name: string): boolean {
  const value = own(msg, name);
  return Boolean(value) && value !== 'false';
}

/** Whether it is an object other than an array, a Buffer or a typed array. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value);
}

/**
 * msg.payload is more than a layout can be: it is taken out of the message before Catch gets it, for cloning it would
 * cost more than everything else about it.
 */
export class TooMuchError extends InvalidInputError {
  constructor(flaw: string, allowed: string) {
    super('payload', new Flaw(flaw), allowed);
  }
}

/** Nobody writes more names than this by mistake. */
const MOST_NAMES = 20;

/** Names in an object that mean nothing, such as misspelt ones. */
export function unknownNames(source: unknown, known: ReadonlySet<string>): string[] {
  if (!isObject(source)) return [];
  return Object.keys(source)
    .filter((name) => !known.has(name))
    .slice(0, MOST_NAMES)
    .map((name) => name.slice(0, 50));
}

/**
 * Text, or the text that bytes hold, as they come from MQTT or a file; without a byte order mark.
 * @param most characters that it may have where it comes as bytes: looking at more takes its time
 * @returns undefined for anything else
 */
export function textIn(value: unknown, most: number): string | undefined {
  if (typeof value === 'string') return withoutMark(value);
  const bytes = bytesIn(value);
  return bytes && bytes.length <= MOST_BYTES_PER_CHARACTER * most ? decodeText(bytes) : undefined;
}

/** In UTF-8, and in UTF-16. */
const MOST_BYTES_PER_CHARACTER = 4;

/** What is read as text and written by no save-image. */
const TEXT_FILE = /\.(json|txt|ya?ml|csv|md|html?|xml)$/i;

/**
 * Forgets msg.filename where it is the name of the file that an input came from, as a file in node leaves it beside the
 * file's contents: for save-image it would be a wish.
 * @param input that has been used up: with bytes, or a picture as text, the name came; with other text, or an object that
 *   a json node has made of it, if it is the name of a text file
 */
export function useUpFilename(msg: Message, input: unknown): void {
  const filename = own(msg, 'filename');
  const file = bytesIn(input) !== undefined || (typeof input === 'string' && isPictureText(input));
  if (file || (typeof filename === 'string' && TEXT_FILE.test(filename) && !isTensor(input))) delete msg.filename;
}

/** Adds to msg.generation, which every node of a picture does; what was there and is no object is dropped. */
export function addToRecipe(msg: Message, facts: Partial<Recipe>): void {
  const before = own(msg, 'generation');
  const generation = isObject(before) ? before : {};
  const timings = own(generation, 'timings');
  msg.generation = {
    ...generation,
    ...facts,
    ...(facts.timings && { timings: { ...(isObject(timings) ? timings : {}), ...facts.timings } }),
  };
}

/** What earlier nodes have found; the last hundred of it. */
export function findingsIn(msg: Message): unknown[] {
  const findings = own(msg, 'findings');
  return Array.isArray(findings) ? findings.slice(-100) : [];
}

/** Adds to the array msg.findings. */
export function addFindings(msg: Message, findings: readonly unknown[]): void {
  if (findings.length > 0) msg.findings = [...findingsIn(msg), ...findings];
}

/**
 * Headers for http response: the ones that are there and still true, with the content type. Those that
 * described another body, as an http request node leaves them behind, would break the answer.
 */
export function contentHeaders(before: unknown, contentType: string): Record<string, string> {
  const headers: Record<string, string> = {};
  if (isObject(before)) {
    for (const name of Object.keys(before).slice(0, 100)) {
      const value = own(before, name);
      if (
        typeof value === 'string' &&
        !/^(content-(length|type|encoding|range|md5)$|transfer-encoding$|connection$|keep-alive$|etag$|last-modified$|set-cookie$)/i.test(
          name,
        )
      )
        headers[name] = value;
    }
  }
  return { ...headers, 'content-type': contentType };
}
