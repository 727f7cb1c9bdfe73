/**
 * A tiny ONNX model, Y = (X ∗ identity kernel) · 2I for X of [1, 1, 4, 4], to find out whether an execution
 * provider works: the convolution makes CUDA load cuDNN, the product cuBLAS. Written as protobuf by hand
 * (field numbers of onnx.proto3).
 */

export const PROBE_INPUT = 'X';
export const PROBE_OUTPUT = 'Y';
export const PROBE_DIMS = [1, 1, 4, 4];

const FLOAT = 1;
const ATTRIBUTE_INTS = 7;

export function probeModel(): Uint8Array {
  const kernel = new Float32Array(9);
  kernel[4] = 1;
  const doubling = Float32Array.from({ length: 16 }, (_, i) => (i % 5 === 0 ? 2 : 0));
  const graph = [
    bytes(1, node('Conv', [PROBE_INPUT, 'K'], 'C', bytes(5, [...text(1, 'pads'), ...[1, 1, 1, 1].flatMap((pad) => number(8, pad)), ...number(20, ATTRIBUTE_INTS)]))),
    bytes(1, node('MatMul', ['C', 'M'], PROBE_OUTPUT)),
    text(2, 'probe'),
    bytes(5, initializer('K', [1, 1, 3, 3], kernel)),
    bytes(5, initializer('M', [4, 4], doubling)),
    bytes(11, valueInfo(PROBE_INPUT)),
    bytes(12, valueInfo(PROBE_OUTPUT)),
  ].flat();
  return Uint8Array.from([...number(1, 8), ...bytes(7, graph), ...bytes(8, number(2, 17))]);
}

function node(operator: string, inputs: string[], output: string, attributes: number[] = []): number[] {
  return [...inputs.flatMap((input) => text(1, input)), ...text(2, output), ...text(4, operator), ...attributes];
}

function initializer(name: string, dims: number[], values: Float32Array): number[] {
  return [...dims.flatMap((dim) => number(1, dim)), ...number(2, FLOAT), ...text(8, name), ...bytes(9, [...new Uint8Array(values.buffer)])];
}

function valueInfo(name: string): number[] {
  const shape = PROBE_DIMS.flatMap((dim) => bytes(1, number(1, dim)));
  return [...text(1, name), ...bytes(2, bytes(1, [...number(1, FLOAT), ...bytes(2, shape)]))];
}

function varint(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...varint(value >>> 7)];
}

function number(field: number, value: number): number[] {
  return [...varint(field * 8), ...varint(value)];
}

function bytes(field: number, content: number[]): number[] {
  return [...varint(field * 8 + 2), ...varint(content.length), ...content];
}

function text(field: number, value: string): number[] {
  return bytes(field, [...Buffer.from(value)]);
}
