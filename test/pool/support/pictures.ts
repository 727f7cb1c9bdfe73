/** Pictures to ask for, and what they should be. */
import type { Checkpoint } from '../../../dist/engine/checkpoint/checkpoint';
import type { SampleRequest } from '../../../dist/engine/multidiffusion/plan';
import { shapeMask } from '../../../dist/engine/regions/shapes';
import type { Tensor } from '../../../dist/engine/tensor';

/** A background and two regions, bootstrapped. */
export async function composition(checkpoint: Checkpoint, seed: number, steps = 6): Promise<SampleRequest> {
  const [background, left, right] = await Promise.all(
    ['a living room', 'a red sofa', 'a lamp'].map((prompt) => checkpoint.encodeConditioning(prompt)),
  );
  return {
    background,
    regions: [
      {
        name: 'sofa',
        conditioning: left,
        mask: shapeMask({ box: [0.05, 0.4, 0.5, 0.5] }),
        shape: { box: [0.05, 0.4, 0.5, 0.5] },
      },
      { name: 'lamp', conditioning: right, mask: shapeMask({ box: [0.6, 0.1, 0.3, 0.7] }), weight: 2 },
    ],
    // Small, for many of them are drawn.
    options: { seed, steps, width: 64, height: 64 },
  };
}

export const bytesOf = ({ buffer }: Tensor): string => Buffer.from(buffer).toString('base64');
