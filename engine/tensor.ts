/**
 * The tensor that messages carry between nodes.
 *
 * It holds an ArrayBuffer and makes its typed view in a getter, because Node-RED clones messages with
 * lodash, which copies a typed array element by element on the event loop but an ArrayBuffer at once.
 * For the same reason it has no private fields, and is recognised by its tag, not by instanceof.
 * Immutable by convention: nobody writes into a tensor that has been handed on.
 */
import { bytesIn } from './bytes';
import { InvalidInputError } from './errors';
import { numbered } from './json';

export const TENSOR_KIND = 'multidiffusion/tensor';

const VIEWS = {
  float32: Float32Array,
  float16: Uint16Array, // raw half-precision bits
  uint8: Uint8Array,
  int32: Int32Array,
} as const;

export type DType = keyof typeof VIEWS;
export type TypedArrayOf<D extends DType> = InstanceType<(typeof VIEWS)[D]>;

export class Tensor<D extends DType = DType> {
  readonly kind = TENSOR_KIND;

  /**
   * @param dtype element type
   * @param dims shape, outermost first (row-major)
   * @param buffer exactly as many bytes as dtype and dims ask for
   * @throws InvalidInputError when the dims are no whole numbers or the buffer has another length
   */
  constructor(
    readonly dtype: D,
    readonly dims: number[],
    readonly buffer: ArrayBuffer,
  ) {
    const view = VIEWS[dtype];
    if (!view) throw new InvalidInputError('dtype', dtype, `one of ${Object.keys(VIEWS).join(', ')}`);
    const size = elementCount(dims);
    if (!isArrayBuffer(buffer)) {
      throw new InvalidInputError('buffer', typeof buffer, 'an ArrayBuffer');
    }
    const bytes = size * view.BYTES_PER_ELEMENT;
    if (buffer.byteLength !== bytes) {
      throw new InvalidInputError(
        'buffer',
        `${buffer.byteLength} bytes`,
        `${bytes} bytes for ${dtype} [${dims.join(', ')}]`,
      );
    }
  }

  /** A typed view of the buffer; float16 comes as raw bits in a Uint16Array. */
  get data(): TypedArrayOf<D> {
    const View = VIEWS[this.dtype] as unknown as new (buffer: ArrayBuffer) => TypedArrayOf<D>;
    return new View(this.buffer);
  }

  /** Number of elements. */
  get size(): number {
    return elementCount(this.dims);
  }

  /** A short summary instead of the numbers: keeps the debug sidebar and JSON fast and readable. */
  toJSON(): { kind: string; dtype: D; dims: number[]; summary: string } {
    return { kind: this.kind, dtype: this.dtype, dims: this.dims, summary: this.toString() };
  }

  toString(): string {
    return `Tensor ${this.dtype} [${this.dims.join(', ')}]`;
  }

  /** A float32 tensor over `data`; the data is copied only when it is a window into a larger buffer. */
  static float32(data: Float32Array | ArrayLike<number>, dims: number[]): Tensor<'float32'> {
    return new Tensor('float32', dims, ownBuffer(data instanceof Float32Array ? data : Float32Array.from(data)));
  }

  /** A float32 tensor of zeros. */
  static zeros(dims: number[]): Tensor<'float32'> {
    return Tensor.float32(new Float32Array(elementCount(dims)), dims);
  }

  /** A uint8 tensor over `data`; the data is copied only when it is a window into a larger buffer. */
  static uint8(data: Uint8Array, dims: number[]): Tensor<'uint8'> {
    return new Tensor('uint8', dims, ownBuffer(data));
  }

