/** What a checkpoint is and whether it works: every model of it is loaded and run once. */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { addressedNoise } from '../noise';
import type { CallOptions } from '../model';
import type { Checkpoint } from './checkpoint';
import { gpuBytesOf } from '../inference/memory';
import type { Component } from '../inference/protocol';
import { largestCpuBatch } from '../inference/rows';
import { isFlowMatching } from '../schedulers';
import { readLayout, type CheckpointLayout, type OnnxModel } from './layout';
import { readModelFacts } from './model-facts';
import { partsOf } from './parts';

export interface CheckpointReport {
  name: string;
  folder: string;
  /** What it is a kind of. */
  family: string;
  /** Types of the models' tensors. */
  types: Partial<Record<Component, string>>;
  /** Bytes of each model with its weights: what loading it takes at least. */
  bytes: Partial<Record<Component, number>>;
  scheduler: string;
  predictionType: string;
  /** Side of the pictures that it was trained on. */
  nativeSize: number;
  canEncodeImages: boolean;
  /** Words of a closed vocabulary; undefined when it takes any text. */
  vocabulary?: number;
  /** Tokens of a prompt. */
  maxTokens: number;
  /** Where it runs, and why not elsewhere. */
  provider: string;
  /** One UNet row at the native size. */
  unetMilliseconds: number;
  /** Main memory of the inference processes, all models loaded; where the system tells. */
  memoryBytes?: number;
  /** On GPUs, where the driver tells. */
  gpuMemoryBytes?: number;
  diskBytes: number;
}

/** What loading a checkpoint takes, said before it is loaded. */
export interface CheckpointNeeds {
  /** Bytes of all models with their weights: memory that is taken at least, with everything loaded. */
  weightBytes: number;
  /** The largest of them alone, which a memory limit must leave room for. */
  largestBytes: number;
  largest: Component;
  /** Rows of the denoiser that a CPU evaluates at once at the native size; a prompt with guidance takes two a step. */
  cpuRows: number;
}

/** Reads files' sizes and headers only. @throws what readLayout throws */
export async function foreseeNeeds(folder: string): Promise<CheckpointNeeds> {
  const layout = await readLayout(folder);
  const parts = partsOf(layout).sort((a, b) => b.model.bytes - a.model.bytes);
  const { nativeSize, latentFactor } = readModelFacts(layout, 'cpu');
  return {
    weightBytes: parts.reduce((sum, { model }) => sum + model.bytes, 0),
    largestBytes: parts[0].model.bytes,
    largest: parts[0].component,
    cpuRows: largestCpuBatch(layout.denoiser.bytes, (nativeSize / latentFactor) ** 2),
  };
}

/** @throws what loading or running a model throws */
export async function reportCheckpoint(
  checkpoint: Checkpoint,
  folder: string,
  options: CallOptions = {},
): Promise<CheckpointReport> {
  const { facts } = checkpoint;
  const layout = await readLayout(folder);
  const [{ embeddings, pooled }] = await checkpoint.encodePrompts(['a red sofa'], options);
  const cells = facts.nativeSize / facts.latentFactor;
  const latents = addressedNoise(1, 'report', 0, [1, facts.latentChannels, cells, cells]);
  const row = { latents, embeddings, pooled };
  // The first run of a size is slower than all others.
  await checkpoint.predict([row], 500, options);
  const before = checkpoint.unetMilliseconds;
  await checkpoint.predict([row], 500, options);
  const unetMilliseconds = checkpoint.unetMilliseconds - before;
  // At the native size, too, which an export for one size alone takes, and by which memory is judged.
  const image = await checkpoint.decode(latents, options);
  if (facts.canEncodeImages) await checkpoint.encodeImages([image], options);

  const parts = partsOf(layout);
  return {
    name: facts.name,
    folder: layout.folder,
    family: familyTitle(layout, embeddings.dims[2], facts.guidanceEmbedded),
    types: Object.fromEntries(parts.map(({ component, model }) => [component, floatType(model)])),
    bytes: Object.fromEntries(parts.map(({ component, model }) => [component, model.bytes])),
    scheduler: String(facts.schedulerConfig._class_name ?? ''),
    predictionType: isFlowMatching(facts.schedulerConfig)
      ? 'flow_prediction'
      : String(facts.schedulerConfig.prediction_type ?? 'epsilon'),
    nativeSize: facts.nativeSize,
    canEncodeImages: facts.canEncodeImages,
    vocabulary: facts.vocabulary?.length,
    maxTokens: facts.maxTokens,
    provider: facts.provider,
    unetMilliseconds: Math.round(unetMilliseconds),
    memoryBytes: await residentBytes(checkpoint.pids),
    ...(facts.provider.startsWith('cuda') && { gpuMemoryBytes: await gpuBytesOf(checkpoint.pids) }),
    diskBytes: await folderBytes(folder),
  };
}

/** Stable Diffusion 1 and 2 are told apart by the width of their text embeddings, the kinds of the others by what they take. */
function familyTitle({ family, textEncoders }: CheckpointLayout, width: number, guidanceEmbedded: boolean): string {
  switch (family.name) {
    case 'flux':
      return `${family.title} ${guidanceEmbedded ? '[dev]' : '[schnell]'}`;
    case 'sd3':
      return textEncoders.length === family.encoders.length ? family.title : `${family.title}, without T5`;
    case 'sdxl':
      if (textEncoders.length < family.encoders.length) return `${family.title}, refiner`;
      return guidanceEmbedded ? `${family.title}, latent consistency` : family.title;
    default: {
      const title =
        width === 768
          ? 'Stable Diffusion 1'
          : width === 1024
            ? 'Stable Diffusion 2'
            : `latent diffusion, text width ${width}`;
      return guidanceEmbedded ? `${title}, latent consistency` : title;
    }
  }
}

/** The type that a model's floating-point numbers have where they go in, or come out of an encoder. */
function floatType({ inputs, outputs }: OnnxModel): string {
  const names = ['sample', 'hidden_states', 'latent_sample'];
  return inputs.find(({ name }) => names.includes(name))?.type ?? outputs[0].type;
}

/** Bytes of all files below a folder. */
export async function folderBytes(folder: string): Promise<number> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const sizes = await Promise.all(
    entries.map(async (entry) =>
      entry.isDirectory() ? 0 : ((await stat(join(entry.parentPath, entry.name)).catch(() => undefined))?.size ?? 0),
    ),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
}

/** Main memory that processes hold; Linux alone tells it in a file. */
async function residentBytes(pids: number[]): Promise<number | undefined> {
  let bytes = 0;
  for (const pid of pids) {
    const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
    const kilobytes = /^VmRSS:\s+(\d+) kB/m.exec(status)?.[1];
    if (!kilobytes) return undefined;
    bytes += Number(kilobytes) * 1024;
  }
  return bytes || undefined;
}
