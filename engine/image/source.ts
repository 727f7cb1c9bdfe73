/** How a picture comes in: the bytes of its file, text that stands for them, or its pixels. */
import { bytesIn } from '../bytes';
import { InvalidInputError, MultiDiffusionError } from '../errors';
import { isTensor, type Tensor } from '../tensor';
import { checkImage } from './resize';

export interface PictureLimits {
  /** Pixels of the picture, counted before it is decoded. */
  maxPixels: number;
  /** Bytes of the file. */
  maxBytes: number;
  /** Where the two are set, for errors: "multidiffusion.maxMaskPixels in settings.js". */
  pixelsSetBy?: string;
  bytesSetBy?: string;
}

/** What is decoded, by the names that a user knows. */
export const READABLE = 'PNG, JPEG, WebP or GIF';

export type PictureFormat = 'png' | 'jpeg' | 'webp' | 'gif' | 'tiff' | 'avif' | 'heic';

/** RFC 2397: a media type, its parameters, and at least one of them before the comma. */
const DATA_URI = /^data:(?:[\w.+-]+\/[\w.+-]+\s*(?:;[^,]*)?|\s*;[^,]*),/i;
/** Letters of Base64, the URL-safe ones too. */
const BASE64 = /^[A-Za-z0-9+/_-]+$/;
/** Enough to tell a picture's format. */
const HEAD = 64;

/**
 * The format that a file's first bytes tell, whatever it is called.
 * @returns undefined when it is none that is known
 */
export function pictureFormat(bytes: Buffer): PictureFormat | undefined {
  const head = bytes.toString('latin1', 0, 32);
  if (head.startsWith('\x89PNG\r\n\x1a\n')) return 'png';
  if (head.startsWith('\xff\xd8\xff')) return 'jpeg';
  if (head.startsWith('RIFF') && head.slice(8, 12) === 'WEBP') return 'webp';
  if (/^GIF8[79]a/.test(head)) return 'gif';
  if (/^(II[*+]\0|MM\0[*+])/.test(head)) return 'tiff';
  if (head.slice(4, 8) !== 'ftyp') return undefined;
  if (/^avi[fs]/.test(head.slice(8))) return 'avif';
  if (/^(hei[cxms]|hev[cxms])/.test(head.slice(8))) return 'heic';
  return /^(mif1|msf1)/.test(head.slice(8)) ? (head.includes('avif') ? 'avif' : 'heic') : undefined;
}

/** Whether the text stands for a picture: a data URI, or a picture's bytes in Base64. */
export function isPictureText(text: string): boolean {
  const head = text.slice(0, 4096).trimStart();
  if (DATA_URI.test(head)) return true;
  const start = head.replace(/\s+/g, '').slice(0, HEAD);
  return start.length >= 16 && BASE64.test(start) && pictureFormat(Buffer.from(start, 'base64')) !== undefined;
}

/**
 * The file's bytes, or the pixels, that a value stands for.
 * @param value bytes in any form (see bytesIn), a data URI (RFC 2397: with parameters, Base64 or percent-encoded), a
 *   picture's bytes in Base64, or a uint8 tensor [H, W, 3]
 * @param name how to call it in errors
 * @throws InvalidInputError when it is nothing of that, MultiDiffusionError LIMIT when it has too many bytes
 */
export function pictureSource(value: unknown, name: string, limits: PictureLimits): Buffer | Tensor<'uint8'> {
  if (isTensor(value)) return checkImage(value, name);
  if (typeof value === 'string') {
    if (!isPictureText(value)) throw noPicture(value, name);
    checkBytes(Math.floor(value.length * 0.75) - 200, name, limits);
  }
  const bytes = typeof value === 'string' ? bytesOfText(value) : bytesIn(value);
  if (!bytes) throw noPicture(value, name);
  checkBytes(bytes.length, name, limits);
  return bytes;
}

function noPicture(value: unknown, name: string): InvalidInputError {
  return new InvalidInputError(
    name,
    value,
    `a ${READABLE} file as bytes, as a data URI or as Base64, or an image tensor`,
  );
}

/** @throws MultiDiffusionError LIMIT */
export function checkBytes(found: number, name: string, { maxBytes, bytesSetBy }: PictureLimits): void {
  if (found > maxBytes) throw overLimit(name, `${found} bytes`, `${maxBytes} bytes`, bytesSetBy);
}

/** @param setBy where the limit is set */
export function overLimit(name: string, found: string, allowed: string, setBy?: string): MultiDiffusionError {
  return new MultiDiffusionError(
    'LIMIT',
    `${name} has ${found}; allowed: up to ${allowed}${setBy ? ` (${setBy})` : ''}.`,
  );
}

function bytesOfText(text: string): Buffer {
  const comma = text.indexOf(',');
  if (!/^\s*data:/i.test(text.slice(0, 4096))) return Buffer.from(text, 'base64');
  const head = text.slice(0, comma < 0 ? 0 : Math.min(comma, 4096));
  const body = text.slice(comma + 1);
  if (/;\s*base64\s*$/i.test(head)) return Buffer.from(body.includes('%') ? unescapeBytes(body) : body, 'base64');
  return Buffer.from(unescapeBytes(body.trimEnd()), 'latin1');
}

/** Percent-encoding undone: a character for each byte. */
function unescapeBytes(text: string): string {
  return text.replace(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(parseInt(hex, 16)));
}
