/** One way for every node to take a message: done exactly once, errors in one place, cancelled when nobody waits any more. */
import { EventEmitter } from 'node:events';
import type { Writable } from 'node:stream';
import type { Node, NodeAPI, NodeMessage } from 'node-red';
import { CancelledError } from '../../engine/errors';
import { asksFor, own, type Message } from './message';
import { Status } from './status';

/** Node-RED waits 15 s for a node to close. */
const CLOSE_WAIT_MS = 5000;
const CLOSED = 'The node was removed or deployed anew.';

/** The work on one message. */
export class Task {
  /** Made when somebody asks for its signal, which most steps of a loop do not. */
  private controller: AbortController | undefined;
  /** Why the work is to end, once it is. */
  cancelled: CancelledError | undefined;
  /** Nobody is left who could be told: the HTTP client has gone. */
  unheard = false;
  /** Another node has told Catch about the failure. */
  told = false;

  constructor(
    readonly msg: Message,
    readonly status: Status,
    /** Sends on the node's outputs; does nothing once nobody is left to be told. */
    readonly send: (msg: NodeMessage | Array<NodeMessage | NodeMessage[] | null>) => void,
  ) {}

  get signal(): AbortSignal {
    this.controller ??= new AbortController();
    if (this.cancelled) this.controller.abort(this.cancelled);
    return this.controller.signal;
  }

  /** Ends the work; the error CANCELLED goes to Catch. */
  cancel(reason: string): void {
    this.cancelled ??= new CancelledError(reason);
    this.controller?.abort(this.cancelled);
  }

  /** Ends the work without a word. */
  abandon(reason: string): void {
    this.unheard = true;
    this.cancel(reason);
  }
}

/**
 * Handles a node's messages. `work` may throw or reject as it likes: that becomes the node's error, with
 * its code, for Catch; an exception out of an input handler would otherwise end Node-RED.
 * @param close what else to do when the node closes, after its tasks have ended
 * @returns the node's tasks that are under way
 */
export function handleMessages(RED: NodeAPI, node: Node, work: (task: Task) => Promise<void> | void, close?: () => void): Set<Task> {
  const status = new Status(RED, node);
  const tasks = new Set<Task>();
  const endings = new Set<Promise<void>>();
  let closing = false;
  let closed = false;

  node.on('input', (msg, send, done) => {
    const task: Task = new Task(msg, status, (message) => {
      if (!closed && !task.unheard) send(message);
    });
    if (closing) task.cancel(CLOSED);
    const ending = run(task, done).finally(() => {
      tasks.delete(task);
      endings.delete(ending);
    });
    tasks.add(task);
    endings.add(ending);
  });

  async function run(task: Task, done: (error?: Error) => void): Promise<void> {
    let failure: Error | undefined;
    let stopWatching = (): void => {};
    try {
      stopWatching = watchRequest(task);
      if (task.cancelled) throw task.cancelled;
      await work(task);
    } catch (error) {
      failure = error instanceof Error ? error : new Error(String(error));
      if (task.cancelled) failure = task.cancelled;
      if (failure instanceof CancelledError) status.idle('cancelled');
      else status.failed(failure);
    }
    stopWatching();
    report(failure && !task.unheard && !task.told ? failure : undefined, done);
  }

  function report(failure: Error | undefined, done: (error?: Error) => void): void {
    try {
      done(failure);
    } catch (error) {
      // Node-RED clones the message for Catch; a message that can't be cloned is left out.
      node.error(failure ?? (error as Error));
    }
  }

  // Node-RED has let go of all nodes that it replaces before the tasks end: what they still say reaches those that stay.
  node.on('close', (finished: () => void) => {
    closing = true;
    status.close();
    for (const task of tasks) task.cancel(CLOSED);
    let timer: NodeJS.Timeout;
    const patience = new Promise<void>((resolve) => (timer = setTimeout(resolve, CLOSE_WAIT_MS)));
    void Promise.race([Promise.all(endings), patience]).then(() => {
      clearTimeout(timer);
      closed = true;
      close?.();
      finished();
    });
  });

  return tasks;
}

/** What the promise gives; once the signal is aborted it is not waited for any longer. */
export async function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  promise.catch(() => undefined); // it may fail when nobody waits any longer
  signal.throwIfAborted();
  let leave!: () => void;
  const aborted = new Promise<never>((_, reject) => {
    leave = () => reject(signal.reason as Error);
    signal.addEventListener('abort', leave, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', leave);
  }
}

/** Abandons the task when the HTTP client that asked for it goes away before it is answered. */
function watchRequest(task: Task): () => void {
  // http in wraps the response; `close` of the request itself comes as soon as its body has been read.
  const response = own(own(task.msg, 'res'), '_res') as Writable | undefined;
  if (!(response instanceof EventEmitter)) return () => {};
  const gone = (): void => {
    if (!response.writableFinished) task.abandon('The HTTP client has gone.');
  };
  if (response.closed) gone();
  response.once('close', gone);
  return () => response.removeListener('close', gone);
}

/** Whether the message only says that jobs are to be cancelled; such messages go on to the sampler untouched. */
export function isCancellation(msg: Message): boolean {
  return asksFor(msg, 'reset') || own(msg, 'cancel') !== undefined;
}
