/** A whole layout in one message: `{prompt, width, …, regions: [{prompt, box, …}]}`; see docs/messages.md. */
import { InvalidInputError, MissingInputError } from '../../engine/errors';
import { readGeneration } from '../../engine/image/metadata';
import { RECIPE_FIELDS } from '../../engine/image/recipe';
import { checkOption, DECODE_OPTIONS, IMAGE_OPTIONS, type REGION_OPTIONS, SAMPLER_OPTIONS, type Values } from '../../engine/options';
import { isObject, own, pick, textIn, unknownNames } from './message';
import { readOutline, REGION_NAMES, readRegionOptions, type Outline } from './regions';
import { checkLimit, type Settings } from './settings';

export interface LayoutRegion {
  name: string;
  prompt: string;
  negativePrompt: string;
  shape: Outline;
  options: Values<typeof REGION_OPTIONS>;
}

export interface Layout {
  prompt: string;
  negativePrompt: string;
  regions: LayoutRegion[];
  /** Options of the nodes downstream, as they came; checked, so that a wrong file format isn't told after the picture is drawn. */
  options: Record<string, unknown>;
  /** Names in it that mean nothing, such as misspelt ones. */
  unknown: string[];
}

const MAX_JSON_LENGTH = 32 * 1024 * 1024;
const LIFTED = { ...SAMPLER_OPTIONS, ...DECODE_OPTIONS, ...IMAGE_OPTIONS };
const KNOWN = new Set(['regions', ...Object.keys(LIFTED), ...RECIPE_FIELDS]);

/**
 * The layout in a payload: an object with `prompt` or `regions`, the same as JSON text or its bytes, or a
 * picture that save-image wrote, whose recipe is the layout.
 * @returns undefined when the payload is none of these
 * @throws InvalidInputError, MissingInputError when it is a layout with something wrong in it
 */
export async function readLayout(payload: unknown, settings: Settings): Promise<Layout | undefined> {
  let source = payload;
  if (Buffer.isBuffer(payload)) source = (await readGeneration(payload)) ?? textIn(payload);
  if (typeof source === 'string') source = parseJson(source);
  if (Array.isArray(source) && isObject(source[0])) throw new InvalidInputError('payload', source, 'one layout {prompt, regions: […]}; a split node sends several one after the other');
  if (!isObject(source) || (own(source, 'prompt') === undefined && own(source, 'regions') === undefined)) return undefined;

  const prompt = readPrompt(own(source, 'prompt') ?? '', 'payload.prompt', settings);
  const negativePrompt = readPrompt(own(source, 'negativePrompt') ?? '', 'payload.negativePrompt', settings);
  const regions = own(source, 'regions') ?? [];
  if (!Array.isArray(regions)) throw new InvalidInputError('payload.regions', regions, 'an array of regions {prompt, box, …}');
  checkLimit(settings, 'maxRegions', regions.length, `payload.regions has ${regions.length} regions`);
  return {
    prompt,
    negativePrompt,
    regions: regions.map((region, i) => readRegion(region, i, negativePrompt, settings)),
    options: readOptions(source),
    unknown: [...unknownNames(source, KNOWN), ...regions.flatMap((region, i) => unknownNames(region, REGION_NAMES).map((name) => `regions[${i}].${name}`))],
  };
}

/**
 * @throws InvalidInputError when it is no text, MultiDiffusionError LIMIT when it is longer than the administrator allows
 */
export function readPrompt(value: unknown, name: string, settings: Settings): string {
  if (typeof value !== 'string') throw new InvalidInputError(name, value, 'text');
  checkLimit(settings, 'maxPromptLength', value.length, `${name} has ${value.length} characters`);
  return value;
}

function readOptions(source: unknown): Record<string, unknown> {
  const options = pick(source, Object.keys(LIFTED));
  for (const [name, value] of Object.entries(options)) checkOption(`payload.${name}`, LIFTED[name as keyof typeof LIFTED], value);
  return options;
}

function readRegion(region: unknown, i: number, negativePrompt: string, settings: Settings): LayoutRegion {
  const place = `payload.regions[${i}]`;
  if (!isObject(region)) throw new InvalidInputError(place, region, 'an object {prompt, box, …}');
  const prompt = own(region, 'prompt');
  if (prompt === undefined) throw new MissingInputError(`${place}.prompt`, 'Say what this region shows.');
  const shape = readOutline(region, place);
  if (!shape) throw new MissingInputError(`${place}.box`, 'Say where the region is: box, ellipse, polygon, image or rest.');
  const name = own(region, 'name') ?? `region ${i + 1}`;
  if (typeof name !== 'string' || name.length > 200) throw new InvalidInputError(`${place}.name`, name, 'text of up to 200 characters');
  return {
    name,
    prompt: readPrompt(prompt, `${place}.prompt`, settings),
    negativePrompt: readPrompt(own(region, 'negativePrompt') ?? negativePrompt, `${place}.negativePrompt`, settings),
    shape,
    options: readRegionOptions(place, region),
  };
}

function parseJson(text: string): unknown {
  if (!/^\s*(\{\s*["'}]|\[\s*\{)/.test(text.slice(0, 1000)) || text.length > MAX_JSON_LENGTH) return undefined;
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw new InvalidInputError('payload', text, `a prompt, or a layout as JSON (${(error as Error).message.slice(0, 80)})`);
  }
}
