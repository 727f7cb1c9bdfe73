/** diffusion-model: which checkpoint, and where it runs. Nodes that name the same share one loaded copy. */
import type { Node, NodeAPI, NodeDef } from 'node-red';
import type { ProcessStatus } from '../engine/checkpoint/checkpoint';
import { CancelledError } from '../engine/errors';
import { modelSource, type ModelConfig } from './kit/checkpoints';
import { offerChecks } from './kit/checks';
import { ModelUse, type ModelNode } from './kit/model';
import { readSettings } from './kit/settings';
import { Status } from './kit/status';

interface Credentials {
  token: string;
}
/** Without a token it has no credentials. */
type DiffusionModelNode = Node<Credentials> & Pick<ModelNode, 'model'>;

export = function (RED: NodeAPI): void {
  offerChecks(RED);
  RED.nodes.registerType<DiffusionModelNode, NodeDef & ModelConfig, object, Credentials>(
    'diffusion-model',
    function (this: DiffusionModelNode, config: NodeDef & ModelConfig) {
      RED.nodes.createNode(this, config);
      const status = new Status(RED, this);
      const source = modelSource(config, () => readSettings(RED), () => (this.credentials as Credentials | undefined)?.token);
      this.model = new ModelUse(source, {
        onStatus: (process) => show(process, status),
        onOpen: ({ facts }) => {
          this.log(`${facts.name} runs on ${facts.provider}`);
          status.ok('ready', { provider: shorten(facts.provider) });
        },
      });
      if (config.loadAtDeploy) {
        this.model.atDeploy = new Promise((started) => RED.events.once('flows:started', started));
        void this.model.atDeploy.then(() => loadNow(this, status));
      }
      this.on('close', () => {
        status.close();
        this.model.release();
      });
    },
    { credentials: { token: { type: 'password' } } },
  );
};

async function loadNow(node: DiffusionModelNode, status: Status): Promise<void> {
  try {
    await node.model.load();
  } catch (error) {
    if (error instanceof CancelledError) return;
    show({ state: 'failed', detail: (error as Error).message }, status);
    node.error(error);
  }
}

/** Where it runs and, if not on a GPU that was hoped for, why in a few words; the log has the whole sentence. */
function shorten(provider: string): string {
  return provider.replace(/ \(no CUDA: ([^:(]+).*/s, (_, why: string) => ` (${why.trim()})`);
}

function show({ state, detail }: ProcessStatus, status: Status): void {
  if (state === 'failed') status.failed(new Error(detail));
  else if (state === 'stopped') status.idle('unloaded');
  else if (state === 'warming') status.busy('warming');
  else if (state === 'starting' || state === 'loading' || state === 'restarting') status.busy('loading');
  else if (state === 'ready') status.ok('loaded');
}
