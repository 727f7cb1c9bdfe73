/**
 * Every option of a picture, with its type, range and default, in one place: nodes, layouts in messages,
 * the editor's forms, the help and the tests read it here.
 */
import { InvalidInputError } from './errors';

/**
 * How a form shows an option. Its words are in the node's catalogue: `label.NAME`, `hint.NAME` (a sentence about it)
 * and `NAME.CHOICE`.
 */
export interface OptionForm {
  /** The folded section that it stands in: the key `section.…` of its title. */
  section?: string;
  /** Folded away further, under "more": what few flows gain from. */
  more?: true;
  /** A Font Awesome icon before the label. */
  icon?: string;
  /** What stands behind the field; true: the catalogue's `unit.NAME`. */
  unit?: string | true;
  /** What an empty field shows, where that is not the default; true: the catalogue's `placeholder.NAME`. */
  placeholder?: string | true;
  /** Stands in the row of the option before it, after this text. */
  beside?: string;
  /** The label of the whole row, `label.…`, where several options stand in it. */
  row?: string;
  /** Shown only where other options have one of these values. */
  when?: Readonly<Record<string, readonly (string | boolean)[]>>;
  /** Kinds of value that its typed input offers, the default first; the property NAMEType holds the chosen one. */
  kinds?: readonly string[];
  /** Lines of a text. */
  lines?: number;
  /** Whether its sentence stands below the field, and not only in a tooltip. */
  hint?: true;
}

interface Common {
  form?: OptionForm;
}
interface NumberOption extends Common {
  type: 'number' | 'integer';
  min: number;
  max: number;
  default?: number;
  /** The form does not take an empty field. */
  required?: true;
  /** The option that says whether this one is a share of the steps ('fraction', at most 1) or a whole number of 'steps'. */
  unitOption?: string;
  /** The option that this one must exceed. */
  above?: string;
  /** A number that other programs write where there is no value. */
  none?: number;
}
interface ChoiceOption extends Common {
  type: 'choice';
  choices: readonly string[];
  /** What a form calls a choice in every language; the others have their names in the catalogue. */
  names?: Readonly<Record<string, string>>;
  /** Other names of choices, in lower case. */
  aliases?: Readonly<Record<string, string>>;
  /** The choice that some other text means. */
  synonym?: (said: string) => string | undefined;
  default: string;
}
interface BooleanOption extends Common {
  type: 'boolean';
  default: boolean;
}
/** As in CSS and HTML: '#rrggbb'. */
interface ColourOption extends Common {
  type: 'colour';
  default: string;
}
interface TextOption extends Common {
  type: 'text';
  default: string;
  /** The form does not take an empty field while it is shown. */
  required?: true;
  /** A regular expression that the whole text must match; the form's refusal is the key `error.…` in the common catalogue. */
  pattern?: { source: string; refusal: string };
  /** Names that may stand in braces in it. */
  fields?: readonly string[];
}
export type OptionSpec = NumberOption | ChoiceOption | BooleanOption | ColourOption | TextOption;

/** Where Node-RED's typed inputs find a value that does not stand in the node. */
export const SOURCES = ['msg', 'flow', 'global', 'env', 'jsonata'] as const;
const NUMBER_KINDS = ['num', ...SOURCES] as const;
const TEXT_KINDS = ['str', ...SOURCES] as const;

/** Names as users of other programs know them. */
const SCHEDULERS = {
  DDIMScheduler: 'DDIM',
  DPMSolverMultistepScheduler: 'DPM-Solver++ 2M',
  EulerDiscreteScheduler: 'Euler',
  EulerAncestralDiscreteScheduler: 'Euler ancestral',
  HeunDiscreteScheduler: 'Heun',
  UniPCMultistepScheduler: 'UniPC',
  PNDMScheduler: 'PNDM',
  DDPMScheduler: 'DDPM',
  LCMScheduler: 'LCM',
} as const;
export const SCHEDULER_NAMES = Object.keys(SCHEDULERS) as Array<keyof typeof SCHEDULERS>;

const FLOW_SCHEDULERS = {
  FlowMatchEulerDiscreteScheduler: 'Flow matching, Euler',
  FlowMatchHeunDiscreteScheduler: 'Flow matching, Heun',
} as const;
/** Of flow-matching models (Stable Diffusion 3, FLUX.1); DPMSolverMultistepScheduler and UniPCMultistepScheduler sample them too. */
export const FLOW_SCHEDULER_NAMES = Object.keys(FLOW_SCHEDULERS) as Array<keyof typeof FLOW_SCHEDULERS>;

