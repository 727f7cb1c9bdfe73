/** region-mask: an outline and msg.conditioning → one more region in msg.regions; the regions of a layout get their masks. */
import type { Node, NodeAPI, NodeDef } from 'node-red';
import { InvalidInputError, MissingInputError } from '../engine/errors';
import type { Conditioning } from '../engine/multidiffusion/types';
import { inOrder } from './kit/line';
import { unknownProperties } from './kit/findings';
import { addFindings, isObject, own, unknownNames, type Message } from './kit/message';
import { addMasks, type Called, type Outline, readOutline, readRegions, REGION_NAMES, readRegionOptions } from './kit/regions';
import { readSettings } from './kit/settings';
import { handleMessages, isCancellation, type Task } from './kit/tasks';

interface RegionMaskDef extends NodeDef {
  regionName?: string;
  shape?: 'box' | 'ellipse' | 'polygon' | 'image' | 'rest';
  box?: unknown;
  points?: unknown;
  image?: string;
  imageType?: 'msg' | 'file' | 'str';
  [option: string]: unknown;
}

export = function (RED: NodeAPI): void {
  RED.nodes.registerType('region-mask', function (this: Node, config: RegionMaskDef) {
    RED.nodes.createNode(this, config);
    handleMessages(RED, this, inOrder(RED, (task) => addRegion(task, this)));

    async function addRegion({ msg, status, send }: Task, node: Node): Promise<void> {
      if (isCancellation(msg)) return send(msg);
      const settings = readSettings(RED);
      const regions = readRegions(own(msg, 'regions'), settings);
      const conditioning = own(msg, 'conditioning');
      const called = { place: 'region', image: 'region.image' };
      const findings = unknownProperties('msg.region', unknownNames(own(msg, 'region'), REGION_NAMES));
      if (isObject(conditioning)) {
        const said = own(msg, 'region') ?? {};
        if (!isObject(said)) throw new InvalidInputError('region', said, 'an object {box, weight, …}');
        const name = own(said, 'name') ?? (config.regionName || config.name || `region ${regions.length + 1}`);
        if (typeof name !== 'string' || name.length > 200) throw new InvalidInputError('region.name', name, 'text of up to 200 characters');
        const shape = readOutline(said, 'region') ?? ownOutline(config, msg, called, RED);
        if (!shape && config.shape === 'image') throw new MissingInputError(called.image, 'Send the picture that is the mask, or name its file in the region-mask node.');
        if (!shape) throw new MissingInputError(`region.${config.shape ?? 'box'}`, 'Draw it in the region-mask node, or send it as msg.box or msg.region.');
        regions.push({ name, conditioning: conditioning as unknown as Conditioning, shape, ...readRegionOptions('region', said, config) });
      } else if (regions.every((region) => region.mask)) {
        throw new MissingInputError('conditioning', 'Encode the prompt of this region with a text-encode node first.');
      }
      msg.regions = await addMasks(regions, settings, isObject(conditioning) ? called : undefined);
      for (const used of ['conditioning', 'region', 'box']) delete msg[used];
      addFindings(msg, findings);
      for (const finding of findings) node.warn(finding.message);
      if (findings.length > 0) status.warn('unknownNames');
      else status.ok('regions', { count: regions.length });
      send(msg);
    }
  });
};

/** The node's outline; msg.box moves its box or ellipse, and a mask image may be in the message. */
function ownOutline({ shape = 'box', box, points, image, imageType }: RegionMaskDef, msg: Message, called: Called, RED: NodeAPI): Outline | undefined {
  const moved = own(msg, 'box');
  if (moved !== undefined) return readOutline({ shape: shape === 'ellipse' ? shape : 'box', box: moved }, '');
  if (shape !== 'image' || imageType !== 'msg') return readOutline({ shape, box, points, image }, called.place);
  called.image = image || 'mask';
  return readOutline({ shape, image: RED.util.getMessageProperty(msg, called.image) as unknown }, called.place, called.image);
}
