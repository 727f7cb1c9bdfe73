/** Draws layouts, and keeps the pictures: what is there already isn't drawn again. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import sharp from 'sharp';
import { type Checkpoint, type Region, sample, type SamplerOptions, shapeMask, Tensor } from '../../dist/engine';
import type { Picture } from './geometry';
import type { Layout } from './layouts';
import { SCENE_ALONE, type Strategy } from './strategies';

/** What is common to all pictures of a comparison. */
export interface Settings {
  steps: number;
  guidanceScale: number;
  scheduler: SamplerOptions['scheduler'];
}

/** Hash of everything that makes the model draw what it draws: weights, tokenizer and configurations. */
export function hashModel(folder: string): string {
  return hashFiles(folder, /\.(onnx|onnx_data|json|txt)$/);
}

/** Hash of the compiled code that samples. */
export function hashSampler(dist: string): string {
  return hashFiles(dist, /^(multidiffusion[/\\]|schedulers[/\\]|noise).*\.js$/);
}

function hashFiles(folder: string, names: RegExp): string {
  const files = fs
    .readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => names.test(name))
    .sort();
  if (files.length === 0) throw new Error(`${folder} has no files to evaluate.`);
  const hash = createHash('sha256');
  for (const name of files)
    hash.update(`${name.replaceAll('\\', '/')}\n`).update(fs.readFileSync(path.join(folder, name)));
  return hash.digest('hex');
}

/** The file of one picture: another model, sampler, setting or strategy has another. */
export function pictureFile(
  folder: string,
  state: string,
  settings: Settings,
  layout: Layout,
  strategy: Strategy,
): string {
  const { name, regions, options, region } = strategy;
  const key = createHash('sha256')
    .update(JSON.stringify([state, settings, layout, regions, options, region]))
    .digest('hex')
    .slice(0, 12);
  return path.join(folder, name, `${String(layout.index).padStart(3, '0')}-${key}.png`);
}

/** The picture of a file, or undefined. */
export async function loadPicture(file: string): Promise<Picture | undefined> {
  if (!fs.existsSync(file)) return undefined;
  const { data, info } = await sharp(file).raw().toBuffer({ resolveWithObject: true });
  return Tensor.uint8(data, [info.height, info.width, 3]);
}

/** Written beside and renamed, so that an interrupted run leaves no half of a picture. */
export async function keepPicture(file: string, picture: Picture): Promise<void> {
  fs.mkdirSync(path.dirname(file), { recursive: true });
  const [height, width] = picture.dims;
  await sharp(picture.data, { raw: { width, height, channels: 3 } })
    .png()
    .toFile(`${file}.part`);
  fs.renameSync(`${file}.part`, file);
}

/**
 * Draws a layout by a strategy.
 * @param scene the picture of the background alone, for the strategy that bootstraps on it
 */
export async function draw(
  checkpoint: Checkpoint,
  settings: Settings,
  layout: Layout,
  strategy: Strategy,
  scene?: Picture,
  signal?: AbortSignal,
): Promise<Picture> {
  const regions: Region[] = [];
  if (strategy.regions) {
    for (const { name, prompt, box } of layout.objects) {
      const conditioning = await checkpoint.encodeConditioning(prompt, '', { signal });
      regions.push({ name, conditioning, mask: shapeMask({ box: [...box] }), ...strategy.region });
    }
  }
  const prompt = strategy.regions || strategy.name === SCENE_ALONE.name ? layout.scene : layout.prompt;
  const { latents } = await sample(checkpoint, {
    background: await checkpoint.encodeConditioning(prompt, '', { signal }),
    regions,
    options: { ...settings, seed: layout.seed, ...strategy.options },
    ...(strategy.options.bootstrappingBackground === 'image' ? { bootstrappingImage: scene } : {}),
    signal,
  });
  return checkpoint.decode(latents, { signal });
}
