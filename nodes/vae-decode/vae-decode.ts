/** vae-decode: msg.latents → msg.image. */
import type { Node, NodeAPI, NodeDef } from 'node-red';
import { MissingInputError } from '../../engine/errors';
import { DECODE_OPTIONS, resolveOptions } from '../../engine/options';
import { Tensor } from '../../engine/tensor';
import { picturesOf } from '../shared/gallery';
import { inOrder } from '../shared/in-order';
import { addToRecipe, own, pick, type Message } from '../shared/message';
import { isModelCommand, isUnload, NodeModel } from '../shared/model';
import { registerNode } from '../shared/register';
import { readSettings } from '../shared/settings';
import { handleMessages, isCancellation, type Task, within } from '../shared/tasks';

interface VaeDecodeDef extends NodeDef {
  model?: string;
  tileSize?: string | number;
  circular?: boolean;
}

export = function (RED: NodeAPI): void {
  registerNode<Node, VaeDecodeDef>(RED, 'vae-decode', (node, config) => {
    const model = new NodeModel(RED, config.model, node);
    const show = picturesOf(RED, node);
    handleMessages(RED, node, inOrder(RED, decode, ends), () => model.release());

    async function decode(task: Task): Promise<void> {
      const { msg, status, signal, send } = task;
      if (isModelCommand(msg)) return model.loadOrUnload(task);
      if (ends(msg)) return send(msg);
      const { tileSize, circular } = resolveOptions(DECODE_OPTIONS, pick(msg, OPTIONS), pick(config, OPTIONS));
      const latents = own(msg, 'latents');
      if (latents === undefined)
        throw new MissingInputError('latents', 'Send the message through a multidiffusion-sampler first.');
      const checkpoint = await model.get(status, signal);
      const started = performance.now();
      const cells = tileSize && Math.round(tileSize / checkpoint.facts.latentFactor);
      const image = await within(task, readSettings(RED).jobTimeout, (signal) =>
        model.during(status, 'decoding', () =>
          checkpoint.decode(Tensor.from(latents, 'latents'), { tileSize: cells, circular, signal }),
        ),
      );
      msg.image = image;
      addToRecipe(msg, {
        ...(tileSize && { tileSize }),
        timings: { decode: Math.round(performance.now() - started) },
      });
      const [height, width] = image.dims;
      status.ok('decoded', { width, height });
      show({ pixels: image }, image.dims, msg);
      send(msg);
    }
  });
};

/** What comes with latents is a picture, whatever else it says. */
const ends = (msg: Message): boolean => isUnload(msg) || (isCancellation(msg) && own(msg, 'latents') === undefined);

const OPTIONS = Object.keys(DECODE_OPTIONS);
