/**
 * What made a picture, in a form that can be written into a file and sent again: a recipe is a layout
 * (see docs/messages.md) with facts about how it was made. Only the fields named here go into a file, so
 * nothing else that a message happens to carry, such as a path or a token, can.
 */
import { MAX_POINTS, MAX_REGIONS } from '../limits';
import { REGION_OPTIONS, SAMPLER_OPTIONS } from '../options';

export interface RecipeRegion {
  name?: string;
  prompt: string;
  /** Null: none at all, which is not the same as an empty one to every model. */
  negativePrompt?: string | null;
  box?: number[];
  ellipse?: number[];
  polygon?: number[][];
  /** A data URI. */
  image?: string;
  rest?: boolean;
  [option: string]: unknown;
}

export interface Recipe {
  prompt?: string;
  negativePrompt?: string;
  regions?: RecipeRegion[];
  /** The checkpoint's short name, never its path. */
  model?: string;
  /** Name and version of the program. */
  software?: string;
  created?: string;
  versions?: Record<string, string>;
  /** Milliseconds by phase. */
  timings?: Record<string, number>;
  /** 'wired' where the steps went round a loop of nodes, which may have changed them. */
  stepMode?: string;
  /** Whether it began with a picture, which is not in the recipe. */
  startedFromImage?: boolean;
  /** width, height, seed, steps, scheduler and the sampler's other options. */
  [option: string]: unknown;
}

type Check = (value: unknown) => boolean;
const MAX_TEXT = 1_000_000;
/** Characters of the whole recipe as JSON; images that make it longer are left out. */
const MAX_LENGTH = 15_000_000;

const text: Check = (value) => typeof value === 'string' && value.length <= MAX_TEXT;
const number: Check = (value) => typeof value === 'number' && Number.isFinite(value);
const scalar: Check = (value) => text(value) || number(value) || typeof value === 'boolean';
const listOf =
  (check: Check, longest: number): Check =>
  (value) =>
    Array.isArray(value) && value.length <= longest && value.every(check);
const mapOf =
  (check: Check): Check =>
  (value) =>
    isObject(value) && Object.keys(value).length <= 20 && Object.values(value).every(check);
const IMAGE = /^data:image\/(png|jpeg|webp);base64,/;
/** What follows its head is looked at by isBase64. */
const dataUri: Check = (value) =>
  typeof value === 'string' && value.length <= MAX_LENGTH && IMAGE.test(value.slice(0, 30));

const options = (specs: object): Record<string, Check> =>
  Object.fromEntries(Object.keys(specs).map((name) => [name, scalar]));

const REGION_FIELDS: Record<string, Check> = {
  name: text,
  prompt: text,
  negativePrompt: (value) => value === null || text(value),
  box: listOf(number, 4),
  ellipse: listOf(number, 4),
  polygon: listOf(listOf(number, 2), MAX_POINTS),
  image: dataUri,
  rest: (value) => value === true,
  ...options(REGION_OPTIONS),
};

const FIELDS: Record<string, Check> = {
  prompt: text,
  negativePrompt: text,
  ...options(SAMPLER_OPTIONS),
  tileSize: number,
  stepMode: text,
  startedFromImage: (value) => typeof value === 'boolean',
  model: text,
  software: text,
  provider: text,
  created: text,
  versions: mapOf(text),
  timings: mapOf(number),
};

export const RECIPE_FIELDS: readonly string[] = Object.keys(FIELDS);

/**
 * The recipe in a value such as msg.generation: its known fields, where they are of the right kind.
 * @returns undefined when nothing of a recipe is in it
 */
export function toRecipe(value: unknown): Recipe | undefined {
  return completeRecipe(value).recipe;
}

/**
 * The recipe in such a value, and what the picture can't be made again without and is not in it.
 * @returns `left` what had to be left out, though it was there; `apart` what no recipe holds
 */
export function completeRecipe(value: unknown): { recipe?: Recipe; left: string[]; apart: string[] } {
  const left: string[] = [];
  if (!isObject(value)) return { left, apart: [] };
  const recipe: Recipe = keep(value, FIELDS, '', left);
  const regions = Object.hasOwn(value, 'regions') ? value.regions : undefined;
  if (Array.isArray(regions) && regions.length > 0) {
    recipe.regions = regions
      .slice(0, MAX_REGIONS)
      .filter(isObject)
      .map((region, i) => keep(region, REGION_FIELDS, `regions[${i}].`, left) as RecipeRegion);
    if (recipe.regions.length < regions.length) left.push(`regions from number ${recipe.regions.length + 1} on`);
  }
  if (Object.keys(recipe).length === 0) return { left, apart: [] };
  leaveOutImages(recipe, left);
  for (const [i, region] of recipe.regions?.entries() ?? []) {
    if (region.image === undefined || isBase64(region.image.replace(IMAGE, ''))) continue;
    delete region.image;
    left.push(`regions[${i}].image`);
  }
  return { recipe, left, apart: notInRecipes(recipe) };
}

/** Leaves out the largest mask images until the rest fits into a file. */
function leaveOutImages(recipe: Recipe, left: string[]): void {
  const images = (recipe.regions ?? []).map(({ image }) => image?.length ?? 0);
  let length = JSON.stringify(withoutImages(recipe)).length + images.reduce((sum, image) => sum + image, 0);
  while (length > MAX_LENGTH) {
    const most = Math.max(0, ...images);
    if (most === 0) return;
    const largest = images.indexOf(most);
    recipe.regions![largest] = { ...recipe.regions![largest], image: undefined };
    left.push(`regions[${largest}].image`);
    length -= most;
    images[largest] = 0;
  }
}

/** A multiple of what four letters and three bytes have in common. */
const PIECE = 48 * 1024;
const decoded = Buffer.alloc(PIECE);

/** By decoding it, which takes a tenth of what a regular expression does: what is no Base64 comes out shorter. */
function isBase64(text: string): boolean {
  for (let at = 0; at < text.length; at += PIECE) {
    const piece = text.slice(at, at + PIECE);
    if (decoded.write(piece, 'base64') !== Buffer.byteLength(piece, 'base64')) return false;
  }
  return true;
}

export function withoutImages(recipe: Recipe): Recipe {
  return { ...recipe, regions: recipe.regions?.map((region) => ({ ...region, image: undefined })) };
}

function notInRecipes({ startedFromImage, bootstrappingBackground, regions, stepMode }: Recipe): string[] {
  const apart: string[] = [];
  if (startedFromImage === true) apart.push('the picture that it was started from');
  if (bootstrappingBackground === 'image' && regions?.length) apart.push('the picture that lay behind the regions');
  if (stepMode === 'wired') apart.push('what the nodes of the loop did');
  return apart;
}

/** @param left gets the names of those that are there and of another kind, with the place before them */
function keep(
  source: Record<string, unknown>,
  fields: Record<string, Check>,
  place: string,
  left: string[],
): Record<string, unknown> {
  const kept: Record<string, unknown> = {};
  for (const [name, check] of Object.entries(fields)) {
    const value = Object.hasOwn(source, name) ? source[name] : undefined;
    if (value === undefined) continue;
    if (check(value)) kept[name] = value;
    else if (value !== null) left.push(place + name);
  }
  return kept;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
