/** Regions on their way: outlines and options read from messages, masks made from outlines. */
import { Flaw, InvalidInputError, MissingInputError, MultiDiffusionError, propertyOf } from '../../engine/errors';
import { bytesIn } from '../../engine/bytes';
import { readRegular } from '../../engine/files/regular-file';
import { decodeMask, encodeMask } from '../../engine/image/mask';
import { isPictureText, READABLE } from '../../engine/image/source';
import { numbered } from '../../engine/json';
import { regionOptions } from '../../engine/regions/region';
import { findShape, restMaskInSteps, shapeMaskInSteps, type Shape } from '../../engine/regions/shapes';
import { MAX_NAME_LENGTH, MAX_POINTS } from '../../engine/limits';
import type { Region } from '../../engine/types';
import { REGION_OPTIONS, type Values } from '../../engine/options';
import { isTensor, type Tensor } from '../../engine/tensor';
import { inTurns } from '../../engine/turns';
import { existingFileInside } from './files';
import { isObject, own, pick } from './message';
import { checkLimit, pictureLimits, type Settings } from './settings';

/** An outline, or a picture that is the mask; text is a picture or the name of a file in the mask directory. */
export type Outline = Shape | { image: string | Buffer | Tensor };

/** A region that may still lack its mask. */
export type Draft = Omit<Region, 'mask' | 'shape'> & { mask?: Tensor; shape?: Outline };

/** What a region-mask node's configuration calls the outline of a shape. */
const WRITTEN = { ellipse: 'box', polygon: 'points' };

/** How to call a region in errors, and the image that is its mask. */
export interface Called {
  place: string;
  image: string;
}

const SHAPES = ['box', 'ellipse', 'polygon', 'image', 'rest'] as const;

/** Properties of a region that say where it is. */
export const OUTLINE_NAMES: readonly string[] = [...SHAPES, 'shape', 'points'];

/** What a region may be given in a layout or in msg.region. */
export const REGION_NAMES: ReadonlySet<string> = new Set([
  'name',
  'prompt',
  'negativePrompt',
  ...OUTLINE_NAMES,
  ...Object.keys(REGION_OPTIONS),
]);

/**
 * The outline that an object names: by one of box, ellipse, polygon, image and rest; or as region-mask
 * nodes are configured, by `shape` with box, points or image.
 * @param place how to call the object in errors; '' where its properties stand for themselves
 * @param imageName how to call its image
 * @returns undefined when it names none
 * @throws InvalidInputError when it names several or a malformed one
 */
export function readOutline(
  source: unknown,
  place: string,
  imageName = propertyOf(place, 'image'),
): Outline | undefined {
  const shape = own(source, 'shape');
  const outlines = shape === undefined ? pick(source, SHAPES) : ofShape(shape, source, place);
  const { image } = outlines;
  if (image === undefined || image === null || image === '')
    return findShape(
      mapValues(outlines, (outline) => outlineIn(outline)),
      place,
      shape === undefined ? {} : WRITTEN,
    );
  if (Object.keys(outlines).length > 1)
    throw new InvalidInputError(place, new Flaw(Object.keys(outlines).join(' and ')), 'only one outline');
  const picture = typeof image === 'string' || isTensor(image) ? image : bytesIn(image);
  if (picture === undefined) throw noMask(image, imageName);
  return { image: picture };
}

function noMask(image: unknown, name: string): InvalidInputError {
  return new InvalidInputError(
    name,
    image,
    `a ${READABLE} file as bytes, as a data URI or as Base64, or the name of one in the mask directory; addresses are not fetched`,
  );
}

function ofShape(shape: unknown, source: unknown, place: string): Record<string, unknown> {
  switch (shape) {
    case 'box':
    case 'ellipse':
      return { [shape]: own(source, 'box') };
    case 'polygon':
      return { polygon: own(source, 'points') };
    case 'image':
      return { image: own(source, 'image') };
    case 'rest':
      return { rest: true };
    default:
      throw new InvalidInputError(propertyOf(place, 'shape'), shape, `one of ${SHAPES.join(', ')}`);
  }
}

/** @throws InvalidInputError when it is no name for a region */
export function readRegionName(value: unknown, property: string): string {
  if (typeof value === 'string' && value.length <= MAX_NAME_LENGTH) return value;
  throw new InvalidInputError(property, value, `text of up to ${MAX_NAME_LENGTH} characters`);
}

/**
 * A region's options, from the first source that has them.
 * @param place how to call the region in errors
 */
export function readRegionOptions(
  place: string,
  ...sources: Array<Record<string, unknown>>
): Values<typeof REGION_OPTIONS> {
  return regionOptions(place, ...sources.map((source) => pick(source, Object.keys(REGION_OPTIONS))));
}

/**
 * msg.regions as one flat list: branches brought together by a Join node arrive as nested arrays.
 * @throws InvalidInputError when something in it is no region, MultiDiffusionError LIMIT when there are too many
 */
