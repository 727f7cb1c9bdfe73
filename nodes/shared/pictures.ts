/** Pictures that messages bring. */
import type { Checkpoint } from '../../engine/checkpoint/checkpoint';
import { MultiDiffusionError } from '../../engine/errors';
import { readPicture } from '../../engine/image/picture';
import { fittingSize } from '../../engine/model';
import type { Tensor } from '../../engine/tensor';
import { own, type Message } from './message';
import { checkLimit, pictureLimits, type Settings } from './settings';

/**
 * The picture in a property of the message: a file's bytes, text that stands for them, or an image tensor.
 * @param size to bring it to: see readPicture
 * @returns undefined when the message has none
 * @throws InvalidInputError when it is no picture, MultiDiffusionError LIMIT when it is too large
 */
export async function pictureIn(
  msg: Message,
  property: string,
  settings: Settings,
  size: { width: number; height: number } | 'bounded',
): Promise<Tensor<'uint8'> | undefined> {
  const source = own(msg, property);
  if (source === undefined || source === null) return undefined;
  return readPicture(source, property, pictureLimits(settings), size);
}

/** A canvas in pixels; default: the model's own size. */
export interface CanvasSize {
  width?: number;
  height?: number;
}

/**
 * The latents of the picture in a property of the message, scaled to fill the canvas.
 * @returns them with the canvas' size, which fits the model; undefined when the message has no picture
 * @throws as pictureIn; MultiDiffusionError CHECKPOINT when the model has no encoder
 */
export async function encodePicture(
  checkpoint: Checkpoint,
  msg: Message,
  property: string,
  settings: Settings,
  canvas: CanvasSize,
  signal: AbortSignal,
): Promise<{ latents: Tensor<'float32'>; width: number; height: number } | undefined> {
  const { facts } = checkpoint;
  const [width, height] = [canvas.width, canvas.height].map((side) => fittingSize(facts, side ?? facts.nativeSize));
  checkLimit(
    settings,
    'maxCanvasPixels',
    width * height,
    `The canvas of ${width}x${height} has ${width * height} pixels`,
  );
  const picture = await pictureIn(msg, property, settings, { width, height });
  if (!picture) return undefined;
  if (!facts.canEncodeImages)
    throw new MultiDiffusionError(
      'CHECKPOINT',
      `${facts.name} has no VAE encoder: add vae_encoder to the model's folder, or choose another model.`,
    );
  const [latents] = await checkpoint.encodeImages([picture], { signal });
  return { latents, width, height };
}

/** What the sampler starts from: msg.initialImage, either latents or a picture. */
export async function initialLatents(
  checkpoint: Checkpoint,
  msg: Message,
  settings: Settings,
  canvas: CanvasSize,
  signal: AbortSignal,
): Promise<Tensor | undefined> {
  const initial = own(msg, 'initialImage');
  if (own(initial, 'dtype') === 'float32') return initial as Tensor;
  return (await encodePicture(checkpoint, msg, 'initialImage', settings, canvas, signal))?.latents;
}