/** A canvas in pixels, rounded to what the checkpoint can draw; default: its native size. */
const CANVAS = {
  width: {
    type: 'integer',
    min: 16,
    max: 16384,
    form: { row: 'size', icon: 'arrows', placeholder: true, kinds: NUMBER_KINDS },
  },
  height: {
    type: 'integer',
    min: 16,
    max: 16384,
    form: { beside: '×', unit: 'px', placeholder: true, kinds: NUMBER_KINDS },
  },
} as const satisfies Record<string, OptionSpec>;

/** How AUTOMATIC1111's web UI, and the programs that go by it, call the schedulers. */
export const TRADE_NAMES: Readonly<Record<string, string>> = {
  DDIMScheduler: 'DDIM',
  DPMSolverMultistepScheduler: 'DPM++ 2M',
  EulerDiscreteScheduler: 'Euler',
  EulerAncestralDiscreteScheduler: 'Euler a',
  HeunDiscreteScheduler: 'Heun',
  UniPCMultistepScheduler: 'UniPC',
  PNDMScheduler: 'PLMS',
  DDPMScheduler: 'DDPM',
  LCMScheduler: 'LCM',
  FlowMatchEulerDiscreteScheduler: 'Euler',
  FlowMatchHeunDiscreteScheduler: 'Heun',
};

/** Other names that are in use, in lower case. */
const OTHER_NAMES: Readonly<Record<string, string>> = {
  dpmpp_2m: 'DPMSolverMultistepScheduler',
  dpmpp2m: 'DPMSolverMultistepScheduler',
  'dpm-solver++': 'DPMSolverMultistepScheduler',
  euler_a: 'EulerAncestralDiscreteScheduler',
  euler_ancestral: 'EulerAncestralDiscreteScheduler',
  'euler ancestral': 'EulerAncestralDiscreteScheduler',
  uni_pc: 'UniPCMultistepScheduler',
  pndm: 'PNDMScheduler',
};

const SCHEDULER_ALIASES: Readonly<Record<string, string>> = {
  // Of two with one name it is the first.
  ...Object.fromEntries(
    Object.entries(TRADE_NAMES)
      .reverse()
      .map(([scheduler, name]) => [name.toLowerCase(), scheduler]),
  ),
  ...OTHER_NAMES,
};

/** How the trade writes that a seed is to be drawn at random. */
export const RANDOM_SEED = -1;