export function readRegions(value: unknown, settings: Settings): Draft[] {
  if (value === undefined || value === null) return [];
  const regions: unknown[] = [];
  const visit = (list: unknown, depth: number): void => {
    if (!Array.isArray(list)) regions.push(list);
    else if (depth > 8)
      throw new InvalidInputError('regions', new Flaw('an array nested more than 8 deep'), 'an array of regions');
    else for (const entry of list as unknown[]) visit(entry, depth + 1);
    checkLimit(settings, 'maxRegions', regions.length, `msg.regions has ${regions.length} or more regions`);
  };
  visit(value, 0);
  regions.forEach((region, i) => {
    if (!isObject(region) || !isObject(own(region, 'conditioning'))) {
      throw new InvalidInputError(
        `regions[${i}]`,
        region,
        'a region {name, conditioning, mask, …} as region-mask makes it',
      );
    }
  });
  return regions as Draft[];
}

/**
 * Gives every region its mask. That of `rest` is what all the others leave, so it is made anew each time.
 * @param last how to call the last region in errors, and its image; default: by its place in msg.regions
 * @throws InvalidInputError when an outline is empty or a mask image can't be read
 */
export async function addMasks(regions: Draft[], settings: Settings, last?: Called): Promise<Region[]> {
  checkCorners(regions, settings);
  const isRest = (region: Draft): boolean => isObject(region.shape) && 'rest' in region.shape;
  const complete: Draft[] = [];
  for (const [i, region] of regions.entries()) {
    if (isRest(region) || region.mask) complete.push(region);
    else {
      const called = i === regions.length - 1 && last ? last : { place: `regions[${i}]`, image: `regions[${i}].image` };
      complete.push({ ...region, ...(await drawMask(region, i, called, settings)) });
    }
  }
  if (complete.some(isRest)) {
    const others = complete.filter((region) => !isRest(region)).map((region) => region.mask!);
    const rest = await inTurns(restMaskInSteps(others));
    for (const [i, region] of complete.entries()) if (isRest(region)) complete[i] = { ...region, mask: rest };
  }
  return complete as Region[];
}

/**
 * Masks are drawn in Node-RED's own thread.
 * @throws MultiDiffusionError LIMIT when all polygons together have too many corners
 */
export function checkCorners(regions: ReadonlyArray<{ shape?: Outline }>, settings: Settings): void {
  const corners = regions.reduce(
    (sum, { shape }) =>
      sum + (isObject(shape) && 'polygon' in shape && Array.isArray(shape.polygon) ? shape.polygon.length : 0),
    0,
  );
  checkLimit(settings, 'maxCorners', corners, `The polygons of the regions have ${corners} corners`);
}

async function drawMask(
  region: Draft,
  index: number,
  called: Called,
  settings: Settings,
): Promise<{ mask: Tensor; shape?: Outline }> {
  const shape = region.shape;
  if (!shape)
    throw new MissingInputError(
      `${called.place}.mask`,
      'Give the region box, ellipse, polygon, image or rest, or send it through region-mask.',
    );
  if (!('image' in shape)) return { mask: await inTurns(shapeMaskInSteps(shape, undefined, called.place)) };
  const mask = await readMask(shape.image, index, called.image, settings);
  return { mask, shape: { image: await encodeMask(mask) } };
}

async function readMask(
  image: string | Buffer | Tensor,
  region: number,
  name: string,
  settings: Settings,
): Promise<Tensor<'float32'>> {
  const limits = pictureLimits(settings);
  if (typeof image !== 'string' || isPictureText(image)) return decodeMask(image, name, limits, region);
  const file = await existingFileInside(settings.maskDirectory, image, limits.maxBytes, name).catch(
    (error: unknown) => {
      throw (error as MultiDiffusionError).code === 'FILE' ? noMask(image, name) : error;
    },
  );
  try {
    return await decodeMask(await readRegular(file, limits.maxBytes), name, limits, region);
  } catch (cause) {
    if (cause instanceof MultiDiffusionError) throw cause;
    throw new MultiDiffusionError('FILE', `The mask image ${image} can't be read.`, { cause });
  }
}

function mapValues(values: Record<string, unknown>, change: (value: unknown) => unknown): Record<string, unknown> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, change(value)]));
}

/** As many characters as an outline of the most corners may take. */
const LONGEST_OUTLINE = 64 * MAX_POINTS;

/**
 * An outline as forms and HTTP queries send it: its numbers as text, all of it as JSON or as numbers with commas between
 * them, a list as an object {0: …, 1: …}, true as `true` or `on`.
 */
function outlineIn(value: unknown, depth = 0): unknown {
  if (depth === 0 && typeof value === 'string') {
    if (value === 'true' || value === 'on') return true;
    if (value.trim() === '' || value === 'false') return undefined;
    const read = value.length <= LONGEST_OUTLINE ? listIn(value) : undefined;
    return read === undefined ? value : outlineIn(read);
  }
  const list = Array.isArray(value) ? (value as unknown[]) : numbered(value);
  if (list && depth < 2 && list.length <= MAX_POINTS) return list.map((entry) => outlineIn(entry, depth + 1));
  const number = typeof value === 'string' && value.trim() !== '' && depth > 0 ? Number(value) : NaN;
  return Number.isNaN(number) ? value : number;
}

/** @returns undefined when the text holds no list */
function listIn(text: string): unknown[] | undefined {
  for (const json of [text, `[${text}]`]) {
    try {
      const read = JSON.parse(json) as unknown;
      if (Array.isArray(read)) return read as unknown[];
    } catch {
      // It may be without its brackets.
    }
  }
  return undefined;
}
