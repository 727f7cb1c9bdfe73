/** Windows over a canvas larger than the model was trained for. */
import { spread } from '../spread';
import type { Grid } from '../types';
import { Tensor } from '../tensor';

/** A window, in latent cells. Of a circular canvas it may begin near the right edge and go on at the left one. */
export interface View {
  index: number;
  x: number;
  y: number;
  height: number;
  width: number;
}

/**
 * Windows that cover every cell of the canvas, row by row. They are spread evenly and the last one ends on
 * the border, unlike the official program's, which leave a rim where the stride does not divide the canvas;
 * where it does, they are the same.
 * @param window side of a window in cells; a smaller canvas gets one window of its own size
 * @param stride the largest allowed distance between neighbours, in cells
 * @param circular whether windows go round the left and right edge: then at least two, so that one shows what the other cuts
 */
export function spreadViews(grid: Grid, window: number, stride: number, circular = false): View[] {
  const height = Math.min(window, grid.height);
  const width = Math.min(window, grid.width);
  const views: View[] = [];
  for (const y of spread(grid.height, height, stride)) {
    for (const x of circular ? spreadRound(grid.width, stride) : spread(grid.width, width, stride))
      views.push({ index: views.length, x, y, height, width });
  }
  return views;
}

function spreadRound(length: number, stride: number): number[] {
  const count = Math.max(2, Math.ceil(length / stride));
  return Array.from({ length: count }, (_, i) => Math.round((i * length) / count));
}

/** For each cell of a window, row by row, its index in a plane of the canvas. */
export function cellsOf(view: View, canvasWidth: number): Int32Array {
  const cells = new Int32Array(view.height * view.width);
  let i = 0;
  for (let y = view.y; y < view.y + view.height; y++) {
    for (let x = view.x; x < view.x + view.width; x++) cells[i++] = y * canvasWidth + (x % canvasWidth);
  }
  return cells;
}

/** The part of a canvas [1, C, H, W] that a window shows, [1, C, h, w]; the canvas itself when it shows all. */
export function crop(canvas: Tensor<'float32'>, view: View): Tensor<'float32'> {
  const [, channels, height, width] = canvas.dims;
  if (view.height === height && view.width === width && view.x === 0) return canvas;
  const source = canvas.data;
  const cells = cellsOf(view, width);
  const target = new Float32Array(channels * cells.length);
  for (let c = 0; c < channels; c++) {
    for (let i = 0; i < cells.length; i++) target[c * cells.length + i] = source[c * height * width + cells[i]];
  }
  return Tensor.float32(target, [1, channels, view.height, view.width]);
}

/** Moves a window's content by whole cells; what leaves on one side comes back on the other. */
export function roll(latents: Tensor<'float32'>, down: number, right: number): Tensor<'float32'> {
  const [, , height, width] = latents.dims;
  const source = latents.data;
  const rolled = new Float32Array(source.length);
  const shift = wrap(right, width);
  for (let row = 0; row < source.length / width; row++) {
    const y = row % height;
    const to = (row - y + wrap(y + down, height)) * width;
    rolled.set(source.subarray(row * width, (row + 1) * width - shift), to + shift);
    rolled.set(source.subarray((row + 1) * width - shift, (row + 1) * width), to);
  }
  return Tensor.float32(rolled, latents.dims);
}

function wrap(place: number, length: number): number {
  return ((place % length) + length) % length;
}

/**
 * What each cell of a window weighs against the same cell of another window: less towards the edges, where
 * the model sees less of the surroundings. 'gaussian' has a standard deviation of a tenth of the window
 * and 'quartic' is (1 − u²)² (Jiménez 2023, "Mixture of Diffusers", and its program).
 */
export function windowWeights(kind: string, { height, width }: View): Float64Array {
  const profile = (length: number): number[] =>
    Array.from({ length }, (_, i) => {
      const u = (2 * i + 1) / length - 1; // of the cell's middle, from -1 to 1
      if (kind === 'gaussian') return Math.exp(-((u / 2 / 0.1) ** 2) / 2);
      return kind === 'quartic' ? (1 - u * u) ** 2 : 1;
    });
  const [rows, columns] = [profile(height), profile(width)];
  return Float64Array.from({ length: height * width }, (_, i) => rows[Math.floor(i / width)] * columns[i % width]);
}
