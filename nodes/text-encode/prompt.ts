/** Where a text-encode node finds its words. */
import type { Node, NodeAPI } from 'node-red';
import { MissingInputError } from '../../engine/errors';
import { type Payload, readNegative, readPrompt, strangers } from '../shared/message-layout';
import { configured, isSource } from '../shared/configured';
import { own, type Message } from '../shared/message';
import type { Settings } from '../shared/settings';

export interface WordsConfig {
  prompt?: string;
  /** 'str' or a typed input's other types; default 'str'. */
  promptType?: string;
  negativePrompt?: string;
  negativePromptType?: string;
}

/** Whether the node or the message says a prompt, apart from the payload. */
export function saysPrompt(msg: Message, config: WordsConfig): boolean {
  return own(msg, 'prompt') !== undefined || (Boolean(config.prompt) && !isPayload(config));
}

/**
 * The prompt and negative prompt: from the property that the node names; else msg.prompt and
 * msg.negativePrompt, which are used up so that a text-encode node further on speaks for itself; else the
 * node's own text; else, for the prompt, a text in msg.payload.
 * @throws MissingInputError when there is no prompt, InvalidInputError when it is no text
 */
export async function readWords(
  RED: NodeAPI,
  node: Node,
  msg: Message,
  config: WordsConfig,
  payload: Payload,
  settings: Settings,
): Promise<{ prompt: string; negativePrompt?: string }> {
  const values = await configured(RED, node, msg, config, ['prompt', 'negativePrompt']);
  const text = payload && 'text' in payload && payload.text.trim() ? payload.text : undefined;
  if (isPayload(config)) values.prompt = text;
  const find = (name: 'prompt' | 'negativePrompt'): unknown => {
    const configuredText = values[name] === '' ? undefined : values[name];
    return isSource(config[`${name}Type`]) ? (configuredText ?? own(msg, name)) : (own(msg, name) ?? configuredText);
  };
  const prompt = find('prompt') ?? text;
  if (prompt === undefined || prompt === null) throw noPrompt(payload);
  const negativePrompt = find('negativePrompt');
  const words = {
    prompt: readPrompt(prompt, 'prompt', settings),
    negativePrompt: readNegative(negativePrompt, 'negativePrompt', settings),
  };
  delete msg.prompt;
  delete msg.negativePrompt;
  return words;
}

const isPayload = ({ prompt, promptType }: WordsConfig): boolean => promptType === 'msg' && prompt === 'payload';

function noPrompt(payload: Payload): MissingInputError {
  if (payload && 'source' in payload)
    return new MissingInputError('payload.prompt', `Say what the picture shows.${strangers(payload.source)}`);
  const found = payload && 'picture' in payload ? ' The picture in msg.payload holds no recipe.' : '';
  return new MissingInputError(
    'prompt',
    `Write one in the node, or send it as msg.prompt, or as text or a layout {prompt, regions} in msg.payload.${found}`,
  );
}
