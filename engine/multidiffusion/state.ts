/** Where a picture is between two steps. */
import type { Tensor } from '../tensor';
import type { Finding } from '../types';
import type { Plan } from './plan';

export interface State {
  /** Model evaluations done. */
  index: number;
  /** The shared sample before evaluation `index`, [1, C, H, W]. */
  latents: Tensor<'float32'>;
  /** The picture as the model predicted it at the last evaluation; before the first, the latents themselves. */
  predictedOriginal: () => Tensor<'float32'>;
  /** UNet rows evaluated so far. */
  unetRows: number;
  readonly timings: Timings;
  readonly findings: Finding[];
}

/** Milliseconds. */
export interface Timings {
  /** Spent in model.predict. */
  unet: number;
  /** Spent on bootstrapping backgrounds, which model.encodeImages makes. */
  encode: number;
  total: number;
}

/** Before the first step. */
export function startState({ initialLatents, findings }: Plan): State {
  return {
    index: 0,
    latents: initialLatents,
    predictedOriginal: () => initialLatents,
    unetRows: 0,
    timings: { unet: 0, encode: 0, total: 0 },
    findings: [...findings],
  };
}
