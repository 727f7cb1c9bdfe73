'use strict';
// Prints how many milliseconds Node-RED takes to load all nodes of this package: a process of its own for each
// measurement, because a module is loaded only once.
const path = require('node:path');
const { createRequire } = require('node:module');
const { startNodeRed } = require('../scripts/lib/headless');

async function main() {
  const nodesDir = [];
  const nodeRed = await startNodeRed({ settings: { nodesDir }, onLog: () => {} });
  // What installing the package from the palette does, without npm.
  const registry = createRequire(require.resolve('node-red'))('@node-red/registry');
  nodesDir.push(path.join(__dirname, '..'));
  const started = performance.now();
  await registry.addModule('node-red-contrib-multidiffusion');
  const milliseconds = performance.now() - started;
  const { nodes } = registry.getModuleInfo('node-red-contrib-multidiffusion');
  if (nodes.length === 0 || nodes.some(({ err }) => err)) throw new Error('Some nodes could not be loaded.');
  console.log(milliseconds.toFixed(1));
  await nodeRed.stop();
  process.exit();
}

void main();