/** The sampler's options; where there is no default, the checkpoint decides. */
export const SAMPLER_OPTIONS = {
  ...CANVAS,
  steps: {
    type: 'integer',
    min: 1,
    max: 1000,
    default: 25,
    form: { icon: 'step-forward', kinds: NUMBER_KINDS },
  },
  /** 'checkpoint' is the checkpoint's own scheduler_config.json. */
  scheduler: {
    type: 'choice',
    choices: ['checkpoint', ...SCHEDULER_NAMES, ...FLOW_SCHEDULER_NAMES],
    names: { ...SCHEDULERS, ...FLOW_SCHEDULERS },
    synonym: readScheduler,
    default: 'checkpoint',
    form: { icon: 'line-chart' },
  },
  /** Default: what suits the model's family; see usualGuidanceScale. */
  guidanceScale: {
    type: 'number',
    min: 0,
    max: 100,
    form: { icon: 'magnet', placeholder: true, kinds: NUMBER_KINDS },
  },
  /** Of models that take the guidance scale as an input (FLUX.1): how much the negative prompt counts; 1: nothing. */
  trueGuidanceScale: {
    type: 'number',
    min: 1,
    max: 100,
    default: 1,
    form: { section: 'conditioning', icon: 'minus-circle' },
  },
  /** What the model is told of the picture's size before it was cut and scaled (Stable Diffusion XL); default: the canvas. */
  originalWidth: {
    type: 'integer',
    min: 16,
    max: 16384,
    form: { section: 'conditioning', row: 'originalSize', icon: 'arrows', placeholder: true },
  },
  originalHeight: {
    type: 'integer',
    min: 16,
    max: 16384,
    form: { section: 'conditioning', beside: '×', unit: 'px', placeholder: true },
  },
  /** What the model is told of where the picture was cut out (Stable Diffusion XL); 0: well-framed pictures. */
  cropLeft: {
    type: 'integer',
    min: 0,
    max: 16384,
    default: 0,
    form: { section: 'conditioning', row: 'crop', icon: 'crop' },
  },
  cropTop: {
    type: 'integer',
    min: 0,
    max: 16384,
    default: 0,
    form: { section: 'conditioning', beside: ',', unit: 'px' },
  },
  /** What the model is told of a window of a larger canvas (Stable Diffusion XL): its place in it, or that it is a picture of its own. */
  windowPlace: {
    type: 'choice',
    choices: ['canvas', 'alone'],
    default: 'canvas',
    form: { section: 'conditioning', icon: 'map-marker' },
  },
  /** Default: drawn at random and reported. */
  seed: {
    type: 'integer',
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    none: RANDOM_SEED,
    required: true,
    form: { icon: 'random', kinds: ['random', ...NUMBER_KINDS] },
  },
  /** How long regions are bootstrapped: a share of the steps, or a count. The paper: the first 20 %; its program: 40 %. */
  bootstrapping: {
    type: 'number',
    min: 0,
    max: 1000,
    default: 0.6,
    unitOption: 'bootstrappingUnit',
    form: { section: 'bootstrapping', icon: 'hourglass-start' },
  },
  bootstrappingUnit: {
    type: 'choice',
    choices: ['fraction', 'steps'],
    default: 'fraction',
    form: { section: 'bootstrapping', beside: '' },
  },
  /** What fills a bootstrapped region's surroundings. The paper: random constant colours. */
  bootstrappingBackground: {
    type: 'choice',
    choices: ['random', 'white', 'colour', 'image'],
    default: 'random',
    form: { section: 'bootstrapping', icon: 'paint-brush' },
  },
  /** The colour of bootstrappingBackground 'colour'. */
  bootstrappingColour: {
    type: 'colour',
    default: '#808080',
    form: { section: 'bootstrapping', icon: 'tint', when: { bootstrappingBackground: ['colour'] } },
  },
  /** Whether a bootstrapped region is moved to the middle of its window while the model looks at it (SemanticDraw). The paper: no. */
  maskCentring: { type: 'boolean', default: true, form: { section: 'bootstrapping' } },
  /** What happens where regions overlap. The paper: the (weighted) average. */
  fusion: {
    type: 'choice',
    choices: ['average', 'first', 'last'],
    default: 'average',
    form: { section: 'fusion', icon: 'object-ungroup' },
  },
  /** The least weight of the background, also inside regions. The paper: 0; NoiseCollage: about 0.1. */
  backgroundWeight: {
    type: 'number',
    min: 0,
    max: 1,
    default: 0,
    form: { section: 'fusion', more: true, icon: 'adjust' },
  },
  /** Whether regions begin as their inmost cells and grow as the noise falls (SemanticDraw). */
  growingMasks: { type: 'boolean', default: false, form: { section: 'fusion', more: true } },
  /** Window side in pixels for canvases larger than the model; default: the checkpoint's native size. */
  windowSize: {
    type: 'integer',
    min: 16,
    max: 16384,
    form: { section: 'windows', icon: 'window-maximize', placeholder: true, unit: 'px' },
  },
  /** Overlap of neighbouring windows as a share of the window. */
  windowOverlap: {
    type: 'number',
    min: 0,
    max: 0.95,
    default: 0.5,
    form: { section: 'windows', icon: 'clone', unit: true },
  },
  /** The weight of a window's middle against its edges. The paper: the same; 'gaussian', 'quartic': Mixture of Diffusers. */
  windowWeights: {
    type: 'choice',
    choices: ['uniform', 'gaussian', 'quartic'],
    default: 'uniform',
    form: { section: 'windows', icon: 'area-chart' },
  },
  /** Whether the left and the right edge of the canvas touch, as in a full panorama. */
  circular: { type: 'boolean', default: false, form: { section: 'windows' } },
  /** With an initial image: the share of the steps that are taken; they begin with as much noise on it. */
  strength: { type: 'number', min: 0.01, max: 1, default: 0.8, form: { section: 'image', icon: 'tint' } },
  /** With an initial image: whether to keep it wherever no region is. */
  keepBackground: { type: 'boolean', default: false, form: { section: 'image' } },
  /** After every how many steps a preview is sent; 0: never. */
  previewEvery: {
    type: 'integer',
    min: 0,
    max: 1000,
    default: 0,
    form: { section: 'image', icon: 'eye', unit: true },
  },
} as const satisfies Record<string, OptionSpec>;

