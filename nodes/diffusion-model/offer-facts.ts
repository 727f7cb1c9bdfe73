/** What the editor's dialogs ask about a model: the size of its pictures, of its latent cells, and its vocabulary. */
import type { NodeAPI } from 'node-red';
import { MultiDiffusionError } from '../../engine/errors';
import type { ModelFacts } from '../../engine/model';
import { modelSource } from '../shared/checkpoints';
import { CheckpointUse } from '../../engine/checkpoint/pool';
import type { ModelNode } from '../shared/model';
import { readSettings } from '../shared/settings';

/** What the editor calls the model of a node that names none. */
const BUNDLED = 'bundled';
/** Milliseconds that facts are remembered: reading them opens the model's files. */
const REMEMBERED = 60_000;

/** Adds the route; whoever may see the flows may see what their models know. */
export function offerFacts(RED: NodeAPI): void {
  if (typeof RED.httpAdmin?.get !== 'function') return; // there is no editor
  const remembered = new WeakMap<CheckpointUse, { facts: Promise<ModelFacts | undefined>; until: number }>();
  const bundled = new CheckpointUse(modelSource({}, () => readSettings(RED)));

  RED.httpAdmin.get('/multidiffusion/models/:id/facts', RED.auth.needsPermission('flows.read'), (request, response) => {
    const id = request.params.id as string;
    const model = id === BUNDLED ? bundled : (RED.nodes.getNode(id) as ModelNode | null)?.model;
    // An editor asks about nodes that are not deployed yet: no answer is none that a browser reports as an error.
    if (!(model instanceof CheckpointUse)) return void response.status(204).end();
    read(model).then(
      (facts) => {
        if (!facts) return void response.status(204).end(); // not downloaded yet
        const { name, nativeSize, latentFactor, sizeMultiple, vocabulary, canEncodeImages } = facts;
        response.json({ name, nativeSize, cell: latentFactor, sizeMultiple, vocabulary, canEncodeImages });
      },
      (error: unknown) => {
        const message = error instanceof MultiDiffusionError ? error.message : 'The model can not be read.';
        response.status(422).json({ message });
      },
    );
  });

  function read(model: CheckpointUse): Promise<ModelFacts | undefined> {
    const known = remembered.get(model);
    if (known && known.until > Date.now()) return known.facts;
    const facts = model.facts();
    const entry = { facts, until: Date.now() + REMEMBERED };
    remembered.set(model, entry);
    const forget = (): void => {
      entry.until = 0;
    };
    facts.then((found) => found ?? forget(), forget);
    return facts;
  }
}
