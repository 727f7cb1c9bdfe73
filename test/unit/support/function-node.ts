/** A Function node by itself, in a context as Node-RED gives it one. */
import util from 'node:util';
import vm from 'node:vm';

// What a Function node sees has no types.
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type Any = any;

export interface Surroundings {
  /** What the context stores hold. */
  stored?: Record<string, unknown>;
  /** Environment variables; without a value where one isn't listed. */
  env?: Record<string, string>;
  /** Milliseconds that Date.now() tells; without it those of the machine. */
  now?: () => number;
}

export interface FunctionNode {
  run: (msg: Any) => Promise<Any>;
  /** Calls everything that was given to setInterval and has not been cleared. */
  tick: () => void;
  /** Messages that node.send was given. */
  sent: Any[];
  /** What the node keeps for its messages. */
  globals: Any;
}

/** A Function node after its On Start. */
export async function startFunction(
  func: Any,
  { stored = {}, env = {}, now }: Surroundings = {},
): Promise<FunctionNode> {
  const sent: Any[] = [];
  const intervals = new Map<number, () => void>();
  let timers = 0;
  const store = {
    get: (...args: Any[]) => args.at(-1)(null, stored[args[0]]),
    set: (...args: Any[]) => args.at(-1)?.(null),
    keys: (...args: Any[]) => args.at(-1)(null, []),
  };
  const sandbox: Any = {
    Buffer,
    URL,
    URLSearchParams,
    console,
    util,
    crypto: globalThis.crypto,
    setTimeout: () => 0,
    clearTimeout() {},
    setInterval: (call: () => void) => (intervals.set(++timers, call), timers),
    clearInterval: (timer: number) => void intervals.delete(timer),
    node: {
      id: 'n',
      name: 'n',
      send: (msg: Any) => void sent.push(msg),
      done() {},
      status() {},
      warn() {},
      error() {},
      log() {},
    },
    env: { get: (name: string) => env[name] },
    RED: { util: { cloneMessage: structuredClone } },
    context: { ...store },
    flow: { ...store },
    global: { ...store },
    ...(now && { Date: { now } }),
  };
  vm.createContext(sandbox);
  const compile = (code: string): Any => vm.runInContext(`(async function (msg) {\n${code}\n})`, sandbox);
  await compile(func.initialize ?? '')();
  return {
    run: compile(func.func),
    tick: () => [...intervals.values()].forEach((call) => call()),
    sent,
    globals: sandbox,
  };
}
