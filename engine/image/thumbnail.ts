/** Small pictures for galleries. */
import type { Tensor } from '../tensor';
import { checkImage } from './resize';
import { loadSharp } from './sharp';

const QUALITY = 80;

/**
 * A JPEG of a picture, shrunk to fit a square; smaller pictures keep their size.
 * @param picture an image file's bytes that this package wrote, or uint8 [H, W, 3]
 * @param side of the square in pixels
 * @throws InvalidInputError when a tensor is no picture
 */
export function thumbnail(picture: Buffer | Tensor, side: number): Promise<Buffer> {
  return open(picture)
    .resize(side, side, { fit: 'inside', withoutEnlargement: true })
    .jpeg({ quality: QUALITY })
    .toBuffer();
}

/** A PNG of a picture as it is. */
export function asPng(picture: Tensor): Promise<Buffer> {
  return open(picture).png().toBuffer();
}

function open(picture: Buffer | Tensor) {
  const sharp = loadSharp();
  if (Buffer.isBuffer(picture)) return sharp(picture);
  const image = checkImage(picture, 'image');
  const [height, width] = image.dims;
  return sharp(new Uint8Array(image.buffer), { raw: { width, height, channels: 3 } });
}