/**
 * The share of the steps from which bootstrapping is reported as too long: beyond it, objects stop fitting into their picture (the
 * article's warning), and docs/evaluation.md shows nothing that is gained.
 */
export const LONG_BOOTSTRAPPING = 0.6;

/** How the sampler takes its steps; only its configuration says. */
export const LOOP_OPTIONS = {
  /** 'wired': the steps go round a loop of nodes, from the output "step" back into the sampler. */
  stepMode: {
    type: 'choice',
    choices: ['built-in', 'wired'],
    default: 'built-in',
    form: { section: 'steps', icon: 'refresh' },
  },
  /** Seconds for which no node of the loop may keep a step's message. */
  loopTimeout: {
    type: 'number',
    min: 1,
    max: 86400,
    default: 60,
    form: { section: 'steps', icon: 'clock-o', unit: 's', when: { stepMode: ['wired'] } },
  },
} as const satisfies Record<string, OptionSpec>;

const OWN_BACKGROUND = { bootstrapping: ['random', 'white', 'colour', 'image'] };

/** What multidiffusion-bootstrap takes; 'sampler': as the sampler has it. */
export const BOOTSTRAP_OPTIONS = {
  bootstrapping: {
    type: 'choice',
    choices: ['sampler', 'none', ...SAMPLER_OPTIONS.bootstrappingBackground.choices],
    default: 'sampler',
    form: { icon: 'paint-brush' },
  },
  /** With bootstrapping 'colour'. */
  colour: { type: 'colour', default: '#808080', form: { icon: 'tint', when: { bootstrapping: ['colour'] } } },
  /** How long a background chosen here holds; default: at every step that comes through the node. */
  duration: {
    type: 'number',
    min: 0,
    max: 1000,
    unitOption: 'durationUnit',
    form: { icon: 'hourglass-start', placeholder: true, when: OWN_BACKGROUND },
  },
  durationUnit: {
    type: 'choice',
    choices: SAMPLER_OPTIONS.bootstrappingUnit.choices,
    default: 'fraction',
    form: { beside: '' },
  },
  /** Whether bootstrapped regions are moved to the middle of their windows. */
  centring: {
    type: 'choice',
    choices: ['sampler', 'on', 'off'],
    default: 'sampler',
    form: { icon: 'crosshairs' },
  },
} as const satisfies Record<string, OptionSpec>;

/** What multidiffusion-fuse takes; 'sampler', and nothing where there is no default: as the sampler or the regions have it. */
export const FUSE_OPTIONS = {
  fusion: {
    type: 'choice',
    choices: ['sampler', ...SAMPLER_OPTIONS.fusion.choices],
    default: 'sampler',
    form: { icon: 'object-ungroup' },
  },
  windowWeights: {
    type: 'choice',
    choices: ['sampler', ...SAMPLER_OPTIONS.windowWeights.choices],
    default: 'sampler',
    form: { icon: 'area-chart' },
  },
  /** How much of this fusion goes into one that an earlier node has made; 1 replaces it. */
  mix: { type: 'number', min: 0, max: 1, default: 1, form: { icon: 'sliders', hint: true } },
  backgroundWeight: { type: 'number', min: 0, max: 1, form: { more: true, icon: 'adjust', placeholder: true } },
  feather: { type: 'number', min: 0, max: 0.5, form: { more: true, icon: 'cloud', placeholder: true, unit: true } },
  growingMasks: {
    type: 'choice',
    choices: ['sampler', 'on', 'off'],
    default: 'sampler',
    form: { more: true, icon: 'expand' },
  },
} as const satisfies Record<string, OptionSpec>;

/** A region's options. */
export const REGION_OPTIONS = {
  weight: { type: 'number', min: 0.001, max: 1000, default: 1, form: { section: 'influence', icon: 'balance-scale' } },
  feather: { type: 'number', min: 0, max: 0.5, default: 0, form: { section: 'influence', icon: 'cloud', unit: true } },
  guidanceScale: {
    type: 'number',
    min: 0,
    max: 100,
    form: { section: 'influence', icon: 'magnet', placeholder: true, kinds: NUMBER_KINDS },
  },
  seed: {
    type: 'integer',
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    none: RANDOM_SEED,
    form: { section: 'influence', icon: 'random', placeholder: true, kinds: NUMBER_KINDS },
  },
  start: {
    type: 'number',
    min: 0,
    max: 1,
    default: 0,
    form: { section: 'influence', row: 'period', icon: 'clock-o' },
  },
  end: {
    type: 'number',
    min: 0,
    max: 1,
    default: 1,
    above: 'start',
    form: { section: 'influence', beside: '–', unit: true },
  },
  bootstrap: { type: 'boolean', default: true, form: { section: 'influence' } },
} as const satisfies Record<string, OptionSpec>;

