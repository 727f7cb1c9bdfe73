/** Prepares a job: from what is asked for to everything that the steps need. */
import { randomInt } from 'node:crypto';
import { InvalidInputError, MissingInputError, throwIfCancelled } from '../errors';
import { checkImage } from '../image/resize';
import type { DiffusionModel, ModelFacts } from '../model';
import { addressedNoise, torchNoise } from '../noise';
import { resolveOptions, SAMPLER_OPTIONS, type SamplerOptions } from '../options';
import { createScheduler, withScheduler } from '../schedulers';
import { Tensor } from '../tensor';
import { encodeBackgrounds, pickBackgrounds } from './bootstrap';
import { findProblems } from './findings';
import type { SampleRequest, SamplingJob } from './job';
import { type LatentRegion, preparePrompt, prepareRegions, tensorSharer } from './regions';
import type { Finding } from './types';
import { spreadViews } from './views';
import { Reach, weightsAt, windowWeights } from './weights';

/** Latent cells per side that a UNet with three halvings needs; most models are such. */
const DEFAULT_CELLS = 8;
const ROWS_PER_CALL = 32;

/**
 * Prepares a job: checks the request, places windows and regions, draws the noise, encodes the backgrounds.
 * A canvas that is not a multiple of what the model needs is rounded to the nearest multiple, with a finding.
 * @throws InvalidInputError, MissingInputError naming the property; CancelledError
 */
export async function createJob(model: DiffusionModel, request: SampleRequest): Promise<SamplingJob> {
  const started = performance.now();
  const { facts } = model;
  const options = resolveOptions(SAMPLER_OPTIONS, request.options ?? {});
  const findings: Finding[] = [];
  const { width, height, grid, views } = placeViews(facts, options, findings);
  const seed = options.seed ?? randomInt(2 ** 32);
  const ownConfig = request.schedulerConfig ?? facts.schedulerConfig;
  const startStep = request.initialImage ? firstStep(options) : 0;
  const scheduler = createScheduler(options.scheduler === 'checkpoint' ? ownConfig : withScheduler(ownConfig, options.scheduler), options.steps, { startStep });
  const evaluations = scheduler.timesteps.length;
  const stepsTaken = options.steps - startStep;

  const share = tensorSharer();
  const background = preparePrompt(request.background, 'background', options.guidanceScale, share);
  const regions = await prepareRegions(request.regions, background, { grid, ...options }, evaluations, share);
  const shape = [1, grid.channels, grid.height, grid.width];
  const noise = request.initialNoise ? checkShape(request.initialNoise, shape, 'initialNoise') : seededNoise(seed, regions, shape);
  const image = request.initialImage && checkShape(request.initialImage, shape, 'initialImage');
  const latents = image ? scheduler.addNoise(image, noise, 0) : times(noise, scheduler.initNoiseSigma);

  const job: SamplingJob = {
    facts,
    options,
    seed,
    width,
    height,
    steps: options.steps,
    grid,
    views,
    windowWeights: windowWeights(options.windowWeights, views[0]),
    prompts: [background, ...regions],
    regions,
    scheduler,
    stepNoise: request.stepNoise ?? ((index) => addressedNoise(seed, 'step', index, shape)),
    stepsTaken,
    bootstrapEvaluations: regions.some((region) => region.bootstrap) ? evaluationsIn('bootstrapping', options.bootstrapping, options.bootstrappingUnit, stepsTaken, evaluations) : 0,
    ...(request.bootstrappingImage && { bootstrappingImage: checkImage(request.bootstrappingImage, 'bootstrappingImage') }),
    backgrounds: [],
    backgroundPicks: [],
    rowsPerCall: request.rowsPerCall ?? ROWS_PER_CALL,
    noise,
    ...(options.keepBackground ? { kept: keepOutside(image, regions) } : {}),
    findings,
    timings: { unet: 0, encode: 0, total: 0 },
    latents,
    foresee: () => latents,
    index: 0,
    unetRows: 0,
  };
  findings.push(...findProblems(job));
  if (needsBackgrounds(job)) await addBackgrounds(job, model, request);
  job.timings.total += performance.now() - started;
  return job;
}

/** The nearest side of a canvas, in pixels, that the model can draw. */
export function fittingSize(facts: ModelFacts, size: number): number {
  const multiple = sizeMultiple(facts);
  return Math.max(1, Math.round(size / multiple)) * multiple;
}

function sizeMultiple({ sizeMultiple: known, latentFactor }: ModelFacts): number {
  return known ?? DEFAULT_CELLS * latentFactor;
}

function placeViews(facts: ModelFacts, options: SamplerOptions, findings: Finding[]) {
  const rounded = (name: string, size: number): number => {
    const nearest = fittingSize(facts, size);
    if (nearest !== size) {
      findings.push({ code: 'ROUNDED_SIZE', message: `${name} ${size} was rounded to ${nearest}: this model needs multiples of ${sizeMultiple(facts)}.` });
    }
    return nearest;
  };
  const width = rounded('width', options.width ?? facts.nativeSize);
  const height = rounded('height', options.height ?? facts.nativeSize);
  const window = rounded('windowSize', options.windowSize ?? facts.nativeSize) / facts.latentFactor;
  const grid = { channels: facts.latentChannels, height: height / facts.latentFactor, width: width / facts.latentFactor };
  const stride = Math.max(1, Math.round(window * (1 - options.windowOverlap)));
  return { width, height, grid, views: spreadViews(grid, window, stride, options.circular) };
}

