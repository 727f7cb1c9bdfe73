/**
 * Every option of a picture, with its type, range and default, in one place: nodes, layouts in messages,
 * the editor's forms, the help and the tests read it here.
 */
import { InvalidInputError } from './errors';

interface NumberOption {
  type: 'number' | 'integer';
  min: number;
  max: number;
  default?: number;
}
interface ChoiceOption {
  type: 'choice';
  choices: readonly string[];
  /** Other names of choices, in lower case. */
  aliases?: Readonly<Record<string, string>>;
  default: string;
}
interface BooleanOption {
  type: 'boolean';
  default: boolean;
}
/** As in CSS and HTML: '#rrggbb'. */
interface ColourOption {
  type: 'colour';
  default: string;
}
export type OptionSpec = NumberOption | ChoiceOption | BooleanOption | ColourOption;

export const SCHEDULER_NAMES = [
  'DDIMScheduler',
  'DPMSolverMultistepScheduler',
  'EulerDiscreteScheduler',
  'EulerAncestralDiscreteScheduler',
  'HeunDiscreteScheduler',
  'UniPCMultistepScheduler',
  'PNDMScheduler',
  'DDPMScheduler',
  'LCMScheduler',
] as const;

/** The sampler's options; where there is no default, the checkpoint decides. */
export const SAMPLER_OPTIONS = {
  /** Canvas in pixels, rounded to what the checkpoint can draw; default: its native size. */
  width: { type: 'integer', min: 16, max: 16384 },
  height: { type: 'integer', min: 16, max: 16384 },
  steps: { type: 'integer', min: 1, max: 1000, default: 25 },
  /** 'checkpoint' is the checkpoint's own scheduler_config.json. */
  scheduler: { type: 'choice', choices: ['checkpoint', ...SCHEDULER_NAMES], default: 'checkpoint' },
  guidanceScale: { type: 'number', min: 0, max: 100, default: 5 },
  /** Default: drawn at random and reported. */
  seed: { type: 'integer', min: 0, max: Number.MAX_SAFE_INTEGER },
  /** How long regions are bootstrapped: a share of the steps, or a count. The paper: the first 20 %; its program: 40 %. */
  bootstrapping: { type: 'number', min: 0, max: 1000, default: 0.6 },
  bootstrappingUnit: { type: 'choice', choices: ['fraction', 'steps'], default: 'fraction' },
  /** What fills a bootstrapped region's surroundings. The paper: random constant colours. */
  bootstrappingBackground: { type: 'choice', choices: ['random', 'white', 'colour', 'image'], default: 'random' },
  /** The colour of bootstrappingBackground 'colour'. */
  bootstrappingColour: { type: 'colour', default: '#808080' },
  /** Whether a bootstrapped region is moved to the middle of its window while the model looks at it (SemanticDraw). The paper: no. */
  maskCentring: { type: 'boolean', default: true },
  /** What happens where regions overlap. The paper: the (weighted) average. */
  fusion: { type: 'choice', choices: ['average', 'first', 'last'], default: 'average' },
  /** What the background weighs at least, also inside regions. The paper: 0; NoiseCollage: about 0.1. */
  backgroundWeight: { type: 'number', min: 0, max: 1, default: 0 },
  /** Whether regions begin as their inmost cells and grow as the noise falls (SemanticDraw). */
  growingMasks: { type: 'boolean', default: false },
  /** Window side in pixels for canvases larger than the model; default: the checkpoint's native size. */
  windowSize: { type: 'integer', min: 16, max: 16384 },
  /** Overlap of neighbouring windows as a share of the window. */
  windowOverlap: { type: 'number', min: 0, max: 0.95, default: 0.5 },
  /** What a window's middle weighs against its edges. The paper: the same; 'gaussian' and 'quartic' as in Mixture of Diffusers. */
  windowWeights: { type: 'choice', choices: ['uniform', 'gaussian', 'quartic'], default: 'uniform' },
  /** Whether the left and the right edge of the canvas touch, as in a full panorama. */
  circular: { type: 'boolean', default: false },
  /** With an initial image: the share of the steps that are taken; they begin with as much noise on it. */
  strength: { type: 'number', min: 0.01, max: 1, default: 0.8 },
  /** With an initial image: whether to keep it wherever no region is. */
  keepBackground: { type: 'boolean', default: false },
  /** After every how many steps a preview is sent; 0: never. */
  previewEvery: { type: 'integer', min: 0, max: 1000, default: 0 },
} as const satisfies Record<string, OptionSpec>;

/**
 * The share of the steps from which bootstrapping is reported as too long: beyond it, objects stop fitting into their picture (the
 * article's warning), and docs/evaluation.md shows nothing that is gained.
 */
