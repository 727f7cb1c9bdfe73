/** Windows over a canvas larger than the model was trained for. */
import { Tensor } from '../tensor';

/** The latent canvas: channels, and its size in cells. */
export interface Grid {
  channels: number;
  height: number;
  width: number;
}

/** A window, in latent cells. */
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
 */
export function spreadViews(grid: Grid, window: number, stride: number): View[] {
  const height = Math.min(window, grid.height);
  const width = Math.min(window, grid.width);
  const views: View[] = [];
  for (const y of spread(grid.height, height, stride)) {
    for (const x of spread(grid.width, width, stride)) views.push({ index: views.length, x, y, height, width });
  }
  return views;
}

function spread(length: number, window: number, stride: number): number[] {
  const steps = Math.ceil((length - window) / stride);
  return Array.from({ length: steps + 1 }, (_, i) => (steps ? Math.round((i * (length - window)) / steps) : 0));
}

/** The part of a canvas [1, C, H, W] that a window shows, [1, C, h, w]; the canvas itself when it shows all. */
export function crop(canvas: Tensor<'float32'>, view: View): Tensor<'float32'> {
  const [, channels, height, width] = canvas.dims;
  if (view.height === height && view.width === width) return canvas;
  const source = canvas.data;
  const target = new Float32Array(channels * view.height * view.width);
  for (let c = 0; c < channels; c++) {
    for (let row = 0; row < view.height; row++) {
      const from = (c * height + view.y + row) * width + view.x;
      target.set(source.subarray(from, from + view.width), (c * view.height + row) * view.width);
    }
  }
  return Tensor.float32(target, [1, channels, view.height, view.width]);
}
