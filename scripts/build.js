'use strict';
// Compiles engine and nodes into dist/, and puts beside each node's .js what Node-RED looks for there:
// its .html, its locales and its icon.
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const root = path.join(__dirname, '..');
const dist = path.join(root, 'dist');
const work = path.join(root, '.work');
const started = new Date();

// The compiler writes what changed since the last build, which must still be there.
if (!fs.existsSync(dist)) fs.rmSync(path.join(work, 'tsconfig.tsbuildinfo'), { force: true });
const tsc = spawnSync(process.execPath, [require.resolve('typescript/bin/tsc'), '-p', 'tsconfig.json'], {
  cwd: root,
  stdio: 'inherit',
});

/** What stands in dist and is not compiled, by its source. */
const copied = new Map();
for (const file of fs.readdirSync(path.join(root, 'nodes'), { recursive: true })) {
  if (/\.(html|json)$/.test(file)) copied.set(path.join(root, 'nodes', file), path.join(dist, 'nodes', file));
}
for (const file of fs.readdirSync(path.join(root, 'icons'))) {
  const node = path.parse(file).name;
  copied.set(path.join(root, 'icons', file), path.join(dist, 'nodes', node, 'icons', file));
}
for (const [source, target] of copied) {
  fs.mkdirSync(path.dirname(target), { recursive: true });
  fs.copyFileSync(source, target);
}

// Files of earlier builds whose source is gone would otherwise be published.
const targets = new Set(copied.values());
for (const file of fs.readdirSync(dist, { recursive: true })) {
  const target = path.join(dist, file);
  const source = path.join(root, file).replace(/(\.d\.ts|\.js)$/, '.ts');
  if (targets.has(target) || !fs.statSync(target).isFile() || fs.existsSync(source)) continue;
  fs.rmSync(target);
}

if (tsc.status !== 0) process.exit(tsc.status ?? 1);
// When the last complete build began: scripts/setup.js builds again when a source is newer.
const stamp = path.join(work, 'built');
fs.mkdirSync(work, { recursive: true });
fs.writeFileSync(stamp, '');
fs.utimesSync(stamp, started, started);
