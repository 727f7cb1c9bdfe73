/** Our property in an XMP packet (ISO 16684-1), and the packets that are too long for one JPEG segment (its part 3, 1.1.3.1). */
import { createHash } from 'node:crypto';
import { concatInSteps, latin1InSteps } from '../bytes';
import type { Steps } from '../turns';
import type { Segment } from './containers';

export const PROPERTY = 'multidiffusion';
const NAMESPACE = 'https://www.npmjs.com/package/node-red-contrib-multidiffusion';
const NOTE_NAMESPACE = 'http://ns.adobe.com/xmp/note/';
const APP1 = 0xe1;
const MAIN = 'http://ns.adobe.com/xap/1.0/\0';
const EXTENSION = 'http://ns.adobe.com/xmp/extension/\0';
const MAX_MAIN = 60_000;
const MAX_PART = 65_000;

/** A packet that holds the text, which is plain ASCII. @param extension the digest of a second packet that belongs to it */
export function* xmpPacket(text: string, extension = ''): Steps<Buffer> {
  const note = extension && ` xmlns:xmpNote="${NOTE_NAMESPACE}" xmpNote:HasExtendedXMP="${extension}"`;
  const head =
    '<?xpacket begin="\uFEFF" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">' +
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">' +
    `<rdf:Description rdf:about="" xmlns:${PROPERTY}="${NAMESPACE}"${note}>` +
    `<${PROPERTY}:recipe>`;
  const tail = `</${PROPERTY}:recipe></rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>`;
  const escaped = escapeXml(text);
  yield;
  return yield* concatInSteps([Buffer.from(head), yield* latin1InSteps(escaped), Buffer.from(tail)]);
}

/**
 * The text as XMP segments of a JPEG: one, or where it is too long for that, one with the short text and as many as it
 * takes for the whole.
 */
export function* xmpSegments(text: string, short: string): Steps<Segment[]> {
  const whole = yield* xmpPacket(text);
  if (whole.length <= MAX_MAIN) return [{ marker: APP1, data: Buffer.concat([Buffer.from(MAIN), whole]) }];
  const digest = createHash('md5').update(whole).digest('hex').toUpperCase();
  yield;
  const main = yield* xmpPacket(short, digest);
  const segments: Segment[] = [];
  if (main.length <= MAX_PART) segments.push({ marker: APP1, data: Buffer.concat([Buffer.from(MAIN), main]) });
  for (let at = 0; at < whole.length; at += MAX_PART) {
    const place = Buffer.alloc(8);
    place.writeUInt32BE(whole.length, 0);
    place.writeUInt32BE(at, 4);
    const part = whole.subarray(at, at + MAX_PART);
    segments.push({ marker: APP1, data: Buffer.concat([Buffer.from(EXTENSION + digest), place, part]) });
    yield;
  }
  return segments;
}

/** The XMP packets of a JPEG, the one that came in parts first. */
export function xmpInSegments(segments: Segment[]): Buffer[] {
  const of = (name: string): Buffer[] =>
    segments
      .filter(({ marker, data }) => marker === APP1 && data.toString('latin1', 0, name.length) === name)
      .map(({ data }) => data.subarray(name.length));
  const parts = of(EXTENSION)
    .filter((part) => part.length > 40)
    .sort((a, b) => a.readUInt32BE(36) - b.readUInt32BE(36))
    .map((part) => part.subarray(40));
  return [...(parts.length > 0 ? [Buffer.concat(parts)] : []), ...of(MAIN)];
}

/** Our text in a packet, as an element or, as some programs rewrite it, an attribute, under whatever prefix. */
export function textInXmp(packet: Buffer): string | undefined {
  const xmp = packet.toString('utf8');
  const declared = xmp.indexOf(NAMESPACE);
  if (declared < 0) return undefined;
  const prefix = /xmlns:([\w.-]{1,100})\s*=\s*["']$/.exec(xmp.slice(Math.max(0, declared - 200), declared))?.[1];
  const name = `${prefix}:recipe`;
  const element = xmp.indexOf(`<${name}>`);
  if (element >= 0) {
    const end = xmp.indexOf(`</${name}>`, element);
    return end < 0 ? undefined : unescapeXml(xmp.slice(element + name.length + 2, end));
  }
  const attribute = xmp.indexOf(`${name}=`);
  if (attribute < 0) return undefined;
  const start = attribute + name.length + 1;
  const end = xmp.indexOf(xmp[start], start + 1);
  return end < 0 ? undefined : unescapeXml(xmp.slice(start + 1, end));
}

const ENTITIES: Record<string, string> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" };

const escapeXml = (text: string): string => text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');

function unescapeXml(text: string): string {
  const cdata = /^\s*<!\[CDATA\[([^]*)\]\]>\s*$/.exec(text);
  if (cdata) return cdata[1];
  return text.replace(/&(?:#(\d{1,7})|#x([0-9a-f]{1,6})|(lt|gt|amp|quot|apos));/gi, (all, decimal, hex, name) => {
    if (name) return ENTITIES[String(name).toLowerCase()];
    const code = decimal ? Number(decimal) : parseInt(hex as string, 16);
    return code <= 0x10ffff ? String.fromCodePoint(code) : (all as string);
  });
}
