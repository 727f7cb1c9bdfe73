/** diffusion-model: which checkpoint, and where it runs. Nodes that name the same share one loaded copy. */
import type { Node, NodeAPI, NodeDef } from 'node-red';
import type { ProcessStatus } from '../../engine/checkpoint/checkpoint';
import { CancelledError } from '../../engine/errors';
import { modelSource, type ModelConfig, type Secrets } from '../shared/checkpoints';
import { offerChecks } from './model-check';
import { offerFacts } from './offer-facts';
import { CheckpointUse } from '../../engine/checkpoint/pool';
import type { ModelNode } from '../shared/model';
import { registerNode } from '../shared/register';
import { readSettings } from '../shared/settings';
import { Status } from '../shared/status';

type Credentials = Required<Secrets>;
/** Without any of them it has no credentials. */
type DiffusionModelNode = Node<Credentials> & Pick<ModelNode, 'model' | 'atDeploy'>;

export = function (RED: NodeAPI): void {
  offerChecks(RED);
  offerFacts(RED);
  registerNode<DiffusionModelNode, NodeDef & ModelConfig>(
    RED,
    'diffusion-model',
    (node, config) => {
      const status = new Status(RED, node);
      const source = modelSource(
        config,
        () => readSettings(RED),
        () => node.credentials as Secrets | undefined,
      );
      node.model = new CheckpointUse(source, {
        onStatus: (process) => showProcess(process, status),
        onHang: (text) => RED.log.warn(text),
        onOpen: ({ facts }) => {
          node.log(`${facts.name} runs on ${facts.provider}`);
          status.ok('ready', { provider: briefly(facts.provider) });
        },
      });
      if (String(config.loadAtDeploy) === 'true') {
        node.atDeploy = new Promise((started) => RED.events.once('flows:started', started));
        void node.atDeploy.then(() => loadNow(node, status));
      }
      node.on('close', () => {
        status.close();
        node.model.release();
      });
    },
    { credentials: { token: { type: 'password' }, redis: { type: 'password' } } },
  );
};

async function loadNow(node: DiffusionModelNode, status: Status): Promise<void> {
  try {
    await node.model.load();
  } catch (error) {
    if (error instanceof CancelledError) return;
    showProcess({ state: 'failed', detail: (error as Error).message }, status);
    node.error(error);
  }
}

/** Where it runs and, if not on a GPU that was hoped for, why in a few words; the log has the whole sentence. */
function briefly(provider: string): string {
  return provider.replace(/ \((?:no \w+: )?([^:;(]+).*/s, (_, why: string) => ` (${why.trim()})`);
}

function showProcess({ state, detail }: ProcessStatus, status: Status): void {
  if (state === 'failed') status.failed(new Error(detail));
  else if (state === 'stopped') status.idle('unloaded');
  else if (state === 'unreachable' || state === 'unserved') status.warn(state);
  else if (state === 'warming') status.busy('warming');
  else if (state === 'starting' || state === 'loading' || state === 'restarting') status.busy('loading');
  else if (state === 'ready') status.ok('loaded');
}
