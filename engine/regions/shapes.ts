/**
 * Outlines in fractions of the canvas, and the masks they make. A mask is drawn at one size whatever
 * the canvas, with the share of each pixel that the shape covers; the sampler reduces it to its grid.
 */
import { Flaw, InvalidInputError, propertyOf } from '../errors';
import { MAX_POINTS } from '../limits';
import { Tensor } from '../tensor';
import { atOnce, type Steps } from '../turns';
import { largest, maskPlane, resizeByArea } from './masks';

/** Left, top, width and height as fractions of the canvas. */
export type Box = [x: number, y: number, width: number, height: number];
export type Point = [x: number, y: number];

/** What a region-mask node, a layout and the editor's canvas call an outline; exactly one property. */
export type Shape = { box: Box } | { ellipse: Box } | { polygon: Point[] } | { rest: true };

export const SHAPE_KINDS = ['box', 'ellipse', 'polygon', 'rest'] as const;

type ShapeKind = (typeof SHAPE_KINDS)[number];

export const MASK_SIZE = 512;

const SCANLINES_PER_ROW = 8;
const OVERLAP = 'a place that overlaps the canvas, which reaches from 0 to 1 (fractions, not pixels)';

/**
 * The outline that an object (a layout's region, a message, a node's configuration) carries, checked.
 * @param name how to call the object in errors; '' where its properties stand for themselves
 * @param written how the user calls a property that isn't called like its kind of outline
 * @returns undefined when it has none of box, ellipse, polygon and rest
 * @throws InvalidInputError when it has several, or one that is malformed, empty or off the canvas
 */
export function findShape(
  source: Record<string, unknown>,
  name = 'region',
  written: Partial<Record<ShapeKind, string>> = {},
): Shape | undefined {
  const kinds = SHAPE_KINDS.filter(
    (kind) => source[kind] !== undefined && source[kind] !== null && source[kind] !== false,
  );
  if (kinds.length === 0) return undefined;
  if (kinds.length > 1)
    throw new InvalidInputError(name, new Flaw(kinds.join(' and ')), `only one of ${SHAPE_KINDS.join(', ')}`);
  return checkShape({ [kinds[0]]: source[kinds[0]] }, name, written[kinds[0]]);
}

/**
 * Checks an outline. One that is partly off the canvas is allowed, and is clipped when its mask is made.
 * @throws InvalidInputError when it is malformed, has no area, or lies wholly off the canvas
 */
export function checkShape(value: unknown, name = 'shape', written?: string): Shape {
  const kinds = typeof value === 'object' && value !== null ? SHAPE_KINDS.filter((kind) => kind in value) : [];
  if (kinds.length !== 1) throw new InvalidInputError(name, value, `an object with one of ${SHAPE_KINDS.join(', ')}`);
  const kind = kinds[0];
  const outline = (value as Record<string, unknown>)[kind];
  const where = propertyOf(name, written ?? kind);
  switch (kind) {
    case 'rest':
      if (outline !== true) throw new InvalidInputError(where, outline, 'true');
      return { rest: true };
    case 'polygon':
      return { polygon: checkPolygon(outline, where) };
    case 'box':
      return { box: checkBox(outline, where) };
    case 'ellipse':
      return { ellipse: checkBox(outline, where) };
  }
}

/**
 * The mask of an outline.
 * @param shape anything but rest, which needs the other regions: see restMask
 * @returns float32 [1, size, size] in [0, 1], the covered share of each pixel
 * @throws InvalidInputError when nothing of the shape is on the canvas
 */
export function shapeMask(shape: Shape, size = MASK_SIZE, name = 'shape'): Tensor<'float32'> {
  return atOnce(shapeMaskInSteps(shape, size, name));
}

