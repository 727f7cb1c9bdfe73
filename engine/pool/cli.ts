#!/usr/bin/env node
/** multidiffusion-worker: draws pictures for a pool, until it is told to stop. */
import { readFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { openCheckpoint } from '../checkpoint/checkpoint';
import { InvalidInputError, MultiDiffusionError } from '../errors';
import { fetchRepository } from '../hub/hub';
import { readManifest } from '../hub/manifest';
import { MODEL_OPTIONS, readDevices, resolveOptions } from '../options';
import { describeAddress, type RedisAddress } from './connection';
import { identityOf } from './identity';
import { monitor } from './monitor';
import { Names } from './schema';
import { PoolWorker, type JobRecord } from './worker';

const PACKAGE = path.resolve(__dirname, '../../..');
const { version } = JSON.parse(readFileSync(path.join(PACKAGE, 'package.json'), 'utf8')) as { version: string };
/** A user's name for the model that comes with the package. */
const POCKET = 'pocket';
const DEFAULT_PORT = 9464;
/** Milliseconds for leaving the pool, after the pictures have ended. */
const FAREWELL = 5000;
const PROVIDERS = MODEL_OPTIONS.provider.choices.filter((choice) => choice !== 'pool');

const HELP = `multidiffusion-worker ${version}: draws pictures for a pool of node-red-contrib-multidiffusion.

Usage: multidiffusion-worker --redis ADDRESS [options]

  --redis ADDRESS     redis://[user:password@]host[:port][/database], or rediss:// for TLS.
                      Better in the environment as MULTIDIFFUSION_REDIS: command lines can be seen by others.
  --redis-ca FILE     PEM of the authority that certified the Redis server, when Node.js does not know it
  --pool NAME         the pool's name, as in the diffusion-model node (default: default)
  --model MODEL       a folder with a checkpoint; a Hugging Face repository, owner/name or owner/name@revision;
                      or ${POCKET}, the model that comes with the package (default: ${POCKET}).
                      A token for private repositories is read from the environment as HF_TOKEN.
  --model-directory FOLDER  where repositories are downloaded to (default: ~/.node-red/multidiffusion/models)
  --provider NAME     ${PROVIDERS.join(', ')} (default: ${MODEL_OPTIONS.provider.default})
  --devices LIST      numbers of GPUs, such as 0,1: each draws one picture at a time (default: 0)
  --threads COUNT     CPU threads of one run
  --batch-size COUNT  most rows of the UNet in one run
  --memory MIB        most memory of each device, weights included
  --library-path LIST folders with the libraries that CUDA needs, separated as in PATH
  --max-pixels COUNT  largest canvas, width times height (default: 16777216)
  --name NAME         what the pool calls this worker (default: this machine's name)
  --lazy              load the model with the first job, and not at the start
  --drain SECONDS     when told to stop (SIGTERM, SIGINT): how long the pictures that are being drawn may take;
                      then they go back to the pool (default: 30). A second signal gives them back at once.
  --patience SECONDS  without a sign of life for so long, a worker loses its jobs to another one (default: 15);
                      should be the same for all workers of a pool
  --http [HOST:]PORT  where /healthz and /metrics are answered (default: 127.0.0.1:${DEFAULT_PORT}; 0: nowhere)
  --version
  --help
`;

const OPTIONS = {
  redis: { type: 'string' },
  'redis-ca': { type: 'string' },
  pool: { type: 'string', default: 'default' },
  model: { type: 'string', default: POCKET },
  'model-directory': { type: 'string', default: path.join(os.homedir(), '.node-red', 'multidiffusion', 'models') },
  provider: { type: 'string' },
  devices: { type: 'string' },
  threads: { type: 'string' },
  'batch-size': { type: 'string' },
  memory: { type: 'string' },
  'library-path': { type: 'string' },
  'max-pixels': { type: 'string' },
  name: { type: 'string' },
  lazy: { type: 'boolean' },
  drain: { type: 'string', default: '30' },
  patience: { type: 'string', default: '15' },
  http: { type: 'string' },
  version: { type: 'boolean' },
  help: { type: 'boolean' },
} as const;

type Arguments = ReturnType<typeof readArguments>;

function readArguments(args: string[]) {
  try {
    return parseArgs({ args, options: OPTIONS, strict: true }).values;
  } catch (error) {
    throw new MultiDiffusionError('INVALID_INPUT', `${(error as Error).message.split('\n')[0]} See --help.`);
  }
}

function number(name: string, text: string | undefined, least: number, most: number): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value) || value < least || value > most)
    throw new InvalidInputError(`--${name}`, text, `a number from ${least} to ${most}`);
  return value;
}

async function findModel(
  args: Arguments,
  signal: AbortSignal,
): Promise<{ folder: string; source?: { repository: string; revision: string; commit: string } }> {
  const model = args.model.trim();
  if (model === POCKET) return { folder: path.join(PACKAGE, 'models', POCKET) };
  // A path says so by how it begins; what is there is a folder, whatever it looks like.
  const asRepository = /^([\w-][\w.-]*\/[\w-][\w.-]*)(?:@(.+))?$/.exec(model);
  const isFolder = /^([./\\~]|[A-Za-z]:)/.test(model) || !asRepository || isThere(model);
  if (isFolder) return { folder: path.resolve(model) };
  const [, repository, revision = 'main'] = asRepository;
  let told = -1;
  const folder = await fetchRepository({
    repository,
    revision,
    token: process.env.HF_TOKEN || undefined,
    endpoint: process.env.HF_ENDPOINT || undefined,
    directory: path.resolve(args['model-directory']),
    signal,
    onProgress: ({ phase, received, total }) => {
      const percent = total > 0 ? Math.floor((10 * received) / total) * 10 : 0;
      if (percent === told) return;
      told = percent;
      log(phase, { repository, percent });
    },
  });
  const manifest = await readManifest(folder);
  return { folder, ...(manifest && { source: { repository, revision, commit: manifest.commit } }) };
}

