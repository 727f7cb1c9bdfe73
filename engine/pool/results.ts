/** What came out of Redis, checked: results as a client takes them, requests as a worker does. */
import { InvalidInputError, MultiDiffusionError } from '../errors';
import type { CallName, Calls } from '../inference/protocol';
import type { ModelFacts } from '../model';
import type { SampleResult } from '../multidiffusion/sample';
import { findNotFinite, isTensor, Tensor } from '../tensor';

type Fields = Record<string, unknown>;

const MOST_PROMPTS = 1000;
const LONGEST_PROMPT = 100_000;
const MOST_TOKENS = 100_000;
const MOST_ROWS = 4096;

/** @throws MultiDiffusionError INFERENCE when it is no result of such a request */
export function readCallResult<N extends CallName>(
  name: N,
  value: unknown,
  params: Calls[N]['params'],
  facts: ModelFacts,
): Calls[N]['result'] {
  const good = (condition: boolean): void => {
    if (!condition) throw strange(name);
  };
  switch (name as CallName) {
    case 'load':
      return undefined as Calls[N]['result'];
    case 'encodePrompts': {
      const { prompts } = params as Calls['encodePrompts']['params'];
      good(Array.isArray(value) && value.length === prompts.length);
      for (const entry of value as Fields[]) {
        good(isFields(entry));
        const { embeddings, pooled, tokenIds, truncated } = entry;
        good(isEmbedding(embeddings, 3) && (pooled === undefined || isEmbedding(pooled, 2)));
        good(Array.isArray(tokenIds) && tokenIds.length <= MOST_TOKENS && tokenIds.every(Number.isSafeInteger));
        good(truncated === undefined || typeof truncated === 'string');
      }
      return value as Calls[N]['result'];
    }
    case 'predict': {
      const { latents, dims, inputOf } = params as Calls['predict']['params'];
      good(isFields(value));
      const { outputs, runMilliseconds } = value as Fields;
      const rows = inputOf?.length ?? dims[0];
      good(isFloat32(outputs) && outputs.length === (latents.length / dims[0]) * rows);
      good(typeof runMilliseconds === 'number' && runMilliseconds >= 0);
      return value as Calls[N]['result'];
    }
    case 'decode': {
      const { dims } = params as Calls['decode']['params'];
      const [, , height, width] = dims;
      good(isFields(value));
      const { pixels, dims: size } = value as Fields;
      const wanted = [height * facts.latentFactor, width * facts.latentFactor, 3];
      good(pixels instanceof Uint8Array && fits(size, pixels) && String(size) === wanted.join());
      return value as Calls[N]['result'];
    }
    case 'encodeImages': {
      const { dims } = params as Calls['encodeImages']['params'];
      good(isFields(value));
      const { latents, dims: size } = value as Fields;
      const wanted = [dims[0], facts.latentChannels, dims[1] / facts.latentFactor, dims[2] / facts.latentFactor];
      good(isFloat32(latents) && fits(size, latents) && String(size) === wanted.join());
      return value as Calls[N]['result'];
    }
    default:
      throw strange(name);
  }
}

/**
 * Parameters of a call, from whoever could write into Redis.
 * @throws InvalidInputError
 */
export function readCallParams<N extends CallName>(name: N, value: unknown, facts: ModelFacts): Calls[N]['params'] {
  const check = (condition: boolean, what: string, allowed: string): void => {
    if (!condition) throw new InvalidInputError(`${name}.${what}`, isFields(value) ? value[what] : value, allowed);
  };
  check(isFields(value), 'parameters', 'an object');
  const params = value as Fields;
  switch (name as CallName) {
    case 'load':
      return {} as Calls[N]['params'];
    case 'encodePrompts': {
      const { prompts } = params;
      const texts =
        Array.isArray(prompts) &&
        prompts.length <= MOST_PROMPTS &&
        prompts.every((prompt) => typeof prompt === 'string' && prompt.length <= LONGEST_PROMPT);
      check(texts, 'prompts', `up to ${MOST_PROMPTS} texts of up to ${LONGEST_PROMPT} characters`);
      break;
    }
    case 'predict': {
      const { latents, dims, inputOf, timestep, embeddings, pooled, guidanceScales, timeIds } = params;
      check(isFloat32(latents) && isLatents(dims, facts) && fits(dims, latents), 'latents', 'latents of this model');
      const inputs = (dims as number[])[0];
      const rowOfInput = (input: unknown): boolean =>
        Number.isInteger(input) && (input as number) >= 0 && (input as number) < inputs;
      check(inputOf === undefined || isList(inputOf, MOST_ROWS, rowOfInput), 'inputOf', 'an input for each row');
      const rows = inputOf === undefined ? inputs : (inputOf as unknown[]).length;
      check(rows >= 1 && rows <= MOST_ROWS, 'dims', `up to ${MOST_ROWS} rows`);
      check(Number.isFinite(timestep), 'timestep', 'a number');
      const isKey = (key: unknown): boolean => typeof key === 'string' && key.length <= 100;
      check(
        isList(embeddings, rows, isKey) && (embeddings as unknown[]).length === rows,
        'embeddings',
        'a key for each row',
      );
      check(
        pooled === undefined || (isList(pooled, rows, isKey) && (pooled as unknown[]).length === rows),
        'pooled',
        'a key for each row',
      );
      const isSizes = (sizes: unknown): boolean =>
        isList(sizes, 6, Number.isFinite) && (sizes as unknown[]).length === facts.timeIds;
      check(
        timeIds === undefined || (isList(timeIds, rows, isSizes) && (timeIds as unknown[]).length === rows),
        'timeIds',
        'sizes for each row',
      );
      check(
        guidanceScales === undefined ||
          (isList(guidanceScales, rows, Number.isFinite) && (guidanceScales as unknown[]).length === rows),
        'guidanceScales',
        'a number for each row',
      );
      break;
    }
    case 'decode': {
      const { latents, dims, tileSize, overlap, circular } = params;
      const one = isLatents(dims, facts) && (dims as number[])[0] === 1;
      check(isFloat32(latents) && one && fits(dims, latents), 'latents', 'latents of this model');
      const whole = (size: unknown, least: number): boolean =>
        size === undefined || (Number.isInteger(size) && (size as number) >= least);
      check(whole(tileSize, 8), 'tileSize', 'a whole number of latent cells, 8 or more');
      check(whole(overlap, 0), 'overlap', 'a whole number of latent cells, 0 or more');
      check(circular === undefined || typeof circular === 'boolean', 'circular', 'true or false');
      break;
    }
    case 'encodeImages': {
      const { pixels, dims } = params;
      const shaped = isList(dims, 4, isSize) && (dims as number[]).length === 4 && (dims as number[])[3] === 3;
      check(pixels instanceof Uint8Array && shaped && fits(dims, pixels), 'pixels', 'RGB pictures');
      break;
    }
    default:
      throw new InvalidInputError('job', name, 'a call that the pool knows');
  }
  return params as unknown as Calls[N]['params'];
}