export const LONG_BOOTSTRAPPING = 0.6;

/** How the sampler takes its steps; only its configuration says. */
export const LOOP_OPTIONS = {
  /** 'wired': the steps go round a loop of nodes, from the output "step" back into the sampler. */
  stepMode: { type: 'choice', choices: ['built-in', 'wired'], default: 'built-in' },
  /** Seconds for which no node of the loop may keep a step's message. */
  loopTimeout: { type: 'number', min: 1, max: 86400, default: 60 },
} as const satisfies Record<string, OptionSpec>;

/** What multidiffusion-bootstrap takes; 'sampler': as the sampler has it. */
export const BOOTSTRAP_OPTIONS = {
  bootstrapping: { type: 'choice', choices: ['sampler', 'none', ...SAMPLER_OPTIONS.bootstrappingBackground.choices], default: 'sampler' },
  /** With bootstrapping 'colour'. */
  colour: SAMPLER_OPTIONS.bootstrappingColour,
  /** How long a background chosen here holds; default: at every step that comes through the node. */
  duration: { type: 'number', min: 0, max: 1000 },
  durationUnit: SAMPLER_OPTIONS.bootstrappingUnit,
  /** Whether bootstrapped regions are moved to the middle of their windows. */
  centring: { type: 'choice', choices: ['sampler', 'on', 'off'], default: 'sampler' },
} as const satisfies Record<string, OptionSpec>;

/** What multidiffusion-fuse takes; 'sampler', and nothing where there is no default: as the sampler or the regions have it. */
export const FUSE_OPTIONS = {
  fusion: { type: 'choice', choices: ['sampler', ...SAMPLER_OPTIONS.fusion.choices], default: 'sampler' },
  backgroundWeight: { type: 'number', min: 0, max: 1 },
  feather: { type: 'number', min: 0, max: 0.5 },
  growingMasks: { type: 'choice', choices: ['sampler', 'on', 'off'], default: 'sampler' },
  windowWeights: { type: 'choice', choices: ['sampler', ...SAMPLER_OPTIONS.windowWeights.choices], default: 'sampler' },
  /** How much of this fusion goes into one that an earlier node has made; 1 replaces it. */
  mix: { type: 'number', min: 0, max: 1, default: 1 },
} as const satisfies Record<string, OptionSpec>;

/** A region's options. */
export const REGION_OPTIONS = {
  weight: { type: 'number', min: 0.001, max: 1000, default: 1 },
  feather: { type: 'number', min: 0, max: 0.5, default: 0 },
  guidanceScale: { type: 'number', min: 0, max: 100 },
  seed: { type: 'integer', min: 0, max: Number.MAX_SAFE_INTEGER },
  start: { type: 'number', min: 0, max: 1, default: 0 },
  end: { type: 'number', min: 0, max: 1, default: 1 },
  bootstrap: { type: 'boolean', default: true },
} as const satisfies Record<string, OptionSpec>;

/** Where a checkpoint runs. */
export const MODEL_OPTIONS = {
  provider: { type: 'choice', choices: ['auto', 'cpu', 'cuda'], default: 'auto' },
  /** CPU threads of one run; default: as many as there are physical cores. */
  threads: { type: 'integer', min: 1, max: 256 },
  /** Most rows of the UNet in one run; default: what fits the device. */
  batchSize: { type: 'integer', min: 1, max: 64 },
  /** MiB that the model's process may take on its device; default: most of what is free on a GPU, no bound on a CPU. */
  memoryBudget: { type: 'integer', min: 64, max: 1_048_576 },
  /** Seconds without work after which the model is unloaded; 0: never. */
  idleTimeout: { type: 'number', min: 0, max: 604_800, default: 0 },
  /** Whether the model is loaded as soon as the flows have been started, and not when the first message needs it. */
  loadAtDeploy: { type: 'boolean', default: false },
} as const satisfies Record<string, OptionSpec>;

/** What vae-encode takes. */
export const ENCODE_OPTIONS = {
  /** The canvas in pixels; default: the checkpoint's native size. */
  width: SAMPLER_OPTIONS.width,
  height: SAMPLER_OPTIONS.height,
} as const satisfies Record<string, OptionSpec>;

/**
 * Numbers of the GPUs of a diffusion-model: one, or several separated by commas; nothing means 0.
 * @throws InvalidInputError
 */
export function readDevices(value: unknown): number[] {
  const devices = String(value ?? '').trim().split(/\s*,\s*/);
  if (devices.length === 1 && devices[0] === '') return [0];
  if (devices.length > 16 || !devices.every((device) => /^\d{1,2}$/.test(device))) throw new InvalidInputError('deviceId', value, 'a number from 0, or several separated by commas, such as 0,1');
  return [...new Set(devices.map(Number))];
}

