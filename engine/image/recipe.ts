/**
 * What made a picture, in a form that can be written into a file and sent again: a recipe is a layout
 * (see docs/messages.md) with facts about how it was made. Only the fields named here go into a file, so
 * nothing else that a message happens to carry, such as a path or a token, can.
 */
import { REGION_OPTIONS, SAMPLER_OPTIONS } from '../options';

export interface RecipeRegion {
  name?: string;
  prompt: string;
  negativePrompt?: string;
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
const MAX_TEXT = 100_000;
const MAX_REGIONS = 256;

const text: Check = (value) => typeof value === 'string' && value.length <= MAX_TEXT;
const number: Check = (value) => typeof value === 'number' && Number.isFinite(value);
const scalar: Check = (value) => text(value) || number(value) || typeof value === 'boolean';
const listOf = (check: Check, longest: number): Check => (value) => Array.isArray(value) && value.length <= longest && value.every(check);
const mapOf = (check: Check): Check => (value) => isObject(value) && Object.keys(value).length <= 20 && Object.values(value).every(check);
const dataUri: Check = (value) => typeof value === 'string' && value.length <= 1_000_000 && /^data:image\/(png|jpeg|webp);base64,[A-Za-z0-9+/=]*$/.test(value);

const options = (specs: object): Record<string, Check> => Object.fromEntries(Object.keys(specs).map((name) => [name, scalar]));

const REGION_FIELDS: Record<string, Check> = {
  name: text,
  prompt: text,
  negativePrompt: text,
  box: listOf(number, 4),
  ellipse: listOf(number, 4),
  polygon: listOf(listOf(number, 2), 10_000),
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
 * The recipe in `generation`: its known fields, where they are of the right kind.
 * @returns undefined when nothing of a recipe is in it
 */
export function toRecipe(generation: unknown): Recipe | undefined {
  if (!isObject(generation)) return undefined;
  const recipe: Recipe = keep(generation, FIELDS);
  const regions = Object.hasOwn(generation, 'regions') ? generation.regions : undefined;
  if (Array.isArray(regions) && regions.length > 0) {
    recipe.regions = regions.slice(0, MAX_REGIONS).filter(isObject).map((region) => keep(region, REGION_FIELDS) as RecipeRegion);
  }
  return Object.keys(recipe).length > 0 ? recipe : undefined;
}

/** How other programs call the samplers. */
const SAMPLER_NAMES: Record<string, string> = {
  DDIMScheduler: 'DDIM',
  DPMSolverMultistepScheduler: 'DPM++ 2M',
  EulerDiscreteScheduler: 'Euler',
  EulerAncestralDiscreteScheduler: 'Euler a',
  HeunDiscreteScheduler: 'Heun',
  UniPCMultistepScheduler: 'UniPC',
  PNDMScheduler: 'PLMS',
  DDPMScheduler: 'DDPM',
  LCMScheduler: 'LCM',
};

/**
 * The recipe as the text that AUTOMATIC1111's web UI writes under `parameters` and many programs read:
 * the prompt, `Negative prompt: …`, and a last line of `Name: value` pairs, quoted as JSON where a value
 * holds a comma, a colon or a line break.
 */
export function toParameters(recipe: Recipe): string {
  const pairs: Array<[string, unknown]> = [
    ['Steps', recipe.steps],
    ['Sampler', SAMPLER_NAMES[String(recipe.scheduler)] ?? recipe.scheduler],
    ['CFG scale', recipe.guidanceScale],
    ['Seed', recipe.seed],
    ['Size', recipe.width && recipe.height ? `${String(recipe.width)}x${String(recipe.height)}` : undefined],
    ['Denoising strength', recipe.startedFromImage === true ? recipe.strength : undefined],
    ['Model', recipe.model],
    ...(recipe.regions ?? []).map((region, i): [string, unknown] => [`Region ${i + 1}`, regionText(region)]),
    ['Version', recipe.software],
  ];
  const last = pairs
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}: ${quote(String(value))}`)
    .join(', ');
  const negative = recipe.negativePrompt ? [`Negative prompt: ${oneLine(recipe.negativePrompt)}`] : [];
  return [oneLine(recipe.prompt ?? ''), ...negative, last].join('\n');
}

function regionText(region: RecipeRegion): string {
  return region.box ? `${region.prompt} [${region.box.join(' ')}]` : region.prompt;
}

const quote = (value: string): string => (/[,:\n"]/.test(value) ? JSON.stringify(value) : value);
const oneLine = (value: string): string => value.replace(/\s*\n\s*/g, ' ');

function keep(source: Record<string, unknown>, fields: Record<string, Check>): Record<string, unknown> {
  const kept: Record<string, unknown> = {};
  for (const [name, check] of Object.entries(fields)) {
    if (Object.hasOwn(source, name) && check(source[name])) kept[name] = source[name];
  }
  return kept;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
