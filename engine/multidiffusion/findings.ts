/** What a user should know about a request before it is sampled; none of it stops the job. */
import { LONG_BOOTSTRAPPING } from '../options';
import type { SamplingJob } from './job';
import type { LatentRegion } from './regions';
import type { Finding } from './types';
import { overallWeights } from './weights';

/** Fewer cells than this rarely become a recognisable object. */
const TINY_CELLS = 16;
const THIN_CELLS = 3;
/** A region that has less than this share of every one of its cells is as good as invisible. */
const VISIBLE_SHARE = 0.1;

export function findProblems(job: SamplingJob): Finding[] {
  return [...job.prompts.flatMap((prompt, p) => promptFindings(job, p, prompt.conditioning)), ...placeFindings(job), ...bootstrappingFindings(job)];
}

function promptFindings(job: SamplingJob, prompt: number, { truncated, unknownWords }: { truncated?: string; unknownWords?: string[] }): Finding[] {
  const region = prompt === 0 ? {} : { region: job.prompts[prompt].name };
  const whose = prompt === 0 ? 'the background' : `region "${job.prompts[prompt].name}"`;
  const findings: Finding[] = [];
  if (typeof truncated === 'string' && truncated) {
    const text = truncated.length > 100 ? `${truncated.slice(0, 97)}...` : truncated;
    findings.push({ code: 'TRUNCATED_PROMPT', ...region, message: `The prompt of ${whose} is too long; this end of it was cut off: "${text}".` });
  }
  if (Array.isArray(unknownWords) && unknownWords.length) {
    const words = unknownWords.slice(0, 20).map(String).join(', ');
    findings.push({ code: 'UNKNOWN_WORDS', ...region, message: `The model does not know these words in the prompt of ${whose}: ${words}.` });
  }
  return findings;
}

function placeFindings(job: SamplingJob): Finding[] {
  const findings: Finding[] = [];
  for (const region of job.regions) {
    const found = tiny(region, job.grid.width);
    if (found) findings.push({ code: 'TINY_REGION', region: region.name, message: `Region "${region.name}" ${found}: objects so small are often ignored.` });
  }
  const { masks } = overallWeights(job);
  const total = new Float64Array(masks[0].length);
  for (const mask of masks) for (let i = 0; i < total.length; i++) total[i] += mask[i];
  job.regions.forEach((region, p) => {
    if (!masks[p + 1].some((weight, i) => weight >= VISIBLE_SHARE * total[i] && weight > 0)) {
      findings.push({ code: 'HIDDEN_REGION', region: region.name, message: `Region "${region.name}" is hidden by other regions.` });
    }
  });
  const uncovered = masks[0].reduce((cells, weight) => cells + (weight > 0 ? 1 : 0), 0);
  if (job.regions.length && uncovered && !job.kept && !job.prompts[0].conditioning.prompt?.trim()) {
    const percent = Math.max(1, Math.round((100 * uncovered) / total.length));
    findings.push({ code: 'UNCOVERED', message: `${percent} % of the picture belongs to no region and has no background prompt.` });
  }
  return findings;
}

function tiny({ mask }: LatentRegion, width: number): string | undefined {
  let cells = 0;
  let [left, right, top, bottom] = [Infinity, -1, Infinity, -1];
  for (let i = 0; i < mask.hard.length; i++) {
    if (!mask.hard[i]) continue;
    cells++;
    left = Math.min(left, i % width);
    right = Math.max(right, i % width);
    top = Math.min(top, Math.floor(i / width));
    bottom = Math.max(bottom, Math.floor(i / width));
  }
  const thickness = Math.min(right - left, bottom - top) + 1;
  if (cells < TINY_CELLS) return `covers only ${cells} latent cell${cells === 1 ? '' : 's'}`;
  if (thickness < THIN_CELLS) return `is only ${thickness} latent cell${thickness === 1 ? '' : 's'} thick`;
  return undefined;
}

function bootstrappingFindings(job: SamplingJob): Finding[] {
  const { bootstrapping, bootstrappingUnit } = job.options;
  const share = job.bootstrapEvaluations / job.scheduler.timesteps.length;
  // A share of few steps is rounded to whole ones: what counts is the share that was asked for.
  if (Math.min(share, bootstrappingUnit === 'fraction' ? bootstrapping : 1) <= LONG_BOOTSTRAPPING) return [];
  return [{ code: 'LONG_BOOTSTRAPPING', message: `${Math.round(100 * share)} % of the steps are bootstrapped; more than ${100 * LONG_BOOTSTRAPPING} % costs quality.` }];
}
