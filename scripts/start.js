'use strict';
// npm start: opens Node-RED with the example flows, makes the first picture, and goes on running until Ctrl-C.
const fs = require('node:fs');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { makeFolder } = require('../dist/engine/files/make-folder');
const { modulesOf, readFlow } = require('./lib/flow');
const { startNodeRed } = require('./lib/headless');
const { startBroker } = require('./lib/broker');

const root = path.join(__dirname, '..');
const FIRST = '02-living-room.json';

const USAGE = `Usage: npm start -- [--once] [--fresh] [--user-dir DIR]

  --once          end after the first picture
  --fresh         load the examples again, in place of the flows as you left them
  --user-dir DIR  Node-RED's user directory (default: .work/node-red)

The port is PORT or 1880, the next free one if that is taken; HOST is the address to listen on (127.0.0.1).`;

/**
 * All examples for which Node-RED has the nodes, the first picture's before the others.
 * @param {string} userDir
 */
function readExamples(userDir) {
  const files = fs
    .readdirSync(path.join(root, 'examples'))
    .filter((file) => file.endsWith('.json'))
    .sort();
  files.sort((a, b) => Number(b === FIRST) - Number(a === FIRST));
  return files.flatMap((file) => {
    const flow = readFlow(path.join(root, 'examples', file));
    const missing = modulesOf(flow).filter((name) => !fs.existsSync(path.join(userDir, 'node_modules', name)));
    if (missing.length === 0) return [flow];
    console.log(
      `Example ${path.basename(file, '.json')} is left out: install ${missing.join(', ')} in ${userDir} first.`,
    );
    return [];
  });
}

/** Whether it serves example 14's page. @param {import('./lib/flow').FlowNode} node */
const isPage = ({ type, url }) => type === 'http in' && url === '/studio';

async function main() {
  const { values } = parseArgs({
    options: {
      once: { type: 'boolean' },
      fresh: { type: 'boolean' },
      'user-dir': { type: 'string', default: path.join(root, '.work', 'node-red') },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help) return console.log(USAGE);

  const userDir = path.resolve(values['user-dir']);
  const flowFile = path.join(userDir, 'flows.json');
  const examples = readExamples(userDir);
  await makeFolder(userDir);
  if (values.fresh || !fs.existsSync(flowFile)) fs.writeFileSync(flowFile, JSON.stringify(examples.flat(), null, 4));

  const broker = await startBroker();
  const nodeRed = await startNodeRed({
    userDir,
    editor: true,
    host: process.env.HOST || '127.0.0.1',
    port: Number(process.env.PORT || 1880),
    tries: 100,
  });
  const stop = async (code = 0) => {
    // Whatever a node still waits for, the program ends when it is told to.
    setTimeout(() => process.exit(code || 1), 15_000).unref();
    // The broker goes last: the MQTT nodes say goodbye to it.
    await nodeRed.stop();
    await broker?.stop();
    process.exit(code);
  };
  process.once('SIGINT', () => void stop());
  process.once('SIGTERM', () => void stop());

  const flow = examples[0];
  const tab = flow.find((node) => node.type === 'tab');
  console.log(`Node-RED runs at ${nodeRed.url}/#flow/${tab.id} (Ctrl-C ends it).`);
  console.log(
    broker
      ? `An MQTT broker for example 07 listens at ${broker.url}.`
      : 'Port 1883 is taken: example 07 speaks to the MQTT broker there.',
  );
  const page = JSON.parse(fs.readFileSync(flowFile, 'utf8')).find(isPage);
  if (page) console.log(`The web page of example 14 is at ${nodeRed.url}${page.url}.`);
  console.log('The first picture is being made …');
  try {
    const started = Date.now();
    const { filename } = await nodeRed.generate(flow);
    console.log(`The first picture, after ${((Date.now() - started) / 1000).toFixed(1)} s: ${filename}`);
  } catch (error) {
    console.error(`The first picture failed: ${error.message}`);
    if (values.once) return stop(1);
  }
  if (values.once) return stop();
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
