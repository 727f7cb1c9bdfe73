/** save-image: msg.image → the bytes of a PNG, JPEG or WebP file, and the file. */
import path from 'node:path';
import type { Node, NodeAPI, NodeDef } from 'node-red';
import { MissingInputError } from '../../engine/errors';
import { CONTENT_TYPES, encodeImage } from '../../engine/image/encode';
import { IMAGE_OPTIONS, resolveOptions, SAVE_OPTIONS } from '../../engine/options';
import { Tensor } from '../../engine/tensor';
import { nextTurn } from '../../engine/turns';
import { configured } from '../shared/configured';
import { picturesOf } from '../shared/gallery';
import { inOrder } from '../shared/in-order';
import { recipeFindings } from '../shared/node-findings';
import { requestedName, saveSomewhere } from './save';
import { addFindings, contentHeaders, own, pick, type Message } from '../shared/message';
import { readSettings } from '../shared/settings';
import { registerNode } from '../shared/register';
import { handleMessages, isCancellation, type Task } from '../shared/tasks';

interface SaveImageDef extends NodeDef {
  folder?: string;
  filename?: string;
  [option: string]: unknown;
}

export = function (RED: NodeAPI): void {
  registerNode<Node, SaveImageDef>(RED, 'save-image', (node, config) => {
    const show = picturesOf(RED, node);
    handleMessages(RED, node, inOrder(RED, save, ends));

    async function save({ msg, status, signal, send }: Task): Promise<void> {
      if (ends(msg)) return send(msg);
      const { format, quality } = resolveOptions(
        IMAGE_OPTIONS,
        pick(msg, ['format', 'quality']),
        pick(config, ['format', 'quality']),
      );
      const {
        save: toFile,
        overwrite,
        dataUri,
      } = resolveOptions(SAVE_OPTIONS, pick(config, Object.keys(SAVE_OPTIONS)));
      const image = own(msg, 'image');
      if (image === undefined) throw new MissingInputError('image', 'Send the message through a vae-decode first.');

      status.busy('saving');
      const bytes = await encodeImage(image, { format, quality, recipe: own(msg, 'generation') });
      signal.throwIfAborted();
      // Whoever catches an error of the disk finds the picture in the message.
      msg.payload = bytes;
      msg.headers = contentHeaders(own(msg, 'headers'), CONTENT_TYPES[format]);
      await nextTurn(); // a recipe with mask images is long
      const findings = recipeFindings(own(msg, 'generation'));
      if (toFile) {
        const { imageDirectory } = readSettings(RED);
        const wish = await requestedName(own(msg, 'filename'), imageDirectory);
        const wished = own(msg, 'folder');
        const { filename } = await configured(RED, node, msg, config, ['filename']);
        const { folder } = config;
        const places = [{ folder: wished ?? folder, filename: wish ?? filename, overwrite }];
        if (wish !== undefined || wished !== undefined) places.push({ folder, filename, overwrite });
        const { file, refused } = await saveSomewhere(bytes, format, places, imageDirectory, own(msg, 'generation'));
        msg.filename = file;
        const name = path.basename(file);
        if (refused) findings.push({ code: 'OTHER_NAME', message: `${refused.message} It was saved as ${name}.` });
        if (refused) status.warn('saved', { name });
        else status.ok('saved', { name });
      } else {
        status.ok('encodedImage');
      }
      await nextTurn();
      show({ bytes, type: CONTENT_TYPES[format] }, Tensor.from(image, 'image').dims, msg);
      addFindings(msg, findings);
      for (const { code, message } of findings) if (code !== 'RECIPE_APART') node.warn(message);
      if (dataUri) msg.dataUri = `data:${CONTENT_TYPES[format]};base64,${bytes.toString('base64')}`;
      send(msg);
    }
  });
};

/** What comes with a picture is to be saved, whatever else it says. */
const ends = (msg: Message): boolean => isCancellation(msg) && own(msg, 'image') === undefined;
