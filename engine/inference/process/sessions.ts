/** The ONNX sessions of one checkpoint, each loaded when it is first needed; only in the inference process. */
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { InferenceSession } from 'onnxruntime-node';
import { readOnnxHeader } from '../../onnx/header';
import { findChanged } from '../../files/changed-files';
import { CancelledError, MultiDiffusionError } from '../../errors';
import { floatToHalf, halfToFloat } from './float16';
import type { ValueShape } from '../bindings';
import { isOutOfMemory, type MemoryBudget } from '../memory';
import { exactNorms } from '../../onnx/exact-norms';
import { silenceNoise } from '../../onnx/posterior-mean';
import type { Component, ProcessSetup, WireTensor } from '../protocol';

/** A tensor as ONNX Runtime takes it; a plain object, because its Tensor class refuses float16 on Node ≥ 24. */
export interface Feed {
  type: string;
  data: Float32Array | Uint16Array | Int32Array | BigInt64Array | Float64Array | Uint8Array;
  dims: number[];
  location: 'cpu';
}

export type TensorInfo = ValueShape;

/** A request that the client may cancel; looked at between runs. */
export interface Request {
  cancelled: boolean;
  /** Spent in ONNX Runtime's run so far. */
  runMilliseconds: number;
}

export class Session {
  readonly inputs: TensorInfo[];
  readonly outputs: TensorInfo[];
  private running = 0;

  /** @param reopen loads it again once its memory was given back */
  constructor(
    readonly component: Component,
    private session: InferenceSession | undefined,
    private readonly turns: Turns,
    private readonly reopen: () => Promise<InferenceSession>,
  ) {
    this.inputs = session!.inputMetadata as unknown as TensorInfo[];
    this.outputs = session!.outputMetadata as unknown as TensorInfo[];
  }

  /** Whether its weights are in memory. */
  get isOpen(): boolean {
    return this.session !== undefined;
  }

