/**
 * The recipe in a picture's file. PNG: text chunks `parameters` (as other programs read it) and `multidiffusion` (JSON);
 * JPEG and WebP: the EXIF user comment and an XMP property. Read from wherever such programs, or one that has rewritten
 * the file, may have put them.
 */
import { insertSegments, insertWebpMetadata, EXIF_NAME, jpegSegments, webpChunks } from './containers';
import { commentsInExif, userCommentExif } from './exif';
import { excessInText, FILE_BOUNDS, type JsonBounds } from '../json';
import { fromParameters, toParameters } from './parameters';
import { findPngChunk, insertPngTextInSteps, MAX_TEXT_BYTES, readPngText } from './png';
import { toRecipe, type Recipe, withoutImages } from './recipe';
import { pictureFormat } from './source';
import { nextTurn, type Steps, turnIsOver } from '../turns';
import { PROPERTY, textInXmp, xmpInSegments, xmpPacket, xmpSegments } from './xmp';

const APP1 = 0xe1;
const COMMENT = 0xfe;
const PARAMETERS = 'parameters';
const PNG_XMP = 'XML:com.adobe.xmp';
/** How ImageMagick keeps EXIF and XMP in a PNG. */
const RAW_PROFILE = /^Raw profile type (exif|xmp|APP1)$/;

/** The PNG file with its recipe in text chunks. */
export function* writePngRecipe(png: Buffer, recipe: Recipe): Steps<Buffer> {
  const json = asciiJson(recipe);
  yield;
  return yield* insertPngTextInSteps(png, { [PARAMETERS]: toParameters(recipe), [PROPERTY]: json });
}

/** The JPEG file with its recipe in EXIF and XMP. */
export function* writeJpegRecipe(jpeg: Buffer, recipe: Recipe): Steps<Buffer> {
  const exif = Buffer.concat([Buffer.from(EXIF_NAME, 'latin1'), userCommentExif(toParameters(recipe))]);
  const short = asciiJson(withoutImages(recipe));
  const json = asciiJson(recipe);
  yield;
  const xmp = yield* xmpSegments(json, short);
  return yield* insertSegments(jpeg, [{ marker: APP1, data: exif }, ...xmp]);
}

/** The WebP file with its recipe in EXIF and XMP. */
export function* writeWebpRecipe(webp: Buffer, recipe: Recipe, size: { width: number; height: number }): Steps<Buffer> {
  const exif = userCommentExif(toParameters(recipe));
  const json = asciiJson(recipe);
  yield;
  const xmp = yield* xmpPacket(json);
  return yield* insertWebpMetadata(webp, size, { exif, xmp });
}

/**
 * The recipe in a picture's file: sent as `msg.payload` to a text-encode node, it makes the same picture again. What
 * another program wrote about the picture makes one with the same prompt, seed, steps, size, guidance and sampler.
 * @param options own: only what this package wrote; bounds: of what its JSON may hold
 * @returns undefined when the bytes are no picture, or hold no recipe
 */
export async function readRecipe(
  bytes: Buffer,
  { own = false, bounds = FILE_BOUNDS }: { own?: boolean; bounds?: JsonBounds } = {},
): Promise<Recipe | undefined> {
  try {
    const { ours, foreign } = await textsOf(bytes);
    if (turnIsOver()) await nextTurn();
    const recipe = firstOf(ours, (text) =>
      excessInText(text, bounds) ? undefined : toRecipe(JSON.parse(text) as unknown),
    );
    return recipe ?? (own ? undefined : firstOf(foreign, fromParameters));
  } catch {
    return undefined;
  }
}

/** Texts that may be recipes, the likeliest first. */
interface Texts {
  ours: string[];
  foreign: string[];
}

async function textsOf(bytes: Buffer): Promise<Texts> {
  const format = pictureFormat(bytes);
  switch (format) {
    case 'png':
      return textsOfPng(bytes);
    case 'jpeg': {
      const segments = jpegSegments(bytes);
      const exif = segments.find(({ marker, data }) => marker === APP1 && startsWith(data, EXIF_NAME))?.data;
      const comments = segments.filter(({ marker }) => marker === COMMENT).map(({ data }) => data.toString('utf8'));
      return texts(xmpInSegments(segments), exif, comments);
    }
    case 'webp': {
      const chunks = webpChunks(bytes);
      return texts([chunks.get('XMP ')], chunks.get('EXIF'));
    }
    case 'tiff':
      return texts([], bytes); // EXIF is a TIFF block
    default:
      return { ours: [], foreign: [] };
  }
}

async function textsOfPng(png: Buffer): Promise<Texts> {
  const wanted = [PARAMETERS, PROPERTY, PNG_XMP, 'Comment', 'Description'];
  const found = await readPngText(png, (keyword) => wanted.includes(keyword) || RAW_PROFILE.test(keyword));
  const profiles = Object.keys(found).filter((keyword) => RAW_PROFILE.test(keyword));
  const raw = profiles.map((keyword) => rawProfile(found[keyword]));
  const packets = [found[PNG_XMP] && Buffer.from(found[PNG_XMP]), ...raw.filter((profile) => profile.includes('<'))];
  const exif = findPngChunk(png, 'eXIf') ?? raw.find((profile) => startsWith(profile, EXIF_NAME));
  const { ours, foreign } = texts(packets, exif, [found.Comment, found.Description]);
  return { ours: present([found[PROPERTY], ...ours]), foreign: present([found[PARAMETERS], ...foreign]) };
}

/** Lines of hexadecimal digits, after the profile's name and length. */
function rawProfile(text: string): Buffer {
  return Buffer.from(text.trimStart().split('\n').slice(2).join('').replaceAll(' ', ''), 'hex');
}

function texts(
  packets: Array<Buffer | '' | undefined>,
  exif?: Buffer,
  comments: Array<string | undefined> = [],
): Texts {
  const small = present(packets).filter((packet) => packet.length <= MAX_TEXT_BYTES);
  return {
    ours: present(small.map(textInXmp)),
    foreign: present([...(exif ? commentsInExif(exif) : []), ...comments]),
  };
}

function firstOf(candidates: string[], read: (text: string) => Recipe | undefined): Recipe | undefined {
  for (const text of candidates) {
    try {
      const recipe = read(text);
      if (recipe) return recipe;
    } catch {
      // Another place may hold it whole.
    }
  }
  return undefined;
}

function present<T>(values: Array<T | '' | undefined>): T[] {
  return values.filter((value): value is T => Boolean(value));
}

function startsWith(data: Buffer, name: string): boolean {
  return data.toString('latin1', 0, name.length) === name;
}

/** JSON in plain ASCII, so that every reader of text chunks agrees on it. */
function asciiJson(value: unknown): string {
  const json = JSON.stringify(value);
  if (Buffer.byteLength(json) === json.length && !json.includes('\x7f')) return json;
  return json.replace(/[\u007f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
