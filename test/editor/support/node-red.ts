/** A Node-RED with the package installed, as a process of its own. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';

export const ROOT = path.resolve(__dirname, '../../..');

/** A Node-RED to test with, and the Node that runs it. */
export interface Version {
  name: string;
  redJs: string;
  node: string;
}

const NODE_RED_5 = path.join(ROOT, 'test/node-red-5');

export const VERSIONS: Version[] = [
  { name: 'Node-RED 4', redJs: path.join(ROOT, 'node_modules/node-red/red.js'), node: process.execPath },
  {
    name: 'Node-RED 5',
    redJs: path.join(NODE_RED_5, 'node_modules/node-red/red.js'),
    node: path.join(NODE_RED_5, 'node_modules/.bin/node'),
  },
];

export interface NodeRed {
  url: string;
  userDir: string;
  /** All that it has printed. */
  log: () => string;
  stop: () => Promise<void>;
}

/** FlowFuse's dashboard, which example 19 needs. */
export const DASHBOARD = path.join(ROOT, 'test/dashboard/node_modules/@flowfuse/node-red-dashboard');

/**
 * @param packages what is installed by its name: where it lies
 * @param language the server's, which is that of its log and of nothing in a browser
 */
export async function startNodeRed(
  version: Version,
  packages: Record<string, string> = {},
  language: 'en-US' | 'es-ES' = 'en-US',
): Promise<NodeRed> {
  if (!fs.existsSync(version.redJs))
    throw new Error(`${version.name} is not installed (${version.redJs}): npm run test:browser installs it.`);
  const userDir = fs.mkdtempSync(path.join(os.tmpdir(), 'multidiffusion-editor-'));
  fs.mkdirSync(path.join(userDir, 'node_modules'));
  for (const [name, folder] of Object.entries({ 'node-red-contrib-multidiffusion': ROOT, ...packages })) {
    if (!fs.existsSync(folder)) throw new Error(`${name} is not in ${folder}: npm run test:browser installs it.`);
    const link = path.join(userDir, 'node_modules', name);
    fs.mkdirSync(path.dirname(link), { recursive: true });
    fs.symlinkSync(folder, link);
  }
  const port = await freePort();
  const settings = {
    flowFile: 'flows.json',
    lang: language,
    uiHost: '127.0.0.1',
    uiPort: port,
    credentialSecret: 'test',
    telemetry: { enabled: false, updateNotification: false },
    externalModules: { autoInstall: false, palette: { allowInstall: false, allowUpload: false } },
    editorTheme: { tours: false, projects: { enabled: false }, palette: { catalogues: [] } },
    logging: { console: { level: 'info', metrics: false, audit: false } },
  };
  const settingsFile = path.join(userDir, 'settings.js');
  fs.writeFileSync(settingsFile, `module.exports = ${JSON.stringify(settings)}`);

  const child = spawn(version.node, [version.redJs, '--settings', settingsFile, '--userDir', userDir], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let log = '';
  child.stdout.on('data', (chunk) => (log += String(chunk)));
  child.stderr.on('data', (chunk) => (log += String(chunk)));
  const stop = async (): Promise<void> => {
    await end(child);
    fs.rmSync(userDir, { recursive: true, force: true });
  };
  try {
    await started(child, () => log);
  } catch (error) {
    await stop();
    throw error;
  }
  return { url: `http://127.0.0.1:${port}`, userDir, log: () => log, stop };
}

async function started(child: ChildProcess, log: () => string): Promise<void> {
  const deadline = Date.now() + 90_000;
  while (!/Started flows|Flujos iniciados/.test(log())) {
    if (child.exitCode !== null || Date.now() > deadline) throw new Error(`Node-RED did not start:\n${log()}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), 20_000);
  await exited;
  clearTimeout(timer);
}

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
