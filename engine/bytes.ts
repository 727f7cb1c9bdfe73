/** Bytes and text in the forms in which messages and files bring them. */
import { isUtf8 } from 'node:buffer';
import type { Steps } from './turns';

/**
 * The bytes in a value: a Buffer, a Uint8Array, an ArrayBuffer, or what JSON makes of a Buffer,
 * `{type: 'Buffer', data: [0, 255, …]}`. Nothing is copied, but for the last.
 * @returns undefined for anything else
 */
export function bytesIn(value: unknown): Buffer | undefined {
  if (Buffer.isBuffer(value)) return value;
  if (value instanceof Uint8Array || value instanceof Uint8ClampedArray || value instanceof DataView)
    return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  if (typeof value !== 'object' || value === null) return undefined;
  // Made in a Function node, it is of another realm, where instanceof says no.
  const kind = Object.prototype.toString.call(value).slice(8, -1);
  if (kind === 'ArrayBuffer' || kind === 'SharedArrayBuffer') return Buffer.from(value as ArrayBuffer);
  if (kind === 'Uint8Array' || kind === 'Uint8ClampedArray' || kind === 'DataView') {
    const { buffer, byteOffset, byteLength } = value as Uint8Array;
    return Buffer.from(buffer, byteOffset, byteLength);
  }
  const { type, data } = value as { type?: unknown; data?: unknown };
  return type === 'Buffer' && Array.isArray(data) && data.every(isByte) ? Buffer.from(data) : undefined;
}

const isByte = (value: unknown): value is number => Number.isInteger(value) && (value as number) >> 8 === 0;

/**
 * The text that bytes hold: UTF-8, or UTF-16 with a byte order mark, which is no part of it.
 * @returns undefined when they hold no text
 */
export function decodeText(bytes: Buffer): string | undefined {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return new TextDecoder('utf-16le').decode(bytes);
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return new TextDecoder('utf-16le').decode(swapped(bytes));
  return isUtf8(bytes) && !bytes.includes(0) ? withoutMark(bytes.toString('utf8')) : undefined;
}

/** UTF-16 with its bytes in the other order. */
export function swapped(bytes: Buffer): Buffer {
  return Buffer.from(bytes.subarray(0, bytes.length & ~1)).swap16();
}

/** The text without a byte order mark before it, which many programs write into a file and JSON forbids. */
export function withoutMark(text: string): string {
  return text.charCodeAt(0) === 0xfeff ? text.slice(1) : text;
}

/** Of what is copied at a time. */
const PIECE = 2 ** 20;

/** As Buffer.concat, in steps: tens of megabytes take their time. */
export function* concatInSteps(parts: readonly Buffer[]): Steps<Buffer> {
  const whole = Buffer.allocUnsafe(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    for (let start = 0; start < part.length; start += PIECE) {
      at += part.copy(whole, at, start, start + PIECE);
      yield;
    }
  }
  return whole;
}

/** The bytes of a text in Latin-1, in steps. */
export function* latin1InSteps(text: string): Steps<Buffer> {
  const bytes = Buffer.allocUnsafe(text.length);
  for (let at = 0; at < text.length; at += PIECE) {
    bytes.write(text.slice(at, at + PIECE), at, 'latin1');
    yield;
  }
  return bytes;
}
