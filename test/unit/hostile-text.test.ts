/** Text of others: every pattern that meets it takes time in proportion to its length. */
import assert from 'node:assert/strict';
import os from 'node:os';
import { readRecipe } from '../../dist/engine';
import { findUnknownWords } from '../../dist/engine/checkpoint/vocabulary';
import { checkNames } from '../../dist/engine/hub/hub';
import { toParameters } from '../../dist/engine/image/parameters';
import { toRecipe } from '../../dist/engine/image/recipe';
import { parsePythonJson } from '../../dist/engine/schedulers/config';
import { cleanName, relativeParts } from '../../dist/nodes/shared/files';
import { contentHeaders, textIn } from '../../dist/nodes/shared/message';
import { readMessageLayout } from '../../dist/nodes/shared/message-layout';

const LENGTH = 100_000;
/** Twice the length may take four times as long at most, and nothing takes this long; quadratic ones take seconds. */
const MOST_MILLISECONDS = 400;

/** What makes patterns go back and forth: runs of one kind, ended by another. */
const RUNS = [
  ' ',
  '\n',
  ' \n',
  '\\"',
  '"',
  '\\',
  '.',
  '/',
  '-',
  '<',
  '>',
  '{',
  '}',
  '=',
  ':',
  'a',
  '0',
  '\u00e9',
  '\ud83d',
  '\u200b',
  '\t',
];
const texts = RUNS.flatMap((run) => {
  const long = run.repeat(LENGTH / run.length);
  return [
    long,
    `a${long}b`,
    `"${long}`,
    `{"a":"${long}`,
    `<multidiffusion:recipe>${long}`,
    `data:image/png;base64,${long}`,
  ];
});

const settings = { limits: { maxPromptLength: 1e6, maxRegions: 64, maxLayoutLength: 1e7, maxCorners: 1e4 } } as never;
const jpeg = (text: string): Buffer => {
  const xmp = Buffer.from(`http://ns.adobe.com/xap/1.0/\0${text}`).subarray(0, 65_000);
  const head = Buffer.from([0xff, 0xd8, 0xff, 0xe1, 0, 0]);
  head.writeUInt16BE(xmp.length + 2, 4);
  return Buffer.concat([head, xmp, Buffer.from([0xff, 0xd9])]);
};

const readers: Record<string, (text: string) => unknown> = {
  'a recipe as parameters': (text) => toParameters({ prompt: text, negativePrompt: text, model: text }),
  'a recipe as it is read': (text) => toRecipe({ prompt: text, regions: [{ prompt: text, image: text, name: text }] }),
  'a recipe in XMP': (text) => readRecipe(jpeg(text)),
  'a scheduler configuration': (text) => parsePythonJson(text),
  'a file name': (text) => cleanName(text),
  'a folder': (text) => relativeParts(text, os.tmpdir(), 'folder'),
  'a layout as text': (text) => readMessageLayout(text, settings),
  'a layout as bytes': (text) => readMessageLayout(Buffer.from(text), settings),
  'words of a closed vocabulary': (text) => findUnknownWords(text, [text.slice(0, 100)]),
  'headers of an answer': (text) => contentHeaders({ [text]: text, 'x-a': text }, 'image/png'),
  'text in a payload': (text) => textIn(text, 20_000),
  'a repository, a revision, an endpoint, a token': (text) =>
    checkNames({ repository: `a/${text}`, revision: text, endpoint: `https://${text}`, token: text }),
};

describe('text of others', function () {
  this.timeout(60_000);
  for (const [what, read] of Object.entries(readers)) {
    it(`${what}: 100 kB of anything take no long time`, async () => {
      for (const text of texts) {
        const started = process.cpuUsage();
        try {
          await read(text);
        } catch {
          // Refused, which is right as well.
        }
        const { user } = process.cpuUsage(started);
        const shown = JSON.stringify(text.slice(0, 30));
        assert.ok(user / 1000 < MOST_MILLISECONDS, `${Math.round(user / 1000)} ms for ${shown}…`);
      }
    });
  }

  it('the reader of Python’s JSON keeps what texts hold', () => {
    const text = '{"a": "Infinity \\" NaN \\\\", "b": -Infinity, "c": [NaN, Infinity], "d\\n": "x"}';
    assert.deepEqual(parsePythonJson(text), { a: 'Infinity " NaN \\', b: -Infinity, c: [null, Infinity], 'd\n': 'x' });
    assert.throws(() => parsePythonJson('{"a": "never closed \\"'), SyntaxError);
  });

  it('a prompt of several lines is one line of the parameters', () => {
    const written = toParameters({ prompt: 'a room\n\n  with a sofa \n and a cat' });
    assert.equal(written.split('\n')[0], 'a room with a sofa and a cat');
  });
});
