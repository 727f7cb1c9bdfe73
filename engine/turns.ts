/** Long work on Node-RED's own thread, in pieces: between two of them the event loop gets its turn. */
import { setImmediate as immediate } from 'node:timers/promises';

/** Milliseconds after which others get their turn. */
const SLICE = 10;

/** Work that can be interrupted wherever it yields, which it does every few milliseconds at least. */
export type Steps<T> = Generator<void, T>;

/** Does the work without an interruption. */
export function atOnce<T>(steps: Steps<T>): T {
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}

/** Does the work, and lets the event loop go on in between. */
export async function inTurns<T>(steps: Steps<T>): Promise<T> {
  turnIsOver();
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
    if (turnIsOver()) await nextTurn();
  }
}

/** When somebody asked first in this turn of the event loop. */
let started: number | undefined;

/** Whether all such work together has had its time in this turn: `if (turnIsOver()) await nextTurn()`. */
export function turnIsOver(): boolean {
  const now = performance.now();
  if (started !== undefined) return now - started > SLICE;
  started = now;
  setImmediate(() => (started = undefined));
  return false;
}

/** Lets the event loop go on. */
export async function nextTurn(): Promise<void> {
  await immediate();
  turnIsOver();
}
