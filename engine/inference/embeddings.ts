/** Which embeddings a process holds: they cross once for each content and process, and requests name them by a key. */
import { createHash } from 'node:crypto';
import { InvalidInputError } from '../errors';
import { Tensor } from '../tensor';
import type { ToProcess, WireTensor } from './protocol';

/** Bytes of embeddings that a process keeps. */
const HELD_BYTES = 256 * 2 ** 20;

const keys = new WeakMap<ArrayBuffer, string>();

/** The key by which requests name embeddings: the same for the same content, in every process. */
export function embeddingsKey({ dtype, dims, buffer }: Tensor): string {
  let key = keys.get(buffer);
  if (!key) {
    key = createHash('sha1')
      .update(`${dtype} ${dims.join('x')} `)
      .update(new Uint8Array(buffer))
      .digest('base64');
    keys.set(buffer, key);
  }
  return key;
}

/** What one process holds. */
export class HeldEmbeddings {
  /** Bytes by key, least recently used first. */
  private readonly held = new Map<string, number>();

  constructor(private readonly post: (message: ToProcess) => void) {}

  /**
   * Makes sure that the process holds these embeddings.
   * @param tensor [1, L, D], float32 or float16
   * @returns their key
   * @throws InvalidInputError when it is no such tensor
   */
  hold(tensor: Tensor): string {
    const key = embeddingsKey(tensor);
    if (!this.held.has(key)) {
      const { dtype, dims, data } = Tensor.from(tensor, 'embeddings');
      if (dtype !== 'float32' && dtype !== 'float16')
        throw new InvalidInputError('embeddings.dtype', dtype, 'float32 or float16');
      this.post({ type: 'hold', key, tensor: { dtype, dims, data } as WireTensor });
    }
    this.held.delete(key);
    this.held.set(key, tensor.buffer.byteLength);
    return key;
  }

  /** Drops the oldest beyond what a process keeps; to be called when everything that a request names has been held. */
  dropOldest(): void {
    let bytes = [...this.held.values()].reduce((sum, size) => sum + size, 0);
    for (const [key, size] of this.held) {
      if (bytes <= HELD_BYTES) return;
      this.post({ type: 'drop', key });
      this.held.delete(key);
      bytes -= size;
    }
  }
}
