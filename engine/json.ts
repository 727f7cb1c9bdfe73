/**
 * How much JSON of strangers may hold. Its length alone is no bound: a few megabytes of `{}` take seconds to read, and
 * to clone, which Node-RED does with messages. So what a text holds is counted before it is read.
 */

export interface JsonBounds {
  /** Lists and objects, in all. */
  lists: number;
  /** Named values of objects. */
  names: number;
}

/** Of a message: Node-RED clones it, which takes longer than reading it. All polygons of a picture are 10,000 lists. */
export const MESSAGE_BOUNDS: JsonBounds = { lists: 15_000, names: 50_000 };
/** Of what is read once and not cloned, such as vocabularies (CLIP's has 49,408 names) and a hub's answers. */
export const FILE_BOUNDS: JsonBounds = { lists: 100_000, names: 100_000 };

/** How deep it may be nested: Node-RED clones by recursion. */
const DEEPEST = 64;
/** Values in all: of lists of numbers these are no more than some milliseconds. */
const MOST_VALUES = 500_000;

/** What is too much about a value, and what is allowed, as the middle and the end of a sentence. */
export interface Excess {
  found: string;
  allowed: string;
}

/** Counts what it is told of, until something is too much. */
class Census {
  excess: Excess | undefined;
  private lists = 0;
  private names = 0;
  private values = 0;

  constructor(private readonly most: JsonBounds) {}

  list(depth: number): void {
    if (++this.lists > this.most.lists)
      this.excess = { found: 'longer', allowed: `up to ${this.most.lists} lists and objects` };
    if (depth > DEEPEST) this.excess = { found: 'nested deeper', allowed: `up to ${DEEPEST} levels` };
  }

  name(): void {
    if (++this.names > this.most.names)
      this.excess = { found: 'longer', allowed: `up to ${this.most.names} named values` };
  }

  value(): void {
    if (++this.values > MOST_VALUES) this.excess = { found: 'longer', allowed: `up to ${MOST_VALUES} values` };
  }
}

const [QUOTE, BACKSLASH, COMMA, COLON] = [0x22, 0x5c, 0x2c, 0x3a];
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d];

/**
 * What a JSON text holds too much of. Texts in it may be of any length; what is no JSON is left to who reads it.
 * @returns undefined when it may be read
 */
export function excessInText(json: string, bounds: JsonBounds): Excess | undefined {
  const census = new Census(bounds);
  let depth = 0;
  for (let at = 0; at < json.length && !census.excess; at++) {
    const code = json.charCodeAt(at);
    if (code === QUOTE) {
      at = endOfText(json, at);
      if (at < 0) break;
    } else if (code === COMMA) census.value();
    else if (code === COLON) census.name();
    else if (code === OPEN_LIST || code === OPEN_OBJECT) census.list(depth++);
    else if (code === CLOSE_LIST || code === CLOSE_OBJECT) depth--;
  }
  return census.excess;
}

/** @returns where the text that begins here ends, at its quote; -1 when it does not */
function endOfText(json: string, start: number): number {
  for (let end = json.indexOf('"', start + 1); end > 0; end = json.indexOf('"', end + 1)) {
    let first = end;
    while (json.charCodeAt(first - 1) === BACKSLASH) first--;
    if ((end - first) % 2 === 0) return end;
  }
  return -1;
}

/**
 * As excessInText, of what has been read from JSON, by Node-RED say.
 * @returns undefined when it is not too much
 */
export function excessIn(value: unknown, bounds: JsonBounds): Excess | undefined {
  const census = new Census(bounds);
  let level = isList(value) ? [value] : [];
  for (let depth = 0; level.length > 0 && !census.excess; depth++) {
    const next: object[] = [];
    for (const list of level) {
      census.list(depth);
      const entries = Array.isArray(list) ? (list as unknown[]) : Object.values(list);
      for (const entry of entries) {
        census.value();
        if (!Array.isArray(list)) census.name();
        if (isList(entry)) next.push(entry);
        if (census.excess) return census.excess;
      }
    }
    level = next;
  }
  return census.excess;
}

function isList(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !ArrayBuffer.isView(value);
}

/** What an object {0: …, 1: …} lists, as forms send lists and JSON has typed arrays. @returns undefined for anything else */
export function numbered(value: unknown): unknown[] | undefined {
  if (!isList(value) || Array.isArray(value)) return undefined;
  const names = Object.keys(value);
  return names.length > 0 && names.every((name, i) => name === String(i)) ? Object.values(value) : undefined;
}
