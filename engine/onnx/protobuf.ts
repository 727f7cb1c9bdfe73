/**
 * The wire format of Protocol Buffers, as far as ONNX files need it: a message is a row of fields, each a
 * number with a tag before it, or bytes (a text, a message) with tag and length before them.
 * Source: protobuf.dev, Encoding.
 */
import type { FileHandle } from 'node:fs/promises';
import { nextTurn, turnIsOver } from '../turns';

const VARINT = 0;
const FIXED_64 = 1;
const BYTES = 2;
const FIXED_32 = 5;

export interface Field {
  number: number;
  /** Of a field that is a number, when it is of variable length. */
  value?: number;
  /** Of a field that is bytes. */
  content?: Buffer;
  /** Tag, length and content. */
  whole: Buffer;
}

/** What is read is no complete message; the words say what is wrong, as the end of a sentence about the file. */
export class DamagedMessageError extends Error {}

/** @throws DamagedMessageError */
export function* fields(message: Buffer): Generator<Field> {
  for (let start = 0; start < message.length; ) {
    const { number, wire, value, end: contentStart } = readTag(message, start);
    const end = contentStart + (wire === BYTES ? value : fixedBytes(wire));
    if (end > message.length) throw new DamagedMessageError('its parts contradict each other');
    yield {
      number,
      value: wire === VARINT ? value : undefined,
      content: wire === BYTES ? message.subarray(contentStart, end) : undefined,
      whole: message.subarray(start, end),
    };
    start = end;
  }
}

/** A message's fields of one number that are bytes. */
export function contents(message: Buffer, number: number): Buffer[] {
  return [...fields(message)].flatMap((field) => (field.number === number && field.content ? [field.content] : []));
}

/** A message's numbers of one field, each with a tag of its own or packed together. */
export function numbers(message: Buffer, number: number): number[] {
  const found: number[] = [];
  for (const field of fields(message)) {
    if (field.number !== number) continue;
    if (field.value !== undefined) found.push(field.value);
    for (let at = 0; field.content && at < field.content.length; ) {
      const [value, end] = readVarint(field.content, at);
      found.push(value);
      at = end;
    }
  }
  return found;
}

/** The message with the content of every field of this number replaced. */
export function rewriteFields(message: Buffer, number: number, change: (content: Buffer) => Buffer): Buffer {
  const parts = [...fields(message)].map((field) => {
    if (field.number !== number || !field.content) return field.whole;
    const changed = change(field.content);
    return changed === field.content ? field.whole : bytesField(number, changed);
  });
  return Buffer.concat(parts);
}

export function textField(number: number, value: string): Buffer {
  return bytesField(number, Buffer.from(value));
}

/** @param content a message, or the values of an array */
export function bytesField(number: number, ...content: Uint8Array[]): Buffer {
  const bytes = Buffer.concat(content);
  return Buffer.concat([encodeVarint(number * 8 + BYTES), encodeVarint(bytes.length), bytes]);
}

export function numberField(number: number, value: number): Buffer {
  return Buffer.concat([encodeVarint(number * 8 + VARINT), encodeVarint(value)]);
}

/** A single-precision number, which has four bytes. */
export function floatField(number: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return Buffer.concat([encodeVarint(number * 8 + FIXED_32), bytes]);
}

function encodeVarint(value: number): Buffer {
  const bytes: number[] = [];
  for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) + 128);
  return Buffer.of(...bytes, value);
}

/** @returns number and kind of the field at `start`; its value, or the length of its bytes; and where what follows begins */
function readTag(bytes: Buffer, start: number): { number: number; wire: number; value: number; end: number } {
  const [tag, afterTag] = readVarint(bytes, start);
  const [number, wire] = [Math.floor(tag / 8), tag % 8];
  if (number === 0 || ![VARINT, FIXED_64, BYTES, FIXED_32].includes(wire))
    throw new DamagedMessageError('it is not in ONNX format');
  const [value, end] = wire === VARINT || wire === BYTES ? readVarint(bytes, afterTag) : [0, afterTag];
  return { number, wire, value, end };
}

