/**
 * What an ONNX file says about itself, read without loading it: inputs, outputs, and where its external
 * data lies. Only lengths are followed, weights are skipped, so a file of gigabytes takes milliseconds.
 */
import { open } from 'node:fs/promises';
import { contents, DamagedMessageError, fields, MessageFile, numbers, type Span } from './protobuf';

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

const ELEMENT_TYPES: Record<number, string> = {
  1: 'float32',
  2: 'uint8',
  3: 'int8',
  4: 'uint16',
  5: 'int16',
  6: 'int32',
  7: 'int64',
  8: 'string',
  9: 'bool',
  10: 'float16',
  11: 'float64',
  12: 'uint32',
  13: 'uint64',
  16: 'bfloat16',
};

/** The second is what ONNX Runtime's optimiser makes for CUDA. */
const CONVOLUTIONS = ['Conv', 'NhwcConv'];

/** Field numbers of onnx.proto3, by message. */
export const ONNX = {
  model: { irVersion: 1, graph: 7, opset: 8 },
  opset: { domain: 1, version: 2 },
  graph: { node: 1, name: 2, initializer: 5, input: 11, output: 12 },
  node: { input: 1, output: 2, operator: 4, attribute: 5 },
  attribute: { name: 1, float: 2, integer: 3, text: 4, tensor: 5, integers: 8, type: 20 },
  tensor: { dimension: 1, type: 2, floats: 4, name: 8, data: 9, externalData: 13 },
  entry: { key: 1, value: 2 },
  valueInfo: { name: 1, type: 2 },
  type: { tensor: 1 },
  tensorType: { element: 1, shape: 2 },
  shape: { dimension: 1 },
  dimension: { size: 1, name: 2 },
} as const;

/**
 * @throws DamagedMessageError when the file is no complete ONNX model
 * @throws the system's error when the file cannot be read
 */
export async function readOnnxHeader(path: string): Promise<OnnxHeader> {
  const handle = await open(path, 'r');
  try {
    const { size } = await handle.stat();
    const file = new MessageFile(handle, size);
    const header: OnnxHeader = { inputs: [], outputs: [], externalData: new Map(), halvings: 0 };
    const initializers = new Set<string>();
    for await (const { number, content: graph } of file.fields({ start: 0, end: size })) {
      if (number !== ONNX.model.graph) continue;
      for await (const { number: part, content } of file.fields(graph)) {
        // What is large is a node that holds weights.
        if (part === ONNX.graph.node && file.isSmall(content) && isHalvingConvolution(await file.read(content)))
          header.halvings++;
        if (part === ONNX.graph.input) header.inputs.push(readValueInfo(await file.read(content)));
        if (part === ONNX.graph.output) header.outputs.push(readValueInfo(await file.read(content)));
        if (part === ONNX.graph.initializer) await readInitializer(file, content, initializers, header.externalData);
      }
    }
    if (header.outputs.length === 0) throw new DamagedMessageError('it holds no graph');
    // Before IR version 4 weights were listed among the inputs.
    header.inputs = header.inputs.filter((input) => !initializers.has(input.name));
    return header;
  } finally {
    await handle.close();
  }
}

function isHalvingConvolution(node: Buffer): boolean {
  if (!CONVOLUTIONS.includes(text(node, ONNX.node.operator))) return false;
  const strides = contents(node, ONNX.node.attribute).find(
    (attribute) => text(attribute, ONNX.attribute.name) === 'strides',
  );
  return strides !== undefined && numbers(strides, ONNX.attribute.integers).join() === '2,2';
}

function readValueInfo(info: Buffer): ValueInfo {
  const value: ValueInfo = { name: text(info, ONNX.valueInfo.name), type: 'unknown', shape: [] };
  const tensor = contents(info, ONNX.valueInfo.type).flatMap((type) => contents(type, ONNX.type.tensor))[0];
  if (!tensor) return value;
  const [element = 0] = numbers(tensor, ONNX.tensorType.element);
  value.type = ELEMENT_TYPES[element] ?? `type ${element}`;
  const dimensions = contents(tensor, ONNX.tensorType.shape).flatMap((shape) => contents(shape, ONNX.shape.dimension));
  value.shape = dimensions.map(
    (dimension) => numbers(dimension, ONNX.dimension.size)[0] ?? text(dimension, ONNX.dimension.name),
  );
  return value;
}

async function readInitializer(
  file: MessageFile,
  tensor: Span,
  names: Set<string>,
  external: Map<string, number>,
): Promise<void> {
  const entries: Record<string, string> = {};
  for await (const { number, content } of file.fields(tensor)) {
    if (number === ONNX.tensor.name) names.add((await file.read(content)).toString());
    if (number !== ONNX.tensor.externalData) continue;
    const entry = await file.read(content);
    entries[text(entry, ONNX.entry.key)] = text(entry, ONNX.entry.value);
  }
  if (entries.location === undefined) return;
  const bytes = Number(entries.offset ?? 0) + Number(entries.length ?? 0);
  external.set(entries.location, Math.max(bytes, external.get(entries.location) ?? 0));
}

function text(message: Buffer, number: number): string {
  for (const field of fields(message)) if (field.number === number && field.content) return field.content.toString();
  return '';
}
