/** Long work on Node-RED's own thread leaves it for others in between. */
import assert from 'node:assert/strict';
import { atOnce, inTurns, type Steps } from '../../dist/engine/turns';

function* counting(pieces: number, milliseconds: number, done: number[]): Steps<string> {
  for (let piece = 0; piece < pieces; piece++) {
    for (const end = performance.now() + milliseconds; performance.now() < end; );
    done.push(piece);
    yield;
  }
  return 'the end';
}

describe('turns', () => {
  it('long pieces of work: the event loop goes on after each', async () => {
    const done: number[] = [];
    const seen: number[] = [];
    let working = true;
    const watch = (): void => {
      seen.push(done.length);
      if (working) setImmediate(watch);
    };
    setImmediate(watch);
    assert.equal(await inTurns(counting(5, 12, done)), 'the end');
    working = false;
    assert.deepEqual(done, [0, 1, 2, 3, 4]);
    for (const pieces of [1, 2, 3, 4]) assert.ok(seen.includes(pieces), `${pieces} of ${seen.join()}`);
  });

  it('much short work, one after the other: the event loop goes on, too', async () => {
    let turns = 0;
    let working = true;
    const watch = (): void => {
      turns++;
      if (working) setImmediate(watch);
    };
    setImmediate(watch);
    for (let i = 0; i < 20; i++) await inTurns(counting(1, 5, []));
    working = false;
    assert.ok(turns >= 4, `${turns} turns in 100 ms of work`);
  });

  it('at once: the same, without an interruption', () => {
    const done: number[] = [];
    assert.equal(atOnce(counting(3, 0, done)), 'the end');
    assert.deepEqual(done, [0, 1, 2]);
  });

  it('what fails in between, fails', async () => {
    await assert.rejects(
      inTurns(
        (function* () {
          yield;
          throw new Error('in the middle');
        })(),
      ),
      /in the middle/,
    );
  });
});
