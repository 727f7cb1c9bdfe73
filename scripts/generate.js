'use strict';
// npm run generate -- FLOW.json [--set key=value …] [--out DIR]: runs a flow in a headless Node-RED until its
// save-image has written, and prints the file's path as its last line.
const { access, constants } = require('node:fs/promises');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { applySettings, parseSetting, readFlow } = require('./lib/flow');
const { makeFolder } = require('../dist/engine/files/make-folder');
const { printLog, startNodeRed } = require('./lib/headless');

const USAGE = `Usage: npm run generate -- FLOW.json [--set key=value …] [--out DIR] [--timeout SECONDS]

  --set key=value   a property of the message that starts the flow (prompt, seed, steps, width, payload …),
                    or of a node, by its name or type: --set "sofa.box=[0.1,0.5,0.4,0.4]"
  --out DIR         where the picture is written (default: the current folder)
  --timeout SECONDS how long to wait (default: 600)`;

/** What has been printed already. @type {Set<string>} */
const told = new Set();

function onLog(/** @type {any} */ entry) {
  if (printLog(entry)) told.add(entry.msg?.message ?? entry.msg);
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      set: { type: 'string', multiple: true, default: [] },
      out: { type: 'string', default: '.' },
      timeout: { type: 'string', default: '600' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help) return console.log(USAGE);
  const timeout = Number(values.timeout) * 1000;
  if (positionals.length !== 1)
    throw new Error(`One flow file is needed, ${positionals.length} were given.\n\n${USAGE}`);
  if (!(timeout > 0)) throw new Error(`--timeout is ${values.timeout}; it should be a number of seconds.`);

  // npm changes into the package's folder; paths are meant from where the user is.
  const here = process.env.INIT_CWD ?? process.cwd();
  const { flow, message, notes } = applySettings(
    readFlow(path.resolve(here, positionals[0])),
    Object.fromEntries(values.set.map(parseSetting)),
  );
  for (const note of notes) console.error(note);
  for (const node of flow) if (node.type === 'save-image') Object.assign(node, { save: true, folder: '' });

  const images = path.resolve(here, values.out);
  await makeFolder(images)
    .then(() => access(images, constants.W_OK))
    .catch((error) => {
      throw new Error(`--out ${values.out}: ${images} can't be used as a folder for pictures: ${error.message}`);
    });
  const nodeRed = await startNodeRed({ images, onLog });
  try {
    await nodeRed.deploy(flow);
    const { filename } = await nodeRed.generate(flow, { message, timeout });
    return filename;
  } finally {
    await nodeRed.stop();
  }
}

main().then(
  (filename) => {
    if (filename) console.log(filename);
    process.exit(0);
  },
  (error) => {
    if (!told.has(error.message)) console.error(error.message);
    process.exit(1);
  },
);
