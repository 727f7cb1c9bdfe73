/** Which execution provider a checkpoint runs on; only in the inference process. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { InferenceSession } from 'onnxruntime-node';
import { MultiDiffusionError } from '../errors';
import { isOutOfMemory, type MemoryBudget } from './batching';
import { gpuMemory, mainMemory } from './memory';
import { PROBE_DIMS, PROBE_INPUT, PROBE_OUTPUT, probeModel } from './probe-model';
import type { ProcessSetup } from './protocol';

export interface ChosenProvider {
  name: 'cpu' | 'cuda';
  /** The name, and why it isn't the other one. */
  description: string;
  sessionOptions: InferenceSession.SessionOptions;
  /** Undefined where nobody has set one and it can't be measured. */
  memory?: MemoryBudget;
}

type ProviderSetup = Pick<ProcessSetup, 'provider' | 'deviceId' | 'threads' | 'memoryBudget'>;

/**
 * auto takes CUDA only if a small model really ran on it: that the library lists CUDA means nothing.
 * @throws MultiDiffusionError PROVIDER when cuda is asked for and doesn't work
 */
export async function chooseProvider(setup: ProviderSetup): Promise<ChosenProvider> {
  if (setup.provider === 'cpu') return cpu('cpu', setup);
  const cuda: InferenceSession.SessionOptions = {
    executionProviders: [{ name: 'cuda', deviceId: setup.deviceId }, 'cpu'],
    ...threadOptions(setup.threads),
  };
  const missing = findMissingProvider();
  const memory = missing ? undefined : await gpuMemory(setup.deviceId, setup.memoryBudget);
  const obstacle = missing ?? (await tryProbe(cuda));
  if (!obstacle) return { name: 'cuda', description: `cuda:${setup.deviceId}`, sessionOptions: cuda, memory };
  if (setup.provider === 'cuda') {
    throw new MultiDiffusionError('PROVIDER', `CUDA cannot be used: ${obstacle}. Mend that, or set the provider to auto or cpu.`);
  }
  return cpu(`cpu (no CUDA: ${obstacle})`, setup);
}

function cpu(description: string, { threads, memoryBudget }: ProviderSetup): ChosenProvider {
  return {
    name: 'cpu',
    description,
    sessionOptions: { executionProviders: ['cpu'], ...threadOptions(threads) },
    memory: memoryBudget === undefined ? undefined : mainMemory(memoryBudget),
  };
}

function threadOptions(threads: number): InferenceSession.SessionOptions {
  return {
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    logSeverityLevel: 3,
    // Threads that wait for work sleep instead of spinning: spinning takes the cores from Node-RED, and
    // where others work too it even makes inference several times slower.
    extra: { session: { intra_op: { allow_spinning: '0' } } },
  };
}

/** CUDA's part of ONNX Runtime is fetched separately; without its files there is nothing to try. */
function findMissingProvider(): string | undefined {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    return `CUDA needs Linux x64: ONNX Runtime for Node.js has it there only, and this is ${process.platform} ${process.arch}`;
  }
  const root = dirname(require.resolve('onnxruntime-node/package.json'));
  const folder = join(root, 'bin', 'napi-v6', 'linux', 'x64');
  const missing = ['libonnxruntime_providers_shared.so', 'libonnxruntime_providers_cuda.so'].filter((file) => !existsSync(join(folder, file)));
  if (missing.length === 0) return undefined;
  // No path: this text is shown to whoever looks at a picture's recipe.
  return 'GPU libraries not installed: run "npm run setup:cuda" in the package\'s folder';
}

/** What kept the probe from running, or undefined when it ran and its result is right. */
async function tryProbe(options: InferenceSession.SessionOptions): Promise<string | undefined> {
  const { InferenceSession, Tensor } = require('onnxruntime-node') as typeof import('onnxruntime-node');
  const input = Float32Array.from({ length: 16 }, (_, i) => i);
  try {
    const session = await InferenceSession.create(probeModel(), options);
    const { [PROBE_OUTPUT]: output } = await session.run({ [PROBE_INPUT]: new Tensor('float32', input, PROBE_DIMS) });
    await session.release();
    const values = output.data as Float32Array;
    return input.every((value, i) => Math.abs(values[i] - 2 * value) < 1e-3) ? undefined : 'a test model gave wrong results on it';
  } catch (error) {
    return explainCudaFailure((error as Error).message, isInstalled);
  }
}

/** What the CUDA provider is linked to; when one is not found ONNX Runtime says so on stderr only. */
const DRIVER = 'libcuda.so.1';
const CUDA_LIBRARIES = ['libcudart.so.13', 'libcublasLt.so.13', 'libcublas.so.13', 'libcurand.so.10'];

/** Whether the system's loader finds a library. It is no module of Node's: another error means that it was loaded. */
function isInstalled(library: string): boolean {
  try {
    process.dlopen({ exports: {} }, library);
    return true;
  } catch (error) {
    return !/cannot open shared object file/.test((error as Error).message);
  }
}

/**
 * What a failed try on CUDA means, in words that say what to do.
 * @param message ONNX Runtime's
 * @param installed whether a library can be loaded
 */
export function explainCudaFailure(message: string, installed: (library: string) => boolean = () => true): string {
  if (/Failed to load shared library/.test(message)) {
    if (!installed(DRIVER)) return `NVIDIA driver not installed (${DRIVER} is missing): install version 580 or newer; a container needs --gpus all`;
    const missing = CUDA_LIBRARIES.filter((library) => !installed(library));
    if (missing.length > 0) return `CUDA 13 missing (${missing.join(', ')}): install it, or point multidiffusion.libraryPath in settings.js at it`;
  }
  // Around it stand C++ signatures, and the machine's name.
  const reason = /\b[A-Z_]+ failure \d+: [^;\n]*/.exec(message)?.[0].trim() ?? message.split('\n')[0];
  if (/cuDNN is (unavailable|not available)/i.test(message)) return `cuDNN 9 missing: install it, or point multidiffusion.libraryPath in settings.js at it (${reason})`;
  if (/CUDA failure (35|803)\b/.test(message)) return `driver too old: CUDA 13 needs an NVIDIA driver of version 580 or newer (${reason})`;
  if (/CUDA failure 100\b/.test(message)) return `no NVIDIA GPU found: nvidia-smi must list it, also inside a container (${reason})`;
  if (/CUDA failure 101\b/.test(message)) return `no GPU has this number: nvidia-smi lists them from 0 (${reason})`;
  if (/CUDA failure 209\b/.test(message)) return `GPU too old: CUDA 13 needs one of the Turing generation (2018) or newer (${reason})`;
  if (isOutOfMemory(message)) return `GPU memory is full: end what else uses it (${reason})`;
  return reason;
}
