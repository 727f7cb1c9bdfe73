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
  return value < 128 ? Buffer.of(value) : Buffer.concat([Buffer.of((value % 128) | 128), varint(Math.floor(value / 128))]);
}

/** @param dims numbers or names */
export function valueInfo(name: string, type: number, dims: Array<number | string>): Buffer {
  const shape = Buffer.concat(dims.map((dim) => field(1, typeof dim === 'number' ? integer(1, dim) : field(2, dim))));
  return Buffer.concat([field(1, name), field(2, field(1, Buffer.concat([integer(1, type), field(2, shape)])))]);
}
