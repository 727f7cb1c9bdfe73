/** The messages of one node in line: none overtakes another, and no more than so many wait. */
import type { NodeAPI } from 'node-red';
import { MultiDiffusionError } from '../../engine/errors';
import { isLoad, isOrder } from './model';
import { readSettings } from './settings';
import { isCancellation, orAborted, type Task } from './tasks';

/**
 * One message after the other, so that none overtakes another: while a model loads, or when one takes longer.
 * A message that says to cancel comes after those that were sent before it, too.
 * @param work one message's; the next one's begins when it has ended, or has called `next`
 * @returns throws MultiDiffusionError QUEUE_FULL when too many messages wait already
 */
export function inOrder<More extends unknown[]>(
  RED: NodeAPI,
  work: (task: Task, next: () => void, ...more: More) => Promise<void> | void,
): (task: Task, ...more: More) => Promise<void> {
  let last: Promise<void> = Promise.resolve();
  let waiting = 0;

  return async (task, ...more) => {
    if (!isCancellation(task.msg) && !isOrder(task.msg)) checkRoom(RED, waiting);
    const before = last;
    let next!: () => void;
    const through = new Promise<void>((resolve) => (next = resolve));
    // One that is cancelled while it waits lets nobody past.
    last = before.then(() => through);
    waiting++;
    try {
      await orAborted(before, task.signal).finally(() => waiting--);
      // Loading all of a model may take minutes, and who comes next needs only some of it.
      if (isLoad(task.msg)) next();
      await work(task, next, ...more);
    } finally {
      next();
    }
  };
}

function checkRoom(RED: NodeAPI, waiting: number): void {
  const { maxWaitingMessages } = readSettings(RED);
  if (waiting < maxWaitingMessages) return;
  throw new MultiDiffusionError('QUEUE_FULL', `${waiting} messages are waiting in this node already, which is the limit (multidiffusion.maxWaitingMessages in settings.js). Try again later.`);
}
