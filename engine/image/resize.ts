/** Pictures of other sizes, in plain arithmetic. */
import { InvalidInputError } from '../errors';
import { Tensor } from '../tensor';
import { atOnce, type Steps } from '../turns';

/**
 * Checks a picture.
 * @param name how to call it in errors
 * @throws InvalidInputError when it is no uint8 tensor [H, W, 3]
 */
export function checkImage(value: unknown, name: string): Tensor<'uint8'> {
  const tensor = Tensor.from(value, name);
  if (tensor.dtype !== 'uint8' || tensor.dims.length !== 3 || tensor.dims[2] !== 3 || tensor.size === 0) {
    throw new InvalidInputError(
      name,
      `${tensor.dtype} [${tensor.dims.join(', ')}]`,
      'a uint8 tensor [height, width, 3]',
    );
  }
  return tensor as Tensor<'uint8'>;
}

/**
 * Stretches or shrinks a picture: linear interpolation, over the whole area of a new pixel where that is larger than an old one.
 * @param image uint8 [H, W, 3]
 */
export function resizeImage(image: Tensor<'uint8'>, height: number, width: number): Tensor<'uint8'> {
  return atOnce(resizeImageInSteps(image, height, width));
}

/** As resizeImage, in steps of a row. */
export function* resizeImageInSteps(image: Tensor<'uint8'>, height: number, width: number): Steps<Tensor<'uint8'>> {
  const [oldHeight, oldWidth] = image.dims;
  if (oldHeight === height && oldWidth === width) return image;
  const source = image.data;
  const [rows, columns] = [shares(oldHeight, height), shares(oldWidth, width)];
  const narrow = new Float32Array(oldHeight * width * 3);
  for (let y = 0; y < oldHeight; y++) {
    columns.forEach(({ first, weights }, x) => {
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let k = 0; k < weights.length; k++) sum += weights[k] * source[(y * oldWidth + first + k) * 3 + c];
        narrow[(y * width + x) * 3 + c] = sum;
      }
    });
    yield;
  }
  const data = new Uint8Array(height * width * 3);
  for (const [y, { first, weights }] of rows.entries()) {
    for (let i = 0; i < width * 3; i++) {
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += weights[k] * narrow[(first + k) * width * 3 + i];
      data[y * width * 3 + i] = Math.round(sum);
    }
    yield;
  }
  return Tensor.uint8(data, [height, width, 3]);
}

/** For each new pixel, which old ones count and how much: a triangle as wide as two pixels of the coarser picture. */
function shares(from: number, to: number): Array<{ first: number; weights: number[] }> {
  const scale = from / to;
  const reach = Math.max(1, scale);
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale - 0.5;
    const first = Math.max(0, Math.ceil(centre - reach));
    const last = Math.min(from - 1, Math.floor(centre + reach));
    const weights = Array.from({ length: last - first + 1 }, (_, k) =>
      Math.max(0, 1 - Math.abs(first + k - centre) / reach),
    );
    const total = weights.reduce((a, b) => a + b);
    return { first, weights: weights.map((weight) => weight / total) };
  });
}
