/** The ways to draw a layout that are compared. */
import {
  LONG_BOOTSTRAPPING,
  type OptionSpec,
  PAPER_OPTIONS,
  REGION_OPTIONS,
  SAMPLER_OPTIONS,
  type SamplerOptions,
} from '../../dist/engine/options';
import type { Region } from '../../dist/engine/types';

export interface Strategy {
  name: string;
  /** For the table. */
  title: string;
  /** Whether objects are regions; otherwise one prompt lists everything. */
  regions: boolean;
  options: Partial<SamplerOptions>;
  /** Of every region. */
  region: Partial<Region>;
}

/** What differs from the paper; the name of a strategy joins some of these by "+". */
const PARTS: Record<string, { title?: string; options?: Partial<SamplerOptions>; region?: Partial<Region> }> = {
  '30%': { options: { bootstrapping: 0.3 } },
  '40%': { options: { bootstrapping: 0.4 } },
  '60%': { options: { bootstrapping: 0.6 } },
  '80%': { options: { bootstrapping: 0.8 } },
  white: { title: 'white', options: { bootstrappingBackground: 'white' } },
  grey: { title: 'grey', options: { bootstrappingBackground: 'colour', bootstrappingColour: '#808080' } },
  image: { title: 'picture of the background', options: { bootstrappingBackground: 'image' } },
  centred: { title: 'masks centred', options: { maskCentring: true } },
  growing: { title: 'growing masks', options: { growingMasks: true } },
  background: { title: 'background weight 0.1', options: { backgroundWeight: 0.1 } },
  feather: { title: 'feather 0.05', region: { feather: 0.05 } },
  first: { title: 'first on top', options: { fusion: 'first' } },
  last: { title: 'last on top', options: { fusion: 'last' } },
  'guidance 3': { title: 'guidance scale 3', options: { guidanceScale: 3 } },
  'guidance 5': { title: 'guidance scale 5', options: { guidanceScale: 5 } },
  'guidance 7.5': { title: 'guidance scale 7.5', options: { guidanceScale: 7.5 } },
};

/** Nothing but the background: what the judge says of it, it says by chance. */
export const SCENE_ALONE: Strategy = {
  name: 'scene',
  title: 'the scene alone, to compare with',
  regions: false,
  options: {},
  region: {},
};

const PLAIN: Strategy = {
  name: 'plain',
  title: 'plain prompt that lists everything',
  regions: false,
  options: {},
  region: {},
};
const NONE: Strategy = {
  name: 'none',
  title: 'regions, no bootstrapping',
  regions: true,
  options: { ...PAPER_OPTIONS, bootstrapping: 0 },
  region: {},
};
const AS_PAPER: Strategy = {
  name: 'paper',
  title: 'bootstrapping 20 %, random colours (the paper)',
  regions: true,
  options: PAPER_OPTIONS,
  region: {},
};

/** @throws Error naming the part that is unknown, and the known ones */
function combine(name: string): Strategy {
  const chosen = name.split('+').map((part) => {
    if (!Object.hasOwn(PARTS, part))
      throw new Error(
        `--strategies has '${part}'; there are plain, none, paper, and joined by "+": ${Object.keys(PARTS).join(', ')}.`,
      );
    return PARTS[part];
  });
  const options: Partial<SamplerOptions> = Object.assign({}, PAPER_OPTIONS, ...chosen.map((part) => part.options));
  const share = options.bootstrapping!;
  const amount = `bootstrapping ${100 * share} %${share > LONG_BOOTSTRAPPING ? ' (reported as too long)' : ''}`;
  const titles = [amount, ...chosen.flatMap(({ title }) => title ?? [])];
  return {
    name,
    title: titles.join(', '),
    regions: true,
    options,
    region: Object.assign({}, ...chosen.map((part) => part.region)),
  };
}

/** The table's: what differs from the paper one by one, then what does good together. */
const COMBINED = [
  'white',
  'grey',
  'image',
  'growing',
  'background',
  'feather',
  'first',
  'last',
  '40%',
  '60%',
  'centred',
  'centred+white',
  'centred+40%',
  'centred+white+40%',
  'centred+60%',
  'centred+white+60%',
  'centred+60%+guidance 3',
  'centred+60%+guidance 5',
  'centred+80%',
];
export const STRATEGIES: readonly Strategy[] = [PLAIN, NONE, AS_PAPER, ...COMBINED.map(combine)];

/**
 * Whether a strategy is what the sampler does when nothing is set.
 * @param guidanceScale of the strategies that don't say
 * @param usual the model's guidance scale where none is set
 */
export function isDefault({ regions, options, region }: Strategy, guidanceScale: number, usual: number): boolean {
  const differs = (values: object, specs: Record<string, OptionSpec>): boolean =>
    Object.entries(values).some(([name, value]) => value !== specs[name].default);
  const { guidanceScale: scale = guidanceScale, ...others } = options;
  return regions && scale === usual && !differs(others, SAMPLER_OPTIONS) && !differs(region, REGION_OPTIONS);
}

/** @throws Error naming what is unknown, and what there is */
export function chooseStrategies(names: string | undefined): Strategy[] {
  if (names === undefined) return [...STRATEGIES];
  return names.split(',').map((text) => {
    const name = text.trim();
    return STRATEGIES.find((strategy) => strategy.name === name) ?? combine(name);
  });
}
