/** The ids of jobs that flows may name in msg.cancel. */

/** Ids of the latest jobs of all nodes, ended ones too. */
const recent = new Set<unknown>();
const REMEMBERED = 10_000;

export function rememberJob(id: unknown): void {
  recent.delete(id);
  recent.add(id);
  for (const oldest of recent) {
    if (recent.size <= REMEMBERED) break;
    recent.delete(oldest);
  }
}

/** Whether a job of this id has been seen lately. */
export function isKnownJob(id: unknown): boolean {
  return recent.has(id);
}
