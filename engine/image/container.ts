/**
 * What a picture's file is, told from its first bytes, and what of it a decoder may see. The image library reads
 * dozens of formats, some of them programs (SVG), and inflates whatever text a PNG carries: so it is handed
 * nothing but PNG, JPEG, WebP and GIF, without what the picture does not need, and with counted parts.
 */
import { promisify } from 'node:util';
import { inflate } from 'node:zlib';
import type { Sharp, SharpOptions } from 'sharp';
import { InvalidInputError } from '../errors';
import { loadSharp } from './sharp';
import { checkBytes, overLimit, pictureFormat, type PictureLimits, READABLE } from './source';

type Container = 'png' | 'jpeg' | 'webp' | 'gif';

/** Of a PNG what its pixels need; text, time and private chunks are left out. */
const PNG_CHUNKS = new Set(
  ['IHDR', 'PLTE', 'IDAT', 'IEND', 'tRNS', 'gAMA', 'cHRM', 'sRGB', 'sBIT', 'iCCP', 'eXIf', 'pHYs'].map((type) =>
    Buffer.from(type, 'latin1').readUInt32BE(),
  ),
);
const [IHDR, IDAT, IEND, ICCP] = ['IHDR', 'IDAT', 'IEND', 'iCCP'].map((type) => Buffer.from(type).readUInt32BE());
const PNG_HEADER = 8;
/** Chunks and frames of a picture, scans of a JPEG: programs write some dozens, or some thousand pieces of data. */
const MOST_CHUNKS = 50_000;
const MOST_FRAMES = 10_000;
const MOST_SCANS = 100;
/** No colour profile is larger, and no orientation needs more. */
const PROFILE_BYTES = 4 * 2 ** 20;
const EXIF_BYTES = 2 ** 20;
/** A decode that takes longer is ended. */
const DECODE_SECONDS = 30;

/**
 * Opens a picture's file for decoding.
 * @param name how to call it in errors
 * @throws InvalidInputError when it is no PNG, JPEG, WebP or GIF file, or one that is made to harm
 * @throws MultiDiffusionError LIMIT when it is larger than the limits
 */
export async function openPicture(bytes: Uint8Array, name: string, limits: PictureLimits): Promise<Sharp> {
  checkBytes(bytes.length, name, limits);
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const format = pictureFormat(file);
  if (!format || !(format in CHECKS))
    throw new InvalidInputError(name, format ? format.toUpperCase() : file, `a ${READABLE} file`);
  const checked = await CHECKS[format as Container](file, name, limits);
  return decoder(checked, limits);
}

/** The image library on checked bytes, or on raw pixels. */
export function decoder(bytes: Uint8Array, limits: PictureLimits, options: SharpOptions = {}): Sharp {
  return loadSharp()(bytes, { limitInputPixels: limits.maxPixels, failOn: 'error', pages: 1, ...options }).timeout({
    seconds: DECODE_SECONDS,
  });
}

type Check = (bytes: Buffer, name: string, limits: PictureLimits) => Buffer | Promise<Buffer>;

const CHECKS: Record<Container, Check> = { png: checkPng, jpeg: checkJpeg, gif: checkGif, webp: checkWebp };

/** The file with the chunks that its pixels need. PNG specification, third edition, 5.3. */
async function checkPng(bytes: Buffer, name: string, limits: PictureLimits): Promise<Buffer> {
  const kept = [bytes.subarray(0, PNG_HEADER)];
  let chunks = 0;
  for (let at = PNG_HEADER; at + 12 <= bytes.length; ) {
    const length = bytes.readUInt32BE(at);
    const type = bytes.readUInt32BE(at + 4);
    const end = at + 12 + length;
    if (++chunks > MOST_CHUNKS) throw crafted(name, bytes, `a PNG file of up to ${MOST_CHUNKS} chunks`);
    if (chunks === 1) {
      if (type !== IHDR || length !== 13 || end > bytes.length) break;
      checkPixels(bytes.readUInt32BE(at + 8), bytes.readUInt32BE(at + 12), name, limits);
    }
    // The end of a file that breaks off is left to the decoder, which says so.
    const chunk = bytes.subarray(at, Math.min(end, bytes.length));
    if (PNG_CHUNKS.has(type) && (type === IDAT || length <= EXIF_BYTES || type === ICCP)) {
      if (type !== ICCP || (await isProfile(chunk.subarray(8, 8 + length)))) kept.push(chunk);
    }
    if (type === IEND) break;
    at = end;
  }
  return Buffer.concat(kept);
}

