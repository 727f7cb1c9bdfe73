/**
 * The numbers that the method needs to know about a checkpoint, each from the file that states it, with
 * Stable Diffusion's own where a repository states none.
 */
import { MultiDiffusionError } from '../errors';
import type { ModelFacts } from '../model';
import { bindDenoiser, bindEncoderInputs } from '../inference/bindings';
import { isFlowMatching } from '../schedulers';
import { T5_TOKENS } from './families';
import type { CheckpointLayout, OnnxModel, TextEncoder } from './layout';

/** Where no file states them. */
const DEFAULTS = { latentFactor: 8, maxTokens: 77, latentSizeV: 96, latentMultiple: 8 };
/** Cells per side of a patch that is packed into one token. */
const PACKED = 2;

export interface VaeFacts {
  latentFactor: number;
  /** The denoiser's latents = (VAE latents − shiftFactor) · scalingFactor. */
  scalingFactor: number;
  shiftFactor: number;
  /** Of the VAE's latents per channel: the denoiser's = (VAE latents − mean) / deviation · scalingFactor. */
  latentsMean?: number[];
  latentsStd?: number[];
}

/** @throws MultiDiffusionError CHECKPOINT when a config can't be understood */
export function readVaeFacts(layout: CheckpointLayout): VaeFacts {
  const { path, config } = vaeConfig(layout);
  const blocks = config.block_out_channels;
  const halvings = Array.isArray(blocks) && blocks.length > 0 ? blocks.length - 1 : layout.vaeEncoder?.halvings;
  const { scalingFactor, shiftFactor } = layout.family;
  // A configuration that states the scale states the shift too, if only by leaving it out.
  const stated = positive(config.scaling_factor);
  const shift = config.shift_factor;
  requireRange(path, 'scaling_factor', stated ?? 1, 1e-6, 1e6);
  requireRange(path, 'shift_factor', typeof shift === 'number' ? shift : 0, -1e6, 1e6);
  return {
    latentFactor: halvings && halvings < 8 ? 2 ** halvings : DEFAULTS.latentFactor,
    scalingFactor: stated ?? scalingFactor,
    shiftFactor: typeof config.shift_factor === 'number' ? config.shift_factor : stated ? 0 : shiftFactor,
    ...readNormalisation(layout, path, config),
  };
}

function readNormalisation(
  layout: CheckpointLayout,
  path: string,
  { latents_mean: mean, latents_std: std }: Record<string, unknown>,
): Pick<VaeFacts, 'latentsMean' | 'latentsStd'> {
  if (mean == null && std == null) return {};
  const channels = latentChannelsOf(layout);
  const perChannel = (value: unknown): value is number[] =>
    Array.isArray(value) && value.length === channels && value.every((each) => Number.isFinite(each));
  if (perChannel(mean) && perChannel(std) && std.every((each) => each > 0))
    return { latentsMean: mean, latentsStd: std };
  throw new MultiDiffusionError(
    'CHECKPOINT',
    `The VAE's config.json beside ${path} is not understood: ` +
      `latents_mean and latents_std should be two lists of ${channels} numbers, the second above 0.`,
  );
}

/** @param tokens of a T5 encoder; default: what the family's own programs take */
export interface FactOptions {
  t5Tokens?: number;
}

/**
 * @param provider where it runs, for status and metadata
 * @throws MultiDiffusionError CHECKPOINT when a config asks for something that isn't supported
 */
export function readModelFacts(layout: CheckpointLayout, provider: string, options: FactOptions = {}): ModelFacts {
  const { denoiser, family, index } = layout;
  const { inputs } = bindDenoiser(denoiser.inputs);
  const packed = inputs.sample?.shape.length === 3;
  const { latentFactor, scalingFactor } = readVaeFacts(layout);
  const latentChannels = latentChannelsOf(layout);
  const outputChannels = channelsOf(denoiser.outputs[0].shape, packed) ?? latentChannels;
  if (latentChannels !== outputChannels) {
    throw new MultiDiffusionError(
      'CHECKPOINT',
      `${denoiser.path} takes ${latentChannels} channels and gives ${outputChannels}: ` +
        'an inpainting or depth model, which is not supported.',
    );
  }
  const fixedSize = packed ? undefined : fixed(inputs.sample?.shape[2]);
  requireRange(denoiser.path, 'in_channels', latentChannels, 1, 1024, true);
  requireRange(denoiser.path, 'sample_size', nativeLatentSize(layout, fixedSize), 1, MAX_LATENT_SIZE);
  requireRange(denoiser.path, 'patch_size', latentMultiple(layout, packed), 1, 1024, true);
  for (const encoder of layout.textEncoders)
    requireRange(
      encoder.model.path,
      'max_position_embeddings',
      maxTokens(layout, encoder, options),
      1,
      MAX_TOKENS,
      true,
    );
  const flow = isFlowMatching(layout.schedulerConfig);
  return {
    name: layout.name,
    latentChannels,
    latentFactor,
    scalingFactor,
    nativeSize: nativeLatentSize(layout, fixedSize) * latentFactor,
    sizeMultiple: latentMultiple(layout, packed) * latentFactor,
    schedulerConfig: layout.schedulerConfig,
    guidanceEmbedded: inputs.timestepCond !== undefined || inputs.guidance !== undefined,
    maxTokens: Math.max(...layout.textEncoders.map((encoder) => maxTokens(layout, encoder, options))),
    vocabulary: layout.vocabulary,
    canEncodeImages: layout.vaeEncoder !== undefined,
    provider,
    ...(family.name !== 'stable-diffusion' && { family: family.name }),
    ...(family.name === 'flux' && { trueGuidance: true }),
    ...(absentNegative(family.absentNegative, index) !== 'empty' && {
      absentNegative: absentNegative(family.absentNegative, index),
    }),
    ...(inputs.timeIds && { timeIds: fixed(inputs.timeIds.shape[1]) ?? 6 }),
    ...(flow && { patchSize: packed ? PACKED : (positive(denoiser.config.patch_size) ?? PACKED) }),
    ...(packed && { evenSigmas: true }),
    ...largestSide(layout, latentFactor),
  };
}

