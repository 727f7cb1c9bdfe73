import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { ClipTokenizer } from '../../dist/engine/inference/process/tokenizer';
import { findUnknownWords } from '../../dist/engine/checkpoint/vocabulary';

const golden = path.join(__dirname, '../fixtures/golden');
const folderOf = (name: string): string => path.join(golden, 'checkpoints', name, 'tokenizer');
const caseOf = (name: string) =>
  JSON.parse(fs.readFileSync(path.join(golden, `${name}-results/txt2img/case.json`), 'utf8'));

describe('tokenizer', () => {
  for (const name of ['tiny-sd2', 'tiny-sd15-fp16']) {
    const tokenizer = new ClipTokenizer(folderOf(name), 77);
    for (const { text, ids } of caseOf(name).tokenizer_cases) {
      it(`${name}: ${JSON.stringify(text.slice(0, 30))} as the reference tokenizer`, () => {
        assert.deepEqual(tokenizer.tokenize(text).ids, ids);
      });
    }
  }

  it('tiny-lcm: the prompt of its case', () => {
    const { prompt, token_ids: ids } = caseOf('tiny-lcm');
    assert.deepEqual(new ClipTokenizer(folderOf('tiny-lcm'), 77).tokenize(prompt), { ids });
  });

  describe('words that were added', () => {
    const folders: string[] = [];
    after(() => folders.forEach((folder) => fs.rmSync(folder, { recursive: true })));
    const tokenizerFiles = path.join(folderOf('tiny-sd15-fp16'));
    const vocabulary = JSON.parse(fs.readFileSync(path.join(tokenizerFiles, 'vocab.json'), 'utf8')) as Record<
      string,
      number
    >;
    const id = 1 + Math.max(...Object.values(vocabulary));
    const [start, end] = [vocabulary['<|startoftext|>'], vocabulary['<|endoftext|>']];
    const a = vocabulary['a</w>'];
    const copy = (files: Record<string, object | string>): string => {
      const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tokenizer-'));
      folders.push(folder);
      for (const file of ['vocab.json', 'merges.txt'])
        fs.copyFileSync(path.join(tokenizerFiles, file), path.join(folder, file));
      for (const [name, content] of Object.entries(files))
        fs.writeFileSync(path.join(folder, name), typeof content === 'string' ? content : JSON.stringify(content));
      return folder;
    };
    const decoder = { [id]: { content: '<cat-toy>', lstrip: false, normalized: true, rstrip: false, special: false } };
    const idsOf = (folder: string, prompt: string, size?: number): number[] => {
      const { ids } = new ClipTokenizer(folder, 77, size).tokenize(prompt);
      return ids.slice(0, ids.indexOf(end) + 1);
    };

    for (const [title, files] of [
      ['added_tokens.json', { 'added_tokens.json': { '<cat-toy>': id } }],
      ['added_tokens_decoder', { 'tokenizer_config.json': { added_tokens_decoder: decoder } }],
      [
        'both',
        { 'added_tokens.json': { '<cat-toy>': id }, 'tokenizer_config.json': { added_tokens_decoder: decoder } },
      ],
      ['a file with a byte order mark', { 'added_tokens.json': `\uFEFF{"<cat-toy>": ${id}}` }],
    ] as Array<[string, Record<string, object | string>]>)
      it(`are taken whole: ${title}`, () => {
        const folder = copy(files);
        assert.deepEqual(idsOf(folder, 'a <cat-toy>'), [start, a, id, end]);
        assert.deepEqual(idsOf(folder, 'a <cat-toy> a'), [start, a, id, a, end]);
        assert.deepEqual(idsOf(folder, 'a<cat-toy>a'), [start, a, id, a, end]);
        assert.deepEqual(idsOf(folder, 'a a'), idsOf(tokenizerFiles, 'a a'));
      });

    it('special tokens that both files name keep their ids', () => {
      const added_tokens_decoder = { ...decoder, [end]: { content: '<|endoftext|>', special: true } };
      const folder = copy({ 'tokenizer_config.json': { added_tokens_decoder } });
      assert.deepEqual(idsOf(folder, 'a <cat-toy>'), [start, a, id, end]);
    });

    it('without an embedding they are refused by name, in prompts that use them', () => {
      const folder = copy({ 'added_tokens.json': { '<cat-toy>': id } });
      assert.deepEqual(idsOf(folder, 'a', id), [start, a, end]);
      assert.throws(
        () => idsOf(folder, 'a <cat-toy>', id),
        new RegExp(`"<cat-toy>" the id ${id}, .* 0 to ${id - 1} only`),
      );
      assert.deepEqual(idsOf(folder, 'a <cat-toy>', id + 1), [start, a, id, end]);
    });

    it('that are none are an error that says what they are', () => {
      const folder = copy({ 'added_tokens.json': { '<cat-toy>': 'many' } });
      assert.throws(() => idsOf(folder, 'a'), /"<cat-toy>" with the id NaN; allowed/);
    });
  });

  describe('fills up with', () => {
    const folders: string[] = [];
    after(() => folders.forEach((folder) => fs.rmSync(folder, { recursive: true })));
    /** The id that a short prompt ends with, under these special_tokens_map.json and tokenizer_config.json. */
    const padOf = (special?: object, config?: object): number => {
      const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tokenizer-'));
      folders.push(folder);
      for (const file of ['vocab.json', 'merges.txt'])
        fs.copyFileSync(path.join(folderOf('tiny-sd2'), file), path.join(folder, file));
      if (special) fs.writeFileSync(path.join(folder, 'special_tokens_map.json'), JSON.stringify(special));
      if (config) fs.writeFileSync(path.join(folder, 'tokenizer_config.json'), JSON.stringify(config));
      return new ClipTokenizer(folder, 77).tokenize('a').ids.at(-1) as number;
    };
    const vocab = JSON.parse(fs.readFileSync(path.join(folderOf('tiny-sd2'), 'vocab.json'), 'utf8'));
    const [end, mark] = [vocab['<|endoftext|>'], vocab['!']];
    const token = (content: string) => ({
      content,
      lstrip: false,
      normalized: true,
      rstrip: false,
      single_word: false,
    });

    it('the end token when no file names another', () => {
      assert.notEqual(end, mark);
      assert.equal(padOf(), end);
      assert.equal(padOf({ bos_token: '<|startoftext|>' }, { model_max_length: 77 }), end);
      assert.equal(padOf({ pad_token: null }), end);
    });

    it('what special_tokens_map.json says, whatever tokenizer_config.json says', () => {
      assert.equal(padOf({ pad_token: '!' }, { pad_token: '<|endoftext|>' }), mark);
      assert.equal(padOf({ pad_token: token('<|endoftext|>') }, { pad_token: '!' }), end);
    });

    it('what tokenizer_config.json says when it alone does, as text or as an object', () => {
      assert.equal(padOf({ eos_token: '<|endoftext|>' }, { pad_token: '!' }), mark);
      assert.equal(padOf(undefined, { pad_token: token('!') }), mark);
    });
  });

  it('says what it cut off', () => {
    const tokenizer = new ClipTokenizer(folderOf('tiny-sd2'), 8);
    const { ids, truncated } = tokenizer.tokenize('in in in in in in the man');
    assert.equal(ids.length, 8);
    assert.equal(truncated, 'the man');
  });

  it('survives any text', () => {
    const tokenizer = new ClipTokenizer(folderOf('tiny-sd2'), 77);
    for (const text of ['\0', '😀 👩‍👩‍👧 ﷽', '\u202e', '<|endoftext|>', 'a'.repeat(10_000), '\n\t\r ', '\ud800']) {
      const { ids } = tokenizer.tokenize(text);
      assert.equal(ids.length, 77);
      assert.ok(
        ids.every((id) => Number.isInteger(id) && id >= 0),
        JSON.stringify(text),
      );
    }
  });

  it('takes a ready-made tokenizer.json where there is one', () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tokenizer-'));
    const vocab = { '<start>': 0, '<end>': 1, 'a</w>': 2, a: 3 };
    const special = (content: string, id: number) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    });
    fs.writeFileSync(
      path.join(folder, 'tokenizer.json'),
      JSON.stringify({
        version: '1.0',
        added_tokens: [special('<start>', 0), special('<end>', 1)],
        normalizer: null,
        pre_tokenizer: { type: 'Whitespace' },
        post_processor: null,
        decoder: null,
        model: { type: 'BPE', unk_token: '<end>', end_of_word_suffix: '</w>', vocab, merges: [] },
      }),
    );
    fs.writeFileSync(
      path.join(folder, 'tokenizer_config.json'),
      JSON.stringify({ bos_token: '<start>', eos_token: '<end>' }),
    );
    assert.deepEqual(new ClipTokenizer(folder, 6).tokenize('a a').ids, [0, 2, 2, 1, 1, 1]);
    fs.rmSync(folder, { recursive: true });
  });

  it('names a special token that the vocabulary lacks', () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tokenizer-'));
    fs.writeFileSync(path.join(folder, 'vocab.json'), JSON.stringify({ a: 0, '<|endoftext|>': 1 }));
    fs.writeFileSync(path.join(folder, 'merges.txt'), '#version: 0.2\n');
    assert.throws(() => new ClipTokenizer(folder, 77), { code: 'CHECKPOINT', message: /<\|startoftext\|>/ });
    fs.rmSync(folder, { recursive: true });
  });
});

describe('closed vocabulary', () => {
  it('finds the words that it lacks, once each', () => {
    assert.deepEqual(findUnknownWords('A Red sofa, a purple SOFA & a purple zebra', ['a', 'red', 'sofa']), [
      'purple',
      'zebra',
    ]);
  });

  it('knows both words of a two-word entry', () => {
    assert.deepEqual(findUnknownWords('an oil-painting', ['an', 'oil painting']), []);
    assert.deepEqual(findUnknownWords('a sofa 🛋️', ['a', 'sofa']), ['🛋'], 'an emoji says something, too');
  });
});
