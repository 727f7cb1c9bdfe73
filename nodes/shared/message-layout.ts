/** A whole layout in one message: `{prompt, width, …, regions: [{prompt, box, …}]}`; see docs/messages.md. */
import type { Checkpoint } from '../../engine/checkpoint/checkpoint';
import { InvalidInputError, MissingInputError } from '../../engine/errors';
import { bytesIn, withoutMark } from '../../engine/bytes';
import { readRecipe } from '../../engine/image/metadata';
import { type Recipe, RECIPE_FIELDS } from '../../engine/image/recipe';
import { isPictureText, pictureFormat, pictureSource } from '../../engine/image/source';
import { type Excess, excessIn, excessInText, type JsonBounds, MESSAGE_BOUNDS, numbered } from '../../engine/json';
import {
  checkOption,
  DECODE_OPTIONS,
  IMAGE_OPTIONS,
  type REGION_OPTIONS,
  SAMPLER_OPTIONS,
  type Values,
} from '../../engine/options';
import { isTensor } from '../../engine/tensor';
import { nextTurn } from '../../engine/turns';
import { isObject, own, pick, textIn, TooMuchError, unknownNames } from './message';
import {
  checkCorners,
  readOutline,
  REGION_NAMES,
  readRegionName,
  readRegionOptions,
  type Draft,
  type Outline,
} from './regions';
import { checkLimit, pictureLimits, type Settings } from './settings';

export interface LayoutRegion {
  name: string;
  prompt: string;
  negativePrompt?: string;
  shape: Outline;
  options: Values<typeof REGION_OPTIONS>;
}

export interface Layout {
  prompt: string;
  negativePrompt?: string;
  regions: LayoutRegion[];
  /** Options of the nodes downstream, as they came; checked, so that a wrong file format isn't told after the picture is drawn. */
  options: Record<string, unknown>;
  /** Names in it that mean nothing, such as misspelt ones. */
  unknown: string[];
}

/** Options of the nodes downstream that a layout may hold. */
export const LAYOUT_OPTIONS = { ...SAMPLER_OPTIONS, ...DECODE_OPTIONS, ...IMAGE_OPTIONS };
/** What a layout may hold; a recipe is one. */
export const LAYOUT_NAMES: ReadonlySet<string> = new Set(['regions', ...Object.keys(LAYOUT_OPTIONS), ...RECIPE_FIELDS]);

/** What a payload holds. */
export type Payload =
  | { text: string }
  /** JSON, or an object. `layout`: it says a prompt or regions */
  | { source: Record<string, unknown>; layout: boolean }
  /** `recipe`: what is written into it. `own`: by save-image */
  | { picture: Buffer; recipe?: Recipe; own: boolean }
  | undefined;

const LONG_TEXT = 100_000;

