/** What a worker answers to those who watch over it: /healthz, and /metrics as Prometheus reads them. */
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Checkpoint } from '../checkpoint/checkpoint';
import type { PoolWorker } from './worker';

export interface Monitor {
  readonly port: number;
  close(): void;
}

/** @throws what listening throws, such as EADDRINUSE */
export async function monitor(
  worker: PoolWorker,
  checkpoint: Checkpoint,
  host: string,
  port: number,
): Promise<Monitor> {
  const server = http.createServer((request, response) => {
    const path = request.url?.split('?')[0];
    if (request.method !== 'GET' && request.method !== 'HEAD') return void response.writeHead(405).end();
    if (path === '/healthz') {
      const health = healthOf(worker, checkpoint);
      response.writeHead(health === 'ok' ? 200 : 503, { 'content-type': 'application/json' });
      return void response.end(JSON.stringify({ status: health, busy: worker.busy, slots: worker.slots }));
    }
    if (path !== '/metrics') return void response.writeHead(404).end();
    metricsOf(worker, checkpoint).then(
      (text) => response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4' }).end(text),
      () => response.writeHead(500).end(),
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, resolve);
  });
  return { port: (server.address() as AddressInfo).port, close: () => void server.close() };
}

function healthOf(worker: PoolWorker, checkpoint: Checkpoint): string {
  if (worker.draining) return 'draining';
  if (!worker.connected) return 'no Redis';
  return checkpoint.status.state === 'failed' ? 'the inference process has failed' : 'ok';
}

async function metricsOf(worker: PoolWorker, checkpoint: Checkpoint): Promise<string> {
  const waiting = worker.connected ? await within(1000, worker.countWaiting()) : undefined;
  const jobs = [...worker.counts].map(([what, { jobs: count, milliseconds }]) => {
    const [kind, outcome] = what.split(' ');
    return { labels: `{job="${kind}",outcome="${outcome}"}`, count, seconds: milliseconds / 1000 };
  });
  const metric = (
    name: string,
    type: string,
    help: string,
    lines: Array<[labels: string, value: number]>,
  ): string[] => [
    `# HELP multidiffusion_${name} ${help}`,
    `# TYPE multidiffusion_${name} ${type}`,
    ...lines.map(([labels, value]) => `multidiffusion_${name}${labels} ${value}`),
  ];
  const gauge = (name: string, help: string, value: number): string[] => metric(name, 'gauge', help, [['', value]]);
  return [
    ...metric(
      'jobs_total',
      'counter',
      'Jobs that ended.',
      jobs.map(({ labels, count }) => [labels, count]),
    ),
    ...metric(
      'job_seconds_total',
      'counter',
      'Time that they took.',
      jobs.map(({ labels, seconds }) => [labels, seconds]),
    ),
    ...gauge('slots', 'Pictures that this worker draws at a time.', worker.slots),
    ...gauge('busy', 'Pictures that it is drawing.', worker.busy),
    ...gauge('active_jobs', 'Jobs that it is working on, pictures and calls.', worker.active),
    ...(waiting === undefined
      ? []
      : gauge('waiting_jobs', 'Jobs that wait for workers with this checkpoint.', waiting)),
    ...gauge('redis_connected', 'Whether Redis answers.', Number(worker.connected)),
    ...gauge('draining', 'Whether it takes no new jobs.', Number(worker.draining)),
    ...metric('unet_seconds_total', 'counter', 'Time spent in runs of the UNet for calls and pictures.', [
      ['', checkpoint.unetMilliseconds / 1000],
    ]),
    ...metric('inference_processes', 'gauge', 'Inference processes that run.', [['', checkpoint.pids.length]]),
    ...gauge(
      'resident_memory_bytes',
      'Main memory of the worker, its inference processes not counted.',
      process.memoryUsage.rss(),
    ),
    '',
  ].join('\n');
}

async function within<T>(milliseconds: number, promise: Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => (timer = setTimeout(() => resolve(undefined), milliseconds)));
  return Promise.race([promise, late])
    .catch(() => undefined)
    .finally(() => clearTimeout(timer));
}
