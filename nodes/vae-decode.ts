/** vae-decode: msg.latents → msg.image. */
import type { Node, NodeAPI, NodeDef } from 'node-red';
import { MissingInputError } from '../engine/errors';
import { DECODE_OPTIONS, resolveOptions } from '../engine/options';
import { Tensor } from '../engine/tensor';
import { inOrder } from './kit/line';
import { addToGeneration, own, pick } from './kit/message';
import { isOrder, NodeModel } from './kit/model';
import { handleMessages, type Task } from './kit/tasks';

interface VaeDecodeDef extends NodeDef {
  model?: string;
  tileSize?: string | number;
  circular?: boolean;
}

export = function (RED: NodeAPI): void {
  RED.nodes.registerType('vae-decode', function (this: Node, config: VaeDecodeDef) {
    RED.nodes.createNode(this, config);
    const model = new NodeModel(RED, config.model, this);
    handleMessages(RED, this, inOrder(RED, decode), () => model.release());

    async function decode(task: Task): Promise<void> {
      const { msg, status, signal, send } = task;
      if (isOrder(msg)) return model.obey(task);
      const { tileSize, circular } = resolveOptions(DECODE_OPTIONS, pick(msg, OPTIONS), pick(config, OPTIONS));
      const latents = own(msg, 'latents');
      if (latents === undefined) throw new MissingInputError('latents', 'Send the message through a multidiffusion-sampler first.');
      const checkpoint = await model.get(status, signal);
      status.busy('decoding');
      const started = performance.now();
      const cells = tileSize && Math.round(tileSize / checkpoint.facts.latentFactor);
      const image = await checkpoint.decode(Tensor.from(latents, 'latents'), { tileSize: cells, circular, signal });
      msg.image = image;
      addToGeneration(msg, { ...(tileSize && { tileSize }), timings: { decode: Math.round(performance.now() - started) } });
      const [height, width] = image.dims;
      status.ok('decoded', { width, height });
      send(msg);
    }
  });
};

const OPTIONS = Object.keys(DECODE_OPTIONS);
