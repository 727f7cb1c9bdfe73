/** A node's own values for a message: those of its typed inputs stand in the message, the context, the environment or an expression. */
import type { Node, NodeAPI } from 'node-red';
import { InvalidInputError } from '../../engine/errors';
import { NODE_OPTIONS, SOURCES } from '../../engine/options';
import { pick, type Message } from './message';

/**
 * The named options as the node is configured. What a source gives counts as the node's own value; where it gives
 * nothing (undefined, null or empty text) the default holds.
 * @throws InvalidInputError when a source can't be evaluated, or the kind of value is none that the option has
 */
export async function configured(
  RED: NodeAPI,
  node: Node,
  msg: Message,
  config: object,
  names: readonly string[],
): Promise<Record<string, unknown>> {
  const values = pick(config, names);
  const kinds = pick(
    config,
    names.map((name) => `${name}Type`),
  );
  for (const name of names) {
    const kind = kinds[`${name}Type`];
    if (kind === undefined || kind === '') continue;
    const allowed = NODE_OPTIONS[node.type]?.[name]?.form?.kinds;
    if (allowed && !allowed.includes(kind as string))
      throw new InvalidInputError(`${name}Type`, kind, `one of ${allowed.join(', ')}`);
    if (isSource(kind)) values[name] = await evaluate(RED, node, msg, name, kind, values[name]);
  }
  return values;
}

/** Whether a typed input of this kind only names where its value is. */
export function isSource(kind: unknown): kind is (typeof SOURCES)[number] {
  return SOURCES.includes(kind as never);
}

/** @returns undefined for nothing */
async function evaluate(
  RED: NodeAPI,
  node: Node,
  msg: Message,
  name: string,
  kind: string,
  expression: unknown,
): Promise<unknown> {
  if (typeof expression !== 'string' || expression === '') return undefined;
  try {
    const result = await new Promise<unknown>((resolve, reject) =>
      RED.util.evaluateNodeProperty(expression, kind, node, msg, (error: Error | null, value: unknown) =>
        error ? reject(error) : resolve(value),
      ),
    );
    return result === null || result === '' ? undefined : result;
  } catch (error) {
    const allowed = `an expression that can be evaluated (${String((error as Error)?.message ?? error).slice(0, 200)})`;
    throw new InvalidInputError(name, `${kind}.${expression}`, allowed);
  }
}
