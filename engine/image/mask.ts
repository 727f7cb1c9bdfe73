/** From a picture to a mask. */
import { Tensor } from '../tensor';
import { nextTurn, turnIsOver } from '../turns';
import { decodePicture } from './decode';
import { loadSharp } from './sharp';
import { pictureSource, type PictureLimits } from './source';

/** Larger masks are reduced to this side: a latent grid is far coarser still. With many of them, the others to half of it. */
const MAX_SIDE = 1024;
const MANY = 16;

/**
 * The mask that a picture shows: what is painted holds the region, in whatever colour (the brightest channel counts);
 * black doesn't, and transparency counts as black. A camera's orientation is followed.
 * @param source bytes of a file, text that stands for them, or a uint8 tensor [H, W, 3]: see pictureSource
 * @param name how to call it in errors
 * @param region the how manieth region it is for, from 0: a picture has the same masks when it is drawn again
 * @returns float32 [1, H, W] in [0, 1]
 * @throws InvalidInputError when it is no such picture, or an empty one
 * @throws MultiDiffusionError LIMIT when it is larger than the limits
 */
export async function decodeMask(
  source: unknown,
  name: string,
  limits: PictureLimits,
  region = 0,
): Promise<Tensor<'float32'>> {
  const side = region < MANY ? MAX_SIDE : MAX_SIDE / 2;
  const { data, width, height } = await decodePicture(pictureSource(source, name, limits), name, limits, {
    background: 'black',
    size: { width: side, height: side, fit: 'inside', withoutEnlargement: true },
  });
  const mask = new Float32Array(width * height);
  for (let y = 0; y < height; y++) {
    const end = (y + 1) * width;
    for (let i = y * width, at = 3 * i; i < end; i++, at += 3)
      mask[i] = Math.max(data[at], data[at + 1], data[at + 2]) / 255;
    if (turnIsOver()) await nextTurn();
  }
  return Tensor.float32(mask, [1, height, width]);
}

/**
 * The mask as a grey PNG in a data URI, for recipes: masks that came from a picture come back from it exactly.
 * @param mask float32 [1, H, W] in [0, 1]
 */
export async function encodeMask(mask: Tensor<'float32'>): Promise<string> {
  const [, height, width] = mask.dims as [number, number, number];
  const { data } = mask;
  const grey = new Uint8Array(data.length);
  for (let y = 0; y < height; y++) {
    for (let i = y * width; i < (y + 1) * width; i++) grey[i] = Math.round(data[i]! * 255);
    if (turnIsOver()) await nextTurn();
  }
  const png = await loadSharp()(grey, { raw: { width, height, channels: 1 } })
    .png({ compressionLevel: 9 })
    .toBuffer();
  const uri = `data:image/png;base64,${png.toString('base64')}`;
  uri.charCodeAt(0); // puts its parts together, here and not for all masks of a picture at once
  return uri;
}
