/** The user comment of EXIF (2.32, 4.6.5), where programs of this trade write what made a picture. */
import { decodeText, swapped } from '../bytes';

const EXIF_IFD = 0x8769;
const USER_COMMENT = 0x9286;
const IMAGE_DESCRIPTION = 0x010e;
const XP_COMMENT = 0x9c9c;
const UNICODE = 'UNICODE\0';
/** Characters: with them a JPEG's segment of 65,533 bytes is not quite full. */
const MAX_COMMENT = 30_000;

/** A TIFF block with a user comment: UTF-16 in the block's own order, big-endian, as A1111's web UI writes and reads it. */
export function userCommentExif(text: string): Buffer {
  const comment = Buffer.concat([Buffer.from(UNICODE, 'latin1'), swapped(Buffer.from(shorten(text), 'utf16le'))]);
  const block = Buffer.alloc(8 + 18 + 18);
  block.write('MM\0*', 0, 'latin1');
  block.writeUInt32BE(8, 4);
  entry(block, 8, EXIF_IFD, 4, 1, 26);
  entry(block, 26, USER_COMMENT, 7, comment.length, block.length);
  return Buffer.concat([block, comment]);
}

/** An image file directory with one entry. */
function entry(block: Buffer, at: number, tag: number, type: number, count: number, value: number): void {
  block.writeUInt16BE(1, at);
  block.writeUInt16BE(tag, at + 2);
  block.writeUInt16BE(type, at + 4);
  block.writeUInt32BE(count, at + 6);
  block.writeUInt32BE(value, at + 10);
}

/**
 * The texts in which a program may have written what made the picture: the user comment first, then Windows' comment
 * and the description.
 * @param exif a TIFF block, with or without "Exif\0\0" before it; a damaged one ends the reading, nothing is thrown
 */
export function commentsInExif(exif: Buffer): string[] {
  const block = exif.toString('latin1', 0, 6) === 'Exif\0\0' ? exif.subarray(6) : exif;
  try {
    const little = block.toString('latin1', 0, 2) === 'II';
    const short = (at: number): number => (little ? block.readUInt16LE(at) : block.readUInt16BE(at));
    const long = (at: number): number => (little ? block.readUInt32LE(at) : block.readUInt32BE(at));
    const find = (directory: number, tag: number): number | undefined => {
      const count = Math.min(short(directory), 1000);
      for (let at = directory + 2; at < directory + 2 + 12 * count; at += 12) if (short(at) === tag) return at;
      return undefined;
    };
    const valueAt = (at: number | undefined): Buffer | undefined => {
      if (at === undefined) return undefined;
      const length = long(at + 4);
      const start = length <= 4 ? at + 8 : long(at + 8);
      return start + length <= block.length ? block.subarray(start, start + length) : undefined;
    };
    const first = long(4);
    const more = find(first, EXIF_IFD);
    const comment = more === undefined ? undefined : valueAt(find(long(more + 8), USER_COMMENT));
    return [
      comment && decodeComment(comment, little),
      decodeWide(valueAt(find(first, XP_COMMENT)), true),
      decodePlain(valueAt(find(first, IMAGE_DESCRIPTION))),
    ].filter((text) => text !== undefined);
  } catch {
    return [];
  }
}

/** Eight bytes say which characters follow. */
function decodeComment(comment: Buffer, little: boolean): string | undefined {
  const code = comment.toString('latin1', 0, 8);
  if (code === UNICODE) return decodeWide(comment.subarray(8), little);
  return decodePlain(/^(ASCII\0\0\0|\0{8})$/.test(code) ? comment.subarray(8) : comment);
}

function decodePlain(bytes: Buffer | undefined): string | undefined {
  if (!bytes) return undefined;
  const end = bytes.indexOf(0);
  const text = end < 0 ? bytes : bytes.subarray(0, end);
  return decodeText(text) ?? text.toString('latin1');
}

/** UTF-16 in the order that its mark or its text tells: many programs don't keep to the block's. */
function decodeWide(bytes: Buffer | undefined, little: boolean): string | undefined {
  if (!bytes) return undefined;
  const marked =
    bytes[0] === 0xff && bytes[1] === 0xfe ? true : bytes[0] === 0xfe && bytes[1] === 0xff ? false : undefined;
  const zeros = [0, 0];
  for (let i = 0; i < Math.min(bytes.length, 2000); i++) if (bytes[i] === 0) zeros[i & 1]++;
  // Of Latin letters, the zero is the byte that counts more.
  const seems = zeros[0] === zeros[1] ? little : zeros[1] > zeros[0];
  const text = (marked ?? seems) ? bytes : swapped(bytes);
  return text
    .toString('utf16le')
    .replace(/^\ufeff/, '')
    .replace(/\0+$/, '');
}

function shorten(text: string): string {
  const short = text.slice(0, MAX_COMMENT);
  return /[\ud800-\udbff]$/.test(short) ? short.slice(0, -1) : short;
}
