/** vae-encode: a picture → msg.initialImage, the latents that the sampler starts from. */
import type { Node, NodeAPI, NodeDef } from 'node-red';
import { MissingInputError, MultiDiffusionError } from '../engine/errors';
import { fittingSize } from '../engine/multidiffusion/job';
import { ENCODE_OPTIONS, resolveOptions } from '../engine/options';
import { own, pick } from './kit/message';
import { NodeModel } from './kit/model';
import { pictureIn } from './kit/pictures';
import { checkLimit, readSettings } from './kit/settings';
import { handleMessages, isCancellation, type Task } from './kit/tasks';

interface VaeEncodeDef extends NodeDef {
  model?: string;
  width?: string | number;
  height?: string | number;
}

export = function (RED: NodeAPI): void {
  RED.nodes.registerType('vae-encode', function (this: Node, config: VaeEncodeDef) {
    RED.nodes.createNode(this, config);
    const model = new NodeModel(RED, config.model);
    handleMessages(RED, this, encode, () => model.release());

    async function encode({ msg, status, signal, send }: Task): Promise<void> {
      if (isCancellation(msg)) return send(msg);
      const settings = readSettings(RED);
      const options = resolveOptions(ENCODE_OPTIONS, pick(msg, OPTIONS), pick(config, OPTIONS));
      const source = ['image', 'payload'].find((property) => own(msg, property) !== undefined);
      if (!source) throw new MissingInputError('image', 'Send a picture in msg.image or msg.payload.');

      const checkpoint = await model.get(status);
      const { facts } = checkpoint;
      if (!facts.canEncodeImages) throw new MultiDiffusionError('CHECKPOINT', `${facts.name} has no VAE encoder: add vae_encoder to the model's folder, or choose another model.`);
      const size = { width: fittingSize(facts, options.width ?? facts.nativeSize), height: fittingSize(facts, options.height ?? facts.nativeSize) };
      checkLimit(settings, 'maxCanvasPixels', size.width * size.height, `The canvas of ${size.width}x${size.height} has ${size.width * size.height} pixels`);

      status.busy('encoding');
      const picture = (await pictureIn(msg, source, settings, size))!;
      const [latents] = await checkpoint.encodeImages([picture], { signal });
      // The picture has been taken: a text-encode further on would take bytes in the payload for a layout.
      delete msg[source];
      Object.assign(msg, { initialImage: latents, ...size });
      status.ok('encodedImage', size);
      send(msg);
    }
  });
};

const OPTIONS = Object.keys(ENCODE_OPTIONS);
