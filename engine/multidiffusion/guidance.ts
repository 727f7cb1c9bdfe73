/** Classifier-free guidance over windows and prompts, with as few UNet rows as give the same numbers. */
import { MultiDiffusionError, throwIfCancelled } from '../errors';
import type { CallOptions, DiffusionModel, UNetRow } from '../model';
import { Tensor } from '../tensor';
import type { StepInput } from './bootstrap';
import type { Prediction } from './fusion';
import type { Plan } from './plan';
import type { State } from './state';
import { sizesOf } from './sizes';
import { roll } from './views';

/** A prediction to be made from rows of the UNet: their places in a call. */
interface Wanted {
  input: StepInput;
  prompt: number;
  conditional: number;
  /** None where there is no guidance. */
  unconditional?: number;
  guidanceScale: number;
}

/**
 * Predicts for each input and each of its prompts: u + g·(c − u), with c and u the model's outputs for the prompt
 * and for its negative prompt.
 *
 * The references evaluate c and u for every prompt. Here one input is evaluated once per text: prompts
 * that see the same latents share the row of a common negative prompt (or prompt). With a guidance scale of
 * 1 or less there is no u at all (as in diffusers); nor with models that take the guidance scale as an input.
 * @returns in the order of the inputs and their prompts
 * @throws CancelledError between two calls of the model; whatever the model throws
 */
export async function predictNoise(
  model: DiffusionModel,
  plan: Plan,
  inputs: StepInput[],
  state: State,
  options: CallOptions = {},
): Promise<Prediction[]> {
  const predictions: Prediction[] = [];
  for (const batch of batches(inputs, plan.rowsPerCall)) {
    throwIfCancelled(options.signal);
    const { rows, wanted } = rowsOf(plan, batch, state.index);
    const outputs = await predictRows(model, plan, rows, state, options);
    for (const { input, prompt, conditional, unconditional, guidanceScale } of wanted) {
      const c = outputs[conditional];
      const latents = unconditional === undefined ? c : guide(outputs[unconditional], c, guidanceScale);
      predictions.push({ view: input.view, prompt, latents: movedBack(latents, input.moved) });
    }
  }
  return predictions;
}

/** Whole windows, as many at a time as fit into one call of the model. */
function* batches(inputs: StepInput[], mostRows: number): Generator<StepInput[]> {
  let batch: StepInput[] = [];
  let rows = 0;
  for (let start = 0, end = 0; start < inputs.length; start = end) {
    while (end < inputs.length && inputs[end].view === inputs[start].view) end++;
    const window = inputs.slice(start, end);
    const more = 2 * window.reduce((sum, { prompts }) => sum + prompts.length, 0);
    if (batch.length > 0 && rows + more > mostRows) {
      yield batch;
      batch = [];
      rows = 0;
    }
    batch.push(...window);
    rows += more;
  }
  if (batch.length > 0) yield batch; // nothing, where nothing is to be painted
}

/** The rows of one call: each input once per text. */
function rowsOf(plan: Plan, inputs: StepInput[], index: number) {
  const { facts, prompts, scheduler } = plan;
  const rows: UNetRow[] = [];
  const wanted: Wanted[] = [];
  for (const input of inputs) {
    const latents = scheduler.scaleModelInput(input.latents, index);
    const firstRow = rows.length;
    const rowOf = (own: Omit<UNetRow, 'latents'>): number => {
      for (let r = firstRow; r < rows.length; r++) if (isSame(rows[r], own)) return r;
      return rows.push({ latents, ...own }) - 1;
    };
    input.prompts.forEach((prompt, i) => {
      const { embeddings, negativeEmbeddings, pooled, negativePooled } = prompts[prompt];
      const guidanceScale = input.guidanceScales?.[i] ?? prompts[prompt].guidanceScale;
      const given = facts.guidanceEmbedded ? { guidanceScale } : {};
      const row = { embeddings, ...(pooled && { pooled }), ...given, ...sizesOf(plan, input.view, false) };
      const conditional = rowOf(row);
      const scale = scaleOf(plan, prompt, guidanceScale);
      const unconditional =
        scale > 1
          ? rowOf({
              embeddings: negativeEmbeddings,
              ...(negativePooled && { pooled: negativePooled }),
              ...given,
              ...sizesOf(plan, input.view, true),
            })
          : undefined;
      wanted.push({ input, prompt, conditional, unconditional, guidanceScale: scale });
    });
  }
  return { rows, wanted };
}

/** The scale of classifier-free guidance; 1 or less: none. */
function scaleOf({ facts, options, prompts }: Plan, prompt: number, guidanceScale: number): number {
  if (facts.trueGuidance) return prompts[prompt].conditioning.negativeAbsent ? 1 : options.trueGuidanceScale;
  return facts.guidanceEmbedded ? 1 : guidanceScale;
}

function isSame(row: UNetRow, other: Omit<UNetRow, 'latents'>): boolean {
  return (
    row.embeddings === other.embeddings &&
    row.pooled === other.pooled &&
    row.guidanceScale === other.guidanceScale &&
    row.timeIds?.join() === other.timeIds?.join()
  );
}

async function predictRows(
  model: DiffusionModel,
  { scheduler }: Plan,
  rows: UNetRow[],
  state: State,
  options: CallOptions,
): Promise<Tensor<'float32'>[]> {
  const started = performance.now();
  const outputs = await model.predict(rows, scheduler.timesteps[state.index], options);
  state.timings.unet += performance.now() - started;
  state.unetRows += rows.length;
  const wrong = rows.findIndex((row, r) => outputs[r]?.dims.join() !== row.latents.dims.join());
  if (wrong >= 0 || outputs.length !== rows.length) {
    const found = outputs[wrong]
      ? `[${outputs[wrong].dims.join(', ')}]`
      : `${outputs.length} outputs for ${rows.length} rows`;
    throw new MultiDiffusionError(
      'INFERENCE',
      `The model's output does not fit its input [${rows[0].latents.dims.join(', ')}]: ${found}.`,
    );
  }
  return outputs;
}

function movedBack(latents: Tensor<'float32'>, moved: StepInput['moved']): Tensor<'float32'> {
  return moved ? roll(latents, -moved[0], -moved[1]) : latents;
}

function guide(unconditional: Tensor<'float32'>, conditional: Tensor<'float32'>, scale: number): Tensor<'float32'> {
  const u = unconditional.data;
  const c = conditional.data;
  const guided = new Float32Array(c.length);
  for (let i = 0; i < guided.length; i++) guided[i] = u[i] + scale * (c[i] - u[i]);
  return Tensor.float32(guided, conditional.dims);
}
