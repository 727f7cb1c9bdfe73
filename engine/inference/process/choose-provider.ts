/** Which execution provider a checkpoint runs on; only in the inference process. */
import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import os from 'node:os';
import type { InferenceSession } from 'onnxruntime-node';
import { MultiDiffusionError } from '../../errors';
import { recall, remember } from '../../files/machine-memory';
import { gpuMemory, mainMemory, type MemoryBudget } from '../memory';
import { isOffered, obstacleTo, PROVIDERS, vulkanDrivers, type ProviderName } from '../providers';
import type { ProcessSetup } from '../protocol';
import { probe, probeApart, sessionOptions, type ProbeResult } from './probe';

export interface ChosenProvider {
  name: ProviderName;
  /** The name, and why it isn't another one. */
  description: string;
  sessionOptions: InferenceSession.SessionOptions;
  /** Undefined where nobody has set one and it can't be measured. */
  memory?: MemoryBudget;
  /** What this device and its driver are, as far as can be told: what was found out about them holds as long as that. */
  key: string;
}

export type ProviderSetup = Pick<ProcessSetup, 'provider' | 'deviceId' | 'threads' | 'memoryBudget'>;

/** In the order in which automatic tries them. */
const GPUS = ['cuda', 'coreml', 'directml', 'webgpu'] as const satisfies readonly ProviderName[];
/** A GPU is worth its risks only when it is clearly faster: it may take this share of the CPU's time at most. */
const CLEARLY_FASTER = 0.7;
/** Milliseconds for which a driver that may have been updated unseen is believed, and one that did not work. */
const BELIEVED = 7 * 24 * 3600 * 1000;
const FORGIVEN = 3600 * 1000;

/**
 * The providers to try, the best first; the CPU is the last one. What is given to the generator's next is why the provider
 * before was no good for the model.
 * Automatic takes CUDA where a small model gives the right numbers on it, and another GPU where it is faster than the
 * CPU as well, which no GPU in software is. What was found out is kept for the machine, its drivers and the runtime.
 * @throws MultiDiffusionError PROVIDER when the one that was asked for can't be used
 */
export async function* chooseProviders(
  setup: ProviderSetup,
): AsyncGenerator<ChosenProvider, ChosenProvider, string | undefined> {
  const asked = setup.provider;
  const obstacles: string[] = [];
  for (const name of asked === 'auto' ? GPUS : [asked]) {
    if (name === 'cpu') break;
    // On one system nobody wonders why another's provider isn't there.
    if (asked === 'auto' && !isOffered(name)) continue;
    const key = keyOf(name, setup.deviceId);
    const memory =
      name === 'cuda' && !obstacleTo(name) ? await gpuMemory(setup.deviceId, setup.memoryBudget) : undefined;
    let obstacle = await findObstacle(name, setup, key);
    if (!obstacle) {
      const description = name === 'cuda' || name === 'directml' ? `${name}:${setup.deviceId}` : name;
      const options = sessionOptions(name, setup.deviceId, setup.threads);
      obstacle = yield { name, description, key, memory, sessionOptions: options };
    }
    if (asked !== 'auto') throw unusable(name, obstacle ?? 'it was refused');
    obstacles.push(`no ${PROVIDERS[name].label}: ${obstacle}`);
  }
  const description = obstacles.length > 0 ? `cpu (${obstacles.join('; ')})` : 'cpu';
  const memory = setup.memoryBudget === undefined ? undefined : mainMemory(setup.memoryBudget);
  return { name: 'cpu', description, key: 'cpu', memory, sessionOptions: sessionOptions('cpu', 0, setup.threads) };
}

/** The first of them. */
export async function chooseProvider(setup: ProviderSetup): Promise<ChosenProvider> {
  return (await chooseProviders(setup).next()).value;
}

function unusable(name: ProviderName, obstacle: string): MultiDiffusionError {
  const { label } = PROVIDERS[name];
  return new MultiDiffusionError(
    'PROVIDER',
    `${label} cannot be used: ${obstacle}. Fix that, or set the provider to auto or cpu.`,
  );
}

async function findObstacle(name: ProviderName, setup: ProviderSetup, key: string): Promise<string | undefined> {
  const obstacle = obstacleTo(name);
  if (obstacle) return obstacle;
  if (!PROVIDERS[name].apart) return (await probe(name, setup.deviceId, false)).obstacle;
  let result = recall<ProbeResult>(key, BELIEVED);
  if (!result || (result.obstacle && !recall(key, FORGIVEN))) {
    result = await probeApart(name, setup.deviceId);
    await remember(key, result);
  }
  const { milliseconds } = result;
  if (result.obstacle || setup.provider !== 'auto' || !milliseconds) return result.obstacle;
  const share = milliseconds.provider / milliseconds.cpu;
  return share <= CLEARLY_FASTER ? undefined : `it takes ${share.toFixed(1)} times as long as the CPU`;
}

/** What is known of the device without touching it: the system, the runtime, and Vulkan's drivers with their dates. */
function keyOf(name: ProviderName, deviceId: number): string {
  const manifest = readFileSync(require.resolve('onnxruntime-node/package.json'), 'utf8');
  const { version } = JSON.parse(manifest) as { version: string };
  const drivers = name === 'webgpu' && process.platform === 'linux' ? vulkanDrivers().drivers.map(dated) : [];
  const facts = [name, deviceId, version, process.platform, process.arch, os.release(), os.hostname(), ...drivers];
  return createHash('sha256').update(JSON.stringify(facts)).digest('hex').slice(0, 32);
}

function dated(file: string): string {
  const stat = statSync(file, { throwIfNoEntry: false });
  return `${file} ${stat?.size} ${stat?.mtimeMs}`;
}
