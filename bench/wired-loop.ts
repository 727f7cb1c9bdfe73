/** What the loop of wired steps costs over the built-in one: the living room of example 08 in a headless Node-RED, taking turns. */
import path from 'node:path';
import { applySettings, readFlow } from '../scripts/lib/flow.js';
import { startNodeRed, temporaryFolder } from '../scripts/lib/headless.js';

const MODES = ['built-in', 'wired'] as const;
const median = (values: number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const rounded = (value: number): number => Number(value.toFixed(2));

/**
 * @param model folder of a checkpoint
 * @returns medians in milliseconds, and what the wires add as a percentage of the built-in loop's time. The model's own
 *   time varies more than the wires cost, so it is left out of the difference: `costPercent`.
 */
export async function measureWiredLoop(model: string, runs: number) {
  const nodeRed = await startNodeRed({ images: temporaryFolder(), onLog: () => {} });
  try {
    const example = readFlow(path.join(__dirname, '..', 'examples', '08-wired-loop.json'));
    const settings = { 'diffusion-model.checkpoint': 'folder', 'diffusion-model.folder': model };
    const none = () => ({ sample: [] as number[], outside: [] as number[], processor: [] as number[] });
    const measured = { 'built-in': none(), wired: none() };
    let steps = 0;
    for (let run = 0; run <= runs; run++) {
      for (const stepMode of MODES) {
        const { flow } = applySettings(example, { ...settings, 'multidiffusion-sampler.stepMode': stepMode });
        // The example's branch that looks on is no part of the loop.
        for (const { type, wires } of flow) if (type === 'multidiffusion-fuse') wires[0].length = 1;
        await nodeRed.deploy(flow);
        const before = process.cpuUsage();
        const { generation } = await nodeRed.generate(flow);
        const { user, system } = process.cpuUsage(before);
        if (run === 0) continue; // the first of each loads and warms up
        const { sample, unet } = generation.timings;
        measured[stepMode].sample.push(sample);
        measured[stepMode].outside.push(sample - unet);
        measured[stepMode].processor.push((user + system) / 1000);
        steps = generation.steps;
      }
    }
    const [builtIn, wired] = MODES.map((mode) => ({
      milliseconds: median(measured[mode].sample),
      outsideModel: median(measured[mode].outside),
      processor: median(measured[mode].processor),
    }));
    const added = wired.outsideModel - builtIn.outsideModel;
    return {
      builtInMilliseconds: builtIn.milliseconds,
      wiredMilliseconds: wired.milliseconds,
      addedPerStepMilliseconds: rounded(added / steps),
      addedProcessorMillisecondsPerStep: rounded((wired.processor - builtIn.processor) / steps),
      costPercent: rounded((100 * added) / builtIn.milliseconds),
    };
  } finally {
    await nodeRed.stop();
  }
}
