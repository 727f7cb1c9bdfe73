'use strict';
// Runs every part of the tests, whatever the others say; the exit code tells whether all have passed. The parts run side by
// side, since much of what they do is waiting; what the others say is shown when the first has ended.
const { spawn } = require('node:child_process');
const path = require('node:path');

const root = path.join(__dirname, '..');
const mocha = require.resolve('mocha/bin/mocha.js', { paths: [root] });
const colour = process.stdout.isTTY ? ['--color'] : [];

/** @param {string} part @param {boolean} live whether its output is shown at once */
function run(part, live) {
  const child = spawn(process.execPath, [mocha, ...colour, `test/${part}/**/*.test.ts`], {
    cwd: root,
    stdio: live ? 'inherit' : ['ignore', 'pipe', 'pipe'],
  });
  /** @type {Buffer[]} */
  const output = [];
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (data) => output.push(data));
  return new Promise((resolve) => {
    child.on('error', (error) => output.push(Buffer.from(`${error.message}\n`)));
    child.on('close', (status) => resolve({ part, failed: status !== 0, output: Buffer.concat(output) }));
  });
}

async function main() {
  const [first, ...others] = ['unit', 'nodes', 'flows'].map((part, i) => run(part, i === 0));
  const results = [await first];
  for (const other of others) {
    results.push(await other);
    process.stdout.write(results.at(-1).output);
  }
  const failed = results.filter((result) => result.failed).map(({ part }) => `test/${part}`);
  if (failed.length > 0) console.error(`Failed: the tests in ${failed.join(', ')}.`);
  process.exitCode = failed.length > 0 ? 1 : 0;
}

void main();
