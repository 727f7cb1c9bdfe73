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
  numbers,
  readFields,
  spacing,
  unsupported,
} from './config';
import { FLOW_SIGMA_FIELDS } from './flow';
import { spreading } from './k-diffusion';
import { flowLevel, lambda, levelOfSigma, trainingSigmas } from './level';
import { flowUniPcSchedule, solverSchedule } from './solver-schedule';

const FIELDS = {
  ...COMMON_FIELDS,
  ...SIGMA_FIELDS,
  ...THRESHOLD_FIELDS,
  ...ZERO_SNR_FIELDS,
  ...FLOW_SIGMA_FIELDS,
  prediction_type: FLOW_PREDICTION,
  timestep_spacing: spacing('linspace'),
  solver_order: integer(2, 1, 6),
  predict_x0: flag(true),
  solver_type: choice('bh2', ['bh1', 'bh2'], { midpoint: 'bh2', heun: 'bh2', logrho: 'bh2' }),
  lower_order_final: flag(true),
  disable_corrector: numbers(),
  solver_p: unsupported(),
  final_sigmas_type: choice('zero', ['zero', 'sigma_min']),
};

type Latents = Tensor<'float32'>;

/**
 * UniPC (Zhao et al. 2023, arXiv 2302.04867): a multistep predictor, and a corrector of the same order that
 * amends the sample with the output evaluated at it, without another evaluation.
 */
export const unipc: SchedulerFactory = (config, steps, { startStep, ...run }) => {
  const name = 'UniPCMultistepScheduler';
  const fields = readFields(name, FIELDS, config);
  checkFlow(name, fields);
  const flow = fields.use_flow_sigmas;
  // The noise's part of a flow's solution starts from a signal of 1e-6: in single precision nothing is left of it.
  if (flow && !fields.predict_x0)
    throw new InvalidInputError('predict_x0', false, `true where use_flow_sigmas is true (${name})`);
  const { prediction_type: type, predict_x0: predictOriginal, solver_order } = fields;
  if (!predictOriginal && fields.final_sigmas_type === 'zero') {
    throw new InvalidInputError('final_sigmas_type', 'zero', `sigma_min where predict_x0 is false (${name})`);
  }

  const table = trainingSigmas(fields);
  const schedule = flow
    ? flowUniPcSchedule(fields, steps, run, table)
    : solverSchedule(fields, steps, table, { from: fields.num_train_timesteps, round: true });
  const smallest = flow || spreading(fields) ? schedule.sigmas[steps - 1] : table[0];
  const timesteps = schedule.timesteps.slice(startStep);
  const sigmas = [...schedule.sigmas, fields.final_sigmas_type === 'zero' ? 0 : smallest].slice(startStep);
  const levels = sigmas.map(flow ? flowLevel : levelOfSigma);
  const lambdas = levels.map(lambda);

  const orderAt = (index: number): number => {
    // Without noise at its end, or without any length, a step is exact in first order and undefined in higher ones.
    if (sigmas[index + 1] === 0 || sigmas[index + 1] === sigmas[index]) return 1;
    return Math.min(solver_order, index + 1, fields.lower_order_final ? timesteps.length - index : solver_order);
  };

  /**
   * Equation 3 of the paper (or 8, for the noise): from level `index` to the next, with `order` − 1 earlier
   * predictions, and, for the corrector, the one at the end of the step.
   */
  const update = (
    index: number,
    order: number,
    sample: Latents,
    [m0, ...earlier]: Latents[],
    ahead?: Latents,
  ): Latents => {
    const [s, t] = [levels[index], levels[index + 1]];
    const h = lambdas[index + 1] - lambdas[index];
    const hh = predictOriginal ? -h : h;
    const phi1 = Math.expm1(hh);
    const bh = fields.solver_type === 'bh1' ? hh : phi1;
    const scale = predictOriginal ? t.alpha : t.sigma;

    const points = Array.from({ length: order - 1 }, (_, i) => ({
      r: (lambdas[index - 1 - i] - lambdas[index]) / h,
      output: earlier[i],
    }));
    if (ahead) points.push({ r: 1, output: ahead });
    const weights =
      points.length === 1
        ? [1 / 2]
        : uniWeights(
            points.map(({ r }) => r),
            hh,
            phi1,
            bh,
          );

    let onFirst = -scale * phi1;
    const terms = points.map(({ r, output }, i): [number, Latents] => {
      const weight = (-scale * bh * weights[i]) / r;
      onFirst -= weight; // the points enter by their difference from m0
      return [weight, output];
    });
    return combine([predictOriginal ? t.sigma / s.sigma : t.alpha / s.alpha, sample], [onFirst, m0], ...terms);
  };

  let history: Latents[] = []; // predictions, newest first
  let start: Latents; // the (corrected) sample before the last step
  let lastOrder: number;

  return makeScheduler({
    name,
    config,
    predictionType: type,
    timesteps,
    sigmas,
    levels: levels.slice(0, -1),
    initNoiseSigma: 1,
    advance(output, index, sample) {
      const predicted = predictOriginal
        ? clip(fields, predictedOriginal(type, output, sample, levels[index]))
        : predictedNoise(type, output, sample, levels[index]);
      const correct = index > 0 && !fields.disable_corrector?.includes(startStep + index - 1);
      start = correct ? update(index - 1, lastOrder, start, history, predicted) : sample;
      history = [predicted, ...history].slice(0, solver_order);
      lastOrder = orderAt(index);
      return update(index, lastOrder, start, history);
    },
  });
};

/** The weights of theorem 3.1: Σ w_j r_j^(i−1) = i! φ_(i+1)(hh)·hh^i / B(h), for i = 1 to the number of points. */
function uniWeights(r: number[], hh: number, phi1: number, bh: number): number[] {
  let phi = phi1 / hh - 1;
  let factorial = 1;
  const rows = r.map((_, i) => {
    const row = [...r.map((x) => x ** i), (phi * factorial) / bh];
    factorial *= i + 2;
    phi = phi / hh - 1 / factorial;
    return row;
  });
  return solveLinear(rows);
}

/** Gauss–Jordan elimination of an augmented matrix whose points are all different. */
function solveLinear(rows: number[][]): number[] {
  for (let i = 0; i < rows.length; i++) {
    const pivot = rows.findIndex((row, k) => k >= i && row[i] !== 0);
    [rows[i], rows[pivot]] = [rows[pivot], rows[i]];
    const top = rows[i].map((x) => x / rows[i][i]);
    rows = rows.map((row, k) => (k === i ? top : row.map((x, j) => x - row[i] * top[j])));
  }
  return rows.map((row) => row[row.length - 1]);
}
