/** Small changes to ONNX files, and small ONNX files: protobuf by hand (field numbers of onnx.proto3). */

/** Re-encodes a message with the length-delimited field at the end of `path` changed, wherever it occurs. */
export function rewrite(message: Buffer, path: number[], change: (content: Buffer) => Buffer): Buffer {
  const parts: Buffer[] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = message[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const start = at;
    const tag = varint();
    const [number, wire] = [Math.floor(tag / 8), tag % 8];
    if (wire === 0) varint();
    else if (wire === 1 || wire === 5) at += wire === 1 ? 8 : 4;
    else {
      const length = varint();
      at += length;
      if (number === path[0]) {
        const content = message.subarray(at - length, at);
        parts.push(field(number, path.length > 1 ? rewrite(content, path.slice(1), change) : change(content)));
        continue;
      }
    }
    parts.push(message.subarray(start, at));
  }
  return Buffer.concat(parts);
}

/** A length-delimited field. */
export function field(number: number, content: Buffer | string): Buffer {
  const bytes = Buffer.from(content as Buffer);
  return Buffer.concat([varint(number * 8 + 2), varint(bytes.length), bytes]);
}

/** A number's field. */
export function integer(number: number, value: number): Buffer {
  return Buffer.concat([varint(number * 8), varint(value)]);
}

function varint(value: number): Buffer {
  return value < 128
    ? Buffer.of(value)
    : Buffer.concat([Buffer.of((value % 128) | 128), varint(Math.floor(value / 128))]);
}

/** @param dims numbers or names */
export function valueInfo(name: string, type: number, dims: Array<number | string>): Buffer {
  const shape = Buffer.concat(dims.map((dim) => field(1, typeof dim === 'number' ? integer(1, dim) : field(2, dim))));
  return Buffer.concat([field(1, name), field(2, field(1, Buffer.concat([integer(1, type), field(2, shape)])))]);
}

/** Element types of onnx.proto3, by the names that ONNX Runtime gives them. */
export const ELEMENT = { float32: 1, int32: 6, int64: 7, float16: 10, float64: 11 } as const;
export type ElementType = keyof typeof ELEMENT;

const cast = (from: string, to: string, type: ElementType): Buffer => {
  const attribute = Buffer.concat([field(1, 'to'), integer(3, ELEMENT[type]), integer(20, 2)]);
  return field(1, Buffer.concat([field(1, from), field(2, to), field(4, 'Cast'), field(5, attribute)]));
};

/** As some other exporter would have made it: an input of another type and rank, which becomes inside what it was. */
export function retypeInput(
  model: Buffer,
  name: string,
  inner: ElementType,
  type: ElementType,
  dims: Array<number | string>,
): Buffer {
  const renamed = rewrite(model, [7, 1, 1], (used) => (used.toString() === name ? Buffer.from(`${name}_inner`) : used));
  const flat = field(
    5,
    Buffer.concat([
      integer(1, 1),
      integer(2, ELEMENT.int64),
      field(8, `${name}_shape`),
      field(9, Buffer.alloc(8, 0xff)),
    ]),
  );
  const reshape = field(
    1,
    Buffer.concat([
      field(1, `${name}_cast`),
      field(1, `${name}_shape`),
      field(2, `${name}_inner`),
      field(4, 'Reshape'),
    ]),
  );
  const prelude =
    dims.length > 1
      ? cast(name, `${name}_inner`, inner)
      : Buffer.concat([cast(name, `${name}_cast`, inner), reshape, flat]);
  return rewrite(renamed, [7], (graph) =>
    Buffer.concat([
      prelude,
      rewrite(graph, [11], (info) => (nameOf(info) === name ? valueInfo(name, ELEMENT[type], dims) : info)),
    ]),
  );
}

/** The same for an output. */
export function retypeOutput(model: Buffer, name: string, type: ElementType, dims: Array<number | string>): Buffer {
  const rename = (value: Buffer): Buffer => (value.toString() === name ? Buffer.from(`${name}_inner`) : value);
  const renamed = rewrite(rewrite(model, [7, 1, 1], rename), [7, 1, 2], rename);
  return rewrite(renamed, [7], (graph) =>
    Buffer.concat([
      rewrite(graph, [12], (info) => (nameOf(info) === name ? valueInfo(name, ELEMENT[type], dims) : info)),
      cast(`${name}_inner`, name, type),
    ]),
  );
}

/** A value's name, which its message begins with. */
function nameOf(info: Buffer): string {
  return info.toString('utf8', 2, 2 + info[1]);
}
