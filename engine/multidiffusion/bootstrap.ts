/**
 * Bootstrapping (paper, section 4.2): during the first steps each region sees its own part of the picture
 * on a plain background, so that its object forms inside the mask and not wherever the whole canvas puts it.
 */
import { addressedUniform } from '../noise';
import type { DiffusionModel } from '../model';
import { Tensor } from '../tensor';
import type { SamplingJob } from './job';
import { Reach, weightsAt } from './fusion';
import { crop, type View } from './views';

/** What the UNet sees of one window, for the prompts that share it. */
export interface StepInput {
  view: View;
  /** Indices of the prompts: 0 the background, 1 the first region. */
  prompts: number[];
  /** [1, C, h, w] in the sample's own scale, before the scheduler's scaleModelInput. */
  latents: Tensor<'float32'>;
}

/** Encoding stays within this much memory, whatever the number of backgrounds. */
const IMAGES_PER_CALL = 8;

/**
 * The inputs of one step. A prompt that is not bootstrapped sees the shared latents x; a bootstrapped one sees
 * M_p·x + (1 − M_p)·(a plain background noised to the step's level with x_T's own noise). Windows in
 * which a prompt has no part are left out; one that a region fills completely needs no background.
 */
export function prepareInputs(job: SamplingJob, index: number, views: View[] = job.views): StepInput[] {
  const { masks, reach, bootstrapped } = weightsAt(job, index);
  const inputs: StepInput[] = [];
  for (const view of views) {
    const latents = crop(job.latents, view);
    const shared: number[] = [];
    const own: number[] = [];
    reach[view.index].forEach((extent, prompt) => {
      if (extent !== Reach.None) (bootstrapped[prompt] && extent === Reach.Part ? own : shared).push(prompt);
    });
    if (shared.length) inputs.push({ view, prompts: shared, latents });
    const noised = new Map<number, Tensor<'float32'>>();
    for (const prompt of own) {
      const pick = job.backgroundPicks[index * job.views.length + view.index][prompt - 1];
      let background = noised.get(pick);
      if (!background) {
        background = job.scheduler.addNoise(job.backgrounds[pick], crop(job.noise, view), index);
        noised.set(pick, background);
      }
      inputs.push({ view, prompts: [prompt], latents: insideMask(latents, background, masks[prompt], view, job.grid.width) });
    }
  }
  return inputs;
}

/** M·x + (1 − M)·background, with M the cells where the mask is not zero. */
function insideMask(latents: Tensor<'float32'>, background: Tensor<'float32'>, mask: Float32Array, view: View, canvasWidth: number): Tensor<'float32'> {
  const mixed = latents.data.slice();
  const outside = background.data;
  const cells = view.height * view.width;
  for (let y = 0; y < view.height; y++) {
    for (let x = 0; x < view.width; x++) {
      if (mask[(view.y + y) * canvasWidth + view.x + x] > 0) continue;
      for (let i = y * view.width + x; i < mixed.length; i += cells) mixed[i] = outside[i];
    }
  }
  return Tensor.float32(mixed, latents.dims);
}

/**
 * The plain backgrounds, as latents of a window's size: as many random colours as there are bootstrapping
 * evaluations, encoded by the VAE as constant images (as the official program has it), or white alone.
 * @param kind 'random' or 'white'
 * @param height, width of a window in pixels
 * @returns [1, C, h, w] each
 */
export async function encodeBackgrounds(
  model: DiffusionModel,
  kind: string,
  count: number,
  seed: number,
  height: number,
  width: number,
  signal?: AbortSignal,
): Promise<Tensor<'float32'>[]> {
  const colours = kind === 'white' ? [[1, 1, 1]] : Array.from({ length: count }, (_, i) => [...addressedUniform(seed, 'bootstrapping-colour', i, 3)]);
  const backgrounds: Tensor<'float32'>[] = [];
  for (let i = 0; i < colours.length; i += IMAGES_PER_CALL) {
    const images = colours.slice(i, i + IMAGES_PER_CALL).map((colour) => plainImage(colour, height, width));
    backgrounds.push(...(await model.encodeImages(images, { signal })));
  }
  return backgrounds;
}

function plainImage(colour: number[], height: number, width: number): Tensor<'uint8'> {
  const data = new Uint8Array(height * width * 3);
  const bytes = colour.map((c) => Math.round(255 * c));
  for (let i = 0; i < data.length; i++) data[i] = bytes[i % 3];
  return Tensor.uint8(data, [height, width, 3]);
}

/**
 * Which background each region gets: at random per step, window and region.
 * @returns [evaluation · views + view][region]
 */
export function pickBackgrounds(seed: number, backgrounds: number, evaluations: number, views: number, regions: number): number[][] {
  const picks: number[][] = [];
  for (let index = 0; index < evaluations; index++) {
    const uniform = addressedUniform(seed, 'bootstrapping-pick', index, views * regions);
    for (let view = 0; view < views; view++) {
      picks.push(Array.from({ length: regions }, (_, region) => Math.min(backgrounds - 1, Math.floor(uniform[view * regions + region] * backgrounds))));
    }
  }
  return picks;
}
