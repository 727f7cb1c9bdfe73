'use strict';
// Makes a clone ready to run: installs the dependencies when package-lock.json asks for others than are
// there, and builds when a source is newer than the last build. Plain Node, because nothing is installed yet.
// With --node-red-5 also what the tests on Node-RED 5 need, with --dashboard what example 19 does.
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const root = path.join(__dirname, '..');
const NODE_RED_5 = path.join('test', 'node-red-5');

/** @returns the file's modification time in ms, 0 when there is none */
function modified(file) {
  return fs.statSync(path.join(root, file), { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

/** The newest modification time of a file or of anything in a folder. */
function newest(name) {
  const file = path.join(root, name);
  const stat = fs.statSync(file, { throwIfNoEntry: false });
  if (!stat) return 0;
  if (!stat.isDirectory()) return stat.mtimeMs;
  return Math.max(stat.mtimeMs, ...fs.readdirSync(file).map((entry) => newest(path.join(name, entry))));
}

function run(what, command, args, options = {}) {
  console.log(`> ${what}`);
  const { status, error } = spawnSync(command, args, {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
    ...options,
  });
  if (status === 0) return;
  console.error(`${what}: failed${error ? ` (${error.message})` : ` with exit code ${status}`}.`);
  process.exit(status || 1);
}

const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`Node.js ${process.versions.node} is too old: this package needs 20.19 or newer.`);
  process.exit(1);
}

/** Installs what a folder's package-lock.json asks for, unless it is there. */
function install(folder) {
  const lock = path.join(folder, 'package-lock.json');
  const installed = path.join(folder, 'node_modules', '.package-lock.json');
  if (modified(installed) >= modified(lock)) return;
  // Inside an npm script, npm_execpath is the npm that runs it; run by hand, npm comes from the PATH.
  const npm = process.env.npm_execpath;
  const args = ['ci', '--no-audit', '--no-fund', '--prefer-offline'];
  // There the package `node` sets itself up by its install script, which this package's .npmrc would skip.
  if (folder === NODE_RED_5) args.push('--ignore-scripts=false');
  run(
    `npm ${args.join(' ')} in ${path.join(root, folder)}`,
    npm ? process.execPath : 'npm',
    npm ? [npm, ...args] : args,
    {
      cwd: path.join(root, folder),
      // The CPU runtime is inside the package; its install script would fetch the CUDA libraries.
      env: { ...process.env, ONNXRUNTIME_NODE_INSTALL: 'skip' },
      shell: !npm && process.platform === 'win32',
    },
  );
  // npm leaves the file alone when nothing had to change; without this it would install again every time.
  fs.utimesSync(path.join(root, installed), new Date(), new Date());
}

install('.');
if (process.argv.includes('--node-red-5')) install(NODE_RED_5);
if (process.argv.includes('--dashboard')) install(path.join('test', 'dashboard'));

const sources = ['engine', 'nodes', 'icons', 'tsconfig.json', 'package.json', 'scripts/build.js'];
const built = fs.existsSync(path.join(root, 'dist')) ? modified('.work/built') : 0;
if (built < Math.max(...sources.map(newest))) {
  run('build', process.execPath, ['scripts/build.js']);
}
