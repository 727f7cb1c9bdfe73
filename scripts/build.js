'use strict';
// Compiles engine and nodes into dist/, and puts beside each node's .js what Node-RED looks for there:
// its .html, the locales and the icons.
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const root = path.join(__dirname, '..');
const dist = path.join(root, 'dist');
const started = new Date();

const tsc = spawnSync(process.execPath, [require.resolve('typescript/bin/tsc'), '-p', 'tsconfig.json'], { cwd: root, stdio: 'inherit' });

const filter = (file) => path.basename(file) !== '.gitkeep';
const target = path.join(dist, 'nodes');
fs.mkdirSync(target, { recursive: true });
for (const file of fs.readdirSync(path.join(root, 'nodes'))) {
  if (file.endsWith('.html')) fs.copyFileSync(path.join(root, 'nodes', file), path.join(target, file));
}
fs.cpSync(path.join(root, 'nodes', 'locales'), path.join(target, 'locales'), { recursive: true, filter });
fs.cpSync(path.join(root, 'icons'), path.join(target, 'icons'), { recursive: true, filter });

// Files of earlier builds whose source is gone would otherwise be published.
for (const file of fs.readdirSync(dist, { recursive: true })) {
  if (!fs.statSync(path.join(dist, file)).isFile()) continue;
  const source = path.join(root, file).replace(path.join(root, 'nodes', 'icons'), path.join(root, 'icons'));
  const compiledFrom = source.replace(/(\.d\.ts|\.js)$/, '.ts');
  if (!fs.existsSync(source) && !fs.existsSync(compiledFrom)) fs.rmSync(path.join(dist, file));
}

if (tsc.status !== 0) process.exit(tsc.status ?? 1);
// When the last complete build began: scripts/setup.js builds again when a source is newer.
const stamp = path.join(root, '.work', 'built');
fs.mkdirSync(path.dirname(stamp), { recursive: true, filter });
fs.writeFileSync(stamp, '');
fs.utimesSync(stamp, started, started);
