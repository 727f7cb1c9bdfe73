/** Reading and writing the wire format of ONNX files. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { open } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import {
  bytesField,
  contents,
  DamagedMessageError,
  fields,
  floatField,
  MessageFile,
  numberField,
  numbers,
  textField,
} from '../../dist/engine/onnx/protobuf';

describe('protobuf messages', () => {
  it('are written as the format says', () => {
    // The examples of the format's own description: 150 in field 1, "testing" in field 2, {150} in field 3.
    assert.deepEqual(numberField(1, 150), Buffer.from('089601', 'hex'));
    assert.deepEqual(textField(2, 'testing'), Buffer.from('120774657374696e67', 'hex'));
    assert.deepEqual(bytesField(3, numberField(1, 150)), Buffer.from('1a03089601', 'hex'));
    assert.deepEqual(floatField(2, 1), Buffer.from('150000803f', 'hex'));
  });

  it('are read as they were written', () => {
    const number = fc.tuple(
      fc.constant('number' as const),
      fc.integer({ min: 1, max: 5000 }),
      fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
    );
    const bytes = fc.tuple(
      fc.constant('bytes' as const),
      fc.integer({ min: 1, max: 5000 }),
      fc.uint8Array({ maxLength: 300 }),
    );
    fc.assert(
      fc.property(fc.array(fc.oneof(number, bytes)), (row) => {
        const message = Buffer.concat(
          row.map(([kind, field, value]) => (kind === 'number' ? numberField(field, value) : bytesField(field, value))),
        );
        const read = [...fields(message)];
        assert.deepEqual(
          read.map(({ number: field, value, content }) => [field, value ?? [...content!]]),
          row.map(([kind, field, value]) => [field, kind === 'number' ? value : [...value]]),
        );
        assert.deepEqual(Buffer.concat(read.map(({ whole }) => whole)), message);
      }),
    );
  });

  it('may have their numbers packed', () => {
    const message = Buffer.concat([numberField(8, 2), bytesField(8, Buffer.of(2, 0x96, 1)), numberField(9, 7)]);
    assert.deepEqual(numbers(message, 8), [2, 2, 150]);
  });

  it('that are damaged are an error, never an endless loop', () => {
    const message = Buffer.concat([numberField(1, 8), textField(2, 'a text'), floatField(3, 1)]);
    for (let end = 1; end < message.length; end++) {
      try {
        Array.from(fields(message.subarray(0, end)));
      } catch (error) {
        assert.ok(error instanceof DamagedMessageError);
      }
    }
    for (const wrong of ['00', '07', '0c', '08ffffffffffffffffffffff01', '12ff01'])
      assert.throws(() => [...fields(Buffer.from(wrong, 'hex'))], DamagedMessageError, wrong);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 50 }), (bytes) => {
        try {
          Array.from(fields(Buffer.from(bytes)));
        } catch (error) {
          assert.ok(error instanceof DamagedMessageError);
        }
      }),
    );
  });

  it('in a file are walked without reading what is large', async () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'protobuf-'));
    const name = path.join(folder, 'message');
    const parts = [
      textField(1, 'first'),
      bytesField(2, Buffer.alloc(300_000, 1)),
      floatField(4, 1),
      bytesField(3, textField(1, 'inner')),
      numberField(5, 1),
    ];
    fs.writeFileSync(name, Buffer.concat(parts));
    const handle = await open(name);
    try {
      const { size } = await handle.stat();
      const file = new MessageFile(handle, size);
      const found = [];
      for await (const { number, content } of file.fields({ start: 0, end: size })) {
        found.push([number, file.isSmall(content) ? await file.read(content) : content.end - content.start]);
      }
      assert.deepEqual(found, [
        [1, Buffer.from('first')],
        [2, 300_000],
        [3, textField(1, 'inner')],
      ]);
      assert.deepEqual(contents(found[2][1] as Buffer, 1), [Buffer.from('inner')]);
    } finally {
      await handle.close();
      fs.rmSync(folder, { recursive: true });
    }
  });
});
