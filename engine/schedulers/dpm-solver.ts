import { InvalidInputError } from '../errors';
import type { Tensor } from '../tensor';
import {
  checkFlow,
  clip,
  combine,
  makeScheduler,
  predictedNoise,
  predictedOriginal,
  type SchedulerFactory,
} from './common';
import {
  COMMON_FIELDS,
  FLOW_PREDICTION,
  SIGMA_FIELDS,
  THRESHOLD_FIELDS,
  ZERO_SNR_FIELDS,
  choice,
  flag,
  integer,
  number,
  readFields,
  spacing,
  type Field,
} from './config';
import { FLOW_SIGMA_FIELDS } from './flow';
import { flowLevel, lambda, levelOfSigma, trainingSigmas } from './level';
import { flowDpmSchedule, solverSchedule } from './solver-schedule';

/** Only learned variances matter: they would double the model's channels. */
const notLearned: Field<string | undefined> = {
  fallback: undefined,
  allowed: 'none, or a fixed one',
  read: (value) => (typeof value === 'string' && !value.startsWith('learned') ? value : undefined),
};

const FIELDS = {
  ...COMMON_FIELDS,
  ...SIGMA_FIELDS,
  ...THRESHOLD_FIELDS,
  ...ZERO_SNR_FIELDS,
  ...FLOW_SIGMA_FIELDS,
  prediction_type: FLOW_PREDICTION,
  timestep_spacing: spacing('linspace'),
  solver_order: integer(2, 1, 3),
  algorithm_type: choice('dpmsolver++', ['dpmsolver++', 'sde-dpmsolver++', 'dpmsolver', 'sde-dpmsolver'], {
    deis: 'dpmsolver++',
  }),
  solver_type: choice('midpoint', ['midpoint', 'heun'], { logrho: 'midpoint', bh1: 'midpoint', bh2: 'midpoint' }),
  lower_order_final: flag(true),
  euler_at_final: flag(false),
  use_lu_lambdas: flag(false),
  final_sigmas_type: choice('zero', ['zero', 'sigma_min']),
  lambda_min_clipped: number(-Infinity),
  variance_type: notLearned,
};

/** With fewer steps than this, lower_order_final lets the order fall towards the end. */
const FEW_STEPS = 15;

type Latents = Tensor<'float32'>;

/**
 * DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095), its predecessor DPM-Solver (2206.00927) and their
 * stochastic forms, multistep, of order 1 to 3. In the paper's terms: from s to t, λ = log(α/σ), h = λ_t − λ_s.
 */
