/**
 * Takes the chance out of a VAE encoder. Some exporters put the draw from the posterior into the graph,
 * sample = mean + deviation · RandomNormalLike(mean), where no seed reaches it. With a tiny scale on that
 * node (zero is refused by ONNX Runtime) the sample is the mean, and a picture can be repeated.
 */
import { ONNX } from '../checkpoint/onnx-header';
import { bytesField, contents, fields, floatField, numberField, textField } from '../checkpoint/protobuf';

const FLOAT_ATTRIBUTE = 1;
const TINY_SCALE = bytesField(ONNX.node.attribute, textField(ONNX.attribute.name, 'scale'), floatField(ONNX.attribute.float, 2 ** -100), numberField(ONNX.attribute.type, FLOAT_ATTRIBUTE));

/**
 * @param model an ONNX file
 * @returns the model with silenced noise, or undefined when it draws none
 */
export function silenceNoise(model: Buffer): Buffer | undefined {
  if (model.indexOf('RandomNormalLike') < 0) return undefined;
  return rewrite(model, ONNX.model.graph, (graph) => rewrite(graph, ONNX.graph.node, silenceNode));
}

function silenceNode(node: Buffer): Buffer {
  if (contents(node, ONNX.node.operator)[0]?.toString() !== 'RandomNormalLike') return node;
  const isScale = (attribute: Buffer): boolean => contents(attribute, ONNX.attribute.name)[0]?.toString() === 'scale';
  const kept = [...fields(node)].filter(({ number, content }) => !(number === ONNX.node.attribute && content && isScale(content)));
  return Buffer.concat([...kept.map(({ whole }) => whole), TINY_SCALE]);
}

/** The message with the content of every field of this number replaced. */
function rewrite(message: Buffer, number: number, change: (content: Buffer) => Buffer): Buffer {
  const parts = [...fields(message)].map((field) => {
    if (field.number !== number || !field.content) return field.whole;
    const changed = change(field.content);
    return changed === field.content ? field.whole : bytesField(number, changed);
  });
  return Buffer.concat(parts);
}
