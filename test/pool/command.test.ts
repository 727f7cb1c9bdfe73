/** multidiffusion-worker as a command: what it says of its options, what it answers over HTTP; and that nothing else loads BullMQ. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { sample } from '../../dist/engine/multidiffusion/sample';
import { identityOf } from '../../dist/engine/pool/identity';
import { openPool } from '../../dist/engine/pool/model';
import { checkpointFolder, until } from '../unit/support/checkpoints';
import { root } from '../unit/support/package';
import { composition } from './support/pictures';
import { freePort, RedisServer } from './support/redis';
import { WorkerProcess } from './support/worker';

const FOLDER = checkpointFolder('tiny-lcm');

describe('multidiffusion-worker', function () {
  this.timeout(60_000);

  async function ends(args: string[], env: NodeJS.ProcessEnv = {}): Promise<{ code: number | null; output: string }> {
    const worker = WorkerProcess.spawn(args, { MULTIDIFFUSION_REDIS: '', ...env });
    const { code } = await worker.ended;
    await until(() => worker.output !== '' || code === 0, 'what it says');
    return { code, output: worker.output };
  }

  it('explains every option that it takes, and its version', async () => {
    const { code, output } = await ends(['--help']);
    assert.equal(code, 0);
    const source = fs.readFileSync(path.join(root, 'engine', 'pool', 'cli.ts'), 'utf8');
    const [, table] = /const OPTIONS = \{([^]*?)\n\} as const;/.exec(source)!;
    const names = [...table.matchAll(/^ {2}'?([a-z-]+)'?: /gm)].map(([, name]) => name);
    assert.ok(names.length > 15);
    for (const name of names) assert.match(output, new RegExp(`^ {2}--${name}\\b`, 'm'));
    const { version } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8')) as { version: string };
    assert.equal((await ends(['--version'])).output, `${version}\n`);
  });

  const redis = ['--redis', 'redis://127.0.0.1:1'];
  const wrong: Array<[args: string[], says: RegExp]> = [
    [[], /redis is empty; allowed: redis:\/\/host:port/],
    [['--redis', 'http://me:secret@host'], /another kind of address.*rediss:\/\/ for TLS/],
    [['--redis', 'redis://host/one'], /a database that is no number/],
    [[...redis, '--redis-ca', '/nowhere/ca.pem'], /--redis-ca.*\/nowhere\/ca\.pem/],
    [[...redis, '--pool', 'a b'], /pool.*"a b".*1 to 64 letters/],
    [[...redis, '--provider', 'gpu'], /provider.*"gpu".*cpu.*cuda/],
    [[...redis, '--devices', 'first'], /"first"/],
    [[...redis, '--threads', '0'], /threads.*0.*1 to 256/],
    [[...redis, '--batch-size', 'many'], /batchSize|batch-size/],
    [[...redis, '--memory', '-1'], /memory/],
    [[...redis, '--max-pixels', '1'], /--max-pixels.*"1".*from 256/],
    [[...redis, '--drain', 'long'], /--drain.*"long".*from 0 to 86400/],
    [[...redis, '--patience', '0'], /--patience.*"0".*from 1 to 3600/],
    [[...redis, '--http', 'here'], /--http.*"here".*a port, or host:port/],
    [[...redis, '--http', '70000'], /--http.*"70000"/],
    [[...redis, '--modle', 'x'], /--modle.*See --help/],
    [[...redis, 'stray'], /stray.*See --help/],
    [[...redis, '--model', '/nowhere/at/all', '--provider', 'cpu'], /\/nowhere\/at\/all/],
  ];
  for (const [args, says] of wrong)
    it(`refuses ${args.filter((word) => !redis.includes(word)).join(' ') || 'no address'}`, async () => {
      const { code, output } = await ends(args);
      assert.ok(code === 1 || code === 2, `${code}: ${output}`);
      assert.match(output, says);
      assert.match(output, /^multidiffusion-worker: [^\n]+\n$/, 'one line, no stack');
      assert.doesNotMatch(output, /secret/);
    });

  it('answers /healthz and /metrics', async () => {
    const server = await RedisServer.start();
    const port = await freePort();
    const worker = await WorkerProcess.start(server.url, FOLDER, ['--http', String(port)]);
    const wish = { identity: await identityOf(FOLDER) };
    const pool = await openPool({ address: server.address, pool: 'default', wish, called: 'it', patience: 30_000 });
    let state = 0;
    const get = (path: string, init?: RequestInit): Promise<Response> => fetch(`http://127.0.0.1:${port}${path}`, init);
    try {
      await worker.says(/ listening /);
      await sample(pool, await composition(pool, 1));
      await until(() => worker.jobs.some((line) => /kind=sample outcome=done/.test(line)), 'the job’s line');
      const health = await get('/healthz');
      assert.equal(health.status, 200);
      assert.deepEqual(await health.json(), { status: 'ok', busy: 0, slots: 1 });
      const metrics = await get('/metrics');
      assert.match(metrics.headers.get('content-type')!, /^text\/plain; version=0\.0\.4/);
      const text = await metrics.text();
      assert.match(text, /^multidiffusion_jobs_total\{job="sample",outcome="done"\} 1$/m);
      assert.match(text, /^multidiffusion_jobs_total\{job="encodePrompts",outcome="done"\} \d+$/m);
      assert.match(text, /^multidiffusion_(job|unet)_seconds_total(\{[^}]*\})? 0?\.?\d+/m);
      assert.match(text, /^multidiffusion_waiting_jobs 0$/m);
      // Every line is a comment, or a name, labels and a number, as Prometheus reads them.
      for (const line of text.trimEnd().split('\n'))
        assert.match(
          line,
          /^(# (HELP|TYPE) multidiffusion_\w+ .+|multidiffusion_\w+(\{\w+="[\w-]*"(,\w+="[\w-]*")*\})? [\d.e+-]+)$/,
        );
      assert.equal((await get('/other')).status, 404);
      assert.equal((await get('/metrics', { method: 'POST' })).status, 405);
      await server.stop();
      await until(() => {
        void get('/healthz').then(({ status }) => (state = status));
        return state === 503;
      }, 'it is not well');
      assert.match(await (await get('/metrics')).text(), /^multidiffusion_redis_connected 0$/m);
    } finally {
      await pool.close();
      await worker.kill();
      await server.close();
    }
  });

  it('does not share jobs with another version of the protocol, and the client says so', async () => {
    const server = await RedisServer.start();
    const worker = await WorkerProcess.start(server.url, FOLDER);
    const look = server.look();
    try {
      const identity = await identityOf(FOLDER);
      // As a newer worker would announce itself.
      const [key] = await look.keys('multidiffusion:default:worker:*');
      const info = JSON.parse((await look.get(key))!) as object;
      await worker.kill();
      await look.set(key, JSON.stringify({ ...info, protocol: 99, version: '9.9.9' }));
      const wish = { identity };
      await assert.rejects(
        openPool({ address: server.address, pool: 'default', wish, called: 'it', patience: 20_000 }),
        { code: 'VERSION_MISMATCH', message: /of version 9\.9\.9.*Install the same version on both/ },
      );
    } finally {
      look.disconnect();
      await worker.kill();
      await server.close();
    }
  });
});

describe('BullMQ and ioredis', function () {
  this.timeout(60_000);

  it('are loaded only where a pool is used', () => {
    const nodes = fs
      .readdirSync(path.join(root, 'dist', 'nodes'))
      .map((name) => path.join(root, 'dist', 'nodes', name, `${name}.js`))
      .filter((file) => fs.existsSync(file));
    assert.ok(nodes.length >= 11);
    const program = `
      const files = ${JSON.stringify([path.join(root, 'dist', 'engine', 'index.js'), ...nodes])};
      for (const file of files) require(file);
      const { openCheckpoint } = require(files[0]);
      openCheckpoint(${JSON.stringify(FOLDER)}, { provider: 'cpu', threads: 1 }).then(async (checkpoint) => {
        await checkpoint.encodePrompts(['a sofa']);
        await checkpoint.close();
        const loaded = Object.keys(require.cache).filter((file) => /node_modules.(bullmq|ioredis)./.test(file));
        console.log(JSON.stringify({ loaded, all: Object.keys(require.cache).length }));
      });`;
    const said = JSON.parse(execFileSync(process.execPath, ['-e', program], { encoding: 'utf8' })) as {
      loaded: string[];
      all: number;
    };
    assert.deepEqual(said.loaded, []);
    assert.ok(said.all > 20, 'the package was loaded');
  });
});
