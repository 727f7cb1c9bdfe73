/**
 * Wired steps: the jobs whose steps go round a loop of nodes as messages. A message carries plain data and
 * tensors; what cannot travel (the job, its model, its clock) waits here, found by msg.step.job.
 */
import { randomUUID } from 'node:crypto';
import type { Node, NodeAPI } from 'node-red';
import { CancelledError, MissingInputError, MultiDiffusionError } from '../../engine/errors';
import type { DiffusionModel } from '../../engine/model';
import type * as Method from '../../engine/multidiffusion/method';
import type { Plan, SampleRequest } from '../../engine/multidiffusion/plan';
import type { Evaluate, SampleResult } from '../../engine/multidiffusion/sample';
import type { State } from '../../engine/multidiffusion/state';
import type { Tensor } from '../../engine/tensor';
import { own, type Message } from './message';
import type { Task } from './tasks';

const HOOK = 'onComplete.multidiffusion-loop';

/** What the sampler has used up; heavy to clone at each branch, and still part of the message that it will send on. */
const CONSUMED = ['regions', 'background', 'conditioning', 'initialImage', 'bootstrappingImage'];

const loops = new Map<string, Loop>();

interface LoopParts {
  /** The sampler. */
  owner: Node;
  /** The work on the message that asked for the picture. */
  task: Task;
  /** msg.job */
  id: string;
  model: DiffusionModel;
  /** Seconds for which no node may keep the message. */
  timeout: number;
}

/** A job in the loop. */
export class Loop {
  readonly key: string;
  /** From the first step on. */
  plan!: Plan;
  state!: State;
  private readonly controller = new AbortController();
  /** What travels: the message as it came back last, so that what nodes put into it stays there. */
  private msg: Message;
  private waiting?: { index: number; resolve: (fused: Tensor<'float32'>) => void; reject: (error: Error) => void };
  private timer?: NodeJS.Timeout;
  /** Nodes that work on the message now. */
  private atWork = 0;
  failure?: Error;

  constructor(
    private readonly parts: LoopParts,
    readonly method: typeof Method,
  ) {
    this.key = loops.has(parts.id) ? `${parts.id} ${randomUUID()}` : parts.id;
    this.msg = { ...parts.task.msg, job: parts.id };
    for (const name of CONSUMED) delete this.msg[name];
    loops.set(this.key, this);
  }

  /** Aborted as soon as the job has ended, in whatever way. */
  get signal(): AbortSignal {
    return this.controller.signal;
  }

  get model(): DiffusionModel {
    return this.parts.model;
  }

  /** Whether the sampler waits for this step. */
  awaits(index: unknown): boolean {
    return this.waiting?.index === index;
  }

  belongsTo(node: Node): boolean {
    return this.parts.owner === node;
  }

  /** Whether this message went round for the job and has lost its msg.step. */
  misses(msg: Message): boolean {
    return own(msg, 'job') === this.parts.id && own(msg, '_msgid') === this.parts.task.msg._msgid;
  }

  /** Sends the step on its way and waits for it to come back. */
  readonly evaluate: Evaluate = (_model, plan, state) => {
    this.plan = plan;
    this.state = state;
    return new Promise((resolve, reject) => {
      if (this.failure) return reject(this.failure);
      this.waiting = { index: state.index, resolve, reject };
      const { msg } = this;
      msg.latents = this.method.copy(state.latents);
      msg.step = this.method.describeStep(plan, state, this.key);
      this.wind();
      this.parts.task.send([null, msg, null]);
    });
  };

  /** Takes the message back; what is wrong with it ends the job. */
  accept(msg: Message): void {
    const { waiting, plan } = this;
    clearTimeout(this.timer);
    try {
      const fused = this.method.readCanvas(
        plan,
        own(msg.step, 'fused'),
        'step.fused',
        'Send the message through multidiffusion-fuse before it goes back into the sampler.',
      );
      this.state.latents = this.latentsOf(msg);
      this.msg = msg;
      this.waiting = undefined;
      waiting!.resolve(fused);
    } catch (error) {
      this.fail(error as Error);
    }
  }