function isThere(file: string): boolean {
  try {
    readFileSync(path.join(file, 'model_index.json'));
    return true;
  } catch {
    return false;
  }
}

/** One line for each event: its time, what happened, and facts as key=value. */
function log(event: string, facts: Record<string, unknown> = {}): void {
  const shown = Object.entries(facts).map(([key, value]) => {
    const text = String(value);
    return `${key}=${/[\s"=]/.test(text) ? JSON.stringify(text) : text}`;
  });
  process.stdout.write(`${[new Date().toISOString(), event, ...shown].join(' ')}\n`);
}

function logJob({ id, name, outcome, code, waited, took }: JobRecord): void {
  log('job', {
    id,
    kind: name,
    outcome,
    ...(code && { code }),
    waited: `${Math.round(waited)}ms`,
    took: `${Math.round(took)}ms`,
  });
}

/** @throws InvalidInputError */
function readAddress(args: Arguments): RedisAddress {
  const url = args.redis ?? process.env.MULTIDIFFUSION_REDIS ?? '';
  const file = args['redis-ca'];
  let ca: string | undefined;
  try {
    if (file !== undefined) ca = readFileSync(file, 'utf8');
  } catch {
    throw new InvalidInputError('--redis-ca', file, 'a PEM file that can be read');
  }
  const address = { url, ...(ca && { ca }) };
  describeAddress(address);
  return address;
}

function readListen(text: string | undefined): { host: string; port: number; chosen: boolean } {
  if (text === undefined) return { host: '127.0.0.1', port: DEFAULT_PORT, chosen: false };
  const [, host = '127.0.0.1', port = ''] = /^(?:(.*):)?(\d{1,5})$/.exec(text.trim()) ?? [];
  if (port === '' || Number(port) > 65_535)
    throw new InvalidInputError('--http', text, 'a port, or host:port; 0 for none');
  return { host: host.replace(/^\[|\]$/g, ''), port: Number(port), chosen: true };
}

async function main(): Promise<void> {
  const args = readArguments(process.argv.slice(2));
  if (args.help) return void process.stdout.write(HELP);
  if (args.version) return void process.stdout.write(`${version}\n`);

  const address = readAddress(args);
  const { pool } = new Names(args.pool);
  const drain = number('drain', args.drain, 0, 86_400)! * 1000;
  const patience = number('patience', args.patience, 1, 3600)! * 1000;
  const maxPixels = number('max-pixels', args['max-pixels'], 256, 2 ** 28);
  const listen = readListen(args.http);
  const options = resolveOptions(
    { ...MODEL_OPTIONS, provider: { ...MODEL_OPTIONS.provider, choices: PROVIDERS } },
    { provider: args.provider, threads: args.threads, batchSize: args['batch-size'], memoryBudget: args.memory },
  );
  const { provider, threads, batchSize, memoryBudget } = options;
  const deviceId = readDevices(args.devices);

  const stop = new AbortController();
  let worker = undefined as PoolWorker | undefined;
  const onSignal = (signal: NodeJS.Signals): void => {
    if (!worker) {
      stop.abort();
      process.exit(0);
    }
    if (worker.draining) return worker.handBack();
    log('stopping', { signal, jobs: worker.active });
    // Without Redis there is nobody to say goodbye to: its jobs go to others as those of a dead worker do.
    const late = new Promise((resolve) => setTimeout(resolve, drain + FAREWELL));
    void Promise.race([worker.drain(drain), late]).then(async () => {
      await checkpoint.close();
      log('stopped');
      process.exit(0);
    });
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);

  const { folder, source } = await findModel(args, stop.signal);
  const [checkpoint, identity] = await Promise.all([
    openCheckpoint(folder, {
      provider,
      deviceId,
      threads,
      batchSize,
      memoryBudget,
      libraryPath: args['library-path'],
      onStatus: ({ state, detail }) => {
        if (state === 'restarting' || state === 'failed') log('inference', { state, ...(detail && { detail }) });
      },
    }),
    identityOf(folder),
  ]);
  if (!args.lazy) await checkpoint.load({ signal: stop.signal });
  log('connecting', { redis: describeAddress(address), pool });
  worker = await PoolWorker.start(
    { address, pool, checkpoint, identity, source, name: args.name, version, patience, maxPixels },
    (error) => log('trouble', { message: error.message }),
  );
  worker.on('job', logJob);
  const { name, provider: where } = checkpoint.facts;
  log('ready', { pool, model: name, identity, provider: where, slots: worker.slots, worker: worker.id });
  if (listen.port === 0) return;
  try {
    const { port } = await monitor(worker, checkpoint, listen.host, listen.port);
    log('listening', { http: `${listen.host}:${port}` });
  } catch (error) {
    if (listen.chosen) throw error;
    log('trouble', {
      message: `${(error as Error).message}: no /healthz and /metrics; choose another port with --http`,
    });
  }
}

main().catch((error: Error) => {
  process.stderr.write(`multidiffusion-worker: ${error.message}\n`);
  process.exit(error instanceof InvalidInputError ? 2 : 1);
});
