/**
 * What each execution provider of ONNX Runtime is: where it can be had, how a session asks for it, and what its errors
 * mean. A new one is an entry here and a name among the choices of the option `provider`. Nothing here loads ONNX
 * Runtime: process/choose-provider.ts tries them.
 */
import { existsSync, readdirSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { isOutOfMemory } from './memory';

export const PROVIDER_NAMES = ['cuda', 'webgpu', 'directml', 'coreml', 'cpu'] as const;
export type ProviderName = (typeof PROVIDER_NAMES)[number];
/** What a user chooses. */
export type Provider = 'auto' | ProviderName;

export interface ProviderEntry {
  /** As users know it. */
  label: string;
  /** `platform arch` of the systems that ONNX Runtime for Node.js has it on; undefined: on all. */
  systems?: readonly string[];
  /** What keeps it from working here, found without touching a device; undefined where it is worth a try. */
  obstacle?: () => string | undefined;
  /** How a session names it. */
  session: (deviceId: number) => { name: string; [option: string]: unknown };
  /** What else a session needs. */
  options?: { enableMemPattern?: boolean; executionMode?: 'sequential' };
  /** Tried in a process of its own: its driver may crash, or never answer. */
  apart?: true;
  /** The meaning of a message of ONNX Runtime's, in words that say what to do. */
  explain: (message: string) => string;
  /** Messages after which the device works for a new process only, if at all. */
  lost?: RegExp;
}

/** Codes of cudaError_t after which a process can't go on: illegal addresses, failed launches, a device that is gone. */
const CUDA_LOST = /CUDA (failure|error):? (46|700|702|709|71[4-9]|999)\b/;
/** Vulkan, Direct3D 12 and Metal behind WebGPU, and Direct3D behind DirectML. */
const DEVICE_LOST =
  /device (was |is |has been )?(lost|removed|reset|hung)|DEVICE_LOST|DXGI_ERROR_DEVICE_|instance (was )?dropped|GPU connection lost/i;

export const PROVIDERS: Record<ProviderName, ProviderEntry> = {
  cuda: {
    label: 'CUDA',
    systems: ['linux x64'],
    obstacle: missingCuda,
    session: (deviceId) => ({ name: 'cuda', deviceId }),
    explain: explainCudaFailure,
    lost: CUDA_LOST,
  },
  webgpu: {
    label: 'WebGPU',
    systems: ['linux x64', 'win32 x64', 'win32 arm64', 'darwin x64', 'darwin arm64'],
    obstacle: missingVulkan,
    session: () => ({ name: 'webgpu' }),
    apart: true,
    explain: explainWebGpuFailure,
    lost: DEVICE_LOST,
  },
  directml: {
    label: 'DirectML',
    systems: ['win32 x64', 'win32 arm64'],
    session: (deviceId) => ({ name: 'dml', deviceId }),
    options: { enableMemPattern: false, executionMode: 'sequential' },
    apart: true,
    explain: firstLine,
    lost: DEVICE_LOST,
  },
  coreml: {
    label: 'CoreML',
    systems: ['darwin x64', 'darwin arm64'],
    session: () => ({ name: 'coreml' }),
    apart: true,
    explain: firstLine,
  },
  cpu: { label: 'CPU', session: () => ({ name: 'cpu' }), explain: firstLine },
};

const SYSTEM_NAMES: Record<string, string> = { linux: 'Linux', win32: 'Windows', darwin: 'macOS' };

export interface System {
  platform: string;
  arch: string;
}

/** Whether ONNX Runtime for Node.js has the provider on a system. */
export function isOffered(name: ProviderName, { platform, arch }: System = process): boolean {
  const { systems } = PROVIDERS[name];
  return !systems || systems.includes(`${platform} ${arch}`);
}

/** Why a provider can't be used, found without touching a device; undefined where it is worth a try. */
export function obstacleTo(name: ProviderName, system: System = process): string | undefined {
  const { label, systems, obstacle } = PROVIDERS[name];
  if (!isOffered(name, system)) {
    const where = systems!.map((each) => each.replace(/^\w+/, (platform) => SYSTEM_NAMES[platform] ?? platform));
    const here = `${system.platform} ${system.arch}`;
    return `${label} needs ${where.join(' or ')}: ONNX Runtime for Node.js has it there only, and this is ${here}`;
  }
  return obstacle?.();
}

const NVIDIA_DRIVER = 'libcuda.so.1';
const NO_DRIVER =
  `NVIDIA driver not installed (${NVIDIA_DRIVER} is missing): ` +
  'install version 580 or newer; a container needs --gpus all';

/** ONNX Runtime's CUDA libraries are fetched separately; without them there is nothing to try. */
function missingCuda(): string | undefined {
  if (!isInstalled(NVIDIA_DRIVER)) return NO_DRIVER;
  const root = path.dirname(require.resolve('onnxruntime-node/package.json'));
  const folder = path.join(root, 'bin', 'napi-v6', 'linux', 'x64');
  const files = ['libonnxruntime_providers_shared.so', 'libonnxruntime_providers_cuda.so'];
  if (files.every((file) => existsSync(path.join(folder, file)))) return undefined;
  // No path: this text is shown to whoever looks at a picture's recipe.
  return 'GPU libraries not installed: run "npm run setup:cuda" in the package\'s folder';
}

/**
 * On Linux, WebGPU needs Vulkan's loader, a driver that has told it of itself, and a GPU. Where a driver is named in the
 * environment, that one is meant, whatever it drives.
 */
function missingVulkan(): string | undefined {
  if (process.platform !== 'linux') return undefined;
  if (!isInstalled('libvulkan.so.1')) return 'Vulkan not installed: install the package libvulkan1 (vulkan-loader)';
  const { drivers, named } = vulkanDrivers();
  if (drivers.length === 0)
    return "no Vulkan driver installed: install your card's (mesa-vulkan-drivers for AMD and Intel)";
  if (!named && !['/dev/dri', '/dev/nvidiactl', '/dev/dxg'].some((file) => existsSync(file)))
    return 'no GPU found: /dev/dri is missing; a container needs --device /dev/dri or --gpus all';
  return undefined;
}

/** The files by which Vulkan's drivers tell of themselves, and whether the environment names them. */
export function vulkanDrivers(): { drivers: string[]; named: boolean } {
  const { VK_DRIVER_FILES, VK_ICD_FILENAMES, XDG_DATA_HOME } = process.env;
  const named = VK_DRIVER_FILES ?? VK_ICD_FILENAMES;
  if (named) return { drivers: named.split(path.delimiter).filter((file) => existsSync(file)), named: true };
  const home = XDG_DATA_HOME || path.join(os.homedir(), '.local/share');
  const folders = ['/etc', '/usr/local/etc', '/usr/share', '/usr/local/share', home];
  const drivers = folders.flatMap((base) => filesIn(path.join(base, 'vulkan/icd.d')));
  return { drivers, named: false };
}

function filesIn(folder: string): string[] {
  try {
    return readdirSync(folder).map((file) => path.join(folder, file));
  } catch {
    return [];
  }
}

/** Whether the system's loader finds a library. It is no module of Node's: another error means that it was loaded. */
function isInstalled(library: string): boolean {
  try {
    process.dlopen({ exports: {} }, library);
    return true;
  } catch (error) {
    return !/cannot open shared object file/.test((error as Error).message);
  }
}

function firstLine(message: string): string {
  return message.trim().split('\n')[0];
}

function explainWebGpuFailure(message: string): string {
  if (/Failed to get a WebGPU adapter|No supported adapters/.test(message))
    return 'no GPU that WebGPU can use: update its driver; old and software drivers are refused';
  if (isOutOfMemory(message)) return 'GPU memory is full: close what else uses it';
  // Before the reason stand a source file and a C++ signature.
  const reason = /was false\. ([^\n]+)/.exec(message)?.[1] ?? firstLine(message);
  return reason.slice(0, 300);
}

/** What the CUDA provider is linked to; when one is not found ONNX Runtime says so on stderr only. */
const CUDA_LIBRARIES = ['libcudart.so.13', 'libcublasLt.so.13', 'libcublas.so.13', 'libcurand.so.10'];

/**
 * What a failed try on CUDA means, in words that say what to do.
 * @param message ONNX Runtime's
 * @param installed whether a library can be loaded
 */
export function explainCudaFailure(message: string, installed: (library: string) => boolean = isInstalled): string {
  if (/Failed to load shared library/.test(message)) {
    if (!installed(NVIDIA_DRIVER)) return NO_DRIVER;
    const missing = CUDA_LIBRARIES.filter((library) => !installed(library));
    if (missing.length > 0)
      return `CUDA 13 missing (${missing.join(', ')}): install it, or point multidiffusion.libraryPath in settings.js at it`;
  }
  // Around it stand C++ signatures, and the machine's name.
  const reason = /\b[A-Z_]+ failure \d+: [^;\n]*/.exec(message)?.[0].trim() ?? message.split('\n')[0];
  if (/cuDNN is (unavailable|not available)/i.test(message))
    return `cuDNN 9 missing: install it, or point multidiffusion.libraryPath in settings.js at it (${reason})`;
  if (/CUDA failure (35|803)\b/.test(message))
    return `driver too old: CUDA 13 needs an NVIDIA driver of version 580 or newer (${reason})`;
  if (/CUDA failure 100\b/.test(message))
    return `no NVIDIA GPU found: nvidia-smi must list it, also inside a container (${reason})`;
  if (/CUDA failure 101\b/.test(message)) return `no GPU has this number: nvidia-smi lists them from 0 (${reason})`;
  if (/CUDA failure 209\b/.test(message))
    return `GPU too old: CUDA 13 needs one of the Turing generation (2018) or newer (${reason})`;
  if (isOutOfMemory(message)) return `GPU memory is full: end what else uses it (${reason})`;
  return reason;
}
