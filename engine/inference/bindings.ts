/**
 * Which input of a graph is what. Exporters differ in names, ranks, types and order: inputs are found by name, what
 * is left by its rank, and never by position. Read from a file's header before it is loaded, and from the session.
 */

/** One input or output of a graph: its type as ONNX Runtime calls it, and a number or a name per dimension. */
export interface ValueShape {
  name: string;
  type: string;
  shape: ReadonlyArray<number | string>;
}

/** What a denoiser (UNet or transformer) may be given, and what exporters call it. */
const DENOISER_INPUTS = {
  /** [rows, C, h, w], or packed [rows, h/2 · w/2, 4C]. */
  sample: ['sample', 'hidden_states', 'latent_sample', 'latents', 'latent'],
  /** A scalar, or one number a row. */
  timestep: ['timestep', 'timesteps'],
  /** [rows, L, D] */
  states: ['encoder_hidden_states', 'prompt_embeds'],
  /** [rows, P] */
  pooled: ['text_embeds', 'pooled_projections', 'pooled_prompt_embeds'],
  /** [rows, 6]: sizes and crop of Stable Diffusion XL; 5 of its refiner. */
  timeIds: ['time_ids'],
  /** [rows, 256]: the guidance scale as a latent consistency model takes it. */
  timestepCond: ['timestep_cond'],
  /** [rows]: the guidance scale as a number. */
  guidance: ['guidance'],
  /** [h/2 · w/2, 3] or [rows, h/2 · w/2, 3]: places of patches. */
  imageIds: ['img_ids'],
  /** [L, 3] or [rows, L, 3] */
  textIds: ['txt_ids'],
} as const;

export type DenoiserRole = keyof typeof DENOISER_INPUTS;
/** What every denoiser takes. */
const REQUIRED: DenoiserRole[] = ['sample', 'timestep', 'states'];
/** The ranks by which these are found when no input has one of their names. */
const RANKS: Partial<Record<DenoiserRole, number[]>> = { sample: [4], states: [3], pooled: [2], timestep: [0, 1] };

export interface DenoiserBinding<V extends ValueShape = ValueShape> {
  inputs: Partial<Record<DenoiserRole, V>>;
  /** Inputs that mean nothing here. */
  unknown: V[];
  /** The usual names of what is missing. */
  missing: string[];
}

/** Says which of a denoiser's inputs is what. */
export function bindDenoiser<V extends ValueShape>(values: readonly V[]): DenoiserBinding<V> {
  const inputs: Partial<Record<DenoiserRole, V>> = {};
  let left = [...values];
  const take = (role: DenoiserRole, value: V): void => {
    inputs[role] = value;
    left = left.filter((other) => other !== value);
  };
  for (const role of Object.keys(DENOISER_INPUTS) as DenoiserRole[]) {
    const names: readonly string[] = DENOISER_INPUTS[role];
    const value = names.flatMap((name) => left.filter((input) => input.name === name))[0];
    if (value) take(role, value);
  }
  for (const role of Object.keys(RANKS) as DenoiserRole[]) {
    const fitting = left.filter(({ shape }) => RANKS[role]!.includes(shape.length));
    if (!inputs[role] && fitting.length === 1) take(role, fitting[0]);
  }
  return {
    inputs,
    unknown: left,
    missing: REQUIRED.filter((role) => !inputs[role]).map((role) => DENOISER_INPUTS[role][0]),
  };
}

/** The names of a text encoder's outputs that are the states and the pooled embedding a family needs. */
export interface EncoderOutputs {
  /** [1, L, D] */
  states?: string;
  /** [1, P] */
  pooled?: string;
}

/** What a text encoder's inputs are: token ids, perhaps a mask of them, and switches that ask for outputs. */
export function bindEncoderInputs<V extends ValueShape>(inputs: readonly V[]): { ids: V; mask?: V; switches: V[] } {
  const ids =
    inputs.find(({ name }) => name === 'input_ids') ?? inputs.find(({ shape }) => shape.length === 2) ?? inputs[0];
  const rest = inputs.filter((input) => input !== ids);
  return {
    ids,
    mask: rest.find(({ name }) => name === 'attention_mask'),
    switches: rest.filter(({ name, type }) => name === 'output_hidden_states' || type === 'bool'),
  };
}

/** The last hidden state, by name, else the only output of its rank. */
export function lastState(outputs: readonly ValueShape[]): string | undefined {
  return named(outputs, ['last_hidden_state']) ?? onlyOfRank(outputs, 3) ?? named(outputs, [outputs[0]?.name]);
}

/**
 * The hidden state before the last layer: hidden_states.{layers − 1}, the last but one of layers + 1; or a single
 * output hidden_states, which ONNX Runtime's own exporter takes from there.
 */
export function penultimateState(outputs: readonly ValueShape[]): string | undefined {
  const layers = outputs
    .map(({ name }) => /^hidden_states\.(\d+)$/.exec(name))
    .filter((match) => match !== null)
    .sort((a, b) => Number(a[1]) - Number(b[1]));
  return layers.at(-2)?.[0] ?? named(outputs, ['hidden_states']);
}

/** The projected embedding of the whole text; never pooler_output, which is not projected yet. */
export function projectedText(outputs: readonly ValueShape[]): string | undefined {
  return (
    named(outputs, ['text_embeds']) ??
    onlyOfRank(
      outputs.filter(({ name }) => name !== 'pooler_output'),
      2,
    )
  );
}

/** The state of the closing token, as it leaves the last layer. */
export function pooledState(outputs: readonly ValueShape[]): string | undefined {
  return named(outputs, ['pooler_output', 'pooled_embeddings']) ?? onlyOfRank(outputs, 2);
}

function named(outputs: readonly ValueShape[], names: string[]): string | undefined {
  return names.find((name) => outputs.some((output) => output.name === name));
}

function onlyOfRank(outputs: readonly ValueShape[], rank: number): string | undefined {
  const fitting = outputs.filter(({ shape }) => shape.length === rank);
  return fitting.length === 1 ? fitting[0].name : undefined;
}
