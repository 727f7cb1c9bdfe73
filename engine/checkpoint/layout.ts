/**
 * What lies in a checkpoint folder. The layout is the one of every ONNX export of Stable Diffusion
 * (diffusers' script, optimum, Olive): text_encoder, unet, vae_decoder and perhaps vae_encoder, each with a
 * model.onnx and perhaps a config.json; tokenizer; scheduler; model_index.json.
 */
import { existsSync } from 'node:fs';
import { open, readdir, readFile, stat } from 'node:fs/promises';
import { basename, isAbsolute, join, relative, resolve } from 'node:path';
import { MultiDiffusionError } from '../errors';
import { parsePythonJson } from '../schedulers/config';
import type { SchedulerConfig } from '../schedulers/scheduler';
import { readManifest } from './manifest';
import { readOnnxHeader, type OnnxHeader } from './onnx-header';
import { DamagedMessageError } from './protobuf';

export interface OnnxModel extends OnnxHeader {
  path: string;
  /** Bytes, external data included. */
  bytes: number;
  /** The config.json beside it; empty when there is none. */
  config: Record<string, unknown>;
}

export interface CheckpointLayout {
  folder: string;
  name: string;
  textEncoder: OnnxModel;
  unet: OnnxModel;
  vaeDecoder: OnnxModel;
  vaeEncoder?: OnnxModel;
  tokenizerFolder: string;
  tokenizerConfig: Record<string, unknown>;
  schedulerConfig: SchedulerConfig;
  /** Every word the model knows, where the folder has a vocabulary.json. */
  vocabulary?: string[];
}

const UNET_INPUTS = ['sample', 'timestep', 'encoder_hidden_states', 'timestep_cond'];
const SDXL_INPUTS = ['text_embeds', 'time_ids'];

/**
 * Reads the folder without loading any weights.
 * @throws MultiDiffusionError CHECKPOINT with one sentence for each file that is missing, damaged or not
 *   understood, and what to do
 */
export async function readLayout(folder: string): Promise<CheckpointLayout> {
  const root = resolve(folder);
  if (!(await isFolder(root))) {
    throw checkpointError(`The checkpoint folder ${root} does not exist. Check its path, or fetch the checkpoint first.`);
  }
  if (existsSync(join(root, 'text_encoder_2'))) {
    throw checkpointError(
      `${root} holds a Stable Diffusion XL checkpoint (it has text_encoder_2), which needs two text encoders; supported are Stable Diffusion 1 and 2, their distillations and LCMs.`,
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
  const [textEncoder, unet, vaeDecoder, vaeEncoder, schedulerConfig, tokenizerConfig, index, vocabulary, manifest] = await Promise.all([
    collect(readModel(root, 'text_encoder')),
    collect(readModel(root, 'unet')),
    collect(readModel(root, 'vae_decoder')),
    existsSync(join(root, 'vae_encoder')) ? collect(readModel(root, 'vae_encoder')) : undefined,
    collect(readScheduler(root)),
    collect(readTokenizer(root)),
    collect(readJson(join(root, 'model_index.json'))),
    collect(readVocabulary(root)),
    readManifest(root),
  ]);
  if (unet) problems.push(...checkUnet(unet));
  if (problems.length > 0 || !textEncoder || !unet || !vaeDecoder || !schedulerConfig || !tokenizerConfig) {
    throw checkpointError(problems.join(' '));
  }
  return {
    folder: root,
    name: manifest ? `${manifest.repository}@${manifest.commit.slice(0, 7)}` : nameOf(root, index),
    textEncoder,
    unet,
    vaeDecoder,
    vaeEncoder,
    tokenizerFolder: join(root, 'tokenizer'),
    tokenizerConfig,
    schedulerConfig,
    vocabulary,
  };
}

function nameOf(root: string, index: Record<string, unknown> | undefined): string {
  const stated = index?._name_or_path;
  return typeof stated === 'string' && stated !== '' ? basename(stated) : basename(root);
}

async function readModel(root: string, component: string): Promise<OnnxModel> {
  const folder = join(root, component);
  const path = join(folder, 'model.onnx');
  if (!existsSync(path)) throw checkpointError(await explainMissing(root, component, path));
  const damaged = (reason: string): MultiDiffusionError =>
    checkpointError(`${path} is damaged: ${reason}. Fetch or export it again.`);

  if (await isGitLfsPointer(path)) {
    throw checkpointError(`${path} is a Git LFS pointer, not the model itself. Run "git lfs pull" in its repository, or download the file.`);
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
    if (isAbsolute(location) || relative(folder, data).startsWith('..')) throw damaged(`its weights point outside its folder, to ${JSON.stringify(location)}`);
    if (!existsSync(data)) throw checkpointError(`${data} is missing: ${component}/model.onnx keeps its weights there. Put it beside model.onnx.`);
    const { size } = await stat(data);
    if (size < needed) {
      throw checkpointError(`${data} is damaged: it has ${size} bytes, and ${component}/model.onnx expects at least ${needed}. Fetch or export it again.`);
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
    return `${path} is missing: the folder holds weights for PyTorch. Convert them first: optimum-cli export onnx --model <folder> <new folder>.`;
  }
  return `${path} is missing. A checkpoint folder needs text_encoder, unet and vae_decoder, each with its model.onnx.`;
}

function checkUnet(unet: OnnxModel): string[] {
  const names = unet.inputs.map((input) => input.name);
  if (SDXL_INPUTS.some((name) => names.includes(name))) {
    return [`${unet.path} is the UNet of Stable Diffusion XL (it asks for ${SDXL_INPUTS.join(' and ')}), which is not supported; supported are Stable Diffusion 1 and 2, their distillations and LCMs.`];
  }
  const missing = UNET_INPUTS.slice(0, 3).filter((name) => !names.includes(name));
  const unknown = names.filter((name) => !UNET_INPUTS.includes(name));
  return [
    ...missing.map((name) => `${unet.path} has no input ${name}; its inputs are ${names.join(', ')}. It is no UNet of Stable Diffusion.`),
    ...unknown.map((name) => `${unet.path} asks for an input ${name}, which is not understood; understood are ${UNET_INPUTS.join(', ')}.`),
  ];
}

async function readScheduler(root: string): Promise<SchedulerConfig> {
  const path = join(root, 'scheduler', 'scheduler_config.json');
  const config = await readJson(path, parsePythonJson);
  if (!config) throw checkpointError(`${path} is missing; copy it from the repository that the checkpoint was made of.`);
  return config;
}

async function readTokenizer(root: string): Promise<Record<string, unknown>> {
  const folder = join(root, 'tokenizer');
  const has = (name: string): boolean => existsSync(join(folder, name));
  if (!has('tokenizer.json')) {
    for (const name of ['vocab.json', 'merges.txt']) {
      if (!has(name)) throw checkpointError(`${join(folder, name)} is missing; copy the tokenizer folder from the repository that the checkpoint was made of.`);
    }
  }
  await Promise.all(['vocab.json', 'tokenizer.json', 'special_tokens_map.json'].map((name) => readJson(join(folder, name))));
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

/** The file's JSON object, or undefined when there is no such file. */
async function readJson(path: string, parse: (text: string) => unknown = JSON.parse): Promise<Record<string, unknown> | undefined> {
  if (!existsSync(path)) return undefined;
  let json: unknown;
  try {
    json = parse(await readFile(path, 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code) throw checkpointError(`${path} cannot be read (${(error as Error).message}).`, error);
    throw checkpointError(`${path} is damaged: it is not JSON. Fetch it again.`);
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw checkpointError(`${path} is damaged: it holds no JSON object. Fetch it again.`);
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
