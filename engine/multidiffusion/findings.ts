/** What a user should know about a request before it is sampled; none of it stops the plan. */
import { LONG_BOOTSTRAPPING } from '../options';
import type { Plan } from './plan';
import type { LatentRegion } from '../regions/region';
import type { Steps } from '../turns';
import type { Finding, Region } from '../types';
import { overallWeights } from './weights';

/** Fewer cells than this rarely become a recognisable object. */
const TINY_CELLS = 16;
const THIN_CELLS = 3;
/** A region that has less than this share of every one of its cells is as good as invisible. */
const VISIBLE_SHARE = 0.1;

/** A mask that is nowhere stronger than this leaves most of each cell to the background. */
const WEAK = 0.5;
/** So far an outline may reach over an edge by rounding. */
const ROUNDING = 1e-6;

/** In steps. @param regions as they were asked for, with the outlines of their masks */
export function* findProblems(plan: Plan, regions: readonly Region[]): Steps<Finding[]> {
  return [
    ...wordless(plan),
    ...plan.prompts.flatMap((prompt, p) => promptFindings(plan, p, prompt.conditioning)),
    ...regions.flatMap(cutOff),
    ...(yield* placeFindings(plan)),
    ...bootstrappingFindings(plan),
  ];
}

function promptFindings(
  plan: Plan,
  prompt: number,
  { truncated, unknownWords }: { truncated?: string; unknownWords?: string[] },
): Finding[] {
  const region = prompt === 0 ? {} : { region: plan.prompts[prompt].name };
  const whose = prompt === 0 ? 'the background' : `region "${plan.prompts[prompt].name}"`;
  const findings: Finding[] = [];
  if (typeof truncated === 'string' && truncated) {
    const text = truncated.length > 100 ? `${truncated.slice(0, 97)}...` : truncated;
    findings.push({
      code: 'TRUNCATED_PROMPT',
      ...region,
      message: `The prompt of ${whose} is too long; its end was cut off: "${text}".`,
    });
  }
  if (Array.isArray(unknownWords) && unknownWords.length) {
    const words = unknownWords.slice(0, 20).map(String).join(', ');
    findings.push({
      code: 'UNKNOWN_WORDS',
      ...region,
      message: `The model does not know these words in the prompt of ${whose}: ${words}.`,
    });
  }
  return findings;
}

/** Without a word anywhere the model draws anything. */
function wordless({ prompts }: Plan): Finding[] {
  if (!prompts.every(({ conditioning: { prompt } }) => typeof prompt === 'string' && !prompt.trim())) return [];
  return [{ code: 'NO_PROMPT', message: 'No prompt says what to draw: the picture shows anything.' }];
}

function cutOff({ name, shape }: Region): Finding[] {
  if (!cornersOf(shape).some((at) => at < -ROUNDING || at > 1 + ROUNDING)) return [];
  const message = `Region "${name}" reaches over the edge of the canvas; what lies outside is cut off.`;
  return [{ code: 'CUT_OFF', region: name, message }];
}

/** The coordinates of an outline's corners, or of the box around it. */
function cornersOf(shape: unknown): number[] {
  const { box, ellipse, polygon } = Object(shape) as Record<string, unknown>;
  if (Array.isArray(polygon)) return (polygon as number[]).flat();
  const frame = box ?? ellipse;
  if (!Array.isArray(frame)) return [];
  const [x, y, width, height] = frame as number[];
  return [x, y, x + width, y + height];
}

function* placeFindings(plan: Plan): Steps<Finding[]> {
  const findings: Finding[] = [];
  for (const region of plan.regions) {
    const found = tiny(region, plan.grid.width);
    if (found)
      findings.push({
        code: 'TINY_REGION',
        region: region.name,
        message: `Region "${region.name}" ${found}: objects so small are often ignored.`,
      });
    yield;
  }
  for (const { name, outline } of plan.regions) {
    const strength = outline.soft.reduce((most, share) => Math.max(most, share), 0);
    if (strength < WEAK)
      findings.push({
        code: 'WEAK_MASK',
        region: name,
        message: `The mask of region "${name}" has a strength of ${Math.round(100 * strength)} % at most: paint it in white.`,
      });
    yield;
  }
  const { masks } = yield* overallWeights(plan);
  const total = new Float64Array(masks[0].length);
  for (const mask of masks) {
    for (let i = 0; i < total.length; i++) total[i] += mask[i];
    yield;
  }
  for (const [p, region] of plan.regions.entries()) {
    if (!masks[p + 1].some((weight, i) => weight >= VISIBLE_SHARE * total[i] && weight > 0)) {
      findings.push({
        code: 'HIDDEN_REGION',
        region: region.name,
        message: `Region "${region.name}" is hidden by other regions.`,
      });
    }
    yield;
  }
  const uncovered = masks[0].reduce((cells, weight) => cells + (weight > 0 ? 1 : 0), 0);
  if (plan.regions.length && uncovered && !plan.kept && !plan.prompts[0].conditioning.prompt?.trim()) {
    const percent = Math.max(1, Math.round((100 * uncovered) / total.length));
    findings.push({
      code: 'UNCOVERED',
      message: `${percent} % of the picture belongs to no region and has no background prompt.`,
    });
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

function bootstrappingFindings(plan: Plan): Finding[] {
  const { bootstrapping, bootstrappingUnit } = plan.options;
  const share = plan.strategy.bootstrapping.evaluations / plan.evaluations;
  const asked = bootstrapping / (bootstrappingUnit === 'fraction' ? 1 : plan.stepsTaken);
  if (plan.strategy.bootstrapping.evaluations > 0 && Math.round(asked * plan.evaluations) <= plan.blind) {
    const { evaluations } = plan.strategy.bootstrapping;
    return [
      {
        code: 'LATE_BOOTSTRAPPING',
        message:
          `This model begins with noise alone, where no bootstrapping background shows, and ${asked * 100} % of ` +
          `${plan.evaluations} evaluations would be over by then: bootstrapping begins after it, up to evaluation ${evaluations}.`,
      },
    ];
  }
  // A share of few steps is rounded to whole ones: what counts is the share that was asked for.
  if (Math.min(share, bootstrappingUnit === 'fraction' ? bootstrapping : 1) <= LONG_BOOTSTRAPPING) return [];
  return [
    {
      code: 'LONG_BOOTSTRAPPING',
      message: `${Math.round(100 * share)} % of the steps are bootstrapped; more than ${100 * LONG_BOOTSTRAPPING} % costs quality.`,
    },
  ];
}