export const dpmSolver: SchedulerFactory = (config, steps, { startStep, ...run }) => {
  const name = 'DPMSolverMultistepScheduler';
  const fields = readFields(name, FIELDS, config);
  checkFlow(name, fields);
  const flow = fields.use_flow_sigmas;
  const { prediction_type: type, solver_order, lower_order_final } = fields;
  const plusPlus = fields.algorithm_type.endsWith('++'); // solves for the picture, the older one for the noise
  const stochastic = fields.algorithm_type.startsWith('sde');
  if (!plusPlus && fields.final_sigmas_type === 'zero') {
    throw new InvalidInputError(
      'final_sigmas_type',
      'zero',
      `sigma_min where algorithm_type is ${fields.algorithm_type} (${name})`,
    );
  }
  if (fields.algorithm_type === 'sde-dpmsolver' && solver_order === 3)
    throw new InvalidInputError('solver_order', 3, `1, 2 for sde-dpmsolver (${name})`);

  const table = trainingSigmas(fields);
  const clipped = table.filter((sigma) => lambda(levelOfSigma(sigma)) < fields.lambda_min_clipped).length;
  const from = fields.num_train_timesteps - clipped;
  const round = fields.beta_schedule !== 'squaredcos_cap_v2';
  const schedule = flow ? flowDpmSchedule(fields, steps, run) : solverSchedule(fields, steps, table, { from, round });
  const count = schedule.timesteps.length;
  const timesteps = schedule.timesteps.slice(startStep);
  const sigmas = [...schedule.sigmas, fields.final_sigmas_type === 'zero' ? 0 : table[0]].slice(startStep);
  const levels = sigmas.map(flow ? flowLevel : levelOfSigma);
  const lambdas = levels.map(lambda);

  const orderAt = (index: number): number => {
    const left = timesteps.length - index; // steps, this one included
    const falling = lower_order_final && count < FEW_STEPS;
    const first = left === 1 && (fields.euler_at_final || falling || fields.final_sigmas_type === 'zero');
    const still = sigmas[index + 1] === sigmas[index]; // no step at all: the higher orders divide by its length
    if (first || still) return 1;
    return Math.min(solver_order, index + 1, falling ? Math.max(left, 1) : 3);
  };

  const predicted = (output: Latents, index: number, sample: Latents): Latents => {
    if (plusPlus) return clip(fields, predictedOriginal(type, output, sample, levels[index]));
    if (!fields.thresholding) return predictedNoise(type, output, sample, levels[index]);
    return predictedNoise(
      'sample',
      clip(fields, predictedOriginal(type, output, sample, levels[index])),
      sample,
      levels[index],
    );
  };

  let history: Latents[] = []; // predictions, newest first

  return makeScheduler({
    name,
    config,
    predictionType: type,
    timesteps,
    sigmas,
    levels: levels.slice(0, -1),
    initNoiseSigma: 1,
    advance(output, index, sample, noise) {
      history = [predicted(output, index, sample), ...history].slice(0, solver_order);
      const [s, t] = [levels[index], levels[index + 1]];
      const h = lambdas[index + 1] - lambdas[index];
      const order = orderAt(index);

      // Exact for a constant prediction; each higher order adds a term of its Taylor series in λ.
      const z = plusPlus ? (stochastic ? -2 * h : -h) : h;
      const phi1 = Math.expm1(z);
      const phi2 = phi1 / z - 1;
      const phi3 = (phi1 - z) / z ** 2 - 0.5;
      const scale = plusPlus ? -t.alpha : -t.sigma * (stochastic ? 2 : 1);
      const kept = plusPlus ? (t.sigma / s.sigma) * (stochastic ? Math.exp(-h) : 1) : t.alpha / s.alpha;
      const terms: [number, Latents][] = [
        [kept, sample],
        [scale * phi1, history[0]],
      ];
      if (order > 1) {
        const [d1, d2] = differences(history, index, order);
        terms.push([scale * (order === 2 && fields.solver_type === 'midpoint' ? phi1 / 2 : phi2), d1]);
        // diffusers' stochastic third order has −½ for +½ in its φ₃; the same here, so that results agree.
        if (d2) terms.push([scale * (stochastic ? phi3 + 1 : phi3), d2]);
      }
      if (stochastic)
        terms.push([t.sigma * Math.sqrt(plusPlus ? -Math.expm1(-2 * h) : Math.expm1(2 * h)), noise(index)]);
      return combine(...terms);
    },
  });

  /** Divided differences of the predictions over λ, in units of h: about the first and second derivative. */
  function differences([m0, m1, m2]: Latents[], index: number, order: number): Latents[] {
    const h = lambdas[index + 1] - lambdas[index];
    const r0 = (lambdas[index] - lambdas[index - 1]) / h;
    const near = combine([1 / r0, m0], [-1 / r0, m1]);
    if (order === 2) return [near];
    const r1 = (lambdas[index - 1] - lambdas[index - 2]) / h;
    const far = combine([1 / r1, m1], [-1 / r1, m2]);
    const weight = r0 / (r0 + r1);
    return [combine([1 + weight, near], [-weight, far]), combine([1 / (r0 + r1), near], [-1 / (r0 + r1), far])];
  }
};
