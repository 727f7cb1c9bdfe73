/** text-encode: words → msg.conditioning; or a whole layout → msg.background and msg.regions. */
import type { Node, NodeAPI, NodeDef } from 'node-red';
import { conditioningFindings, unknownProperties } from '../shared/node-findings';
import { checkLayout, encodeRegions, readPayload, type Payload } from '../shared/message-layout';
import { inOrder } from '../shared/in-order';
import { addFindings, addToRecipe, own, useUpFilename, type Message } from '../shared/message';
import { endsWork, isModelCommand, NodeModel } from '../shared/model';
import { readWords, saysPrompt, type WordsConfig } from './prompt';
import { registerNode } from '../shared/register';
import { readSettings } from '../shared/settings';
import type { StatusKey } from '../shared/status';
import { handleMessages, isCancellation, type Task, within } from '../shared/tasks';

const SHOWN: Record<string, StatusKey> = {
  TRUNCATED_PROMPT: 'truncated',
  UNKNOWN_WORDS: 'unknownWords',
  UNKNOWN_PROPERTY: 'unknownNames',
};

type TextEncodeDef = NodeDef & WordsConfig & { model?: string };

export = function (RED: NodeAPI): void {
  registerNode<Node, TextEncodeDef>(RED, 'text-encode', (node, config) => {
    const model = new NodeModel(RED, config.model, node);
    handleMessages(RED, node, inOrder(RED, encode, endsWork), () => model.release());

    /**
     * What another program wrote into a picture counts where nothing else says what to draw: it may be a picture to
     * start from.
     */
    function layoutIn(payload: Payload, msg: Message): Record<string, unknown> | undefined {
      if (!payload || 'text' in payload) return undefined;
      if ('source' in payload) return payload.layout ? payload.source : undefined;
      return payload.own || !saysPrompt(msg, config) ? payload.recipe : undefined;
    }

    async function encode(task: Task): Promise<void> {
      const { msg, status, signal } = task;
      if (isCancellation(msg)) return task.send(msg);
      if (isModelCommand(msg)) return model.loadOrUnload(task);

      const settings = readSettings(RED);
      const payload = await readPayload(own(msg, 'payload'), settings);
      const source = layoutIn(payload, msg);
      const layout = source && checkLayout(source, settings);
      const words = layout ?? (await readWords(RED, node, msg, config, payload, settings));

      const checkpoint = await model.get(status, signal);
      const started = performance.now();
      const { conditioning, regions } = await within(task, settings.jobTimeout, (signal) =>
        model.during(status, 'encoding', async () => ({
          conditioning: await checkpoint.encodeConditioning(words.prompt, words.negativePrompt, { signal }),
          regions: layout ? await encodeRegions(checkpoint, layout, signal) : [],
        })),
      );

      if (layout) {
        msg.layout = msg.payload;
        delete msg.payload;
        useUpFilename(msg, msg.layout);
        Object.assign(msg, layout.options, { background: conditioning, regions });
        delete msg.conditioning;
      } else {
        // An untaken conditioning describes the whole picture.
        if (own(msg, 'conditioning') !== undefined && own(msg, 'background') === undefined)
          msg.background = msg.conditioning;
        msg.conditioning = conditioning;
      }
      addToRecipe(msg, {
        model: checkpoint.facts.name,
        timings: { encode: Math.round(performance.now() - started) },
      });

      const findings = [conditioning, ...regions.map((region) => region.conditioning)].flatMap(conditioningFindings);
      if (layout) findings.push(...unknownProperties('the layout', layout.unknown));
      addFindings(msg, findings);
      for (const finding of findings) node.warn(finding.message);
      if (findings.length > 0) status.warn(SHOWN[findings[0].code]!);
      else status.ok('encoded');
      task.send(msg);
    }
  });
};
