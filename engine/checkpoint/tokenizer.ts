/**
 * Text → token ids as CLIP's tokenizer makes them (openai/CLIP, simple_tokenizer.py). Stable Diffusion
 * repositories ship vocab.json and merges.txt but no tokenizer.json, so the description that the
 * tokenizer library wants is put together here. Runs in the inference process.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { PreTrainedTokenizer } from '@huggingface/transformers';
import { MultiDiffusionError } from '../errors';

export interface TokenizedPrompt {
  /** Exactly `maxTokens` ids: start, the prompt, end, padding. */
  ids: number[];
  /** What did not fit, as the tokenizer reads it (lower case). */
  truncated?: string;
}

interface AddedToken {
  content: string;
}

const CLIP_WORDS = "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";

export class PromptTokenizer {
  private readonly tokenizer: PreTrainedTokenizer;
  private readonly start: number;
  private readonly end: number;
  private readonly pad: number;

  /**
   * @param folder holds tokenizer.json, or vocab.json and merges.txt; and the special tokens' names in
   *   special_tokens_map.json (which wins) or tokenizer_config.json
   * @param maxTokens ids of a prompt, start and end included
   * @throws MultiDiffusionError CHECKPOINT naming the file that isn't understood
   */
  constructor(
    folder: string,
    readonly maxTokens: number,
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
    // Loaded only here: it takes a quarter of a second, and never leaves this process.
    const { PreTrainedTokenizer, env } = require('@huggingface/transformers') as typeof import('@huggingface/transformers');
    env.allowRemoteModels = false;
    try {
      this.tokenizer = new PreTrainedTokenizer(description, names);
    } catch (error) {
      throw new MultiDiffusionError('CHECKPOINT', `The tokenizer in ${folder} is not understood: ${(error as Error).message}.`, { cause: error });
    }
    const id = (name: string): number => {
      const found = this.tokenizer.convert_tokens_to_ids([name])[0];
      if (typeof found !== 'number') throw new MultiDiffusionError('CHECKPOINT', `The vocabulary in ${folder} lacks the special token ${name}.`);
      return found;
    };
    this.start = id(names.bos_token);
    this.end = id(names.eos_token);
    this.pad = id(names.pad_token);
  }

  tokenize(prompt: string): TokenizedPrompt {
    const all = this.tokenizer.encode(prompt, { add_special_tokens: false });
    const room = this.maxTokens - 2;
    const ids = [this.start, ...all.slice(0, room), this.end];
    while (ids.length < this.maxTokens) ids.push(this.pad);
    if (all.length <= room) return { ids };
    return { ids, truncated: this.tokenizer.decode(all.slice(room), { skip_special_tokens: false }).trim() };
  }
}

/** The tokenizer library's description of CLIP's tokenizer over this folder's vocab.json and merges.txt. */
function describeClip(folder: string, names: Record<string, string>): object {
  const vocab = readJson(folder, 'vocab.json') as Record<string, number> | undefined;
  if (!vocab) throw new MultiDiffusionError('CHECKPOINT', `${join(folder, 'vocab.json')} is missing.`);
  const merges = readFileSync(join(folder, 'merges.txt'), 'utf8')
    .split(/\r?\n/)
    .filter((line) => line !== '' && !line.startsWith('#version'));
  const added = [...new Set(Object.values(names))].filter((name) => name in vocab);
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    // A special token inside a prompt is taken as itself. That includes a pad token such as SD2's "!".
    added_tokens: added.map((content) => ({
      id: vocab[content], content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true,
    })),
    normalizer: {
      type: 'Sequence',
      normalizers: [{ type: 'NFC' }, { type: 'Replace', pattern: { Regex: '\\s+' }, content: ' ' }, { type: 'Lowercase' }],
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
      type: 'BPE', dropout: null, unk_token: names.unk_token, continuing_subword_prefix: '', end_of_word_suffix: '</w>',
      fuse_unk: false, byte_fallback: false, ignore_merges: false, vocab, merges,
    },
  };
}

function tokenText(token: unknown): string | undefined {
  if (typeof token === 'string') return token;
  return typeof token === 'object' && token !== null ? (token as AddedToken).content : undefined;
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
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    throw new MultiDiffusionError('CHECKPOINT', `${join(folder, name)} is damaged: it is not JSON. Fetch it again.`);
  }
}
