/**
 * A tiny ONNX model, Y = (X ∗ identity kernel) · 2I for X of [1, 1, 4, 4], to find out whether an execution
 * provider works: the convolution makes CUDA load cuDNN, the product cuBLAS.
 */
import { ONNX } from '../checkpoint/onnx-header';
import { bytesField, numberField, textField } from '../checkpoint/protobuf';

export const PROBE_INPUT = 'X';
export const PROBE_OUTPUT = 'Y';
export const PROBE_DIMS = [1, 1, 4, 4];

const FLOAT = 1;
const INTEGERS_ATTRIBUTE = 7;

export function probeModel(): Uint8Array {
  const kernel = new Float32Array(9);
  kernel[4] = 1;
  const doubling = Float32Array.from({ length: 16 }, (_, i) => (i % 5 === 0 ? 2 : 0));
  const { model, graph, node, attribute } = ONNX;
  const padding = bytesField(node.attribute, textField(attribute.name, 'pads'), ...[1, 1, 1, 1].map((pad) => numberField(attribute.integers, pad)), numberField(attribute.type, INTEGERS_ATTRIBUTE));
  return Buffer.concat([
    numberField(model.irVersion, 8),
    bytesField(
      model.graph,
      operation('Conv', [PROBE_INPUT, 'K'], 'C', padding),
      operation('MatMul', ['C', 'M'], PROBE_OUTPUT),
      textField(graph.name, 'probe'),
      weights('K', [1, 1, 3, 3], kernel),
      weights('M', [4, 4], doubling),
      bytesField(graph.input, valueInfo(PROBE_INPUT)),
      bytesField(graph.output, valueInfo(PROBE_OUTPUT)),
    ),
    bytesField(model.opset, numberField(ONNX.opset.version, 17)),
  ]);
}

function operation(operator: string, inputs: string[], output: string, ...attributes: Buffer[]): Buffer {
  const { node } = ONNX;
  return bytesField(ONNX.graph.node, ...inputs.map((input) => textField(node.input, input)), textField(node.output, output), textField(node.operator, operator), ...attributes);
}

function weights(name: string, dims: number[], values: Float32Array): Buffer {
  const { tensor } = ONNX;
  return bytesField(
    ONNX.graph.initializer,
    ...dims.map((dim) => numberField(tensor.dimension, dim)),
    numberField(tensor.type, FLOAT),
    textField(tensor.name, name),
    bytesField(tensor.data, new Uint8Array(values.buffer)),
  );
}

function valueInfo(name: string): Buffer {
  const shape = PROBE_DIMS.map((dim) => bytesField(ONNX.shape.dimension, numberField(ONNX.dimension.size, dim)));
  const tensor = bytesField(ONNX.type.tensor, numberField(ONNX.tensorType.element, FLOAT), bytesField(ONNX.tensorType.shape, ...shape));
  return Buffer.concat([textField(ONNX.valueInfo.name, name), bytesField(ONNX.valueInfo.type, tensor)]);
}
