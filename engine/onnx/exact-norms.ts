/**
 * Group normalisations that are exact on plain pictures. Exporters write them as InstanceNormalization over
 * [1, groups, values], whose CPU kernel in ONNX Runtime 1.30 rounds the variance of nearly constant data: latents of a
 * plain colour come out wrong by up to 7e-3 of the largest, growing with the picture. Here it is written out in double
 * precision: (x − mean) / √(variance + ε), with the mean taken off before anything is squared.
 */
import { ONNX } from './header';
import { bytesField, contents, fields, numberField, numbers, rewriteFields, textField } from './protobuf';

const FLOAT = 1;
const INT64 = 7;
const DOUBLE = 11;
const ATTRIBUTE = { float: 1, integer: 2, integers: 7 };
/** From this operator set on, the axes of a mean are an input. */
const AXES_AS_INPUT = 18;
const AXES = 'exact_norm_axes';

/**
 * @param model an ONNX file
 * @returns the model with such normalisations written out, or undefined when it has none
 */
export function exactNorms(model: Buffer): Buffer | undefined {
  if (model.indexOf('InstanceNormalization') < 0) return undefined;
  const opset = Math.max(...contents(model, ONNX.model.opset).flatMap((set) => operatorSet(set) ?? []));
  let changed = false;
  const rewritten = rewriteFields(model, ONNX.model.graph, (graph) => {
    const constants = constantsOf(graph);
    const shapes = reshapesOf(graph, constants);
    const parts: Buffer[] = [];
    const epsilons: Buffer[] = [];
    for (const field of fields(graph)) {
      const norm =
        field.number === ONNX.graph.node && field.content ? readNorm(field.content, constants, shapes) : undefined;
      if (!norm) {
        parts.push(field.whole);
        continue;
      }
      const name = `exact_norm_${epsilons.length}`;
      parts.push(...written(norm, name, opset));
      epsilons.push(scalar(`${name}_epsilon`, norm.epsilon));
    }
    if (epsilons.length === 0) return graph;
    changed = true;
    return Buffer.concat([...parts, ...epsilons, axes()]);
  });
  return changed ? rewritten : undefined;
}

interface Norm {
  input: string;
  output: string;
  epsilon: number;
}

/** The version of ONNX's own operators, among those that are imported. */
function operatorSet(set: Buffer): number | undefined {
  const domain = contents(set, ONNX.opset.domain)[0]?.toString() ?? '';
  return domain === '' || domain === 'ai.onnx' ? numbers(set, ONNX.opset.version)[0] : undefined;
}

/** A normalisation of single-precision values [1, groups, values] that neither scales nor shifts them. */
function readNorm(node: Buffer, constants: Map<string, Buffer>, shapes: Map<string, number>): Norm | undefined {
  if (operatorOf(node) !== 'InstanceNormalization') return undefined;
  const [input, scale, shift] = contents(node, ONNX.node.input).map(String);
  const plain = isAll(constants.get(scale), 1) && isAll(constants.get(shift), 0);
  if (!plain || shapes.get(input) !== 3) return undefined;
  const epsilon = contents(node, ONNX.node.attribute).find((attribute) => nameOf(attribute) === 'epsilon');
  return {
    input,
    output: contents(node, ONNX.node.output)[0].toString(),
    epsilon: epsilon ? readFloat(epsilon) : 1e-5,
  };
}

/** Tensors by name: what the graph stores, and what its Constant nodes give. */
function constantsOf(graph: Buffer): Map<string, Buffer> {
  const constants = new Map<string, Buffer>();
  for (const tensor of contents(graph, ONNX.graph.initializer))
    constants.set(contents(tensor, ONNX.tensor.name)[0]?.toString() ?? '', tensor);
  for (const node of contents(graph, ONNX.graph.node)) {
    if (operatorOf(node) !== 'Constant') continue;
    const value = contents(node, ONNX.node.attribute).flatMap((each) => contents(each, ONNX.attribute.tensor))[0];
    if (value) constants.set(contents(node, ONNX.node.output)[0].toString(), value);
  }
  return constants;
}

