/** The models of a checkpoint, and what the inference process is told of them. */
import type { Component, ProcessSetup } from '../inference/protocol';
import { readTokenCounts, usualT5Tokens, type FactOptions } from './model-facts';
import type { CheckpointLayout, OnnxModel } from './layout';

export interface Part {
  component: Component;
  model: OnnxModel;
}

/** In the order in which a picture needs them. */
export function partsOf({ textEncoders, denoiser, vaeDecoder, vaeEncoder }: CheckpointLayout): Part[] {
  return [
    ...textEncoders.map(({ component, model }) => ({ component, model })),
    ...(vaeEncoder ? [{ component: 'vaeEncoder' as const, model: vaeEncoder }] : []),
    { component: denoiser.component, model: denoiser },
    { component: 'vaeDecoder', model: vaeDecoder },
  ];
}

type ModelSetup = Pick<
  ProcessSetup,
  'components' | 'exactEncoder' | 'bytes' | 'denoiser' | 'textEncoders' | 'statesWidth' | 'absentTokens'
>;

/** Where the models lie, and how the text encoders work together. */
export function modelSetup(layout: CheckpointLayout, options: FactOptions = {}): ModelSetup {
  const parts = partsOf(layout);
  const counts = readTokenCounts(layout, options);
  return {
    components: Object.fromEntries(parts.map(({ component, model }) => [component, model.path])),
    bytes: Object.fromEntries(parts.map(({ component, model }) => [component, model.bytes])),
    denoiser: layout.denoiser.component,
    exactEncoder: layout.family.name !== 'stable-diffusion',
    textEncoders: layout.textEncoders.map(({ component, role, model, tokenizerFolder, states, pooled }, i) => ({
      component,
      kind: role.kind,
      tokenizerFolder,
      maxTokens: counts[i],
      vocabularySize: Number.isInteger(model.config.vocab_size) ? (model.config.vocab_size as number) : undefined,
      states,
      pooled,
    })),
    ...arrangement(layout, options),
  };
}

/** Stable Diffusion 3 fills the states of its CLIP encoders up to the width of T5's, and a missing T5 with zeros. */
function arrangement(layout: CheckpointLayout, options: FactOptions): Pick<ModelSetup, 'statesWidth' | 'absentTokens'> {
  if (layout.family.name !== 'sd3') return {};
  const t5 = layout.textEncoders.find(({ role }) => role.kind === 't5');
  const widths = [
    layout.denoiser.config.joint_attention_dim,
    layout.denoiser.inputs.find(({ name }) => name === 'encoder_hidden_states')?.shape.at(-1),
    t5?.model.config.d_model,
  ];
  const statesWidth = widths.find((width) => typeof width === 'number') ?? T5_XXL_WIDTH;
  return { statesWidth, ...(!t5 && { absentTokens: options.t5Tokens ?? usualT5Tokens(layout) }) };
}

const T5_XXL_WIDTH = 4096;
