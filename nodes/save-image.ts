/** save-image: msg.image → the bytes of a PNG, JPEG or WebP file, and the file. */
import path from 'node:path';
import type { Node, NodeAPI, NodeDef } from 'node-red';
import { MissingInputError } from '../engine/errors';
import { CONTENT_TYPES, encodeImage } from '../engine/image/encode';
import { IMAGE_OPTIONS, resolveOptions, SAVE_OPTIONS } from '../engine/options';
import { inOrder } from './kit/line';
import { requestedName, saveFile } from './kit/save';
import { contentHeaders, own, pick } from './kit/message';
import { readSettings } from './kit/settings';
import { handleMessages, type Task } from './kit/tasks';

interface SaveImageDef extends NodeDef {
  folder?: string;
  filename?: string;
  [option: string]: unknown;
}

export = function (RED: NodeAPI): void {
  RED.nodes.registerType('save-image', function (this: Node, config: SaveImageDef) {
    RED.nodes.createNode(this, config);
    handleMessages(RED, this, inOrder(RED, save));

    async function save({ msg, status, signal, send }: Task): Promise<void> {
      const { format, quality } = resolveOptions(IMAGE_OPTIONS, pick(msg, ['format', 'quality']), pick(config, ['format', 'quality']));
      const { save: toFile, overwrite, dataUri } = resolveOptions(SAVE_OPTIONS, pick(config, Object.keys(SAVE_OPTIONS)));
      const image = own(msg, 'image');
      if (image === undefined) throw new MissingInputError('image', 'Send the message through a vae-decode first.');

      status.busy('saving');
      const bytes = await encodeImage(image, { format, quality, generation: own(msg, 'generation') });
      signal.throwIfAborted();
      if (toFile) {
        const { imageDirectory } = readSettings(RED);
        const folder = own(msg, 'folder') ?? config.folder;
        const filename = (await requestedName(own(msg, 'filename'), imageDirectory)) ?? config.filename;
        const file = await saveFile(bytes, format, { folder, filename, overwrite }, imageDirectory, own(msg, 'generation'));
        msg.filename = file;
        status.ok('saved', { name: path.basename(file) });
      } else {
        status.ok('encodedImage');
      }
      msg.payload = bytes;
      msg.headers = contentHeaders(own(msg, 'headers'), CONTENT_TYPES[format]);
      if (dataUri) msg.dataUri = `data:${CONTENT_TYPES[format]};base64,${bytes.toString('base64')}`;
      send(msg);
    }
  });
};
