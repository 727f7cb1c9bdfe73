// Stands in for the inference process: answers at once, and dies when told to. A file named by the setup's
// textEncoders[0].tokenizerFolder makes it die at its start, and remembers that it has died once.
const fs = require('node:fs');
const path = require('node:path');
const { Worker } = require('node:worker_threads');

const DIE = 666;
const DIE_ONCE = 667;
/** Stops as a process does that gets no turn any more: always, or once. */
const STOP = 700;
const STOP_ONCE = 701;
/** Works for three seconds that keep the main thread: with the processor, or waiting for a device. */
const COMPUTE = 710;
const WAIT = 711;
/** Never ends, and uses no processor. */
const WAIT_FOREVER = 712;
const held = new Set();
let mark;

function die() {
  fs.writeSync(2, 'about to die\n');
  process.kill(process.pid, 'SIGKILL');
}

function wait(milliseconds) {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

function compute(milliseconds) {
  const end = Date.now() + milliseconds;
  while (Date.now() < end);
}

new Worker(path.join(__dirname, '../../../dist/engine/inference/process/pulse.js'));
process.on('disconnect', () => process.exit());
process.on('message', (message) => {
  const answer = (result) => process.send({ type: 'result', id: message.id, result });
  switch (message.type) {
    case 'open':
      mark = message.setup.textEncoders[0].tokenizerFolder;
      if (fs.existsSync(mark) && fs.readFileSync(mark, 'utf8') === 'die at the start') process.exit(3);
      return answer({ provider: 'fake' });
    case 'hold':
      return held.add(message.key);
    case 'decode':
      return answer({ pixels: new Uint8Array(0), dims: [held.size] });
    case 'predict':
      if (message.timestep === DIE) return die();
      if (message.timestep === DIE_ONCE && !fs.existsSync(mark)) {
        fs.writeFileSync(mark, 'died once');
        return die();
      }
      if (message.timestep === STOP) process.kill(process.pid, 'SIGSTOP');
      if (message.timestep === STOP_ONCE && !fs.existsSync(mark)) {
        fs.writeFileSync(mark, 'stopped once');
        process.kill(process.pid, 'SIGSTOP');
      }
      if (message.timestep === COMPUTE) compute(3000);
      if (message.timestep === WAIT) wait(3000);
      if (message.timestep === WAIT_FOREVER) wait(1e9);
      return answer({ outputs: message.latents, runMilliseconds: 0 });
  }
});
