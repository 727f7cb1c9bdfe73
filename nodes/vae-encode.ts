/** vae-encode: a picture → msg.initialImage, the latents that the sampler starts from. */
import type { Node, NodeAPI, NodeDef } from 'node-red';
import { MissingInputError } from '../engine/errors';
import { ENCODE_OPTIONS, resolveOptions } from '../engine/options';
import { inOrder } from './kit/line';
import { own, pick } from './kit/message';
import { isOrder, NodeModel } from './kit/model';
import { encodePicture } from './kit/pictures';
import { readSettings } from './kit/settings';
import { handleMessages, isCancellation, type Task } from './kit/tasks';

interface VaeEncodeDef extends NodeDef {
  model?: string;
  width?: string | number;
  height?: string | number;
}

export = function (RED: NodeAPI): void {
  RED.nodes.registerType('vae-encode', function (this: Node, config: VaeEncodeDef) {
    RED.nodes.createNode(this, config);
    const model = new NodeModel(RED, config.model, this);
    handleMessages(RED, this, inOrder(RED, encode), () => model.release());

    async function encode(task: Task): Promise<void> {
      const { msg, status, signal, send } = task;
      if (isCancellation(msg)) return send(msg);
      if (isOrder(msg)) return model.obey(task);
      const settings = readSettings(RED);
      const options = resolveOptions(ENCODE_OPTIONS, pick(msg, OPTIONS), pick(config, OPTIONS));
      const source = ['image', 'payload'].find((property) => own(msg, property) !== undefined && own(msg, property) !== null);
      if (!source) throw new MissingInputError('image', 'Send a picture in msg.image or msg.payload.');

      const checkpoint = await model.get(status, signal);
      status.busy('encoding');
      const { latents, ...size } = (await encodePicture(checkpoint, msg, source, settings, options, signal))!;
      // The picture has been taken: a text-encode further on would take bytes in the payload for a layout.
      delete msg[source];
      Object.assign(msg, { initialImage: latents, ...size });
      status.ok('encodedImage', size);
      send(msg);
    }
  });
};

const OPTIONS = Object.keys(ENCODE_OPTIONS);