/** The tokens of each text encoder. */
export function readTokenCounts(layout: CheckpointLayout, options: FactOptions = {}): number[] {
  return layout.textEncoders.map((encoder) => maxTokens(layout, encoder, options));
}

/** Zeros stand for an absent negative prompt only where the pipeline says so. */
function absentNegative(usual: 'empty' | 'zeros' | 'none', index: Record<string, unknown>): 'empty' | 'zeros' | 'none' {
  return usual === 'zeros' && index.force_zeros_for_empty_prompt === false ? 'empty' : usual;
}

function latentChannelsOf({ denoiser, family }: CheckpointLayout): number {
  const { sample } = bindDenoiser(denoiser.inputs).inputs;
  const packed = sample?.shape.length === 3;
  const configured = positive(denoiser.config.in_channels);
  return (
    channelsOf(sample?.shape ?? [], packed) ??
    (configured && packed ? configured / PACKED ** 2 : configured) ??
    channelsOf(denoiser.outputs[0].shape, packed) ??
    family.latentChannels
  );
}

function channelsOf(shape: Array<number | string>, packed: boolean): number | undefined {
  const channels = fixed(shape[packed ? 2 : 1]);
  return channels && packed ? channels / PACKED ** 2 : channels;
}

/** The largest side, in pixels, of models with a table of places (Stable Diffusion 3). */
function largestSide({ denoiser, family }: CheckpointLayout, latentFactor: number): { largestSide?: number } {
  const places = positive(denoiser.config.pos_embed_max_size);
  if (family.name !== 'sd3' || !places) return {};
  return { largestSide: places * (positive(denoiser.config.patch_size) ?? PACKED) * latentFactor };
}

/** Latent cells per side that the model can halve as often as it does, or take together in patches. */
function latentMultiple({ denoiser, family }: CheckpointLayout, packed: boolean): number {
  if (family.name === 'sd3' || family.name === 'flux')
    return packed ? PACKED : (positive(denoiser.config.patch_size) ?? PACKED);
  const levels = denoiser.config.block_out_channels;
  const halvings = Array.isArray(levels) && levels.length > 0 ? levels.length - 1 : denoiser.halvings;
  // The bundled model first takes patches of cells together, as transformers do.
  const patch = positive(denoiser.config.patch_size) ?? 1;
  return halvings > 0 && halvings < 8 ? patch * 2 ** halvings : DEFAULTS.latentMultiple;
}

function nativeLatentSize(
  { denoiser, family, schedulerConfig }: CheckpointLayout,
  fixedSize: number | undefined,
): number {
  const { sample_size: configured } = denoiser.config;
  const size = fixedSize ?? positive(Array.isArray(configured) ? configured[0] : configured);
  if (size) return size;
  // The checkpoints of Stable Diffusion 2 that predict v were trained at 768 pixels.
  const predictsV = family.name === 'stable-diffusion' && schedulerConfig.prediction_type === 'v_prediction';
  return predictsV ? DEFAULTS.latentSizeV : family.latentSize;
}

function maxTokens(
  layout: CheckpointLayout,
  { model, role, tokenizerConfig }: TextEncoder,
  options: FactOptions,
): number {
  const ids = bindEncoderInputs(model.inputs).ids;
  const fromGraph = fixed(ids?.shape[1]);
  if (role.kind === 't5') return fromGraph ?? options.t5Tokens ?? usualT5Tokens(layout);
  const length = positive(tokenizerConfig.model_max_length);
  // Tokenizers without a limit state a huge number.
  const fromTokenizer = length !== undefined && length < 100000 ? length : undefined;
  return fromGraph ?? positive(model.config.max_position_embeddings) ?? fromTokenizer ?? DEFAULTS.maxTokens;
}

/** FLUX.1 [dev] reads more of a prompt than [schnell]; the one takes guidance as an input, the other does not. */
export function usualT5Tokens({ denoiser, family }: CheckpointLayout): number {
  if (family.name !== 'flux') return T5_TOKENS.sd3;
  return bindDenoiser(denoiser.inputs).inputs.guidance ? T5_TOKENS.dev : T5_TOKENS.schnell;
}

function vaeConfig(layout: CheckpointLayout): OnnxModel {
  const withConfig = [layout.vaeDecoder, layout.vaeEncoder].find(
    (model) => model && Object.keys(model.config).length > 0,
  );
  return withConfig ?? layout.vaeDecoder;
}

function fixed(dimension: number | string | undefined): number | undefined {
  return typeof dimension === 'number' && dimension > 0 ? dimension : undefined;
}

/** Larger ones are no model's; a picture of this size takes gigabytes. */
const MAX_LATENT_SIZE = 2048;
const MAX_TOKENS = 8192;

/**
 * @param path of the model beside whose configuration the number stands
 * @throws MultiDiffusionError CHECKPOINT
 */
function requireRange(path: string, field: string, value: number, least: number, most: number, whole = false): void {
  if (value >= least && value <= most && (!whole || Number.isInteger(value))) return;
  throw new MultiDiffusionError(
    'CHECKPOINT',
    `${field} of ${path}, or of its config.json, is ${value}; understood is a ${whole ? 'whole ' : ''}number from ${least} to ${most}.`,
  );
}

function positive(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isFinite(value) && value > 0 ? value : undefined;
}
