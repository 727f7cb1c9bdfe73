/**
 * Text → token ids, as CLIP's tokenizer makes them (openai/CLIP, simple_tokenizer.py) or T5's. Stable Diffusion
 * repositories ship vocab.json and merges.txt for CLIP but no tokenizer.json, so the description that the
 * tokenizer library wants is put together here. Runs in the inference process.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { PreTrainedTokenizer } from '@huggingface/transformers';
import { withoutMark } from '../../bytes';
import { MultiDiffusionError } from '../../errors';
import type { TextEncoderSetup } from '../protocol';

export interface TokenizedPrompt {
  /** Exactly `maxTokens` ids: start (of CLIP), the prompt, end, padding. */
  ids: number[];
  /** What did not fit, as the tokenizer reads it (lower case). */
  truncated?: string;
}

/** A word that was added to a tokenizer, such as a textual inversion's. */
interface AddedToken {
  id: number;
  content: string;
  single_word: boolean;
  lstrip: boolean;
  rstrip: boolean;
  normalized: boolean;
  special: boolean;
}

const CLIP_WORDS = "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";

export interface PromptTokenizer {
  tokenize(prompt: string): TokenizedPrompt;
}

/** @throws MultiDiffusionError CHECKPOINT naming the file that isn't understood */
export function loadTokenizer({
  kind,
  tokenizerFolder,
  maxTokens,
  vocabularySize,
}: Pick<TextEncoderSetup, 'kind' | 'tokenizerFolder' | 'maxTokens' | 'vocabularySize'>): PromptTokenizer {
  const Tokenizer = kind === 't5' ? T5Tokenizer : ClipTokenizer;
  return new Tokenizer(tokenizerFolder, maxTokens, vocabularySize);
}

export class ClipTokenizer implements PromptTokenizer {
  private readonly tokenizer: PreTrainedTokenizer;
  private readonly start: number;
  private readonly end: number;
  private readonly pad: number;
  private readonly added: AddedToken[];

  /**
   * @param folder holds tokenizer.json, or vocab.json and merges.txt; and the special tokens' names in
   *   special_tokens_map.json (which wins) or tokenizer_config.json
   * @param maxTokens ids of a prompt, start and end included
   * @param vocabularySize how many ids the text encoder has, where its configuration tells; added tokens beyond are
   *   refused in a prompt
   * @throws MultiDiffusionError CHECKPOINT naming the file that isn't understood
   */
  constructor(
    folder: string,
    readonly maxTokens: number,
    private readonly vocabularySize = Infinity,
  ) {
    const config = readJson(folder, 'tokenizer_config.json') ?? {};
    const special = { ...config, ...readJson(folder, 'special_tokens_map.json') };
    const end = tokenText(special.eos_token) ?? '<|endoftext|>';
    const names = {
      bos_token: tokenText(special.bos_token) ?? '<|startoftext|>',
      eos_token: end,
      pad_token: tokenText(special.pad_token) ?? end,
      unk_token: tokenText(special.unk_token) ?? end,
    };
    const description = readJson(folder, 'tokenizer.json') ?? describeClip(folder, names);
    this.added = addTokens(folder, description, config);
    this.tokenizer = openTokenizer(folder, description, names);
    this.start = idOf(this.tokenizer, names.bos_token, folder);
    this.end = idOf(this.tokenizer, names.eos_token, folder);
    this.pad = idOf(this.tokenizer, names.pad_token, folder);
  }

  tokenize(prompt: string): TokenizedPrompt {
    const all = this.tokenizer.encode(prompt, { add_special_tokens: false });
    checkIds(all, this.added, this.vocabularySize);
    const room = this.maxTokens - 2;
    const ids = [this.start, ...all.slice(0, room), this.end];
    while (ids.length < this.maxTokens) ids.push(this.pad);
    if (all.length <= room) return { ids };
    return { ids, truncated: this.tokenizer.decode(all.slice(room), { skip_special_tokens: false }).trim() };
  }
}

/** T5's, from its tokenizer.json: the prompt, the end, padding. */
export class T5Tokenizer implements PromptTokenizer {
  private readonly tokenizer: PreTrainedTokenizer;
  private readonly end: number;
  private readonly pad: number;
  private readonly added: AddedToken[];

  /** As ClipTokenizer. */
  constructor(
    folder: string,
    readonly maxTokens: number,
    private readonly vocabularySize = Infinity,
  ) {
    const description = readJson(folder, 'tokenizer.json');
    if (!description)
      throw new MultiDiffusionError(
        'CHECKPOINT',
        `${join(folder, 'tokenizer.json')} is missing: a T5 encoder needs it.`,
      );
    const config = readJson(folder, 'tokenizer_config.json') ?? {};
    const special = { ...config, ...readJson(folder, 'special_tokens_map.json') };
    const names = {
      eos_token: tokenText(special.eos_token) ?? '</s>',
      pad_token: tokenText(special.pad_token) ?? '<pad>',
      unk_token: tokenText(special.unk_token) ?? '<unk>',
    };
    this.added = addTokens(folder, description, config);
    this.tokenizer = openTokenizer(folder, description, names);
    this.end = idOf(this.tokenizer, names.eos_token, folder);
    this.pad = idOf(this.tokenizer, names.pad_token, folder);
  }

