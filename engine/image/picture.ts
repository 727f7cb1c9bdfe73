/** From a picture's file, or a picture, to a picture of the size that is wanted. */
import { InvalidInputError, MultiDiffusionError } from '../errors';
import { Tensor } from '../tensor';
import { isDataUri, type MaskLimits } from './mask';
import { checkImage } from './resize';
import { loadSharp } from './sharp';

/**
 * The pixels of a picture. Another size is reached without distortion: what would stand out is cut off evenly.
 * Transparency becomes white, and a camera's orientation is followed.
 * @param source bytes of a PNG, JPEG, WebP or GIF file, a data URI, or a uint8 tensor [H, W, 3]
 * @param name how to call it in errors
 * @param size in pixels; default: its own
 * @returns uint8 [H, W, 3]
 * @throws InvalidInputError when it is no such picture
 * @throws MultiDiffusionError LIMIT when it is larger than the limits
 */
export async function readPicture(source: unknown, name: string, limits: MaskLimits, size?: { width: number; height: number }): Promise<Tensor<'uint8'>> {
  const { input, raw } = bytesOf(source, name);
  const tooLarge = (found: string, allowed: string): MultiDiffusionError => new MultiDiffusionError('LIMIT', `${name} has ${found}; allowed: up to ${allowed}.`);
  if (input.length > limits.maxBytes && !raw) throw tooLarge(`${input.length} bytes`, `${limits.maxBytes} bytes`);
  try {
    const picture = loadSharp()(input, { limitInputPixels: limits.maxPixels, failOn: 'error', pages: 1, ...(raw && { raw }) });
    const { format } = await picture.metadata();
    if (!['png', 'jpeg', 'webp', 'gif', 'raw'].includes(format)) throw new InvalidInputError(name, format, 'PNG, JPEG, WebP or GIF');
    const upright = picture.autoOrient().flatten({ background: 'white' }).toColourspace('srgb');
    const { data, info } = await (size ? upright.resize({ ...size, fit: 'cover' }) : upright).raw().toBuffer({ resolveWithObject: true });
    return Tensor.uint8(data, [info.height, info.width, 3]);
  } catch (cause) {
    if (cause instanceof MultiDiffusionError) throw cause;
    if (/pixel limit/i.test((cause as Error).message)) throw tooLarge('more pixels', `${limits.maxPixels} pixels`);
    throw new InvalidInputError(name, source, `a whole PNG, JPEG, WebP or GIF file (${(cause as Error).message})`);
  }
}

function bytesOf(source: unknown, name: string): { input: Uint8Array; raw?: { width: number; height: number; channels: 3 } } {
  if (Buffer.isBuffer(source)) return { input: source };
  if (typeof source === 'string' && isDataUri(source)) return { input: Buffer.from(source.slice(source.indexOf(',') + 1), 'base64') };
  if (typeof source !== 'object' || source === null) throw new InvalidInputError(name, source, 'the bytes of a picture, a data URI or an image tensor');
  const { dims, buffer } = checkImage(source, name);
  return { input: new Uint8Array(buffer), raw: { width: dims[1], height: dims[0], channels: 3 } };
}