/** Ranks of what Reshape nodes give, where they are stated. */
function reshapesOf(graph: Buffer, constants: Map<string, Buffer>): Map<string, number> {
  const ranks = new Map<string, number>();
  for (const node of contents(graph, ONNX.graph.node)) {
    if (operatorOf(node) !== 'Reshape') continue;
    const shape = constants.get(contents(node, ONNX.node.input)[1]?.toString() ?? '');
    if (shape) ranks.set(contents(node, ONNX.node.output)[0].toString(), numbers(shape, ONNX.tensor.dimension)[0]);
  }
  return ranks;
}

/** Whether all values of a single-precision tensor are this one. */
function isAll(tensor: Buffer | undefined, value: number): boolean {
  if (!tensor || numbers(tensor, ONNX.tensor.type)[0] !== FLOAT) return false;
  const data = contents(tensor, ONNX.tensor.data)[0] ?? contents(tensor, ONNX.tensor.floats)[0];
  if (!data || data.length === 0 || data.length % 4) return false;
  for (let at = 0; at < data.length; at += 4) if (data.readFloatLE(at) !== value) return false;
  return true;
}

function written({ input, output }: Norm, name: string, opset: number): Buffer[] {
  const inner = (part: string): string => `${name}_${part}`;
  const mean = (of: string, to: string): Buffer =>
    opset >= AXES_AS_INPUT
      ? operation('ReduceMean', [of, AXES], to)
      : operation('ReduceMean', [of], to, attribute('axes', ATTRIBUTE.integers, ONNX.attribute.integers, 2));
  const cast = (type: number): Buffer => attribute('to', ATTRIBUTE.integer, ONNX.attribute.integer, type);
  return [
    operation('Cast', [input], inner('x'), cast(DOUBLE)),
    mean(inner('x'), inner('mean')),
    operation('Sub', [inner('x'), inner('mean')], inner('deviation')),
    operation('Mul', [inner('deviation'), inner('deviation')], inner('square')),
    mean(inner('square'), inner('variance')),
    operation('Add', [inner('variance'), inner('epsilon')], inner('above')),
    operation('Sqrt', [inner('above')], inner('root')),
    operation('Div', [inner('deviation'), inner('root')], inner('y')),
    operation('Cast', [inner('y')], output, cast(FLOAT)),
  ];
}

function operation(operator: string, inputs: string[], output: string, ...attributes: Buffer[]): Buffer {
  const { node } = ONNX;
  return bytesField(
    ONNX.graph.node,
    ...inputs.map((input) => textField(node.input, input)),
    textField(node.output, output),
    textField(node.operator, operator),
    ...attributes,
  );
}

function attribute(name: string, type: number, field: number, value: number): Buffer {
  const { attribute: numbersOf, node } = ONNX;
  return bytesField(
    node.attribute,
    textField(numbersOf.name, name),
    numberField(field, value),
    numberField(numbersOf.type, type),
  );
}

function scalar(name: string, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return tensor(name, DOUBLE, [], bytes);
}

function axes(): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64LE(2n);
  return tensor(AXES, INT64, [1], bytes);
}

function tensor(name: string, type: number, dims: number[], data: Buffer): Buffer {
  return bytesField(
    ONNX.graph.initializer,
    ...dims.map((dim) => numberField(ONNX.tensor.dimension, dim)),
    numberField(ONNX.tensor.type, type),
    textField(ONNX.tensor.name, name),
    bytesField(ONNX.tensor.data, data),
  );
}

function readFloat(attribute: Buffer): number {
  const field = [...fields(attribute)].find(({ number }) => number === ONNX.attribute.float);
  return field ? field.whole.readFloatLE(field.whole.length - 4) : 1e-5;
}

function operatorOf(node: Buffer): string {
  return contents(node, ONNX.node.operator)[0]?.toString() ?? '';
}

function nameOf(attribute: Buffer): string {
  return contents(attribute, ONNX.attribute.name)[0]?.toString() ?? '';
}