  tokenize(prompt: string): TokenizedPrompt {
    const all = this.tokenizer.encode(prompt, { add_special_tokens: false });
    checkIds(all, this.added, this.vocabularySize);
    const room = this.maxTokens - 1;
    const ids = [...all.slice(0, room), this.end];
    while (ids.length < this.maxTokens) ids.push(this.pad);
    if (all.length <= room) return { ids };
    return { ids, truncated: this.tokenizer.decode(all.slice(room), { skip_special_tokens: false }).trim() };
  }
}

/**
 * Adds to a tokenizer's description the words of added_tokens.json and of tokenizer_config.json's added_tokens_decoder,
 * as transformers does: what the description has already stays, and the newer of the two files wins.
 * @returns all added tokens
 */
function addTokens(
  folder: string,
  description: Record<string, unknown>,
  config: Record<string, unknown>,
): AddedToken[] {
  const plain = { single_word: false, lstrip: false, rstrip: false, normalized: true, special: false };
  const tokens = (Array.isArray(description.added_tokens) ? description.added_tokens : []) as AddedToken[];
  const known = new Set(tokens.map(({ content }) => content));
  const add = (content: unknown, id: number, options: object): void => {
    if (typeof content !== 'string' || content === '' || !Number.isInteger(id) || id < 0)
      throw new MultiDiffusionError(
        'CHECKPOINT',
        `An added token in ${folder} is ${JSON.stringify(content)} with the id ${id}; allowed: a text and a whole number.`,
      );
    if (known.has(content)) return;
    known.add(content);
    tokens.push({ ...plain, ...options, content, id });
  };
  for (const [id, token] of Object.entries((config.added_tokens_decoder ?? {}) as Record<string, Partial<AddedToken>>))
    add(token?.content, Number(id), token);
  for (const [content, id] of Object.entries(readJson(folder, 'added_tokens.json') ?? {})) add(content, Number(id), {});
  description.added_tokens = tokens;
  return tokens;
}

/** @throws MultiDiffusionError CHECKPOINT naming an added token that the text encoder has no embedding for */
function checkIds(ids: number[], added: AddedToken[], size: number): void {
  const beyond = added.find(({ id }) => id >= size && ids.includes(id));
  if (beyond)
    throw new MultiDiffusionError(
      'CHECKPOINT',
      `The tokenizer gives ${JSON.stringify(beyond.content)} the id ${beyond.id}, but the text encoder has embeddings for ` +
        `0 to ${size - 1} only: the word was added without its embedding. Export the text encoder with it, or leave ` +
        'the word out of the prompt.',
    );
}

function openTokenizer(folder: string, description: object, config: object): PreTrainedTokenizer {
  // Loaded only here: it takes a quarter of a second, and never leaves this process.
  const { PreTrainedTokenizer, env } =
    require('@huggingface/transformers') as typeof import('@huggingface/transformers');
  env.allowRemoteModels = false;
  try {
    return new PreTrainedTokenizer(description, config);
  } catch (error) {
    throw new MultiDiffusionError(
      'CHECKPOINT',
      `The tokenizer in ${folder} is not understood: ${(error as Error).message}.`,
      { cause: error },
    );
  }
}

function idOf(tokenizer: PreTrainedTokenizer, name: string, folder: string): number {
  const found = tokenizer.convert_tokens_to_ids([name])[0];
  if (typeof found !== 'number')
    throw new MultiDiffusionError('CHECKPOINT', `The vocabulary in ${folder} lacks the special token ${name}.`);
  return found;
}

/** The tokenizer library's description of CLIP's tokenizer over this folder's vocab.json and merges.txt. */
function describeClip(folder: string, names: Record<string, string>): Record<string, unknown> {
  const vocab = readJson(folder, 'vocab.json') as Record<string, number> | undefined;
  if (!vocab) throw new MultiDiffusionError('CHECKPOINT', `${join(folder, 'vocab.json')} is missing.`);
  const merges = withoutMark(readFileSync(join(folder, 'merges.txt'), 'utf8'))
    .split(/\r?\n/)
    .filter((line) => line !== '' && !line.startsWith('#version'));
  const added = [...new Set(Object.values(names))].filter((name) => name in vocab);
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    // A special token inside a prompt is taken as itself. That includes a pad token such as SD2's "!".
    added_tokens: added.map((content) => ({
      id: vocab[content],
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'NFC' },
        { type: 'Replace', pattern: { Regex: '\\s+' }, content: ' ' },
        { type: 'Lowercase' },
      ],
    },
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        { type: 'Split', pattern: { Regex: CLIP_WORDS }, behavior: 'Removed', invert: true },
        { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: null,
    decoder: { type: 'BPEDecoder', suffix: '</w>' },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: names.unk_token,
      continuing_subword_prefix: '',
      end_of_word_suffix: '</w>',
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab,
      merges,
    },
  };
}

function tokenText(token: unknown): string | undefined {
  if (typeof token === 'string') return token;
  return typeof token === 'object' && token !== null ? (token as { content: string }).content : undefined;
}

/** The file's JSON, or undefined when there is no such file. */
function readJson(folder: string, name: string): Record<string, unknown> | undefined {
  let text: string;
  try {
    text = readFileSync(join(folder, name), 'utf8');
  } catch {
    return undefined;
  }
  try {
    return JSON.parse(withoutMark(text)) as Record<string, unknown>;
  } catch {
    throw new MultiDiffusionError('CHECKPOINT', `${join(folder, name)} is damaged: it is not JSON. Fetch it again.`);
  }
}
