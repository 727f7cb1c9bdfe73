'use strict';
// Runs the tests of test/gpu, and reference results, on WebGPU: on the GPU in software that comes with Debian's Chromium,
// or on the drivers that VK_ICD_FILENAMES names. That GPU is slow, so it gets one checkpoint's results; --all adds those
// of the others, and the living room. (It has no half precision, which one test says.)
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const root = path.join(__dirname, '..');
const SOFTWARE = '/usr/lib/chromium/vk_swiftshader_icd.json';
const drivers = process.env.VK_ICD_FILENAMES || SOFTWARE;
if (!fs.existsSync(drivers)) {
  console.error(`The tests need a Vulkan driver (${drivers} is missing): apt-get install chromium libvulkan1`);
  process.exit(1);
}
const cache = fs.mkdtempSync(path.join(os.tmpdir(), 'multidiffusion-gpu-'));
const env = { ...process.env, VK_ICD_FILENAMES: drivers, MULTIDIFFUSION_CACHE: cache, TEST_PROVIDER: 'webgpu' };
const mocha = require.resolve('mocha/bin/mocha.js', { paths: [root] });
const files = ['test/gpu/**/*.test.ts', 'test/unit/pipeline.test.ts', 'test/unit/families.test.ts'];
const choice = process.argv.includes('--all')
  ? ['--grep', 'fp16', '--invert']
  : ['--grep', '^WebGPU (?!draws)|^tiny-sd2 as diffusers txt2img: '];
const args = [mocha, ...files, '--timeout', '600000', ...choice];
const { status } = spawnSync(process.execPath, args, { cwd: root, env, stdio: 'inherit' });
fs.rmSync(cache, { recursive: true, force: true });
process.exit(status ?? 1);
