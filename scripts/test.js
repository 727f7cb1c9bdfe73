'use strict';
// Runs every part of the tests, whatever the parts before it said; the exit code tells whether all have passed.
const { spawnSync } = require('node:child_process');
const path = require('node:path');

const root = path.join(__dirname, '..');
const mocha = require.resolve('mocha/bin/mocha.js', { paths: [root] });
const failed = ['unit', 'nodes', 'flows'].filter((part) => {
  const { status } = spawnSync(process.execPath, [mocha, `test/${part}/**/*.test.ts`], { cwd: root, stdio: 'inherit' });
  return status !== 0;
});
if (failed.length > 0) console.error(`Failed: the tests in ${failed.map((part) => `test/${part}`).join(', ')}.`);
process.exit(failed.length > 0 ? 1 : 0);
