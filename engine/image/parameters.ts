/**
 * The text that AUTOMATIC1111's web UI writes under `parameters` and many programs read: the prompt, `Negative prompt: …`,
 * and a last line of `Name: value` pairs, quoted as JSON where a value holds a comma, a colon or a line break.
 */
import { readScheduler, TRADE_NAMES } from '../options';
import type { Recipe, RecipeRegion } from './recipe';

const NEGATIVE = 'Negative prompt:';

/** The recipe as such a text. */
export function toParameters(recipe: Recipe): string {
  const pairs: Array<[string, unknown]> = [
    ['Steps', recipe.steps],
    ['Sampler', TRADE_NAMES[String(recipe.scheduler)] ?? recipe.scheduler],
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
  const negative = recipe.negativePrompt ? [`${NEGATIVE} ${oneLine(recipe.negativePrompt)}`] : [];
  return [oneLine(recipe.prompt ?? ''), ...negative, last].join('\n');
}

function regionText(region: RecipeRegion): string {
  return region.box ? `${region.prompt} [${region.box.join(' ')}]` : region.prompt;
}

const quote = (value: string): string => (/[,:\n"]/.test(value) ? JSON.stringify(value) : value);

function oneLine(value: string): string {
  const lines = value.split('\n').map((line) => line.trim());
  return lines.filter((line) => line !== '').join(' ');
}

/**
 * The recipe that such a text holds, whichever program wrote it: prompts, seed, steps, size, guidance and sampler. What
 * else is in it (model hashes, extensions) has no meaning here.
 * @returns undefined when it is another kind of text
 */
export function fromParameters(text: string): Recipe | undefined {
  const lines = text.trim().split(/\r?\n/);
  const pairs = readPairs(lines.pop()!);
  if (!pairs.has('steps') || pairs.size < 3) return undefined;
  const at = lines.findIndex((line) => line.trimStart().startsWith(NEGATIVE));
  const negative = at < 0 ? [] : lines.splice(at);
  const [, width, height] = /^(\d{1,6})x(\d{1,6})$/.exec(pairs.get('size') ?? '') ?? [];
  const recipe: Recipe = {
    prompt: lines.join('\n').trim(),
    negativePrompt: negative.join('\n').trim().slice(NEGATIVE.length).trim() || undefined,
    seed: wholeNumber(pairs.get('seed')),
    steps: wholeNumber(pairs.get('steps')),
    guidanceScale: finite(pairs.get('cfg scale')),
    width: wholeNumber(width),
    height: wholeNumber(height),
    scheduler: readScheduler(pairs.get('sampler') ?? ''),
  };
  return JSON.parse(JSON.stringify(recipe)) as Recipe;
}

/** `Name: value, Name: "a, value", …` by names in lower case. */
function readPairs(line: string): Map<string, string> {
  const pairs = new Map<string, string>();
  for (let at = 0; at < line.length; ) {
    const colon = line.indexOf(':', at);
    if (colon < 0) break;
    const name = line.slice(at, colon).trim().toLowerCase();
    let start = colon + 1;
    while (line[start] === ' ') start++;
    let end = line[start] === '"' ? endOfQuote(line, start) : start;
    end = line.indexOf(',', end);
    if (end < 0) end = line.length;
    const value = line.slice(start, end).trim();
    // The first: extensions put theirs behind, and a value may hold anything.
    if (/^\w[\w -/]{0,60}$/.test(name) && !pairs.has(name)) pairs.set(name, value);
    at = end + 1;
  }
  return pairs;
}

function endOfQuote(line: string, start: number): number {
  for (let at = start + 1; at < line.length; at++) {
    if (line[at] === '\\') at++;
    else if (line[at] === '"') return at + 1;
  }
  return start;
}

function finite(text: string | undefined): number | undefined {
  const number = text ? Number(text) : NaN;
  return Number.isFinite(number) ? number : undefined;
}

function wholeNumber(text: string | undefined): number | undefined {
  const number = finite(text);
  return number !== undefined && Number.isSafeInteger(number) && number >= 0 ? number : undefined;
}
