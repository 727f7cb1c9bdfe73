/**
 * What lies in a checkpoint folder. The layout is the one of every ONNX export of Stable Diffusion and its kin
 * (diffusers' script, optimum, Olive): text_encoder (and text_encoder_2, _3), unet or transformer, vae_decoder and
 * perhaps vae_encoder, each with a model.onnx and perhaps a config.json; tokenizer (and tokenizer_2, _3); scheduler;
 * model_index.json.
 */
import { existsSync } from 'node:fs';
import { open, readdir, stat } from 'node:fs/promises';
import { basename, isAbsolute, join, relative, resolve } from 'node:path';
import { withoutMark } from '../bytes';
import { MultiDiffusionError } from '../errors';
import { checkRegular, readRegular, UnusableFileError } from '../files/regular-file';
import { MAX_NAME_LENGTH } from '../limits';
import { parsePythonJson } from '../schedulers/config';
import type { SchedulerConfig } from '../schedulers/scheduler';
import { readManifest } from '../hub/manifest';
import {
  bindDenoiser,
  lastState,
  penultimateState,
  pooledState,
  projectedText,
  type EncoderOutputs,
} from '../inference/bindings';
import type { Component } from '../inference/protocol';
import { excessInText, FILE_BOUNDS, MESSAGE_BOUNDS } from '../json';
import { readOnnxHeader, type OnnxHeader } from '../onnx/header';
import { DamagedMessageError } from '../onnx/protobuf';
import { FAMILIES, type EncoderRole, type Family, type FamilyName } from './families';

export interface OnnxModel extends OnnxHeader {
  path: string;
  /** Bytes, external data included. */
  bytes: number;
  /** The config.json beside it; empty when there is none. */
  config: Record<string, unknown>;
}

/** A text encoder, its tokenizer, and the names of the outputs that are taken. */
export interface TextEncoder extends EncoderOutputs {
  component: Component;
  role: EncoderRole;
  model: OnnxModel;
  tokenizerFolder: string;
  tokenizerConfig: Record<string, unknown>;
}

export interface CheckpointLayout {
  folder: string;
  name: string;
  family: Family;
  /** In the order of their folders; one that is left out is missing. */
  textEncoders: TextEncoder[];
  /** The model that predicts. */
  denoiser: OnnxModel & { component: 'unet' | 'transformer' };
  vaeDecoder: OnnxModel;
  vaeEncoder?: OnnxModel;
  schedulerConfig: SchedulerConfig;
  /** model_index.json; empty when there is none. */
  index: Record<string, unknown>;
  /** Every word the model knows, where the folder has a vocabulary.json. */
  vocabulary?: string[];
}

/** Suffixes of text_encoder and tokenizer, and what their models are called inside. */
const ENCODER_PLACES = [
  ['', 'textEncoder'],
  ['_2', 'textEncoder2'],
  ['_3', 'textEncoder3'],
] as const;

const EXPORT_AGAIN = 'Export it with optimum: optimum-cli export onnx --model <model> <folder>.';

/**
 * Reads the folder without loading any weights.
 * @throws MultiDiffusionError CHECKPOINT with one sentence for each file that is missing, damaged or not
 *   understood, and what to do
 */
export async function readLayout(folder: string): Promise<CheckpointLayout> {
  const root = resolve(folder);
  if (!(await isFolder(root))) {
    throw checkpointError(
      `The checkpoint folder ${root} does not exist. Check its path, or fetch the checkpoint first.`,
    );
  }
  if (existsSync(join(root, 'transformer.opt')) || existsSync(join(root, 't5.opt'))) {
    throw checkpointError(
      `${root} holds the ONNX files that Black Forest Labs made for TensorRT, which ONNX Runtime does not run. ${EXPORT_AGAIN}`,
    );
  }

  const problems: string[] = [];
  const collect = async <T>(reading: Promise<T>): Promise<T | undefined> => {
    try {
      return await reading;
    } catch (error) {
      if (!(error instanceof MultiDiffusionError)) throw error;
      problems.push(error.message);
      return undefined;
    }
  };
  const component = existsSync(join(root, 'transformer')) && !existsSync(join(root, 'unet')) ? 'transformer' : 'unet';
  const [denoiser, vaeDecoder, vaeEncoder, schedulerConfig, index, vocabulary, manifest] = await Promise.all([
    collect(readModel(root, component)),
    collect(readModel(root, 'vae_decoder')),
    existsSync(join(root, 'vae_encoder')) ? collect(readModel(root, 'vae_encoder')) : undefined,
    collect(readScheduler(root)),
    collect(readJson(join(root, 'model_index.json'))),
    collect(readVocabulary(root)),
    readManifest(root),
  ]);
  if (denoiser) problems.push(...checkDenoiser(denoiser));
  const family = FAMILIES[denoiser ? familyOf(denoiser) : 'stable-diffusion'];
  const textEncoders = await readTextEncoders(root, family, denoiser, collect);
  if (problems.length > 0 || !denoiser || !vaeDecoder || !schedulerConfig) throw checkpointError(problems.join(' '));
  return {
    folder: root,
    name: manifest ? `${manifest.repository}@${manifest.commit.slice(0, 7)}` : nameOf(root, index),
    family,
    textEncoders,
    denoiser: { ...denoiser, component },
    vaeDecoder,
    vaeEncoder,
    schedulerConfig,
    index: index ?? {},
    vocabulary,
  };
}

