'use strict';
// Compiles engine and nodes into dist/, and puts beside each node's .js what Node-RED looks for there:
// its .html, the locales and the icons.
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const root = path.join(__dirname, '..');
const tsc = spawnSync(process.execPath, [require.resolve('typescript/bin/tsc'), '-p', 'tsconfig.json'], { cwd: root, stdio: 'inherit' });

const target = path.join(root, 'dist', 'nodes');
fs.mkdirSync(target, { recursive: true });
for (const file of fs.readdirSync(path.join(root, 'nodes'))) {
  if (file.endsWith('.html')) fs.copyFileSync(path.join(root, 'nodes', file), path.join(target, file));
}
fs.cpSync(path.join(root, 'nodes', 'locales'), path.join(target, 'locales'), { recursive: true });
fs.cpSync(path.join(root, 'icons'), path.join(target, 'icons'), { recursive: true });

process.exit(tsc.status ?? 1);
