/** The bytes of tensors in a pool's Redis: named by their content, each with an expiry. */
import type { Redis } from 'ioredis';
import { MultiDiffusionError } from '../errors';
import { checkBytes, type Blobs, type Reference } from './codec';
import { TIMES } from './schema';

/** Bytes that are kept of what came last, so that embeddings and masks are fetched once. */
const KEPT_BYTES = 128 * 2 ** 20;
/** What was sent this long ago is sure to be there still. */
const SURE = TIMES.kept / 3;
const MOST_SENT = 20_000;

/** Bytes that a job refers to and that are no longer there: the client sends them again. */
export class MissingBlobs extends Error {}

export class BlobStore {
  /** When bytes were sent, or seen to be there. */
  private readonly sent = new Map<string, number>();
  private readonly kept = new Map<string, ArrayBuffer>();
  private keptBytes = 0;

  constructor(
    private readonly redis: Redis,
    private readonly keyOf: (hash: string) => string,
  ) {}

  /** Makes sure that all of them are there; those that others have sent don't cross again. @returns bytes that crossed */
  async put(blobs: Blobs): Promise<number> {
    const now = Date.now();
    const unsure = [...blobs.keys()].filter((hash) => now - (this.sent.get(hash) ?? 0) > SURE);
    if (unsure.length === 0) return 0;
    // A key that is there lives on; PEXPIRE says whether it is.
    const there = await batch(this.redis, (pipeline) => {
      for (const hash of unsure) pipeline.pexpire(this.keyOf(hash), TIMES.kept);
    });
    const missing = unsure.filter((_, i) => there[i] !== 1);
    await batch(this.redis, (pipeline) => {
      for (const hash of missing) pipeline.set(this.keyOf(hash), toBuffer(blobs.get(hash)!), 'PX', TIMES.kept);
    });
    for (const hash of unsure) this.note(hash, now);
    return missing.reduce((sum, hash) => sum + blobs.get(hash)!.byteLength, 0);
  }

  /**
   * @throws MissingBlobs when one has expired
   * @throws MultiDiffusionError INFERENCE when one is not what its name says
   */
  async get(references: Reference[]): Promise<Map<string, ArrayBuffer>> {
    const found = new Map<string, ArrayBuffer>();
    for (const { hash } of references) {
      const bytes = this.kept.get(hash);
      if (bytes) found.set(hash, bytes);
    }
    const wanted = references.filter(({ hash }) => !found.has(hash));
    for (const [hash, bytes] of await fetchAll(this.redis, wanted, this.keyOf, true)) found.set(hash, bytes);
    for (const { hash } of references) this.keep(hash, found.get(hash)!);
    return found;
  }

  /** Forgets what was sent, because the jobs that refer to it did not find it. */
  forget(hashes: Iterable<string>): void {
    for (const hash of hashes) this.sent.delete(hash);
  }

  /** Notes what somebody else has just sent. */
  noteSent(hashes: Iterable<string>): void {
    for (const hash of hashes) this.note(hash, Date.now());
  }

  private note(hash: string, when: number): void {
    this.sent.delete(hash);
    this.sent.set(hash, when);
    if (this.sent.size > MOST_SENT) this.sent.delete(this.sent.keys().next().value!);
  }

  private keep(hash: string, bytes: ArrayBuffer): void {
    if (this.kept.delete(hash)) this.keptBytes -= bytes.byteLength;
    if (bytes.byteLength > KEPT_BYTES / 8) return;
    this.kept.set(hash, bytes);
    this.keptBytes += bytes.byteLength;
    for (const [oldest, { byteLength }] of this.kept) {
      if (this.keptBytes <= KEPT_BYTES) return;
      this.kept.delete(oldest);
      this.keptBytes -= byteLength;
    }
  }
}

/**
 * Bytes by their names, checked; no more is read than a reference says.
 * @param refresh whether they are to live on
 * @throws MissingBlobs, MultiDiffusionError INFERENCE
 */
export async function fetchAll(
  redis: Redis,
  references: Reference[],
  keyOf: (hash: string) => string,
  refresh = false,
): Promise<Map<string, ArrayBuffer>> {
  const found = new Map<string, ArrayBuffer>();
  if (references.length === 0) return found;
  const answers = (await batch(redis, (pipeline) => {
    for (const { hash, bytes } of references) {
      pipeline.getrangeBuffer(keyOf(hash), 0, bytes);
      if (refresh) pipeline.pexpire(keyOf(hash), TIMES.kept);
    }
  })) as Buffer[];
  references.forEach((reference, i) => {
    const data = answers[refresh ? 2 * i : i];
    if (data.byteLength === 0 && reference.bytes > 0) throw new MissingBlobs(reference.hash);
    checkBytes(reference, data);
    const own = data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength);
    found.set(reference.hash, own as ArrayBuffer);
  });
  return found;
}

/** Sends several commands at once. @throws the first error among the answers */
export async function batch(redis: Redis, fill: (pipeline: ReturnType<Redis['pipeline']>) => void): Promise<unknown[]> {
  const pipeline = redis.pipeline();
  fill(pipeline);
  if (pipeline.length === 0) return [];
  const answers = await pipeline.exec();
  if (!answers) throw new MultiDiffusionError('NO_REDIS', "The pool's Redis did not answer.");
  for (const [error] of answers) if (error) throw error;
  return answers.map(([, answer]) => answer);
}

export function toBuffer({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength);
}