/** What vae-decode takes. */
export const DECODE_OPTIONS = {
  /** Side of a tile in pixels; default: as large as the checkpoint's native size asks for. */
  tileSize: { type: 'integer', min: 64, max: 4096 },
  /** Whether the left and the right edge of the picture touch. */
  circular: { type: 'boolean', default: false },
} as const satisfies Record<string, OptionSpec>;

/** What save-image takes. */
export const IMAGE_OPTIONS = {
  format: { type: 'choice', choices: ['png', 'jpeg', 'webp'], aliases: { jpg: 'jpeg' }, default: 'png' },
  quality: { type: 'integer', min: 1, max: 100, default: 90 },
} as const satisfies Record<string, OptionSpec>;

/** What save-image takes from its configuration only. */
export const SAVE_OPTIONS = {
  /** Whether to write a file. */
  save: { type: 'boolean', default: true },
  overwrite: { type: 'boolean', default: false },
  dataUri: { type: 'boolean', default: false },
} as const satisfies Record<string, OptionSpec>;

type ValueOf<S> = S extends { type: 'number' | 'integer' }
  ? number
  : S extends { type: 'boolean' }
    ? boolean
    : S extends { type: 'colour' }
      ? string
      : S extends { choices: readonly (infer C)[] }
        ? C
        : never;

/** The type of a set of option values; the ones without a default may be absent. */
export type Values<T extends Record<string, OptionSpec>> = {
  [K in keyof T as T[K] extends { default: unknown } ? K : never]: ValueOf<T[K]>;
} & {
  [K in keyof T as T[K] extends { default: unknown } ? never : K]?: ValueOf<T[K]>;
};

export type SamplerOptions = Values<typeof SAMPLER_OPTIONS>;

/** The method as the paper has it (Bar-Tal et al. 2023). The defaults differ from it where something else draws better: see docs/evaluation.md. */
export const PAPER_OPTIONS = {
  bootstrapping: 0.2,
  bootstrappingUnit: 'fraction',
  bootstrappingBackground: 'random',
  maskCentring: false,
  fusion: 'average',
  backgroundWeight: 0,
  growingMasks: false,
} as const satisfies Partial<SamplerOptions>;

/**
 * Checks one value against its option. Numbers may come as text (HTTP queries are strings), choices in any case.
 * @returns the value in its own type; undefined for undefined, null and ''
 * @throws InvalidInputError naming the property, the value and what is allowed
 */
export function checkOption(name: string, spec: OptionSpec, value: unknown): string | number | boolean | undefined {
  if (value === undefined || value === null || value === '') return undefined;
  switch (spec.type) {
    case 'boolean':
      if (value === true || value === 'true') return true;
      if (value === false || value === 'false') return false;
      throw new InvalidInputError(name, value, 'true or false');
    case 'colour':
      if (typeof value === 'string' && /^#[0-9a-f]{6}$/i.test(value)) return value.toLowerCase();
      throw new InvalidInputError(name, value, 'a colour as #rrggbb, such as #ffffff for white');
    case 'choice': {
      const said = typeof value === 'string' ? value.toLowerCase() : undefined;
      const choice = spec.choices.find((known) => known.toLowerCase() === said || known === spec.aliases?.[said ?? '']);
      if (choice === undefined) throw new InvalidInputError(name, value, `one of ${spec.choices.join(', ')}`);
      return choice;
    }
    default: {
      const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : value;
      const kind = spec.type === 'integer' ? 'a whole number' : 'a number';
      const whole = spec.type !== 'integer' || Number.isInteger(number);
      if (typeof number !== 'number' || !Number.isFinite(number) || !whole || number < spec.min || number > spec.max) {
        throw new InvalidInputError(name, value, `${kind} from ${spec.min} to ${spec.max}`);
      }
      return number;
    }
  }
}

/**
 * Values for a whole set of options: for each, the first source that has it, else the default.
 * @param sources in order of precedence (the message, then the node's configuration)
 */
export function resolveOptions<T extends Record<string, OptionSpec>>(specs: T, ...sources: Array<Record<string, unknown>>): Values<T> {
  const values: Record<string, unknown> = {};
  for (const [name, spec] of Object.entries(specs)) {
    let value: unknown;
    for (const source of sources) {
      value = checkOption(name, spec, source[name]);
      if (value !== undefined) break;
    }
    value ??= spec.default;
    if (value !== undefined) values[name] = value;
  }
  return values as Values<T>;
}
