import { atOnce, type Steps } from '../turns';

/** Remembers what was worked out from values that say everything about it. */
export class Memo {
  /** Least recently used first. */
  private readonly known = new Map<string, unknown>();

  /** @param most how many results are kept */
  constructor(private readonly most: number) {}

  /**
   * @param values what the result depends on, and what kind of result it is
   * @param make works it out; nobody may write into what it returns
   */
  recall<T>(values: readonly unknown[], make: () => T): T {
    return atOnce(
      this.recallInSteps(values, function* () {
        return make();
      }),
    );
  }

  /** As recall, of what is worked out in steps. */
  *recallInSteps<T>(values: readonly unknown[], make: () => Steps<T>): Steps<T> {
    const key = JSON.stringify(values);
    const result = this.known.has(key) ? (this.known.get(key) as T) : yield* make();
    this.known.delete(key);
    this.known.set(key, result);
    if (this.known.size > this.most) this.known.delete(this.known.keys().next().value as string);
    return result;
  }
}
