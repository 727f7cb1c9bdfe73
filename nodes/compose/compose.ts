/** compose: the whole layout of a picture, drawn in one dialog → msg.payload, as text-encode takes it. */
import type { Node, NodeAPI, NodeDef } from 'node-red';
import { unknownProperties } from '../shared/node-findings';
import { readMessageLayout } from '../shared/message-layout';
import { addFindings, own } from '../shared/message';
import { isModelCommand } from '../shared/model';
import { registerNode } from '../shared/register';
import { readSettings } from '../shared/settings';
import { handleMessages, isCancellation, type Task } from '../shared/tasks';
import { offerComposer } from './composer-page';
import { offerDrawings } from './drawings';
import { composeLayout, USED_UP, type ComposeConfig } from './override';

export = function (RED: NodeAPI): void {
  offerComposer(RED);
  offerDrawings(RED);
  registerNode<Node, NodeDef & ComposeConfig>(RED, 'compose', (node, config) => {
    handleMessages(RED, node, compose);

    async function compose({ msg, status, send }: Task): Promise<void> {
      if (isCancellation(msg) || isModelCommand(msg)) return send(msg);
      const { layout, unknown } = composeLayout(config, msg, readSettings(RED));
      // What is wrong with it is reported here, and not by a node further on.
      await readMessageLayout(layout, readSettings(RED));
      for (const used of USED_UP) delete msg[used];
      msg.payload = layout;
      const findings = unknownProperties('msg.payload', unknown);
      addFindings(msg, findings);
      for (const finding of findings) node.warn(finding.message);
      if (findings.length > 0) status.warn('unknownNames');
      else status.ok('regions', { count: (own(layout, 'regions') as unknown[]).length });
      send(msg);
    }
  });
};