  /** Frees its memory, unless it is at work; its next run loads it again. */
  async giveBack(): Promise<void> {
    const { session } = this;
    if (this.running > 0 || !session) return;
    this.session = undefined;
    await session.release();
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
        this.running++;
        try {
          this.session ??= await this.reopen();
          const started = performance.now();
          const outputs = await this.session.run(feeds as never);
          request.runMilliseconds += performance.now() - started;
          return outputs as unknown as Record<string, Feed>;
        } finally {
          this.running--;
        }
      });
    } catch (error) {
      if (error instanceof MultiDiffusionError || isOutOfMemory(error)) throw error;
      throw new MultiDiffusionError('INFERENCE', `The ${this.component} failed: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }
}

/** What is given back first when memory is short: what a picture needs only at its beginning, then only at its end. */
const GIVEN_BACK: Component[] = [
  'textEncoder3',
  'textEncoder2',
  'textEncoder',
  'vaeEncoder',
  'vaeDecoder',
  'unet',
  'transformer',
];
/** Of the memory budget, what weights may take; the rest is for runs. */
const WEIGHTS_SHARE = 0.8;

export class Sessions {
  private readonly loaded = new Map<Component, Promise<Session>>();
  private readonly open = new Map<Component, Session>();
  private readonly turns: Turns;

  /**
   * @param budget without it everything that was loaded stays loaded
   * @param onRun after each run
   */
  constructor(
    private readonly setup: ProcessSetup,
    private readonly options: InferenceSession.SessionOptions,
    private readonly onLoading: (component: Component, done: boolean) => void,
    private readonly budget?: Pick<MemoryBudget, 'most'>,
    onRun?: () => void,
  ) {
    this.turns = new Turns(onRun);
  }

  /** @throws MultiDiffusionError CHECKPOINT when the model can't be loaded */
  get(component: Component): Promise<Session> {
    let session = this.loaded.get(component);
    if (!session) {
      // Not beside a run: with some providers two of a process's sessions at work end it.
      session = this.turns
        .next({ cancelled: false, runMilliseconds: 0 }, () => this.load(component))
        .then((opened) => {
          const made = new Session(component, opened, this.turns, () => this.load(component));
          this.open.set(component, made);
          return made;
        });
      this.loaded.set(component, session);
      // A model that could not be loaded may be repaired or find more memory later.
      session.catch(() => this.loaded.delete(component));
    }
    return session;
  }

  private async load(component: Component): Promise<InferenceSession> {
    const path = this.setup.components[component];
    if (!path) throw new MultiDiffusionError('CHECKPOINT', `The checkpoint has no ${component}.`);
    const { InferenceSession } = require('onnxruntime-node') as typeof import('onnxruntime-node');
    await this.makeRoom(component);
    this.onLoading(component, false);
    try {
      const changed = await findChanged(this.setup.stamps ?? {}, dirname(path));
      if (changed)
        throw new MultiDiffusionError(
          'CHECKPOINT',
          `${changed} has been changed or removed since the checkpoint was opened. Send the message again: ` +
            'the checkpoint is then reopened.',
        );
      const changedModel = component === 'vaeEncoder' ? this.repeatable(await readFile(path)) : undefined;
      return changedModel
        ? await InferenceSession.create(changedModel, { ...this.options, externalData: await readExternalData(path) })
        : await InferenceSession.create(path, this.options);
    } catch (error) {
      if (error instanceof MultiDiffusionError) throw error;
      throw new MultiDiffusionError('CHECKPOINT', explainLoadFailure(path, (error as Error).message), { cause: error });
    } finally {
      this.onLoading(component, true);
    }
  }

  /** The encoder without chance, and with exact normalisations where the CPU's are not; undefined where it is so already. */
  private repeatable(model: Buffer): Buffer | undefined {
    const silent = silenceNoise(model);
    const onCpu = this.options.executionProviders?.every((provider) => provider === 'cpu');
    return (this.setup.exactEncoder && onCpu ? exactNorms(silent ?? model) : undefined) ?? silent;
  }

  /** Gives back what the budget has no room for beside `component`. */
  private async makeRoom(component: Component): Promise<void> {
    if (!this.budget) return;
    const bytesOf = (each: Component): number => this.setup.bytes?.[each] ?? 0;
    const holding = GIVEN_BACK.filter((each) => each !== component && this.open.get(each)?.isOpen);
    let taken = holding.reduce((sum, each) => sum + bytesOf(each), bytesOf(component));
    for (const each of holding) {
      if (taken <= WEIGHTS_SHARE * this.budget.most) return;
      const session = this.open.get(each)!;
      await session.giveBack();
      if (!session.isOpen) taken -= bytesOf(each);
    }
  }
}

/** Weights outside of a model's file, for a model that is loaded from memory, where ONNX Runtime does not look for them. */
async function readExternalData(path: string): Promise<Array<{ path: string; data: Uint8Array }>> {
  const { externalData } = await readOnnxHeader(path);
  return Promise.all(
    [...externalData.keys()].map(async (location) => ({
      path: location,
      data: await readFile(join(dirname(path), location)),
    })),
  );
}

function explainLoadFailure(path: string, message: string): string {
  if (/Failed to find kernel for|Could not find an implementation for/.test(message)) {
    return (
      `${path} holds operations that this execution provider has no kernels for (${message}). ` +
      'It was probably optimised for CUDA: use the cuda provider, or the plain (unfused) export of the ' +
      'model.'
    );
  }
  if (isOutOfMemory(message)) return `Not enough memory to load ${path} (${message}).`;
  return `${path} cannot be loaded: ${message}`;
}

/** Lets one run go at a time, in the order of asking, so that long requests and short ones take turns. */
class Turns {
  private last: Promise<unknown> = Promise.resolve();

  constructor(private readonly onRun: () => void = () => undefined) {}

  next<T>(request: Request, work: () => Promise<T>): Promise<T> {
    const turn = this.last.then(() => {
      if (request.cancelled) throw new CancelledError();
      return work();
    });
    this.last = turn.then(this.onRun).catch(() => undefined);
    return turn;
  }
}

/** The output by one of these names, else the only one; of several, the first. */
export function outputOf(session: Session, names: string[]): string {
  return names.find((name) => session.outputs.some((output) => output.name === name)) ?? session.outputs[0].name;
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
    case 'bool':
      return Uint8Array.from(values, (value) => (value ? 1 : 0));
    default:
      throw new MultiDiffusionError(
        'CHECKPOINT',
        `The input ${input.name} has the type ${input.type}, which is not understood; ` +
          'understood are float32, float16, float64, int32, int64 and bool.',
      );
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

/**
 * @param expected undefined where any size will do
 * @param what the model should be
 * @throws MultiDiffusionError CHECKPOINT when the graph answers in another shape than it was asked in
 */
export function checkShape(
  session: Session,
  { dims }: Pick<Feed, 'dims'>,
  expected: Array<number | undefined>,
  what: string,
): void {
  if (dims.length === expected.length && dims.every((dim, i) => Number(dim) === (expected[i] ?? Number(dim)))) return;
  throw new MultiDiffusionError(
    'CHECKPOINT',
    `The ${session.component} answers with [${dims.join(', ')}] where [${expected.map((size) => size ?? 'any').join(', ')}] ` +
      `is expected: it is no model ${what}.`,
  );
}

/** Models whose first answer was looked at. */
const seen = new WeakSet<Session>();

/** @throws MultiDiffusionError CHECKPOINT when the first answer of the model holds no numbers, as after a conversion that failed */
export function checkNumbers(session: Session, ...outputs: Feed[]): void {
  if (seen.has(session)) return;
  if (!outputs.every((output) => toFloat32(output).every(Number.isFinite)))
    throw new MultiDiffusionError(
      'CHECKPOINT',
      `The ${session.component} gives values that are no numbers (NaN or infinite). ` +
        'Its conversion may have failed, or half precision may be too small for it: export it again in float32.',
    );
  seen.add(session);
}
