/** How much of a sample is picture and how much noise, whatever the scheduler's own scale. */
import { toOriginal } from '../schedulers/common';
import type { Level } from '../schedulers/noise-levels';
import type { Scheduler } from '../schedulers/scheduler';
import { Tensor } from '../tensor';

/** The sample's level before a step: what the scheduler makes of a picture alone and of noise alone. */
export function levelBefore(scheduler: Scheduler, index: number): Level {
  const [zero, one] = [0, 1].map((value) => Tensor.float32([value], [1, 1, 1, 1]));
  return { alpha: scheduler.addNoise(one, zero, index).data[0], sigma: scheduler.addNoise(zero, one, index).data[0] };
}

/** √(1 − ᾱ_t) before a step, from 1 (noise alone) to 0. */
export function noiseLevel(scheduler: Scheduler, index: number): number {
  const { alpha, sigma } = levelBefore(scheduler, index);
  return sigma / Math.hypot(alpha, sigma);
}

/** The picture that the model foresees when it predicts `output` for `sample`, as latents. */
export function foresee(scheduler: Scheduler, index: number, sample: Tensor<'float32'>, output: Tensor<'float32'>): Tensor<'float32'> {
  return toOriginal(scheduler.predictionType, output, sample, levelBefore(scheduler, index));
}