/** Whether the colour profile (name, 0, method, zlib data) is one that inflates to a profile's size. */
async function isProfile(data: Buffer): Promise<boolean> {
  const start = data.indexOf(0) + 2;
  if (start < 2 || data.length > PROFILE_BYTES) return false;
  return promisify<Buffer, object, Buffer>(inflate)(data.subarray(start), { maxOutputLength: PROFILE_BYTES }).then(
    () => true,
    () => false,
  );
}

/** A progressive JPEG may go over all its pixels with every few bytes. */
function checkJpeg(bytes: Buffer, name: string, limits: PictureLimits): Buffer {
  let at = 2;
  let segments = 0;
  // Marker segments up to the first scan; ITU T.81, B.1.1.
  while (at + 4 <= bytes.length && bytes[at] === 0xff) {
    if (++segments > MOST_CHUNKS) throw crafted(name, bytes, `a JPEG file of up to ${MOST_CHUNKS} segments`);
    const marker = bytes[at + 1]!;
    if (marker === 0xff) {
      at++;
      continue;
    }
    const isFrame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (isFrame && at + 9 <= bytes.length)
      checkPixels(bytes.readUInt16BE(at + 7), bytes.readUInt16BE(at + 5), name, limits);
    if (marker === 0xda) break;
    at += 2 + bytes.readUInt16BE(at + 2);
  }
  const scan = Buffer.from([0xff, 0xda]);
  let scans = 0;
  for (at = bytes.indexOf(scan, at); at >= 0; at = bytes.indexOf(scan, at + 2)) {
    if (++scans > MOST_SCANS) throw crafted(name, bytes, `a JPEG file of up to ${MOST_SCANS} scans`);
  }
  return bytes;
}

/** Up to its first picture, which is all that is used; GIF89a specification, sections 18 to 26. */
function checkGif(bytes: Buffer, name: string, limits: PictureLimits): Buffer {
  if (bytes.length < 13) return bytes;
  checkPixels(bytes.readUInt16LE(6), bytes.readUInt16LE(8), name, limits);
  const tableBytes = (flags: number): number => (flags & 0x80 ? 3 * 2 ** ((flags & 7) + 1) : 0);
  const afterBlocks = (from: number): number => {
    let at = from;
    while (at < bytes.length && bytes[at] !== 0) at += 1 + bytes[at]!;
    return at + 1;
  };
  let at = 13 + tableBytes(bytes[10]!);
  for (let blocks = 0; at < bytes.length; blocks++) {
    if (blocks > MOST_FRAMES)
      throw crafted(name, bytes, `a GIF file of up to ${MOST_FRAMES} blocks before its picture`);
    if (bytes[at] === 0x21) at = afterBlocks(at + 2);
    else if (bytes[at] === 0x2c && at + 10 < bytes.length) {
      const [left, top, width, height] = [1, 3, 5, 7].map((offset) => bytes.readUInt16LE(at + offset)) as number[];
      checkPixels(left! + width!, top! + height!, name, limits);
      const end = afterBlocks(at + 11 + tableBytes(bytes[at + 9]!));
      // A file that breaks off is left to the decoder, which says so.
      return end > bytes.length ? bytes : Buffer.concat([bytes.subarray(0, end), Buffer.from([0x3b])]);
    } else break;
  }
  return bytes;
}

/** RIFF chunks: a canvas, and a frame or many. WebP container specification. */
function checkWebp(bytes: Buffer, name: string, limits: PictureLimits): Buffer {
  let chunks = 0;
  for (let at = 12; at + 8 <= bytes.length; ) {
    if (++chunks > MOST_FRAMES) throw crafted(name, bytes, `a WebP file of up to ${MOST_FRAMES} frames`);
    const type = bytes.toString('latin1', at, at + 4);
    if (type === 'VP8X' && at + 18 <= bytes.length)
      checkPixels(1 + bytes.readUIntLE(at + 12, 3), 1 + bytes.readUIntLE(at + 15, 3), name, limits);
    const length = bytes.readUInt32LE(at + 4);
    at += 8 + length + (length & 1);
  }
  return bytes;
}

/** @throws MultiDiffusionError LIMIT */
export function checkPixels(
  width: number,
  height: number,
  name: string,
  { maxPixels, pixelsSetBy }: PictureLimits,
): void {
  if (width * height > maxPixels)
    throw overLimit(name, `${width * height} pixels (${width}x${height})`, `${maxPixels} pixels`, pixelsSetBy);
}

function crafted(name: string, bytes: Buffer, allowed: string): InvalidInputError {
  return new InvalidInputError(name, bytes, allowed);
}
