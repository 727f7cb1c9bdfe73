/** Classifier-free guidance over windows and prompts, with as few UNet rows as give the same numbers. */
import { MultiDiffusionError } from '../errors';
import type { CallOptions, DiffusionModel, UNetRow } from '../model';
import { Tensor } from '../tensor';
import type { StepInput } from './bootstrap';
import type { Prediction } from './fusion';
import type { SamplingJob } from './job';
import { roll } from './views';

/**
 * Predicts for each input and each of its prompts: u + g·(c − u), with c and u the model's outputs for the prompt
 * and for its negative prompt.
 *
 * The references evaluate c and u for every prompt. Here one input is evaluated once per text: prompts
 * that see the same latents share the row of a common negative prompt (or prompt). With a guidance scale of
 * 1 or less there is no u at all (as in diffusers); nor with models that take the guidance scale as an input.
 * @returns in the order of the inputs and their prompts
 */
export async function predictNoise(
  model: DiffusionModel,
  job: SamplingJob,
  index: number,
  inputs: StepInput[],
  options?: CallOptions,
): Promise<Prediction[]> {
  const embedded = job.facts.guidanceEmbedded;
  const rows: UNetRow[] = [];
  const wanted: Array<{ input: StepInput; prompt: number; conditional: number; unconditional?: number }> = [];
  for (const input of inputs) {
    const latents = job.scheduler.scaleModelInput(input.latents, index);
    const firstRow = rows.length;
    const rowOf = (embeddings: Tensor, guidanceScale?: number): number => {
      for (let r = firstRow; r < rows.length; r++) {
        if (rows[r].embeddings === embeddings && rows[r].guidanceScale === guidanceScale) return r;
      }
      return rows.push(guidanceScale === undefined ? { latents, embeddings } : { latents, embeddings, guidanceScale }) - 1;
    };
    for (const prompt of input.prompts) {
      const { embeddings, negativeEmbeddings, guidanceScale } = job.prompts[prompt];
      const conditional = rowOf(embeddings, embedded ? guidanceScale : undefined);
      const guided = guidanceScale > 1 && !embedded;
      wanted.push({ input, prompt, conditional, ...(guided && { unconditional: rowOf(negativeEmbeddings) }) });
    }
  }
  if (rows.length === 0) return []; // windows in which nothing is to be painted
  const outputs = await predictRows(model, job, index, rows, options);
  return wanted.map(({ input, prompt, conditional, unconditional }) => {
    const c = outputs[conditional];
    const guided = unconditional === undefined ? c : guide(outputs[unconditional], c, job.prompts[prompt].guidanceScale);
    const [down, right] = input.moved ?? [0, 0];
    return { view: input.view, prompt, latents: input.moved ? roll(guided, -down, -right) : guided };
  });
}

async function predictRows(model: DiffusionModel, job: SamplingJob, index: number, rows: UNetRow[], options?: CallOptions): Promise<Tensor<'float32'>[]> {
  const started = performance.now();
  const outputs = await model.predict(rows, job.scheduler.timesteps[index], options);
  job.timings.unet += performance.now() - started;
  job.unetRows += rows.length;
  const wrong = rows.findIndex((row, r) => outputs[r]?.dims.join() !== row.latents.dims.join());
  if (wrong >= 0 || outputs.length !== rows.length) {
    const found = outputs[wrong] ? `[${outputs[wrong].dims.join(', ')}]` : `${outputs.length} outputs for ${rows.length} rows`;
    throw new MultiDiffusionError('INFERENCE', `The model's output does not fit its input [${rows[0].latents.dims.join(', ')}]: ${found}.`);
  }
  return outputs;
}

function guide(unconditional: Tensor<'float32'>, conditional: Tensor<'float32'>, scale: number): Tensor<'float32'> {
  const u = unconditional.data;
  const c = conditional.data;
  const guided = new Float32Array(c.length);
  for (let i = 0; i < guided.length; i++) guided[i] = u[i] + scale * (c[i] - u[i]);
  return Tensor.float32(guided, conditional.dims);
}
