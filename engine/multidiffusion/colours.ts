/**
 * How latents relate to colours: one linear map from a cell's channels to the colour of its pixels, fitted to
 * each checkpoint. It makes previews without the decoder, and colours for bootstrapping where there is no
 * encoder.
 */
import { checkImage, resizeImage } from '../image/resize';
import type { CallOptions, DiffusionModel } from '../model';
import { addressedNoise } from '../noise';
import { Tensor } from '../tensor';

/** Colours are red, green, blue from 0 to 1. */
export interface LatentColours {
  /** [3][C + 1]: colour = what a row says of the channels, plus its last number. */
  toColour: number[][];
  /** [C][4]: channel = what a row says of the colour, plus its last number. */
  toLatents: number[][];
}

/** Side of a patch of equal latents, in cells; what is seen in its middle owes little to its neighbours. */
const PATCH = 4;
const known = new WeakMap<DiffusionModel, Promise<LatentColours>>();

/**
 * Fits the map to what the decoder makes of patches of random latents, by least squares; once for each model.
 * Its inverse gives, of all latents that mean a colour, the ones nearest to the middle of their range.
 * @returns undefined for a model that can't decode
 */
export function latentColours(model: DiffusionModel, options: CallOptions = {}): Promise<LatentColours> | undefined {
  if (!model.decode) return undefined;
  let fitted = known.get(model);
  if (!fitted) {
    fitted = fit(model, options);
    known.set(model, fitted);
    fitted.catch(() => known.delete(model));
  }
  return fitted;
}

async function fit(model: DiffusionModel, options: CallOptions): Promise<LatentColours> {
  const { latentChannels: channels, nativeSize, latentFactor } = model.facts;
  const side = Math.round(nativeSize / latentFactor);
  const perSide = Math.ceil(side / PATCH);
  const values = addressedNoise(0, 'latent-colours', 0, [channels, perSide, perSide]).data;
  const patchOf = (y: number, x: number): number => Math.floor(y / PATCH) * perSide + Math.floor(x / PATCH);
  const latents = Float32Array.from({ length: channels * side * side }, (_, i) => {
    const cell = i % (side * side);
    return values[Math.floor(i / (side * side)) * perSide * perSide + patchOf(Math.floor(cell / side), cell % side)];
  });
  const image = resizeImage(
    checkImage(await model.decode!(Tensor.float32(latents, [1, channels, side, side]), options), 'image'),
    side,
    side,
  );

  const inputs: number[][] = [];
  const colours: number[][] = [];
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      if ([y, x].some((at) => at % PATCH === 0 || at % PATCH === PATCH - 1)) continue;
      inputs.push([...Array.from({ length: channels }, (_, c) => latents[(c * side + y) * side + x]), 1]);
      colours.push([0, 1, 2].map((c) => image.data[(y * side + x) * 3 + c] / 255));
    }
  }
  const toColour = leastSquares(inputs, colours);
  return { toColour, toLatents: invert(toColour) };
}

/** The picture that latents [1, C, h, w] roughly mean: uint8 [h, w, 3], one pixel a cell. */
export function previewImage({ toColour }: LatentColours, latents: Tensor<'float32'>): Tensor<'uint8'> {
  const [, channels, height, width] = latents.dims;
  const cells = height * width;
  const data = new Uint8Array(cells * 3);
  for (let i = 0; i < data.length; i++) {
    const row = toColour[i % 3];
    let value = row[channels];
    for (let c = 0; c < channels; c++) value += row[c] * latents.data[c * cells + Math.floor(i / 3)];
    data[i] = Math.round(255 * Math.min(1, Math.max(0, value)));
  }
  return Tensor.uint8(data, [height, width, 3]);
}

/** About the latents [1, C, h, w] of a picture, uint8 [H, W, 3], with `factor` pixels to a cell's side. */
export function estimateLatents(
  { toLatents }: LatentColours,
  image: Tensor<'uint8'>,
  factor: number,
): Tensor<'float32'> {
  const [height, width] = [image.dims[0] / factor, image.dims[1] / factor];
  const { data } = resizeImage(image, height, width);
  const cells = height * width;
  const latents = Float32Array.from({ length: toLatents.length * cells }, (_, i) => {
    const row = toLatents[Math.floor(i / cells)];
    return [0, 1, 2].reduce((sum, c) => sum + (row[c] * data[(i % cells) * 3 + c]) / 255, row[3]);
  });
  return Tensor.float32(latents, [1, toLatents.length, height, width]);
}

/** The rows r for which r·input is nearest to each output, in the sum of squares. */
function leastSquares(inputs: number[][], outputs: number[][]): number[][] {
  const size = inputs[0].length;
  const normal = product(transposed(inputs), inputs);
  for (let i = 0; i < size; i++) normal[i][i] += 1e-6 * inputs.length; // so that a channel without effect does no harm
  return transposed(eliminate(normal, product(transposed(inputs), outputs)));
}

/** colour = F·latents + f turned round: latents = Fᵀ(F·Fᵀ)⁻¹·(colour − f), the shortest that fit. */
function invert(toColour: number[][]): number[][] {
  const matrix = toColour.map((row) => row.slice(0, -1));
  const square = product(matrix, transposed(matrix));
  for (let i = 0; i < square.length; i++) square[i][i] += 1e-9;
  const inverse = eliminate(
    square,
    [0, 1, 2].map((i) => [0, 1, 2].map((k) => (i === k ? 1 : 0))),
  );
  return product(transposed(matrix), inverse).map((row) => [
    ...row,
    -row.reduce((sum, value, c) => sum + value * toColour[c].at(-1)!, 0),
  ]);
}

function transposed(matrix: number[][]): number[][] {
  return matrix[0].map((_, column) => matrix.map((row) => row[column]));
}

function product(a: number[][], b: number[][]): number[][] {
  const columns = transposed(b);
  return a.map((row) => columns.map((column) => row.reduce((sum, value, i) => sum + value * column[i], 0)));
}

/** X of A·X = B for a symmetric positive A, by elimination. */
function eliminate(a: number[][], b: number[][]): number[][] {
  const rows = a.map((row, i) => [...row, ...b[i]]);
  for (let i = 0; i < rows.length; i++) {
    rows[i] = rows[i].map((value) => value / rows[i][i]);
    for (let k = 0; k < rows.length; k++) {
      const factor = rows[k][i];
      if (k !== i) rows[k] = rows[k].map((value, column) => value - factor * rows[i][column]);
    }
  }
  return rows.map((row) => row.slice(a.length));
}
