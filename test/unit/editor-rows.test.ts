/** Split into rows and Gather: what they make of each other, without an editor. */
import assert from 'node:assert/strict';
import path from 'node:path';
import fc from 'fast-check';
import { ROOT } from './support/editor';
import { loadDefinition, newNode } from './support/editor';

interface PlainNode {
  id: string;
  type: string;
  x: number;
  y: number;
  z: string;
  wires: string[][];
  [property: string]: unknown;
}
interface Rows {
  toRows(
    layout: object,
    place: object,
    newId: () => string,
    defaultsOf: (type: string) => Record<string, unknown>,
  ): PlainNode[];
  toLayout(chain: PlainNode[]): { layout: Record<string, unknown>; model: string } | { error: string };
  chainOf(id: string, nodes: Map<string, PlainNode>, wires: Array<[string, string]>): PlainNode[];
}
// eslint-disable-next-line @typescript-eslint/no-require-imports
const part = <T>(name: string): T => require(path.join(ROOT, 'resources/composer', name)) as T;
for (const name of ['geometry.js', 'layout.js', 'mask.js']) part(name);
const { toRows, toLayout, chainOf } = part<Rows>('rows.js');

const SOFA = { name: 'sofa', prompt: 'a red sofa', box: [0.1, 0.2, 0.3, 0.4], weight: 2 };
const PLACE = { model: 'model', x: 100, y: 80, z: 'tab' };

const defaultsOf = (type: string): Record<string, unknown> => {
  if (type === 'change') return {};
  const { id: _id, type: _type, _: _texts, ...values } = newNode(type, loadDefinition(type));
  return values;
};
const rowsOf = (layout: object): PlainNode[] => {
  let count = 0;
  return toRows({ negativePrompt: '', ...layout }, PLACE, () => `n${++count}`, defaultsOf);
};
const back = (layout: object): Record<string, unknown> => {
  const made = toLayout(rowsOf(layout));
  assert.ok('layout' in made, JSON.stringify(made));
  assert.equal(made.model, 'model');
  return made.layout;
};
const graph = (nodes: PlainNode[]): [Map<string, PlainNode>, Array<[string, string]>] => [
  new Map(nodes.map((node) => [node.id, node])),
  nodes.flatMap((node) => node.wires.flat().map((target): [string, string] => [node.id, target])),
];

