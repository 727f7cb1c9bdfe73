/**
 * The numbers that the method needs to know about a checkpoint, each from the file that states it, with
 * Stable Diffusion's own where a repository states none.
 */
import { MultiDiffusionError } from '../errors';
import type { ModelFacts } from '../model';
import type { CheckpointLayout, OnnxModel } from './layout';

/** Stable Diffusion 1 and 2. */
const DEFAULTS = { latentChannels: 4, latentFactor: 8, scalingFactor: 0.18215, maxTokens: 77, latentSize: 64, latentSizeV: 96, latentMultiple: 8 };

export interface VaeFacts {
  latentFactor: number;
  /** UNet latents = (VAE latents − shiftFactor) · scalingFactor. */
  scalingFactor: number;
  shiftFactor: number;
}

/** @throws MultiDiffusionError CHECKPOINT when a config asks for something that isn't supported */
export function readVaeFacts(layout: CheckpointLayout): VaeFacts {
  const { path, config } = vaeConfig(layout);
  for (const field of ['latents_mean', 'latents_std']) {
    if (config[field] != null) {
      throw new MultiDiffusionError('CHECKPOINT', `The VAE's config.json beside ${path} sets ${field}, which is not supported.`);
    }
  }
  const blocks = config.block_out_channels;
  const halvings = Array.isArray(blocks) && blocks.length > 0 ? blocks.length - 1 : layout.vaeEncoder?.halvings;
  return {
    latentFactor: halvings && halvings < 8 ? 2 ** halvings : DEFAULTS.latentFactor,
    scalingFactor: positive(config.scaling_factor) ?? DEFAULTS.scalingFactor,
    shiftFactor: typeof config.shift_factor === 'number' ? config.shift_factor : 0,
  };
}

/**
 * @param provider where it runs, for status and metadata
 * @throws MultiDiffusionError CHECKPOINT when a config asks for something that isn't supported
 */
export function readFacts(layout: CheckpointLayout, provider: string): ModelFacts {
  const { unet } = layout;
  const sample = unet.inputs.find((input) => input.name === 'sample');
  const { latentFactor, scalingFactor } = readVaeFacts(layout);
  const latentChannels =
    fixed(sample?.shape[1]) ?? positive(unet.config.in_channels) ?? fixed(unet.outputs[0].shape[1]) ?? DEFAULTS.latentChannels;
  const outputChannels = fixed(unet.outputs[0].shape[1]) ?? latentChannels;
  if (latentChannels !== outputChannels) {
    throw new MultiDiffusionError(
      'CHECKPOINT',
      `${unet.path} takes ${latentChannels} channels and gives ${outputChannels}: an inpainting or depth model, which is not supported.`,
    );
  }
  return {
    name: layout.name,
    latentChannels,
    latentFactor,
    scalingFactor,
    nativeSize: nativeLatentSize(layout, fixed(sample?.shape[2])) * latentFactor,
    sizeMultiple: latentMultiple(layout) * latentFactor,
    schedulerConfig: layout.schedulerConfig,
    guidanceEmbedded: unet.inputs.some((input) => input.name === 'timestep_cond'),
    maxTokens: maxTokens(layout),
    vocabulary: layout.vocabulary,
    canEncodeImages: layout.vaeEncoder !== undefined,
    provider,
  };
}

/** Latent cells per side that the UNet can halve as often as it does. */
function latentMultiple({ unet }: CheckpointLayout): number {
  const levels = unet.config.block_out_channels;
  const halvings = Array.isArray(levels) && levels.length > 0 ? levels.length - 1 : unet.halvings;
  // The bundled model first takes patches of cells together, as transformers do.
  const patch = positive(unet.config.patch_size) ?? 1;
  return halvings > 0 && halvings < 8 ? patch * 2 ** halvings : DEFAULTS.latentMultiple;
}

function nativeLatentSize(layout: CheckpointLayout, fixedSize: number | undefined): number {
  const { sample_size: configured } = layout.unet.config;
  const size = fixedSize ?? positive(Array.isArray(configured) ? configured[0] : configured);
  if (size) return size;
  // The checkpoints of Stable Diffusion 2 that predict v were trained at 768 pixels.
  return layout.schedulerConfig.prediction_type === 'v_prediction' ? DEFAULTS.latentSizeV : DEFAULTS.latentSize;
}

function maxTokens(layout: CheckpointLayout): number {
  const fromGraph = fixed(layout.textEncoder.inputs[0]?.shape[1]);
  const length = positive(layout.tokenizerConfig.model_max_length);
  // Tokenizers without a limit state a huge number.
  const fromTokenizer = length !== undefined && length < 100000 ? length : undefined;
  return fromGraph ?? positive(layout.textEncoder.config.max_position_embeddings) ?? fromTokenizer ?? DEFAULTS.maxTokens;
}

function vaeConfig(layout: CheckpointLayout): OnnxModel {
  const withConfig = [layout.vaeDecoder, layout.vaeEncoder].find((model) => model && Object.keys(model.config).length > 0);
  return withConfig ?? layout.vaeDecoder;
}

function fixed(dimension: number | string | undefined): number | undefined {
  return typeof dimension === 'number' && dimension > 0 ? dimension : undefined;
}

function positive(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isFinite(value) && value > 0 ? value : undefined;
}
