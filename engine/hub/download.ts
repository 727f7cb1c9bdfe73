/**
 * One file over HTTP. What has arrived lies in FILE.part, so that a broken download goes on where it
 * stopped, also in another process; FILE itself appears once size and hash are right.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { abortReason, MultiDiffusionError } from '../errors';
import { sizeOf } from '../files/size-of';

export interface RemoteFile {
  /** How messages call it; they never show an address, which may be signed. */
  name: string;
  url: string;
  size: number;
  /** The content's SHA-256, or its id as a git blob. */
  hash: { sha256: string } | { git: string };
}

export interface DownloadOptions {
  headers?: Record<string, string>;
  signal?: AbortSignal;
  /** Called with the bytes of this file that are there. */
  onProgress?: (received: number) => void;
  /** Milliseconds without a byte after which the connection is given up and made anew. */
  patience?: number;
  /** Milliseconds before the first new attempt; each further one waits twice as long. */
  pause?: number;
}

/** Attempts in a row that bring nothing. */
const MOST_FAILURES = 5;
const PATIENCE = 60_000;
const PAUSE = 1000;
const LONGEST_PAUSE = 60_000;

/** Another attempt may help. */
class Interruption extends Error {
  constructor(
    message: string,
    /** Milliseconds that the server asks to wait. */
    readonly wait = 0,
  ) {
    super(message);
  }
}

/** The server's answer to a request that it refuses. */
export class HttpError extends Error {
  constructor(readonly response: Response) {
    super(`HTTP ${response.status}`);
  }
}

/**
 * @throws HttpError when the server refuses the file
 * @throws MultiDiffusionError CHECKPOINT when it does not come, or comes with another size or content; FILE when it can't be written
 * @throws the signal's reason
 */
export async function downloadFile(file: RemoteFile, target: string, options: DownloadOptions = {}): Promise<void> {
  const part = `${target}.part`;
  try {
    for (let wrong = 0; ; wrong++) {
      await complete(file, part, options);
      if (await matches(file, part)) break;
      // A break in an earlier process may have left wrong bytes: once more from the start.
      await rm(part);
      if (wrong > 0)
        throw downloadError(
          `${file.name} came with the wrong content twice: its hash is not the one that its repository states`,
        );
    }
    await rename(part, target);
  } catch (error) {
    throw explainFileError(error, target);
  }
}

/** Asks until the part has its full size. */
async function complete(file: RemoteFile, part: string, options: DownloadOptions): Promise<void> {
  let failures = 0;
  for (;;) {
    const start = (await sizeOf(part)) ?? 0;
    if (start > file.size) {
      await rm(part);
      continue;
    }
    options.onProgress?.(start);
    if (start === file.size && (start > 0 || (await sizeOf(part)) !== undefined)) return;
    try {
      await receive(file, part, start, options);
    } catch (error) {
      if (options.signal?.aborted) throw abortedDownload(options.signal);
      if (!isPassing(error)) throw error;
      failures = ((await sizeOf(part)) ?? 0) > start ? 1 : failures + 1;
      if (failures === MOST_FAILURES)
        throw downloadError(`${file.name} could not be downloaded in ${MOST_FAILURES} attempts (${reasonOf(error)})`);
      const wait = (options.pause ?? PAUSE) * 2 ** (failures - 1);
      await pause(Math.min(LONGEST_PAUSE, Math.max(wait, error instanceof Interruption ? error.wait : 0)), undefined, {
        signal: options.signal,
      }).catch(() => {
        throw abortedDownload(options.signal as AbortSignal);
      });
    }
  }
}

/** One request, from byte `start` on; what arrives is appended to the part. */
async function receive(file: RemoteFile, part: string, start: number, options: DownloadOptions): Promise<void> {
  const stalled = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, stalled.signal]) : stalled.signal;
  const patience = options.patience ?? PATIENCE;
  const timer = setTimeout(() => stalled.abort(new Interruption(`nothing came for ${patience / 1000} s`)), patience);
  try {
    // Compressed on the way, it could not be resumed.
    const headers = {
      ...options.headers,
      'accept-encoding': 'identity',
      ...(start > 0 && { range: `bytes=${start}-` }),
    };
    const response = await fetch(file.url, { headers, signal });
    try {
      await append(file, part, start, response, () => timer.refresh(), options.onProgress);
    } finally {
      await response.body?.cancel().catch(() => undefined);
    }
  } catch (error) {
    throw stalled.signal.aborted ? stalled.signal.reason : error;
  } finally {
    clearTimeout(timer);
  }
}

