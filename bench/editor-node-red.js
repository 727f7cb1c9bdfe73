'use strict';
// Node-RED with its editor for editor.ts, in a process of its own; it takes one order after the other.
const { monitorEventLoopDelay } = require('node:perf_hooks');
// Counted before anything of the package has loaded it.
const pictures = require('../dist/engine/image/thumbnail');
const encode = require('../dist/engine/image/encode');
const { startNodeRed, temporaryFolder } = require('../scripts/lib/headless');

/** As in bench.ts: a delay is what a look comes too late. */
const RESOLUTION = 10;

/** Pictures that were encoded, of which save-image's files are no concern of the editor's. */
let encoded = 0;
for (const [part, names] of [
  [pictures, ['thumbnail', 'asPng']],
  [encode, ['encodeImage']],
]) {
  for (const name of names) {
    const original = part[name];
    part[name] = (/** @type {unknown[]} */ ...given) => (encoded++, original(...given));
  }
}

async function main() {
  const { flow } = await new Promise((resolve) => process.once('message', resolve));
  const nodeRed = await startNodeRed({ editor: true, images: temporaryFolder(), onLog: () => undefined });
  await nodeRed.deploy(flow);

  const orders = {
    /** Draws pictures, one after the other. @param {number} count */
    async draw(count) {
      const delay = monitorEventLoopDelay({ resolution: RESOLUTION });
      const before = encoded;
      const started = performance.now();
      delay.enable();
      for (let i = 0; i < count; i++) await nodeRed.generate(flow);
      delay.disable();
      const milliseconds = (/** @type {number} */ nanoseconds) => Math.max(0, nanoseconds / 1e6 - RESOLUTION);
      return {
        p50: milliseconds(delay.percentile(50)),
        p99: milliseconds(delay.percentile(99)),
        max: milliseconds(delay.max),
        millisecondsPerPicture: (performance.now() - started) / count,
        encodedPerPicture: (encoded - before) / count,
      };
    },
    /** Draws pictures that nothing is measured of, in few steps. @param {number} count */
    async fill(count) {
      for (let i = 0; i < count; i++) await nodeRed.generate(flow, { message: { steps: 2 } });
      return {};
    },
    /** What is left of the memory when nothing is waiting. */
    async memory() {
      // Buffers are freed some time after the objects that held them.
      for (let i = 0; i < 3; i++) {
        /** @type {any} */ (globalThis).gc();
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      const { heapUsed, external, rss } = process.memoryUsage();
      return { heap: heapUsed, external, rss };
    },
  };
  process.on('message', async ({ order, value }) => process.send?.(await orders[order](value)));
  process.on('disconnect', () => process.exit());
  process.send?.({ url: nodeRed.url });
}

void main();
