/** The messages of one node in line: none overtakes another, and no more than so many wait. */
import type { NodeAPI } from 'node-red';
import { MultiDiffusionError } from '../../engine/errors';
import { rememberJob } from './jobs';
import { own, type Message } from './message';
import { isLoad, isUnload } from './model';
import { readSettings } from './settings';
import { isCancellation, orAborted, type Task } from './tasks';

/**
 * One message after the other, so that none overtakes another: while a model loads, or when one takes longer.
 * A message that ends work (msg.reset, msg.cancel, msg.unload) waits for nothing: what it ends may be stuck. It
 * cancels what was sent before it and is still in this node, so that nothing of that arrives after it.
 * @param work one message's; the next one's begins when it has ended, or has called `next`
 * @param ends whether a message ends work
 * @returns throws MultiDiffusionError QUEUE_FULL when too many messages wait already
 */
export function inOrder<More extends unknown[]>(
  RED: NodeAPI,
  work: (task: Task, next: () => void, ...more: More) => Promise<void> | void,
  ends: (msg: Message) => boolean = isCancellation,
): (task: Task, ...more: More) => Promise<void> {
  let last: Promise<void> = Promise.resolve();
  let waiting = 0;
  const tasks = new Set<Task>();

  return async (task, ...more) => {
    if (ends(task.msg)) {
      cancelTasks(tasks, task.msg);
      return work(task, () => undefined, ...more);
    }
    if (!isLoad(task.msg)) checkRoom(RED, waiting);
    const before = last;
    let next!: () => void;
    const through = new Promise<void>((resolve) => (next = resolve));
    // One that is cancelled while it waits lets nobody past.
    last = before.then(() => through);
    waiting++;
    tasks.add(task);
    try {
      await orAborted(before, task.signal).finally(() => waiting--);
      // Loading all of a model may take minutes, and who comes next needs only some of it.
      if (isLoad(task.msg)) next();
      await work(task, next, ...more);
    } finally {
      tasks.delete(task);
      next();
    }
  };
}

/** Cancels what the message ends: the job of an id, or everything. */
function cancelTasks(tasks: ReadonlySet<Task>, msg: Message): void {
  const id = isUnload(msg) ? undefined : own(msg, 'cancel');
  for (const task of tasks) {
    if (id === undefined)
      task.cancel(isUnload(msg) ? 'The model was unloaded.' : 'The job was cancelled by msg.reset.');
    else if (own(task.msg, 'job') === id) {
      rememberJob(id);
      task.cancel('The job was cancelled by msg.cancel.');
    }
  }
}

function checkRoom(RED: NodeAPI, waiting: number): void {
  const { maxWaitingMessages } = readSettings(RED);
  if (waiting < maxWaitingMessages) return;
  throw new MultiDiffusionError(
    'QUEUE_FULL',
    `${waiting} messages are waiting in this node, the limit ` +
      '(multidiffusion.maxWaitingMessages in settings.js). Try again later.',
  );
}
