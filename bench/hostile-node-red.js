'use strict';
// Node-RED for hostile.ts, in a process of its own: between `begin` and `end` it watches its event loop and its memory.
const { monitorEventLoopDelay } = require('node:perf_hooks');
const { startNodeRed } = require('../scripts/lib/headless');

/** How often the loop is looked at: a delay is what comes on top. */
const RESOLUTION = 5;

async function main() {
  const { flow, settings } = await new Promise((resolve) => process.once('message', resolve));
  const nodeRed = await startNodeRed({ editor: true, onLog: () => undefined, settings });
  await nodeRed.deploy(flow);
  const brokerId = flow.find((/** @type {any} */ { type }) => type === 'mqtt-broker').id;
  // What is published before the flow has subscribed is nobody's.
  for (;;) {
    const broker = nodeRed.RED.nodes.getNode(brokerId);
    if (broker.connected && Object.keys(broker.subscriptions).length > 0) break;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }

  const delay = monitorEventLoopDelay({ resolution: RESOLUTION });
  let before = 0;
  let peak = 0;
  /** @type {NodeJS.Timeout | undefined} */
  let watch;
  process.on('message', (order) => {
    if (order === 'begin') {
      /** @type {any} */ (globalThis).gc?.();
      before = peak = process.memoryUsage.rss();
      watch = setInterval(() => (peak = Math.max(peak, process.memoryUsage.rss())), RESOLUTION);
      delay.reset();
      delay.enable();
      process.send?.({ begun: true });
    } else if (order === 'end') {
      delay.disable();
      clearInterval(watch);
      peak = Math.max(peak, process.memoryUsage.rss());
      const most = Number.isFinite(delay.max) ? delay.max / 1e6 - RESOLUTION : 0;
      process.send?.({ loopMilliseconds: Math.max(0, most), megabytes: (peak - before) / 2 ** 20 });
    }
  });
  process.on('disconnect', () => process.exit());
  process.send?.({ url: nodeRed.url });
}

void main();
