/** The two commands that a user types first, as processes of their own. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import sharp from 'sharp';
import { readRecipe } from '../../dist/engine/image/metadata';
import { modulesOf, readFlow } from '../../scripts/lib/flow.js';
import { temporaryFolder } from '../../scripts/lib/headless.js';

const root = path.join(__dirname, '..', '..');
const examples = path.join(root, 'examples');

interface Result {
  code: number | null;
  stdout: string;
  stderr: string;
}

function run(command: string, args: string[], env: Record<string, string> = {}): Promise<Result> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      shell: process.platform === 'win32',
    });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (data) => (stdout += data));
    child.stderr.on('data', (data) => (stderr += data));
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, stdout, stderr }));
  });
}

const lastLine = (text: string): string => text.trimEnd().split('\n').at(-1)!;

describe('commands', function () {
  this.timeout(180_000);
  describe('npm run generate', () => {
    const generate = (...args: string[]): Promise<Result> => run(process.execPath, ['scripts/generate.js', ...args]);

    it('writes the picture, with the settings, and prints its path last', async () => {
      const out = temporaryFolder();
      const { code, stdout, stderr } = await run('npm', [
        'run',
        'generate',
        '--',
        path.join(examples, '01-text-to-image.json'),
        '--set',
        'prompt=a green tree',
        '--set',
        'seed=11',
        '--set',
        'multidiffusion-sampler.steps=2',
        '--out',
        out,
      ]);
      assert.equal(code, 0, stderr);
      const file = lastLine(stdout);
      assert.equal(path.dirname(file), out);
      const recipe = await readRecipe(fs.readFileSync(file));
      assert.match(JSON.stringify(recipe), /a green tree/);
      assert.match(JSON.stringify(recipe), /"seed":11/);
    });

    it('runs an endpoint with the layout of its comment', async () => {
      const out = temporaryFolder();
      const { code, stdout, stderr } = await generate(
        path.join(examples, '07-mqtt.json'),
        '--out',
        out,
        '--set',
        'steps=2',
      );
      assert.equal(code, 0, stderr);
      assert.equal((await sharp(lastLine(stdout)).metadata()).format, 'png');
    });

    it('ends with the error of a node', async () => {
      const { code, stderr } = await generate(path.join(examples, '01-text-to-image.json'), '--set', 'steps=0');
      assert.equal(code, 1);
      assert.match(stderr, /steps is 0; allowed: a whole number from 1 to 1000/);
      assert.equal(stderr.match(/steps is 0/g)!.length, 1, 'said once');
    });

    it('ends with the error of a node that the flow catches', async () => {
      const { code, stderr } = await generate(
        path.join(examples, '06-http.json'),
        '--set',
        'payload={"prompt":"a","steps":0}',
      );
      assert.equal(code, 1);
      assert.equal(stderr.match(/steps is 0/g)!.length, 1);
    });

    it('ends at once when the folder for the picture cannot be made', async function () {
      const file = path.join(temporaryFolder(), 'file');
      fs.writeFileSync(file, '');
      const places = [path.join(file, 'folder'), file];
      if (process.platform === 'linux') places.push('/proc/nope/at/all');
      for (const place of places) {
        const { code, stdout, stderr } = await generate(path.join(examples, '01-text-to-image.json'), '--out', place);
        assert.equal(code, 1);
        assert.ok(stderr.startsWith(`--out ${place}: ${place} can't be used as a folder for pictures: `), stderr);
        assert.equal(stdout, '');
      }
    });

    it('ends with a sentence when the file is no flow', async () => {
      const missing = await generate('no-such-flow.json');
      assert.equal(missing.code, 1);
      assert.match(missing.stderr, /no-such-flow\.json can't be read as a flow/);
      const wrong = await generate(path.join(root, 'package.json'));
      assert.equal(wrong.code, 1);
      assert.match(wrong.stderr, /is no flow/);
    });
  });

  describe('npm start', () => {
    it('opens the editor with all examples and makes the first picture', async () => {
      const userDir = temporaryFolder();
      const { code, stdout, stderr } = await run(
        process.execPath,
        ['scripts/start.js', '--once', '--user-dir', userDir],
        { PORT: '0' },
      );
      assert.equal(code, 0, stderr);
      assert.match(stdout, /Node-RED runs at http:\/\/127\.0\.0\.1:\d+\/#flow\/[0-9a-f]{16}/);
      assert.match(stdout, /The web page of example 14 is at http:\/\/127\.0\.0\.1:\d+\/studio\./);
      const file = /first picture, after [\d.]+ s: (.+)/.exec(stdout)?.[1];
      assert.equal((await sharp(file).metadata()).format, 'png');
      const tabs = JSON.parse(fs.readFileSync(path.join(userDir, 'flows.json'), 'utf8')).filter(
        ({ type }: { type: string }) => type === 'tab',
      );
      assert.match(tabs[0].label, /^02 /);
      const files = fs.readdirSync(examples);
      const complete = files.filter((file) => modulesOf(readFlow(path.join(examples, file))).length === 0);
      assert.equal(tabs.length, complete.length);
      assert.match(stdout, /Example 19-dashboard is left out: install @flowfuse\/node-red-dashboard in /);
    });

    it('takes the next free port, goes on running, and ends on Ctrl-C', async () => {
      const taken = net.createServer().listen(0, '127.0.0.1');
      await once(taken, 'listening');
      const { port } = taken.address() as net.AddressInfo;
      const userDir = temporaryFolder();
      const child = spawn(process.execPath, ['scripts/start.js', '--user-dir', userDir], {
        cwd: root,
        env: { ...process.env, PORT: String(port) },
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      try {
        let stdout = '';
        while (!/first picture, after/.test(stdout)) stdout += String(await once(child.stdout, 'data'));
        const url = /http:\/\/127\.0\.0\.1:(\d+)\//.exec(stdout)!;
        assert.ok(Number(url[1]) > port);
        assert.match(await (await fetch(url[0])).text(), /Node-RED/);
        child.kill('SIGINT');
        const [code] = await once(child, 'close');
        assert.equal(code, 0);
        await assert.rejects(fetch(url[0]));
      } finally {
        child.kill('SIGKILL');
        taken.close();
      }
    });
  });
});