/** What else a region-mask's form shows; shape, box and points are drawn. */
export const OUTLINE_OPTIONS = {
  regionName: { type: 'text', default: '', form: { icon: 'bookmark-o', placeholder: true } },
  shape: { type: 'choice', choices: ['box', 'ellipse', 'polygon', 'image', 'rest'], default: 'box' },
  /** Where a box or an ellipse comes from that is not drawn: [x, y, width, height] as fractions of the canvas. */
  boxFrom: {
    type: 'text',
    default: '',
    form: { icon: 'crop', kinds: ['drawn', ...SOURCES], when: { shape: ['box', 'ellipse'] } },
  },
  image: {
    type: 'text',
    default: 'mask',
    required: true,
    form: { icon: 'picture-o', kinds: ['msg', 'file', 'str'], when: { shape: ['image'] }, hint: true },
  },
} as const satisfies Record<string, OptionSpec>;

/** What text-encode takes from its configuration. */
export const TEXT_OPTIONS = {
  prompt: {
    type: 'text',
    default: '',
    form: { icon: 'commenting-o', lines: 3, kinds: TEXT_KINDS, placeholder: true },
  },
  negativePrompt: {
    type: 'text',
    default: '',
    form: { icon: 'ban', lines: 2, kinds: TEXT_KINDS, placeholder: true },
  },
} as const satisfies Record<string, OptionSpec>;

/** What a compose node's layout says of the whole picture; its dialog shows them itself. */
export const COMPOSE_OPTIONS = {
  prompt: { type: 'text', default: '' },
  negativePrompt: { type: 'text', default: '' },
  width: { type: 'integer', min: 16, max: 16384 },
  height: { type: 'integer', min: 16, max: 16384 },
  seed: { type: 'integer', min: 0, max: Number.MAX_SAFE_INTEGER, none: RANDOM_SEED },
} as const satisfies Record<string, OptionSpec>;

/** Which checkpoint a diffusion-model loads. */
export const CHECKPOINT_OPTIONS = {
  checkpoint: { type: 'choice', choices: ['pocket', 'hub', 'folder'], default: 'pocket', form: { icon: 'cubes' } },
  repository: {
    type: 'text',
    default: '',
    required: true,
    form: { icon: 'cloud-download', placeholder: true, when: { checkpoint: ['hub'] } },
  },
  revision: {
    type: 'text',
    default: '',
    form: { icon: 'code-fork', placeholder: 'main', when: { checkpoint: ['hub'] } },
  },
  folder: {
    type: 'text',
    default: '',
    required: true,
    form: { icon: 'folder-open-o', placeholder: true, when: { checkpoint: ['folder'] } },
  },
} as const satisfies Record<string, OptionSpec>;

/** Where a checkpoint runs. */
const PROVIDERS = ['auto', 'cpu', 'cuda', 'webgpu', 'directml', 'coreml'] as const;
export const MODEL_OPTIONS = {
  /** See inference/providers.ts; a form offers what its system can have. 'pool': workers on other machines. */
  provider: { type: 'choice', choices: [...PROVIDERS, 'pool'], default: 'auto', form: { icon: 'microchip' } },
  /** CPU threads of one run; default: as many as there are physical cores. */
  threads: {
    type: 'integer',
    min: 1,
    max: 256,
    form: { icon: 'tasks', placeholder: true, when: { provider: ['auto', 'cpu'] } },
  },
  /** Most rows of the UNet in one run; default: what fits the device. */
  batchSize: {
    type: 'integer',
    min: 1,
    max: 64,
    form: { icon: 'bars', placeholder: true, unit: true, when: { provider: PROVIDERS } },
  },
  /** MiB that the model's process may take on its device; default: most of what is free on a GPU, no bound on a CPU. */
  memoryBudget: {
    type: 'integer',
    min: 64,
    max: 1_048_576,
    form: { icon: 'database', placeholder: true, unit: 'MiB', when: { provider: PROVIDERS } },
  },
  /** Tokens of a prompt that a T5 text encoder reads (Stable Diffusion 3, FLUX.1); default: 256, 512 for FLUX.1 [dev]. */
  t5Tokens: { type: 'integer', min: 1, max: 512, form: { icon: 'text-width', placeholder: true } },
  /** Whether the model is loaded as soon as the flows have been started, and not when the first message needs it. */
  loadAtDeploy: { type: 'boolean', default: false, form: {} },
  /** Seconds without work after which the model is unloaded; 0: never. */
  idleTimeout: {
    type: 'number',
    min: 0,
    max: 604_800,
    default: 0,
    form: { icon: 'clock-o', unit: true, when: { provider: PROVIDERS } },
  },
} as const satisfies Record<string, OptionSpec>;