async function append(
  file: RemoteFile,
  part: string,
  asked: number,
  response: Response,
  onChunk: () => void,
  onProgress?: (received: number) => void,
): Promise<void> {
  refuse(file, response);
  // A server that knows no ranges sends everything.
  const start = response.status === 206 ? asked : 0;
  const total = statedSize(response, start);
  if (total !== undefined && total !== file.size) {
    throw downloadError(
      `${file.name} should have ${file.size} bytes by its repository's list, and its server offers ${total}`,
    );
  }
  if (response.status === 206 && !response.headers.get('content-range')?.startsWith(`bytes ${asked}-`)) {
    await rm(part, { force: true });
    throw new Interruption('the server sent another part than was asked for');
  }
  const handle = await open(part, start > 0 ? 'a' : 'w');
  try {
    let received = start;
    for await (const chunk of (response.body ?? []) as unknown as AsyncIterable<Uint8Array>) {
      received += chunk.length;
      if (received > file.size) {
        await handle.truncate(0);
        throw downloadError(
          `${file.name} should have ${file.size} bytes by its repository's list, and its server sends more`,
        );
      }
      await handle.writeFile(chunk);
      onChunk();
      onProgress?.(received);
    }
    await handle.sync();
    if (received < file.size) throw new Interruption(`it ended after ${received} of ${file.size} bytes`);
  } finally {
    await handle.close();
  }
}

/** @throws HttpError or Interruption when the answer isn't the file */
function refuse(file: RemoteFile, response: Response): void {
  if (response.ok) return;
  const { status } = response;
  const elsewhere = response.redirected && new URL(response.url).origin !== new URL(file.url).origin;
  // A storage server that refuses was given an address that has run out: the next attempt gets a new one.
  if (status === 408 || status === 429 || status >= 500 || (elsewhere && (status === 401 || status === 403))) {
    throw new Interruption(`HTTP ${status}`, retryAfter(response));
  }
  throw new HttpError(response);
}

/** Milliseconds that a busy server asks to wait. */
export function retryAfter(response: Response): number {
  const seconds = Number(response.headers.get('retry-after') ?? 0);
  return seconds > 0 ? seconds * 1000 : 0;
}

function statedSize(response: Response, start: number): number | undefined {
  const range = /\/(\d+)$/.exec(response.headers.get('content-range') ?? '');
  if (range) return Number(range[1]);
  const length = response.headers.get('content-length');
  return length === null || response.headers.has('content-encoding') ? undefined : start + Number(length);
}

async function matches({ size, hash }: RemoteFile, part: string): Promise<boolean> {
  const [algorithm, expected] = 'sha256' in hash ? ['sha256', hash.sha256] : ['sha1', hash.git];
  const digest = createHash(algorithm);
  if ('git' in hash) digest.update(`blob ${size}\0`);
  for await (const chunk of createReadStream(part, { highWaterMark: 2 ** 20 })) digest.update(chunk as Buffer);
  return digest.digest('hex') === expected.toLowerCase();
}

/** Errors of the network, which fetch reports as TypeError or by a code. */
export function isPassing(error: unknown): boolean {
  if (error instanceof Interruption) return true;
  if (error instanceof MultiDiffusionError || error instanceof HttpError) return false;
  return (
    error instanceof TypeError ||
    /^(UND_ERR|ECONN|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|EPIPE|ENETUNREACH|EHOSTUNREACH)/.test(codeOf(error) ?? '')
  );
}

export function reasonOf(error: unknown): string {
  const cause = (error as Error).cause;
  return codeOf(cause) ?? (cause instanceof Error && cause.message ? cause.message : (error as Error).message);
}

export function abortedDownload(signal: AbortSignal): Error {
  return abortReason(signal, 'The download was cancelled.');
}

export function downloadError(what: string, cause?: unknown): MultiDiffusionError {
  return new MultiDiffusionError('CHECKPOINT', `${what}.`, { cause });
}

export function explainFileError(error: unknown, path: string): unknown {
  const reasons: Record<string, string> = {
    ENOSPC: 'the disk is full',
    EDQUOT: 'the disk quota is used up',
    EACCES: 'Node-RED may not write there',
    EPERM: 'Node-RED may not write there',
    EROFS: 'the file system is read-only',
  };
  const reason = reasons[codeOf(error) ?? ''];
  return reason ? new MultiDiffusionError('FILE', `${path} can't be written: ${reason}.`, { cause: error }) : error;
}

function codeOf(error: unknown): string | undefined {
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  return typeof code === 'string' ? code : undefined;
}
