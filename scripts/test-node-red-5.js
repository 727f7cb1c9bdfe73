'use strict';
// The tests of the nodes on Node-RED 5, with the Node.js that it asks for; both are in test/node-red-5. And whole
// pictures against reference results, because half-precision tensors are others from Node.js 24 on.
const { spawnSync } = require('node:child_process');
const path = require('node:path');

const root = path.join(__dirname, '..');
const modules = path.join(root, 'test', 'node-red-5', 'node_modules');
const node = path.join(modules, '.bin', process.platform === 'win32' ? 'node.cmd' : 'node');

const { status, error } = spawnSync(
  node,
  [
    path.join(root, 'node_modules', 'mocha', 'bin', 'mocha.js'),
    '--parallel',
    'test/nodes/**/*.test.ts',
    'test/flows/examples.test.ts',
    'test/flows/web-page.test.ts',
    'test/unit/pipeline.test.ts',
    'test/unit/families.test.ts',
    'test/unit/float16.test.ts',
  ],
  {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, NODE_RED: path.join(modules, 'node-red') },
    shell: process.platform === 'win32',
  },
);
if (error) console.error(`${node} can't be run: ${error.message}`);
process.exit(status ?? 1);
