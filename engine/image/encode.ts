/** From an image tensor to the bytes of a file. */
import { InvalidInputError, MultiDiffusionError } from '../errors';
import { Tensor } from '../tensor';
import { inTurns } from '../turns';
import { writeJpegRecipe, writePngRecipe, writeWebpRecipe } from './metadata';
import { toRecipe } from './recipe';
import { loadSharp } from './sharp';

export type ImageFormat = 'png' | 'jpeg' | 'webp';

export const CONTENT_TYPES: Record<ImageFormat, string> = { png: 'image/png', jpeg: 'image/jpeg', webp: 'image/webp' };

export interface EncodeOptions {
  format: ImageFormat;
  /** 1 to 100, for JPEG and WebP. */
  quality: number;
  /** What made the picture; the known fields of it are written into the file. */
  recipe?: unknown;
  /** @deprecated what `recipe` was called in 0.1.0 */
  generation?: unknown;
}

/**
 * Encodes an image.
 * @param image uint8 [H, W, 3], RGB
 * @throws InvalidInputError when it is no such tensor
 * @throws MultiDiffusionError INFERENCE when the image library refuses it
 */
export async function encodeImage(
  image: unknown,
  { format, quality, generation, recipe = generation }: EncodeOptions,
): Promise<Buffer> {
  const { data, width, height } = pixels(image);
  const written = toRecipe(recipe);
  const picture = loadSharp()(data, { raw: { width, height, channels: 3 } });
  try {
    const bytes = await picture.toFormat(format, format === 'png' ? {} : { quality }).toBuffer();
    if (!written) return bytes;
    if (format === 'png') return await inTurns(writePngRecipe(bytes, written));
    return await inTurns(
      format === 'jpeg' ? writeJpegRecipe(bytes, written) : writeWebpRecipe(bytes, written, { width, height }),
    );
  } catch (cause) {
    throw new MultiDiffusionError(
      'FILE',
      `The image of ${width}x${height} pixels can't be encoded as ${format}: ${(cause as Error).message}`,
      { cause },
    );
  }
}

function pixels(image: unknown): { data: Uint8Array; width: number; height: number } {
  const tensor = Tensor.from(image, 'image');
  const [height, width, channels] = tensor.dims;
  if (tensor.dtype !== 'uint8' || tensor.dims.length !== 3 || channels !== 3 || !width || !height) {
    throw new InvalidInputError('image', tensor.toString(), 'a uint8 tensor [height, width, 3]');
  }
  return { data: new Uint8Array(tensor.buffer), width, height };
}
