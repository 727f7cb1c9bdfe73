/** Random layouts to draw: the same for the same index, whatever else is drawn. */
import vocabulary from '../../models/pocket/vocabulary.json';
import { type Box, intersection } from './geometry';

export interface PlacedObject {
  /** The vocabulary's name, as the judge says it. */
  name: string;
  /** "a red sofa" */
  phrase: string;
  /** "a red sofa in a living room" */
  prompt: string;
  box: Box;
}

export interface Layout {
  index: number;
  /** Of the picture, for every strategy. */
  seed: number;
  /** The scene, as the judge says it. */
  place: string;
  /** The prompt of the background. */
  scene: string;
  /** One prompt that lists everything. */
  prompt: string;
  objects: PlacedObject[];
}

/** For each scene what joins it to an object, and what it is called alone. */
export const SCENES: Record<string, [joined: string, alone: string]> = {
  'living room': ['in a living room', 'a living room'],
  meadow: ['on a green meadow', 'a green meadow'],
  mountains: ['in the mountains', 'the mountains'],
  beach: ['on a beach', 'a beach'],
  'night sky': ['in the night sky', 'the night sky'],
  sunset: ['at sunset', 'sunset'],
  snow: ['on a snowy field', 'a snowy field'],
  'brick wall': ['on a brick wall', 'a brick wall'],
  'wooden table': ['on a wooden table', 'a wooden table'],
  underwater: ['under the sea', 'under the sea'],
  desert: ['in the desert', 'the desert'],
  'city street': ['on a city street', 'a city street'],
};

const FIRST_SEED = 1000;
/** Sides and places are multiples of this share of the canvas. */
const GRID = 32;
/** The shortest and the longest side of a box, in steps of the grid. */
export type Sides = readonly [shortest: number, longest: number];
/** A quarter of the canvas to three fifths. */
export const USUAL: Sides = [8, 19];
/** A fifth to a third. */
export const SMALL: Sides = [7, 10];
/** The most that two boxes share, of the smaller one. */
const MOST_OVERLAP = 0.15;
/** The most that a box is longer than wide, or wider than long. */
const MOST_ASPECT = 1.75;

/** `count` layouts of two to four different objects, in turn, from the index `first` on. */
export function makeLayouts(count: number, first = 0, sides = USUAL): Layout[] {
  return Array.from({ length: count }, (_, i) => makeLayout(first + i, sides));
}

export function makeLayout(index: number, sides = USUAL): Layout {
  const random = randomNumbers(index);
  const pick = <T>(values: readonly T[]): T => values[Math.floor(random() * values.length)];
  const boxes = placeBoxes(2 + (index % 3), sides, random);
  const place = pick(Object.keys(SCENES));
  const [joined, alone] = SCENES[place];
  const objects: PlacedObject[] = [];
  for (const box of boxes) {
    const name = pick(
      Object.keys(vocabulary.objects).filter((other) => objects.every((object) => object.name !== other)),
    );
    const { coloured } = vocabulary.objects[name as keyof typeof vocabulary.objects];
    const phrase = withArticle(coloured && random() < 0.5 ? `${pick(vocabulary.colours)} ${name}` : name);
    objects.push({ name, phrase, prompt: `${phrase} ${joined}`, box });
  }
  const phrases = objects.map(({ phrase }) => phrase);
  const all = `${phrases.slice(0, -1).join(', ')} and ${phrases.at(-1)}`;
  return { index, seed: FIRST_SEED + index, place, scene: alone, prompt: `${all} ${joined}`, objects };
}

function placeBoxes(count: number, [shortest, longest]: Sides, random: () => number): Box[] {
  const between = (from: number, to: number): number => from + Math.floor(random() * (to - from + 1));
  for (;;) {
    const boxes: Box[] = [];
    for (let i = 0; i < count; i++) {
      const [width, height] = [between(shortest, longest), between(shortest, longest)];
      boxes.push([between(0, GRID - width) / GRID, between(0, GRID - height) / GRID, width / GRID, height / GRID]);
    }
    const apart = boxes.every((a, i) =>
      boxes.slice(i + 1).every((b) => intersection(a, b) <= MOST_OVERLAP * Math.min(a[2] * a[3], b[2] * b[3])),
    );
    const shapely = boxes.every(([, , width, height]) => Math.max(width / height, height / width) <= MOST_ASPECT);
    if (apart && shapely) return boxes;
  }
}

function withArticle(words: string): string {
  return `${'aeiou'.includes(words[0]) ? 'an' : 'a'} ${words}`;
}

/** Numbers from 0 to below 1: mulberry32. */
function randomNumbers(seed: number): () => number {
  let state = Math.imul(seed + 1, 0x9e3779b9);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
