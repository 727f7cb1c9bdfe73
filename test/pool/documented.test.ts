/** The unit and the compose file of docs/operations.md: their command lines run as they stand there. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { root } from '../unit/support/package';
import { freePort, RedisServer } from './support/redis';
import { WorkerProcess } from './support/worker';

const docs = fs.readFileSync(path.join(root, 'docs', 'operations.md'), 'utf8');
const block = (language: string): string => new RegExp(`^\`\`\`${language}\\n([^]*?)^\`\`\``, 'm').exec(docs)![1];

interface Service {
  image: string;
  command: string;
  environment?: Record<string, string>;
  volumes: string[];
  depends_on?: string[];
}

describe('the documented services', function () {
  this.timeout(60_000);

  it('systemd’s unit starts a worker that drains within its time', async () => {
    const unit = block('ini');
    const value = (name: string): string => new RegExp(`^${name}=(.+)$`, 'm').exec(unit)![1];
    const [program, command, ...args] = value('ExecStart').split(' ');
    assert.deepEqual([program, command], ['/usr/bin/npx', 'multidiffusion-worker']);
    const drain = Number(args[args.indexOf('--drain') + 1]);
    assert.ok(Number(value('TimeoutStopSec')) > drain, 'systemd waits for the draining');
    const redis = await RedisServer.start();
    const own = args.map((arg) => (arg === 'OWNER/NAME' ? 'pocket' : arg));
    const worker = WorkerProcess.spawn([...own, '--lazy', '--http', '0'], { MULTIDIFFUSION_REDIS: redis.url });
    try {
      await worker.says(/ ready pool=studio /);
      worker.signal('SIGTERM');
      assert.equal((await worker.ended).code, 0);
      assert.match(worker.output, / stopped\n/);
    } finally {
      await worker.kill();
      await redis.close();
    }
  });

  it('the compose file’s Redis and worker find each other', async () => {
    const { load } = createRequire(require.resolve('node-red'))('js-yaml') as { load: (text: string) => unknown };
    const { services, volumes } = load(block('yaml')) as {
      services: Record<'redis' | 'worker', Service>;
      volumes: Record<string, unknown>;
    };
    for (const service of Object.values(services)) {
      assert.match(service.image, /^[a-z]+:\d+$/);
      for (const volume of service.volumes) assert.ok(volume.split(':')[0] in volumes, volume);
      for (const other of service.depends_on ?? []) assert.ok(other in services, other);
    }
    const password = 'a-password';
    const fill = (text: string): string => text.replace(/\$\{REDIS_PASSWORD\}/g, password);
    const [server, ...settings] = fill(services.redis.command).split(' ');
    assert.equal(server, 'redis-server');
    const redis = await RedisServer.start(settings);
    const [, args] = /exec npx multidiffusion-worker (.+)"$/.exec(services.worker.command)!;
    const url = fill(services.worker.environment!.MULTIDIFFUSION_REDIS).replace(
      'redis:6379',
      `127.0.0.1:${redis.port}`,
    );
    const port = await freePort();
    const worker = WorkerProcess.spawn([...args.replace('0.0.0.0:9464', `127.0.0.1:${port}`).split(' '), '--lazy'], {
      MULTIDIFFUSION_REDIS: url,
    });
    try {
      await worker.says(/ ready pool=studio /);
      await worker.says(/ listening /);
      assert.equal((await fetch(`http://127.0.0.1:${port}/healthz`)).status, 200);
    } finally {
      await worker.kill();
      await redis.close();
    }
  });
});