/** With or without a byte order mark, in UTF-8 or UTF-16. */
const JSON_START = /^[\s\0\xef\xbb\xbf\xfe\xff]*[{[]/;

/**
 * What a payload holds: a layout `{prompt, regions, …}`, as an object or as JSON; other text; or a picture, maybe with
 * the recipe that save-image or another program has written into it. Text and pictures may come as bytes, and a picture
 * as text (see pictureSource).
 * @throws InvalidInputError when it is broken JSON or several layouts, MultiDiffusionError LIMIT when a picture is too large
 */
export async function readPayload(payload: unknown, settings: Settings): Promise<Payload> {
  if (isTensor(payload)) return undefined;
  const bytes = bytesIn(payload);
  if (typeof payload === 'string' ? isPictureText(payload) : bytes && pictureFormat(bytes)) {
    const picture = pictureSource(payload, 'payload', pictureLimits(settings)) as Buffer;
    const bounds = boundsOf(settings);
    const own = await readRecipe(picture, { own: true, bounds });
    return { picture, recipe: own ?? (await readRecipe(picture, { bounds })), own: own !== undefined };
  }
  const text = readText(payload, settings);
  const source = text === undefined ? payload : parseLayout(text, settings);
  // Of millions of characters that was some work, and to look at what they hold is some more.
  if (text !== undefined && text.length > LONG_TEXT) await nextTurn();
  if (Array.isArray(source) && isObject(source[0]))
    throw new InvalidInputError(
      'payload',
      source,
      'one layout {prompt, regions: […]}; a split node sends several one after the other',
    );
  if (isObject(source) && !bytesIn(source))
    return { source, layout: own(source, 'prompt') !== undefined || own(source, 'regions') !== undefined };
  return text === undefined ? undefined : { text };
}

/**
 * The text in a payload, unless it is longer than any that has a meaning.
 * @throws MultiDiffusionError LIMIT when such a long one begins like JSON
 */
export function readText(payload: unknown, settings: Settings): string | undefined {
  const { maxLayoutLength, maxPromptLength } = settings.limits;
  const text = textIn(payload, Math.max(maxLayoutLength, maxPromptLength));
  const bytes = text === undefined ? bytesIn(payload) : undefined;
  if (bytes && JSON_START.test(bytes.toString('latin1', 0, 1000)))
    checkLimit(settings, 'maxLayoutLength', bytes.length, `The layout in payload has ${bytes.length} bytes`);
  return text;
}

/**
 * The layout in a payload, checked; in a picture it is the recipe that save-image wrote.
 * @returns undefined when there is none
 * @throws as readPayload and checkLayout
 */
export async function readMessageLayout(payload: unknown, settings: Settings): Promise<Layout | undefined> {
  const found = await readPayload(payload, settings);
  if (!found || 'text' in found) return undefined;
  const source = 'source' in found ? found.layout && found.source : found.own && found.recipe;
  return source ? checkLayout(source, settings) : undefined;
}

/**
 * A layout, checked.
 * @throws InvalidInputError, MissingInputError when something is wrong in it
 */
export function checkLayout(source: Record<string, unknown>, settings: Settings): Layout {
  checkAmount(source, settings);
  const prompt = readPrompt(own(source, 'prompt') ?? '', 'payload.prompt', settings);
  const negativePrompt = readNegative(own(source, 'negativePrompt'), 'payload.negativePrompt', settings);
  const regions = readList(own(source, 'regions') ?? [], settings);
  checkLimit(settings, 'maxRegions', regions.length, `payload.regions has ${regions.length} regions`);
  const read = regions.map((region, i) => readRegion(region, i, negativePrompt, settings));
  checkCorners(read, settings);
  return {
    prompt,
    negativePrompt,
    regions: read,
    options: readOptions(source),
    unknown: [
      ...unknownNames(source, LAYOUT_NAMES),
      ...regions.flatMap((region, i) => unknownNames(region, REGION_NAMES).map((name) => `regions[${i}].${name}`)),
    ],
  };
}

/**
 * @throws InvalidInputError when it is no text, MultiDiffusionError LIMIT when it is longer than the administrator allows
 */
export function readPrompt(value: unknown, name: string, settings: Settings): string {
  const text = typeof value === 'string' && !isPictureText(value) ? withoutMark(value) : undefined;
  if (text === undefined) throw new InvalidInputError(name, value, 'text');
  checkLimit(settings, 'maxPromptLength', text.length, `${name} has ${text.length} characters`);
  return text;
}

/** The regions of a layout. A form sends them as JSON, or many of them as an object {0: …, 1: …}. */
function readList(value: unknown, settings: Settings): unknown[] {
  const said = withoutText(value, 'payload.regions', settings);
  const single = isObject(said) && own(said, 'prompt') !== undefined;
  const none = isObject(said) && Object.keys(said).length === 0;
  const list = single ? [said] : none ? [] : Array.isArray(said) ? said : numbered(said);
  if (!list) throw new InvalidInputError('payload.regions', value, 'an array of regions {prompt, box, …}');
  return list.map((region, i) => withoutText(region, `payload.regions[${i}]`, settings));
}

/**
 * What JSON text stands for; anything else as it is. A field of a form that is left empty is none.
 * @throws InvalidInputError when it begins like JSON and is none
 */
export function withoutText(value: unknown, name: string, settings: Settings): unknown {
  if (typeof value !== 'string' || !/^\s*[[{]/.test(value.slice(0, 1000)))
    return typeof value === 'string' && value.trim() === '' ? [] : value;
  return parseJson(value, name, 'JSON', settings);
}

/** As readPrompt; undefined and null are no negative prompt at all, which some models tell from an empty one. */
export function readNegative(value: unknown, name: string, settings: Settings): string | undefined {
  return value === undefined || value === null ? undefined : readPrompt(value, name, settings);
}

function readOptions(source: unknown): Record<string, unknown> {
  const options = pick(source, Object.keys(LAYOUT_OPTIONS));
  for (const [name, value] of Object.entries(options))
    checkOption(`payload.${name}`, LAYOUT_OPTIONS[name as keyof typeof LAYOUT_OPTIONS], value);
  return options;
}

function readRegion(region: unknown, i: number, negativePrompt: string | undefined, settings: Settings): LayoutRegion {
  const place = `payload.regions[${i}]`;
  if (!isObject(region)) throw new InvalidInputError(place, region, 'an object {prompt, box, …}');
  const prompt = own(region, 'prompt');
  if (prompt === undefined)
    throw new MissingInputError(`${place}.prompt`, `Say what this region shows.${strangers(region, REGION_NAMES)}`);
  const shape = readOutline(region, place);
  if (!shape)
    throw new MissingInputError(
      `${place}.box`,
      `Set its place: box, ellipse, polygon, image or rest.${strangers(region, REGION_NAMES)}`,
    );
  return {
    name: readRegionName(own(region, 'name') ?? `region ${i + 1}`, `${place}.name`),
    prompt: readPrompt(prompt, `${place}.prompt`, settings),
    // Null: none at all, which is not the same as an empty one to every model.
    negativePrompt:
      own(region, 'negativePrompt') === undefined
        ? negativePrompt
        : readNegative(own(region, 'negativePrompt'), `${place}.negativePrompt`, settings),
    shape,
    options: readRegionOptions(place, region),
  };
}

/** Polygons are lists of lists: where an administrator allows more corners, there may be more of them. */
function boundsOf({ limits: { maxCorners } }: Settings): JsonBounds {
  return { ...MESSAGE_BOUNDS, lists: Math.max(MESSAGE_BOUNDS.lists, 1.5 * maxCorners) };
}

/** @throws InvalidInputError when there is too much in a layout */
export function checkAmount(layout: unknown, settings: Settings): void {
  const excess = excessIn(layout, boundsOf(settings));
  if (excess) throw tooMuch(excess);
}

function tooMuch({ found, allowed }: Excess): TooMuchError {
  const flaw = found === 'longer' ? 'too long' : 'nested too deep';
  return new TooMuchError(flaw, `a layout of ${allowed} (see multidiffusion.maxCorners in settings.js)`);
}

/** A sentence that names what means nothing in an object, where something is missing that may be misspelt. */
export function strangers(source: unknown, known: ReadonlySet<string> = LAYOUT_NAMES): string {
  const names = unknownNames(source, known);
  return names.length > 0 ? ` Unknown here, and perhaps misspelt: ${names.join(', ')}.` : '';
}

/**
 * A layout's JSON text as an object.
 * @returns undefined for other text
 * @throws InvalidInputError when it begins like a layout and is no JSON
 */
export function parseLayout(text: string, settings: Settings): unknown {
  if (!/^\s*(\{\s*["'}]|\[\s*\{)/.test(text.slice(0, 1000))) return undefined;
  return parseJson(text, 'payload', 'a prompt, or a layout as JSON', settings);
}

function parseJson(text: string, name: string, allowed: string, settings: Settings): unknown {
  checkLimit(settings, 'maxLayoutLength', text.length, `The layout in ${name} has ${text.length} characters`);
  const excess = excessInText(text, boundsOf(settings));
  if (excess) throw tooMuch(excess);
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw new InvalidInputError(name, text, `${allowed} (${(error as Error).message.slice(0, 80)})`);
  }
}

/** The layout's regions with their prompts encoded; their masks are made by addMasks. */
export async function encodeRegions(checkpoint: Checkpoint, layout: Layout, signal: AbortSignal): Promise<Draft[]> {
  const regions: Draft[] = [];
  for (const { name, prompt, negativePrompt, shape, options } of layout.regions) {
    const conditioning = await checkpoint.encodeConditioning(prompt, negativePrompt, { signal });
    regions.push({ name, conditioning, shape, ...options });
  }
  return regions;
}
