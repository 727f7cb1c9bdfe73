/** npm run bench:gpu: what UNet rows, the sampler and memory cost on one device. bench/gpu/README.md tells how to repeat it. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import {
  openCheckpoint,
  PAPER_OPTIONS,
  sample,
  shapeMask,
  torchNoise,
  type Checkpoint,
  type CheckpointOptions,
  type Region,
  type Tensor,
} from '../../dist/engine';

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: path.join(__dirname, '../../models/pocket') },
    provider: { type: 'string', default: 'auto' },
    device: { type: 'string', default: '0' },
    size: { type: 'string' },
    steps: { type: 'string', default: '50' },
    runs: { type: 'string', default: '5' },
    batches: { type: 'string', default: '1,2,4,8' },
    regions: { type: 'string', default: '3,0,1,2,4,6' },
    'library-path': { type: 'string' },
    compare: { type: 'string' },
    json: { type: 'boolean' },
  },
});
const RUNS = Number(values.runs);
const numbers = (list: string): number[] => list.split(',').map(Number);
const BATCHES = numbers(values.batches);
/** How many regions the picture has of which the median is taken; then those that are drawn once. */
const [REGIONS, ...MORE_REGIONS] = numbers(values.regions);
const WORDS = ['a red sofa', 'a plant', 'a painting', 'a dog', 'a cat', 'a lamp'];
const BOXES: Array<[number, number, number, number]> = [
  [0.05, 0.5, 0.3, 0.45],
  [0.35, 0.5, 0.3, 0.45],
  [0.65, 0.5, 0.3, 0.45],
  [0.05, 0.05, 0.3, 0.4],
  [0.35, 0.05, 0.3, 0.4],
  [0.65, 0.05, 0.3, 0.4],
];

const open = (provider: string, model = values.model): Promise<Checkpoint> =>
  openCheckpoint(path.resolve(model), {
    provider,
    deviceId: Number(values.device),
    libraryPath: values['library-path'],
  } as CheckpointOptions);
const median = (list: number[]): number => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];
const rounded = (value: number, digits = 2): number => Number(value.toFixed(digits));

/** `count` rows of different noise under different words. */
async function makeRows(checkpoint: Checkpoint, count: number, size: number) {
  const cells = size / checkpoint.facts.latentFactor;
  const prompts = await checkpoint.encodePrompts(Array.from({ length: count }, (_, i) => WORDS[i % WORDS.length]));
  return prompts.map(({ embeddings, pooled }, i) => ({
    latents: torchNoise(i, [1, checkpoint.facts.latentChannels, cells, cells]),
    embeddings,
    pooled,
  }));
}

/** Milliseconds of a UNet row, by how many the caller asks for at once. */
async function measureRows(checkpoint: Checkpoint, size: number) {
  const results = [];
  for (const batch of BATCHES) {
    const rows = await makeRows(checkpoint, batch, size);
    await checkpoint.predict(rows, 500);
    const perRow: number[] = [];
    for (let run = 0; run < Math.max(1, RUNS); run++) {
      const before = checkpoint.unetMilliseconds;
      await checkpoint.predict(rows, 500);
      perRow.push((checkpoint.unetMilliseconds - before) / batch);
    }
    results.push({ batch, millisecondsPerRow: rounded(median(perRow)), memoryMegabytes: memoryOf(checkpoint) });
  }
  return results;
}

/**
 * The largest difference from the CPU's output, relative to its largest value.
 * @param folder the model that the CPU runs: the same, or the one that this was made of where a CPU can't run it
 */
async function compareWithCpu(checkpoint: Checkpoint, size: number, folder: string): Promise<number> {
  const cpu = await open('cpu', folder);
  try {
    const [here] = await checkpoint.predict(await makeRows(checkpoint, 1, size), 500);
    const [there] = await cpu.predict(await makeRows(cpu, 1, size), 500);
    const largest = there.data.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    return here.data.reduce((most, value, i) => Math.max(most, Math.abs(value - there.data[i])), 0) / largest;
  } finally {
    await cpu.close();
  }
}

/**
 * Pictures of a background and some regions, with the paper's settings as in reference.py; the share of their time
 * that is not spent in the UNet.
 */
