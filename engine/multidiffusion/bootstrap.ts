/**
 * Bootstrapping (paper, section 4.2): during the first steps each region sees its own part of the picture
 * on a plain background, so that its object forms inside the mask and not wherever the whole canvas puts it.
 */
import { MissingInputError } from '../errors';
import { resizeImage } from '../image/resize';
import type { DiffusionModel } from '../model';
import { addressedUniform } from '../noise';
import { Tensor } from '../tensor';
import { estimateLatents, latentColours } from './colours';
import type { SamplingJob } from './job';
import { type Colour, encodeColours, plainImage } from './plain-colours';
import { cellsOf, crop, roll, type View } from './views';
import { Reach, weightsAt } from './weights';

/** What the UNet sees of one window, for the prompts that share it. */
export interface StepInput {
  view: View;
  /** Indices of the prompts: 0 the background, 1 the first region. */
  prompts: number[];
  /** [1, C, h, w] in the sample's own scale, before the scheduler's scaleModelInput. */
  latents: Tensor<'float32'>;
  /** How far down and to the right the latents were moved: what is predicted from them is moved back. */
  moved?: [down: number, right: number];
}

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
      const cells = cellsOf(view, job.grid.width);
      const mask = masks[prompt];
      const input = { view, prompts: [prompt], latents: mix(latents, background, (i) => mask[cells[i]] > 0) };
      inputs.push(job.options.maskCentring ? centred(input, (i) => mask[cells[i]] > 0) : input);
    }
  }
  return inputs;
}

/** M·x + (1 − M)·background, with M the cells of the window that the region holds. */
function mix(latents: Tensor<'float32'>, background: Tensor<'float32'>, holds: (cell: number) => boolean): Tensor<'float32'> {
  const cells = latents.dims[2] * latents.dims[3];
  const outside = background.data;
  const mixed = latents.data.slice();
  for (let cell = 0; cell < cells; cell++) {
    if (holds(cell)) continue;
    for (let i = cell; i < mixed.length; i += cells) mixed[i] = outside[i];
  }
  return Tensor.float32(mixed, latents.dims);
}

/** Moves what the region holds to the middle, where models draw objects best (Lee et al. 2024, "SemanticDraw"). */
function centred(input: StepInput, holds: (cell: number) => boolean): StepInput {
  const { height, width } = input.view;
  let [top, bottom, left, right] = [height, -1, width, -1];
  for (let i = 0; i < height * width; i++) {
    if (!holds(i)) continue;
    const [y, x] = [Math.floor(i / width), i % width];
    [top, bottom, left, right] = [Math.min(top, y), Math.max(bottom, y), Math.min(left, x), Math.max(right, x)];
  }
  const down = Math.round((height - 1 - top - bottom) / 2);
  const sideways = Math.round((width - 1 - left - right) / 2);
  return { ...input, latents: roll(input.latents, down, sideways), moved: [down, sideways] };
}

/**
 * What lies behind bootstrapped regions, as latents [1, C, h, w] of a window: as many random plain colours as there
 * are bootstrapping evaluations (as the official program has it), one plain colour, or a picture. By the encoder,
 * or without one about as the decoder would turn them back (see colours.ts).
 * @param count of random colours
 * @returns undefined when the model can neither encode nor decode
 * @throws MissingInputError when the picture is needed and not there
 */
export async function encodeBackgrounds(model: DiffusionModel, job: SamplingJob, count: number, signal?: AbortSignal): Promise<Tensor<'float32'>[] | undefined> {
  const { latentFactor, canEncodeImages } = model.facts;
  const [view] = job.views;
  const [height, width] = [view.height * latentFactor, view.width * latentFactor];
  const colours = backgroundColours(job, count);
  const picture = (): Tensor<'uint8'> => resizeImage(pictureBehind(job), height, width);
  if (canEncodeImages) return colours ? encodeColours(model, colours, [height, width], { signal }) : model.encodeImages([picture()], { signal });
  const map = await latentColours(model, { signal });
  if (!map) return undefined;
  const estimate = (image: Tensor<'uint8'>): Tensor<'float32'> => estimateLatents(map, image, latentFactor);
  return colours ? colours.map((colour) => estimate(plainImage(colour, height, width))) : [estimate(picture())];
}

/** Undefined for a picture. */
function backgroundColours({ options, seed }: SamplingJob, count: number): Colour[] | undefined {
  switch (options.bootstrappingBackground) {
    case 'image':
      return undefined;
    case 'white':
      return [[255, 255, 255]];
    case 'colour':
      return [[...Buffer.from(options.bootstrappingColour.slice(1), 'hex')]];
    default:
      return Array.from({ length: count }, (_, i) => addressedUniform(seed, 'bootstrapping-colour', i, 3).map((c) => Math.round(255 * c)));
  }
}

function pictureBehind({ bootstrappingImage }: SamplingJob): Tensor<'uint8'> {
  if (!bootstrappingImage) throw new MissingInputError('bootstrappingImage', "With bootstrappingBackground 'image', send the picture that regions should see around them.");
  return bootstrappingImage;
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