/** As shapeMask, in steps of a row. */
export function* shapeMaskInSteps(shape: Shape, size = MASK_SIZE, name = 'shape'): Steps<Tensor<'float32'>> {
  const checked = checkShape(shape, name);
  let coverage: Float32Array;
  if ('box' in checked) coverage = yield* boxCoverage(checked.box, size);
  else if ('ellipse' in checked) {
    const [, y, , height] = checked.ellipse;
    coverage = yield* coverageOf(() => (at) => ellipseSpan(checked.ellipse, at), [y, y + height], size);
  } else if ('polygon' in checked)
    coverage = yield* coverageOf(
      () => sweep(checked.polygon),
      checked.polygon.map(([, y]) => y),
      size,
    );
  else throw new InvalidInputError(name, shape, 'box, ellipse or polygon; the rest depends on the other regions');
  const most = largest(coverage);
  if (most === 0) throw new InvalidInputError(name, shape, 'a shape with some area on the canvas (0 to 1)');
  // Nowhere half a pixel wide: by its area alone it would weigh next to nothing beside the background.
  if (most < 0.5) for (let i = 0; i < coverage.length; i++) coverage[i] /= most;
  return Tensor.float32(coverage, [1, size, size]);
}

/**
 * What the other masks leave: max(0, 1 − their sum), the paper's background mask.
 * @param masks float32 [1, H, W] each, of any size
 * @throws InvalidInputError when they leave nothing
 */
export function restMask(masks: Tensor[], size = MASK_SIZE, name = 'rest'): Tensor<'float32'> {
  return atOnce(restMaskInSteps(masks, size, name));
}

/** As restMask, in steps of a row. */
export function* restMaskInSteps(masks: Tensor[], size = MASK_SIZE, name = 'rest'): Steps<Tensor<'float32'>> {
  const rest = new Float32Array(size * size).fill(1);
  for (const [index, mask] of masks.entries()) {
    const plane = yield* maskPlane(mask, `${name}: mask ${index + 1}`);
    const other = yield* resizeByArea(plane, size, size);
    for (let i = 0; i < rest.length; i++) rest[i] = Math.max(0, rest[i] - other[i]);
    yield;
  }
  if (!rest.some((r) => r > 0))
    throw new InvalidInputError(name, new Flaw('empty'), 'a canvas that the other regions do not cover completely');
  return Tensor.float32(rest, [1, size, size]);
}

function checkBox(value: unknown, name: string): Box {
  const allowed = '[x, y, width, height] as fractions of the canvas, width and height greater than 0';
  if (!Array.isArray(value) || value.length !== 4 || !value.every(isFinite))
    throw new InvalidInputError(name, value, allowed);
  const [x, y, width, height] = value as Box;
  if (width <= 0 || height <= 0) throw new InvalidInputError(name, value, allowed);
  if (x >= 1 || y >= 1 || x + width <= 0 || y + height <= 0) {
    throw new InvalidInputError(name, value, OVERLAP);
  }
  return [x, y, width, height];
}

function checkPolygon(value: unknown, name: string): Point[] {
  const isPoint = (point: unknown): point is Point =>
    Array.isArray(point) && point.length === 2 && point.every(isFinite);
  if (!Array.isArray(value) || value.length < 3 || value.length > MAX_POINTS || !value.every(isPoint)) {
    throw new InvalidInputError(name, value, `3 to ${MAX_POINTS} points [x, y] as fractions of the canvas`);
  }
  const points: Point[] = value.map(([x, y]) => [x, y]);
  if (onOneLine(points))
    throw new InvalidInputError(name, value, 'points that enclose some area; these lie on one line');
  if ([0, 1].some((axis) => points.every((point) => point[axis] <= 0) || points.every((point) => point[axis] >= 1))) {
    throw new InvalidInputError(name, value, OVERLAP);
  }
  return points;
}

/** Whether the points lie on one line, but for rounding. */
function onOneLine([[x, y], ...others]: Point[]): boolean {
  const steps = others.map((point) => [point[0] - x, point[1] - y]);
  const [u, v] = steps.reduce((a, b) => (Math.hypot(...b) > Math.hypot(...a) ? b : a));
  return steps.every(([du, dv]) => Math.abs(u * dv - v * du) <= 1e-12 * (u * u + v * v));
}

function isFinite(value: unknown): value is number {
  return Number.isFinite(value);
}

/** Exact: the covered share of a pixel is that of its row times that of its column. */
function* boxCoverage([x, y, width, height]: Box, size: number): Steps<Float32Array> {
  const columns = new Float32Array(size);
  const rows = new Float32Array(size);
  addSpan(columns, x * size, (x + width) * size, 1);
  addSpan(rows, y * size, (y + height) * size, 1);
  const coverage = new Float32Array(size * size);
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) coverage[row * size + column] = rows[row] * columns[column];
    yield;
  }
  return coverage;
}

