/** The ways to draw a layout that are compared. */
import { type OptionSpec, REGION_OPTIONS, SAMPLER_OPTIONS, type SamplerOptions } from '../../dist/engine/options';
import type { Region } from '../../dist/engine/multidiffusion/types';

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

/** The paper's method in every option, so that the comparison stays the same when a default changes. */
const PAPER: Partial<SamplerOptions> = {
  bootstrapping: 0.2,
  bootstrappingUnit: 'fraction',
  bootstrappingBackground: 'random',
  maskCentring: false,
  fusion: 'average',
  backgroundWeight: 0,
  growingMasks: false,
};

function regional(name: string, title: string, options: Partial<SamplerOptions> = {}, region: Partial<Region> = {}): Strategy {
  return { name, title, regions: true, options: { ...PAPER, ...options }, region };
}

/** Nothing but the background: what the judge says of it, it says by chance. */
export const SCENE_ALONE: Strategy = { name: 'scene', title: 'the scene alone, to compare with', regions: false, options: {}, region: {} };

export const STRATEGIES: readonly Strategy[] = [
  { name: 'plain', title: 'plain prompt that lists everything', regions: false, options: {}, region: {} },
  regional('none', 'regions, no bootstrapping', { bootstrapping: 0 }),
  regional('paper', 'bootstrapping 20 %, random colours (the paper)'),
  regional('white', 'bootstrapping 20 %, white', { bootstrappingBackground: 'white' }),
  regional('grey', 'bootstrapping 20 %, grey', { bootstrappingBackground: 'colour', bootstrappingColour: '#808080' }),
  regional('image', 'bootstrapping 20 %, picture of the background', { bootstrappingBackground: 'image' }),
  regional('long', 'bootstrapping 40 %', { bootstrapping: 0.4 }),
  regional('longer', 'bootstrapping 60 %', { bootstrapping: 0.6 }),
  regional('centred', 'bootstrapping 20 %, masks centred', { maskCentring: true }),
  regional('growing', 'bootstrapping 20 %, growing masks', { growingMasks: true }),
  regional('background', 'bootstrapping 20 %, background weight 0.1', { backgroundWeight: 0.1 }),
  regional('feather', 'bootstrapping 20 %, feather 0.05', {}, { feather: 0.05 }),
  regional('first', 'bootstrapping 20 %, first on top', { fusion: 'first' }),
  regional('last', 'bootstrapping 20 %, last on top', { fusion: 'last' }),
];

/** Whether a strategy is what the sampler does when nothing is set. */
export function isDefault({ regions, options, region }: Strategy): boolean {
  const differs = (values: object, specs: Record<string, OptionSpec>): boolean => Object.entries(values).some(([name, value]) => value !== specs[name].default);
  return regions && !differs(options, SAMPLER_OPTIONS) && !differs(region, REGION_OPTIONS);
}

/** @throws Error naming the one that is unknown, and the known ones */
export function chooseStrategies(names: string | undefined): Strategy[] {
  if (names === undefined) return [...STRATEGIES];
  return names.split(',').map((name) => {
    const found = STRATEGIES.find((strategy) => strategy.name === name.trim());
    if (!found) throw new Error(`--strategies has '${name.trim()}'; there are ${STRATEGIES.map((strategy) => strategy.name).join(', ')}.`);
    return found;
  });
}
