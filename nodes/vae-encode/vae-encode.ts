/** vae-encode: a picture → msg.initialImage, the latents that the sampler starts from. */
import type { Node, NodeAPI, NodeDef } from 'node-red';
import { MissingInputError } from '../../engine/errors';
import { ENCODE_OPTIONS, resolveOptions } from '../../engine/options';
import { configured } from '../shared/configured';
import { inOrder } from '../shared/in-order';
import { own, pick, useUpFilename } from '../shared/message';
import { endsWork, isModelCommand, NodeModel } from '../shared/model';
import { encodePicture } from '../shared/pictures';
import { readSettings } from '../shared/settings';
import { registerNode } from '../shared/register';
import { handleMessages, isCancellation, type Task, within } from '../shared/tasks';

interface VaeEncodeDef extends NodeDef {
  model?: string;
  width?: string | number;
  height?: string | number;
}

export = function (RED: NodeAPI): void {
  registerNode<Node, VaeEncodeDef>(RED, 'vae-encode', (node, config) => {
    const model = new NodeModel(RED, config.model, node);
    handleMessages(RED, node, inOrder(RED, encode, endsWork), () => model.release());

    async function encode(task: Task): Promise<void> {
      const { msg, status, signal, send } = task;
      if (isCancellation(msg)) return send(msg);
      if (isModelCommand(msg)) return model.loadOrUnload(task);
      const settings = readSettings(RED);
      const options = resolveOptions(
        ENCODE_OPTIONS,
        pick(msg, OPTIONS),
        await configured(RED, node, msg, config, OPTIONS),
      );
      const source = ['image', 'payload'].find(
        (property) => own(msg, property) !== undefined && own(msg, property) !== null,
      );
      if (!source) throw new MissingInputError('image', 'Send a picture in msg.image or msg.payload.');

      const checkpoint = await model.get(status, signal);
      const { latents, ...size } = (await within(task, settings.jobTimeout, (stop) =>
        model.during(status, 'encoding', () => encodePicture(checkpoint, msg, source, settings, options, stop)),
      ))!;
      // The picture has been taken: a text-encode further on would take bytes in the payload for a layout.
      useUpFilename(msg, msg[source]);
      delete msg[source];
      Object.assign(msg, { initialImage: latents, ...size });
      status.ok('encodedImage', size);
      send(msg);
    }
  });
};

const OPTIONS = Object.keys(ENCODE_OPTIONS);
