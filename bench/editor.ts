/** npm run bench:editor: what an open editor costs, as JSON. bench/README.md says what the figures mean. */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { chromium, type CDPSession, type Page } from 'playwright-core';
import { readFlow } from '../scripts/lib/flow.js';

const { values: options } = parseArgs({
  options: {
    /**
     * Pictures that fill what is bounded, before those that are measured: the run time keeps those of 50 jobs, the
     * panel shows 40, and 23 are drawn for the event loop.
     */
    before: { type: 'string', default: '40' },
    pictures: { type: 'string', default: '40' },
  },
});
const root = path.join(__dirname, '..');
/** Pictures between two looks at the memory, and for the event loop. */
const STRIDE = 10;

const GOALS = {
  reachedMilliseconds: 300,
  loopP99: 20,
  loopMax: 60,
  /** Of garbage-collected heap, a picture: less than the noise between two looks. */
  kilobytesPerPicture: 20,
};

const sorted = (values: number[]): number[] => [...values].sort((a, b) => a - b);
const median = (values: number[]): number => sorted(values)[Math.floor(values.length / 2)];
const rounded = (value: number, digits = 1): number => Number(value.toFixed(digits));
const megabytes = (bytes: number): number => rounded(bytes / 2 ** 20, 2);

interface Drawn {
  p50: number;
  p99: number;
  max: number;
  millisecondsPerPicture: number;
  encodedPerPicture: number;
}
interface Memory {
  heap: number;
  external: number;
  rss: number;
}

async function ask<T>(child: ChildProcess, order: string, value?: number): Promise<T> {
  child.send({ order, value });
  const [answer] = (await once(child, 'message')) as [T];
  return answer;
}

const loop = ({ p50, p99, max, millisecondsPerPicture, encodedPerPicture }: Drawn) => ({
  p50: rounded(p50),
  p99: rounded(p99),
  max: rounded(max),
  millisecondsPerPicture: rounded(millisecondsPerPicture, 0),
  encodedPerPicture: rounded(encodedPerPicture, 2),
});

/** The slope of a line through values at equal distances, by least squares. */
function slope(values: number[]): number {
  const middle = (values.length - 1) / 2;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const rise = values.reduce((sum, value, i) => sum + (i - middle) * (value - mean), 0);
  return rise / values.reduce((sum, _, i) => sum + (i - middle) ** 2, 0);
}

/** Node-RED's editor, with the flow's tab and the panel in view. */
async function openEditor(url: string, tab: string): Promise<{ page: Page; session: CDPSession }> {
  const executablePath = process.env.CHROMIUM_PATH ?? '/usr/bin/chromium';
  const args = ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'];
  const browser = await chromium.launch({ executablePath, args });
  const page = await browser.newPage({ viewport: { width: 1400, height: 900 } });
  // What tsx writes into functions that run in the page.
  await page.addInitScript('globalThis.__name = (named) => named');
  await page.goto(`${url}/#flow/${tab}`);
  // The end of loading selects a sidebar tab, and there is no progress to be seen before the nodes are loaded, either.
  await page.waitForSelector('.red-ui-palette-node[data-palette-type="save-image"]', { timeout: 60_000 });
  await page.waitForSelector('#red-ui-loading-progress', { state: 'hidden', timeout: 60_000 });
  await page.evaluate(() => RED.sidebar.show('multidiffusion'));
  await page.locator('.multidiffusion-panel').waitFor();
  // When each job's first picture was made, and when the panel showed one of that job.
  await page.evaluate(() => {
    interface Facts {
      id: string;
      job: string;
      time: number;
      gone?: boolean;
    }
    const made = new Map<string, number>();
    const reached: number[] = [];
    const jobs = new WeakMap<Element, string>();
    Object.assign(window, { reached });
    RED.comms.subscribe('multidiffusion/picture', (_: string, facts: Facts) => {
      if (facts.gone) return;
      if (!made.has(facts.job)) made.set(facts.job, facts.time);
      jobs.set(document.querySelector('.multidiffusion-thumbnail')!, facts.job);
    });
    const shown = (event: Event): void => {
      const job = jobs.get((event.target as Element).closest('.multidiffusion-thumbnail')!) ?? '';
      const time = made.get(job);
      if (!time) return;
      reached.push(Date.now() - time);
      made.set(job, 0);
    };
    document.querySelector('.multidiffusion-panel')!.addEventListener('load', shown, true);
  });
  return { page, session: await page.context().newCDPSession(page) };
}

async function memoryOf(session: CDPSession): Promise<{ heap: number; elements: number }> {
  // Twice: what is finalised by the first is freed by the second.
  for (let i = 0; i < 2; i++) await session.send('HeapProfiler.collectGarbage');
  const { usedSize } = await session.send('Runtime.getHeapUsage');
  const { nodes } = await session.send('Memory.getDOMCounters');
  return { heap: usedSize, elements: nodes };
}

