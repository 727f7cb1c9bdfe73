/**
 * npm run evaluate [-- --json] [--layouts N] [--strategies a,b] …: how well each way to draw puts the things that are asked for into
 * their boxes. docs/evaluation.md says what the figures mean.
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import {
  CancelledError,
  openCheckpoint,
  SAMPLER_OPTIONS,
  type SamplerOptions,
  usualGuidanceScale,
} from '../dist/engine';
import { readLayout } from '../dist/engine/checkpoint/layout';
import { readModelFacts } from '../dist/engine/checkpoint/model-facts';
import { physicalCores } from '../dist/engine/cpu';
import { Gallery, type Looked, type Task } from './evaluate/gallery';
import { CHANGED, FILL } from './evaluate/geometry';
import { openJudge } from './evaluate/judge';
import { makeLayouts, SMALL } from './evaluate/layouts';
import { hashSampler, type Settings } from './evaluate/painter';
import {
  betterThanDefault,
  type Pair,
  putTable,
  type Row,
  SMALL_BOXES,
  summarise,
  toPairs,
  toTable,
} from './evaluate/report';
import { joinSheets, makeSheet, type SheetColumn } from './evaluate/sheet';
import { chooseStrategies, isDefault, SCENE_ALONE, type Strategy } from './evaluate/strategies';

const root = path.join(__dirname, '..');
const USAGE = `Usage: npm run evaluate [-- OPTIONS]

  --layouts N        how many layouts (default: 60)
  --first N          the first of them (default: 0); to try settings on others than the table's, such as 1000
  --strategies a,b   only these (default: all), or others: what differs from the paper, joined by "+", such as centred+white+40%
  --steps N          steps of each picture (default: ${SAMPLER_OPTIONS.steps.default})
  --guidance X       guidance scale (default: the model's)
  --scheduler NAME   (default: the checkpoint's)
  --model FOLDER     the checkpoint (default: the bundled one)
  --before FOLDER    another checkpoint, such as the one before a training: the defaults with both, side by side, in before-after.md and
                     before-after.png
  --judge FOLDER     with judge.onnx and labels.json (default: training/judge)
  --minutes M        stop drawing after this long and report what there is
  --workers N        pictures that are drawn at a time (default: one a core)
  --out DIR          where pictures, sheets and figures go (default: .work/evaluation); pictures that lie there
                     are not drawn again
  --json             figures as JSON on stdout
  --write            put the table into README.md and docs/evaluation.md, all figures into docs/evaluation.json
                     and the sheet into docs/images/evaluation.png; with --before also docs/images/before-after.png`;

const SHOWN_LAYOUTS = 9;
const SHOWN_STRATEGIES = [
  'plain',
  'none',
  'paper',
  '60%',
  'centred',
  'centred+40%',
  'centred+60%',
  'centred+80%',
  'growing',
];

const { values: cli } = parseArgs({
  options: {
    layouts: { type: 'string', default: '60' },
    first: { type: 'string', default: '0' },
    strategies: { type: 'string' },
    steps: { type: 'string', default: String(SAMPLER_OPTIONS.steps.default) },
    guidance: { type: 'string' },
    scheduler: { type: 'string', default: SAMPLER_OPTIONS.scheduler.default },
    model: { type: 'string', default: path.join(root, 'models', 'pocket') },
    before: { type: 'string' },
    judge: { type: 'string', default: path.join(root, 'training', 'judge') },
    minutes: { type: 'string' },
    workers: { type: 'string', default: String(physicalCores()) },
    out: { type: 'string', default: path.join(root, '.work', 'evaluation') },
    json: { type: 'boolean' },
    write: { type: 'boolean' },
    help: { type: 'boolean', short: 'h' },
  },
});

// npm changes into the package's folder; paths are meant from where the user is.
const resolve = (folder: string): string => path.resolve(process.env.INIT_CWD ?? process.cwd(), folder);

function positive(name: 'guidance' | 'minutes'): number {
  const value = Number(cli[name]);
  if (!(value > 0)) throw new Error(`--${name} is ${cli[name]}; it should be a number, more than 0.`);
  return value;
}

function whole(name: 'layouts' | 'first' | 'steps' | 'workers', least = 1): number {
  const value = Number(cli[name]);
  if (!Number.isInteger(value) || value < least)
    throw new Error(`--${name} is ${cli[name]}; it should be a whole number, ${least} or more.`);
  return value;
}

/** Draws what isn't there yet; returns the seconds a picture took. */
async function drawAll(
  model: string,
  threads: number,
  workers: number,
  tasks: Task[],
  stop: AbortController,
): Promise<number> {
  if (tasks.length === 0) return NaN;
  const started = performance.now();
  let [next, done] = [0, 0];
  const work = async (): Promise<void> => {
    const checkpoint = await openCheckpoint(model, { provider: 'cpu', threads });
    try {
      while (next < tasks.length && !stop.signal.aborted) {
        await tasks[next++](checkpoint);
        done++;
        const seconds = (performance.now() - started) / 1000;
        if (done % 10 === 0 || done === tasks.length) {
          console.error(
            `${done} of ${tasks.length} pictures, ${(seconds / done).toFixed(2)} s each, ` +
              `${Math.ceil(((tasks.length - done) * seconds) / done / 60)} min left`,
          );
        }
      }
    } catch (error) {
      if (!(error instanceof CancelledError)) {
        stop.abort();
        throw error;
      }
    } finally {
      await checkpoint.close();
    }
  };
  await Promise.all(Array.from({ length: Math.min(workers, tasks.length) }, work));
  return (performance.now() - started) / 1000 / done;
}

