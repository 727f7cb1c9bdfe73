/** The parts of the composer that need no browser. */
import assert from 'node:assert/strict';
import path from 'node:path';
import fc from 'fast-check';
import { findUnknownWords } from '../../dist/engine/checkpoint/vocabulary';
import { REGION_OPTIONS, SAMPLER_OPTIONS } from '../../dist/engine/options';
import { ROOT } from './support/editor';

interface Region {
  name: string;
  prompt: string;
  shape: string;
  box: number[];
  options: Record<string, unknown>;
}
interface LayoutPart {
  RANGES: Record<string, { min: number; max: number; integer?: boolean; standard?: number }>;
  CANVAS_RANGES: Record<string, { min: number; max: number; integer?: boolean }>;
  compositionOf(layout: unknown): { prompt: string; width: string; regions: Region[] };
  layoutRegions(regions: Region[]): Array<Record<string, unknown>>;
  findProblem(regions: unknown): { index: number; problem: string; property?: string } | undefined;
  numberOf(value: unknown): string | number;
}
interface Vocabulary {
  unknown(text: string, caret?: number): Array<{ from: number; to: number; word: string }>;
  suggestions(text: string, caret: number): Array<{ entry: string; from: number }>;
}
interface History<State> {
  push(state: State, kind?: string): void;
  undo(): State | undefined;
  redo(): State | undefined;
  readonly canUndo: boolean;
  readonly canRedo: boolean;
}
// eslint-disable-next-line @typescript-eslint/no-require-imports
const part = <T>(name: string): T => require(path.join(ROOT, 'resources/composer', name)) as T;
part('geometry.js');
const layout = part<LayoutPart>('layout.js');
const { Vocabulary } = part<{ Vocabulary: new (entries?: string[]) => Vocabulary }>('words.js');
const { History } = part<{ History: new <S>(state: S, clock?: () => number) => History<S> }>('history.js');

const VARIABLE = '$' + '{SEED}';
const SOFA = { name: 'sofa', prompt: 'a red sofa', box: [0.1, 0.2, 0.3, 0.4] };

describe("the composer's texts on a page", () => {
  const languages = {
    'en-US': { tool: { box: 'Draw a box' }, canvas: { size: '__width__ × __height__ px' } },
    'es-ES': { tool: { box: 'Dibujar un rectángulo' }, canvas: {} },
  };
  const { textsIn } = part<{ textsIn: (language: string) => (key: string, values?: object) => string }>('page.js');
  const parts = (globalThis as unknown as { MultiDiffusionCompose: { languages: object } }).MultiDiffusionCompose;
  before(() => Object.assign(parts, { languages }));

  it('are those of the language, by its first letters, and English where there is none', () => {
    for (const language of ['es', 'es-ES', 'ES-mx'])
      assert.equal(textsIn(language)('tool.box'), 'Dibujar un rectángulo');
    for (const language of ['en', 'fr', '', 'constructor']) assert.equal(textsIn(language)('tool.box'), 'Draw a box');
  });

  it('hold the values, and say the key where a text is missing', () => {
    const say = textsIn('en');
    assert.equal(say('canvas.size', { width: 0, height: '$&' }), '0 × $& px');
    assert.equal(say('canvas.size'), ' ×  px');
    assert.equal(say('canvas.other'), 'canvas.other');
  });
});

