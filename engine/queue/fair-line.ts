/**
 * Who is next: higher priority first; within a priority the clients take turns, each with its oldest. So a client that asks for one
 * picture waits for one of each other client's, and not for all thirty of somebody's. What nobody in particular asked for
 * counts as one client's, in the order of asking.
 */
export interface InLine {
  readonly priority: number;
  readonly client?: string;
}

/** The clients of one priority in the order of their turns, each with what it asked for, oldest first; none is empty. */
type Waiting<T> = Map<string | undefined, T[]>;

export class FairLine<T extends InLine> {
  private readonly priorities = new Map<number, Waiting<T>>();
  private ordered: T[] | undefined;

  /** All that wait, in the order in which they would come up if nobody joined. */
  get all(): readonly T[] {
    return (this.ordered ??= this.inDescendingPriority().flatMap(([, turns]) => inTurn([...turns.values()])));
  }

  get length(): number {
    return this.all.length;
  }

  add(one: T): void {
    const { priority, client } = one;
    const turns = this.priorities.get(priority) ?? new Map<string | undefined, T[]>();
    this.priorities.set(priority, turns);
    turns.set(client, [...(turns.get(client) ?? []), one]);
    this.ordered = undefined;
  }

  /** Takes the next one out; its client's next turn comes after everybody else's. */
  shift(): T | undefined {
    const [next] = this.all;
    if (!next) return undefined;
    this.remove(next);
    const turns = this.priorities.get(next.priority);
    const others = turns?.get(next.client);
    if (turns && others) {
      turns.delete(next.client);
      turns.set(next.client, others);
    }
    return next;
  }

  remove(one: T): void {
    const turns = this.priorities.get(one.priority);
    const others = turns?.get(one.client)?.filter((other) => other !== one) ?? [];
    if (others.length > 0) turns?.set(one.client, others);
    else turns?.delete(one.client);
    if (turns?.size === 0) this.priorities.delete(one.priority);
    this.ordered = undefined;
  }

  private inDescendingPriority(): Array<[number, Waiting<T>]> {
    return [...this.priorities].sort(([a], [b]) => b - a);
  }
}

/** The first of each, then the second of each, and so on. */
function inTurn<T>(lists: T[][]): T[] {
  const all: T[] = [];
  for (let round = 0; lists.length > 0; round++) {
    all.push(...lists.map((list) => list[round]));
    lists = lists.filter((list) => list.length > round + 1);
  }
  return all;
}
