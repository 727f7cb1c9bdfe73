/** What a checkpoint is and whether it works: every model of it is loaded and run once. */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { addressedNoise } from '../noise';
import type { CallOptions } from '../model';
import type { Checkpoint } from './checkpoint';
import { gpuBytesOf } from '../inference/memory';
import { readLayout } from './layout';

export interface CheckpointReport {
  name: string;
  folder: string;
  /** What it is a kind of, by the width of its text embeddings. */
  family: string;
  /** Types of the models' tensors. */
  types: { textEncoder: string; unet: string; vaeDecoder: string; vaeEncoder?: string };
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

/** @throws what loading or running a model throws */
export async function reportCheckpoint(checkpoint: Checkpoint, folder: string, options: CallOptions = {}): Promise<CheckpointReport> {
  const { facts } = checkpoint;
  const layout = await readLayout(folder);
  const [{ embeddings }] = await checkpoint.encodePrompts(['a red sofa'], options);
  const cells = facts.nativeSize / facts.latentFactor;
  const latents = addressedNoise(1, 'report', 0, [1, facts.latentChannels, cells, cells]);
  // The first run of a size is slower than all others.
  await checkpoint.predict([{ latents, embeddings }], 500, options);
  const before = checkpoint.unetMilliseconds;
  await checkpoint.predict([{ latents, embeddings }], 500, options);
  const unetMilliseconds = checkpoint.unetMilliseconds - before;
  // At the native size, too, which an export for one size alone takes, and by which memory is judged.
  const image = await checkpoint.decode(latents, options);
  if (facts.canEncodeImages) await checkpoint.encodeImages([image], options);

  const width = embeddings.dims[2];
  const family = width === 768 ? 'Stable Diffusion 1' : width === 1024 ? 'Stable Diffusion 2' : `latent diffusion, text width ${width}`;
  const type = (model: { inputs: Array<{ name: string; type: string }>; outputs: Array<{ type: string }> }): string =>
    model.inputs.find(({ name }) => name === 'sample' || name === 'latent_sample')?.type ?? model.outputs[0].type;
  return {
    name: facts.name,
    folder: layout.folder,
    family: facts.guidanceEmbedded ? `${family}, latent consistency` : family,
    types: {
      textEncoder: type(layout.textEncoder),
      unet: type(layout.unet),
      vaeDecoder: type(layout.vaeDecoder),
      ...(layout.vaeEncoder && { vaeEncoder: type(layout.vaeEncoder) }),
    },
    scheduler: String(facts.schedulerConfig._class_name ?? ''),
    predictionType: String(facts.schedulerConfig.prediction_type ?? 'epsilon'),
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

/** Bytes of all files below a folder. */
export async function folderBytes(folder: string): Promise<number> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const sizes = await Promise.all(entries.map(async (entry) => (entry.isDirectory() ? 0 : ((await stat(join(entry.parentPath, entry.name)).catch(() => undefined))?.size ?? 0))));
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
