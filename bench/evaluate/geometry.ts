/** Where things are: boxes, changed pixels, and what the judge is shown of a box. */
import { resizeImage } from '../../dist/engine/image/resize';
import { Tensor } from '../../dist/engine/tensor';

/** Left, top, width and height as fractions of the canvas. */
export type Box = readonly [x: number, y: number, width: number, height: number];
/** uint8 [H, W, 3] */
export type Picture = Tensor<'uint8'>;

/** Difference of one colour channel, of 255, from which a pixel counts as changed. */
export const CHANGED = 48;
/** How much of the judge's picture the longer side of a box fills: so it recognises artwork that is pasted into the boxes most often. */
export const FILL = 0.8;

/** The area that two boxes share, as a fraction of the canvas. */
export function intersection([ax, ay, aw, ah]: Box, [bx, by, bw, bh]: Box): number {
  const width = Math.min(ax + aw, bx + bw) - Math.max(ax, bx);
  const height = Math.min(ay + ah, by + bh) - Math.max(ay, by);
  return Math.max(0, width) * Math.max(0, height);
}

/** Whether the middle of a pixel is in the box. */
function holds([left, top, width, height]: Box, x: number, y: number, picture: Picture): boolean {
  const [rows, columns] = picture.dims;
  const [across, down] = [(x + 0.5) / columns, (y + 0.5) / rows];
  return across >= left && across < left + width && down >= top && down < top + height;
}

/** For each pixel 1 where the pictures differ by `threshold` or more in some channel. */
export function changedPixels(picture: Picture, background: Picture, threshold = CHANGED): Uint8Array {
  if (picture.dims.join() !== background.dims.join())
    throw new Error(`Pictures of different sizes: ${picture} and ${background}.`);
  const [a, b] = [picture.data, background.data];
  return Uint8Array.from({ length: a.length / 3 }, (_, i) =>
    [0, 1, 2].some((c) => Math.abs(a[3 * i + c] - b[3 * i + c]) >= threshold) ? 1 : 0,
  );
}

export interface Overlap {
  /** Intersection over union of the box's changed pixels with the box. */
  iou: number;
  /** Which share of its changed pixels is inside the box; 0 when there are none. */
  inside: number;
}

/**
 * How well the changed pixels fit the boxes. Each pixel counts for the box that it is in, or else is nearest to; one that is in
 * several, or as near to several, for the first of them with the nearest middle.
 */
export function overlaps(changed: Uint8Array, boxes: readonly Box[], picture: Picture): Overlap[] {
  const [rows, columns] = picture.dims;
  const counts = boxes.map(() => ({ changed: 0, inside: 0, area: 0 }));
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      boxes.forEach((box, i) => {
        if (holds(box, x, y, picture)) counts[i].area++;
      });
      if (!changed[y * columns + x]) continue;
      const owner = nearestBox(boxes, (x + 0.5) / columns, (y + 0.5) / rows);
      counts[owner].changed++;
      if (holds(boxes[owner], x, y, picture)) counts[owner].inside++;
    }
  }
  return counts.map((count) => ({
    iou: count.inside / (count.changed + count.area - count.inside),
    inside: count.changed === 0 ? 0 : count.inside / count.changed,
  }));
}

function nearestBox(boxes: readonly Box[], x: number, y: number): number {
  let [best, bestDistance, bestToMiddle] = [0, Infinity, Infinity];
  boxes.forEach(([left, top, width, height], i) => {
    const distance = Math.hypot(Math.max(left - x, 0, x - left - width), Math.max(top - y, 0, y - top - height));
    const toMiddle = Math.hypot(left + width / 2 - x, top + height / 2 - y);
    if (distance < bestDistance || (distance === bestDistance && toMiddle < bestToMiddle))
      [best, bestDistance, bestToMiddle] = [i, distance, toMiddle];
  });
  return best;
}

/**
 * The square around a box in whole pixels of a square canvas: so large that the box's longer side fills `fill` of it, moved to
 * lie on the canvas, and never larger than it.
 */
export function cropSquare(
  [left, top, width, height]: Box,
  canvas: number,
  fill = FILL,
): { x: number; y: number; side: number } {
  const side = Math.min(canvas, Math.round((canvas * Math.max(width, height)) / fill));
  const start = (middle: number): number =>
    Math.min(canvas - side, Math.max(0, Math.round(canvas * middle - side / 2)));
  return { x: start(left + width / 2), y: start(top + height / 2), side };
}

/**
 * What the judge is shown of a box: the square around it. Where other boxes lie in the square, it shows the picture of the
 * background alone, so that their objects are not taken for this one's.
 * @returns uint8 [size, size, 3]
 */
export function cropForJudge(
  picture: Picture,
  background: Picture,
  box: Box,
  others: readonly Box[],
  size: number,
): Picture {
  const { x: left, y: top, side } = cropSquare(box, picture.dims[1]);
  const cropped = new Uint8Array(side * side * 3);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const [column, row] = [left + x, top + y];
      const foreign = !holds(box, column, row, picture) && others.some((other) => holds(other, column, row, picture));
      const from = 3 * (row * picture.dims[1] + column);
      cropped.set((foreign ? background : picture).data.subarray(from, from + 3), 3 * (y * side + x));
    }
  }
  return resizeImage(Tensor.uint8(cropped, [side, side, 3]), size, size);
}
