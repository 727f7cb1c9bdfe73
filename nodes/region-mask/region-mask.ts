/** region-mask: an outline and msg.conditioning → one more region in msg.regions; the regions of a layout get their masks. */
import type { Node, NodeAPI, NodeDef } from 'node-red';
import { InvalidInputError, MissingInputError } from '../../engine/errors';
import type { Conditioning } from '../../engine/types';
import { REGION_OPTIONS } from '../../engine/options';
import { configured, isSource } from '../shared/configured';
import { inOrder } from '../shared/in-order';
import { unknownProperties } from '../shared/node-findings';
import { addFindings, isObject, own, unknownNames, useUpFilename, type Message } from '../shared/message';
import { registerNode } from '../shared/register';
import {
  addMasks,
  type Called,
  type Outline,
  readOutline,
  readRegionName,
  readRegions,
  REGION_NAMES,
  readRegionOptions,
} from '../shared/regions';
import { readSettings } from '../shared/settings';
import { handleMessages, isCancellation, type Task } from '../shared/tasks';

interface RegionMaskDef extends NodeDef {
  regionName?: string;
  shape?: 'box' | 'ellipse' | 'polygon' | 'image' | 'rest';
  box?: unknown;
  points?: unknown;
  image?: string;
  imageType?: 'msg' | 'file' | 'str';
  boxFrom?: unknown;
  boxFromType?: string;
  [option: string]: unknown;
}

export = function (RED: NodeAPI): void {
  registerNode<Node, RegionMaskDef>(RED, 'region-mask', (node, config) => {
    handleMessages(RED, node, inOrder(RED, addRegion));

    /** A mask image that the message brought. A text-encode further on would take a payload for its prompt or layout. */
    function useUpImage(msg: Message): void {
      if (config.shape !== 'image' || config.imageType !== 'msg') return;
      const property = config.image || 'mask';
      useUpFilename(msg, RED.util.getMessageProperty(msg, property));
      if (property === 'payload') delete msg.payload;
    }

    async function addRegion({ msg, status, send }: Task): Promise<void> {
      if (isCancellation(msg)) return send(msg);
      const settings = readSettings(RED);
      const regions = readRegions(own(msg, 'regions'), settings);
      const conditioning = own(msg, 'conditioning');
      const called = { place: 'region', image: 'region.image' };
      const findings = unknownProperties('msg.region', unknownNames(own(msg, 'region'), REGION_NAMES));
      if (isObject(conditioning)) {
        const values = await configured(RED, node, msg, config, CONFIGURED);
        const said = own(msg, 'region') ?? {};
        if (!isObject(said)) throw new InvalidInputError('region', said, 'an object {box, weight, …}');
        const given = own(said, 'name') ?? (config.regionName || config.name || `region ${regions.length + 1}`);
        const name = readRegionName(given, 'region.name');
        const shape = readOutline(said, 'region') ?? ownOutline({ ...config, ...values }, msg, called, RED);
        if (!shape && config.shape === 'image')
          throw new MissingInputError(
            called.image,
            'Send the picture that is the mask, or name its file in the region-mask node.',
          );
        if (!shape)
          throw new MissingInputError(
            `region.${config.shape ?? 'box'}`,
            'Draw it in the region-mask node, or send it as msg.box or msg.region.',
          );
        regions.push({
          name,
          conditioning: conditioning as unknown as Conditioning,
          shape,
          ...readRegionOptions('region', said, values),
        });
      } else if (regions.every((region) => region.mask)) {
        throw new MissingInputError('conditioning', 'Encode the prompt of this region with a text-encode node first.');
      }
      msg.regions = await addMasks(regions, settings, isObject(conditioning) ? called : undefined);
      if (isObject(conditioning)) useUpImage(msg);
      for (const used of ['conditioning', 'region', 'box']) delete msg[used];
      addFindings(msg, findings);
      for (const finding of findings) node.warn(finding.message);
      if (findings.length > 0) status.warn('unknownNames');
      else status.ok('regions', { count: regions.length });
      send(msg);
    }
  });
};

const CONFIGURED = ['boxFrom', ...Object.keys(REGION_OPTIONS)];

/** The node's outline; msg.box moves its box or ellipse, and a mask image may be in the message. */
function ownOutline(
  { shape = 'box', box, points, image, imageType, boxFrom, boxFromType }: RegionMaskDef,
  msg: Message,
  called: Called,
  RED: NodeAPI,
): Outline | undefined {
  const moved = own(msg, 'box') ?? (isSource(boxFromType) && shape !== 'polygon' ? boxFrom : undefined);
  if (moved !== undefined) return readOutline({ shape: shape === 'ellipse' ? shape : 'box', box: moved }, '');
  if (shape !== 'image' || imageType !== 'msg') return readOutline({ shape, box, points, image }, called.place);
  called.image = image || 'mask';
  return readOutline(
    { shape, image: RED.util.getMessageProperty(msg, called.image) as unknown },
    called.place,
    called.image,
  );
}
