/**
 * Takes the chance out of a VAE encoder. Some exporters put the draw from the posterior into the graph,
 * sample = mean + deviation · RandomNormalLike(mean), where no seed reaches it. With a tiny scale on that
 * node (zero is refused by ONNX Runtime) the sample is the mean, and a picture can be repeated.
 */
import { ONNX } from './header';
import { bytesField, contents, fields, floatField, numberField, rewriteFields, textField } from './protobuf';

const FLOAT_ATTRIBUTE = 1;
const TINY_SCALE = bytesField(
  ONNX.node.attribute,
  textField(ONNX.attribute.name, 'scale'),
  floatField(ONNX.attribute.float, 2 ** -100),
  numberField(ONNX.attribute.type, FLOAT_ATTRIBUTE),
);

/**
 * @param model an ONNX file
 * @returns the model with silenced noise, or undefined when it draws none
 */
export function silenceNoise(model: Buffer): Buffer | undefined {
  if (model.indexOf('RandomNormalLike') < 0) return undefined;
  return rewriteFields(model, ONNX.model.graph, (graph) => rewriteFields(graph, ONNX.graph.node, silenceNode));
}

function silenceNode(node: Buffer): Buffer {
  if (contents(node, ONNX.node.operator)[0]?.toString() !== 'RandomNormalLike') return node;
  const isScale = (attribute: Buffer): boolean => contents(attribute, ONNX.attribute.name)[0]?.toString() === 'scale';
  const kept = [...fields(node)].filter(
    ({ number, content }) => !(number === ONNX.node.attribute && content && isScale(content)),
  );
  return Buffer.concat([...kept.map(({ whole }) => whole), TINY_SCALE]);
}