/** Which pool a diffusion-model asks, where it runs on one. */
export const POOL_OPTIONS = {
  pool: {
    type: 'text',
    default: 'default',
    pattern: { source: '^[\\w.-]{0,64}$', refusal: 'pool' },
    form: { icon: 'server', when: { provider: ['pool'] } },
  },
} as const satisfies Record<string, OptionSpec>;

const DEVICES = /^\s*(\d{1,2}(\s*,\s*\d{1,2}){0,15})?\s*$/;

/** The GPUs of a diffusion-model, which readDevices reads. */
export const DEVICE_OPTIONS = {
  deviceId: {
    type: 'text',
    default: '',
    pattern: { source: DEVICES.source, refusal: 'devices' },
    form: { icon: 'hashtag', placeholder: '0', when: { provider: ['auto', 'cuda', 'directml'] } },
  },
} as const satisfies Record<string, OptionSpec>;

/**
 * Numbers of the GPUs of a diffusion-model: one, or several separated by commas; nothing means 0.
 * @throws InvalidInputError
 */
export function readDevices(value: unknown): number[] {
  const text = String(value ?? '');
  if (!DEVICES.test(text))
    throw new InvalidInputError('deviceId', value, 'a number from 0, or several separated by commas, such as 0,1');
  return text.trim() === '' ? [0] : [...new Set(text.split(',').map(Number))];
}

/** What vae-encode takes. */
export const ENCODE_OPTIONS = CANVAS;

/** What vae-decode takes. */
export const DECODE_OPTIONS = {
  /** Side of a tile in pixels; default: as large as the checkpoint's native size asks for. */
  tileSize: { type: 'integer', min: 64, max: 4096, form: { icon: 'th-large', placeholder: true, unit: 'px' } },
  /** Whether the left and the right edge of the picture touch. */
  circular: { type: 'boolean', default: false, form: {} },
} as const satisfies Record<string, OptionSpec>;

/** What save-image takes. */
export const IMAGE_OPTIONS = {
  format: {
    type: 'choice',
    choices: ['png', 'jpeg', 'webp'],
    names: { png: 'PNG', jpeg: 'JPEG', webp: 'WebP' },
    aliases: { jpg: 'jpeg' },
    default: 'png',
    form: { icon: 'file-image-o' },
  },
  quality: {
    type: 'integer',
    min: 1,
    max: 100,
    default: 90,
    form: { icon: 'star-half-o', when: { format: ['jpeg', 'webp'] } },
  },
} as const satisfies Record<string, OptionSpec>;

/** The picture that an editor shows under a node on its workspace. */
export const PICTURE_OPTIONS = {
  showPicture: { type: 'boolean', default: true, form: {} },
  /** Its longer side in pixels. */
  pictureSize: {
    type: 'integer',
    min: 32,
    max: 1024,
    default: 128,
    form: { icon: 'picture-o', unit: 'px', when: { showPicture: [true] } },
  },
} as const satisfies Record<string, OptionSpec>;

/** What save-image takes from its configuration only. */
export const SAVE_OPTIONS = {
  /** Whether to write a file. */
  save: { type: 'boolean', default: true, form: {} },
  overwrite: { type: 'boolean', default: false, form: { when: { save: [true] } } },
  dataUri: { type: 'boolean', default: false, form: {} },
} as const satisfies Record<string, OptionSpec>;

/** What may stand in braces in a file name. */
export const FILE_FIELDS = ['date', 'time', 'seed', 'prompt', 'model', 'width', 'height', 'steps', 'counter'] as const;

