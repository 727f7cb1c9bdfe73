/**
 * Files of others: a folder that somebody names may hold a pipe, a device or a link to one, and a file of any size.
 * Such a file is opened without waiting for what may never come.
 */
import { constants } from 'node:fs';
import { open, stat } from 'node:fs/promises';

/** The file is none that is read, and why; its message continues "FILE cannot be used: ". */
export class UnusableFileError extends Error {}

/** @throws UnusableFileError when there is something that is no regular file; nothing at all is no error */
export async function checkRegular(path: string): Promise<void> {
  const facts = await stat(path).catch(() => undefined);
  if (facts && !facts.isFile()) throw new UnusableFileError('it is no regular file');
}

/**
 * The file's bytes.
 * @param most bytes that it may have
 * @throws UnusableFileError when it is no regular file, or larger; otherwise what the system reports
 */
export async function readRegular(path: string, most: number): Promise<Buffer> {
  const handle = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  try {
    const facts = await handle.stat();
    if (!facts.isFile()) throw new UnusableFileError('it is no regular file');
    if (facts.size > most) throw new UnusableFileError(`it has ${facts.size} bytes, and ${most} are read at most`);
    // One byte more: it may have grown.
    const buffer = Buffer.alloc(facts.size + 1);
    let length = 0;
    while (length < buffer.length) {
      const { bytesRead } = await handle.read(buffer, length, buffer.length - length, length);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    if (length > facts.size) throw new UnusableFileError('it grows while it is read');
    return buffer.subarray(0, length);
  } finally {
    await handle.close();
  }
}
