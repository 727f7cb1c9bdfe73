/** The schedule that the multistep solvers (DPM-Solver++ and UniPC) share. */
import { InvalidInputError } from '../errors';
import type { FieldValues } from './config';
import { checkSigmas, shiftSigmas, type FLOW_SIGMA_FIELDS, type FlowRun } from './flow';
import { spreading, type SpreadFields } from './k-diffusion';
import {
  karrasSigmas,
  luSigmas,
  sigmaAt,
  sigmaRange,
  spacedTimesteps,
  timestepOfSigma,
  roundHalfEven,
  type SpacingFields,
} from './timesteps';

interface Fields extends SpacingFields, SpreadFields {
  use_lu_lambdas?: boolean;
  sigma_min?: number;
  sigma_max?: number;
}

interface Options {
  /** One above the highest timestep. */
  from: number;
  /** Whether timesteps found for spread-out σ are rounded; otherwise they are cut to whole numbers. */
  round: boolean;
}

/**
 * Whole timesteps and the σ at each, noisy to clean; the caller appends the final σ.
 * @throws InvalidInputError when there are so many steps that two fall on one timestep
 */
export function solverSchedule(
  fields: Fields,
  steps: number,
  table: Float32Array,
  { from, round }: Options,
): { timesteps: number[]; sigmas: number[] } {
  const [max, min] = [table[table.length - 1], table[0]];
  const spread = spreading(fields);
  if (spread || fields.use_lu_lambdas) {
    const sigmas = spread ? spread(sigmaRange(fields, max, min), steps) : luSigmas({ max, min }, steps);
    const whole = round && !fields.use_exponential_sigmas && !fields.use_beta_sigmas ? roundHalfEven : Math.trunc;
    return { timesteps: sigmas.map((sigma) => whole(timestepOfSigma(sigma, table))), sigmas: sigmas.map(Math.fround) };
  }
  // The last step ends at σ = 0, so timestep 0 itself is left out.
  const trailing = fields.timestep_spacing === 'trailing';
  const timesteps = trailing
    ? spacedTimesteps(fields, steps, from)
    : spacedTimesteps(fields, steps + 1, from).slice(0, -1);
  if (new Set(timesteps).size < timesteps.length) {
    throw new InvalidInputError(
      'steps',
      steps,
      `fewer than num_train_timesteps (${fields.num_train_timesteps}), so that no timestep comes twice`,
    );
  }
  return { timesteps, sigmas: timesteps.map((t) => Math.fround(sigmaAt(t, table))) };
}

type FlowSigmaFields = FieldValues<typeof FLOW_SIGMA_FIELDS>;

/**
 * The schedule of DPMSolverMultistepScheduler for flow matching: evenly from just below pure noise, then shifted.
 * @throws InvalidInputError for sigmas that are spread otherwise, or a missing µ
 */
export function flowDpmSchedule(
  fields: FlowSigmaFields & SpreadFields & { use_lu_lambdas?: boolean; num_train_timesteps: number },
  steps: number,
  run: FlowRun,
): { timesteps: number[]; sigmas: number[] } {
  refuseSpread(fields, ['use_karras_sigmas', 'use_exponential_sigmas', 'use_beta_sigmas', 'use_lu_lambdas']);
  const range = 1 - 1 / fields.num_train_timesteps;
  const even = run.sigmas
    ? checkSigmas(run.sigmas, steps)
    : Array.from({ length: steps }, (_, i) => ((steps - i) * range) / steps);
  return flowSchedule(fields, shiftSigmas(fields, fields.flow_shift, even, run.mu));
}

/**
 * The schedule of UniPCMultistepScheduler for flow matching: evenly from pure noise, then shifted, or Karras' σ turned
 * into flow matching's.
 * @param table the σ of every training timestep
 * @throws InvalidInputError for sigmas that are spread otherwise, or a missing µ
 */
export function flowUniPcSchedule(
  fields: FlowSigmaFields & SpreadFields & { num_train_timesteps: number; sigma_min?: number; sigma_max?: number },
  steps: number,
  run: FlowRun,
  table: Float32Array,
): { timesteps: number[]; sigmas: number[] } {
  refuseSpread(fields, ['use_exponential_sigmas', 'use_beta_sigmas']);
  if (fields.use_karras_sigmas) {
    const range = sigmaRange(fields, table[table.length - 1], table[0]);
    const sigmas = karrasSigmas(range, steps).map((sigma) => sigma / (sigma + 1));
    return flowSchedule(fields, sigmas);
  }
  const end = 1 / fields.num_train_timesteps;
  const even = run.sigmas
    ? checkSigmas(run.sigmas, steps)
    : Array.from({ length: steps }, (_, i) => 1 + (i * (end - 1)) / steps);
  const sigmas = shiftSigmas(fields, fields.flow_shift, even, run.mu);
  // At pure noise the logarithm of the signal, which the solver steps along, is infinite.
  if (Math.abs(sigmas[0] - 1) < NOISE_MARGIN) sigmas[0] -= NOISE_MARGIN;
  return flowSchedule(fields, sigmas);
}

const NOISE_MARGIN = 1e-6;

function flowSchedule(
  fields: { num_train_timesteps: number },
  sigmas: number[],
): { timesteps: number[]; sigmas: number[] } {
  return {
    timesteps: sigmas.map((sigma) => Math.trunc(sigma * fields.num_train_timesteps)),
    sigmas: sigmas.map(Math.fround),
  };
}

function refuseSpread<F extends string>(fields: { [K in F]?: boolean }, names: F[]): void {
  const asked = names.find((name) => fields[name]);
  if (asked) throw new InvalidInputError(asked, true, 'false where use_flow_sigmas is true');
}
