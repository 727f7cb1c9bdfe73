/** text-encode: words → msg.conditioning; or a whole layout → msg.background and msg.regions. */
import type { Node, NodeAPI, NodeDef } from 'node-red';
import type { Checkpoint } from '../engine/checkpoint/checkpoint';
import { promptFindings, unknownProperties } from './kit/findings';
import { readLayout, type Layout } from './kit/layout';
import { inOrder } from './kit/line';
import { addFindings, addToGeneration, own } from './kit/message';
import { isOrder, NodeModel } from './kit/model';
import { readWords, type WordsConfig } from './kit/prompt';
import type { Draft } from './kit/regions';
import { readSettings } from './kit/settings';
import type { StatusKey } from './kit/status';
import { handleMessages, isCancellation, type Task } from './kit/tasks';

const SHOWN: Record<string, StatusKey> = { TRUNCATED_PROMPT: 'truncated', UNKNOWN_WORDS: 'unknownWords', UNKNOWN_PROPERTY: 'unknownNames' };

type TextEncodeDef = NodeDef & WordsConfig & { model?: string };

export = function (RED: NodeAPI): void {
  RED.nodes.registerType('text-encode', function (this: Node, config: TextEncodeDef) {
    RED.nodes.createNode(this, config);
    const model = new NodeModel(RED, config.model, this);
    handleMessages(RED, this, inOrder(RED, (task) => encode(task, this)), () => model.release());

    async function encode(task: Task, node: Node): Promise<void> {
      const { msg, status, signal } = task;
      if (isCancellation(msg)) return task.send(msg);
      if (isOrder(msg)) return model.obey(task);

      const settings = readSettings(RED);
      const layout = await readLayout(own(msg, 'payload'), settings);
      const words = layout ?? (await readWords(RED, node, msg, config, settings));

      const checkpoint = await model.get(status, signal);
      status.busy('encoding');
      const started = performance.now();
      const conditioning = await checkpoint.encodeConditioning(words.prompt, words.negativePrompt, { signal });
      const regions = layout ? await encodeRegions(checkpoint, layout, signal) : [];

      if (layout) {
        msg.layout = msg.payload;
        delete msg.payload;
        Object.assign(msg, layout.options, { background: conditioning, regions });
        delete msg.conditioning;
      } else {
        // An untaken conditioning describes the whole picture.
        if (own(msg, 'conditioning') !== undefined && own(msg, 'background') === undefined) msg.background = msg.conditioning;
        msg.conditioning = conditioning;
      }
      addToGeneration(msg, { model: checkpoint.facts.name, timings: { encode: Math.round(performance.now() - started) } });

      const findings = [conditioning, ...regions.map((region) => region.conditioning)].flatMap(promptFindings);
      if (layout) findings.push(...unknownProperties('the layout', layout.unknown));
      addFindings(msg, findings);
      for (const finding of findings) node.warn(finding.message);
      if (findings.length > 0) status.warn(SHOWN[findings[0].code]!);
      else status.ok('encoded');
      task.send(msg);
    }
  });
};

async function encodeRegions(checkpoint: Checkpoint, layout: Layout, signal: AbortSignal): Promise<Draft[]> {
  const regions: Draft[] = [];
  for (const { name, prompt, negativePrompt, shape, options } of layout.regions) {
    const conditioning = await checkpoint.encodeConditioning(prompt, negativePrompt, { signal });
    regions.push({ name, conditioning, shape, ...options });
  }
  return regions;
}
