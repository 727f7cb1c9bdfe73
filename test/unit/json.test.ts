/** JSON of strangers is counted before it is read, and counted alike whether it comes as text or has been read. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { excessIn, excessInText, type JsonBounds } from '../../dist/engine/json';

const bounds: JsonBounds = { lists: 50, names: 20 };
const many = <T>(count: number, value: T): T[] => Array.from({ length: count }, () => value);
const deep = (levels: number): unknown => (levels === 0 ? [] : [deep(levels - 1)]);

describe('JSON of strangers', () => {
  const cases: Array<[name: string, value: unknown, excess: RegExp | undefined]> = [
    ['a layout', { prompt: 'a', regions: many(10, { box: [0, 0, 1, 1] }) }, undefined],
    ['as many lists as are allowed', many(49, []), undefined],
    ['one more', many(50, []), /longer.*50 lists and objects/],
    ['empty objects', { more: many(60, {}) }, /longer.*50 lists/],
    ['names', Object.fromEntries(many(21, 0).map((_, i) => [`name ${i}`, 0])), /longer.*20 named values/],
    ['numbers', many(499_000, 1), undefined],
    ['more numbers', many(500_002, 1), /longer.*500000 values/],
    ['40 levels', deep(40), undefined],
    ['64 levels and one more', deep(65), /(nested deeper.*64 levels|longer.*50)/],
    ['text that looks like JSON', { a: '[[[[{{{{,,,,::::', b: '\\"[[', c: `${'\\'.repeat(7)}"{` }, undefined],
    ['long text', { image: '["'.repeat(1_000_000) }, undefined],
  ];
  for (const [name, value, expected] of cases) {
    it(`${name}: ${expected ? 'refused' : 'allowed'}, as text and as it is`, () => {
      for (const excess of [excessIn(value, bounds), excessInText(JSON.stringify(value), bounds)]) {
        if (expected) assert.match(`${excess?.found} ${excess?.allowed}`, expected);
        else assert.equal(excess, undefined);
      }
    });
  }

  it('depth is told of its own', () => {
    const wide = { ...bounds, lists: 1000 };
    for (const excess of [excessIn(deep(65), wide), excessInText(JSON.stringify(deep(65)), wide)])
      assert.deepEqual(excess, { found: 'nested deeper', allowed: 'up to 64 levels' });
  });

  it('what is no JSON is left to who reads it, whatever it is', () => {
    for (const text of ['', '"', '{"a', '"\\', ']]]', '{"a":"\\"', 'a room'])
      assert.equal(excessInText(text, bounds), undefined);
    fc.assert(fc.property(fc.string(), (text) => void excessInText(text, { lists: 1e9, names: 1e9 })));
  });

  it('any value counts alike as text and as it is', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.nat(30), fc.nat(30), (value, lists, names) => {
        const most = { lists, names };
        const text = excessInText(JSON.stringify(value), most);
        assert.equal(excessIn(value, most) === undefined, text === undefined);
      }),
    );
  });
});
