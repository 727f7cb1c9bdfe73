'use strict';
// npm run setup:cuda: fetches ONNX Runtime's CUDA provider, which installing the package leaves out, and tries
// it. In an installed package: npm explore node-red-contrib-multidiffusion -- npm run setup:cuda
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { parseArgs } = require('node:util');

const USAGE = `Usage: npm run setup:cuda [-- --library-path FOLDERS] [-- --check]

  --library-path FOLDERS  where CUDA's libraries are, if the system does not know: for pip's packages the
                          folder site-packages/nvidia. Set the same as multidiffusion.libraryPath in settings.js.
  --check                 only try what is there

Needs Linux on x64, an NVIDIA driver, CUDA 13 and cuDNN 9; docs/gpu.md tells how to get them.`;

const root = path.join(__dirname, '..');
const FILES = ['libonnxruntime_providers_shared.so', 'libonnxruntime_providers_cuda.so'];

function fetchProvider(runtime, version, target) {
  console.log(`Fetching the CUDA provider of ONNX Runtime ${version}, some hundred megabytes …`);
  const { status } = spawnSync(process.execPath, [path.join(runtime, 'script', 'install.js')], {
    cwd: runtime,
    stdio: 'inherit',
    env: { ...process.env, ONNXRUNTIME_NODE_INSTALL: 'true' },
  });
  if (status === 0 && FILES.every((file) => fs.existsSync(path.join(target, file)))) return;
  throw new Error(`The CUDA provider could not be fetched. Behind a proxy, set GLOBAL_AGENT_HTTPS_PROXY and try again.
By hand: download the package Microsoft.ML.OnnxRuntime.Gpu.Linux ${version} from nuget.org (it is a zip file), and copy
${FILES.join(' and ')} from its runtimes/linux-x64/native into
${target}`);
}

/** Runs a small model on the GPU, in a process that finds the libraries. */
function tryProvider(libraryPath) {
  const engine = path.join(root, 'dist', 'engine', 'inference');
  if (!fs.existsSync(engine)) {
    console.log(
      'The package is not built yet, so that the GPU was not tried: npm run setup && npm run setup:cuda -- --check',
    );
    return;
  }
  const env = { ...process.env };
  if (libraryPath)
    env.LD_LIBRARY_PATH = require(path.join(engine, 'libraries.js')).libraryFolders(libraryPath, env.LD_LIBRARY_PATH);
  const providers = JSON.stringify(path.join(engine, 'providers.js'));
  const probe = `require(${providers}).chooseProvider({ provider: 'cuda', deviceId: 0, threads: 1 })
    .then(() => process.exit(0), (error) => { console.error(error.message); process.exit(1); })`;
  if (spawnSync(process.execPath, ['-e', probe], { env, stdio: 'inherit' }).status !== 0) {
    throw new Error("The provider is there, but the GPU can't be used yet: docs/gpu.md lists what each message means.");
  }
  console.log(
    'A test model ran on the GPU. A diffusion-model that runs on "automatic" takes it from the next start of Node-RED on.',
  );
}

function main() {
  const { values } = parseArgs({
    options: { 'library-path': { type: 'string' }, check: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
  });
  if (values.help) return console.log(USAGE);
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new Error(
      `ONNX Runtime for Node.js has CUDA on Linux x64 only, and this is ${process.platform} ${process.arch}. The CPU needs no setup.`,
    );
  }
  const manifest = require.resolve('onnxruntime-node/package.json', { paths: [root] });
  const runtime = path.dirname(manifest);
  const target = path.join(runtime, 'bin', 'napi-v6', 'linux', 'x64');
  const missing = FILES.filter((file) => !fs.existsSync(path.join(target, file)));
  if (missing.length > 0 && values.check)
    throw new Error(`${missing.join(' and ')} are missing in ${target}: run npm run setup:cuda.`);
  if (missing.length > 0) fetchProvider(runtime, require(manifest).version, target);
  else console.log('The CUDA provider is there already.');
  tryProvider(values['library-path']);
}

try {
  main();
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
