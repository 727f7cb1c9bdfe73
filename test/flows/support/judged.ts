/** Asks the judge of training/ whether a picture shows, in its places, what a flow asks for. */
import path from 'node:path';
import sharp from 'sharp';
import { type Box, FILL } from '../../../bench/evaluate/geometry';
import { JUDGED_SIZE, type Judge, openJudge } from '../../../bench/evaluate/judge';
import { resizeImage } from '../../../dist/engine/image/resize';
import { Tensor } from '../../../dist/engine/tensor';
import vocabulary from '../../../models/pocket/vocabulary.json';
import { exampleLayout, type FlowNode } from '../../../scripts/lib/flow.js';

const JUDGE = path.resolve(__dirname, '../../../training/judge');
const EVERYWHERE: Box = [0, 0, 1, 1];

export interface Asked {
  /** The vocabulary's name. */
  name: string;
  box: Box;
}

export const openBundledJudge = (): Promise<Judge> => openJudge(JUDGE, 1);

/** The layout of a compose node, or of an inject node's button. */
function layoutIn(flow: FlowNode[]): unknown {
  const button = flow.find(({ type, payloadType }) => type === 'inject' && payloadType === 'json');
  return flow.find(({ type }) => type === 'compose') ?? (button && JSON.parse(String(button.payload)));
}

/** The objects that a flow's regions ask for, or those of the layout in its comment; without regions, the prompt's objects anywhere. */
export function askedFor(flow: FlowNode[]): Asked[] {
  const regions = flow.filter(({ type }) => type === 'region-mask');
  const drawn = regions.flatMap((region) =>
    objectsIn(String(region.regionName)).map((name): Asked => ({ name, box: region.box as Box })),
  );
  if (drawn.length) return drawn;
  const layout = (layoutIn(flow) ?? exampleLayout(flow)) as
    | { regions?: Array<{ prompt: string; box: Box }> }
    | undefined;
  if (layout?.regions)
    return layout.regions.flatMap(({ prompt, box }) => objectsIn(prompt).map((name) => ({ name, box })));
  const prompts = flow.flatMap(({ type, prompt, props }) =>
    type === 'text-encode' ? [String(prompt)] : ((props ?? []) as Array<{ v?: unknown }>).map(({ v }) => String(v)),
  );
  return [...new Set(prompts.flatMap(objectsIn))].map((name) => ({ name, box: EVERYWHERE }));
}

/** Objects of the vocabulary that some words name, by any of their synonyms; "an oil painting of" is a style. */
function objectsIn(text: string): string[] {
  const words = ` ${text.toLowerCase().replace(/[^a-z0-9]+/g, ' ')} `.replace(' oil painting ', ' ');
  return Object.entries(vocabulary.objects)
    .filter(([name, { synonyms }]) => [name, ...synonyms].some((word) => words.includes(` ${word} `)))
    .map(([name]) => name);
}

export interface Tiles {
  /** Of one picture in pixels; the file may hold several side by side. */
  width: number;
  /** How far the flow has turned a circular picture to the right, as a fraction of its width. */
  turned?: number;
}

/** What the judge sees in the square around each place: for each of the file's pictures, a name for each place. */
export async function seenIn(judge: Judge, file: string, asked: Asked[], tiles: Tiles): Promise<string[][]> {
  const { data, info } = await sharp(file)
    .removeAlpha()
    .toColourspace('srgb')
    .raw()
    .toBuffer({ resolveWithObject: true });
  const pictures: string[][] = [];
  for (let start = 0; start < info.width; start += tiles.width) {
    const size = [tiles.width, info.height] as const;
    const crops = asked.map(({ box }) => {
      const { left, top, side } = squareAround(box, size);
      const pixels = new Uint8Array(side * side * 3);
      for (let y = 0; y < side; y++) {
        for (let x = 0; x < side; x++) {
          const column = (left + x + Math.round((tiles.turned ?? 0) * tiles.width)) % tiles.width;
          const from = 3 * ((top + y) * info.width + start + column);
          pixels.set(data.subarray(from, from + 3), 3 * (y * side + x));
        }
      }
      return resizeImage(Tensor.uint8(pixels, [side, side, 3]), JUDGED_SIZE, JUDGED_SIZE);
    });
    pictures.push(await judge.name('object', crops));
  }
  return pictures;
}

/** The square of pixels whose middle is the box's and whose side the box fills as the judge likes it, moved onto the picture. */
function squareAround([x, y, width, height]: Box, [across, down]: readonly [number, number]) {
  const side = Math.min(across, down, Math.round(Math.max(width * across, height * down) / FILL));
  const start = (middle: number, most: number): number =>
    Math.min(most - side, Math.max(0, Math.round(middle - side / 2)));
  return { left: start((x + width / 2) * across, across), top: start((y + height / 2) * down, down), side };
}