describe('rows', () => {
  it('are a chain of words and places, the background first', () => {
    const rows = rowsOf({ prompt: 'a room', regions: [SOFA, { prompt: 'the sky', rest: true }] });
    assert.deepEqual(
      rows.map(({ type, prompt, shape }) => [type, prompt ?? shape]),
      [
        ['text-encode', 'a room'],
        ['text-encode', 'a red sofa'],
        ['region-mask', 'box'],
        ['text-encode', 'the sky'],
        ['region-mask', 'rest'],
      ],
    );
    assert.deepEqual(
      rows.map(({ wires }) => wires[0]),
      [['n2'], ['n3'], ['n4'], ['n5'], []],
    );
    assert.deepEqual(new Set(rows.map(({ x, y }) => `${x} ${y}`)).size, rows.length, 'none lies on another');
  });

  it('set the size and the seed before all', () => {
    const [first] = rowsOf({ prompt: 'a room', width: 192, seed: 7, regions: [SOFA] });
    assert.equal(first.type, 'change');
    assert.deepEqual(first.rules, [
      { t: 'set', p: 'width', pt: 'msg', to: '192', tot: 'num' },
      { t: 'set', p: 'seed', pt: 'msg', to: '7', tot: 'num' },
    ]);
  });

  it('come back as the layout that they were made of', () => {
    const share = fc.integer({ min: 1, max: 90 }).map((value) => value / 100);
    const words = fc.constantFrom('', 'a sofa', '<b>x</b>', '  two  ');
    const outline = fc.oneof(
      fc.tuple(share, share, share, share).map((box) => ({ box })),
      fc.tuple(share, share, share, share).map((ellipse) => ({ ellipse })),
      fc.constant({
        polygon: [
          [0, 0],
          [1, 0],
          [0.5, 0.7],
        ],
      }), // prettier-ignore
      fc.constant({ image: 'data:image/png;base64,AAAA' }),
      fc.constant({ image: 'mask.png' }),
      fc.constant({ rest: true }),
    );
    const options = fc.record(
      {
        weight: fc.constantFrom(0.5, 2),
        feather: fc.constantFrom(0.1, 0.5),
        guidanceScale: fc.constantFrom(0, 7),
        seed: fc.constantFrom(0, 3),
        start: fc.constantFrom(0.1, 0.4),
        end: fc.constantFrom(0.5, 0.9),
        bootstrap: fc.constant(false),
        name: fc.constantFrom('sofa', 'plant'),
        negativePrompt: fc.constantFrom('a cat', 'blurry'),
      },
      { requiredKeys: [] },
    );
    const region = fc.tuple(words, outline, options).map(([prompt, place, more]) => ({ prompt, ...place, ...more }));
    const layout = fc.record(
      {
        prompt: words,
        negativePrompt: fc.constantFrom('', 'blurry'),
        width: fc.constantFrom(128, 256),
        height: fc.constantFrom(128, 256),
        seed: fc.constantFrom(0, 12),
        regions: fc.array(region, { minLength: 1, maxLength: 5 }),
      },
      { requiredKeys: ['prompt', 'negativePrompt', 'regions'] },
    );
    fc.assert(
      fc.property(layout, (source) => {
        const result = back(source);
        const expected = structuredClone(source) as { negativePrompt: string; regions: Array<Record<string, unknown>> };
        // What a region has of the layout anyway isn't said again.
        for (const one of expected.regions)
          if (one.negativePrompt === expected.negativePrompt) delete one.negativePrompt;
        assert.deepEqual(result, expected);
      }),
    );
  });

  it('say which region has no negative words where the others have some', () => {
    const rows = rowsOf({ prompt: 'a room', negativePrompt: 'blurry', regions: [SOFA] });
    rows[1].negativePrompt = '';
    const made = toLayout(rows) as unknown as { layout: { regions: object[] } };
    assert.deepEqual(made.layout.regions, [{ ...SOFA, negativePrompt: ' ' }]);
  });

  it('are refused where a message has a say', () => {
    const broken: Array<[string, (rows: PlainNode[]) => void]> = [
      ['words', (rows) => (rows[1].promptType = 'msg')],
      ['words', (rows) => (rows[1].negativePromptType = 'flow')],
      ['words', (rows) => (rows[1].prompt = '')],
      ['outline', (rows) => Object.assign(rows[2], { shape: 'image', imageType: 'msg' })],
      ['outline', (rows) => (rows[2].boxFromType = 'msg')],
      ['outline', (rows) => (rows[2].seedType = 'msg')],
      ['models', (rows) => (rows[1].model = 'other')],
      ['noWords', (rows) => rows.splice(0, 2)],
      ['none', (rows) => rows.splice(1, 2)],
    ];
    for (const [error, change] of broken) {
      const rows = rowsOf({ prompt: 'a room', regions: [SOFA] });
      change(rows);
      assert.deepEqual(toLayout(rows), { error }, error);
    }
  });

  it('are found from any of their nodes, and nothing else with them', () => {
    const rows = rowsOf({ prompt: 'a room', seed: 3, regions: [SOFA, { prompt: 'the sky', rest: true }] });
    const around: PlainNode[] = [
      { id: 'draw', type: 'inject', x: 0, y: 0, z: 'tab', wires: [['n1']] },
      { id: 'sampler', type: 'multidiffusion-sampler', x: 0, y: 0, z: 'tab', wires: [[]] },
    ];
    rows.at(-1)!.wires = [['sampler']];
    const [nodes, wires] = graph([...around, ...rows]);
    for (const { id } of rows) assert.deepEqual(chainOf(id, nodes, wires), rows, id);
    assert.deepEqual(chainOf('sampler', nodes, wires), []);
    // A branch ends it.
    rows[2].wires = [['n4', 'sampler']];
    const [, branched] = graph([...around, ...rows]);
    assert.deepEqual(
      chainOf('n1', nodes, branched).map(({ id }) => id),
      ['n1', 'n2', 'n3'],
    );
  });

  it('in a circle are no endless chain', () => {
    const rows = rowsOf({ prompt: 'a room', regions: [SOFA] });
    rows.at(-1)!.wires = [['n1']];
    const [nodes, wires] = graph(rows);
    assert.equal(chainOf('n2', nodes, wires).length, rows.length);
  });
});
