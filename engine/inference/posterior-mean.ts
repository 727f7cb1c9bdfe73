/**
 * Takes the chance out of a VAE encoder. Some exporters put the draw from the posterior into the graph,
 * sample = mean + deviation · RandomNormalLike(mean), where no seed reaches it. With a tiny scale on that
 * node (zero is refused by ONNX Runtime) the sample is the mean, and a picture can be repeated.
 */

// Field numbers of onnx.proto3.
const MODEL_GRAPH = 7;
const GRAPH_NODE = 1;
const NODE_OPERATOR = 4;
const NODE_ATTRIBUTE = 5;
const ATTRIBUTE_NAME = 1;

const LENGTH_DELIMITED = 2;
/** AttributeProto {name: "scale", f: 2^-100, type: FLOAT} as a field of a node. */
const TINY_SCALE = Buffer.from([(NODE_ATTRIBUTE << 3) | LENGTH_DELIMITED, 15, 0x0a, 5, ...Buffer.from('scale'), 0x15, 0, 0, 0x80, 0x0d, 0xa0, 0x01, 1]);

/**
 * @param model an ONNX file
 * @returns the model with silenced noise, or undefined when it draws none
 */
export function silenceNoise(model: Buffer): Buffer | undefined {
  if (model.indexOf('RandomNormalLike') < 0) return undefined;
  return rewrite(model, MODEL_GRAPH, (graph) => rewrite(graph, GRAPH_NODE, silenceNode));
}

function silenceNode(node: Buffer): Buffer {
  const own = [...fields(node)];
  const operator = own.find(({ number }) => number === NODE_OPERATOR)?.content.toString();
  if (operator !== 'RandomNormalLike') return node;
  const isScale = (attribute: Buffer): boolean => [...fields(attribute)].some(({ number, content }) => number === ATTRIBUTE_NAME && content.toString() === 'scale');
  const kept = own.filter(({ number, content }) => number !== NODE_ATTRIBUTE || !isScale(content));
  return Buffer.concat([...kept.map(({ whole }) => whole), TINY_SCALE]);
}

/** The message with every field of this number replaced. */
function rewrite(message: Buffer, fieldNumber: number, change: (content: Buffer) => Buffer): Buffer {
  const parts: Buffer[] = [];
  for (const { number, content, whole } of fields(message)) {
    const changed = number === fieldNumber ? change(content) : content;
    if (changed === content) parts.push(whole);
    else parts.push(Buffer.from([...varint((number << 3) | LENGTH_DELIMITED), ...varint(changed.length)]), changed);
  }
  return Buffer.concat(parts);
}

interface Field {
  number: number;
  /** Of a length-delimited field; else empty. */
  content: Buffer;
  /** Tag, length and content. */
  whole: Buffer;
}

function* fields(message: Buffer): Generator<Field> {
  let at = 0;
  const read = (): number => {
    for (let value = 0, scale = 1; ; scale *= 128) {
      const byte = message[at++];
      if (byte === undefined) throw new Error('the model ends in the middle of a field');
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const start = at;
    const tag = read();
    const number = Math.floor(tag / 8);
    const wire = tag % 8;
    let length = 0;
    if (wire === 0) read();
    else if (wire === 1) at += 8;
    else if (wire === 5) at += 4;
    else length = read();
    const content = message.subarray(at, at + length);
    at += length;
    yield { number, content, whole: message.subarray(start, at) };
  }
}

function varint(value: number): number[] {
  return value < 128 ? [value] : [(value % 128) | 128, ...varint(Math.floor(value / 128))];
}
