/**
 * Errors that users see. Each has a code (which Node-RED's Catch node hands on as error.code) and a
 * sentence that says what is wrong and what to do.
 */

export type ErrorCode =
  | 'INVALID_INPUT' // a property has the wrong type or is out of range
  | 'MISSING_INPUT' // a property that the node needs isn't there
  | 'CHECKPOINT' // the model folder is incomplete or not understood
  | 'PROVIDER' // the execution provider can't be used on this machine
  | 'INFERENCE' // the model failed while it ran
  | 'PROCESS_DIED' // the inference process ended unexpectedly
  | 'CANCELLED' // reset, redeploy or a closed request
  | 'QUEUE_FULL' // more jobs wait than the queue holds
  | 'TIMEOUT'
  | 'LIMIT' // over a limit that the administrator set
  | 'NO_REDIS' // the pool's Redis can't be reached
  | 'REDIS_REFUSED' // wrong user or password, or a permission is missing
  | 'REDIS_UNFIT' // too old, or set up so that it would lose jobs
  | 'REDIS_FULL' // it has no memory left for one more job
  | 'NO_WORKER' // no worker of the pool serves this checkpoint
  | 'VERSION_MISMATCH' // the pool's workers are of a version that this one doesn't understand
  | 'FILE'; // a file can't be read or written, or lies outside the allowed directory

const CODES: ReadonlySet<string> = new Set<ErrorCode>([
  'INVALID_INPUT',
  'MISSING_INPUT',
  'CHECKPOINT',
  'PROVIDER',
  'INFERENCE',
  'PROCESS_DIED',
  'CANCELLED',
  'QUEUE_FULL',
  'TIMEOUT',
  'LIMIT',
  'NO_REDIS',
  'REDIS_REFUSED',
  'REDIS_UNFIT',
  'REDIS_FULL',
  'NO_WORKER',
  'VERSION_MISMATCH',
  'FILE',
]);

export function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === 'string' && CODES.has(value);
}

export class MultiDiffusionError extends Error {
  constructor(
    readonly code: ErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = new.target.name;
  }

  /** Node-RED puts this into msg.error.message and the log: the sentence alone, for users don't know our classes. */
  override toString(): string {
    return this.message;
  }
}

/** A property whose value is of the wrong type or out of range: names the property, the value and what is allowed. */
export class InvalidInputError extends MultiDiffusionError {
  constructor(
    readonly property: string,
    readonly value: unknown,
    readonly allowed: string,
  ) {
    super('INVALID_INPUT', `${property} is ${show(value)}; allowed: ${allowed}.`);
  }
}

/** What is wrong with a value, in an error that would not be clearer for showing it: "is empty". */
export class Flaw {
  constructor(readonly text: string) {}
}

/** A property's name in errors. @param place what has it; '' for the message itself */
export function propertyOf(place: string, property: string): string {
  return place === '' ? property : `${place}.${property}`;
}

export class MissingInputError extends MultiDiffusionError {
  /** @param remedy what to do, a full sentence */
  constructor(
    readonly property: string,
    remedy: string,
  ) {
    super('MISSING_INPUT', `${property} is missing. ${remedy}`);
  }
}

export class CancelledError extends MultiDiffusionError {
  constructor(reason = 'The job was cancelled.') {
    super('CANCELLED', reason);
  }
}

/** @throws CancelledError when the signal is aborted, with its reason where that is an error of ours */
export function throwIfCancelled(signal?: AbortSignal): void {
  if (signal?.aborted) throw signal.reason instanceof CancelledError ? signal.reason : new CancelledError();
}

/** Why the signal was aborted: the error of ours that it names, else a CancelledError with the sentence. */
export function abortReason(signal: AbortSignal, otherwise?: string): Error {
  return signal.reason instanceof MultiDiffusionError ? signal.reason : new CancelledError(otherwise);
}

/** A short, safe picture of any value for an error message: never throws, never slow, never longer than about 80 characters. */
export function show(value: unknown): string {
  try {
    return cutShort(sketch(value, 0));
  } catch {
    return 'an object that cannot be shown';
  }
}

/** Like JSON, but looks at a few elements only: values may be huge, cyclic or hostile. */
function sketch(value: unknown, depth: number): string {
  if (value instanceof Flaw) return value.text;
  if (typeof value === 'string') return JSON.stringify(cutShort(value));
  if (typeof value === 'number' || typeof value === 'bigint' || typeof value === 'boolean' || value == null)
    return String(value);
  if (typeof value === 'function') return 'a function';
  if (typeof value === 'symbol') return 'a symbol';
  if (Buffer.isBuffer(value)) return `a Buffer of ${value.length} bytes`;
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer)
    return `${value.constructor.name} of ${value.byteLength} bytes`;
  if (Array.isArray(value)) {
    if (value.length > 16 || depth > 2) return `an array of ${value.length} elements`;
    return `[${value.map((element) => sketch(element, depth + 1)).join(',')}]`;
  }
  if (depth > 2) return '{...}';
  const names = Object.keys(value).slice(0, 10);
  const entries = names.map((name) => {
    const inside = sketch((value as Record<string, unknown>)[name], depth + 1);
    return `${JSON.stringify(cutShort(name))}:${inside}`;
  });
  return `{${entries.join(',')}}`;
}

function cutShort(text: string): string {
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
