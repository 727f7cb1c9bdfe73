/**
 * What an ONNX file says about itself, read without loading it: inputs, outputs, and where its external
 * data lies. A model file is a protobuf (onnx.proto3: ModelProto, GraphProto, TensorProto,
 * ValueInfoProto); only lengths are followed, weights are skipped, so a file of gigabytes takes milliseconds.
 */
import { open, type FileHandle } from 'node:fs/promises';

/** One input or output of a graph. A dimension without a fixed size is its name, or '' when it has none. */
export interface ValueInfo {
  name: string;
  type: string;
  shape: Array<number | string>;
}

export interface OnnxHeader {
  inputs: ValueInfo[];
  outputs: ValueInfo[];
  /** Files with weights, relative to the model's folder, and the bytes that each must have at least. */
  externalData: Map<string, number>;
  /** Convolutions that halve height and width: a UNet has one per level below the first. */
  halvings: number;
}

/** The file is no complete ONNX model; the message says in a few words what is wrong. */
export class DamagedOnnxError extends Error {}

const ELEMENT_TYPES: Record<number, string> = {
  1: 'float32', 2: 'uint8', 3: 'int8', 4: 'uint16', 5: 'int16', 6: 'int32', 7: 'int64',
  8: 'string', 9: 'bool', 10: 'float16', 11: 'float64', 12: 'uint32', 13: 'uint64', 16: 'bfloat16',
};

// Field numbers of onnx.proto3.
const MODEL_GRAPH = 7;
const GRAPH_NODE = 1;
const GRAPH_INITIALIZER = 5;
const GRAPH_INPUT = 11;
const GRAPH_OUTPUT = 12;
const TENSOR_EXTERNAL_DATA = 13;

/**
 * @throws DamagedOnnxError when the file is no complete ONNX model
 * @throws the system's error when the file cannot be read
 */
export async function readOnnxHeader(path: string): Promise<OnnxHeader> {
  const file = await open(path, 'r');
  try {
    const { size } = await file.stat();
    const reader = new ProtoReader(file, size);
    const header: OnnxHeader = { inputs: [], outputs: [], externalData: new Map(), halvings: 0 };
    const initializers = new Set<string>();
    let hasGraph = false;
    await reader.message(size, async (field, length) => {
      if (field !== MODEL_GRAPH || length === undefined) return;
      hasGraph = true;
      await reader.message(reader.position + length, async (graphField, graphLength) => {
        if (graphLength === undefined) return;
        const end = reader.position + graphLength;
        if (graphField === GRAPH_NODE && (await isHalvingConvolution(reader, end))) header.halvings++;
        if (graphField === GRAPH_INPUT) header.inputs.push(await readValueInfo(reader, end));
        if (graphField === GRAPH_OUTPUT) header.outputs.push(await readValueInfo(reader, end));
        if (graphField === GRAPH_INITIALIZER) await readInitializer(reader, end, initializers, header.externalData);
      });
    });
    if (!hasGraph || header.outputs.length === 0) throw new DamagedOnnxError('it holds no graph');
    // Before IR version 4 weights were listed among the inputs.
    header.inputs = header.inputs.filter((input) => !initializers.has(input.name));
    return header;
  } finally {
    await file.close();
  }
}

async function isHalvingConvolution(reader: ProtoReader, end: number): Promise<boolean> {
  let operator = '';
  let strides: number[] = [];
  await reader.message(end, async (field, length) => {
    if (field === 4) operator = await reader.text(length);
    // Attributes come after the operator's name.
    if (field !== 5 || length === undefined || operator !== 'Conv') return;
    let name = '';
    const numbers: number[] = [];
    await reader.message(reader.position + length, async (part, partLength, number) => {
      if (part === 1) name = await reader.text(partLength);
      if (part === 8 && number !== undefined) numbers.push(number);
    });
    if (name === 'strides') strides = numbers;
  });
  return strides.length === 2 && strides.every((stride) => stride === 2);
}

