/** Prompts to what the denoiser is told of them, by one, two or three text encoders. */
import { bindEncoderInputs } from '../bindings';
import type { EncodedText, TextEncoderSetup, WireTensor } from '../protocol';
import { halfToFloat } from './float16';
import { checkNumbers, checkShape, feed, toWire, type Feed, type Request, type Session } from './sessions';

/** What one encoder makes of a prompt. */
export interface EncoderResult {
  /** [1, L, D] */
  states?: WireTensor;
  /** [1, P] */
  pooled?: WireTensor;
}

/**
 * One encoder's outputs for token ids [prompts][L].
 * @throws MultiDiffusionError CHECKPOINT when it answers in another shape, or at first with what are no numbers
 */
export async function encodeTokens(
  session: Session,
  request: Request,
  outputs: Pick<TextEncoderSetup, 'states' | 'pooled'>,
  prompts: number[][],
): Promise<EncoderResult[]> {
  const { ids, mask, switches } = bindEncoderInputs(session.inputs);
  const results: EncoderResult[] = [];
  for (const prompt of prompts) {
    const dims = [1, prompt.length];
    const feeds: Record<string, Feed> = { [ids.name]: feed(ids, prompt, dims) };
    // The whole length takes part, padding too: that is how the models were trained.
    if (mask) feeds[mask.name] = feed(mask, new Array<number>(prompt.length).fill(1), dims);
    for (const input of switches)
      feeds[input.name] = feed(
        input,
        [1],
        input.shape.map(() => 1),
      );
    const all = await session.run(request, feeds);
    const states = outputs.states === undefined ? undefined : all[outputs.states];
    const pooled = outputs.pooled === undefined ? undefined : all[outputs.pooled];
    if (states) checkShape(session, states, [1, prompt.length, undefined], 'that encodes text');
    if (pooled) checkShape(session, pooled, [1, undefined], 'that encodes text');
    checkNumbers(session, ...[states, pooled].filter((output) => output !== undefined));
    results.push({ ...(states && { states: toWire(states) }), ...(pooled && { pooled: toWire(pooled) }) });
  }
  return results;
}

export interface Arrangement {
  encoders: Array<Pick<TextEncoderSetup, 'kind'>>;
  /** Width to which the states of CLIP encoders are filled with zeros. */
  statesWidth?: number;
  /** Tokens of zeros in the place of a T5 encoder that is left out. */
  absentTokens?: number;
}

/**
 * One prompt's results put together: the states of CLIP encoders side by side (Stable Diffusion XL), filled with zeros
 * to the width of T5's, which follow along the sequence (Stable Diffusion 3); pooled embeddings side by side.
 */
export function arrange(results: EncoderResult[], { encoders, statesWidth, absentTokens }: Arrangement): EncodedText {
  const of = (kind: string): WireTensor[] =>
    results.flatMap(({ states }, i) => (states && encoders[i].kind === kind ? [states] : []));
  const pooled = results.flatMap((result) => result.pooled ?? []);
  const clip = of('clip');
  const rows = [...(clip.length > 0 ? [widen(sideBySide(clip), statesWidth)] : []), ...of('t5')];
  if (absentTokens && statesWidth) {
    const { dtype } = rows[0];
    const size = absentTokens * statesWidth;
    const data = dtype === 'float16' ? new Uint16Array(size) : new Float32Array(size);
    rows.push({ dtype, dims: [1, absentTokens, statesWidth], data });
  }
  return { embeddings: oneAfterTheOther(rows), ...(pooled.length > 0 && { pooled: sideBySide(pooled) }) };
}

/** Along the last dimension. */
function sideBySide(tensors: WireTensor[]): WireTensor {
  if (tensors.length === 1) return tensors[0];
  const parts = sameType(tensors);
  const widths = parts.map(({ dims }) => dims[dims.length - 1]);
  const width = widths.reduce((sum, each) => sum + each, 0);
  const rows = parts[0].data.length / widths[0];
  const data = makeLike(parts[0], rows * width);
  for (let row = 0, at = 0; row < rows; row++) {
    parts.forEach((part, i) => {
      data.set(part.data.subarray(row * widths[i], (row + 1) * widths[i]), at);
      at += widths[i];
    });
  }
  return { dtype: parts[0].dtype, dims: [...parts[0].dims.slice(0, -1), width], data };
}

function widen(tensor: WireTensor, width: number | undefined): WireTensor {
  const [batch, length, own] = tensor.dims;
  if (width === undefined || own >= width) return tensor;
  const data = makeLike(tensor, batch * length * width);
  for (let row = 0; row < batch * length; row++)
    data.set(tensor.data.subarray(row * own, (row + 1) * own), row * width);
  return { dtype: tensor.dtype, dims: [batch, length, width], data };
}

/** Along the sequence. */
function oneAfterTheOther(tensors: WireTensor[]): WireTensor {
  if (tensors.length === 1) return tensors[0];
  const parts = sameType(tensors);
  const data = makeLike(
    parts[0],
    parts.reduce((sum, part) => sum + part.data.length, 0),
  );
  let at = 0;
  for (const part of parts) {
    data.set(part.data, at);
    at += part.data.length;
  }
  const length = parts.reduce((sum, { dims }) => sum + dims[1], 0);
  return { dtype: parts[0].dtype, dims: [1, length, parts[0].dims[2]], data };
}

/** In half precision if all are, else in single precision. */
function sameType(tensors: WireTensor[]): WireTensor[] {
  if (tensors.every(({ dtype }) => dtype === tensors[0].dtype)) return tensors;
  return tensors.map((tensor) =>
    tensor.dtype === 'float32' ? tensor : { ...tensor, dtype: 'float32', data: halfToFloat(tensor.data) },
  );
}

function makeLike({ dtype }: WireTensor, size: number): Float32Array | Uint16Array {
  return dtype === 'float16' ? new Uint16Array(size) : new Float32Array(size);
}