async function measureSampler(checkpoint: Checkpoint, size: number, regionCount: number, runs: number) {
  const regions: Region[] = [];
  for (const [i, box] of BOXES.slice(0, regionCount).entries()) {
    // Words of its own for each: regions of the same words would share rows.
    regions.push({
      name: String(box),
      conditioning: await checkpoint.encodeConditioning(WORDS[i]),
      mask: shapeMask({ box }),
    });
  }
  const request = {
    background: await checkpoint.encodeConditioning('a living room'),
    regions,
    options: { ...PAPER_OPTIONS, steps: Number(values.steps), seed: 7, width: size, height: size },
  };
  const totals: number[] = [];
  const shares: number[] = [];
  let latents: Tensor | undefined;
  let unetRows = 0;
  // The first picture also loads the VAE encoder and warms the shapes up.
  for (let run = 0; run <= runs; run++) {
    const before = checkpoint.unetMilliseconds;
    const started = performance.now();
    ({ latents, unetRows } = await sample(checkpoint, request));
    const total = performance.now() - started;
    if (run === 0 && runs > 0) continue;
    totals.push(total);
    shares.push((100 * (total - (checkpoint.unetMilliseconds - before))) / total);
  }
  const started = performance.now();
  await checkpoint.decode(latents as Tensor);
  return {
    regions: regionCount,
    unetRows,
    milliseconds: rounded(median(totals), 0),
    outsideUnetPercent: rounded(median(shares)),
    decodeMilliseconds: rounded(performance.now() - started, 0),
    memoryMegabytes: memoryOf(checkpoint),
  };
}

/** Peak of main memory on a CPU; on a GPU what its driver says that the process holds, which never shrinks. */
function memoryOf(checkpoint: Checkpoint): number | undefined {
  const { pid } = checkpoint;
  try {
    if (checkpoint.facts.provider.startsWith('cuda')) {
      const lines = execFileSync(
        'nvidia-smi',
        ['--query-compute-apps=pid,used_memory', '--format=csv,noheader,nounits'],
        { encoding: 'utf8' },
      ).split('\n');
      // Inside a container the driver may know the process by another number; then the only one is it.
      const line = lines.find((text) => text.startsWith(`${pid},`)) ?? lines[0];
      return Number(line.split(',')[1]);
    }
    return Math.round(Number(/^VmHWM:\s+(\d+)/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024);
  } catch {
    return undefined;
  }
}

function hardware(): string {
  const cpu = `${os.cpus()[0]?.model.trim()}, ${os.availableParallelism()} threads`;
  try {
    const query = ['--query-gpu=name,driver_version', '--format=csv,noheader'];
    const gpus = execFileSync('nvidia-smi', query, { encoding: 'utf8' }).trim().split('\n');
    return `${gpus.join('; ')}; ${cpu}`;
  } catch {
    return cpu;
  }
}

async function main(): Promise<void> {
  const checkpoint = await open(values.provider);
  try {
    const size = Number(values.size ?? checkpoint.facts.nativeSize);
    const result = {
      hardware: hardware(),
      node: process.version,
      onnxruntime: (
        JSON.parse(
          fs.readFileSync(path.join(__dirname, '../../node_modules/onnxruntime-node/package.json'), 'utf8'),
        ) as { version: string }
      ).version,
      model: checkpoint.facts.name,
      provider: checkpoint.facts.provider,
      size,
      steps: Number(values.steps),
      rows: await measureRows(checkpoint, size),
      ...((values.compare || !checkpoint.facts.provider.startsWith('cpu')) && {
        differenceFromCpu: await compareWithCpu(checkpoint, size, values.compare ?? values.model),
      }),
      sampler: await measureSampler(checkpoint, size, REGIONS, RUNS),
      byRegions: [] as Array<Awaited<ReturnType<typeof measureSampler>>>,
    };
    for (const regions of MORE_REGIONS) result.byRegions.push(await measureSampler(checkpoint, size, regions, 0));
    if (values.json) return console.log(JSON.stringify(result, null, 2));
    const { rows, sampler, byRegions, ...facts } = result;
    console.log(
      Object.entries(facts)
        .map(([name, value]) => `${name}: ${String(value)}`)
        .join('\n'),
    );
    console.table(rows);
    console.table([sampler]);
    console.table(byRegions);
  } finally {
    await checkpoint.close();
  }
}

main().catch((error: Error) => {
  console.error(error.message);
  process.exitCode = 1;
});
