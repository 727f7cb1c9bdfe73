import { combine, type SchedulerFactory } from './common';
import { COMMON_FIELDS, ZERO_SNR_FIELDS, readFields, spacing } from './config';
import { follow, kDiffusionSchedule, makeKDiffusion, slopeAt } from './k-diffusion';

const FIELDS = { ...COMMON_FIELDS, ...ZERO_SNR_FIELDS, timestep_spacing: spacing('linspace') };

/** Euler's method down past the next level, then fresh noise up to it (k-diffusion, sample_euler_ancestral with η = 1). */
export const eulerAncestral: SchedulerFactory = (config, steps, { startStep }) => {
  const name = 'EulerAncestralDiscreteScheduler';
  const fields = readFields(name, FIELDS, config);
  const schedule = kDiffusionSchedule(fields, steps);
  const timesteps = schedule.timesteps.slice(startStep);
  const sigmas = [...schedule.sigmas, 0].slice(startStep);

  return makeKDiffusion({
    name,
    config,
    fields,
    timesteps,
    sigmas,
    advance(original, index, sample, noise) {
      const [from, to] = [sigmas[index], sigmas[index + 1]];
      const { down, up } = ancestralStep(from, to);
      const lowered = follow(sample, slopeAt(sample, original, from), down - from);
      return combine([1, lowered], [up, noise(index)]);
    },
  });
};

/** How far down to step, and how much noise to add, so that both together end at `to`; in single precision like the slope. */
function ancestralStep(from: number, to: number): { down: number; up: number } {
  const f = Math.fround;
  const [from2, to2] = [f(from * from), f(to * to)];
  const up = f(Math.sqrt(f(f(to2 * f(from2 - to2)) / from2)));
  return { up, down: f(Math.sqrt(Math.max(0, f(to2 - f(up * up))))) };
}
