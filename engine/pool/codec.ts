/**
 * Requests and results on their way through Redis: plain JSON, in which every tensor and every typed array is a reference to
 * bytes that lie under the name of their SHA-256. So what many jobs share, such as embeddings and masks, crosses once, and what
 * arrives is what was sent.
 */
import { createHash } from 'node:crypto';
import { Flaw, InvalidInputError, MultiDiffusionError } from '../errors';
import { isTensor, Tensor, type DType } from '../tensor';

/** Bytes by their SHA-256 in hexadecimal. */
export type Blobs = Map<string, Uint8Array>;

export interface Packed {
  /** JSON. */
  body: unknown;
  blobs: Blobs;
}

const ARRAYS = { f32: Float32Array, u16: Uint16Array, u8: Uint8Array, i32: Int32Array } as const;
type ArrayKind = keyof typeof ARRAYS;
const ELEMENT_BYTES: Record<DType, number> = { float32: 4, float16: 2, uint8: 1, int32: 4 };

/** Marks what stands for something that JSON has no word for. */
const TAG = '$';
const DEEPEST = 64;
/** Bytes of one tensor: the largest picture that the package knows, in single precision. */
const MOST_BYTES = 2 ** 29 - 1;
const MOST_BLOBS = 4096;

const hashes = new WeakMap<ArrayBuffer, string>();

/**
 * @throws InvalidInputError for what can't be sent, such as a function
 */
export function pack(value: unknown, name = 'request'): Packed {
  const blobs: Blobs = new Map();
  const reference = (bytes: Uint8Array, hash = sha256(bytes)): string => {
    blobs.set(hash, bytes);
    return hash;
  };
  const write = (part: unknown, place: string, depth: number): unknown => {
    if (depth > DEEPEST)
      throw new InvalidInputError(place, new Flaw('nested too deep'), `objects nested up to ${DEEPEST} deep`);
    switch (typeof part) {
      case 'string':
      case 'boolean':
        return part;
      case 'undefined':
        return { [TAG]: 'undefined' };
      case 'number':
        return Number.isFinite(part) && !Object.is(part, -0)
          ? part
          : { [TAG]: 'number', text: Object.is(part, -0) ? '-0' : String(part) };
      case 'object':
        break;
      default:
        throw new InvalidInputError(place, part, 'plain data: it is sent to another machine');
    }
    if (part === null) return null;
    if (isTensor(part)) {
      const { dtype, dims, buffer } = Tensor.from(part, place);
      const hash = hashes.get(buffer) ?? sha256(new Uint8Array(buffer));
      hashes.set(buffer, hash);
      return { [TAG]: 'tensor', hash: reference(new Uint8Array(buffer), hash), dtype, dims };
    }
    if (ArrayBuffer.isView(part)) {
      const kind = (Object.keys(ARRAYS) as ArrayKind[]).find((known) => part instanceof ARRAYS[known]);
      if (!kind)
        throw new InvalidInputError(
          place,
          part,
          `one of ${Object.values(ARRAYS)
            .map((array) => array.name)
            .join(', ')}`,
        );
      const bytes = new Uint8Array(part.buffer, part.byteOffset, part.byteLength);
      return { [TAG]: 'array', hash: reference(bytes), kind, length: (part as Uint8Array).length };
    }
    if (Array.isArray(part)) return part.map((entry, i) => write(entry, `${place}[${i}]`, depth + 1));
    const entries = Object.entries(part)
      .filter(([, entry]) => entry !== undefined)
      .map(([key, entry]) => [key, write(entry, `${place}.${key}`, depth + 1)] as const);
    return entries.some(([key]) => key === TAG) ? { [TAG]: 'object', entries } : Object.fromEntries(entries);
  };
  return { body: write(value, name, 0), blobs };
}

/** What a reference promises. */
export interface Reference {
  hash: string;
  bytes: number;
}

/**
 * @param fetch gets the bytes of all references at once; their lengths are as the references say
 * @throws MultiDiffusionError INFERENCE for what pack can't have made, or when bytes are not what their name says
 */
