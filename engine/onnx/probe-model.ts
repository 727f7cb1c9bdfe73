/**
 * A small ONNX model with random weights and the operators of diffusion models, to find out whether an execution
 * provider gives right numbers and how fast it is: convolutions, group normalisation as exporters write it, SiLU, layer
 * normalisation, attention, resize. (On CUDA the convolution loads cuDNN, the product cuBLAS.)
 */
import { ONNX } from './header';
import { bytesField, numberField, textField } from './protobuf';

export const PROBE_INPUT = 'X';
export const PROBE_OUTPUT = 'Y';

export interface ProbeShape {
  /** A multiple of 8. */
  channels: number;
  /** Of the picture, even. */
  side: number;
}

const FLOAT = 1;
const INT64 = 7;
const HALF = 10;
const ATTRIBUTE = { integer: 2, text: 3, integers: 7 } as const;
const GROUPS = 8;

/**
 * The model, for X and Y of [1, channels, side, side].
 * @param half whether it computes in half precision; its input and its output are single precision all the same
 */
export function probeModel({ channels, side }: ProbeShape, half = false): Uint8Array {
  const random = generator(channels);
  const type = half ? HALF : FLOAT;
  const nodes: Buffer[] = [];
  const constants: Buffer[] = [];
  let names = 0;

  const constant = (dims: number[], values: Float32Array): string => {
    const name = `c${names++}`;
    constants.push(tensor(name, dims, FLOAT, new Uint8Array(values.buffer)));
    return half ? add('Cast', [name], integer('to', HALF)) : name;
  };
  const shape = (...dims: number[]): string => {
    const name = `c${names++}`;
    constants.push(tensor(name, [dims.length], INT64, new Uint8Array(BigInt64Array.from(dims, BigInt).buffer)));
    return name;
  };
  const weights = (dims: number[], fanIn: number): string =>
    constant(
      dims,
      Float32Array.from({ length: dims.reduce((a, b) => a * b) }, () => random() / Math.sqrt(fanIn)),
    );
  const add = (operator: string, inputs: string[], ...attributes: Buffer[]): string => {
    const output = `t${names++}`;
    nodes.push(operation(operator, inputs, output, attributes));
    return output;
  };
  const convolve = (input: string, stride: number): string =>
    add(
      'Conv',
      [input, weights([channels, channels, 3, 3], 9 * channels)],
      integers('pads', [1, 1, 1, 1]),
      integers('strides', [stride, stride]),
    );
  const scaled = (input: string, dims: number[]): string => add('Mul', [input, weights(dims, 1)]);

  const start = half ? add('Cast', [PROBE_INPUT], integer('to', HALF)) : PROBE_INPUT;
  const grouped = add('Reshape', [convolve(start, 1), shape(1, GROUPS, -1)]);
  const [ones, zeros] = [1, 0].map((value) => constant([GROUPS], new Float32Array(GROUPS).fill(value)));
  const plain = add('InstanceNormalization', [grouped, ones, zeros]);
  const normalised = scaled(add('Reshape', [plain, shape(1, channels, side, side)]), [channels, 1, 1]);
  const active = add('Mul', [normalised, add('Sigmoid', [normalised])]);

  const cells = (side / 2) ** 2;
  const flat = add('Reshape', [convolve(active, 2), shape(1, channels, cells)]);
  const tokens = add('Transpose', [flat], integers('perm', [0, 2, 1]));
  const layer = add('LayerNormalization', [
    tokens,
    weights([channels], 1),
    constant([channels], new Float32Array(channels)),
  ]);
  const project = (): string => add('MatMul', [layer, weights([channels, channels], channels)]);
  const [queries, keys, values] = [project(), add('Transpose', [project()], integers('perm', [0, 2, 1])), project()];
  const scale = constant([1], Float32Array.of(1 / Math.sqrt(channels)));
  const attention = add('Softmax', [add('Mul', [add('MatMul', [queries, keys]), scale])], integer('axis', 2));
  const attended = add('Add', [tokens, add('MatMul', [attention, values])]);
  const back = add('Transpose', [attended], integers('perm', [0, 2, 1]));
  const small = add('Reshape', [back, shape(1, channels, side / 2, side / 2)]);
  const scales = `c${names++}`;
  constants.push(tensor(scales, [4], FLOAT, new Uint8Array(Float32Array.of(1, 1, 2, 2).buffer)));
  const resized = add(
    'Resize',
    [small, '', scales],
    text('mode', 'nearest'),
    text('coordinate_transformation_mode', 'asymmetric'),
    text('nearest_mode', 'floor'),
  );
  const sum = add('Add', [convolve(resized, 1), start]);
  nodes.push(operation('Cast', [sum], PROBE_OUTPUT, [integer('to', FLOAT)]));

  const { model, graph } = ONNX;
  const dims = [1, channels, side, side];
  return Buffer.concat([
    numberField(model.irVersion, 8),
    bytesField(
      model.graph,
      ...nodes,
      textField(graph.name, `probe ${type}`),
      ...constants,
      bytesField(graph.input, valueInfo(PROBE_INPUT, dims)),
      bytesField(graph.output, valueInfo(PROBE_OUTPUT, dims)),
    ),
    bytesField(model.opset, numberField(ONNX.opset.version, 17)),
  ]);
}

/** The values that the probe is fed with: random, from −amplitude to amplitude. */
export function probeValues({ channels, side }: ProbeShape, amplitude: number): Float32Array {
  const random = generator(side);
  return Float32Array.from({ length: channels * side * side }, () => amplitude * random());
}

/** Numbers from −1 to 1: a linear congruential generator (Numerical Recipes). */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

function operation(operator: string, inputs: string[], output: string, attributes: Buffer[]): Buffer {
  const { node } = ONNX;
  return bytesField(
    ONNX.graph.node,
    ...inputs.map((input) => textField(node.input, input)),
    textField(node.output, output),
    textField(node.operator, operator),
    ...attributes,
  );
}

function attributeField(name: string, type: number, ...value: Buffer[]): Buffer {
  const { attribute } = ONNX;
  return bytesField(ONNX.node.attribute, textField(attribute.name, name), ...value, numberField(attribute.type, type));
}

const integer = (name: string, value: number): Buffer =>
  attributeField(name, ATTRIBUTE.integer, numberField(ONNX.attribute.integer, value));
const integers = (name: string, values: number[]): Buffer =>
  attributeField(name, ATTRIBUTE.integers, ...values.map((value) => numberField(ONNX.attribute.integers, value)));
const text = (name: string, value: string): Buffer =>
  attributeField(name, ATTRIBUTE.text, textField(ONNX.attribute.text, value));

function tensor(name: string, dims: number[], type: number, bytes: Uint8Array): Buffer {
  const { tensor: field } = ONNX;
  return bytesField(
    ONNX.graph.initializer,
    ...dims.map((dim) => numberField(field.dimension, dim)),
    numberField(field.type, type),
    textField(field.name, name),
    bytesField(field.data, bytes),
  );
}

function valueInfo(name: string, dims: number[]): Buffer {
  const shape = dims.map((dim) => bytesField(ONNX.shape.dimension, numberField(ONNX.dimension.size, dim)));
  const tensorType = bytesField(
    ONNX.type.tensor,
    numberField(ONNX.tensorType.element, FLOAT),
    bytesField(ONNX.tensorType.shape, ...shape),
  );
  return Buffer.concat([textField(ONNX.valueInfo.name, name), bytesField(ONNX.valueInfo.type, tensorType)]);
}
