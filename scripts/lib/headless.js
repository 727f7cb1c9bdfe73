'use strict';
// Node-RED in this process, with the nodes of this package: `npm start`, `npm run generate`, the bench and the
// tests of whole flows run on it. Node-RED is one instance per process.
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { createRequire } = require('node:module');
const { downstream, exampleLayout, findStart } = require('./flow');

/** @typedef {import('./flow').FlowNode} FlowNode */

const root = path.join(__dirname, '..', '..');

// The tests choose another Node-RED by its folder.
const nodeRed = process.env.NODE_RED
  ? path.resolve(process.env.NODE_RED)
  : path.join(require.resolve('node-red/package.json'), '..');

/** Node-RED's log levels that tell of trouble: fatal, error. */
const ERROR = 20;
const WARN = 30;

/** A folder that is removed when the process ends. */
function temporaryFolder() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'multidiffusion-'));
  process.once('exit', () => fs.rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/**
 * @param {http.Server} server
 * @param {number} port 0 is any
 * @param {string} host
 * @param {number} tries how many ports to try, one after the other, while they are taken
 * @returns {Promise<number>} the port
 */
function listen(server, port, host, tries) {
  return new Promise((resolve, reject) => {
    server.once('error', (/** @type {NodeJS.ErrnoException} */ error) => {
      if (error.code === 'EADDRINUSE' && tries > 1) resolve(listen(server, port + 1, host, tries - 1));
      else reject(error);
    });
    server.listen(port, host, () => {
      server.removeAllListeners('error');
      resolve(/** @type {import('node:net').AddressInfo} */ (server.address()).port);
    });
  });
}

/**
 * Starts Node-RED.
 * @param {object} [options]
 * @param {string} [options.userDir] Node-RED's user directory; by default a temporary one
 * @param {boolean} [options.editor] whether it serves the editor
 * @param {number} [options.port] of http in nodes and the editor; by default any that is free
 * @param {number} [options.tries] how many ports to try when it is taken
 * @param {string} [options.host]
 * @param {string} [options.images] the folder that save-image writes into
 * @param {Record<string, unknown>} [options.settings] more of settings.js; the roots begin with a slash
 * @param {(entry: { level: number, msg: unknown, id?: string, name?: string }) => unknown} [options.onLog]
 *   takes warnings and errors; by default nodes' ones go to standard error
 */
async function startNodeRed(options = {}) {
  const { editor = false, host = '127.0.0.1', onLog = printLog } = options;
  const userDir = options.userDir ?? temporaryFolder();
  const RED = require(nodeRed);
  const express = createRequire(path.join(nodeRed, 'package.json'))('express');

  /** @type {Set<(entry: { level: number, msg: any, id?: string }) => unknown>} */
  const logListeners = new Set([onLog]);
  const app = express();
  const server = http.createServer(app);
  const port = await listen(server, options.port ?? 0, host, options.tries ?? 1);
  process.env.PORT = String(port);

  const settings = {
    userDir,
    // A folder with a package.json that has a node-red section is loaded like an installed module.
    nodesDir: [root],
    flowFile: 'flows.json',
    flowFilePretty: true,
    uiHost: host,
    uiPort: port,
    httpAdminRoot: /** @type {string | false} */ (editor ? '/' : false),
    httpNodeRoot: '/',
    disableEditor: !editor,
    // Nothing is fetched from the network: no statistics, no catalogue of nodes, no tours.
    telemetry: { enabled: false, updateNotification: false },
    externalModules: { autoInstall: false, palette: { allowInstall: false, allowUpload: false } },
    editorTheme: { tours: false, palette: { catalogues: [] } },
    functionTimeout: 0,
    logging: {
      multidiffusion: {
        level: 'warn',
        handler: () => (/** @type {any} */ entry) => logListeners.forEach((listener) => listener(entry)),
      },
    },
    ...(options.images && { multidiffusion: { imageDirectory: options.images } }),
    ...options.settings,
  };
  RED.init(server, settings);
  if (settings.httpAdminRoot !== false) app.use(String(settings.httpAdminRoot), RED.httpAdmin);
  app.use(settings.httpNodeRoot, RED.httpNode);
  /** Does something that starts the flows, and waits until they run. @param {() => Promise<unknown>} action */
  async function untilFlowsRun(action) {
    /** @type {(event: any) => void} */
    let onEvent = () => {};
    let onStarted = () => {};
    const running = new Promise((resolve, reject) => {
      onStarted = () => resolve(undefined);
      onEvent = ({ id, payload }) => {
        if (id === 'runtime-state' && payload?.error === 'missing-types') {
          reject(new Error(`The flow needs nodes that aren't installed: ${payload.types.join(', ')}.`));
        }
      };
    });
    RED.events.on('flows:started', onStarted);
    RED.events.on('runtime-event', onEvent);
    try {
      await Promise.all([action(), running]);
    } finally {
      RED.events.removeListener('flows:started', onStarted);
      RED.events.removeListener('runtime-event', onEvent);
    }
  }

  await untilFlowsRun(() => RED.start());

  /** Puts the flow in place of the one that runs, and waits until it runs. @param {FlowNode[]} flow */
  function deploy(flow) {
    return untilFlowsRun(() =>
      RED.runtime.flows.setFlows({ flows: { flows: structuredClone(flow) }, deploymentType: 'full' }),
    );
  }

  /**
   * Starts the flow as its inject's button or its endpoint would, and waits until a save-image node is done.
   * @param {FlowNode[]} flow as deployed
   * @param {object} [request]
   * @param {Record<string, unknown>} [request.message] properties of the message, by their (dotted) path
   * @param {number} [request.timeout] in ms
   * @returns {Promise<Record<string, any>>} the message that left save-image
   */
  function generate(flow, { message = {}, timeout = 600_000 } = {}) {
    const start = findStart(flow);
    const reached = new Map(downstream(flow, start).map((node) => [node.id, node]));
    const handler = `onComplete.generate-${start.id}`;

    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => end(reject, new Error(`No picture within ${timeout / 1000} seconds.`)), timeout);
      // A node's error that no Catch node takes is logged; one that is caught still completes with an error.
      const onError = (/** @type {any} */ entry) => {
        if (entry.level <= ERROR && reached.has(entry.id)) end(reject, asError(entry.msg));
      };
      const end = (/** @type {Function} */ settle, /** @type {unknown} */ value) => {
        clearTimeout(timer);
        logListeners.delete(onError);
        RED.hooks.remove(handler);
        settle(value);
      };
      logListeners.add(onError);
      RED.hooks.add(handler, (/** @type {any} */ { msg, error, node }) => {
        if (!reached.has(node.id)) return;
        if (error) end(reject, asError(error));
        else if (reached.get(node.id)?.type === 'save-image') end(resolve, msg);
      });
      trigger(start, flow, message);
    });
  }

  function trigger(
    /** @type {FlowNode} */ start,
    /** @type {FlowNode[]} */ flow,
    /** @type {Record<string, unknown>} */ message,
  ) {
    const node = RED.nodes.getNode(start.id);
    if (start.type === 'inject') {
      const extra = Object.entries(message).map(([p, v]) => ({ p, v: JSON.stringify(v), vt: 'json' }));
      node.receive({ __user_inject_props__: [...node.props, ...extra] });
      return;
    }
    // An endpoint hands on what a client would have sent.
    const msg = { payload: exampleLayout(flow) };
    for (const [key, value] of Object.entries(message)) RED.util.setMessageProperty(msg, key, value, true);
    node.send(msg);
  }

  async function stop() {
    await RED.stop();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }

  return { RED, url: `http://${host}:${port}`, userDir, deploy, generate, stop };
}

function asError(/** @type {any} */ thing) {
  if (thing instanceof Error) return thing;
  return Object.assign(new Error(thing?.message ?? String(thing)), thing?.code && { code: thing.code });
}

/**
 * Prints errors, and warnings of nodes; Node-RED's own warnings at its start are about settings.
 * @returns whether it is one to print
 */
function printLog(
  /** @type {{ level: number, msg: any, type?: string, name?: string, id?: string }} */ { level, msg, type, name, id },
) {
  if (level > (type ? WARN : ERROR)) return false;
  const from = type ? `[${type}:${name || id}] ` : '';
  console.error(`${level <= ERROR ? 'error' : 'warning'}: ${from}${msg?.message ?? msg}`);
  return true;
}

module.exports = { startNodeRed, temporaryFolder, printLog };