export async function unpack(
  body: unknown,
  fetch: (references: Reference[]) => Promise<Map<string, ArrayBuffer>>,
): Promise<unknown> {
  const references = new Map<string, Reference>();
  collect(body, references, 0);
  const found = references.size > 0 ? await fetch([...references.values()]) : new Map<string, ArrayBuffer>();
  const tensors = new Map<string, Tensor>();
  const read = (part: unknown): unknown => {
    if (typeof part !== 'object' || part === null) return part;
    if (Array.isArray(part)) return part.map(read);
    const source = part as Record<string, unknown>;
    switch (source[TAG]) {
      case undefined:
        return Object.fromEntries(Object.entries(source).map(([key, entry]) => [key, read(entry)]));
      case 'undefined':
        return undefined;
      case 'number':
        return Number(source.text);
      case 'object':
        return Object.fromEntries(
          (source.entries as Array<[string, unknown]>).map(([key, entry]) => [key, read(entry)]),
        );
      case 'tensor': {
        // Equal references are one Tensor, as they were before: embeddings that are one object are held once.
        const key = JSON.stringify([source.hash, source.dtype, source.dims]);
        const tensor =
          tensors.get(key) ??
          new Tensor(source.dtype as DType, source.dims as number[], found.get(source.hash as string) as ArrayBuffer);
        tensors.set(key, tensor);
        return tensor;
      }
      default: {
        const View = ARRAYS[source.kind as ArrayKind];
        return new View(found.get(source.hash as string) as ArrayBuffer);
      }
    }
  };
  return read(body);
}

/** Checks that these are the bytes that were asked for. @throws MultiDiffusionError INFERENCE */
export function checkBytes({ hash, bytes }: Reference, data: Uint8Array): void {
  if (data.byteLength !== bytes || sha256(data) !== hash) throw damaged('bytes in Redis are not what their name says');
}

/** The hashes that a body refers to. */
export function referencesOf(body: unknown): Reference[] {
  const references = new Map<string, Reference>();
  collect(body, references, 0);
  return [...references.values()];
}

function collect(part: unknown, into: Map<string, Reference>, depth: number): void {
  if (typeof part !== 'object' || part === null) return;
  if (depth > 2 * DEEPEST) throw damaged('it is nested too deep');
  if (Array.isArray(part)) return part.forEach((entry) => collect(entry, into, depth + 1));
  const source = part as Record<string, unknown>;
  switch (source[TAG]) {
    case undefined:
      for (const entry of Object.values(source)) collect(entry, into, depth + 1);
      return;
    case 'undefined':
      return;
    case 'number':
      if (!['NaN', 'Infinity', '-Infinity', '-0'].includes(source.text as string)) throw damaged('a number is none');
      return;
    case 'object': {
      const { entries } = source;
      const pairs =
        Array.isArray(entries) &&
        entries.every((entry) => Array.isArray(entry) && entry.length === 2 && typeof entry[0] === 'string');
      if (!pairs) throw damaged('an object is none');
      for (const [, entry] of entries as Array<[string, unknown]>) collect(entry, into, depth + 1);
      return;
    }
    case 'tensor': {
      const { dtype, dims } = source;
      const size = Object.hasOwn(ELEMENT_BYTES, dtype as string) ? ELEMENT_BYTES[dtype as DType] : 0;
      if (!size || !Array.isArray(dims) || dims.length > 8 || !dims.every((d) => Number.isSafeInteger(d) && d >= 0))
        throw damaged('a tensor has no shape');
      return note(
        source.hash,
        (dims as number[]).reduce((a, b) => a * b, size),
        into,
      );
    }
    case 'array': {
      const { kind, length } = source;
      if (!Object.hasOwn(ARRAYS, kind as string) || !Number.isSafeInteger(length) || (length as number) < 0)
        throw damaged('an array has no length');
      return note(source.hash, (length as number) * ARRAYS[kind as ArrayKind].BYTES_PER_ELEMENT, into);
    }
    default:
      throw damaged('it holds something unknown');
  }
}

function note(hash: unknown, bytes: number, into: Map<string, Reference>): void {
  if (typeof hash !== 'string' || !/^[0-9a-f]{64}$/.test(hash)) throw damaged('bytes have no name');
  if (!(bytes <= MOST_BYTES)) throw damaged(`a tensor has more than ${MOST_BYTES} bytes`);
  if ((into.get(hash)?.bytes ?? bytes) !== bytes) throw damaged('the same bytes have two lengths');
  into.set(hash, { hash, bytes });
  if (into.size > MOST_BLOBS) throw damaged(`it has more than ${MOST_BLOBS} tensors`);
}

function damaged(why: string): MultiDiffusionError {
  return new MultiDiffusionError('INFERENCE', `What came through the pool is damaged: ${why}.`);
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
