/**
 * Bootstrapping (paper, section 4.2): during the first steps each region sees its own part of the picture
 * on a plain background, so that its object forms inside the mask and not wherever the whole canvas puts it.
 */
import { InvalidInputError, MissingInputError, throwIfCancelled } from '../errors';
import { resizeImageInSteps } from '../image/resize';
import type { CallOptions, DiffusionModel } from '../model';
import { addressedUniform } from '../noise';
import { Tensor } from '../tensor';
import { atOnce, inTurns, type Steps } from '../turns';
import type { Finding } from '../types';
import { estimateLatents, latentColours } from './colours';
import { type Colour, encodeColours, plainImage } from './plain-colours';
import type { Plan } from './plan';
import type { State } from './state';
import type { Bootstrapping, Strategy } from './strategy';
import { cellsOf, crop, roll, type View } from './views';
import { Reach, weightsAtInSteps } from './weights';

/** Random colours of a bootstrapping that the sampler itself doesn't do: as many as for the paper's share of the steps. */
const USUAL_SHARE = 0.2;

/** Random colours of large models, whose encoders take seconds for each. Stable Diffusion 1 and 2 keep the paper's, one an evaluation. */
const MOST_COLOURS = 8;

/** What the UNet sees of one window, for the prompts that share it. */
export interface StepInput {
  view: View;
  /** Indices of the prompts: 0 the background, 1 the first region. */
  prompts: number[];
  /** [1, C, h, w] in the sample's own scale, before the scheduler's scaleModelInput. */
  latents: Tensor<'float32'>;
  /** How far down and to the right the latents were moved: what is predicted from them is moved back. */
  moved?: [down: number, right: number];
  /** The guidance scale of each of these prompts, where it isn't the prompt's own. */
  guidanceScales?: number[];
}

/**
 * The inputs of one step. A prompt that is not bootstrapped sees the shared latents x; a bootstrapped one sees
 * M_p·x + (1 − M_p)·(a plain background noised to the step's level with x_T's own noise). Windows in
 * which a prompt has no part are left out; one that a region fills completely needs no background.
 * A strategy that bootstraps must have its backgrounds prepared: see prepareBackgrounds.
 */
export function prepareInputs(plan: Plan, strategy: Strategy, state: Pick<State, 'index' | 'latents'>): StepInput[] {
  return atOnce(prepareInputsInSteps(plan, strategy, state));
}

/** As prepareInputs, in steps of a window. */
export function* prepareInputsInSteps(
  plan: Plan,
  strategy: Strategy,
  { index, latents: canvas }: Pick<State, 'index' | 'latents'>,
): Steps<StepInput[]> {
  const { grid, noise, scheduler, views } = plan;
  const { masks, reach, bootstrapped } = yield* weightsAtInSteps(plan, strategy, index);
  const backgrounds = backgroundsOf(plan, strategy);
  const picks = bootstrapped.includes(true) ? pickBackgrounds(plan, backgrounds.length, index) : [];
  const inputs: StepInput[] = [];
  for (const view of views) {
    const latents = crop(canvas, view);
    const shared: number[] = [];
    const own: number[] = [];
    reach[view.index].forEach((extent, prompt) => {
      if (extent !== Reach.None) (bootstrapped[prompt] && extent === Reach.Part ? own : shared).push(prompt);
    });
    if (shared.length) inputs.push({ view, prompts: shared, latents });
    const noised = new Map<number, Tensor<'float32'>>();
    for (const prompt of own) {
      const pick = picks[view.index][prompt - 1];
      let background = noised.get(pick);
      if (!background) {
        background = scheduler.addNoise(backgrounds[pick], crop(noise, view), index);
        noised.set(pick, background);
      }
      const cells = cellsOf(view, grid.width);
      const holds = (i: number): boolean => masks[prompt][cells[i]] > 0;
      const input = { view, prompts: [prompt], latents: onBackground(latents, background, holds) };
      inputs.push(strategy.bootstrapping.centring ? centred(input, holds) : input);
    }
    yield;
  }
  return inputs;
}

