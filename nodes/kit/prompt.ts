/** Where a text-encode node finds its words. */
import type { Node, NodeAPI } from 'node-red';
import { InvalidInputError, MissingInputError } from '../../engine/errors';
import { readPrompt } from './layout';
import { own, textIn, type Message } from './message';
import type { Settings } from './settings';

export interface WordsConfig {
  prompt?: string;
  /** 'str' or a typed input's other types; default 'str'. */
  promptType?: string;
  negativePrompt?: string;
  negativePromptType?: string;
}

/**
 * The prompt and negative prompt: from the property that the node names; else msg.prompt and
 * msg.negativePrompt, which are used up so that a text-encode node further on speaks for itself; else the
 * node's own text; else, for the prompt, a text in msg.payload.
 * @throws MissingInputError when there is no prompt, InvalidInputError when it is no text
 */
export async function readWords(RED: NodeAPI, node: Node, msg: Message, config: WordsConfig, settings: Settings): Promise<{ prompt: string; negativePrompt: string }> {
  const payload = textIn(own(msg, 'payload'));
  const prompt =
    (await readNamed(RED, node, msg, config.prompt, config.promptType)) ??
    own(msg, 'prompt') ??
    ownText(config.prompt, config.promptType) ??
    (payload?.trim() ? payload : undefined);
  if (prompt === undefined || prompt === null) {
    throw new MissingInputError('prompt', 'Write one in the node, or send it as msg.prompt, or as text or a layout {prompt, regions} in msg.payload.');
  }
  const negativePrompt =
    (await readNamed(RED, node, msg, config.negativePrompt, config.negativePromptType)) ??
    own(msg, 'negativePrompt') ??
    ownText(config.negativePrompt, config.negativePromptType) ??
    '';
  const words = { prompt: readPrompt(prompt, 'prompt', settings), negativePrompt: readPrompt(negativePrompt, 'negativePrompt', settings) };
  delete msg.prompt;
  delete msg.negativePrompt;
  return words;
}

function ownText(value: string | undefined, type = 'str'): string | undefined {
  return type === 'str' && value !== '' ? value : undefined;
}

/** What a typed input names: a property of the message, flow or global context, an environment variable, …; nothing where that is empty text. */
function readNamed(RED: NodeAPI, node: Node, msg: Message, value: string | undefined, type = 'str'): Promise<unknown> {
  if (type === 'str' || value === undefined || value === '') return Promise.resolve(undefined);
  return new Promise((resolve, reject) => {
    RED.util.evaluateNodeProperty(value, type, node, msg, (error: Error | null, result: unknown) => {
      if (error) reject(new InvalidInputError(`${type}.${value}`, String(error), 'an expression that can be evaluated'));
      else resolve(result === '' ? undefined : result);
    });
  });
}