async function main(): Promise<void> {
  // Without the debug node: what Node-RED's own sidebar keeps of its messages is not of interest here.
  const flow = readFlow(path.join(root, 'examples', '02-living-room.json')).filter(({ type }) => type !== 'debug');
  const child = fork(path.join(__dirname, 'editor-node-red.js'), [], { execArgv: ['--expose-gc'] });
  child.send({ flow });
  const [{ url }] = (await once(child, 'message')) as [{ url: string }];
  const loadBefore = rounded(os.loadavg()[0], 2);

  await ask<Drawn>(child, 'draw', 2); // loads the model
  const without = await ask<Drawn>(child, 'draw', STRIDE);
  const { page, session } = await openEditor(url, flow.find(({ type }) => type === 'tab')!.id);
  await ask<Drawn>(child, 'draw', 1);
  const withEditor = await ask<Drawn>(child, 'draw', STRIDE);

  await ask(child, 'fill', Number(options.before));
  const editor: Array<{ heap: number; elements: number }> = [];
  const nodeRed: Memory[] = [];
  const look = async (): Promise<void> => {
    await page.waitForTimeout(500);
    editor.push(await memoryOf(session));
    nodeRed.push(await ask<Memory>(child, 'memory'));
  };
  await look();
  await page.evaluate(() => ((window as unknown as { reached: number[] }).reached.length = 0));
  for (let drawn = 0; drawn < Number(options.pictures); drawn += STRIDE) {
    await ask<Drawn>(child, 'draw', STRIDE);
    await look();
  }
  const reached = await page.evaluate(() => (window as unknown as { reached: number[] }).reached);
  if (reached.length === 0) throw new Error('No picture was seen to reach the panel.');
  await page.context().browser()!.close();
  await ask<Drawn>(child, 'draw', 1);
  const closedAgain = await ask<Drawn>(child, 'draw', STRIDE);
  child.disconnect();

  const trend = (values: number[]): number => rounded(slope(values) / STRIDE / 1024);
  const results = {
    machine: { cores: os.availableParallelism(), loadBefore, node: process.version },
    goals: GOALS,
    eventLoop: { noEditor: loop(without), editorOpen: loop(withEditor), editorClosedAgain: loop(closedAgain) },
    reachesPanel: {
      pictures: reached.length,
      median: rounded(median(reached), 0),
      max: Math.max(...reached),
    },
    memory: {
      picturesBefore: Number(options.before) + 2 * STRIDE + 3,
      picturesBetween: STRIDE,
      editorHeapMegabytes: editor.map(({ heap }) => megabytes(heap)),
      editorElements: editor.map(({ elements }) => elements),
      nodeRedHeapMegabytes: nodeRed.map(({ heap }) => megabytes(heap)),
      nodeRedExternalMegabytes: nodeRed.map(({ external }) => megabytes(external)),
      nodeRedResidentMegabytes: nodeRed.map(({ rss }) => megabytes(rss)),
      kilobytesPerPicture: {
        editorHeap: trend(editor.map(({ heap }) => heap)),
        nodeRedHeap: trend(nodeRed.map(({ heap }) => heap)),
        nodeRedExternal: trend(nodeRed.map(({ external }) => external)),
      },
    },
  };
  console.log(JSON.stringify(results, null, 2));
  const { noEditor, editorOpen, editorClosedAgain } = results.eventLoop;
  const { kilobytesPerPicture } = results.memory;
  const missed = [
    reached.length < Number(options.pictures) && `${reached.length} pictures reached the panel`,
    results.reachesPanel.max > GOALS.reachedMilliseconds && `a picture took ${results.reachesPanel.max} ms`,
    editorOpen.p99 > GOALS.loopP99 && `event loop p99 ${editorOpen.p99} ms`,
    editorOpen.max > GOALS.loopMax && `event loop max ${editorOpen.max} ms`,
    // save-image encodes one file of each picture.
    [noEditor, editorClosedAgain].some(({ encodedPerPicture }) => encodedPerPicture > 1) && 'pictures for nobody',
    ...Object.entries(kilobytesPerPicture).map(
      ([what, value]) => value > GOALS.kilobytesPerPicture && `${what} grows by ${value} KB a picture`,
    ),
  ].filter(Boolean);
  for (const miss of missed) console.error(`missed: ${String(miss)}`);
  process.exitCode = missed.length > 0 ? 1 : 0;
}

main().then(
  () => process.exit(),
  (error: Error) => {
    console.error(error);
    process.exit(1);
  },
);
