/** npm run bench [-- --json] [--model FOLDER]: what the sampler and the nodes cost. bench/README.md says what the figures mean. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { openCheckpoint, PAPER_OPTIONS, sample, shapeMask, Tensor, type Region } from '../dist/engine';
import { applySettings, readFlow } from '../scripts/lib/flow.js';
import { startNodeRed, temporaryFolder } from '../scripts/lib/headless.js';
import { measureWiredLoop } from './wired-loop';

const root = path.join(__dirname, '..');
const { values: options } = parseArgs({
  options: { json: { type: 'boolean' }, model: { type: 'string', default: path.join(root, 'models', 'pocket') } },
});
const MODEL = path.resolve(options.model);
const RUNS = 5;
/** Milliseconds between two looks at the event loop. */
const RESOLUTION = 10;

const median = (values: number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const rounded = (value: number, digits = 2): number => Number(value.toFixed(digits));

/** A living room of a background and three regions, straight through the engine. */
async function measureSampler() {
  const checkpoint = await openCheckpoint(MODEL);
  try {
    const prompts: Array<[string, [number, number, number, number]]> = [
      ['a red sofa in a living room', [0.28, 0.48, 0.44, 0.4]],
      ['a plant in a living room', [0.02, 0.4, 0.26, 0.5]],
      ['a painting on a living room wall', [0.62, 0.06, 0.32, 0.34]],
    ];
    const background = await checkpoint.encodeConditioning('a living room');
    const regions: Region[] = [];
    for (const [prompt, box] of prompts) {
      regions.push({
        name: prompt,
        conditioning: await checkpoint.encodeConditioning(prompt),
        mask: shapeMask({ box }),
      });
    }
    const request = (seed: number) => ({ background, regions, options: { ...PAPER_OPTIONS, steps: 25, seed } });
    await sample(checkpoint, request(7));

    const shares: number[] = [];
    const totals: number[] = [];
    const perRow: number[] = [];
    let rows = { evaluated: 0, reference: 0 };
    for (let run = 0; run < RUNS; run++) {
      const unetBefore = checkpoint.unetMilliseconds;
      const started = performance.now();
      const result = await sample(checkpoint, request(8 + run)); // other colours than before: known ones cost nothing
      const total = performance.now() - started;
      const unet = checkpoint.unetMilliseconds - unetBefore;
      shares.push((100 * (total - unet)) / total);
      totals.push(total);
      perRow.push(unet / result.unetRows);
      rows = { evaluated: result.unetRows, reference: result.referenceRows };
    }
    return {
      outsideUnetPercent: rounded(median(shares)),
      milliseconds: rounded(median(totals), 0),
      millisecondsPerRow: rounded(median(perRow)),
      unetRows: rows.evaluated,
      referenceRows: rows.reference,
      rowShare: rounded(rows.evaluated / rows.reference, 3),
    };
  } finally {
    await checkpoint.close();
  }
}

/** How long the event loop of Node-RED's process is held up while the living room's whole flow runs. */
async function measureNodeRed() {
  const nodeRed = await startNodeRed({ images: temporaryFolder(), onLog: () => {} });
  const example = readFlow(path.join(root, 'examples', '02-living-room.json'));
  const { flow } = applySettings(example, { 'diffusion-model.checkpoint': 'folder', 'diffusion-model.folder': MODEL });
  await nodeRed.deploy(flow);

  const delays = async (pictures: number) => {
    const histogram = monitorEventLoopDelay({ resolution: RESOLUTION });
    histogram.enable();
    const started = performance.now();
    for (let picture = 0; picture < pictures; picture++) await nodeRed.generate(flow);
    const milliseconds = (performance.now() - started) / pictures;
    histogram.disable();
    // The histogram holds the time between two looks, which is the resolution when nothing holds them up.
    const delay = (nanoseconds: number): number => rounded(Math.max(0, nanoseconds / 1e6 - RESOLUTION));
    return {
      p50: delay(histogram.percentile(50)),
      p99: delay(histogram.percentile(99)),
      max: delay(histogram.max),
      millisecondsPerPicture: rounded(milliseconds, 0),
    };
  };
  const first = await delays(1);
  const following = await delays(RUNS);

  const size = 3 * 512 * 512;
  const message = { _msgid: 'bench', image: Tensor.float32(new Float32Array(size).fill(0.5), [3, 512, 512]) };
  const clones: number[] = [];
  for (let run = 0; run < 100; run++) {
    const started = performance.now();
    nodeRed.RED.util.cloneMessage(message);
    clones.push(performance.now() - started);
  }
  await nodeRed.stop();
  return {
    eventLoopDelay: { first, following },
    cloneMilliseconds: { median: rounded(median(clones)), max: rounded(Math.max(...clones)) },
  };
}

function measureLoading() {
  const times = Array.from({ length: RUNS }, () =>
    Number(
      execFileSync(process.execPath, [path.join(__dirname, 'load-nodes.js')], { encoding: 'utf8' })
        .trim()
        .split('\n')
        .at(-1),
    ),
  );
  return { medianMilliseconds: rounded(median(times), 0), maxMilliseconds: rounded(Math.max(...times), 0) };
}

function machine() {
  const { version } = JSON.parse(fs.readFileSync(require.resolve('onnxruntime-node/package.json'), 'utf8')) as {
    version: string;
  };
  const [{ model }] = os.cpus();
  return {
    cpu: model,
    cores: os.availableParallelism(),
    memoryGiB: rounded(os.totalmem() / 2 ** 30, 1),
    system: `${os.type()} ${os.arch()}`,
    loadBefore: rounded(os.loadavg()[0]),
    node: process.versions.node,
    onnxruntime: version,
  };
}

async function main(): Promise<void> {
  const results = {
    machine: machine(),
    model: path.basename(MODEL),
    sampler: await measureSampler(),
    nodeRed: await measureNodeRed(),
    wiredLoop: await measureWiredLoop(MODEL, RUNS),
    loading: measureLoading(),
  };
  if (options.json) return console.log(JSON.stringify(results, null, 2));

  const { sampler, nodeRed, wiredLoop, loading } = results;
  const { first, following } = nodeRed.eventLoopDelay;
  const lines: Array<[string, string, string]> = [
    ['sampler: share of its time outside UNet runs', `${sampler.outsideUnetPercent} %`, '≤ 5 %'],
    [
      "sampler: UNet rows, of the reference program's",
      `${sampler.unetRows} of ${sampler.referenceRows} (${sampler.rowShare})`,
      '≤ 0.72',
    ],
    [
      'sampler: 3 regions and background, 25 steps',
      `${sampler.milliseconds} ms, ${sampler.millisecondsPerRow} ms a row`,
      '',
    ],
    [
      'event loop delay, first picture: p50, p99, max',
      `${first.p50}, ${first.p99}, ${first.max} ms`,
      'p99 ≤ 20, max ≤ 60 ms',
    ],
    [
      'event loop delay, following ones: p50, p99, max',
      `${following.p50}, ${following.p99}, ${following.max} ms`,
      'p99 ≤ 20, max ≤ 60 ms',
    ],
    [
      'whole flow: first picture, following ones',
      `${first.millisecondsPerPicture}, ${following.millisecondsPerPicture} ms`,
      '',
    ],
    [
      'wired steps: what the loop adds',
      `${wiredLoop.costPercent} % (${wiredLoop.addedPerStepMilliseconds} ms a step)`,
      '≤ 3 %',
    ],
    [
      'clone of a message with a 3×512×512 tensor',
      `${nodeRed.cloneMilliseconds.median} ms (at most ${nodeRed.cloneMilliseconds.max})`,
      '≤ 2 ms',
    ],
    [
      'loading all nodes into Node-RED',
      `${loading.medianMilliseconds} ms (at most ${loading.maxMilliseconds})`,
      '≤ 200 ms',
    ],
  ];
  for (const [key, value] of Object.entries(results.machine)) console.log(`${key}: ${value}`);
  console.log();
  for (const [what, value, goal] of lines) console.log(`${what.padEnd(50)}${value.padEnd(34)}${goal}`);
}

main().then(
  () => process.exit(0),
  (error: Error) => {
    console.error(error);
    process.exit(1);
  },
);
