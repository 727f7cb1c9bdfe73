/** What models with micro-conditioning are told of each window (Podell et al. 2023, "SDXL", section 2.2). */
import { AESTHETIC_SCORE, NEGATIVE_AESTHETIC_SCORE, type UNetRow } from '../model';
import type { Plan } from './plan';
import type { View } from './views';

/**
 * The size of the picture before it was cut and scaled, where it was cut, and the size it was scaled to.
 *
 * A window of a larger canvas is told the canvas' sizes and, as the crop, its own place in it (as DemoFusion has it:
 * Du et al. 2024); or, with windowPlace 'alone', that it is a whole picture of the window's size.
 * @param negative whether for the negative prompt, whose score a refiner is told to be low
 */
export function sizesOf(plan: Plan, view: View, negative: boolean): Pick<UNetRow, 'timeIds'> {
  const { facts, options, width, height } = plan;
  if (!facts.timeIds) return {};
  const alone = options.windowPlace === 'alone';
  const factor = facts.latentFactor;
  const whole = alone ? [view.height * factor, view.width * factor] : [height, width];
  const [top, left] = alone ? [0, 0] : [view.y * factor, view.x * factor];
  const score = negative ? NEGATIVE_AESTHETIC_SCORE : AESTHETIC_SCORE;
  return {
    timeIds: [
      options.originalHeight ?? whole[0],
      options.originalWidth ?? whole[1],
      options.cropTop + top,
      options.cropLeft + left,
      ...(facts.timeIds === 5 ? [score] : whole),
    ],
  };
}
