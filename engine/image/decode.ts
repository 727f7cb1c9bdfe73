/** From a picture's file to its pixels: upright, in sRGB, no larger than they are needed. */
import type { ResizeOptions, Sharp } from 'sharp';
import { InvalidInputError, MultiDiffusionError } from '../errors';
import type { Tensor } from '../tensor';
import { checkPixels, decoder, openPicture } from './container';
import { loadSharp } from './sharp';
import { type PictureLimits, READABLE } from './source';

export interface Pixels {
  /** RGB, row by row. */
  data: Buffer;
  width: number;
  height: number;
}

export interface Wanted {
  /** What shows through transparency. */
  background: 'black' | 'white';
  /** As it is to be when it is upright; default: its own size. */
  size?: Pick<ResizeOptions, 'fit' | 'withoutEnlargement'> & { width: number; height: number };
}

/**
 * The pixels of a picture, turned as its camera says (EXIF orientation 1 to 8), in sRGB, whatever profile it has.
 *
 * It is made small while it is read, and turned after that: the whole of a large photograph is never in memory where
 * its format can be read by rows.
 * @param source see pictureSource
 * @param name how to call it in errors
 * @throws InvalidInputError when it is no whole picture of a known format, MultiDiffusionError LIMIT when it has too many pixels
 */
export async function decodePicture(
  source: Buffer | Tensor<'uint8'>,
  name: string,
  limits: PictureLimits,
  { background, size }: Wanted,
): Promise<Pixels> {
  try {
    const { picture, orientation } = await open(source, name, limits);
    const lying = orientation >= 5;
    const reduced = picture.flatten({ background }).toColourspace('srgb');
    if (size)
      reduced.resize({ ...size, width: lying ? size.height : size.width, height: lying ? size.width : size.height });
    const { data, info } = await reduced.raw().toBuffer({ resolveWithObject: true });
    return await turn({ data, width: info.width, height: info.height }, orientation);
  } catch (cause) {
    if (cause instanceof MultiDiffusionError) throw cause;
    const reason = (cause as Error).message.split('\n')[0].slice(0, 100);
    throw new InvalidInputError(name, source, `a whole ${READABLE} file (${reason})`);
  }
}

async function open(
  source: Buffer | Tensor<'uint8'>,
  name: string,
  limits: PictureLimits,
): Promise<{ picture: Sharp; orientation: number }> {
  if (!Buffer.isBuffer(source)) {
    const [height, width] = source.dims;
    checkPixels(width, height, name, limits);
    const picture = decoder(new Uint8Array(source.buffer), limits, { raw: { width, height, channels: 3 } });
    return { picture, orientation: 1 };
  }
  const picture = await openPicture(source, name, limits);
  const { orientation = 1 } = await picture.metadata();
  return { picture, orientation: orientation <= 8 ? orientation : 1 };
}

/** Turns and mirrors as EXIF 2.32, 4.6.4, names the eight ways in which a camera may have been held. */
async function turn({ data, width, height }: Pixels, orientation: number): Promise<Pixels> {
  const mirrored = [2, 4, 5, 7].includes(orientation);
  const angle = { 3: 180, 4: 180, 5: 270, 6: 90, 7: 90, 8: 270 }[orientation] ?? 0;
  if (!mirrored && angle === 0) return { data, width, height };
  const picture = loadSharp()(data, { raw: { width, height, channels: 3 } });
  const turned = await picture.flop(mirrored).rotate(angle).raw().toBuffer({ resolveWithObject: true });
  return { data: turned.data, width: turned.info.width, height: turned.info.height };
}
