/**
 * The recipe in a picture's file: PNG text chunks `parameters` (as other programs read it) and
 * `multidiffusion` (JSON); in JPEG and WebP the EXIF UserComment and an XMP property.
 */
import type { Sharp } from 'sharp';
import { loadSharp } from './sharp';
import { insertPngText, isPng, readPngText } from './png';
import { toParameters, toRecipe, type Recipe } from './recipe';

const KEYWORD = 'multidiffusion';
const NAMESPACE = 'https://www.npmjs.com/package/node-red-contrib-multidiffusion';
/** A JPEG segment holds 65,533 bytes; a longer XMP packet would be dropped without a word. */
const MAX_XMP_BYTES = 60_000;

/** The PNG file with its recipe in text chunks. */
export function writePngRecipe(png: Buffer, recipe: Recipe): Buffer {
  return insertPngText(png, { parameters: toParameters(recipe), [KEYWORD]: asciiJson(recipe) });
}

/** The image, to be encoded as JPEG or WebP, with its recipe in EXIF and XMP; mask images that don't fit are left out. */
export function withRecipe(image: Sharp, recipe: Recipe): Sharp {
  const fitting = xmpPacket(recipe).length <= MAX_XMP_BYTES ? recipe : withoutImages(recipe);
  const packet = xmpPacket(fitting);
  const comment = image.withExif({ IFD2: { UserComment: toParameters(recipe).slice(0, 20_000) } });
  return packet.length <= MAX_XMP_BYTES ? comment.withXmp(packet) : comment;
}

/**
 * The recipe written into a PNG, JPEG or WebP file: sent as `msg.payload` to a text-encode node, it makes
 * the same picture again.
 * @returns undefined when the bytes are no such file or hold no recipe of ours
 */
export async function readGeneration(bytes: Buffer): Promise<Recipe | undefined> {
  try {
    if (isPng(bytes)) return parse(readPngText(bytes)[KEYWORD]);
    if (!isJpegOrWebp(bytes)) return undefined;
    const { xmp } = await loadSharp()(bytes).metadata();
    const found = xmp && new RegExp(`<${KEYWORD}:recipe>([^<]*)</${KEYWORD}:recipe>`).exec(xmp.toString('utf8'));
    return found ? parse(unescapeXml(found[1]!)) : undefined;
  } catch {
    return undefined;
  }
}

/** What else the image library reads, such as SVG, is not handed to it. */
function isJpegOrWebp(bytes: Buffer): boolean {
  return (bytes[0] === 0xff && bytes[1] === 0xd8) || (bytes.toString('latin1', 0, 4) === 'RIFF' && bytes.toString('latin1', 8, 12) === 'WEBP');
}

function parse(json: string | undefined): Recipe | undefined {
  return json === undefined ? undefined : toRecipe(JSON.parse(json));
}

/** JSON in plain ASCII, so that every reader of text chunks agrees on it. */
function asciiJson(value: unknown): string {
  return JSON.stringify(value).replace(/[\u007f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

function xmpPacket(recipe: Recipe): string {
  return (
    '<?xpacket begin="\uFEFF" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">' +
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">' +
    `<rdf:Description rdf:about="" xmlns:${KEYWORD}="${NAMESPACE}">` +
    `<${KEYWORD}:recipe>${escapeXml(asciiJson(recipe))}</${KEYWORD}:recipe>` +
    '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
  );
}

function withoutImages(recipe: Recipe): Recipe {
  return { ...recipe, regions: recipe.regions?.map((region) => ({ ...region, image: undefined })) };
}

const escapeXml = (text: string): string => text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
const unescapeXml = (text: string): string => text.replace(/&lt;/g, '<').replace(/&gt;/g, '>').replace(/&amp;/g, '&');