async function main(): Promise<void> {
  if (cli.help) return console.log(USAGE);
  const layouts = makeLayouts(whole('layouts'), whole('first', 0));
  const smallLayouts = makeLayouts(layouts.length, layouts[0].index, SMALL);
  const strategies = chooseStrategies(cli.strategies);
  const [model, judgeFolder, out] = [cli.model, cli.judge, cli.out].map(resolve);
  const usual = usualGuidanceScale(readModelFacts(await readLayout(model), 'cpu'));
  const settings: Settings = {
    steps: whole('steps'),
    guidanceScale: cli.guidance === undefined ? usual : positive('guidance'),
    scheduler: cli.scheduler as SamplerOptions['scheduler'],
  };
  const workers = whole('workers');
  const judge = await openJudge(judgeFolder, physicalCores());

  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort());
  if (cli.minutes) setTimeout(() => stop.abort(), positive('minutes') * 60_000).unref();

  const sampler = hashSampler(path.join(root, 'dist', 'engine'));
  const galleryOf = (folder: string): Gallery => new Gallery(folder, out, sampler, settings, stop.signal);
  const drawWith = (folder: string, tasks: Task[]): Promise<number> =>
    drawAll(folder, Math.max(1, Math.floor(physicalCores() / workers)), workers, tasks, stop);

  const gallery = galleryOf(model);
  const byDefault = strategies.find((strategy) => isDefault(strategy, settings.guidanceScale, usual));
  const secondsPerPicture = await drawWith(model, [
    ...gallery.missing(strategies, layouts),
    ...(byDefault ? gallery.missing([byDefault], smallLayouts) : []),
  ]);

  const columns: Array<SheetColumn & Looked & { strategy: Strategy }> = [];
  for (const strategy of [SCENE_ALONE, ...strategies]) {
    const looked = await gallery.look(judge, strategy, layouts);
    if (looked.seen.size) columns.push({ strategy, title: strategy.name, ...looked });
  }
  const reference = columns.find(({ strategy }) => strategy === byDefault);
  const rows: Row[] = columns.map((column) =>
    summarise(column.strategy, column === reference, column.seen, column === reference ? undefined : reference?.seen),
  );
  const small = byDefault && { title: 'small boxes', ...(await gallery.look(judge, byDefault, smallLayouts)) };
  const smallRow = small?.seen.size ? summarise(byDefault!, true, small.seen) : undefined;
  const results = {
    model: { name: path.basename(model), sha256: gallery.hash },
    judge: {
      sha256: createHash('sha256')
        .update(fs.readFileSync(path.join(judgeFolder, 'judge.onnx')))
        .digest('hex'),
    },
    settings,
    measures: { changedFrom: CHANGED, boxFillsOfCrop: FILL },
    layouts: layouts.length,
    cpu: `${os.cpus()[0].model}, ${physicalCores()} cores`,
    ...(Number.isFinite(secondsPerPicture) && { secondsPerPicture: Number(secondsPerPicture.toFixed(2)) }),
    strategies: rows,
    ...(smallRow && { smallBoxes: smallRow }),
  };

  fs.mkdirSync(out, { recursive: true });
  const table = toTable(rows, smallRow);
  const shown = SHOWN_STRATEGIES.flatMap((name) => columns.filter(({ title }) => title === name));
  const sheets: Array<[string, Buffer]> = [
    ['sheet.png', await makeSheet(layouts, columns, { tile: 128 })],
    ['evaluation.png', await makeSheet(layouts.slice(0, SHOWN_LAYOUTS), shown, { tile: 112, palette: true })],
    ...(small?.seen.size
      ? [['small-boxes.png', await makeSheet(smallLayouts, [small], { tile: 128 })] satisfies [string, Buffer]]
      : []),
  ];
  for (const [name, bytes] of sheets) fs.writeFileSync(path.join(out, name), bytes);
  const json = `${JSON.stringify(results, null, 2)}\n`;
  fs.writeFileSync(path.join(out, 'evaluation.json'), json);
  fs.writeFileSync(path.join(out, 'table.md'), `${table}\n`);
  if (cli.before) {
    if (!byDefault) throw new Error('--before needs the default strategy among --strategies.');
    const before = galleryOf(resolve(cli.before));
    await drawWith(
      before.model,
      [layouts, smallLayouts].flatMap((of) => before.missing([byDefault], of)),
    );
    const pairs: Pair[] = [];
    const shownPairs: Buffer[] = [];
    for (const [title, of] of [
      ['boxes of a quarter to three fifths', layouts],
      [SMALL_BOXES, smallLayouts],
    ] as const) {
      const [old, now] = [await before.look(judge, byDefault, of), await gallery.look(judge, byDefault, of)];
      const beside = [
        { title: 'before', ...old },
        { title: 'after', ...now },
      ];
      const sheet = await makeSheet(of, beside, { tile: 128 });
      fs.writeFileSync(path.join(out, of === layouts ? 'before-after.png' : 'before-after-small.png'), sheet);
      shownPairs.push(await makeSheet(of.slice(0, SHOWN_LAYOUTS), beside, { tile: 112 }));
      pairs.push({
        title,
        before: summarise(byDefault, true, old.seen),
        after: summarise(byDefault, false, now.seen, old.seen),
      });
    }
    const table = toPairs(pairs);
    fs.writeFileSync(path.join(out, 'before-after.md'), `${table}\n`);
    fs.writeFileSync(path.join(out, 'before-after-shown.png'), await joinSheets(shownPairs));
    console.error(table);
  }
  if (cli.write) {
    for (const name of ['README.md', path.join('docs', 'evaluation.md')]) {
      const file = path.join(root, name);
      fs.writeFileSync(file, putTable(fs.readFileSync(file, 'utf8'), table));
    }
    fs.writeFileSync(path.join(root, 'docs', 'evaluation.json'), json);
    const images = path.join(root, 'docs', 'images');
    fs.writeFileSync(path.join(images, 'evaluation.png'), sheets[1][1]);
    if (cli.before) fs.copyFileSync(path.join(out, 'before-after-shown.png'), path.join(images, 'before-after.png'));
  }
  console.error(`Figures, sheets and pictures are in ${out}.`);
  for (const { title } of betterThanDefault(rows)) console.error(`Better than the sampler's defaults: ${title}.`);
  console.log(cli.json ? JSON.stringify(results, null, 2) : table);
}

main().then(
  () => process.exit(0),
  (error: Error) => {
    console.error(error.message);
    process.exit(1);
  },
);