/** Which family a denoiser is of, by what it asks for. */
function familyOf({ inputs: values }: OnnxModel): FamilyName {
  const { inputs } = bindDenoiser(values);
  if (inputs.imageIds || inputs.sample?.shape.length === 3) return 'flux';
  if (inputs.timeIds) return 'sdxl';
  return inputs.pooled ? 'sd3' : 'stable-diffusion';
}

type Collect = <T>(reading: Promise<T>) => Promise<T | undefined>;

/** The encoders that the family has, each checked for what is taken from it. */
async function readTextEncoders(
  root: string,
  family: Family,
  denoiser: OnnxModel | undefined,
  collect: Collect,
): Promise<TextEncoder[]> {
  // The refiner of Stable Diffusion XL has the second encoder alone.
  const refiner = family.name === 'sdxl' && !existsSync(join(root, 'text_encoder'));
  const read = family.encoders.map(async (role, i) => {
    const [suffix, component] = ENCODER_PLACES[i];
    const folder = `text_encoder${suffix}`;
    if (!existsSync(join(root, folder)) && (role.optional || (refiner && i === 0))) return undefined;
    const [model, tokenizerConfig] = await Promise.all([
      collect(readModel(root, folder)),
      collect(readTokenizer(join(root, `tokenizer${suffix}`), role)),
    ]);
    if (!model || !tokenizerConfig) return undefined;
    const outputs = await collect(takenOutputs(model, role, family));
    if (!outputs) return undefined;
    return { component, role, model, tokenizerConfig, tokenizerFolder: join(root, `tokenizer${suffix}`), ...outputs };
  });
  const encoders = (await Promise.all(read)).filter((encoder) => encoder !== undefined);
  if (denoiser && encoders.length === family.encoders.length) await collect(checkWidth(denoiser, encoders));
  return encoders;
}

/**
 * The names of the outputs that a family takes from an encoder.
 * @throws MultiDiffusionError CHECKPOINT when the export left them out
 */
async function takenOutputs({ path, outputs }: OnnxModel, role: EncoderRole, family: Family): Promise<EncoderOutputs> {
  const names = outputs.map(({ name }) => name).join(', ');
  const refuse = (what: string): MultiDiffusionError =>
    checkpointError(
      `${path} does not give ${what}, which ${family.title} needs; its outputs are ${names}. ${EXPORT_AGAIN}`,
    );
  const states = role.states && (role.states === 'penultimate' ? penultimateState(outputs) : lastState(outputs));
  if (role.states && states === undefined) throw refuse('the hidden state before the last layer (hidden_states.N)');
  const pooled = role.pooled && (role.pooled === 'projected' ? projectedText(outputs) : pooledState(outputs));
  if (role.pooled && pooled === undefined)
    throw refuse(role.pooled === 'projected' ? 'the projected text (text_embeds)' : 'a pooled output (pooler_output)');
  return { states, pooled };
}

