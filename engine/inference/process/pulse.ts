/**
 * A thread of the inference process that writes a byte a second to the process that started it: a sign of life,
 * also during a run that keeps the main thread for minutes. When nobody is left to read it, the process ends at
 * once: its main thread would notice only after the run.
 */
import { writeSync } from 'node:fs';

/** The pipe that child.ts opens. */
const PIPE = 4;
const INTERVAL = 1000;

function beat(): void {
  try {
    writeSync(PIPE, '.');
  } catch (error) {
    if (['EPIPE', 'ECONNRESET'].includes((error as NodeJS.ErrnoException).code ?? ''))
      process.kill(process.pid, 'SIGKILL');
  }
}

beat();
setInterval(beat, INTERVAL);