/** What lies inside a shape at a height of the canvas; to be asked for from top to bottom. */
type SpansAt = (y: number) => Array<[number, number]>;

/**
 * Exact along a row, sampled by a few scanlines across it. A shape so flat that it lies between two of them is
 * sampled once more, between the heights at which its corners are.
 */
function* coverageOf(outline: () => SpansAt, corners: number[], size: number): Steps<Float32Array> {
  const coverage = new Float32Array(size * size);
  yield* addBand(coverage, outline(), 0, 1, size * SCANLINES_PER_ROW, size);
  if (largest(coverage) === 0) {
    const spansAt = outline();
    const heights = corners.map((y) => Math.min(1, Math.max(0, y))).sort((a, b) => a - b);
    for (let i = 1; i < heights.length; i++)
      yield* addBand(coverage, spansAt, heights[i - 1], heights[i], SCANLINES_PER_ROW, size);
  }
  for (let i = 0; i < coverage.length; i++) coverage[i] = Math.min(1, coverage[i]);
  return coverage;
}

/** Adds what lies inside between two heights, sampled by so many scanlines. */
function* addBand(
  coverage: Float32Array,
  spansAt: SpansAt,
  top: number,
  bottom: number,
  lines: number,
  size: number,
): Steps<void> {
  const share = ((bottom - top) * size) / lines;
  if (share === 0) return;
  for (let line = 0; line < lines; line++) {
    const y = top + ((line + 0.5) / lines) * (bottom - top);
    const row = Math.min(size - 1, Math.floor(y * size));
    const pixels = coverage.subarray(row * size, (row + 1) * size);
    for (const [from, to] of spansAt(y)) addSpan(pixels, from * size, to * size, share);
    yield;
  }
}

/** Adds `amount` to the pixels between two places of a row, and its share to those at the ends. */
function addSpan(pixels: Float32Array, from: number, to: number, amount: number): void {
  const left = Math.max(0, from);
  const right = Math.min(pixels.length, to);
  for (let pixel = Math.floor(left); pixel < right; pixel++) {
    pixels[pixel] += amount * (Math.min(right, pixel + 1) - Math.max(left, pixel));
  }
}

function ellipseSpan([x, y, width, height]: Box, at: number): Array<[number, number]> {
  const vertical = (at - (y + height / 2)) / (height / 2);
  const half = (width / 2) * Math.sqrt(1 - vertical * vertical);
  return half > 0 ? [[x + width / 2 - half, x + width / 2 + half]] : [];
}

interface Edge {
  top: number;
  bottom: number;
  /** Where it crosses the current line. */
  x: number;
  from: Point;
  slope: number;
}

/**
 * A polygon's spans by the even-odd rule, to be asked for from top to bottom: the edges that cross a line are
 * kept in order from line to line, so that even a thousand edges that cross each other take milliseconds.
 */
function sweep(points: Point[]): SpansAt {
  const edges: Edge[] = points.map(([x1, y1], i) => {
    const [x2, y2] = points[(i + 1) % points.length];
    return { top: Math.min(y1, y2), bottom: Math.max(y1, y2), x: 0, from: [x1, y1], slope: (x2 - x1) / (y2 - y1) };
  });
  const coming = edges.filter(({ top, bottom }) => top < bottom).sort((a, b) => b.top - a.top);
  let crossed: Edge[] = [];
  return (y) => {
    while (coming.length > 0 && coming[coming.length - 1].top <= y) crossed.push(coming.pop() as Edge);
    crossed = crossed.filter(({ bottom }) => y < bottom);
    for (const edge of crossed) edge.x = edge.from[0] + (y - edge.from[1]) * edge.slope;
    sortNearlySorted(crossed);
    const spans: Array<[number, number]> = [];
    for (let i = 0; i + 1 < crossed.length; i += 2) spans.push([crossed[i].x, crossed[i + 1].x]);
    return spans;
  };
}

/** Insertion sort: two edges change places at most once, so all lines together take few steps. */
function sortNearlySorted(edges: Edge[]): void {
  for (let i = 1; i < edges.length; i++) {
    const edge = edges[i];
    let j = i - 1;
    for (; j >= 0 && edges[j].x > edge.x; j--) edges[j + 1] = edges[j];
    edges[j + 1] = edge;
  }
}
