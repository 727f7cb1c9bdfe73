/** Deploys and shutdowns in the middle of a job. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { isAlive, until } from '../unit/support/checkpoints';

const DEPLOYS = Number(process.env.DEPLOYS ?? 110);
/** Caches fill and heaps find their size at first, for longer where other programs are busy; a leak never ends. */
const MOST_DEPLOYS = 5 * DEPLOYS;
/** The latest deploys, over which memory is to be flat. */
const WATCHED = 80;
/** Bytes that a deploy may leave behind, by the trend: what is allocated once is none. */
const MOST_GROWTH = 40 * 1024;
/** Deploys of which a slope is taken. */
const PIECE = 10;

const support = (file: string): string => path.join(__dirname, 'support', file);
const median = (values: number[]): number => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];

/** The median of the slopes between all pairs (Theil and Sen). */
function slope(values: number[]): number {
  return median(values.flatMap((value, i) => values.slice(i + 1).map((later, k) => (later - value) / (k + 1))));
}

/** The median of the slopes of all pieces: memory that grows now and then, by leaps, stays flat in most of them. */
function trend(values: number[]): number {
  const pieces = Array.from({ length: Math.floor(values.length / PIECE) }, (_, i) => i * PIECE);
  return median(pieces.map((start) => slope(values.slice(start, start + PIECE))));
}

interface Deploy {
  pid: number;
  depth: number;
  listeners: number;
  handles: Record<string, number>;
  memory: Record<string, number>;
}

describe('deploys', function () {
  this.timeout(120_000 + MOST_DEPLOYS * 2000);

  it(`${DEPLOYS} in the middle of a job: an answer to each message that gets one, one model, flat memory`, async () => {
    // A Node-RED by itself: the one of the other tests remembers every call of a node.
    const nodeRed = spawn(process.execPath, ['--expose-gc', support('deploying.js')], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const deploys: Deploy[] = [];
    let answers: string[] = [];
    let grown: string[] = [];
    let ended = false;
    const memoryOf = (whose: string): number[] => deploys.map(({ memory }) => memory[whose]);
    const growing = (): string[] =>
      Object.keys(deploys[0].memory).filter((whose) => trend(memoryOf(whose).slice(-WATCHED)) >= MOST_GROWTH);
    for await (const line of createInterface(nodeRed.stdout)) {
      const said = JSON.parse(line) as Deploy & { answers?: string[] };
      if (said.answers) answers = said.answers;
      else deploys.push(said);
      // A few more may be under way by the time that it hears of it.
      if (ended || deploys.length < DEPLOYS) continue;
      grown = growing();
      ended = grown.length === 0 || deploys.length >= MOST_DEPLOYS;
      if (ended) nodeRed.kill('SIGUSR2');
    }
    if (nodeRed.exitCode === null) await once(nodeRed, 'exit');
    assert.equal(nodeRed.exitCode, 0);
    assert.ok(deploys.length >= DEPLOYS, `${deploys.length} deploys`);
    assert.deepEqual(
      answers,
      deploys.map((_, i) => `new ${i}`),
    );
    assert.equal(new Set(deploys.map(({ pid }) => pid)).size, 1, 'the model was loaded again');
    assert.ok(!isAlive(deploys[0].pid), 'the inference process outlived Node-RED');
    for (const { depth, listeners, handles } of deploys.slice(1)) {
      assert.deepEqual({ depth, listeners }, { depth: 0, listeners: 0 });
      assert.deepEqual(handles, deploys[1].handles);
    }
    for (const whose of grown) {
      const shown = memoryOf(whose).filter((_, i) => i % 10 === 0);
      assert.fail(`${whose} grows: ${shown.map((bytes) => (bytes / 2 ** 20).toFixed(1)).join(', ')} MB`);
    }
  });

  it('growth is seen whatever jumps once, and jumps are no growth', () => {
    const flat = Array.from({ length: 90 }, (_, i) => 114e6 + 5e4 * Math.sin(7 * i) + (i > 40 ? 7e6 : 0));
    assert.ok(trend(flat) < MOST_GROWTH, String(trend(flat)));
    const leaking = flat.map((value, i) => value + 2 * MOST_GROWTH * i);
    assert.ok(trend(leaking) > MOST_GROWTH, String(trend(leaking)));
  });

  const ends: Array<[string, NodeJS.Signals, (pid: number) => void]> = [
    ['SIGTERM for Node-RED', 'SIGTERM', () => {}],
    ['SIGTERM for Node-RED, whose inference process hangs,', 'SIGTERM', (pid) => process.kill(pid, 'SIGSTOP')],
    ['SIGKILL for Node-RED', 'SIGKILL', () => {}],
    ['SIGKILL for Node-RED, whose inference process hangs,', 'SIGKILL', (pid) => process.kill(pid, 'SIGSTOP')],
  ];
  for (const [what, signal, before] of ends) {
    it(`${what} in the middle of a job ends it within 15 seconds and leaves no inference process behind`, async () => {
      const nodeRed = spawn(process.execPath, [support('left-running.js')], { stdio: ['ignore', 'pipe', 'inherit'] });
      let pid = 0;
      try {
        const [line] = (await once(nodeRed.stdout, 'data')) as [Buffer];
        pid = Number(String(line).split('\n')[0]);
        assert.ok(pid > 0 && isAlive(pid), String(line));
        before(pid);
        nodeRed.kill(signal);
        await until(() => nodeRed.exitCode !== null || nodeRed.signalCode !== null, 'Node-RED ends', 15);
        await until(() => !isAlive(pid), 'the inference process ends', 15);
      } finally {
        nodeRed.kill('SIGKILL');
        if (pid && isAlive(pid)) process.kill(pid, 'SIGKILL');
      }
    });
  }
});
