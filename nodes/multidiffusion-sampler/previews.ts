/** The small pictures that the sampler sends while it draws. */
import type { Node } from 'node-red';
import type { Checkpoint } from '../../engine/checkpoint/checkpoint';
import { encodeImage } from '../../engine/image/encode';
import { latentColours, previewImage } from '../../engine/multidiffusion/colours';
import type { Progress } from '../../engine/multidiffusion/plan';
import { offerLook } from '../shared/gallery';
import type { JobReport } from './job-report';

/**
 * Sends a preview after every so many steps: a PNG with one pixel to a latent cell, of the picture as the
 * model predicts it.
 * @param every 0: never; an editor whose user looks at the job gets one all the same
 */
export function previews(
  checkpoint: Checkpoint,
  every: number,
  job: JobReport,
  node: Node,
  signal: AbortSignal,
): (progress: Progress) => Promise<void> {
  const draw = async ({ predictedOriginal }: Progress): Promise<Buffer | undefined> => {
    const colours = await latentColours(checkpoint, { signal });
    return colours && encodeImage(previewImage(colours, predictedOriginal()), { format: 'png', quality: 90 });
  };
  return async (progress) => {
    const { index, total } = progress;
    offerLook(node, job.id, () => draw(progress));
    if (every === 0 || index % every !== 0) return;
    const png = await draw(progress);
    if (png) job.preview(png, index, total);
  };
}
