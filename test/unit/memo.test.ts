import assert from 'node:assert/strict';
import { Memo } from '../../dist/engine/multidiffusion/memo';

describe('a memo', () => {
  it('works each result out once, and keeps the ones that were asked for last', () => {
    const memo = new Memo(2);
    const made: string[] = [];
    const ask = (name: string): string =>
      memo.recall(['name', name], () => {
        made.push(name);
        return name.toUpperCase();
      });
    assert.deepEqual(['a', 'b', 'a', 'c', 'a', 'b'].map(ask), ['A', 'B', 'A', 'C', 'A', 'B']);
    assert.deepEqual(made, ['a', 'b', 'c', 'b']);
  });

  it('tells apart what differs in kind or value, and remembers undefined', () => {
    const memo = new Memo(9);
    let made = 0;
    const make = (): void => void made++;
    for (const values of [
      ['a', 1],
      ['b', 1],
      ['a', true],
      ['a', [1]],
      ['a', { b: 1 }],
    ]) {
      memo.recall(values, make);
      memo.recall(values, make);
    }
    assert.equal(made, 5);
  });
});
