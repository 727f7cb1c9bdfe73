// Stands in for the inference process: answers at once, and dies when told to. A file named by the setup's
// tokenizerFolder makes it die at its start, and remembers that it has died once.
const fs = require('node:fs');

const DIE = 666;
const DIE_ONCE = 667;
const held = new Set();
let mark;

function die() {
  fs.writeSync(2, 'about to die\n');
  process.kill(process.pid, 'SIGKILL');
}

process.on('disconnect', () => process.exit());
process.on('message', (message) => {
  const answer = (result) => process.send({ type: 'result', id: message.id, result });
  switch (message.type) {
    case 'open':
      mark = message.setup.tokenizerFolder;
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
      return answer({ outputs: message.latents, runMilliseconds: 0 });
  }
});
