/** How many threads are worth while. */
import { readFileSync } from 'node:fs';
import os from 'node:os';

/**
 * Physical cores that this process may use, at least 1: two hardware threads of one core share its
 * arithmetic units, so that a second one on it slows inference down. Where the system doesn't tell, every
 * processor counts as a core.
 */
export function physicalCores(): number {
  const processors = os.availableParallelism();
  const cores = new Set<string>();
  try {
    for (let i = 0; i < os.cpus().length; i++) {
      cores.add(readFileSync(`/sys/devices/system/cpu/cpu${i}/topology/thread_siblings_list`, 'utf8').trim());
    }
  } catch {
    return processors;
  }
  return Math.max(1, Math.min(processors, cores.size));
}