/** Encoders and denoiser of different models in one folder are told before anything is loaded. */
async function checkWidth(denoiser: OnnxModel, encoders: TextEncoder[]): Promise<void> {
  const { states: wanted } = bindDenoiser(denoiser.inputs).inputs;
  const width = wanted?.shape.at(-1);
  const widths = encoders.flatMap(({ model, role, states }) => {
    const found = model.outputs.find(({ name }) => name === states)?.shape.at(-1);
    return states === undefined ? [] : [{ kind: role.kind, width: found }];
  });
  if (typeof width !== 'number' || widths.some((each) => typeof each.width !== 'number')) return;
  const sum = (kind: string): number =>
    widths.reduce((total, each) => total + (each.kind === kind ? (each.width as number) : 0), 0);
  const given = sum('t5') || sum('clip');
  if (given !== width) {
    throw checkpointError(
      `${denoiser.path} takes text embeddings ${width} wide, and the text encoders beside it give ` +
        `${given}: they belong to different models.`,
    );
  }
}

/** What follows the last slash of either kind, without control characters: a model may have been exported on Windows. */
function shownName(path: string): string {
  const parts = path
    .slice(-4096)
    .split(/[\\/]/)
    .filter((part) => part.trim() !== '');
  // eslint-disable-next-line no-control-regex
  return (parts.at(-1) ?? '').replace(/[\u0000-\u001f\u007f]/g, '').slice(0, MAX_NAME_LENGTH);
}

function nameOf(root: string, index: Record<string, unknown> | undefined): string {
  const stated = index?._name_or_path;
  const name = typeof stated === 'string' ? stated : '';
  return shownName(name) || shownName(root) || 'checkpoint';
}

async function readModel(root: string, component: string): Promise<OnnxModel> {
  const folder = join(root, component);
  const path = join(folder, 'model.onnx');
  if (!existsSync(path)) throw checkpointError(await explainMissing(root, component, path));
  await requireRegular(path);
  const damaged = (reason: string): MultiDiffusionError =>
    checkpointError(`${path} is damaged: ${reason}. Fetch or export it again.`);

  if (await isGitLfsPointer(path)) {
    throw checkpointError(
      `${path} is a Git LFS pointer, not the model itself. Run "git lfs pull" in its repository, or download the file.`,
    );
  }
  let header: OnnxHeader;
  try {
    header = await readOnnxHeader(path);
  } catch (error) {
    if (error instanceof DamagedMessageError) throw damaged(error.message);
    throw checkpointError(`${path} cannot be read (${(error as Error).message}).`, error);
  }

  let bytes = (await stat(path)).size;
  for (const [location, needed] of header.externalData) {
    const data = resolve(folder, location);
    if (isAbsolute(location) || relative(folder, data).startsWith('..'))
      throw damaged(`its weights point outside its folder, to ${JSON.stringify(location)}`);
    if (!existsSync(data))
      throw checkpointError(
        `${data} is missing: ${component}/model.onnx keeps its weights there. Put it beside model.onnx.`,
      );
    await requireRegular(data);
    const { size } = await stat(data);
    if (size < needed) {
      throw checkpointError(
        `${data} is damaged: it has ${size} bytes, and ${component}/model.onnx expects at least ${needed}. Fetch or export it again.`,
      );
    }
    bytes += size;
  }
  const config = (await readJson(join(folder, 'config.json'))) ?? {};
  return { ...header, path, bytes, config };
}

/** Why a model.onnx may be missing, and what to do about it. */
async function explainMissing(root: string, component: string, path: string): Promise<string> {
  const folder = join(root, component);
  const files = (await isFolder(folder)) ? await readdir(folder) : [];
  const others = files.filter((file) => file.endsWith('.onnx'));
  if (others.length > 0) return `${path} is missing; rename ${others.join(' or ')} in that folder to model.onnx.`;
  const torch = [...files, ...(await readdir(root))].some((file) => /\.(safetensors|bin|ckpt)$/.test(file));
  if (torch || existsSync(join(root, 'vae'))) {
    return (
      `${path} is missing: the folder holds weights for PyTorch. Convert them first: ` +
      'optimum-cli export onnx --model <folder> <new folder>.'
    );
  }
  return `${path} is missing. A checkpoint folder needs text_encoder, unet (or transformer) and vae_decoder, each with its model.onnx.`;
}

function checkDenoiser({ path, inputs: values }: OnnxModel): string[] {
  const { missing, unknown } = bindDenoiser(values);
  const names = values.map((input) => input.name).join(', ');
  return [
    ...missing.map((name) => `${path} has no input ${name}; its inputs are ${names}. It is no model that denoises.`),
    ...unknown.map(
      (input) => `${path} asks for an input ${input.name}, which is not understood; its inputs are ${names}.`,
    ),
  ];
}

