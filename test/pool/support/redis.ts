/** A Redis server of the tests' own, on a free port, with its own folder; it can be killed, stopped and started again. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { Redis } from 'ioredis';

export class RedisServer {
  readonly folder = fs.mkdtempSync(path.join(os.tmpdir(), 'pool-redis-'));
  private child: ChildProcess | undefined;

  private constructor(
    readonly port: number,
    private readonly settings: string[],
    private readonly tls: boolean,
  ) {}

  /** @param settings as on the server's command line */
  static async start(settings: string[] = [], tls = false): Promise<RedisServer> {
    const server = new RedisServer(await freePort(), settings, tls);
    await server.run();
    return server;
  }

  get url(): string {
    return `${this.tls ? 'rediss' : 'redis'}://127.0.0.1:${this.port}`;
  }

  get address(): { url: string; ca?: string } {
    return { url: this.url };
  }

  /** Starts it, after it was stopped with all that its append-only file holds. */
  async run(): Promise<void> {
    const port = this.tls ? ['--port', '0', '--tls-port', String(this.port)] : ['--port', String(this.port)];
    const child = spawn(
      'redis-server',
      [...port, '--bind', '127.0.0.1', '--dir', this.folder, '--save', '', '--appendonly', 'yes', ...this.settings],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    this.child = child;
    await new Promise<void>((resolve, reject) => {
      let said = '';
      child.stdout!.on('data', (text: Buffer) => {
        said += text.toString();
        if (/Ready to accept connections/.test(said)) resolve();
      });
      child.once('error', reject);
      child.once('exit', (code) => reject(new Error(`redis-server ended with ${code}: ${said}`)));
    });
  }

  /** SIGTERM: it writes what it holds and ends. */
  stop(): Promise<void> {
    return this.end('SIGTERM');
  }

  /** SIGKILL: what it has not written yet is lost. */
  kill(): Promise<void> {
    return this.end('SIGKILL');
  }

  /** SIGSTOP or SIGCONT: connections stay, and nothing is answered. */
  signal(signal: NodeJS.Signals): void {
    this.child?.kill(signal);
  }

  async close(): Promise<void> {
    await this.end('SIGKILL');
    fs.rmSync(this.folder, { recursive: true, force: true });
  }

  /** A connection to look into it with; to be closed by `disconnect`. */
  look(options: object = {}): Redis {
    const redis = new Redis({ port: this.port, host: '127.0.0.1', ...options });
    redis.on('error', () => undefined);
    return redis;
  }

  private async end(signal: NodeJS.Signals): Promise<void> {
    const { child } = this;
    this.child = undefined;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGCONT');
    child.kill(signal);
    await gone;
  }
}

export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as net.AddressInfo;
      server.close(() => resolve(port));
    });
  });
}

/** A certificate for 127.0.0.1 and the authority that signed it. */
export function makeCertificate(folder: string): { ca: string; cert: string; key: string } {
  const file = (name: string): string => path.join(folder, name);
  const openssl = (...args: string[]): void => void execFileSync('openssl', args, { stdio: 'ignore', cwd: folder });
  openssl(
    'req',
    '-x509',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-days',
    '2',
    '-subj',
    '/CN=tests',
    '-keyout',
    'ca.key',
    '-out',
    'ca.crt',
  );
  openssl('req', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=redis', '-keyout', 'redis.key', '-out', 'redis.csr');
  fs.writeFileSync(file('extensions'), 'subjectAltName=IP:127.0.0.1');
  openssl(
    'x509',
    '-req',
    '-days',
    '2',
    '-in',
    'redis.csr',
    '-CA',
    'ca.crt',
    '-CAkey',
    'ca.key',
    '-CAcreateserial',
    '-extfile',
    'extensions',
    '-out',
    'redis.crt',
  );
  return { ca: file('ca.crt'), cert: file('redis.crt'), key: file('redis.key') };
}
