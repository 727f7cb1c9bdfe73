/** What the sampler writes into msg.generation: the recipe of the picture. */
import { encodeMask } from '../../engine/image/mask';
import type { Recipe, RecipeRegion } from '../../engine/image/recipe';
import type { Conditioning, Region } from '../../engine/types';
import type { SampleResult } from '../../engine/multidiffusion/sample';
import { type ModelFacts, usualGuidanceScale } from '../../engine/model';
import { REGION_OPTIONS, type SamplerOptions } from '../../engine/options';
import { isObject, pick } from './message';

// eslint-disable-next-line @typescript-eslint/no-require-imports
const { version } = require('../../../package.json') as { version: string };

/** What is no option of the sampler, and not in the recipe itself. */
interface Circumstances {
  /** 'wired': nodes of a loop had their say in every step. */
  stepMode: string;
  startedFromImage: boolean;
}

/** A recipe with which the same picture can be made again; a mask that no outline describes goes into it as an image. */
export async function recipeOf(
  facts: ModelFacts,
  background: Conditioning,
  regions: Region[],
  options: SamplerOptions,
  result: SampleResult,
  circumstances: Circumstances,
): Promise<Recipe> {
  const { width, height, seed, steps, timings } = result;
  return {
    software: `node-red-contrib-multidiffusion ${version}`,
    model: facts.name,
    created: new Date().toISOString(),
    prompt: background.prompt,
    ...(!background.negativeAbsent && { negativePrompt: background.negativePrompt }),
    ...options,
    guidanceScale: options.guidanceScale ?? usualGuidanceScale(facts),
    width,
    height,
    seed,
    steps,
    scheduler: result.scheduler,
    ...circumstances,
    regions: await Promise.all(regions.map(describeRegion)),
    versions: { node: process.version },
    timings: { sample: Math.round(timings.total), unet: Math.round(timings.unet) },
  };
}

async function describeRegion(region: Region): Promise<RecipeRegion> {
  const { prompt, negativeAbsent } = region.conditioning;
  const negativePrompt = negativeAbsent ? null : region.conditioning.negativePrompt;
  const outline = isObject(region.shape) ? region.shape : { image: await encodeMask(region.mask as never) };
  return { name: region.name, prompt, negativePrompt, ...outline, ...pick(region, Object.keys(REGION_OPTIONS)) };
}
