/** From a picture's file to a mask. */
import { InvalidInputError, MultiDiffusionError } from '../errors';
import { Tensor } from '../tensor';
import { loadSharp } from './sharp';

/** Larger masks are reduced to this side: a latent grid is far coarser still. */
const MAX_SIDE = 1024;
const DATA_URI = /^data:image\/[a-z+.-]+;base64,/i;

export interface MaskLimits {
  /** Pixels of the picture before it is decoded. */
  maxPixels: number;
  /** Bytes of the file. */
  maxBytes: number;
}

/**
 * The mask that a picture shows: white holds the region, black doesn't; transparency counts as black.
 * @param file bytes of a PNG, JPEG, WebP or GIF file, or a data URI
 * @param name how to call it in errors
 * @returns float32 [1, H, W] in [0, 1]
 * @throws InvalidInputError when it is no such picture, or an empty one
 * @throws MultiDiffusionError LIMIT when it is larger than the limits
 */
export async function decodeMask(file: Buffer | string, name: string, limits: MaskLimits): Promise<Tensor<'float32'>> {
  const tooLarge = (found: string, allowed: string): MultiDiffusionError => new MultiDiffusionError('LIMIT', `${name} has ${found}; allowed: up to ${allowed}.`);
  if (typeof file === 'string') {
    if (!isDataUri(file)) throw new InvalidInputError(name, file, 'a data URI such as data:image/png;base64,…');
    if (file.length * 0.75 > limits.maxBytes + 100) throw tooLarge(`${file.length} characters`, `${limits.maxBytes} bytes`);
  }
  const bytes = typeof file === 'string' ? Buffer.from(file.slice(file.indexOf(',') + 1), 'base64') : file;
  if (bytes.length > limits.maxBytes) throw tooLarge(`${bytes.length} bytes`, `${limits.maxBytes} bytes`);
  const sharp = loadSharp();
  try {
    const picture = sharp(bytes, { limitInputPixels: limits.maxPixels, failOn: 'error', pages: 1 });
    const { width, height, format } = await picture.metadata();
    if (!['png', 'jpeg', 'webp', 'gif'].includes(format)) throw new InvalidInputError(name, format, 'PNG, JPEG, WebP or GIF');
    if (width * height > limits.maxPixels) throw tooLarge(`${width}x${height} pixels`, `${limits.maxPixels} pixels`);
    const { data, info } = await picture
      .flatten({ background: 'black' })
      .toColourspace('b-w')
      .extractChannel(0)
      .resize({ width: MAX_SIDE, height: MAX_SIDE, fit: 'inside', withoutEnlargement: true })
      .raw()
      .toBuffer({ resolveWithObject: true });
    const mask = new Float32Array(data.length);
    for (let i = 0; i < data.length; i++) mask[i] = data[i]! / 255;
    return Tensor.float32(mask, [1, info.height, info.width]);
  } catch (cause) {
    if (cause instanceof MultiDiffusionError) throw cause;
    if (/pixel limit/i.test((cause as Error).message)) throw tooLarge('more pixels', `${limits.maxPixels} pixels`);
    throw new InvalidInputError(name, file, `a whole PNG, JPEG, WebP or GIF file (${(cause as Error).message})`);
  }
}

/**
 * The mask as a grey PNG in a data URI, for recipes: masks that came from a picture come back from it exactly.
 * @param mask float32 [1, H, W] in [0, 1]
 */
export async function encodeMask(mask: Tensor<'float32'>): Promise<string> {
  const [, height, width] = mask.dims as [number, number, number];
  const grey = Uint8Array.from(mask.data, (value) => Math.round(value * 255));
  const png = await loadSharp()(grey, { raw: { width, height, channels: 1 } }).png({ compressionLevel: 9 }).toBuffer();
  return `data:image/png;base64,${png.toString('base64')}`;
}

/** Whether the text is an image as a data URI. */
export function isDataUri(text: string): boolean {
  return DATA_URI.test(text.slice(0, 64));
}