/** A prompt's numbers as they cross: in single or half precision. */
function isEmbedding(value: unknown, rank: number): boolean {
  if (!isFields(value) || !isFloats(value.data) || !fits(value.dims, value.data)) return false;
  return (value.dims as number[]).length === rank && value.dtype === (isFloat32(value.data) ? 'float32' : 'float16');
}

/** The tensors that a call's parameters name. @throws InvalidInputError */
export function readHeld(value: unknown): Tensor[] {
  if (!Array.isArray(value) || value.length > 2 * MOST_ROWS || !value.every(isTensor))
    throw new InvalidInputError('held', value, 'tensors');
  return value.map((tensor) => Tensor.from(tensor, 'held'));
}

/** @throws MultiDiffusionError INFERENCE when it is no picture's latents */
export function readSampleResult(value: unknown, facts: ModelFacts): SampleResult {
  if (!isFields(value)) throw strange('sample');
  const { latents, width, height, seed, steps, scheduler, findings, timings } = value;
  const { latentChannels, latentFactor } = facts;
  const good =
    isTensor(latents) &&
    latents.dtype === 'float32' &&
    isSize(width) &&
    isSize(height) &&
    latents.dims.join() === [1, latentChannels, height / latentFactor, width / latentFactor].join() &&
    findNotFinite((latents as Tensor<'float32'>).data) < 0 &&
    Number.isSafeInteger(seed) &&
    isSize(steps) &&
    typeof scheduler === 'string' &&
    Array.isArray(findings) &&
    findings.length <= 10_000 &&
    findings.every(
      (finding) => isFields(finding) && typeof finding.code === 'string' && typeof finding.message === 'string',
    ) &&
    isFields(timings) &&
    ['unet', 'encode', 'total'].every((phase) => Number.isFinite(timings[phase])) &&
    ['unetRows', 'referenceRows', 'bootstrapEvaluations', 'evaluations', 'views'].every((count) =>
      Number.isFinite(value[count]),
    );
  if (!good) throw strange('sample');
  return value as unknown as SampleResult;
}

/** Steps that a worker tells of: [evaluations done, of how many, timestep] each. */
export function readSteps(value: unknown): Array<[number, number, number]> {
  const isStep = (step: unknown): boolean =>
    isList(step, 3, Number.isFinite) && (step as unknown[]).length === 3 && isSize((step as unknown[])[0]);
  return isList(value, 1000, isStep) ? (value as Array<[number, number, number]>) : [];
}

/** A tensor of a canvas that a preview is made of; undefined for anything else. */
export function readCanvas(value: unknown, facts: ModelFacts): Tensor<'float32'> | undefined {
  const canvas = isTensor(value) && value.dtype === 'float32' && isLatents(value.dims, facts) && value.dims[0] === 1;
  return canvas ? (value as Tensor<'float32'>) : undefined;
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value);
}

function isList(value: unknown, most: number, isEntry: (entry: unknown) => boolean): boolean {
  return Array.isArray(value) && value.length <= most && value.every(isEntry);
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 1;
}

function isLatents(dims: unknown, facts: ModelFacts): boolean {
  return isList(dims, 4, isSize) && (dims as number[]).length === 4 && (dims as number[])[1] === facts.latentChannels;
}

function isFloat32(value: unknown): value is Float32Array {
  return value instanceof Float32Array;
}

function isFloats(value: unknown): value is Float32Array | Uint16Array {
  return value instanceof Float32Array || value instanceof Uint16Array;
}

function fits(dims: unknown, data: { length: number }): boolean {
  return isList(dims, 8, isSize) && (dims as number[]).reduce((a, b) => a * b, 1) === data.length;
}

function strange(name: string): MultiDiffusionError {
  return new MultiDiffusionError('INFERENCE', `What a worker of the pool sent is no result of ${name}.`);
}