describe("the composer's layouts", () => {
  it('come back as they were', () => {
    const regions = [
      SOFA,
      {
        prompt: 'a plant',
        negativePrompt: 'a pot',
        ellipse: [0, 0, 0.5, 0.5],
        weight: 2,
        feather: 0.1,
        bootstrap: false,
      },
      {
        prompt: 'a roof',
        polygon: [
          [0, 0],
          [1, 0],
          [0.5, 0.5],
        ],
        seed: 7,
        start: 0.2,
        end: 0.8,
        guidanceScale: 3,
      },
      { prompt: 'a lake', image: 'data:image/png;base64,AAAA' },
      { prompt: 'a file', image: 'lake.png' },
      { prompt: 'sky', rest: true },
    ];
    const { regions: edited } = layout.compositionOf({ prompt: 'a room', regions });
    assert.deepEqual(layout.layoutRegions(edited), regions);
    assert.equal(layout.findProblem(regions), undefined);
  });

  it('leave out what holds anyway', () => {
    const source = {
      ...SOFA,
      weight: 1,
      feather: 0,
      start: 0,
      end: 1,
      bootstrap: true,
      guidanceScale: '',
      negativePrompt: '',
    };
    assert.deepEqual(layout.layoutRegions(layout.compositionOf({ regions: [source] }).regions), [SOFA]);
  });

  it('never fail, whatever a flow holds', () => {
    fc.assert(
      fc.property(fc.anything(), fc.array(fc.anything()), (anything, list) => {
        for (const source of [
          anything,
          { regions: list },
          { regions: [anything], width: anything, prompt: anything },
        ]) {
          const { regions, prompt, width } = layout.compositionOf(source);
          assert.equal(typeof prompt, 'string');
          assert.equal(typeof width, 'string');
          layout.findProblem(layout.layoutRegions(regions));
        }
        layout.findProblem(anything);
        layout.findProblem(list);
      }),
    );
  });

  it('know the ranges of the engine', () => {
    for (const [name, { min, max, integer, standard }] of Object.entries(layout.RANGES)) {
      const spec = REGION_OPTIONS[name as 'weight'] as { min: number; max: number; type: string; default?: number };
      assert.deepEqual(
        [min, max, Boolean(integer), standard],
        [spec.min, spec.max, spec.type === 'integer', spec.default],
        name,
      );
    }
    const options = Object.keys(REGION_OPTIONS).filter((name) => name !== 'bootstrap');
    assert.deepEqual(Object.keys(layout.RANGES).sort(), options.sort());
    for (const [name, { min, max }] of Object.entries(layout.CANVAS_RANGES)) {
      const spec = SAMPLER_OPTIONS[name as 'width'];
      assert.deepEqual([min, max], [spec.min, spec.max], name);
    }
  });

  it('tell the first region that can not be drawn, and why', () => {
    const cases: Array<[unknown, object]> = [
      ['all', { index: 0, problem: 'region' }],
      [[SOFA, null], { index: 1, problem: 'region' }],
      [[{ box: [0, 0, 1, 1] }], { index: 0, problem: 'words' }],
      [[{ prompt: 'x' }], { index: 0, problem: 'outline' }],
      [[{ prompt: 'x', box: [0, 0, 0, 1] }], { index: 0, problem: 'outline' }],
      [[{ prompt: 'x', box: [0, 0, 1, 1], rest: true }], { index: 0, problem: 'outline' }],
      [
        [
          {
            prompt: 'x',
            polygon: [
              [0, 0],
              [1, 1],
            ],
          },
        ],
        { index: 0, problem: 'outline' },
      ],
      [[{ prompt: 'x', image: '' }], { index: 0, problem: 'outline' }],
      [[{ ...SOFA, weight: 'heavy' }], { index: 0, problem: 'range', property: 'weight' }],
      [[{ ...SOFA, feather: 0.6 }], { index: 0, problem: 'range', property: 'feather' }],
      [[{ ...SOFA, seed: 1.5 }], { index: 0, problem: 'range', property: 'seed' }],
      [[{ ...SOFA, start: 0.5, end: 0.5 }], { index: 0, problem: 'period' }],
    ];
    for (const [regions, expected] of cases) {
      const found = layout.findProblem(regions);
      assert.ok(found, JSON.stringify(regions));
      for (const [name, value] of Object.entries(expected))
        assert.equal(found[name as 'index'], value, JSON.stringify(regions));
    }
    assert.equal(layout.findProblem([{ ...SOFA, weight: VARIABLE }]), undefined, 'filled in when the flow is deployed');
  });

  it('take numbers as people type them', () => {
    assert.deepEqual(['0,5', ' 2 ', '', 'many', VARIABLE].map(layout.numberOf), [0.5, 2, '', 'many', VARIABLE]);
  });
});

describe("the composer's vocabulary", () => {
  const words = ['sofa', 'couch', 'red', 'potted plant', 'painting', 'painted', 'living room', 'a', 'in'];
  const vocabulary = new Vocabulary(words);

  it('finds the words that the engine finds', () => {
    const text = fc.string({
      unit: fc.constantFrom('a', 'sofa', ' ', ', ', 'zebra', 'é', '7', '🐱', 'Red', '-', '\n'),
    });
    fc.assert(
      fc.property(text, (prompt) => {
        const found = vocabulary.unknown(prompt);
        assert.deepEqual([...new Set(found.map(({ word }) => word))], findUnknownWords(prompt, words));
        for (const { from, to, word } of found)
          assert.equal(prompt.slice(from, to).normalize('NFC').toLowerCase(), word);
      }),
    );
  });

  it('does not mark a word that may still become a known one while it is typed', () => {
    assert.deepEqual(vocabulary.unknown('a so', 4), []);
    assert.equal(vocabulary.unknown('a so').length, 1);
    assert.equal(vocabulary.unknown('a zeb', 5).length, 1);
    assert.equal(vocabulary.unknown('a so fa', 7).length, 2);
  });

  it('completes words and phrases before the caret', () => {
    const entries = (text: string, caret = text.length) =>
      vocabulary.suggestions(text, caret).map(({ entry, from }) => `${entry}@${from}`);
    assert.deepEqual(entries('a pain'), ['painting@2', 'painted@2']);
    assert.deepEqual(entries('a LIV'), ['living room@2']);
    assert.deepEqual(entries('a potted pl'), ['potted plant@2']);
    assert.deepEqual(entries('a s'), [], 'one letter is too little');
    assert.deepEqual(entries('a sofa'), []);
    assert.deepEqual(entries('pain on', 4), ['painting@0', 'painted@0']);
    assert.deepEqual(entries('painter', 4), [], 'in the middle of a word');
  });

  it('knows every word where the vocabulary is open', () => {
    const open = new Vocabulary();
    assert.deepEqual([open.unknown('a zebra'), open.suggestions('a zeb', 5)], [[], []]);
  });
});

describe("the composer's history", () => {
  it('goes back and forth, and forgets what was undone', () => {
    const history = new History('a');
    history.push('b');
    history.push('c');
    assert.deepEqual([history.undo(), history.undo(), history.undo()], ['b', 'a', undefined]);
    assert.deepEqual([history.redo(), history.canUndo, history.canRedo], ['b', true, true]);
    history.push('d');
    assert.deepEqual([history.canRedo, history.undo()], [false, 'b']);
  });

  it('takes typing as one change, until there is a pause or another change', () => {
    let now = 0;
    const history = new History('', () => now);
    history.push('r', 'words 1');
    history.push('re', 'words 1');
    now += 5000;
    history.push('red', 'words 1');
    history.push('red!', 'words 2');
    assert.deepEqual([history.undo(), history.undo(), history.undo()], ['red', 're', '']);
  });

  it('keeps a bounded number of states', () => {
    const history = new History(0);
    for (let i = 1; i <= 1000; i++) history.push(i);
    let count = 0;
    while (history.undo() !== undefined) count++;
    assert.ok(count > 50 && count < 1000, String(count));
  });
});
