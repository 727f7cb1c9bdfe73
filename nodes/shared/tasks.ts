/** One way for every node to take a message: done exactly once, errors in one place, cancelled when nobody waits any more. */
import { EventEmitter } from 'node:events';
import type { Writable } from 'node:stream';
import type { Node, NodeAPI, NodeMessage } from 'node-red';
import { CancelledError, MultiDiffusionError, show } from '../../engine/errors';
import { asksFor, own, TooMuchError, type Message } from './message';
import { Status } from './status';

/** Node-RED waits 15 s for a node to close. */
const CLOSE_WAIT_MS = 5000;
const CLOSED = 'The node was removed or redeployed.';

/** The work on one message. */
export class Task {
  /** Made when somebody asks for its signal, which most steps of a loop do not. */
  private controller: AbortController | undefined;
  /** Why the work is to end, once it is. */
  cancelled: CancelledError | undefined;
  /** Nobody is left who could be told: the HTTP client has gone. */
  unheard = false;
  /** Another node has reported the failure to Catch. */
  reported = false;

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
export function handleMessages(
  RED: NodeAPI,
  node: Node,
  work: (task: Task) => Promise<void> | void,
  close?: () => void,
): Set<Task> {
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
      failure = error instanceof Error ? error : new Error(`Something else than an error was thrown: ${show(error)}`);
      if (failure instanceof TooMuchError) delete (task.msg as { payload?: unknown }).payload;
      if (task.cancelled) failure = task.cancelled;
      showFailure(failure);
    }
    stopWatching();
    report(task, failure && !task.unheard && !task.reported ? failure : undefined, done);
  }

  /** Whatever becomes of the status, Catch is to be told. */
  function showFailure(failure: Error): void {
    try {
      if (failure instanceof CancelledError) status.idle('cancelled');
      else status.failed(failure);
    } catch {
      // A listener to the status failed.
    }
  }

  function report(task: Task, failure: Error | undefined, done: (error?: Error) => void): void {
    // Read before: a clone that fails on its way has taken the request out of the message.
    const bare = bareMessage(task.msg);
    try {
      done(failure);
    } catch (error) {
      // Node-RED clones the message for Catch and Complete, and this one can't be cloned: it is nested too deep, say.
      if (failure) tell(failure, bare);
      else node.error(error as Error);
    }
  }

  /** Tells Catch with what of the message can always be cloned: plain values, and the HTTP request, which is not. */
  function tell(failure: Error, bare: Message): void {
    try {
      node.error(failure, bare);
    } catch {
      node.error(failure);
    }
  }

  // Node-RED has let go of all nodes that it replaces before the tasks end: what they still say reaches those that stay.
  node.on('close', (finished: () => void) => {
    closing = true;
    status.close('cancelled');
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

/** The message without what is no plain value; the request of an HTTP client stays, so that it can be answered. */
function bareMessage(msg: Message): Message {
  const bare: Record<string, unknown> = {};
  for (const name of Object.keys(msg)) {
    try {
      const value = own(msg, name);
      const plain = ['string', 'number', 'boolean'].includes(typeof value);
      if (plain || name === 'req' || name === 'res') bare[name] = value;
    } catch {
      // A property that fails when it is read is no plain value either.
    }
  }
  return bare as unknown as Message;
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

/**
 * Does work for a task that may take only so long.
 * @param milliseconds default: as long as it takes
 * @throws MultiDiffusionError TIMEOUT, and the work's signal is aborted with it
 */
export async function within<T>(
  task: Task,
  milliseconds: number | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  if (milliseconds === undefined) return work(task.signal);
  const late = new AbortController();
  const timer = setTimeout(() => {
    const text = `It took longer than ${milliseconds / 1000} seconds, which is the limit (multidiffusion.jobTimeout in settings.js).`;
    late.abort(new MultiDiffusionError('TIMEOUT', text));
  }, milliseconds);
  const signal = AbortSignal.any([task.signal, late.signal]);
  try {
    return await orAborted(work(signal), signal);
  } finally {
    clearTimeout(timer);
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
