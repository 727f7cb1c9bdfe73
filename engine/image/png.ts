/**
 * Text chunks of PNG files (PNG specification, third edition, 11.3.3): written and read here, because
 * the image library has no way to name a chunk.
 */
import { crc32 } from 'node:zlib';
import { InvalidInputError } from '../errors';

const SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
/** No text of a picture's recipe is larger; a longer one is not read. */
const MAX_TEXT_BYTES = 4 * 1024 * 1024;

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
  if (!isPng(png) || png.length < 33) throw new InvalidInputError('png', png, 'the bytes of a PNG file');
  const afterHeader = SIGNATURE.length + 12 + png.readUInt32BE(SIGNATURE.length);
  const chunks = Object.entries(texts).map(([keyword, text]) => textChunk(keyword, text));
  return Buffer.concat([png.subarray(0, afterHeader), ...chunks, png.subarray(afterHeader)]);
}

/**
 * The texts of a PNG file by keyword (tEXt and uncompressed iTXt). Damaged chunks end the reading; nothing is thrown.
 */
export function readPngText(png: Buffer): Record<string, string> {
  const texts: Record<string, string> = Object.create(null) as Record<string, string>;
  if (!isPng(png)) return texts;
  for (let at = SIGNATURE.length; at + 12 <= png.length; ) {
    const length = png.readUInt32BE(at);
    const type = png.toString('latin1', at + 4, at + 8);
    if (type === 'IEND' || at + 12 + length > png.length) break;
    const data = png.subarray(at + 8, at + 8 + length);
    const isText = (type === 'tEXt' || type === 'iTXt') && length <= MAX_TEXT_BYTES;
    if (isText && crc32(png.subarray(at + 4, at + 8 + length)) === png.readUInt32BE(at + 8 + length)) {
      const found = type === 'tEXt' ? parseLatin1(data) : parseUtf8(data);
      if (found && !(found.keyword in texts)) texts[found.keyword] = found.text;
    }
    at += 12 + length;
  }
  return texts;
}

function textChunk(keyword: string, text: string): Buffer {
  if (!/^[\x21-\x7e]([\x20-\x7e]{0,77}[\x21-\x7e])?$/.test(keyword)) {
    throw new InvalidInputError('keyword', keyword, '1 to 79 printable ASCII characters');
  }
  const clean = text.replaceAll('\0', '');
  // eslint-disable-next-line no-control-regex
  const latin1 = /^[\0-\xff]*$/.test(clean);
  const data = latin1
    ? Buffer.concat([Buffer.from(`${keyword}\0`, 'latin1'), Buffer.from(clean, 'latin1')])
    : Buffer.concat([Buffer.from(`${keyword}\0\0\0\0\0`, 'latin1'), Buffer.from(clean, 'utf8')]);
  return chunk(latin1 ? 'tEXt' : 'iTXt', data);
}

function chunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(data.length);
  const check = Buffer.alloc(4);
  check.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, check]);
}

function parseLatin1(data: Buffer): { keyword: string; text: string } | undefined {
  const end = data.indexOf(0);
  return end < 1 ? undefined : { keyword: data.toString('latin1', 0, end), text: data.toString('latin1', end + 1) };
}

/** keyword, 0, compressed?, method, language, 0, translated keyword, 0, text */
function parseUtf8(data: Buffer): { keyword: string; text: string } | undefined {
  const end = data.indexOf(0);
  if (end < 1 || data[end + 1] !== 0) return undefined;
  const language = data.indexOf(0, end + 3);
  const translated = language < 0 ? -1 : data.indexOf(0, language + 1);
  return translated < 0 ? undefined : { keyword: data.toString('latin1', 0, end), text: data.toString('utf8', translated + 1) };
}