/** Where save-image writes. */
export const FILE_OPTIONS = {
  folder: { type: 'text', default: '', form: { icon: 'folder-open-o', placeholder: true, when: { save: [true] } } },
  filename: {
    type: 'text',
    default: '{date}-{seed}',
    fields: FILE_FIELDS,
    form: { icon: 'file-o', kinds: TEXT_KINDS, when: { save: [true] }, hint: true },
  },
} as const satisfies Record<string, OptionSpec>;

const { provider, ...RUNNING } = MODEL_OPTIONS;
const { save, ...SAVING } = SAVE_OPTIONS;

/** The options that each node's form shows, in the form's order. */
export const NODE_OPTIONS: Readonly<Record<string, Readonly<Record<string, OptionSpec>>>> = {
  'diffusion-model': {
    ...CHECKPOINT_OPTIONS,
    provider,
    ...POOL_OPTIONS,
    ...DEVICE_OPTIONS,
    ...RUNNING,
  },
  compose: COMPOSE_OPTIONS,
  'text-encode': TEXT_OPTIONS,
  'region-mask': { ...OUTLINE_OPTIONS, ...REGION_OPTIONS },
  'multidiffusion-sampler': { ...SAMPLER_OPTIONS, ...LOOP_OPTIONS, ...PICTURE_OPTIONS },
  'multidiffusion-bootstrap': BOOTSTRAP_OPTIONS,
  'multidiffusion-denoise': {},
  'multidiffusion-fuse': FUSE_OPTIONS,
  'vae-encode': ENCODE_OPTIONS,
  'vae-decode': { ...DECODE_OPTIONS, ...PICTURE_OPTIONS },
  'save-image': {
    ...IMAGE_OPTIONS,
    save,
    ...FILE_OPTIONS,
    ...SAVING,
    ...PICTURE_OPTIONS,
  },
};

type ValueOf<S> = S extends { type: 'number' | 'integer' }
  ? number
  : S extends { type: 'boolean' }
    ? boolean
    : S extends { type: 'colour' | 'text' }
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

/**
 * The method as the paper has it (Bar-Tal et al. 2023). The defaults differ from it where something else draws
 * better: see docs/evaluation.md.
 */
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
 * The scheduler that a name means, whoever's name it is: "Euler a", "DPM++ 2M Karras". What it says of the noise levels
 * is left aside: those are the checkpoint's.
 * @returns undefined when there is none of that name here
 */
export function readScheduler(name: string): string | undefined {
  const said = name
    .trim()
    .toLowerCase()
    .replace(/[ _](karras|exponential|sgm uniform|uniform|simple|normal|beta|automatic)$/, '');
  const known = SCHEDULER_NAMES.find((scheduler) => scheduler.toLowerCase() === said);
  return known ?? (Object.hasOwn(SCHEDULER_ALIASES, said) ? SCHEDULER_ALIASES[said] : undefined);
}

/**
 * Checks one value against its option. Numbers may come as text (HTTP queries are strings), choices in any case.
 * @returns the value in its own type; undefined for undefined, null, '' and the number that stands for none
 * @throws InvalidInputError naming the property, the value and what is allowed
 */
export function checkOption(name: string, spec: OptionSpec, value: unknown): string | number | boolean | undefined {
  if (value === undefined || value === null || value === '') return undefined;
  switch (spec.type) {
    case 'boolean':
      if (value === true || value === 'true') return true;
      if (value === false || value === 'false') return false;
      throw new InvalidInputError(name, value, 'true or false');
    case 'text':
      if (typeof value === 'string') return value;
      throw new InvalidInputError(name, value, 'text');
    case 'colour':
      if (typeof value === 'string' && /^#[0-9a-f]{6}$/i.test(value)) return value.toLowerCase();
      throw new InvalidInputError(name, value, 'a colour as #rrggbb, such as #ffffff for white');
    case 'choice': {
      const said = typeof value === 'string' ? value.toLowerCase() : undefined;
      const other = said === undefined ? undefined : (spec.aliases?.[said] ?? spec.synonym?.(said));
      const choice = spec.choices.find((known) => known.toLowerCase() === said || known === other);
      if (choice === undefined) throw new InvalidInputError(name, value, `one of ${spec.choices.join(', ')}`);
      return choice;
    }
    default: {
      const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : value;
      if (number === spec.none && number !== undefined) return undefined;
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
export function resolveOptions<T extends Record<string, OptionSpec>>(
  specs: T,
  ...sources: Array<Record<string, unknown>>
): Values<T> {
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
