/** From a picture in any form to a picture of the size that is wanted. */
import { Tensor } from '../tensor';
import { decodePicture, type Wanted } from './decode';
import { pictureSource, type PictureLimits } from './source';

/** Read as it is, so that a photograph of any size takes no more memory and time than one of this side. */
const MAX_SIDE = 2048;

/**
 * The pixels of a picture. Another size is reached without distortion: what would stand out is cut off evenly.
 * Transparency becomes white, a camera's orientation is followed, a colour profile becomes sRGB.
 * @param source bytes of a file, text that stands for them, or a uint8 tensor [H, W, 3]: see pictureSource
 * @param name how to call it in errors
 * @param size in pixels; 'bounded': its own, or if that is larger as much as fits into 2048 x 2048; default: its own
 * @returns uint8 [H, W, 3]
 * @throws InvalidInputError when it is no such picture
 * @throws MultiDiffusionError LIMIT when it is larger than the limits
 */
export async function readPicture(
  source: unknown,
  name: string,
  limits: PictureLimits,
  size?: { width: number; height: number } | 'bounded',
): Promise<Tensor<'uint8'>> {
  const { data, width, height } = await decodePicture(pictureSource(source, name, limits), name, limits, {
    background: 'white',
    size: size && wanted(size),
  });
  return Tensor.uint8(data, [height, width, 3]);
}

function wanted(size: { width: number; height: number } | 'bounded'): Wanted['size'] {
  return size === 'bounded'
    ? { width: MAX_SIDE, height: MAX_SIDE, fit: 'inside', withoutEnlargement: true }
    : { ...size, fit: 'cover' };
}
