/** The messages of wired steps as nodes see them: back in the sampler, or in a node of the loop. */
import type { Node, NodeAPI } from 'node-red';
import { CancelledError, MissingInputError } from '../../engine/errors';
import { checkOption, type OptionSpec, resolveOptions, type Values } from '../../engine/options';
import { findLoop, findLost, type Loop } from './loop';
import { isObject, own, pick, type Message } from './message';
import { handleMessages, isCancellation, type Task } from './tasks';

const STATUS_INTERVAL_MS = 250;

/**
 * The options of a node of the loop: from msg.step.options, else the node's own, else the default.
 * @throws InvalidInputError
 */
export function stepOptions<T extends Record<string, OptionSpec>>(specs: T, step: unknown, config: object): Values<T> {
  const given = own(step, 'options');
  for (const [name, spec] of Object.entries(specs)) checkOption(`step.options.${name}`, spec, own(given, name));
  const names = Object.keys(specs);
  return resolveOptions(specs, pick(given, names), pick(config, names));
}

/** Whether the message belongs to a loop, so that it is no request for a picture. */
export function isStep(msg: Message, node: Node): boolean {
  return typeof own(own(msg, 'step'), 'job') === 'string' || findLost(msg, node) !== undefined;
}

/** Takes a step's message back into the sampler. One that nobody waits for is dropped with a warning. */
export function takeBack(node: Node, msg: Message): void {
  const step = own(msg, 'step');
  if (typeof own(step, 'job') !== 'string') return findLost(msg, node)?.fail(lostStep());
  const loop = findLoop(own(step, 'job') as string);
  const name = `A message of step ${Number(own(step, 'index')) + 1} of job ${String(own(step, 'job')).slice(0, 100)} was ignored`;
  if (!loop) node.warn(`${name}: the job has ended.`);
  else if (!loop.belongsTo(node)) node.warn(`${name}: it belongs to another sampler.`);
  else if (!loop.awaits(own(step, 'index'))) node.warn(`${name}: the step has been taken already.`);
  else loop.accept(msg);
}

const lostStep = (): MissingInputError =>
  new MissingInputError(
    'step',
    'A node of the loop removed it: send on the message that it got, with msg.step changed as needed.',
  );

/**
 * Handles the messages of a node in the loop: `work` changes msg.step, and the message goes on. Whatever
 * goes wrong ends the job. Messages of jobs that have ended are dropped with a warning.
 */
export function handleSteps(
  RED: NodeAPI,
  node: Node,
  work: (msg: Message, step: Record<string, unknown>, loop: Loop, task: Task) => Promise<void> | void,
): void {
  let shown = 0;
  const heard = new WeakSet<Loop>();

  handleMessages(RED, node, async (task) => {
    const { msg, send, status } = task;
    if (isCancellation(msg)) return send(msg);
    const loop = loopOf(node, msg);
    if (!loop) return;
    if (!heard.has(loop)) loop.signal.addEventListener('abort', () => status.interrupted('cancelled'), { once: true });
    heard.add(loop);
    const step = msg.step as Record<string, unknown>;
    try {
      await loop.work(() => work(msg, step, loop, task));
    } catch (error) {
      if (loop.signal.aborted) task.abandon('The job has ended.');
      else if (task.cancelled) {
        loop.fail(new CancelledError(`${node.type} was removed or redeployed while the step was in it.`));
        task.reported = true; // by the sampler
      } else loop.fail(error as Error, true);
      throw error;
    }
    const [index, total] = [Number(step.index) + 1, Number(step.total)];
    const now = performance.now();
    if (index === total) status.ok('step', { index, total });
    else if (now - shown > STATUS_INTERVAL_MS) {
      shown = now;
      status.busy('step', { index, total });
    }
    send(msg);
  });
}

/**
 * The running job whose step this is.
 * @returns undefined, after a warning, when it runs no more
 * @throws MissingInputError when the message has no msg.step
 */
function loopOf(node: Node, msg: Message): Loop | undefined {
  const step = own(msg, 'step');
  if (!isObject(step) || typeof step.job !== 'string') {
    const error = new MissingInputError(
      'step',
      'Wire this node into the loop of a multidiffusion-sampler with wired steps, and let no node before it remove msg.step.',
    );
    findLost(msg)?.fail(error, true);
    throw error;
  }
  const loop = findLoop(step.job);
  if (loop?.awaits(step.index)) return loop;
  node.warn(
    `A message of step ${Number(step.index) + 1} of job ${step.job.slice(0, 100)} was ignored: ` +
      `${loop ? 'the step has been taken already' : 'the job has ended'}.`,
  );
  return undefined;
}
