/** Who counts for how much in which cell, at each model evaluation. */
import { largest } from '../regions/masks';
import { type Edges, softEdges } from '../regions/region';
import { noiseLevel } from '../schedulers/level';
import { atOnce, type Steps } from '../turns';
import type { Plan } from './plan';
import type { Fusion, Strategy } from './strategy';
import { cellsOf } from './views';

/** How much of a window a prompt holds. */
export enum Reach {
  None,
  Part,
  Whole,
}

export interface FusionWeights {
  /** Per prompt, over the canvas' cells: M_p. Where a bootstrapped prompt weighs nothing, its input is not the shared latents. */
  readonly masks: readonly Float32Array[];
  /** [view][prompt]: pairs without reach need no evaluation. */
  readonly reach: readonly Reach[][];
  /** Per prompt, whether it has its own input now. */
  readonly bootstrapped: readonly boolean[];
}

/**
 * The weights at a model evaluation. A region weighs as much as its mask; while it is bootstrapped only where
 * it holds the cell, because elsewhere it predicts the noise of another input. The background gets what is
 * left, max(0, 1 − ΣM_p), or the backgroundWeight if that is more. With overlap 'first' or 'last' the regions
 * first hide what lies below them.
 */
export function weightsAt(plan: Plan, strategy: Strategy, index: number): FusionWeights {
  return atOnce(weightsAtInSteps(plan, strategy, index));
}

/** As weightsAt, in steps; what it has worked out is remembered. */
export function* weightsAtInSteps(
  plan: Plan,
  { bootstrapping, fusion }: Strategy,
  index: number,
): Steps<FusionWeights> {
  const bootstraps = index >= plan.blind && index < bootstrapping.evaluations;
  const bootstrapped = plan.regions.map((region) => region.bootstrap && bootstraps);
  const active = plan.regions.map((region) => index >= region.first && index < region.last);
  const weigh = ({ mask, blurred }: Edges, p: number): Float32Array => {
    if (!active[p]) return new Float32Array(mask.soft.length);
    if (blurred) return grownMask(blurred, noiseLevel(plan.scheduler, index));
    return bootstrapped[p] ? mask.soft.map((m, i) => (mask.hard[i] ? m : 0)) : mask.soft.slice();
  };
  return yield* plan.memo.recallInSteps(keyOf(fusion, active, bootstrapped, index), function* () {
    const masks: Float32Array[] = [];
    for (const [p, edges] of (yield* edgesAt(plan, fusion)).entries()) {
      masks.push(weigh(edges, p));
      yield;
    }
    return yield* divide(plan, fusion, masks, bootstrapped);
  });
}

/** The weights after bootstrapping, with every region acting: how the picture is divided in general. */
export function* overallWeights(plan: Plan): Steps<FusionWeights> {
  const { fusion } = plan.strategy;
  const [active, bootstrapped] = [true, false].map((each) => plan.regions.map(() => each));
  const make = (): Steps<FusionWeights> => {
    const masks = plan.regions.map(({ mask }) => mask.soft.slice());
    return divide(plan, { ...fusion, backgroundWeight: 0 }, masks, bootstrapped);
  };
  // Most pictures are divided in just this way once bootstrapping is over.
  const usual = fusion.backgroundWeight === 0 && fusion.feather === undefined && !fusion.growingMasks;
  return yield* usual ? plan.memo.recallInSteps(keyOf(fusion, active, bootstrapped, 0), make) : make();
}

/** What the weights depend on. */
const keyOf = (fusion: Fusion, active: boolean[], bootstrapped: boolean[], index: number): unknown[] => [
  'weights',
  fusion,
  active,
  bootstrapped,
  fusion.growingMasks && index,
];

/** What regions weigh at and near their edges. */
function* edgesAt(plan: Plan, { feather, growingMasks }: Fusion): Steps<readonly Edges[]> {
  const { grid, options, regions, strategy } = plan;
  if (feather === undefined && growingMasks === strategy.fusion.growingMasks) return regions;
  const side = Math.min(grid.height, grid.width);
  const canvas = { grid, circular: options.circular, growingMasks };
  return yield* plan.memo.recallInSteps(['edges', feather, growingMasks], function* () {
    const edges: Edges[] = [];
    for (const region of regions)
      edges.push(yield* softEdges(region.outline, feather === undefined ? region.feather : feather * side, canvas));
    return edges;
  });
}

/** @param regions their masks; they become weights in place */
function* divide(plan: Plan, fusion: Fusion, regions: Float32Array[], bootstrapped: boolean[]): Steps<FusionWeights> {
  const left = yield* fusion.overlap === 'average' ? averaged(plan, regions) : stacked(plan, regions, fusion.overlap);
  const painted = paintedShare(plan);
  const background = left.map((weight, i) => (painted?.[i] === 0 ? 0 : Math.max(weight, fusion.backgroundWeight)));
  const masks = [background, ...regions];
  const reach: Reach[][] = [];
  for (const view of plan.views) {
    const cells = cellsOf(view, plan.grid.width);
    reach.push(masks.map((mask) => reachOf(mask, cells)));
    yield;
  }
  return { masks, reach, bootstrapped: [false, ...bootstrapped] };
}

/**
 * Where a picture is kept, whatever is predicted is thrown away: there the background need not be evaluated. But not if
 * the scheduler's thresholding makes every cell depend on all.
 * @returns for each cell the share that is painted; undefined when all of it is
 */
export function paintedShare({ kept, scheduler }: Plan): Float32Array | undefined {
  return scheduler.config.thresholding === true ? undefined : kept?.painted;
}

/** The paper's rule, with a weight per region. In place; returns what is left for the background. */
function* averaged({ grid, regions }: Plan, masks: Float32Array[]): Steps<Float32Array> {
  const left = new Float32Array(grid.height * grid.width).fill(1);
  for (const [p, mask] of masks.entries()) {
    const { weight } = regions[p];
    for (let i = 0; i < mask.length; i++) {
      left[i] = remains(left[i], mask[i]);
      mask[i] *= weight;
    }
    yield;
  }
  return left;
}

/** Front to back, each region takes what those before it left. In place; returns what is left for the background. */
function* stacked({ grid }: Plan, masks: Float32Array[], onTop: 'first' | 'last'): Steps<Float32Array> {
  const left = new Float32Array(grid.height * grid.width).fill(1);
  const frontToBack = onTop === 'first' ? masks : [...masks].reverse();
  for (const mask of frontToBack) {
    for (let i = 0; i < mask.length; i++) {
      mask[i] = Math.min(mask[i], left[i]);
      left[i] = remains(left[i], mask[i]);
    }
    yield;
  }
  return left;
}

/** a − b, at least 0; a trace left by rounding would cost the background an evaluation for nothing. */
function remains(a: number, b: number): number {
  const rest = a - b;
  return rest > 1e-6 ? rest : 0;
}

function reachOf(mask: Float32Array, cells: Int32Array): Reach {
  let held = 0;
  for (const cell of cells) if (mask[cell] > 0) held++;
  return held === 0 ? Reach.None : held === cells.length ? Reach.Whole : Reach.Part;
}

/**
 * A growing quantised mask (Lee et al. 2024, "SemanticDraw"): the cells where the blurred mask is
 * more than the noise level. Never empty: at first it is the inmost cells alone.
 */
function grownMask(blurred: Float32Array, level: number): Float32Array {
  const threshold = Math.min(level, largest(blurred) * (1 - 1e-6));
  return blurred.map((m) => (m > threshold ? 1 : 0));
}
