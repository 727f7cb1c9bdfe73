/** Redis as administrators set it up: with TLS, users, too old, on another host. And what a pool leaves there. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { openCheckpoint } from '../../dist/engine/checkpoint/checkpoint';
import { sample } from '../../dist/engine/multidiffusion/sample';
import { identityOf } from '../../dist/engine/pool/identity';
import { openPool, type PoolCheckpoint } from '../../dist/engine/pool/model';
import { checkpointFolder, until } from '../unit/support/checkpoints';
import { root } from '../unit/support/package';
import { bytesOf, composition } from './support/pictures';
import { makeCertificate, RedisServer } from './support/redis';
import { WorkerProcess } from './support/worker';

const FOLDER = checkpointFolder('tiny-lcm');

describe('a pool’s Redis', function () {
  this.timeout(90_000);
  const closing: Array<() => unknown> = [];
  afterEach(async () => {
    for (const close of closing.splice(0).reverse()) await close();
  });

  async function startRedis(settings: string[] = [], tls = false): Promise<RedisServer> {
    const redis = await RedisServer.start(settings, tls);
    closing.push(() => redis.close());
    return redis;
  }

  async function startWorker(url: string, folder = FOLDER, args: string[] = []): Promise<WorkerProcess> {
    const worker = await WorkerProcess.start(url, folder, args);
    closing.push(() => worker.kill());
    return worker;
  }

  async function open(url: string, ca?: string, folder = FOLDER, patience = 30_000): Promise<PoolCheckpoint> {
    const wish = { identity: await identityOf(folder) };
    const pool = await openPool({ address: { url, ca }, pool: 'default', wish, called: 'it', patience });
    closing.push(() => pool.close());
    return pool;
  }

  it('speaks TLS, and only with an authority that is known', async () => {
    const folder = fs.mkdtempSync(path.join(root, 'node_modules', '.pool-tls-'));
    closing.push(() => fs.rmSync(folder, { recursive: true }));
    const { ca, cert, key } = makeCertificate(folder);
    const files = [
      '--tls-cert-file',
      cert,
      '--tls-key-file',
      key,
      '--tls-ca-cert-file',
      ca,
      '--tls-auth-clients',
      'no',
    ];
    const redis = await startRedis(files, true);
    await startWorker(redis.url, FOLDER, ['--redis-ca', ca]);
    const pool = await open(redis.url, fs.readFileSync(ca, 'utf8'));
    await sample(pool, await composition(pool, 1));
    await assert.rejects(open(redis.url, undefined, FOLDER, 5000), { code: 'REDIS_REFUSED', message: /TLS/ });
    const stranger = WorkerProcess.spawn(['--model', FOLDER, '--provider', 'cpu', '--http', '0'], {
      MULTIDIFFUSION_REDIS: redis.url,
    });
    assert.equal((await stranger.ended).code, 1);
    assert.match(stranger.output, /No TLS with the pool's Redis/);
  });

  it('needs no more of a user than docs/operations.md grants', async () => {
    const documented = /`ACL (SETUSER pool on [^`]+)`/.exec(
      fs.readFileSync(path.join(root, 'docs', 'operations.md'), 'utf8'),
    );
    assert.ok(documented, 'the rule');
    const redis = await startRedis(['--requirepass', 'root']);
    const look = redis.look({ password: 'root' });
    closing.push(() => look.disconnect());
    await look.call('ACL', ...documented[1].replace('PASSWORD', 'secret').split(' '));
    const url = redis.url.replace('//', '//pool:secret@');
    const worker = await startWorker(url);
    const pool = await open(url);
    await sample(pool, await composition(pool, 1));
    assert.deepEqual(await look.call('ACL', 'LOG'), [], 'nothing was refused');
    assert.doesNotMatch(worker.output, /trouble|secret/);
    const confined = redis.look({ username: 'pool', password: 'secret' });
    closing.push(() => confined.disconnect());
    for (const [command, ...args] of [
      ['set', 'other', '1'],
      ['flushall'],
      ['config', 'get', '*'],
      ['publish', 'other', '1'],
    ])
      await assert.rejects(confined.call(command, ...args), /NOPERM/, command);
  });

  it('refuses a wrong password at once, without showing it', async () => {
    const redis = await startRedis(['--requirepass', 'right']);
    const url = redis.url.replace('//', '//:wrong-secret@');
    const worker = WorkerProcess.spawn(['--model', FOLDER, '--provider', 'cpu', '--http', '0'], {
      MULTIDIFFUSION_REDIS: url,
    });
    assert.equal((await worker.ended).code, 1);
    assert.match(worker.output, /refuses: wrong user or password/);
    assert.doesNotMatch(worker.output, /wrong-secret/);
    await assert.rejects(open(url), { code: 'REDIS_REFUSED' });
    await assert.rejects(open(redis.url), { code: 'REDIS_REFUSED' });
  });

  it('refuses one that is too old, and says what is needed', async () => {
    // A server that answers as Redis 5 does.
    const info = '# Server\r\nredis_version:5.0.14\r\nmaxmemory:0\r\n';
    const server = net.createServer((socket) => {
      socket.on('error', () => undefined);
      socket.on('data', (data) => {
        for (const [, command] of data.toString().matchAll(/\*\d+\r\n\$\d+\r\n(\w+)/g))
          socket.write(/^info$/i.test(command) ? `$${Buffer.byteLength(info)}\r\n${info}\r\n` : '+OK\r\n');
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    closing.push(() => server.close());
    const { port } = server.address() as net.AddressInfo;
    await assert.rejects(open(`redis://127.0.0.1:${port}`), {
      code: 'REDIS_UNFIT',
      message: /is version 5\.0\.14; a pool needs 6\.2 or newer, or Valkey/,
    });
  });

  it('keeps the jobs of a client that is gone for an hour, where no worker comes', async () => {
    const redis = await startRedis();
    const look = redis.look();
    closing.push(() => look.disconnect());
    const worker = await startWorker(redis.url);
    const pool = await open(redis.url);
    const request = await composition(pool, 1);
    await worker.kill();
    const waiting = sample(pool, request);
    waiting.catch(() => undefined);
    const job = /:pictures-[0-9a-f]{32}-v1:[0-9a-f-]{36}-\d+$/;
    let keys: string[] = [];
    await until(() => {
      void look.keys('*').then(
        (found) => (keys = found),
        () => undefined,
      );
      return keys.some((key) => job.test(key));
    }, 'the job');
    const lasting: string[] = [];
    await until(() => {
      void Promise.all(keys.map(async (key) => [key, await look.pttl(key)] as const)).then(
        (ends) => lasting.splice(0, lasting.length, '-', ...ends.filter(([, ms]) => ms === -1).map(([key]) => key)),
        () => undefined,
      );
      // Which workers and queues there are: a name each.
      return lasting.length > 0 && lasting.every((key) => /^-$|:(workers|queues)$/.test(key));
    }, 'an end for each');
    await pool.close();
    await assert.rejects(waiting, { code: 'CANCELLED' });
  });

  it('serves hosts of a network that is cut and mended', async function () {
    const run = (...args: string[]): void => void execFileSync('ip', args, { stdio: 'pipe' });
    const name = `pool${process.pid % 10_000}`;
    try {
      run('netns', 'add', name);
    } catch (error) {
      const { stderr } = error as { stderr?: Buffer };
      this.test!.title += ` (no network namespaces here: ${stderr?.toString().trim() || (error as Error).message})`;
      return this.skip();
    }
    closing.push(() => run('netns', 'del', name));
    const [here, there] = [`${name}a`, `${name}b`];
    run('link', 'add', here, 'type', 'veth', 'peer', 'name', there, 'netns', name);
    run('addr', 'add', '10.231.77.1/30', 'dev', here);
    run('link', 'set', here, 'up');
    for (const words of [
      ['addr', 'add', '10.231.77.2/30', 'dev', there],
      ['link', 'set', there, 'up'],
    ])
      run('-n', name, ...words);
    const redis = await startRedis(['--bind', '127.0.0.1', '10.231.77.1', '--protected-mode', 'no']);
    const url = `redis://10.231.77.1:${redis.port}`;
    const far = await WorkerProcess.start(url, FOLDER, ['--patience', '2'], ['ip', 'netns', 'exec', name]);
    closing.push(() => far.kill());
    const pool = await open(redis.url);
    const { options, ...request } = await composition(pool, 1);
    const long = { ...options, scheduler: 'DDIMScheduler' as const, steps: 150 };
    let steps = 0;
    const expected = bytesOf((await sample(pool, { ...request, options: long })).latents);
    const drawn = sample(pool, { ...request, options: long, onStep: ({ index }) => void (steps = index) });
    await until(() => steps > 2, 'the first steps', 40);
    run('link', 'set', here, 'down');
    // Another worker, on this host, takes over what the cut one was at.
    const near = await startWorker(redis.url, FOLDER, ['--patience', '2']);
    assert.equal(bytesOf((await drawn).latents), expected);
    assert.ok(near.jobs.some((line) => /kind=sample outcome=done/.test(line)));
    run('link', 'set', here, 'up');
    await near.kill();
    assert.equal(bytesOf((await sample(pool, { ...request, options: long })).latents), expected);
    assert.ok(far.jobs.filter((line) => /kind=sample outcome=done/.test(line)).length >= 2, far.output);
  });

  for (const name of ['tiny-sdxl', 'tiny-sd3', 'tiny-flux'])
    it(`draws with ${name} as here`, async () => {
      const redis = await startRedis();
      const folder = checkpointFolder(name);
      await startWorker(redis.url, folder);
      const here = await openCheckpoint(folder, { provider: 'cpu', threads: 1 });
      closing.push(() => here.close());
      const pool = await open(redis.url, undefined, folder);
      const request = async (checkpoint: typeof here): Promise<Parameters<typeof sample>[1]> => {
        const background = await checkpoint.encodeConditioning('a living room');
        return { background, options: { steps: 2, seed: 3 } };
      };
      const expected = await sample(here, await request(here));
      const actual = await sample(pool, await request(pool));
      assert.equal(bytesOf(actual.latents), bytesOf(expected.latents));
      assert.equal(bytesOf(await pool.decode(actual.latents)), bytesOf(await here.decode(expected.latents)));
    });
});
