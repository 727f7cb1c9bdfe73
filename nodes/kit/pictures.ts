/** Pictures that messages bring, and the small ones that the sampler sends while it draws. */
import type { Checkpoint } from '../../engine/checkpoint/checkpoint';
import { encodeImage } from '../../engine/image/encode';
import { readPicture } from '../../engine/image/picture';
import { latentColours, previewImage } from '../../engine/multidiffusion/colours';
import type { Progress } from '../../engine/multidiffusion/job';
import type { Tensor } from '../../engine/tensor';
import { own, type Message } from './message';
import type { Settings } from './settings';
import type { Task } from './tasks';

/**
 * The picture in a property of the message: a file's bytes, a data URI or an image tensor.
 * @param size to bring it to, in pixels
 * @returns undefined when the message has none
 * @throws InvalidInputError when it is no picture, MultiDiffusionError LIMIT when it is too large
 */
export async function pictureIn(msg: Message, property: string, { limits }: Settings, size?: { width: number; height: number }): Promise<Tensor<'uint8'> | undefined> {
  const source = own(msg, property);
  if (source === undefined || source === null) return undefined;
  return readPicture(source, property, { maxPixels: limits.maxMaskPixels, maxBytes: limits.maxMaskBytes }, size);
}

/**
 * Sends a preview after every so many steps: a PNG with one pixel to a latent cell, of the picture as the
 * model foresees it.
 * @param every 0: never
 */
export function previews(checkpoint: Checkpoint, every: number, job: string, { msg, send, signal }: Task): (progress: Progress) => Promise<void> {
  return async ({ index, total, original }) => {
    if (every === 0 || index % every !== 0) return;
    const colours = await latentColours(checkpoint, { signal });
    if (!colours) return;
    const payload = await encodeImage(previewImage(colours, original), { format: 'png', quality: 90 });
    const { _msgid, topic } = msg;
    send([null, null, null, { _msgid, ...(topic === undefined ? {} : { topic }), payload, job, index, total }]);
  };
}
