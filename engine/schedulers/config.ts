/**
 * Reading scheduler_config.json: each scheduler lists the fields it knows with their defaults (those of the
 * same class in 🤗 diffusers), a value that it can't honour is an error, and fields it doesn't know are
 * left alone, for files keep fields of other schedulers that they were converted from.
 */
import { InvalidInputError } from '../errors';
import type { PredictionType, SchedulerConfig } from './scheduler';

export interface Field<T> {
  readonly fallback: T;
  readonly allowed: string;
  /** The value as it is used, or undefined when it isn't allowed. */
  read(value: unknown): T | undefined;
}

export type Fields = Record<string, Field<unknown>>;
export type FieldValues<F extends Fields> = { [K in keyof F]: F[K] extends Field<infer T> ? T : never };

/**
 * The values of `fields` in a configuration.
 * @throws InvalidInputError naming the field, its value and what is supported
 */
export function readFields<F extends Fields>(scheduler: string, fields: F, config: SchedulerConfig): FieldValues<F> {
  // diffusers lists here what was only a default when the file was written; such values don't count.
  const defaulted = Array.isArray(config._use_default_values) ? config._use_default_values : [];
  const values: Record<string, unknown> = {};
  for (const [name, field] of Object.entries(fields)) {
    const value = config[name];
    const absent = value === undefined || value === null || defaulted.includes(name);
    values[name] = absent ? field.fallback : field.read(value);
    if (values[name] === undefined && !absent)
      throw new InvalidInputError(name, value, `${field.allowed} (${scheduler})`);
  }
  return values as FieldValues<F>;
}

export function flag(fallback: boolean): Field<boolean> {
  return { fallback, allowed: 'true or false', read: (value) => (typeof value === 'boolean' ? value : undefined) };
}

/** A switch for something that isn't built here. */
export function unsupportedFlag(instead: string): Field<false> {
  return { fallback: false, allowed: `false; ${instead}`, read: (value) => (value === false ? false : undefined) };
}

/** A field that must be absent, null or empty. */
export function unsupported(): Field<null> {
  return { fallback: null, allowed: 'none', read: () => undefined };
}

export function number(fallback: number, min = -Infinity, max = Infinity): Field<number> {
  return {
    fallback,
    allowed: min > -Infinity ? `a number from ${min}${max < Infinity ? ` to ${max}` : ''}` : 'a number',
    read: (value) => (typeof value === 'number' && value >= min && value <= max ? value : undefined),
  };
}

export function integer(fallback: number, min: number, max: number): Field<number> {
  return {
    fallback,
    allowed: `a whole number from ${min} to ${max}`,
    read: (value) =>
      Number.isInteger(value) && (value as number) >= min && (value as number) <= max ? (value as number) : undefined,
  };
}

/** A number that is missing unless it is given. */
export function optionalNumber(min: number): Field<number | undefined> {
  return { ...number(0, min), fallback: undefined };
}

export function numbers(): Field<number[] | undefined> {
  return {
    fallback: undefined,
    allowed: 'a list of numbers',
    read: (value) => (Array.isArray(value) && value.every((x) => typeof x === 'number') ? value : undefined),
  };
}

/** @param synonyms values of related schedulers, and what stands for them here */
export function choice<T extends string>(
  fallback: T,
  choices: readonly T[],
  synonyms: Record<string, T> = {},
): Field<T> {
  return {
    fallback,
    allowed: choices.join(', '),
    read: (value) =>
      choices.includes(value as T)
        ? (value as T)
        : Object.hasOwn(synonyms, String(value))
          ? synonyms[String(value)]
          : undefined,
  };
}

/** Fields that every scheduler has. */
export const COMMON_FIELDS = {
  num_train_timesteps: integer(1000, 1, 100_000),
  beta_start: number(0.0001, 0, 1),
  beta_end: number(0.02, 0, 1),
  beta_schedule: choice('linear', ['linear', 'scaled_linear', 'squaredcos_cap_v2']),
  trained_betas: numbers(),
  prediction_type: choice<PredictionType>('epsilon', ['epsilon', 'v_prediction', 'sample']),
  steps_offset: integer(0, 0, 100_000),
};

/** Of the solvers that can follow a flow too. */
export const FLOW_PREDICTION = choice<PredictionType>('epsilon', [
  'epsilon',
  'v_prediction',
  'sample',
  'flow_prediction',
]);

const SPACINGS = ['leading', 'trailing', 'linspace'] as const;
/** How the timesteps are spread: table 2 of Lin et al. 2023, “Common Diffusion Noise Schedules and Sample Steps are Flawed”. */
export const spacing = (fallback: (typeof SPACINGS)[number]) => choice(fallback, SPACINGS);

/** Betas rescaled so that nothing of the picture is left at the last timestep (same paper, algorithm 1). */
export const ZERO_SNR_FIELDS = { rescale_betas_zero_snr: flag(false) };

/** Dynamic thresholding of the predicted original (Saharia et al. 2022, “Imagen”, section 2.3). */
export const THRESHOLD_FIELDS = {
  thresholding: flag(false),
  dynamic_thresholding_ratio: number(0.995, 0, 1),
  sample_max_value: number(1, 1),
};

/** Clipping or thresholding of the predicted original. */
export const CLIP_FIELDS = { clip_sample: flag(true), clip_sample_range: number(1, 0), ...THRESHOLD_FIELDS };

/** Ways to spread the noise levels themselves instead of the timesteps. */
export const SIGMA_FIELDS = {
  use_karras_sigmas: flag(false),
  use_exponential_sigmas: flag(false),
  use_beta_sigmas: flag(false),
  sigma_min: optionalNumber(0),
  sigma_max: optionalNumber(0),
};

/**
 * Parses JSON as Python writes it: diffusers puts `-Infinity`, which is no JSON, into every
 * DPMSolverMultistepScheduler's file. NaN becomes null.
 * @throws SyntaxError when it isn't JSON otherwise
 */
export function parsePythonJson(text: string): unknown {
  // A text that is never closed ends the search: it is looked through once.
  const json = text.replace(/"[^"\\]*(?:\\[^][^"\\]*)*"?|-?Infinity|NaN/g, (token) => {
    if (token.startsWith('"')) return token;
    return token === 'NaN' ? 'null' : token.replace('Infinity', '1e999'); // beyond what a number holds, so infinite
  });
  return JSON.parse(json);
}
