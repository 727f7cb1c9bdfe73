/**
 * Pixels on their way between the processes. Whoever takes a message of fifty megabytes stands still meanwhile, so they
 * cross in pieces, ahead of the message that they belong to.
 */

/** Bytes of a piece; fewer stay in their message. */
const PIECE = 2 ** 18;

/** Some of the pixels of the request or the answer with this id. */
export interface Piece {
  type: 'piece';
  id: number;
  at: number;
  /** How many bytes there are in all. */
  of: number;
  bytes: Uint8Array;
}

/**
 * Takes the pixels out of a body that holds many.
 * @returns the pieces, in their order, and what is left of the body
 */
export function cutPixels<T extends object>(id: number, body: T): { pieces: Piece[]; rest: T } {
  const { pixels } = body as { pixels?: Uint8Array };
  if (!(pixels instanceof Uint8Array) || pixels.length <= PIECE) return { pieces: [], rest: body };
  const pieces: Piece[] = [];
  for (let at = 0; at < pixels.length; at += PIECE)
    pieces.push({ type: 'piece', id, at, of: pixels.length, bytes: pixels.subarray(at, at + PIECE) });
  return { pieces, rest: { ...body, pixels: undefined } };
}

/** Pieces of which the message has not come yet. */
export class Pieces {
  private readonly pixels = new Map<number, Uint8Array>();

  take({ id, at, of, bytes }: Piece): void {
    let whole = this.pixels.get(id);
    if (!whole) this.pixels.set(id, (whole = new Uint8Array(of)));
    whole.set(bytes, at);
  }

  /** Puts the pixels back into the body, if they were taken out. */
  join<T>(id: number, body: T): T {
    const pixels = this.pixels.get(id);
    this.pixels.delete(id);
    return pixels ? { ...body, pixels } : body;
  }

  drop(id: number): void {
    this.pixels.delete(id);
  }

  clear(): void {
    this.pixels.clear();
  }
}
