/**
 * Flow matching: a sample at level σ is (1 − σ) · picture + σ · unit noise, and the model predicts the way from the
 * picture to the noise, v = noise − picture (Lipman et al. 2023, “Flow Matching”; Esser et al. 2024, “Scaling Rectified
 * Flow Transformers”). Here is the schedule of σ that these models' schedulers share.
 */
import { InvalidInputError } from '../errors';
import {
  choice,
  flag,
  number,
  numbers,
  optionalNumber,
  SIGMA_FIELDS,
  unsupportedFlag,
  type FieldValues,
} from './config';
import { spreading } from './k-diffusion';
import { sigmaRange } from './timesteps';

/** Fields of FlowMatchEulerDiscreteScheduler; all but `shift` are read for FlowMatchHeunDiscreteScheduler as well. */
export const FLOW_MATCH_FIELDS = {
  ...SIGMA_FIELDS,
  num_train_timesteps: number(1000, 1, 100_000),
  /** Moves the steps towards the noise: σ' = shift·σ / (1 + (shift − 1)·σ). */
  shift: number(1, 1e-6),
  use_dynamic_shifting: flag(false),
  time_shift_type: choice('exponential', ['exponential', 'linear']),
  /** µ at base_image_seq_len and at max_image_seq_len tokens; see dynamicShift. */
  base_shift: number(0.5),
  max_shift: number(1.15),
  base_image_seq_len: number(256, 1),
  max_image_seq_len: number(4096, 1),
  /** The last σ before 0: the schedule is stretched to end there. */
  shift_terminal: optionalNumber(0),
  invert_sigmas: unsupportedFlag('only video models need it'),
};

/** What of these fields DPMSolverMultistepScheduler and UniPCMultistepScheduler have, where they sample flow matching. */
export const FLOW_SIGMA_FIELDS = {
  use_flow_sigmas: flag(false),
  flow_shift: number(1, 1e-6),
  use_dynamic_shifting: flag(false),
  time_shift_type: choice('exponential', ['exponential', 'linear']),
  shift_terminal: optionalNumber(0),
};

/** What a pipeline passes besides the number of steps. */
export const FLOW_RUN_FIELDS = { sigmas: numbers(), mu: optionalNumber(-Infinity) };

type FlowMatchFields = FieldValues<typeof FLOW_MATCH_FIELDS>;
export interface FlowRun {
  sigmas?: number[];
  mu?: number;
}

interface ShiftFields {
  use_dynamic_shifting: boolean;
  time_shift_type: string;
  shift_terminal?: number;
}

/**
 * The σ of FlowMatchEulerDiscreteScheduler before the last, 0; noisy to clean.
 *
 * Without `sigmas` they are spread evenly over a range that is shifted already, and shifted once more, as diffusers
 * has it.
 * @throws InvalidInputError when `sigmas` don't fit the steps, or µ is missing
 */
export function flowMatchSigmas(fields: FlowMatchFields, steps: number, { sigmas, mu }: FlowRun): number[] {
  const train = fields.num_train_timesteps;
  // Given ones are kept in single precision and shifted in it; those from the range in double.
  const round = sigmas ? Math.fround : (value: number): number => value;
  let values: number[];
  if (sigmas) values = checkSigmas(sigmas, steps).map(Math.fround);
  else {
    const [max, min] = [1, Math.fround(1 / train)].map((sigma) =>
      fields.use_dynamic_shifting ? sigma : staticShift(fields.shift, sigma, Math.fround),
    );
    values = Array.from({ length: steps }, (_, i) =>
      steps === 1 ? max : (max * train + i * ((min * train - max * train) / (steps - 1))) / train,
    );
  }
  values = shiftSigmas(fields, fields.shift, values, mu, round);
  const spread = spreading(fields);
  if (spread) values = spread(sigmaRange(fields, values[0], values[values.length - 1]), steps);
  return values.map(Math.fround);
}

/**
 * σ shifted towards the noise, by the configuration's shift or, dynamically, by µ; then stretched to shift_terminal.
 * @param round of each operation
 * @throws InvalidInputError when µ is missing
 */
export function shiftSigmas(
  fields: ShiftFields,
  shift: number,
  sigmas: number[],
  mu: number | undefined,
  round = (value: number): number => value,
): number[] {
  if (fields.use_dynamic_shifting && mu === undefined)
    throw new InvalidInputError('mu', mu, 'a number where use_dynamic_shifting is true');
  const shifted = sigmas.map((sigma) => {
    if (!fields.use_dynamic_shifting) return staticShift(shift, sigma, round);
    const factor = round(fields.time_shift_type === 'linear' ? mu! : Math.exp(mu!));
    return round(factor / round(factor + round(round(1 / sigma) - 1)));
  });
  if (!fields.shift_terminal) return shifted;
  const stretch = round(round(1 - shifted[shifted.length - 1]) / round(1 - fields.shift_terminal));
  return shifted.map((sigma) => round(1 - round(round(1 - sigma) / stretch)));
}

function staticShift(shift: number, sigma: number, round: (value: number) => number): number {
  return round(round(round(shift) * sigma) / round(1 + round(round(shift - 1) * sigma)));
}

/**
 * µ for a picture: on the line through (base_image_seq_len, base_shift) and (max_image_seq_len, max_shift), as
 * FLUX.1's and Stable Diffusion 3.5's programs have it.
 * @param tokens patches of the picture that the model sees
 */
export function dynamicShift(
  fields: Pick<FlowMatchFields, 'base_shift' | 'max_shift' | 'base_image_seq_len' | 'max_image_seq_len'>,
  tokens: number,
): number {
  const slope = (fields.max_shift - fields.base_shift) / (fields.max_image_seq_len - fields.base_image_seq_len);
  return tokens * slope + (fields.base_shift - slope * fields.base_image_seq_len);
}

/** @throws InvalidInputError when there is not one for each step, falling from at most 1 to above 0 */
export function checkSigmas(sigmas: number[], steps: number): number[] {
  const fall = sigmas.every((sigma, i) => sigma > 0 && sigma <= (i === 0 ? 1 : sigmas[i - 1]));
  if (sigmas.length !== steps || !fall)
    throw new InvalidInputError(
      'sigmas',
      sigmas,
      `${steps} numbers, one for each step, falling from at most 1 to above 0`,
    );
  return sigmas;
}