  /**
   * Gives back a real Tensor for anything that carries the tag: a clone, an object that crossed a process boundary and
   * lost its prototype, or one whose numbers went through JSON and came back as a list, in `data` or `buffer`.
   * @param name how to call it in errors
   * @throws InvalidInputError when it is no tensor or its dims lie about its size
   */
  static from(value: unknown, name = 'tensor'): Tensor {
    if (!isTensor(value)) throw new InvalidInputError(name, value, 'a tensor {kind, dtype, dims, buffer}');
    const { dtype, dims } = value;
    // A clone keeps the prototype but skips the constructor, so its fields are checked again here.
    try {
      return new Tensor(dtype, dims, bufferOf(value));
    } catch (error) {
      if (!(error instanceof InvalidInputError) || error.property.startsWith(name)) throw error;
      throw new InvalidInputError(`${name}.${error.property}`, error.value, error.allowed);
    }
  }
}

/** A tensor's buffer, made anew where its numbers are in another form. */
function bufferOf(tensor: { dtype: DType; dims: number[]; buffer?: unknown; data?: unknown }): ArrayBuffer {
  const View = VIEWS[tensor.dtype] as (typeof VIEWS)['float32'] | undefined;
  const { buffer } = tensor;
  if (!View || isArrayBuffer(buffer)) return buffer as ArrayBuffer;
  const size = elementCount(tensor.dims);
  const isBytes = (bytes: ArrayLike<number> | undefined): bytes is ArrayLike<number> =>
    bytes?.length === size * View.BYTES_PER_ELEMENT;
  const bytes = bytesIn(buffer) ?? listOf(buffer);
  if (isBytes(bytes) && bytes.length !== size) return Uint8Array.from(bytes).buffer;
  const [place, given] = buffer === undefined || isEmpty(buffer) ? ['data', own(tensor)] : ['buffer', buffer];
  const numbers = ArrayBuffer.isView(given) ? (given as Float32Array) : (bytesIn(given) ?? listOf(given));
  if (numbers === undefined || numbers.length !== size)
    throw new InvalidInputError(
      place,
      numbers ? `${numbers.length} numbers` : given,
      `${size} numbers; as JSON, such as in a context store on disk, a tensor is only a summary: keep it in memory`,
    );
  for (let i = 0; i < size; i++)
    if (!Number.isFinite(numbers[i])) throw new InvalidInputError(`${place}[${i}]`, numbers[i], 'a number');
  return View.from(numbers).buffer as ArrayBuffer;
}

/** `data` where it is a property, and no getter that would make a view of the missing buffer. */
const own = (tensor: object): unknown => Object.getOwnPropertyDescriptor(tensor, 'data')?.value;

const isArrayBuffer = (value: unknown): boolean => Object.prototype.toString.call(value) === '[object ArrayBuffer]';

/** JSON makes {} of an ArrayBuffer. */
const isEmpty = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && Object.keys(value).length === 0;

/** A plain list, or what JSON makes of a typed array. */
function listOf(value: unknown): number[] | undefined {
  return (Array.isArray(value) ? value : numbered(value)) as number[] | undefined;
}

/** The index of the first value that is NaN or infinite, else -1. */
export function findNotFinite(data: Float32Array): number {
  // Only a number that is not finite differs from itself less itself. A callback for each would take many times as long.
  for (let i = 0; i < data.length; i++) if (data[i] - data[i] !== 0) return i;
  return -1;
}

/** Whether the value carries the tensor tag (it may still be inconsistent: see Tensor.from). */
export function isTensor(value: unknown): value is Tensor {
  return typeof value === 'object' && value !== null && (value as { kind?: unknown }).kind === TENSOR_KIND;
}

function elementCount(dims: number[]): number {
  if (!Array.isArray(dims) || dims.some((d) => !Number.isSafeInteger(d) || d < 0)) {
    throw new InvalidInputError('dims', dims, 'an array of whole numbers, 0 or more');
  }
  return dims.reduce((product, d) => product * d, 1);
}

function ownBuffer(data: Float32Array | Uint8Array): ArrayBuffer {
  const whole = data.byteOffset === 0 && data.byteLength === data.buffer.byteLength;
  return (whole && data.buffer instanceof ArrayBuffer ? data.buffer : data.slice().buffer) as ArrayBuffer;
}