async function readScheduler(root: string): Promise<SchedulerConfig> {
  const path = join(root, 'scheduler', 'scheduler_config.json');
  const config = await readJson(path, parsePythonJson);
  if (!config)
    throw checkpointError(`${path} is missing; copy it from the repository that the checkpoint was made of.`);
  return config;
}

async function readTokenizer(folder: string, { kind }: EncoderRole): Promise<Record<string, unknown>> {
  const has = (name: string): boolean => existsSync(join(folder, name));
  if (kind === 't5' && !has('tokenizer.json')) {
    throw checkpointError(
      `${join(folder, 'tokenizer.json')} is missing: a T5 text encoder needs it. ` +
        'Copy it from the repository that the checkpoint was made of, or write it with transformers: ' +
        'AutoTokenizer.from_pretrained("<model>", ' +
        `subfolder="${basename(folder)}").save_pretrained("${basename(folder)}").`,
    );
  }
  if (!has('tokenizer.json')) {
    for (const name of ['vocab.json', 'merges.txt']) {
      if (!has(name))
        throw checkpointError(
          `${join(folder, name)} is missing; copy the tokenizer folder from the repository that the checkpoint was made of.`,
        );
    }
  }
  await Promise.all(
    ['vocab.json', 'tokenizer.json', 'special_tokens_map.json', 'added_tokens.json'].map((name) =>
      readJson(join(folder, name), JSON.parse, MOST_TOKENIZER, FILE_BOUNDS),
    ),
  );
  // Read by the inference process.
  const merges = join(folder, 'merges.txt');
  await requireRegular(merges);
  const { size } = (await stat(merges).catch(() => undefined)) ?? { size: 0 };
  if (size > MOST_TOKENIZER)
    throw checkpointError(`${merges} cannot be used: it has ${size} bytes, and ${MOST_TOKENIZER} are read at most.`);
  return (await readJson(join(folder, 'tokenizer_config.json'))) ?? {};
}

async function readVocabulary(root: string): Promise<string[] | undefined> {
  const path = join(root, 'vocabulary.json');
  const json = await readJson(path);
  if (!json) return undefined;
  if (!Array.isArray(json.words) || json.words.some((word) => typeof word !== 'string')) {
    throw checkpointError(`${path} is not understood: it should be {"words": [...]}, a list of texts.`);
  }
  return json.words.map((word: string) => word.toLowerCase());
}

/** Bytes of a configuration, and of a tokenizer's files; both are parsed in Node-RED's own thread. */
const MOST_JSON = 2 ** 20;
const MOST_TOKENIZER = 8 * 2 ** 20;

/** @throws MultiDiffusionError CHECKPOINT when something is there that is no regular file */
async function requireRegular(path: string): Promise<void> {
  try {
    await checkRegular(path);
  } catch (error) {
    throw checkpointError(`${path} cannot be used: ${(error as Error).message}.`, error);
  }
}

/** The file's JSON object, or undefined when there is no such file. */
async function readJson(
  path: string,
  parse: (text: string) => unknown = JSON.parse,
  most = MOST_JSON,
  bounds = MESSAGE_BOUNDS,
): Promise<Record<string, unknown> | undefined> {
  if (!existsSync(path)) return undefined;
  let json: unknown;
  try {
    const text = withoutMark((await readRegular(path, most)).toString('utf8'));
    const excess = excessInText(text, bounds);
    if (excess) throw new UnusableFileError(`it is ${excess.found} than any such file (${excess.allowed})`);
    json = parse(text);
  } catch (error) {
    if (error instanceof UnusableFileError) throw checkpointError(`${path} cannot be used: ${error.message}.`, error);
    if ((error as NodeJS.ErrnoException).code)
      throw checkpointError(`${path} cannot be read (${(error as Error).message}).`, error);
    throw checkpointError(`${path} is damaged: it is not JSON. Fetch it again.`);
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw checkpointError(`${path} is damaged: it holds no JSON object. Fetch it again.`);
  return json as Record<string, unknown>;
}

async function isGitLfsPointer(path: string): Promise<boolean> {
  const file = await open(path, 'r');
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(64), 0, 64, 0);
    return buffer.toString('latin1', 0, bytesRead).startsWith('version https://git-lfs');
  } finally {
    await file.close();
  }
}

async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
}

function checkpointError(message: string, cause?: unknown): MultiDiffusionError {
  return new MultiDiffusionError('CHECKPOINT', message, { cause });
}
