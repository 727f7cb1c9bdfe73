/** "Check this model" in the dialog: it is downloaded and loaded as the dialog says, and what was found is told. */
import { randomUUID } from 'node:crypto';
import { freemem } from 'node:os';
import type { NodeAPI } from 'node-red';
import type { HubProgress } from '../../engine/hub/hub';
import type { CheckpointNeeds, CheckpointReport } from '../../engine/checkpoint/report';
import { MultiDiffusionError } from '../../engine/errors';
import type { PoolReport } from '../../engine/pool/report';
import { onlyJson } from '../shared/admin';
import { modelSource, type ModelConfig, type Secrets } from '../shared/checkpoints';
import { isObject } from '../shared/message';
import { CheckpointUse } from '../../engine/checkpoint/pool';
import type { ModelNode } from '../shared/model';
import { readSettings } from '../shared/settings';

/** What the dialog is told when it asks. */
type CheckState =
  | { state: 'loading'; needs?: CheckpointNeeds & { freeBytes: number } }
  | ({ state: HubProgress['phase'] } & Pick<HubProgress, 'received' | 'total'>)
  | { state: 'done'; report: CheckpointReport | PoolReport }
  | { state: 'failed'; message: string };

interface Check {
  now: CheckState;
  cancel: AbortController;
  /** Ends it when its dialog asks no longer. */
  watchdog: NodeJS.Timeout;
}

/** A dialog asks every second. */
const FORGOTTEN = 30_000;
const MOST_CHECKS = 8;
/** How Node-RED's editor shows a credential that is set. */
const UNCHANGED = '__PWRD__';

/** Adds the routes; whoever may deploy flows may check, for a flow could do the same. */
export function offerChecks(RED: NodeAPI): void {
  if (typeof RED.httpAdmin?.post !== 'function') return; // there is no editor
  const checks = new Map<string, Check>();
  const mayWrite = RED.auth.needsPermission('flows.write');

  RED.httpAdmin.post('/multidiffusion/checks', mayWrite, onlyJson, (request, response) => {
    if (checks.size >= MOST_CHECKS)
      return void response.status(429).json({ message: `${MOST_CHECKS} models are being checked already.` });
    const body: unknown = request.body;
    const id = randomUUID();
    const check: Check = {
      now: { state: 'loading' },
      cancel: new AbortController(),
      watchdog: setTimeout(() => forget(id), FORGOTTEN).unref(),
    };
    checks.set(id, check);
    void run(RED, check, isObject(body) ? body : {});
    response.json({ check: id });
  });

  RED.httpAdmin.get('/multidiffusion/checks/:id', mayWrite, (request, response) => {
    const check = checks.get(request.params.id as string);
    if (!check) return void response.status(404).end();
    check.watchdog.refresh();
    response.json(check.now);
  });

  RED.httpAdmin.delete('/multidiffusion/checks/:id', mayWrite, (request, response) => {
    forget(request.params.id as string);
    response.status(204).end();
  });

  /** Ends the process of a deployed diffusion-model. */
  RED.httpAdmin.post('/multidiffusion/models/:id/unload', mayWrite, onlyJson, (request, response) => {
    const model = (RED.nodes.getNode(request.params.id as string) as ModelNode | null)?.model;
    if (!(model instanceof CheckpointUse)) return void response.status(404).end();
    model.unload().then(
      () => response.status(204).end(),
      () => response.status(500).end(),
    );
  });

  function forget(id: string): void {
    const check = checks.get(id);
    checks.delete(id);
    clearTimeout(check?.watchdog);
    check?.cancel.abort();
  }
}

async function run(RED: NodeAPI, check: Check, body: Record<string, unknown>): Promise<void> {
  const { signal } = check.cancel;
  const source = modelSource(
    readConfig(body),
    () => readSettings(RED),
    () => readSecrets(RED, body),
  );
  const use = new CheckpointUse(source, { onHang: (text) => RED.log.warn(text) });
  signal.addEventListener('abort', () => use.release(), { once: true });
  try {
    const checkpoint = await use.get(({ phase, ...progress }) => (check.now = { state: phase, ...progress }));
    if (await source.elsewhere()) {
      const { reportPool } = await import('../../engine/pool/report');
      return void (check.now = { state: 'done', report: await reportPool(checkpoint) });
    }
    const folder = await source.folder(signal, () => undefined);
    const { foreseeNeeds, reportCheckpoint } = await import('../../engine/checkpoint/report');
    check.now = { state: 'loading', needs: { ...(await foreseeNeeds(folder)), freeBytes: freemem() } };
    check.now = { state: 'done', report: await reportCheckpoint(checkpoint, folder, { signal }) };
  } catch (error) {
    const known = error instanceof MultiDiffusionError;
    check.now = { state: 'failed', message: known ? error.message : `The check failed: ${(error as Error).message}` };
  } finally {
    use.release();
  }
}

/** What the dialog says, as texts: nothing else comes from a form. */
function readConfig(body: Record<string, unknown>): ModelConfig {
  const properties = [
    'checkpoint',
    'folder',
    'repository',
    'revision',
    'provider',
    'pool',
    'deviceId',
    'threads',
    'batchSize',
    'memoryBudget',
    't5Tokens',
  ];
  return Object.fromEntries(properties.map((property) => [property, asText(body[property])]));
}

const asText = (value: unknown): string =>
  typeof value === 'string' || typeof value === 'number' ? String(value) : '';

/** The secrets in the dialog, or those that the node has been deployed with. */
function readSecrets(RED: NodeAPI, body: Record<string, unknown>): Secrets {
  const deployed = RED.nodes.getCredentials(asText(body.id)) as Secrets | undefined;
  const read = (name: keyof Secrets): string | undefined => {
    const given = body[name];
    return typeof given === 'string' && given !== UNCHANGED ? given : deployed?.[name];
  };
  return { token: read('token'), redis: read('redis') };
}