/** Which of the steps to start at, so that `strength` of them are taken (as in diffusers' image-to-image), at least one. */
function firstStep({ steps, strength }: SamplerOptions): number {
  return steps - Math.max(1, Math.floor(steps * strength));
}

/** @throws MissingInputError when there is no picture to keep, or no region to paint */
function keepOutside(image: Tensor<'float32'> | undefined, regions: LatentRegion[]): SamplingJob['kept'] {
  if (!image) throw new MissingInputError('initialImage', 'With keepBackground on, send the picture to keep through a vae-encode node first.');
  if (regions.length === 0) throw new MissingInputError('regions', 'With keepBackground on, only regions are painted: add one.');
  const painted = regions[0].mask.soft.map((_, cell) => Math.min(1, regions.reduce((sum, { mask }) => sum + mask.soft[cell], 0)));
  return { image, painted };
}

/**
 * A share of the steps, or a number of them, as model evaluations: of a second-order scheduler, which asks more often than it
 * steps, the same share.
 * @param name of the amount; its unit is called the same with Unit
 * @param steps that are taken
 * @throws InvalidInputError for a fraction above 1 or a number that is not whole
 */
export function evaluationsIn(name: string, amount: number, unit: 'fraction' | 'steps', steps: number, evaluations: number): number {
  if (unit === 'fraction' && amount > 1) throw new InvalidInputError(name, amount, `a fraction from 0 to 1, or a number of steps with ${name}Unit 'steps'`);
  if (unit === 'steps' && !Number.isInteger(amount)) throw new InvalidInputError(name, amount, `a whole number of steps, or a share of them with ${name}Unit 'fraction'`);
  return Math.round((unit === 'fraction' ? amount : Math.min(1, amount / steps)) * evaluations);
}

function seededNoise(seed: number, regions: LatentRegion[], shape: number[]): Tensor<'float32'> {
  const noise = torchNoise(seed, shape);
  const own = regions.filter((region) => region.seed !== undefined);
  if (own.length === 0) return noise;
  const data = noise.data.slice();
  for (const { seed: regionSeed, mask } of own) {
    const inside = torchNoise(regionSeed as number, shape).data;
    for (let i = 0; i < data.length; i++) if (mask.hard[i % mask.hard.length]) data[i] = inside[i];
  }
  return Tensor.float32(data, shape);
}

/** Whether any region ever sees a background: not one that fills its window, nor one that is hidden. */
function needsBackgrounds(job: SamplingJob): boolean {
  for (let index = 0; index < job.bootstrapEvaluations; index++) {
    const { reach, bootstrapped } = weightsAt(job, index);
    if (reach.some((view) => view.some((extent, prompt) => bootstrapped[prompt] && extent === Reach.Part))) return true;
  }
  return false;
}

/** Gives the job its bootstrapping backgrounds and says who gets which. */
export async function addBackgrounds(job: SamplingJob, model: DiffusionModel, request: Pick<SampleRequest, 'backgrounds' | 'backgroundPicks' | 'signal'>): Promise<void> {
  const { bootstrapEvaluations: count, seed, views, facts } = job;
  const [view] = views;
  const shape = [1, facts.latentChannels, view.height, view.width];
  const started = performance.now();
  if (request.backgrounds) {
    if (!Array.isArray(request.backgrounds) || request.backgrounds.length === 0) throw new InvalidInputError('backgrounds', request.backgrounds, 'at least one tensor');
    job.backgrounds.push(...request.backgrounds);
  } else {
    throwIfCancelled(request.signal);
    const encoded = await encodeBackgrounds(model, job, count, request.signal);
    job.backgrounds.push(...(encoded ?? [plainGrey(shape)]));
    if (!encoded) {
      const message = `${facts.name} has no VAE encoder, so bootstrapping uses a plain grey background. Add vae_encoder to the model's folder for better regions.`;
      job.findings.push({ code: 'NO_ENCODER', message });
    }
  }
  job.backgrounds.forEach((background, i) => checkShape(background, shape, `backgrounds[${i}]`));
  job.backgroundPicks.push(...(request.backgroundPicks ?? pickBackgrounds(seed, job.backgrounds.length, count, views.length, job.regions.length)));
  checkPicks(job);
  job.timings.encode += performance.now() - started;
}

/** Zero is the middle of the latents' range, about a mid grey: plain, and better than refusing the job. */
function plainGrey(shape: number[]): Tensor<'float32'> {
  return Tensor.float32(new Float32Array(shape.reduce((a, b) => a * b)), shape);
}

function checkPicks({ backgroundPicks, backgrounds, bootstrapEvaluations, views, regions }: SamplingJob): void {
  for (let i = 0; i < bootstrapEvaluations * views.length; i++) {
    const picks = backgroundPicks[i];
    if (picks?.length !== regions.length || picks.some((pick) => !backgrounds[pick])) {
      throw new InvalidInputError(`backgroundPicks[${i}]`, picks, `an index below ${backgrounds.length} for each of ${regions.length} regions, per evaluation and view`);
    }
  }
}

function checkShape(value: unknown, shape: number[], name: string): Tensor<'float32'> {
  const tensor = Tensor.from(value, name);
  if (tensor.dtype !== 'float32' || tensor.dims.join() !== shape.join()) {
    throw new InvalidInputError(name, `${tensor.dtype} [${tensor.dims.join(', ')}]`, `float32 [${shape.join(', ')}]`);
  }
  return tensor as Tensor<'float32'>;
}

function times(tensor: Tensor<'float32'>, factor: number): Tensor<'float32'> {
  return factor === 1 ? tensor : Tensor.float32(tensor.data.map((value) => value * factor), tensor.dims);
}
