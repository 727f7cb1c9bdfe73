/**
 * Text chunks of PNG files (PNG specification, third edition, 11.3.3): written and read here, because
 * the image library has no way to name a chunk.
 */
import { promisify } from 'node:util';
import { crc32, inflate, type ZlibOptions } from 'node:zlib';
import { concatInSteps, latin1InSteps } from '../bytes';
import { InvalidInputError } from '../errors';
import { atOnce, type Steps } from '../turns';

const SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
/** All texts of a picture together; with them come the recipe's mask images. */
export const MAX_TEXT_BYTES = 16 * 1024 * 1024;

/** Chunks beside those of the picture itself, of which programs write some dozens. */
const MOST_CHUNKS = 5000;
const [IDAT, IEND] = ['IDAT', 'IEND'].map((type) => Buffer.from(type, 'latin1').readUInt32BE());

const inflated = promisify<Buffer, ZlibOptions, Buffer>(inflate);

/** Whether the bytes begin as every PNG file does. */
export function isPng(bytes: Buffer): boolean {
  return bytes.length > SIGNATURE.length && bytes.subarray(0, SIGNATURE.length).equals(SIGNATURE);
}

/**
 * The same file with text chunks put after its header chunk: tEXt where the text is Latin-1, otherwise
 * iTXt (UTF-8).
 * @param texts keyword (1 to 79 Latin-1 characters) to text
 * @throws InvalidInputError when the bytes are no PNG file or a keyword is not allowed
 */
export function insertPngText(png: Buffer, texts: Record<string, string>): Buffer {
  return atOnce(insertPngTextInSteps(png, texts));
}

/** As insertPngText, in steps. */
export function* insertPngTextInSteps(png: Buffer, texts: Record<string, string>): Steps<Buffer> {
  if (!isPng(png) || png.length < 33) throw new InvalidInputError('png', png, 'the bytes of a PNG file');
  const afterHeader = SIGNATURE.length + 12 + png.readUInt32BE(SIGNATURE.length);
  const parts = [png.subarray(0, afterHeader)];
  for (const [keyword, text] of Object.entries(texts)) parts.push(...(yield* textChunk(keyword, text)));
  return yield* concatInSteps([...parts, png.subarray(afterHeader)]);
}

/**
 * The texts of a PNG file by keyword, the first of each: tEXt, zTXt and iTXt, compressed or not. What is damaged, or
 * longer than any recipe, is passed over; nothing is thrown.
 * @param wanted which keywords to read; default: all
 */
export async function readPngText(
  png: Buffer,
  wanted: (keyword: string) => boolean = () => true,
): Promise<Record<string, string>> {
  const texts: Record<string, string> = Object.create(null) as Record<string, string>;
  let room = MAX_TEXT_BYTES;
  for (const { type, data } of pngChunks(png)) {
    if (type !== 'tEXt' && type !== 'zTXt' && type !== 'iTXt') continue;
    const end = data.subarray(0, 80).indexOf(0);
    const keyword = data.toString('latin1', 0, Math.max(0, end));
    if (end < 1 || keyword in texts || !wanted(keyword)) continue;
    const bytes = await textBytes(type, data, end, room);
    if (!bytes) continue;
    room -= bytes.length;
    texts[keyword] = bytes.toString(type === 'iTXt' ? 'utf8' : 'latin1');
  }
  return texts;
}

/** The first chunk of a type in a PNG file. */
export function findPngChunk(png: Buffer, wanted: string): Buffer | undefined {
  for (const { type, data } of pngChunks(png)) if (type === wanted) return data;
  return undefined;
}

/** The chunks of a PNG file whose checksums are right, without the picture itself and what is larger than any text. */
function* pngChunks(png: Buffer): Generator<{ type: string; data: Buffer }> {
  if (!isPng(png)) return;
  for (let [at, chunks] = [SIGNATURE.length, 0]; at + 12 <= png.length; ) {
    const length = png.readUInt32BE(at);
    const type = png.readUInt32BE(at + 4);
    if (type === IEND || at + 12 + length > png.length) return;
    if (type !== IDAT && length <= MAX_TEXT_BYTES) {
      if (++chunks > MOST_CHUNKS) return;
      const whole = png.subarray(at + 4, at + 8 + length);
      if (crc32(whole) === png.readUInt32BE(at + 8 + length))
        yield { type: whole.toString('latin1', 0, 4), data: whole.subarray(4) };
    }
    at += 12 + length;
  }
}

/**
 * tEXt: keyword, 0, text. zTXt: keyword, 0, method, deflated text. iTXt: keyword, 0, deflated?, method, language, 0,
 * translated keyword, 0, text.
 * @param end of the keyword
 * @param most bytes that the text may have
 */
async function textBytes(type: string, data: Buffer, end: number, most: number): Promise<Buffer | undefined> {
  let start = end + 1;
  let deflated = false;
  if (type === 'zTXt') {
    deflated = true;
    if (data[start++] !== 0) return undefined;
  } else if (type === 'iTXt') {
    deflated = data[start] === 1;
    if (data[start] > 1 || (deflated && data[start + 1] !== 0)) return undefined;
    const language = data.indexOf(0, start + 2);
    const translated = language < 0 ? -1 : data.indexOf(0, language + 1);
    if (translated < 0) return undefined;
    start = translated + 1;
  }
  const bytes = data.subarray(start);
  if (!deflated) return bytes.length <= most ? bytes : undefined;
  return most < 1 ? undefined : inflated(bytes, { maxOutputLength: most }).catch(() => undefined);
}

function* textChunk(keyword: string, text: string): Steps<Buffer[]> {
  if (!/^[\x21-\x7e]([\x20-\x7e]{0,77}[\x21-\x7e])?$/.test(keyword)) {
    throw new InvalidInputError('keyword', keyword, '1 to 79 printable ASCII characters');
  }
  const clean = text.replaceAll('\0', '');
  yield;
  const bytes = yield* latin1InSteps(clean);
  const latin1 = bytes.toString('latin1') === clean;
  yield;
  const [type, head] = latin1 ? ['tEXt', `${keyword}\0`] : ['iTXt', `${keyword}\0\0\0\0\0`];
  const name = Buffer.from(type + head, 'latin1');
  const data = latin1 ? bytes : Buffer.from(clean, 'utf8');
  const length = Buffer.alloc(4);
  length.writeUInt32BE(head.length + data.length);
  const check = Buffer.alloc(4);
  check.writeUInt32BE(crc32(data, crc32(name)));
  yield;
  return [length, name, data, check];
}
