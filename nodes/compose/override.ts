/** What a compose node's layout becomes under a message. */
import { InvalidInputError } from '../../engine/errors';
import { checkAmount, LAYOUT_NAMES, parseLayout, readText, withoutText } from '../shared/message-layout';
import type { Settings } from '../shared/settings';
import { isObject, own, pick, unknownNames, type Message } from '../shared/message';
import { OUTLINE_NAMES } from '../shared/regions';

/** What the dialog sets: a layout as docs/messages.md describes it, empty text where nothing is set. */
export interface ComposeConfig {
  prompt?: string;
  negativePrompt?: string;
  width?: string | number;
  height?: string | number;
  seed?: string | number;
  /** Layout regions `{name, prompt, negativePrompt?, box | ellipse | polygon | image | rest, weight?, …}`. */
  regions?: unknown;
}

type Fields = Record<string, unknown>;

/** Properties of the message that became part of the layout. */
export const USED_UP = ['prompt', 'negativePrompt'] as const;

const OWN = ['prompt', 'negativePrompt', 'width', 'height', 'seed'] as const;

/**
 * The layout of the node, with what the message overrides: each part by `msg.payload`, an object
 * `{prompt?, width?, …, regions?}` or JSON text of one, or else by a property of the message itself. Regions are
 * overridden by name, in an array of `{name, …}` or in an object `{<name>: {…}}`; `null` removes one.
 * @returns the layout, and the names in the payload that mean nothing
 * @throws InvalidInputError when a part can't be overridden as the message says
 */
export function composeLayout(
  config: ComposeConfig,
  msg: Message,
  settings: Settings,
): { layout: Fields; unknown: string[] } {
  const said = saidIn(own(msg, 'payload'), settings);
  const layout: Fields = {
    prompt: '',
    ...withoutEmpty(pick(config, OWN)),
    ...withoutEmpty(pick(msg, OWN)),
    ...pick(
      said,
      [...LAYOUT_NAMES].filter((name) => name !== 'regions'),
    ),
  };
  layout.regions = mergeRegions(config.regions ?? [], withoutText(own(said, 'regions'), 'payload.regions', settings));
  return { layout, unknown: unknownNames(said, LAYOUT_NAMES) };
}

/** What the payload says about the layout; numbers and plain text, as an inject node sends them, say nothing. */
function saidIn(payload: unknown, settings: Settings): Fields {
  const text = readText(payload, settings);
  const said = text === undefined ? payload : parseLayout(text, settings);
  if (!isObject(said)) return {};
  checkAmount(said, settings);
  return said;
}

function withoutEmpty(fields: Fields): Fields {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== '' && value !== null));
}

function mergeRegions(drawn: unknown, said: unknown): unknown[] {
  if (!Array.isArray(drawn))
    throw new InvalidInputError('regions', drawn, 'an array of regions; draw them in the dialog');
  const regions = new Map<string, unknown>();
  drawn.forEach((region, i) => regions.set(freeName(nameOf(region, i), regions), region));
  for (const [name, change, place] of changesIn(said)) {
    const region = regions.get(name);
    if (change === null || change === false) {
      if (region === undefined) throw notFound(place, name, regions);
      regions.delete(name);
    } else if (!isObject(change)) {
      throw new InvalidInputError(place, change, 'an object {prompt, box, …}, or null to remove the region');
    } else if (isObject(region)) {
      regions.set(name, mergeRegion(region, change));
    } else {
      if (!has(change, OUTLINE_NAMES)) throw notFound(place, name, regions);
      regions.set(name, { ...change, name });
    }
  }
  return [...regions.values()];
}

/** Each change with the name of its region and where it stands in the message. */
function changesIn(said: unknown): Array<[string, unknown, string]> {
  if (said === undefined || said === null) return [];
  if (Array.isArray(said)) {
    return said.map((change: unknown, i) => {
      const place = `payload.regions[${i}]`;
      const name = own(change, 'name');
      if (typeof name !== 'string' || name === '')
        throw new InvalidInputError(`${place}.name`, name, 'the name of the region that it overrides or adds');
      return [name, change, place];
    });
  }
  if (!isObject(said))
    throw new InvalidInputError('payload.regions', said, 'regions by name, such as {sofa: {prompt: "a blue sofa"}}');
  return Object.keys(said).map((name) => [name, own(said, name), `payload.regions.${name.slice(0, 50)}`]);
}

/** An outline in the message replaces the region's own, of whatever kind. */
function mergeRegion(region: Fields, change: Fields): Fields {
  const kept = has(change, OUTLINE_NAMES)
    ? Object.fromEntries(Object.entries(region).filter(([name]) => !OUTLINE_NAMES.includes(name)))
    : region;
  return { ...kept, ...change, ...(region.name !== undefined && { name: region.name }) };
}

/** Regions without a name are called as text-encode calls them. */
function nameOf(region: unknown, i: number): string {
  const name = own(region, 'name');
  return typeof name === 'string' && name !== '' ? name : `region ${i + 1}`;
}

/** Of regions with the same name the first is overridden. */
function freeName(name: string, taken: ReadonlyMap<string, unknown>): string {
  let free = name;
  for (let i = 2; taken.has(free); i++) free = `${name}\u0000${i}`;
  return free;
}

const has = (fields: Fields, names: readonly string[]): boolean =>
  names.some((name) => own(fields, name) !== undefined);

function notFound(place: string, name: string, regions: ReadonlyMap<string, unknown>): InvalidInputError {
  const names = [...regions.keys()].filter((known) => !known.includes('\u0000')).slice(0, 20);
  const known = names.length > 0 ? `one of ${names.join(', ')}, or ` : '';
  return new InvalidInputError(place, name, `${known}a whole region {prompt, box}`);
}
