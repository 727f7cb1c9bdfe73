/** Metadata in the files of JPEG (ITU T.81, B.1.1) and WebP (its container specification), which is read without a decoder. */

import { concatInSteps } from '../bytes';
import type { Steps } from '../turns';

/** A JPEG's segment holds so much, its length included. */
const MAX_SEGMENT = 65_535;
const START_OF_SCAN = 0xda;
export const EXIF_NAME = 'Exif\0\0';
/** Segments or chunks with metadata that are looked at, of which programs write some dozens. */
const MOST_PARTS = 5000;

export interface Segment {
  marker: number;
  data: Buffer;
}

/** The segments of a JPEG file before its first scan. A damaged one ends the reading. */
export function jpegSegments(jpeg: Buffer): Segment[] {
  const segments: Segment[] = [];
  for (let at = 2; at + 4 <= jpeg.length && segments.length < MOST_PARTS; ) {
    if (jpeg[at] !== 0xff) break;
    const marker = jpeg[at + 1];
    if (marker === 0xff)
      at++; // fill
    else if (marker === START_OF_SCAN) break;
    else {
      const length = jpeg.readUInt16BE(at + 2);
      if (length < 2 || at + 2 + length > jpeg.length) break;
      segments.push({ marker, data: jpeg.subarray(at + 4, at + 2 + length) });
      at += 2 + length;
    }
  }
  return segments;
}

/** The file with segments put before its others, after the one that says that it is a JFIF file. */
export function* insertSegments(jpeg: Buffer, segments: Segment[]): Steps<Buffer> {
  const jfif = jpeg[2] === 0xff && jpeg[3] === 0xe0 ? 2 + jpeg.readUInt16BE(4) : 0;
  const made = segments.flatMap(({ marker, data }) => {
    const head = Buffer.from([0xff, marker, 0, 0]);
    if (data.length + 2 > MAX_SEGMENT) throw new RangeError(`A JPEG segment of ${data.length} bytes is too long.`);
    head.writeUInt16BE(data.length + 2, 2);
    return [head, data];
  });
  return yield* concatInSteps([jpeg.subarray(0, 2 + jfif), ...made, jpeg.subarray(2 + jfif)]);
}

/** The chunks of a WebP file by name, the first of each. A damaged one ends the reading. */
export function webpChunks(webp: Buffer): Map<string, Buffer> {
  const chunks = new Map<string, Buffer>();
  for (let at = 12, parts = 0; at + 8 <= webp.length && parts < MOST_PARTS; parts++) {
    const name = webp.toString('latin1', at, at + 4);
    const length = webp.readUInt32LE(at + 4);
    if (at + 8 + length > webp.length) break;
    if (!chunks.has(name)) chunks.set(name, webp.subarray(at + 8, at + 8 + length));
    at += 8 + length + (length & 1);
  }
  return chunks;
}

/** The WebP file, as an encoder has just made it, with EXIF and XMP behind its picture. */
export function* insertWebpMetadata(
  webp: Buffer,
  { width, height }: { width: number; height: number },
  metadata: { exif: Buffer; xmp: Buffer },
): Steps<Buffer> {
  const extended = webp.toString('latin1', 12, 16) === 'VP8X';
  const head = extended ? Buffer.from(webp.subarray(20, 30)) : Buffer.alloc(10);
  if (!extended) {
    head.writeUIntLE(width - 1, 4, 3);
    head.writeUIntLE(height - 1, 7, 3);
  }
  head[0] |= 0x08 | 0x04; // EXIF, XMP
  const body = [
    Buffer.from('WEBP', 'latin1'),
    ...webpChunk('VP8X', head),
    webp.subarray(extended ? 30 : 12),
    ...webpChunk('EXIF', metadata.exif),
    ...webpChunk('XMP ', metadata.xmp),
  ];
  const riff = Buffer.from('RIFF\0\0\0\0', 'latin1');
  riff.writeUInt32LE(
    body.reduce((sum, part) => sum + part.length, 0),
    4,
  );
  return yield* concatInSteps([riff, ...body]);
}

function webpChunk(name: string, data: Buffer): Buffer[] {
  const head = Buffer.from(`${name}\0\0\0\0`, 'latin1');
  head.writeUInt32LE(data.length, 4);
  return [head, data, Buffer.alloc(data.length & 1)];
}
