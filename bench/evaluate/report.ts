/** From what was seen in each region to shares with their standard errors, and the table of the README. */
import type { Overlap } from './geometry';
import type { Strategy } from './strategies';

export interface SeenRegion extends Overlap {
  asked: string;
  /** What the judge says. */
  seen: string;
}

export interface SeenPicture {
  regions: SeenRegion[];
  /** Whether the judge names the scene that the background's prompt asks for, when it is shown the whole picture. */
  scene: boolean;
}

/** What was seen of one strategy, by the layout's index. */
export type Seen = Map<number, SeenPicture>;

export interface Figure {
  mean: number;
  /** Standard error. */
  error: number;
}

export interface Row {
  name: string;
  title: string;
  /** Whether the sampler does this when nothing is set. */
  default: boolean;
  options: object;
  region: object;
  layouts: number;
  regions: number;
  recognised: Figure;
  iou: Figure;
  inside: Figure;
  /** Pictures whose scene is recognised. */
  scene: Figure;
  /** Recognised in layouts of so many objects. */
  byObjects: Record<number, Figure>;
  /** This strategy less the default one, over the layouts that both have. */
  difference?: { layouts: number; recognised: Figure; iou: Figure };
}

type Measure = (region: SeenRegion) => number;
const RECOGNISED: Measure = ({ asked, seen }) => (asked === seen ? 1 : 0);
const IOU: Measure = ({ iou }) => iou;
const INSIDE: Measure = ({ inside }) => inside;

/**
 * Mean over the members of all groups. The standard error takes a group as one draw, because its members depend on each other
 * (regions of one picture); it is that of a ratio estimator.
 */
export function groupedMean(groups: number[][]): Figure {
  const members = groups.reduce((sum, group) => sum + group.length, 0);
  const sums = groups.map((group) => group.reduce((a, b) => a + b, 0));
  const mean = sums.reduce((a, b) => a + b, 0) / members;
  const squares = groups.reduce((sum, group, i) => sum + (sums[i] - mean * group.length) ** 2, 0);
  const error = groups.length < 2 ? NaN : Math.sqrt((squares * groups.length) / (groups.length - 1)) / members;
  return { mean, error };
}

export function summarise(strategy: Strategy, isDefault: boolean, seen: Seen, reference?: Seen): Row {
  const scenes = [...seen.values()].map(({ scene }) => [Number(scene)]);
  const pictures = [...seen.values()].map(({ regions }) => regions);
  const mean = (of: Measure, from = pictures): Figure => groupedMean(from.map((regions) => regions.map(of)));
  const counts = [...new Set(pictures.map((regions) => regions.length))].sort();
  const common = reference ? [...seen.keys()].filter((layout) => reference.has(layout)) : [];
  const less = (of: Measure): Figure =>
    groupedMean(
      common.map((layout) =>
        seen.get(layout)!.regions.map((region, i) => of(region) - of(reference!.get(layout)!.regions[i])),
      ),
    );
  return {
    name: strategy.name,
    title: strategy.title,
    default: isDefault,
    options: strategy.options,
    region: strategy.region,
    layouts: pictures.length,
    regions: pictures.flat().length,
    recognised: mean(RECOGNISED),
    iou: mean(IOU),
    inside: mean(INSIDE),
    scene: groupedMean(scenes),
    byObjects: Object.fromEntries(
      counts.map((count) => [
        count,
        mean(
          RECOGNISED,
          pictures.filter((regions) => regions.length === count),
        ),
      ]),
    ),
    ...(common.length && { difference: { layouts: common.length, recognised: less(RECOGNISED), iou: less(IOU) } }),
  };
}

/**
 * The IoU of artwork that is pasted into the boxes, stretched to their proportions: what has more fills its box
 * more, and is not drawn better.
 */
export const FILLED = 0.6;

/**
 * The rows that a table says are better than the default: by one of the two figures, by more than twice the standard error of the
 * difference; by the IoU only as long as the default's objects don't fill their boxes.
 */
export function betterThanDefault(rows: Row[]): Row[] {
  const clearly = ({ mean, error }: Figure): boolean => mean > 2 * error;
  const filled = rows.some((row) => row.default && row.iou.mean >= FILLED);
  return rows.filter(
    ({ difference }) =>
      difference !== undefined && (clearly(difference.recognised) || (!filled && clearly(difference.iou))),
  );
}

export const SMALL_BOXES = 'boxes of a fifth to a third of the canvas';

const number = ({ mean, error }: Figure, digits: number): string =>
  `${mean.toFixed(digits)}${Number.isNaN(error) ? '' : ` ± ${error.toFixed(digits)}`}`;
const percent = ({ mean, error }: Figure): string => `${number({ mean: 100 * mean, error: 100 * error }, 1)} %`;

/** The same strategy with two checkpoints; `after.difference` is what the second one adds. */
export interface Pair {
  title: string;
  before: Row;
  after: Row;
}

/** A table in Markdown of two checkpoints side by side. */
export function toPairs(pairs: Pair[]): string {
  const lines = pairs.flatMap(({ title, before, after }) => [
    `| ${title}: recognised | ${percent(before.recognised)} | ${percent(after.recognised)} | ${percent(after.difference!.recognised)} |`,
    `| ${title}: IoU | ${number(before.iou, 3)} | ${number(after.iou, 3)} | ${number(after.difference!.iou, 3)} |`,
  ]);
  return ['| | before | after | difference |', '|---|---|---|---|', ...lines].join('\n');
}

/**
 * A table in Markdown, the default strategy in bold; it says where some layouts haven't been drawn.
 * @param small the default strategy in small boxes, if that was drawn
 */
export function toTable(rows: Row[], small?: Row): string {
  const most = Math.max(...rows.map(({ layouts }) => layouts));
  const toLine = (row: Row, title: string): string => {
    const part = row.layouts < most ? ` (${row.layouts} layout${row.layouts === 1 ? '' : 's'} of ${most})` : '';
    return `| ${title}${part} | ${percent(row.recognised)} | ${number(row.iou, 3)} | ${percent(row.inside)} |`;
  };
  const lines = rows.map((row) => toLine(row, row.default ? `**${row.title}** (default)` : row.title));
  if (small) lines.push(toLine(small, `the default, in ${SMALL_BOXES}`));
  return ['| | recognised | IoU | inside its box |', '|---|---|---|---|', ...lines].join('\n');
}

const [BEGIN, END] = ['<!-- evaluation -->', '<!-- /evaluation -->'];

/**
 * Puts a table between the marks of a text.
 * @throws Error when it has no marks
 */
export function putTable(text: string, table: string): string {
  const [begin, end] = [text.indexOf(BEGIN), text.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`The text has no place for the table: ${BEGIN} and, after it, ${END}.`);
  return `${text.slice(0, begin + BEGIN.length)}\n${table}\n${text.slice(end)}`;
}
