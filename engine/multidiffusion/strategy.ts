/** How each step is done. A node of the wired loop may lay options of its own over the sampler's. */
import { InvalidInputError } from '../errors';
import type { BOOTSTRAP_OPTIONS, FUSE_OPTIONS, SamplerOptions, Values } from '../options';

export interface Strategy {
  readonly bootstrapping: Bootstrapping;
  readonly fusion: Fusion;
}

/** What regions see around themselves, and for how long. */
export interface Bootstrapping {
  /** The first this many model evaluations are bootstrapped. */
  readonly evaluations: number;
  readonly background: SamplerOptions['bootstrappingBackground'];
  /** Of the background 'colour', as #rrggbb. */
  readonly colour: string;
  /** Whether a region is moved to the middle of its window. */
  readonly centring: boolean;
}

/** How the predictions for all prompts and windows become one. */
export interface Fusion {
  readonly overlap: SamplerOptions['fusion'];
  readonly backgroundWeight: number;
  /** Width of every region's soft edge as a share of the canvas' shorter side; default: each region's own. */
  readonly feather?: number;
  readonly growingMasks: boolean;
  readonly windowWeights: SamplerOptions['windowWeights'];
}

/** How many steps are taken, and how often the model is evaluated for them. */
export interface PlannedRun {
  readonly strategy: Strategy;
  readonly stepsTaken: number;
  readonly evaluations: number;
  /** Evaluations at the beginning in which no background shows. */
  readonly blind: number;
}

export type BootstrapOptions = Values<typeof BOOTSTRAP_OPTIONS>;
export type FuseOptions = Omit<Values<typeof FUSE_OPTIONS>, 'mix'>;

/**
 * The sampler's own strategy.
 * @param bootstraps whether any region takes part in bootstrapping
 * @throws InvalidInputError for a fraction above 1 or a number of steps that is not whole
 */
export function samplerStrategy(
  options: SamplerOptions,
  run: Omit<PlannedRun, 'strategy'>,
  bootstraps: boolean,
): Strategy {
  return {
    bootstrapping: {
      evaluations: bootstraps
        ? evaluationsIn('bootstrapping', options.bootstrapping, options.bootstrappingUnit, run)
        : 0,
      background: options.bootstrappingBackground,
      colour: options.bootstrappingColour,
      centring: options.maskCentring,
    },
    fusion: {
      overlap: options.fusion,
      backgroundWeight: options.backgroundWeight,
      growingMasks: options.growingMasks,
      windowWeights: options.windowWeights,
    },
  };
}

/**
 * What a bootstrap node does before evaluation `index`: its own choice, until its duration is over.
 * @returns 'sampler', 'none' or one of the backgrounds
 * @throws InvalidInputError for a fraction above 1 or a number of steps that is not whole
 */
export function bootstrappingAt(
  run: PlannedRun,
  index: number,
  { bootstrapping, duration, durationUnit }: BootstrapOptions,
): BootstrapOptions['bootstrapping'] {
  if (duration === undefined || bootstrapping === 'sampler') return bootstrapping;
  return index < evaluationsIn('duration', duration, durationUnit, run) ? bootstrapping : 'none';
}

/** The sampler's strategy under a bootstrap node's. A background of the node's own holds at every step: the wiring says when. */
export function withBootstrapping(
  { strategy, evaluations }: PlannedRun,
  { bootstrapping, colour, centring = 'sampler' }: Pick<BootstrapOptions, 'bootstrapping'> & Partial<BootstrapOptions>,
): Strategy {
  const own = strategy.bootstrapping;
  const common = { ...own, centring: centring === 'sampler' ? own.centring : centring === 'on' };
  switch (bootstrapping) {
    case 'sampler':
      return { ...strategy, bootstrapping: common };
    case 'none':
      return { ...strategy, bootstrapping: { ...common, evaluations: 0 } };
    default:
      return {
        ...strategy,
        bootstrapping: {
          ...common,
          evaluations,
          background: bootstrapping,
          colour: bootstrapping === 'colour' && colour ? colour : own.colour,
        },
      };
  }
}

/** A strategy under a fuse node's. */
export function withFusion(
  strategy: Strategy,
  { fusion, backgroundWeight, feather, growingMasks, windowWeights }: Partial<FuseOptions>,
): Strategy {
  const own = strategy.fusion;
  return {
    ...strategy,
    fusion: {
      overlap: chosen(fusion) ?? own.overlap,
      backgroundWeight: backgroundWeight ?? own.backgroundWeight,
      feather: feather ?? own.feather,
      growingMasks: growingMasks && growingMasks !== 'sampler' ? growingMasks === 'on' : own.growingMasks,
      windowWeights: chosen(windowWeights) ?? own.windowWeights,
    },
  };
}

function chosen<T extends string>(choice: T | 'sampler' | undefined): T | undefined {
  return choice === 'sampler' ? undefined : choice;
}

/**
 * A share of the steps, or a number of them, as model evaluations: of a second-order scheduler, which asks more often than it
 * steps, the same share. A flow begins with noise alone, where no background shows: a bootstrapping that would be over by
 * then begins after it.
 * @param name of the amount; its unit is called the same with Unit
 * @throws InvalidInputError for a fraction above 1 or a number that is not whole
 */
function evaluationsIn(
  name: string,
  amount: number,
  unit: 'fraction' | 'steps',
  { stepsTaken, evaluations, blind }: Omit<PlannedRun, 'strategy'>,
): number {
  if (unit === 'fraction' && amount > 1)
    throw new InvalidInputError(name, amount, `a fraction from 0 to 1, or a number of steps with ${name}Unit 'steps'`);
  if (unit === 'steps' && !Number.isInteger(amount))
    throw new InvalidInputError(
      name,
      amount,
      `a whole number of steps, or a share of them with ${name}Unit 'fraction'`,
    );
  const count = Math.round((unit === 'fraction' ? amount : Math.min(1, amount / stepsTaken)) * evaluations);
  // What would do nothing at all counts from where it acts.
  return count > 0 && count <= blind ? Math.min(evaluations, blind + count) : count;
}
