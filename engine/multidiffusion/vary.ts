/** The job as a node of the wired loop has it, where that node has a strategy of its own. */
import type { DiffusionModel } from '../model';
import type { BOOTSTRAP_OPTIONS, FUSE_OPTIONS, SamplerOptions, Values } from '../options';
import { pickBackgrounds } from './bootstrap';
import type { SamplingJob } from './job';
import { addBackgrounds, evaluationsIn } from './prepare';
import { softEdges } from './regions';
import { windowWeights } from './weights';

export type BootstrapOptions = Values<typeof BOOTSTRAP_OPTIONS>;
export type FuseOptions = Omit<Values<typeof FUSE_OPTIONS>, 'mix'>;

/** Random colours of a bootstrapping that the sampler itself doesn't do: as many as for the paper's share of the steps. */
const COLOURS = 0.2;

/**
 * What a bootstrap node does at the job's next step: its own strategy, until its duration is over.
 * @returns 'sampler', 'none' or one of the sampler's backgrounds
 * @throws InvalidInputError for a fraction above 1 or a number of steps that is not whole
 */
export function bootstrappingNow({ index, scheduler, stepsTaken }: SamplingJob, { bootstrapping, duration, durationUnit }: BootstrapOptions): string {
  if (duration === undefined || bootstrapping === 'sampler') return bootstrapping;
  return index < evaluationsIn('duration', duration, durationUnit, stepsTaken, scheduler.timesteps.length) ? bootstrapping : 'none';
}

/** The job with another bootstrapping. Unlike the sampler's, a background of the node's own holds at every step: the wiring says when. */
export async function varyBootstrapping(job: SamplingJob, model: DiffusionModel, { bootstrapping, colour, centring }: BootstrapOptions, signal?: AbortSignal): Promise<SamplingJob> {
  const options: SamplerOptions = {
    ...job.options,
    ...(centring !== 'sampler' && { maskCentring: centring === 'on' }),
    ...(bootstrapping === 'colour' && { bootstrappingColour: colour }),
    ...(hasBackground(bootstrapping) && { bootstrappingBackground: bootstrapping as SamplerOptions['bootstrappingBackground'] }),
  };
  const variant = { ...job, options, bootstrapEvaluations: bootstrapEvaluations(job, bootstrapping), findings: [], weights: undefined };
  if (!hasBackground(bootstrapping)) return variant;
  let { backgrounds } = job;
  const same = options.bootstrappingBackground === job.options.bootstrappingBackground && options.bootstrappingColour === job.options.bootstrappingColour;
  if (!same || backgrounds.length === 0) {
    const count = job.bootstrapEvaluations || Math.max(1, Math.round(COLOURS * job.scheduler.timesteps.length));
    const fresh = { ...variant, bootstrapEvaluations: count, backgrounds: [], backgroundPicks: [] };
    await addBackgrounds(fresh, model, { signal });
    backgrounds = fresh.backgrounds;
  }
  return { ...variant, backgrounds, backgroundPicks: pickBackgrounds(job.seed, backgrounds.length, variant.bootstrapEvaluations, job.views.length, job.regions.length) };
}

/**
 * The job with another fusion.
 * @param bootstrapping how the inputs were prepared: a bootstrapped region counts inside its mask only
 */
export function varyFusion(job: SamplingJob, bootstrapping: string, { fusion, backgroundWeight, feather, growingMasks, windowWeights: windows }: Partial<FuseOptions>): SamplingJob {
  const options: SamplerOptions = {
    ...job.options,
    ...(fusion && fusion !== 'sampler' && { fusion }),
    ...(backgroundWeight !== undefined && { backgroundWeight }),
    ...(growingMasks && growingMasks !== 'sampler' && { growingMasks: growingMasks === 'on' }),
    ...(windows && windows !== 'sampler' && { windowWeights: windows }),
  };
  const { grid } = job;
  const side = Math.min(grid.height, grid.width);
  const sameEdges = feather === undefined && options.growingMasks === job.options.growingMasks;
  const regions = sameEdges ? job.regions : job.regions.map((region) => ({ ...region, blurred: undefined, ...softEdges(region.outline, feather === undefined ? region.feather : feather * side, { grid, ...options }) }));
  return {
    ...job,
    options,
    regions,
    windowWeights: windowWeights(options.windowWeights, job.views[0]),
    bootstrapEvaluations: bootstrapEvaluations(job, bootstrapping),
    weights: undefined,
  };
}

function bootstrapEvaluations(job: SamplingJob, bootstrapping: string): number {
  if (bootstrapping === 'sampler') return job.bootstrapEvaluations;
  return bootstrapping === 'none' ? 0 : job.scheduler.timesteps.length;
}

const hasBackground = (bootstrapping: string): boolean => bootstrapping !== 'sampler' && bootstrapping !== 'none';
