/** The ONNX sessions of one checkpoint, each loaded when it is first needed; only in the inference process. */
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { InferenceSession } from 'onnxruntime-node';
import { readOnnxHeader } from '../checkpoint/onnx-header';
import { findChanged } from '../checkpoint/stamps';
import { CancelledError, MultiDiffusionError } from '../errors';
import { floatToHalf, halfToFloat } from './float16';
import { isOutOfMemory } from './batching';
import { silenceNoise } from './posterior-mean';
import type { ProcessSetup, WireTensor } from './protocol';

export type Component = keyof ProcessSetup['components'];

/** A tensor as ONNX Runtime takes it; a plain object, because its Tensor class refuses float16 on Node ≥ 24. */
export interface Feed {
  type: string;
  data: Float32Array | Uint16Array | Int32Array | BigInt64Array | Float64Array;
  dims: number[];
  location: 'cpu';
}

export interface TensorInfo {
  name: string;
  type: string;
  /** A number where the graph fixes the dimension, else its name. */
  shape: ReadonlyArray<number | string>;
}

/** A request that the client may cancel; looked at between runs. */
export interface Request {
  cancelled: boolean;
  /** Spent in ONNX Runtime's run so far. */
  runMilliseconds: number;
}

export class Session {
  readonly inputs: TensorInfo[];
  readonly outputs: TensorInfo[];

  constructor(
    readonly component: Component,
    private readonly session: InferenceSession,
    private readonly turns: Turns,
  ) {
    this.inputs = session.inputMetadata as unknown as TensorInfo[];
    this.outputs = session.outputMetadata as unknown as TensorInfo[];
  }

  input(name: string): TensorInfo | undefined {
    return this.inputs.find((input) => input.name === name);
  }

  /**
   * Runs the graph when the request's turn comes.
   * @throws CancelledError when the request was cancelled while it waited
   * @throws MultiDiffusionError INFERENCE with the runtime's own message; a lack of memory is thrown as it is
   */
  async run(request: Request, feeds: Record<string, Feed>): Promise<Record<string, Feed>> {
    try {
      return await this.turns.next(request, async () => {
        const started = performance.now();
        const outputs = await this.session.run(feeds as never);
        request.runMilliseconds += performance.now() - started;
        return outputs as unknown as Record<string, Feed>;
      });
    } catch (error) {
      if (error instanceof MultiDiffusionError || isOutOfMemory(error)) throw error;
      throw new MultiDiffusionError('INFERENCE', `The ${this.component} failed: ${(error as Error).message}`, { cause: error });
    }
  }
}

export class Sessions {
  private readonly loaded = new Map<Component, Promise<Session>>();
  private readonly turns = new Turns();

  constructor(
    private readonly setup: ProcessSetup,
    private readonly options: InferenceSession.SessionOptions,
    private readonly onLoading: (component: Component, done: boolean) => void,
  ) {}

  /** @throws MultiDiffusionError CHECKPOINT when the model can't be loaded */
  get(component: Component): Promise<Session> {
    let session = this.loaded.get(component);
    if (!session) {
      session = this.load(component);
      this.loaded.set(component, session);
      // A model that could not be loaded may be repaired or find more memory later.
      session.catch(() => this.loaded.delete(component));
    }
    return session;
  }

  private async load(component: Component): Promise<Session> {
    const path = this.setup.components[component];
    if (!path) throw new MultiDiffusionError('CHECKPOINT', `The checkpoint has no ${component}.`);
    const { InferenceSession } = require('onnxruntime-node') as typeof import('onnxruntime-node');
    this.onLoading(component, false);
    try {
      const changed = await findChanged(this.setup.stamps ?? {}, dirname(path));
      if (changed) throw new MultiDiffusionError('CHECKPOINT', `${changed} has been changed or removed since the checkpoint was opened. Send the message again: the checkpoint is then opened anew.`);
      const silent = component === 'vaeEncoder' ? silenceNoise(await readFile(path)) : undefined;
      const session = silent
        ? await InferenceSession.create(silent, { ...this.options, externalData: await readExternalData(path) })
        : await InferenceSession.create(path, this.options);
      return new Session(component, session, this.turns);
    } catch (error) {
      if (error instanceof MultiDiffusionError) throw error;
      throw new MultiDiffusionError('CHECKPOINT', explainLoadFailure(path, (error as Error).message), { cause: error });
    } finally {
      this.onLoading(component, true);
    }
  }
}

/** Weights outside of a model's file, for a model that is loaded from memory, where ONNX Runtime does not look for them. */
async function readExternalData(path: string): Promise<Array<{ path: string; data: Uint8Array }>> {
  const { externalData } = await readOnnxHeader(path);
  return Promise.all([...externalData.keys()].map(async (location) => ({ path: location, data: await readFile(join(dirname(path), location)) })));
}

function explainLoadFailure(path: string, message: string): string {
  if (/Failed to find kernel for|Could not find an implementation for/.test(message)) {
    return `${path} holds operations that this execution provider has no kernels for (${message}). It was probably optimised for CUDA: use the cuda provider, or the plain (unfused) export of the model.`;
  }
  if (isOutOfMemory(message)) return `Memory does not suffice to load ${path} (${message}).`;
  return `${path} cannot be loaded: ${message}`;
}

/** Lets one run go at a time, in the order of asking, so that long requests and short ones take turns. */
class Turns {
  private last: Promise<unknown> = Promise.resolve();

  next<T>(request: Request, work: () => Promise<T>): Promise<T> {
    const turn = this.last.then(() => {
      if (request.cancelled) throw new CancelledError();
      return work();
    });
    this.last = turn.catch(() => undefined);
    return turn;
  }
}

/** Numbers in the type that the graph's input asks for. */
export function feed(input: TensorInfo, values: ArrayLike<number>, dims: number[]): Feed {
  return { type: input.type, data: convert(input, values), dims, location: 'cpu' };
}

function convert(input: TensorInfo, values: ArrayLike<number>): Feed['data'] {
  switch (input.type) {
    case 'float32':
      return values instanceof Float32Array ? values : Float32Array.from(values);
    case 'float16':
      return floatToHalf(values);
    case 'float64':
      return Float64Array.from(values);
    case 'int32':
      return Int32Array.from(values);
    case 'int64':
      return BigInt64Array.from({ length: values.length }, (_, i) => BigInt(Math.round(values[i])));
    default:
      throw new MultiDiffusionError('CHECKPOINT', `The input ${input.name} has the type ${input.type}, which is not understood; understood are float32, float16, float64, int32 and int64.`);
  }
}

/** An output as float32. Half precision comes as raw bits on Node 20 and 22, as a Float16Array from 24 on. */
export function toFloat32(output: Feed): Float32Array {
  if (output.data instanceof Float32Array) return output.data;
  if (output.data instanceof Uint16Array) return halfToFloat(output.data);
  return Float32Array.from(output.data as unknown as ArrayLike<number>);
}

/** An output in the precision that the graph gave it. */
export function toWire(output: Feed): WireTensor {
  const { data } = output;
  const dims = [...output.dims];
  if (output.type !== 'float16') return { dtype: 'float32', dims, data: toFloat32(output) };
  const { buffer, byteOffset, length } = data as Uint16Array;
  return { dtype: 'float16', dims, data: new Uint16Array(buffer, byteOffset, length) };
}
