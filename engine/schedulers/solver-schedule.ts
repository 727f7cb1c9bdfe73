/** The schedule that the multistep solvers (DPM-Solver++ and UniPC) share. */
import { InvalidInputError } from '../errors';
import { spreading, type SpreadFields } from './k-diffusion';
import { luSigmas, sigmaAt, sigmaRange, spacedTimesteps, timestepOfSigma, roundHalfEven, type SpacingFields } from './timesteps';

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
export function solverSchedule(fields: Fields, steps: number, table: Float32Array, { from, round }: Options): { timesteps: number[]; sigmas: number[] } {
  const [max, min] = [table[table.length - 1], table[0]];
  const spread = spreading(fields);
  if (spread || fields.use_lu_lambdas) {
    const sigmas = spread ? spread(sigmaRange(fields, max, min), steps) : luSigmas({ max, min }, steps);
    const whole = round && !fields.use_exponential_sigmas && !fields.use_beta_sigmas ? roundHalfEven : Math.trunc;
    return { timesteps: sigmas.map((sigma) => whole(timestepOfSigma(sigma, table))), sigmas: sigmas.map(Math.fround) };
  }
  // The last step ends at σ = 0, so timestep 0 itself is left out.
  const trailing = fields.timestep_spacing === 'trailing';
  const timesteps = trailing ? spacedTimesteps(fields, steps, from) : spacedTimesteps(fields, steps + 1, from).slice(0, -1);
  if (new Set(timesteps).size < timesteps.length) {
    throw new InvalidInputError('steps', steps, `fewer than num_train_timesteps (${fields.num_train_timesteps}), so that no timestep comes twice`);
  }
  return { timesteps, sigmas: timesteps.map((t) => Math.fround(sigmaAt(t, table))) };
}