function readVarint(bytes: Buffer, start: number): [value: number, end: number] {
  let value = 0;
  for (let at = start, scale = 1; at < start + 10; at++, scale *= 128) {
    const byte = bytes[at];
    if (byte === undefined) throw new DamagedMessageError('it ends in the middle of a number');
    value += (byte & 127) * scale;
    if (byte < 128) return [value, at + 1];
  }
  throw new DamagedMessageError('it is not in ONNX format');
}

function fixedBytes(wire: number): number {
  return wire === FIXED_64 ? 8 : wire === FIXED_32 ? 4 : 0;
}

const WINDOW = 64 * 1024;
/** Fields that are walked, and bytes that are looked into: the largest models have some ten thousand and a few million. */
const MOST_FIELDS = 1_000_000;
const MOST_BYTES = 64 * 2 ** 20;
/** Most bytes of a tag and a number or length after it. */
const LONGEST_TAG = 20;

/** A part of a file: all of a field's bytes, not read yet. */
export interface Span {
  start: number;
  end: number;
}

/** Walks messages in a file through a small window, so that gigabytes of weights are passed over. */
export class MessageFile {
  private window = Buffer.alloc(0);
  private windowStart = 0;
  private fieldsWalked = 0;
  private bytesRead = 0;

  /** @param size of the file in bytes */
  constructor(
    private readonly file: FileHandle,
    private readonly size: number,
  ) {}

  /**
   * The fields of the message in `span` that are bytes.
   * @throws DamagedMessageError
   */
  async *fields(span: Span): AsyncGenerator<{ number: number; content: Span }> {
    for (let start = span.start; start < span.end; ) {
      if (++this.fieldsWalked > MOST_FIELDS)
        throw new DamagedMessageError(`it has more than ${MOST_FIELDS} parts, which no model has`);
      if (turnIsOver()) await nextTurn();
      const tag = { start, end: Math.min(start + LONGEST_TAG, this.size) };
      if (!this.holds(tag)) await this.load(tag);
      const { number, wire, value, end } = readTag(this.held(tag), 0);
      const content = { start: start + end, end: start + end + (wire === BYTES ? value : fixedBytes(wire)) };
      if (content.end > this.size)
        throw new DamagedMessageError(`it ends after ${this.size} of at least ${content.end} bytes`);
      if (content.end > span.end) throw new DamagedMessageError('its parts contradict each other');
      if (wire === BYTES) yield { number, content };
      start = content.end;
    }
  }

  /** Whether a part is so small that `read` takes it. */
  isSmall({ start, end }: Span): boolean {
    return end - start <= WINDOW;
  }

  /** @throws DamagedMessageError when the part is larger than what is kept in memory, or the file shorter */
  async read(span: Span): Promise<Buffer> {
    if (!this.isSmall(span)) throw new DamagedMessageError('a name in it is too long');
    this.bytesRead += span.end - span.start;
    if (this.bytesRead > MOST_BYTES)
      throw new DamagedMessageError(`its graph has more than ${MOST_BYTES} bytes without its weights`);
    if (!this.holds(span)) await this.load(span);
    return this.held(span);
  }

  private holds({ start, end }: Span): boolean {
    return start >= this.windowStart && end <= this.windowStart + this.window.length;
  }

  private held({ start, end }: Span): Buffer {
    return this.window.subarray(start - this.windowStart, end - this.windowStart);
  }

  private async load({ start, end }: Span): Promise<void> {
    const buffer = Buffer.alloc(WINDOW);
    const { bytesRead } = await this.file.read(buffer, 0, WINDOW, start);
    this.window = buffer.subarray(0, bytesRead);
    this.windowStart = start;
    if (start + bytesRead < end) throw new DamagedMessageError(`it ends after ${start + bytesRead} bytes`);
  }
}
