/** Regions on their way: outlines and options read from messages, masks made from outlines. */
import { readFile } from 'node:fs/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { InvalidInputError, MissingInputError, MultiDiffusionError, propertyOf } from '../../engine/errors';
import { decodeMask, encodeMask, isDataUri } from '../../engine/image/mask';
import { regionOptions } from '../../engine/multidiffusion/regions';
import { findShape, restMask, shapeMask, type Shape } from '../../engine/multidiffusion/shapes';
import type { Region } from '../../engine/multidiffusion/types';
import { REGION_OPTIONS, type Values } from '../../engine/options';
import type { Tensor } from '../../engine/tensor';
import { existingFileInside } from './files';
import { isObject, own, pick } from './message';
import { checkLimit, type Settings } from './settings';

/** An outline, or a picture that is the mask; text is a data URI or a file in the mask directory. */
export type Outline = Shape | { image: string | Buffer };

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

/** What a region may be given in a layout or in msg.region. */
export const REGION_NAMES: ReadonlySet<string> = new Set(['name', 'prompt', 'negativePrompt', ...SHAPES, 'shape', 'points', ...Object.keys(REGION_OPTIONS)]);

/**
 * The outline that an object names: by one of box, ellipse, polygon, image and rest; or as region-mask
 * nodes are configured, by `shape` with box, points or image.
 * @param place how to call the object in errors; '' where its properties stand for themselves
 * @param imageName how to call its image
 * @returns undefined when it names none
 * @throws InvalidInputError when it names several or a malformed one
 */
export function readOutline(source: unknown, place: string, imageName = propertyOf(place, 'image')): Outline | undefined {
  const shape = own(source, 'shape');
  const outlines = shape === undefined ? pick(source, SHAPES) : ofShape(shape, source, place);
  const { image } = outlines;
  if (image === undefined || image === null || image === '') return findShape(mapValues(outlines, numbers), place, shape === undefined ? {} : WRITTEN);
  if (Object.keys(outlines).length > 1) throw new InvalidInputError(place, Object.keys(outlines).join(' and '), 'only one outline');
  if (typeof image !== 'string' && !Buffer.isBuffer(image)) {
    throw new InvalidInputError(imageName, image, 'a Buffer, a data URI or the name of a file in the mask directory');
  }
  return { image };
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

/**
 * A region's options, from the first source that has them.
 * @param place how to call the region in errors
 */
export function readRegionOptions(place: string, ...sources: Array<Record<string, unknown>>): Values<typeof REGION_OPTIONS> {
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
    else if (depth > 8) throw new InvalidInputError('regions', 'an array nested more than 8 deep', 'an array of regions');
    else for (const entry of list as unknown[]) visit(entry, depth + 1);
    checkLimit(settings, 'maxRegions', regions.length, `msg.regions has ${regions.length} or more regions`);
  };
  visit(value, 0);
  regions.forEach((region, i) => {
    if (!isObject(region) || !isObject(own(region, 'conditioning'))) {
      throw new InvalidInputError(`regions[${i}]`, region, 'a region {name, conditioning, mask, …} as region-mask makes it');
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
  const isRest = (region: Draft): boolean => isObject(region.shape) && 'rest' in region.shape;
  const complete: Draft[] = [];
  for (const [i, region] of regions.entries()) {
    if (isRest(region) || region.mask) complete.push(region);
    else {
      const called = i === regions.length - 1 && last ? last : { place: `regions[${i}]`, image: `regions[${i}].shape.image` };
      complete.push({ ...region, ...(await drawMask(region, called, settings)) });
      await nextTurn(); // a mask takes some milliseconds: other flows get theirs in between
    }
  }
  if (complete.some(isRest)) {
    const others = complete.filter((region) => !isRest(region)).map((region) => region.mask!);
    const rest = restMask(others);
    for (const [i, region] of complete.entries()) if (isRest(region)) complete[i] = { ...region, mask: rest };
  }
  return complete as Region[];
}

async function drawMask(region: Draft, called: Called, settings: Settings): Promise<{ mask: Tensor; shape?: Outline }> {
  const shape = region.shape;
  if (!shape) throw new MissingInputError(`${called.place}.mask`, 'Give the region box, ellipse, polygon, image or rest, or send it through region-mask.');
  if (!('image' in shape)) return { mask: shapeMask(shape, undefined, called.place) };
  const mask = await readMask(shape.image, called.image, settings);
  return { mask, shape: { image: await encodeMask(mask) } };
}

async function readMask(image: string | Buffer, name: string, settings: Settings): Promise<Tensor<'float32'>> {
  const limits = { maxPixels: settings.limits.maxMaskPixels, maxBytes: settings.limits.maxMaskBytes };
  if (typeof image !== 'string' || isDataUri(image)) return decodeMask(image, name, limits);
  const file = await existingFileInside(settings.maskDirectory, image, limits.maxBytes, 'mask image');
  try {
    return await decodeMask(await readFile(file), name, limits);
  } catch (cause) {
    if (cause instanceof MultiDiffusionError) throw cause;
    throw new MultiDiffusionError('FILE', `The mask image ${image} can't be read.`, { cause });
  }
}

function mapValues(values: Record<string, unknown>, change: (value: unknown) => unknown): Record<string, unknown> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, change(value)]));
}

/** Numbers in arrays may come as text, as in an HTTP query. */
function numbers(value: unknown, depth = 0): unknown {
  if (Array.isArray(value) && depth < 2 && value.length <= 10_000) return value.map((entry) => numbers(entry, depth + 1));
  const number = typeof value === 'string' && value.trim() !== '' && depth > 0 ? Number(value) : NaN;
  return Number.isNaN(number) ? value : number;
}
