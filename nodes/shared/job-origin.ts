/** Who asked for a job, and how urgent it is. */
import { InvalidInputError } from '../../engine/errors';
import { checkOption } from '../../engine/options';
import { own, type Message } from './message';

const PRIORITY = { type: 'number', min: -1_000_000, max: 1_000_000 } as const;

/**
 * msg.priority; higher goes first. A layout can't set it: it is the flow's word, not the client's.
 * @throws InvalidInputError when it is no number
 */
export function readPriority(msg: Message): number {
  return (checkOption('priority', PRIORITY, own(msg, 'priority')) as number | undefined) ?? 0;
}

/**
 * msg.client, which a flow sets that knows its clients; else the address of the HTTP client.
 * @returns undefined when nobody in particular asked
 * @throws InvalidInputError when msg.client is no good name
 */
export function readClient(msg: Message): string | undefined {
  const client = own(msg, 'client');
  if (client === undefined || client === null) return addressOf(own(msg, 'req'));
  if (typeof client !== 'string' || client === '' || client.length > 200)
    throw new InvalidInputError('client', client, 'text of 1 to 200 characters');
  return `client ${client}`;
}

/** Behind a proxy Express knows the address when it is told to trust the proxy. */
function addressOf(request: unknown): string | undefined {
  try {
    const { ip, socket } = (request ?? {}) as { ip?: unknown; socket?: { remoteAddress?: unknown } };
    const address = ip ?? socket?.remoteAddress;
    return typeof address === 'string' ? `address ${address.slice(0, 100)}` : undefined;
  } catch {
    return undefined; // what stands in msg.req is no request
  }
}