/** M·x + (1 − M)·background, with M the cells of the window that the region holds. */
function onBackground(
  latents: Tensor<'float32'>,
  background: Tensor<'float32'>,
  holds: (cell: number) => boolean,
): Tensor<'float32'> {
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
 * Encodes the backgrounds of a strategy that bootstraps, once for each plan: what prepareInputs then puts behind
 * regions. Does nothing where no region ever sees one, because each fills its windows or is hidden.
 * @returns what the user should know, the first time
 * @throws MissingInputError when the picture is needed and not there; InvalidInputError when the request's picks don't fit
 */
export async function prepareBackgrounds(
  model: DiffusionModel,
  plan: Plan,
  strategy: Strategy,
  { timings }: Pick<State, 'timings'>,
  options: CallOptions = {},
): Promise<Finding[]> {
  const name = backgroundsName(strategy);
  if (plan.encoded.has(name) || !(await inTurns(needsBackgrounds(plan, strategy)))) return [];
  const started = performance.now();
  const given = plan.backgrounds && name === backgroundsName(plan.strategy) ? plan.backgrounds : undefined;
  throwIfCancelled(options.signal);
  const encoded = given ?? (await encodeBackgrounds(model, plan, strategy.bootstrapping, options));
  const { height, width } = plan.views[0];
  // Zero is the middle of the latents' range, about a mid grey: plain, and better than refusing the job.
  const backgrounds = encoded ?? [Tensor.zeros([1, plan.grid.channels, height, width])];
  plan.encoded.set(name, backgrounds);
  if (plan.backgroundPicks) checkPicks(plan, strategy.bootstrapping.evaluations, backgrounds.length);
  timings.encode += performance.now() - started;
  return encoded ? [] : [noEncoder(plan.facts.name)];
}

/** The backgrounds that have been prepared, as latents [1, C, h, w] of a window. */
export function backgroundsOf(plan: Plan, strategy: Strategy): readonly Tensor<'float32'>[] {
  return plan.encoded.get(backgroundsName(strategy)) ?? [];
}

/** Strategies with the same name have the same backgrounds. */
function backgroundsName({ bootstrapping: { background, colour } }: Strategy): string {
  return background === 'colour' ? colour : background;
}

function* needsBackgrounds(plan: Plan, strategy: Strategy): Steps<boolean> {
  const { evaluations } = strategy.bootstrapping;
  return yield* plan.memo.recallInSteps(['needs backgrounds', evaluations, strategy.fusion], function* () {
    for (let index = 0; index < evaluations; index++) {
      const { reach, bootstrapped } = yield* weightsAtInSteps(plan, strategy, index);
      if (reach.some((view) => view.some((extent, p) => bootstrapped[p] && extent === Reach.Part))) return true;
    }
    return false;
  });
}

function noEncoder(model: string): Finding {
  return {
    code: 'NO_ENCODER',
    message:
      `${model} has neither a VAE encoder nor a VAE decoder that shows its colours, so bootstrapping uses mid grey. ` +
      "Add vae_encoder to the model's folder for better regions.",
  };
}

/**
 * What lies behind bootstrapped regions, as latents [1, C, h, w] of a window: random plain colours (as the official
 * program has it), one plain colour, or a picture. By the encoder, or without one about as the decoder would turn
 * them back (see colours.ts).
 * @returns undefined when the model can neither encode nor decode
 */
async function encodeBackgrounds(
  model: DiffusionModel,
  plan: Plan,
  bootstrapping: Bootstrapping,
  options: CallOptions,
): Promise<Tensor<'float32'>[] | undefined> {
  const { latentFactor, canEncodeImages } = model.facts;
  const [view] = plan.views;
  const [height, width] = [view.height * latentFactor, view.width * latentFactor];
  const colours = backgroundColours(plan, bootstrapping);
  const picture = (): Promise<Tensor<'uint8'>> => inTurns(resizeImageInSteps(pictureBehind(plan), height, width));
  if (canEncodeImages)
    return colours
      ? encodeColours(model, colours, [height, width], options)
      : model.encodeImages([await picture()], options);
  const map = await latentColours(model, options);
  if (!map) return undefined;
  const estimate = (image: Tensor<'uint8'>): Tensor<'float32'> => estimateLatents(map, image, latentFactor);
  return colours ? colours.map((colour) => estimate(plainImage(colour, height, width))) : [estimate(await picture())];
}

/** Undefined for a picture. */
function backgroundColours({ evaluations, facts, seed, strategy }: Plan, { background, colour }: Bootstrapping) {
  switch (background) {
    case 'image':
      return undefined;
    case 'white':
      return [[255, 255, 255]];
    case 'colour':
      return [[...Buffer.from(colour.slice(1), 'hex')]];
    default: {
      const usual = strategy.bootstrapping.evaluations || Math.max(1, Math.round(USUAL_SHARE * evaluations));
      const count = facts.family === undefined ? usual : Math.min(usual, MOST_COLOURS);
      return Array.from(
        { length: count },
        (_, i): Colour => addressedUniform(seed, 'bootstrapping-colour', i, 3).map((c) => Math.round(255 * c)),
      );
    }
  }
}

function pictureBehind({ bootstrappingImage }: Plan): Tensor<'uint8'> {
  if (!bootstrappingImage)
    throw new MissingInputError(
      'bootstrappingImage',
      "With bootstrappingBackground 'image', send the picture that regions should see around them.",
    );
  return bootstrappingImage;
}

/**
 * Which background each region gets at an evaluation: at random per window and region.
 * @param backgrounds how many there are
 * @returns [view][region]
 */
export function pickBackgrounds(
  { backgroundPicks, regions, seed, views }: Plan,
  backgrounds: number,
  index: number,
): number[][] {
  if (backgroundPicks) return backgroundPicks.slice(index * views.length, (index + 1) * views.length);
  const uniform = addressedUniform(seed, 'bootstrapping-pick', index, views.length * regions.length);
  return views.map((view) =>
    regions.map((_, region) =>
      Math.min(backgrounds - 1, Math.floor(uniform[view.index * regions.length + region] * backgrounds)),
    ),
  );
}

function checkPicks({ backgroundPicks, regions, views }: Plan, evaluations: number, backgrounds: number): void {
  for (let i = 0; i < evaluations * views.length; i++) {
    const picks = backgroundPicks?.[i];
    const fits = (pick: number): boolean => Number.isInteger(pick) && pick >= 0 && pick < backgrounds;
    if (picks?.length !== regions.length || !picks.every(fits)) {
      throw new InvalidInputError(
        `backgroundPicks[${i}]`,
        picks,
        `an index below ${backgrounds} for each of ${regions.length} regions, per evaluation and view`,
      );
    }
  }
}