async function readValueInfo(reader: ProtoReader, end: number): Promise<ValueInfo> {
  const value: ValueInfo = { name: '', type: 'unknown', shape: [] };
  await reader.message(end, async (field, length) => {
    if (field === 1) value.name = await reader.text(length);
    if (field !== 2 || length === undefined) return;
    await reader.message(reader.position + length, async (typeField, typeLength) => {
      if (typeField !== 1 || typeLength === undefined) return;
      await reader.message(reader.position + typeLength, async (tensorField, tensorLength, number) => {
        if (tensorField === 1) value.type = ELEMENT_TYPES[number ?? 0] ?? `type ${number}`;
        if (tensorField !== 2 || tensorLength === undefined) return;
        await reader.message(reader.position + tensorLength, async (_, dimLength) => {
          if (dimLength === undefined) return;
          let dim: number | string = '';
          await reader.message(reader.position + dimLength, async (kind, textLength, size) => {
            if (kind === 1) dim = size ?? 0;
            if (kind === 2) dim = await reader.text(textLength);
          });
          value.shape.push(dim);
        });
      });
    });
  });
  return value;
}

async function readInitializer(reader: ProtoReader, end: number, names: Set<string>, external: Map<string, number>): Promise<void> {
  const entries: Record<string, string> = {};
  await reader.message(end, async (field, length) => {
    if (field === 8) names.add(await reader.text(length));
    if (field !== TENSOR_EXTERNAL_DATA || length === undefined) return;
    let key = '';
    let value = '';
    await reader.message(reader.position + length, async (part, partLength) => {
      if (part === 1) key = await reader.text(partLength);
      if (part === 2) value = await reader.text(partLength);
    });
    entries[key] = value;
  });
  if (entries.location === undefined) return;
  const bytes = Number(entries.offset ?? 0) + Number(entries.length ?? 0);
  external.set(entries.location, Math.max(bytes, external.get(entries.location) ?? 0));
}

const WINDOW = 64 * 1024;

/** Walks protobuf messages in a file through a small window. */
class ProtoReader {
  position = 0;
  private window = Buffer.alloc(0);
  private windowStart = 0;

  constructor(
    private readonly file: FileHandle,
    private readonly size: number,
  ) {}

  /**
   * Calls `visit` for every field of the message that ends at `end`; what the visitor leaves unread is
   * skipped.
   * @param visit field number; length of a length-delimited field; value of a number
   */
  async message(end: number, visit: (field: number, length?: number, number?: number) => Promise<void>): Promise<void> {
    if (end > this.size) throw new DamagedOnnxError(`it ends after ${this.size} of at least ${end} bytes`);
    while (this.position < end) {
      const tag = await this.varint();
      const field = Math.floor(tag / 8);
      const wire = tag % 8;
      if (field === 0) throw new DamagedOnnxError('it is not in ONNX format');
      if (wire === 0) {
        await visit(field, undefined, await this.varint());
      } else if (wire === 2) {
        const length = await this.varint();
        const next = this.position + length;
        if (next > this.size) throw new DamagedOnnxError(`it ends after ${this.size} of at least ${next} bytes`);
        if (next > end) throw new DamagedOnnxError('its parts contradict each other');
        await visit(field, length);
        this.position = next;
      } else if (wire === 1 || wire === 5) {
        this.position += wire === 1 ? 8 : 4;
      } else {
        throw new DamagedOnnxError('it is not in ONNX format');
      }
    }
    if (this.position !== end) throw new DamagedOnnxError('its parts contradict each other');
  }

  async text(length = 0): Promise<string> {
    if (length > WINDOW) throw new DamagedOnnxError('a name in it is too long');
    await this.need(length);
    const start = this.position - this.windowStart;
    this.position += length;
    return this.window.toString('utf8', start, start + length);
  }

  private async varint(): Promise<number> {
    await this.need(Math.min(10, this.size - this.position));
    let value = 0;
    let scale = 1;
    for (let i = 0; i < 10; i++) {
      const at = this.position - this.windowStart;
      if (at >= this.window.length) throw new DamagedOnnxError('it ends in the middle of a number');
      const byte = this.window[at];
      this.position++;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
      scale *= 128;
    }
    throw new DamagedOnnxError('it is not in ONNX format');
  }

  private async need(bytes: number): Promise<void> {
    const start = this.position - this.windowStart;
    if (start >= 0 && start + bytes <= this.window.length) return;
    const length = Math.min(WINDOW, this.size - this.position);
    const buffer = Buffer.alloc(Math.max(0, length));
    const { bytesRead } = await this.file.read(buffer, 0, buffer.length, this.position);
    this.window = buffer.subarray(0, bytesRead);
    this.windowStart = this.position;
    if (bytesRead < bytes) throw new DamagedOnnxError(`it ends after ${this.size} bytes`);
  }
}