  latentsOf(msg: Message): Tensor<'float32'> {
    return this.method.readCanvas(
      this.plan,
      own(msg, 'latents'),
      'latents',
      'It came with the step: a node of the loop removed it.',
    );
  }

  /** Lets a node work on the message; meanwhile the clock stands still. */
  async work<T>(work: () => Promise<T> | T): Promise<T> {
    this.atWork++;
    clearTimeout(this.timer);
    try {
      return await work();
    } finally {
      this.atWork--;
      this.wind();
    }
  }

  /**
   * Ends the job.
   * @param reported whether the node that noticed has reported it to Catch, so that the sampler need not
   */
  fail(error: Error, reported = false): void {
    if (this.failure || this.signal.aborted) return;
    this.failure = error;
    this.parts.task.reported ||= reported;
    this.waiting?.reject(error);
    this.end();
  }

  end(): void {
    clearTimeout(this.timer);
    if (loops.get(this.key) === this) loops.delete(this.key);
    if (!this.signal.aborted)
      this.controller.abort(
        this.failure instanceof CancelledError ? this.failure : new CancelledError('The job has ended.'),
      );
  }

  private wind(): void {
    clearTimeout(this.timer);
    if (this.atWork > 0 || this.signal.aborted || !this.waiting) return;
    const { timeout } = this.parts;
    this.timer = setTimeout(() => {
      const step = `Step ${this.state.index + 1} of ${this.plan.evaluations}`;
      const text =
        `${step} did not come back into the sampler: for ${timeout} seconds no node of the loop has sent ` +
        `it on. Check the wires from the output "step" back to the sampler's input, or set a longer loop ` +
        'timeout.';
      this.fail(new MultiDiffusionError('TIMEOUT', text));
    }, timeout * 1000);
  }
}

/** Samples with the steps going round the loop that is wired to the sampler's second output. */
export async function sampleInLoop(RED: NodeAPI, parts: LoopParts, request: SampleRequest): Promise<SampleResult> {
  const { owner, model } = parts;
  const [, wires = []] = (owner as Node & { wires?: string[][] }).wires ?? [];
  if (wires.length === 0) {
    throw new MissingInputError(
      'step',
      'The output "step" leads nowhere: wire it to multidiffusion-bootstrap, that to ' +
        'multidiffusion-denoise, that to multidiffusion-fuse, and that back to the sampler; ' +
        'or choose built-in steps.',
    );
  }
  const method = await import('../../engine/multidiffusion/method');
  request.signal?.throwIfAborted();
  const loop = new Loop(parts, method);
  const onAbort = (): void => loop.fail(request.signal!.reason as Error);
  request.signal?.addEventListener('abort', onAbort, { once: true });
  watchErrors(RED);
  try {
    return await method.sample(model, { ...request, signal: loop.signal }, loop.evaluate);
  } catch (error) {
    throw loop.failure ?? error;
  } finally {
    request.signal?.removeEventListener('abort', onAbort);
    loop.end();
    if (loops.size === 0) RED.hooks?.remove(HOOK);
  }
}

/** An error in any other node of a loop, such as a Function node, ends the job at once instead of by its timeout. */
function watchErrors(RED: NodeAPI): void {
  if (loops.size > 1) return;
  RED.hooks?.remove(HOOK);
  RED.hooks?.add(HOOK, ({ msg, error }: { msg: Message; error?: unknown }) => {
    if (!error) return;
    const loop = loops.get(String(own(own(msg, 'step'), 'job')));
    const text = error instanceof Error ? error.message : String(error);
    loop?.fail(new MultiDiffusionError('INVALID_INPUT', `A node of the loop failed: ${text}`), true);
  });
}

/** The job that msg.step.job names, while it runs. */
export function findLoop(key: string): Loop | undefined {
  return loops.get(key);
}

/** The job whose message this was before it lost its msg.step. */
export function findLost(msg: Message, node?: Node): Loop | undefined {
  return [...loops.values()].find((loop) => (!node || loop.belongsTo(node)) && loop.misses(msg));
}
