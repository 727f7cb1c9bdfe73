/** Connections to a pool's Redis, which is asked first whether it is fit to hold jobs. ioredis is loaded with the first of them. */
import { isIP } from 'node:net';
import type { Redis, RedisOptions } from 'ioredis';
import { Flaw, InvalidInputError, MultiDiffusionError } from '../errors';

export interface RedisAddress {
  /** redis://[user:password@]host[:port][/database], or rediss:// for TLS. */
  url: string;
  /** PEM of the authorities that a TLS server may be certified by; default: those that Node.js knows. */
  ca?: string;
}

/** The first version with all that is used here. */
const OLDEST = [6, 2];
const CONNECT_TIMEOUT = 5000;
/** Longer than any blocking command takes. A network that was cut says nothing: this is when it is noticed. */
const SILENCE = 12_000;
const LONGEST_PAUSE = 2000;

/** @throws InvalidInputError; its text doesn't show the address, which may hold a password */
export function checkAddress({ url }: RedisAddress): URL {
  const wrong = (why: string): InvalidInputError =>
    new InvalidInputError(
      'redis',
      new Flaw(why),
      'redis://host:port, or rediss:// for TLS, with user:password@ before the host',
    );
  let address: URL;
  try {
    address = new URL(url);
  } catch {
    throw wrong(url ? 'not an address' : 'empty');
  }
  if (address.protocol !== 'redis:' && address.protocol !== 'rediss:') throw wrong('another kind of address');
  if (!address.hostname) throw wrong('without a host');
  if (!/^(\/\d{0,5})?$/.test(address.pathname)) throw wrong('with a database that is no number');
  return address;
}

/** Host and port, without user and password. */
export function describeAddress(address: RedisAddress): string {
  const { hostname, port } = checkAddress(address);
  return `${hostname}:${port || 6379}`;
}

/**
 * A connection that comes back by itself; what is asked meanwhile waits. Connects when it is told to, or at the first command.
 * @throws InvalidInputError for an address that is none
 */
export async function connect(address: RedisAddress, name: string): Promise<Redis> {
  const url = checkAddress(address);
  const { Redis: Connection } = await import('ioredis');
  const options: RedisOptions = {
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: Number(url.port || 6379),
    db: Number(url.pathname.slice(1) || 0),
    ...(url.username && { username: decodeURIComponent(url.username) }),
    ...(url.password && { password: decodeURIComponent(url.password) }),
    ...(url.protocol === 'rediss:' && {
      tls: { ...(address.ca && { ca: address.ca }), ...(!isIP(url.hostname) && { servername: url.hostname }) },
    }),
    connectionName: name,
    lazyConnect: true,
    connectTimeout: CONNECT_TIMEOUT,
    socketTimeout: SILENCE,
    keepAlive: 10_000,
    // BullMQ asks for it: commands wait for the connection and do not fail.
    maxRetriesPerRequest: null,
    retryStrategy: (times) => Math.min(50 * 2 ** Math.min(times, 10), LONGEST_PAUSE),
  };
  const redis = new Connection(options);
  // Errors are followed by a new attempt; who wants to know listens, too.
  redis.on('error', () => undefined);
  return redis;
}

/**
 * Asks the server what it is.
 * @throws MultiDiffusionError REDIS_UNFIT when it is too old, or would throw jobs away when its memory is full
 */
export async function checkServer(redis: Redis): Promise<void> {
  const info = await redis.info();
  const fact = (name: string): string => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1] ?? '';
  // Valkey calls itself Redis 7.2 for those who ask Redis' version.
  const version = fact('redis_version');
  const [major, minor] = version.split('.').map(Number);
  if (!(major > OLDEST[0] || (major === OLDEST[0] && minor >= OLDEST[1]))) {
    throw new MultiDiffusionError(
      'REDIS_UNFIT',
      `The pool's Redis is version ${version.slice(0, 20) || 'unknown'}; a pool needs ${OLDEST.join('.')} or newer, or Valkey.`,
    );
  }
  const policy = fact('maxmemory_policy');
  if (Number(fact('maxmemory')) > 0 && policy !== 'noeviction') {
    throw new MultiDiffusionError(
      'REDIS_UNFIT',
      "The pool's Redis throws data away when its memory is full (maxmemory-policy is " +
        `${policy.slice(0, 30)}), and with it jobs. Set maxmemory-policy to noeviction.`,
    );
  }
}

/** What an error of the connection or of a command means; undefined for what the pool's Redis has no part in. */
export function explain(error: unknown, address: RedisAddress): MultiDiffusionError | undefined {
  if (error instanceof MultiDiffusionError) return error;
  const { message, code } = error as NodeJS.ErrnoException;
  const where = describeAddress(address);
  const refused = /\b(WRONGPASS|NOAUTH|NOPERM)\b|invalid (username-)?password|without any password configured/i;
  if (refused.test(message)) {
    const why = /NOPERM/.test(message)
      ? 'this user lacks a permission (see docs/operations.md)'
      : 'wrong user or password';
    return new MultiDiffusionError('REDIS_REFUSED', `The pool's Redis at ${where} refuses: ${why}.`);
  }
  if (/^OOM\b|\bOOM command not allowed/.test(message)) {
    return new MultiDiffusionError(
      'REDIS_FULL',
      `The memory of the pool's Redis at ${where} is full (maxmemory). Give it more, or try again later.`,
    );
  }
  const certificate = /certificate|CERT_|SELF_SIGNED|UNABLE_TO_VERIFY|wrong version number|EPROTO/i;
  if (certificate.test(`${code} ${message}`))
    return new MultiDiffusionError('REDIS_REFUSED', `No TLS with the pool's Redis at ${where}: ${clean(message)}.`);
  const network = /^(E(CONN|HOST|NET|PIPE|TIMEDOUT|AI_)|ENOTFOUND)/;
  const absent = /timed? ?out|Connection is closed|^(LOADING|READONLY|MASTERDOWN|CLUSTERDOWN)|Stream isn't writeable/i;
  if (network.test(code ?? '') || absent.test(message)) return unreachable(address, code ?? clean(message));
  return undefined;
}

/** Whether waiting may help. */
export function isPassing(trouble: MultiDiffusionError): boolean {
  return trouble.code !== 'REDIS_REFUSED' && trouble.code !== 'REDIS_UNFIT';
}

export function unreachable(address: RedisAddress, why?: string): MultiDiffusionError {
  return new MultiDiffusionError(
    'NO_REDIS',
    `The pool's Redis at ${describeAddress(address)} can't be reached${why ? ` (${why})` : ''}. It is tried again and again.`,
  );
}

const clean = (message: string): string => message.slice(0, 200).replace(/\s+/g, ' ').replace(/\.$/, '');
