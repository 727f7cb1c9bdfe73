/** The arithmetic of npm run evaluate. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import sharp from 'sharp';
import { Tensor } from '../../dist/engine/tensor';
import {
  type Box,
  changedPixels,
  cropForJudge,
  cropSquare,
  FILL,
  intersection,
  overlaps,
} from '../../bench/evaluate/geometry';
import { makeLayout, makeLayouts, SCENES, SMALL } from '../../bench/evaluate/layouts';
import { pictureFile, type Settings } from '../../bench/evaluate/painter';
import {
  betterThanDefault,
  FILLED,
  groupedMean,
  putTable,
  type Row,
  type Seen,
  type SeenRegion,
  summarise,
  toPairs,
  toTable,
} from '../../bench/evaluate/report';
import { joinSheets, makeSheet } from '../../bench/evaluate/sheet';
import { chooseStrategies, isDefault, SCENE_ALONE, STRATEGIES, type Strategy } from '../../bench/evaluate/strategies';
import { usualGuidanceScale } from '../../dist/engine/model';
import { REGION_OPTIONS, SAMPLER_OPTIONS } from '../../dist/engine/options';
import vocabulary from '../../models/pocket/vocabulary.json';

const near = (a: number, b: number, tolerance = 1e-9): void => assert.ok(Math.abs(a - b) <= tolerance, `${a} and ${b}`);

/** A picture whose pixels are what `colour` says. */
function picture(side: number, colour: (x: number, y: number) => number): Tensor<'uint8'> {
  return Tensor.uint8(
    Uint8Array.from({ length: side * side * 3 }, (_, i) => colour(Math.floor(i / 3) % side, Math.floor(i / 3 / side))),
    [side, side, 3],
  );
}
const black = picture(16, () => 0);
const inBox =
  ([left, top, width, height]: Box, side: number) =>
  (x: number, y: number): number =>
    x >= left * side && x < (left + width) * side && y >= top * side && y < (top + height) * side ? 255 : 0;

describe('layouts to evaluate', () => {
  const layouts = makeLayouts(60);

  it('are the same every time, and do not depend on how many there are', () => {
    assert.deepEqual(makeLayouts(60), layouts);
    assert.deepEqual(makeLayout(37), layouts[37]);
    assert.deepEqual(makeLayouts(3, 37), layouts.slice(37, 40));
    assert.equal(new Set(layouts.map((layout) => JSON.stringify(layout.objects))).size, 60);
    assert.equal(new Set(layouts.map(({ seed }) => seed)).size, 60);
  });

  it('have two to four different objects, each number as often', () => {
    for (const count of [2, 3, 4]) assert.equal(layouts.filter(({ objects }) => objects.length === count).length, 20);
    for (const { objects } of layouts) assert.equal(new Set(objects.map(({ name }) => name)).size, objects.length);
    assert.ok(new Set(layouts.flatMap(({ objects }) => objects.map(({ name }) => name))).size > 40);
  });

  it('have boxes on the canvas, of 0.25 to 0.6 of its side, that hardly overlap', () => {
    for (const { objects } of makeLayouts(300)) {
      objects.forEach(({ box: [x, y, width, height] }, i) => {
        assert.ok(x >= 0 && y >= 0 && x + width <= 1 && y + height <= 1);
        for (const side of [width, height]) assert.ok(side >= 0.25 && side <= 0.6, String(side));
        for (const { box } of objects.slice(i + 1)) {
          assert.ok(intersection([x, y, width, height], box) <= 0.15 * Math.min(width * height, box[2] * box[3]));
        }
      });
    }
  });

  it('have boxes of a fifth to a third of the side when small ones are asked for', () => {
    const small = makeLayouts(60, 0, SMALL);
    for (const [i, { objects, seed }] of small.entries()) {
      assert.equal(seed, layouts[i].seed);
      assert.equal(objects.length, layouts[i].objects.length);
      for (const { box } of objects)
        for (const side of box.slice(2)) assert.ok(side >= 1 / 5 && side <= 1 / 3, String(side));
    }
    const sides = small.flatMap(({ objects }) => objects.flatMap(({ box }) => box.slice(2)));
    assert.ok(Math.min(...sides) < 0.22 && Math.max(...sides) > 0.31);
  });

  it('say only words that the bundled model knows', () => {
    const known = new Set(vocabulary.words);
    assert.deepEqual(
      Object.keys(SCENES).filter((scene) => !(scene in vocabulary.scenes)),
      [],
    );
    for (const { scene, prompt, objects } of layouts) {
      for (const words of [scene, prompt, ...objects.map((object) => object.prompt)]) {
        assert.deepEqual(
          words.split(/[ ,]+/).filter((word) => !known.has(word)),
          [],
          words,
        );
      }
    }
  });

  it('list everything in the plain prompt', () => {
    const { prompt, objects } = layouts[2];
    assert.equal(objects.length, 4);
    const [a, b, c, d] = objects.map(({ phrase }) => phrase);
    assert.ok(prompt.startsWith(`${a}, ${b}, ${c} and ${d} `), prompt);
    assert.equal(prompt.slice(prompt.indexOf(d) + d.length), objects[3].prompt.slice(d.length));
  });
});

describe('boxes and changed pixels', () => {
  it('intersect in their common area', () => {
    near(intersection([0, 0, 0.5, 0.5], [0.25, 0.25, 0.5, 0.5]), 0.0625);
    assert.equal(intersection([0, 0, 0.25, 1], [0.25, 0, 0.75, 1]), 0);
    assert.equal(intersection([0, 0, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2]), 0);
  });

  it('count a pixel as changed from the threshold on, in any channel', () => {
    const other = picture(16, () => 0);
    other.data.set([0, 47, 0, 0, 48, 0, 200, 0, 0]);
    assert.deepEqual([...changedPixels(other, black).subarray(0, 4)], [0, 1, 1, 0]);
    assert.deepEqual(changedPixels(black, other), changedPixels(other, black));
    assert.throws(
      () =>
        changedPixels(
          picture(8, () => 0),
          black,
        ),
      /different sizes/,
    );
  });

  it('fit perfectly, in part, or not at all', () => {
    const box: Box = [0.25, 0.25, 0.5, 0.5];
    const fit = (drawn: Box) => overlaps(changedPixels(picture(16, inBox(drawn, 16)), black), [box], black)[0];
    assert.deepEqual(fit(box), { iou: 1, inside: 1 });
    assert.deepEqual(fit([0.25, 0.25, 0.25, 0.5]), { iou: 0.5, inside: 1 });
    assert.deepEqual(fit([0.25, 0.25, 0.75, 0.5]), { iou: 64 / 96, inside: 64 / 96 });
    assert.deepEqual(fit([0, 0, 0.25, 0.25]), { iou: 0, inside: 0 });
    assert.deepEqual(overlaps(changedPixels(black, black), [box], black), [{ iou: 0, inside: 0 }]);
  });

  it('give each pixel to the box that it is in or nearest to', () => {
    const [left, right]: Box[] = [
      [0, 0, 0.25, 1],
      [0.75, 0, 0.25, 1],
    ];
    // Columns 0 to 6 of 16: four in the left box, three that are nearer to it.
    const changed = changedPixels(
      picture(16, (x) => (x < 7 ? 255 : 0)),
      black,
    );
    assert.deepEqual(overlaps(changed, [left, right], black), [
      { iou: 4 / 7, inside: 4 / 7 },
      { iou: 0, inside: 0 },
    ]);
    // Where boxes overlap, the nearer middle decides; the pixels of the other one do not count against it.
    const both = overlaps(
      changedPixels(
        picture(16, () => 255),
        black,
      ),
      [
        [0, 0, 0.625, 1],
        [0.375, 0, 0.625, 1],
      ],
      black,
    );
    assert.deepEqual(both, [
      { iou: 0.8, inside: 1 },
      { iou: 0.8, inside: 1 },
    ]);
  });

  it('stay between 0 and 1 whatever is drawn', () => {
    const side = fc.integer({ min: 1, max: 8 });
    const box = fc
      .tuple(side, side, side, side)
      .map(([x, y, width, height]): Box => [(x - 1) / 16, (y - 1) / 16, width / 16, height / 16]);
    fc.assert(
      fc.property(
        fc.array(box, { minLength: 1, maxLength: 4 }),
        fc.uint8Array({ minLength: 256, maxLength: 256, max: 1 }),
        (boxes, changed) => {
          const fits = overlaps(changed, boxes, black);
          for (const { iou, inside } of fits) assert.ok(iou >= 0 && iou <= inside && inside <= 1);
        },
      ),
      { numRuns: 50 },
    );
  });
});

describe("the judge's crops", () => {
  it('are squares around the box on the canvas', () => {
    assert.deepEqual(cropSquare([0.4, 0.4, 0.2, 0.1], 100, 0.5), { x: 30, y: 25, side: 40 });
    assert.deepEqual(cropSquare([0, 0.9, 0.1, 0.1], 100, 0.5), { x: 0, y: 80, side: 20 });
    assert.deepEqual(cropSquare([0.1, 0.1, 0.8, 0.6], 100, 0.5), { x: 0, y: 0, side: 100 });
  });

  it('hold the whole box, with the share that is asked for', () => {
    for (const { objects } of makeLayouts(60)) {
      for (const {
        box: [left, top, width, height],
      } of objects) {
        const { x, y, side } = cropSquare([left, top, width, height], 128);
        assert.ok(x >= 0 && y >= 0 && x + side <= 128 && y + side <= 128);
        assert.ok(
          x <= left * 128 + 0.5 &&
            y <= top * 128 + 0.5 &&
            x + side >= (left + width) * 128 - 0.5 &&
            y + side >= (top + height) * 128 - 0.5,
        );
        if (side < 128) near((128 * Math.max(width, height)) / side, FILL, 0.015);
      }
    }
  });

  it('show the background where other boxes are, and never cut into their own', () => {
    const drawn = picture(16, (x) => 10 * x);
    const shown = cropForJudge(
      drawn,
      picture(16, () => 255),
      [0.25, 0.25, 0.5, 0.5],
      [[0.5, 0, 0.5, 1]],
      10,
    );
    const { x: left, side } = cropSquare([0.25, 0.25, 0.5, 0.5], 16);
    assert.equal(side, 10);
    for (let y = 0; y < side; y++) {
      for (let x = 0; x < side; x++) {
        const own = x + left < 12 && y + left >= 4 && y + left < 12;
        assert.equal(shown.data[3 * (y * side + x)], x + left >= 8 && !own ? 255 : 10 * (x + left), `${x}, ${y}`);
      }
    }
    assert.deepEqual(cropForJudge(drawn, drawn, [0.25, 0.25, 0.5, 0.5], [], 128).dims, [128, 128, 3]);
  });
});

describe('figures', () => {
  it('are means with the standard error of whole pictures', () => {
    const plain = groupedMean([[1], [0], [1], [0]]);
    near(plain.mean, 0.5);
    near(plain.error, Math.sqrt(0.25 / 3));
    // Regions that always agree within a picture tell no more than one region would.
    near(
      groupedMean([
        [1, 1, 1],
        [0, 0, 0],
        [1, 1, 1],
        [0, 0, 0],
      ]).error,
      plain.error,
    );
    assert.equal(groupedMean([[0.3, 0.3], [0.3]]).error, 0);
    near(groupedMean([[1, 0, 0], [1]]).mean, 0.5);
    assert.ok(Number.isNaN(groupedMean([[1, 0]]).error));
  });

  const region = (seen: string, iou: number): SeenRegion => ({ asked: 'cat', seen, iou, inside: 1 });
  const pictures = (...seen: SeenRegion[][]): Seen =>
    new Map(seen.map((regions, index) => [index, { regions, scene: index !== 1 }]));
  const paper = STRATEGIES.find(({ name }) => name === 'paper')!;

  it('are compared picture by picture', () => {
    const reference = pictures([region('cat', 0.5), region('dog', 0.5)], [region('dog', 0.25)]);
    const better = pictures([region('cat', 0.75), region('cat', 0.75)], [region('cat', 0.5)], [region('dog', 0)]);
    const row = summarise(paper, false, better, reference);
    assert.deepEqual([row.layouts, row.regions, row.recognised.mean], [3, 4, 0.75]);
    assert.deepEqual(row.byObjects[2].mean, 1);
    near(row.scene.mean, 2 / 3);
    assert.equal(row.difference!.layouts, 2);
    near(row.difference!.recognised.mean, 2 / 3);
    near(row.difference!.iou.mean, 0.25);
    near(row.difference!.iou.error, 0);
  });

  it('say which strategies are clearly better than the default, in either figure', () => {
    const row = (name: string, recognised: number, iou: number): Row => ({
      ...summarise(paper, false, pictures([region('cat', 0.5)])),
      name,
      difference: { layouts: 60, recognised: { mean: recognised, error: 0.03 }, iou: { mean: iou, error: 0.01 } },
    });
    const rows = [row('a', 0.05, 0.015), row('b', 0.07, -0.5), row('c', -0.1, 0.03)];
    const better = (iou: number): string[] =>
      betterThanDefault([...rows, summarise(paper, true, pictures([region('cat', iou)]))]).map(({ name }) => name);
    assert.deepEqual(better(FILLED - 0.01), ['b', 'c']);
    assert.deepEqual(better(FILLED), ['b'], 'fuller boxes are no better');
  });

  it('of two checkpoints come side by side, with the difference picture by picture', () => {
    const [old, now] = [
      pictures([region('cat', 0.5)], [region('dog', 0.25)]),
      pictures([region('cat', 0.75)], [region('cat', 0.5)]),
    ];
    const pair = { title: 'boxes', before: summarise(paper, true, old), after: summarise(paper, false, now, old) };
    assert.deepEqual(toPairs([pair]).split('\n').slice(2), [
      '| boxes: recognised | 50.0 ± 50.0 % | 100.0 ± 0.0 % | 50.0 ± 50.0 % |',
      '| boxes: IoU | 0.375 ± 0.125 | 0.625 ± 0.125 | 0.250 ± 0.000 |',
    ]);
  });

  it('come as a table that is put between marks', () => {
    const seen = pictures([region('cat', 0.5)], [region('dog', 0.5)]);
    const table = toTable([summarise(paper, true, seen), summarise(STRATEGIES[0], false, new Map([...seen].slice(1)))]);
    const lines = table.split('\n');
    assert.equal(lines.length, 4);
    assert.equal(lines[2], `| **${paper.title}** (default) | 50.0 ± 50.0 % | 0.500 ± 0.000 | 100.0 ± 0.0 % |`);
    assert.ok(lines[3].startsWith(`| ${STRATEGIES[0].title} (1 layout of 2) | 0.0 `), lines[3]);
    const small = summarise(paper, true, pictures([region('dog', 0.25)], [region('dog', 0.25)]));
    const withSmall = toTable([summarise(paper, true, seen)], small).split('\n');
    assert.deepEqual(withSmall.slice(0, 3), lines.slice(0, 3));
    assert.match(withSmall[3], /^\| the default, in boxes of a fifth to a third .* \| 0\.0 ± 0\.0 % \| 0\.250 ± /);
    const text = 'before\n<!-- evaluation -->\nold\n<!-- /evaluation -->\nafter\n';
    const put = putTable(text, table);
    assert.equal(put, `before\n<!-- evaluation -->\n${table}\n<!-- /evaluation -->\nafter\n`);
    assert.equal(putTable(put, table), put);
    assert.throws(() => putTable('no marks', table), /no place/);
  });
});

describe('strategies', () => {
  it('have names of their own and options that exist', () => {
    assert.equal(new Set(STRATEGIES.map(({ name }) => name)).size, STRATEGIES.length);
    for (const { name, options } of STRATEGIES)
      for (const option of Object.keys(options)) assert.ok(option in SAMPLER_OPTIONS, `${name}: ${option}`);
  });

  it('contain what the sampler does when nothing is set, once', () => {
    assert.equal(STRATEGIES.filter((strategy) => isDefault(strategy, 7.5, 7.5)).length, 1);
    assert.deepEqual(
      STRATEGIES.filter((strategy) => isDefault(strategy, 8.5, 7.5)),
      [],
    );
  });

  it('are chosen by name', () => {
    assert.deepEqual(
      chooseStrategies('plain, paper').map(({ name }) => name),
      ['plain', 'paper'],
    );
    assert.equal(chooseStrategies(undefined).length, STRATEGIES.length);
    assert.throws(() => chooseStrategies('papper'), /'papper'; there are plain, /);
    assert.throws(() => chooseStrategies('white+centered'), /'centered'; there are plain, /);
  });

  it('are put together from what differs from the paper', () => {
    const [one] = chooseStrategies('white+30%+feather');
    const paper = STRATEGIES.find(({ name }) => name === 'paper')!;
    assert.equal(one.title, 'bootstrapping 30 %, white, feather 0.05');
    assert.deepEqual(one.options, { ...paper.options, bootstrapping: 0.3, bootstrappingBackground: 'white' });
    assert.deepEqual(one.region, { feather: 0.05 });
  });
});

describe('files of an evaluation', () => {
  it('are others for another model, setting, layout or strategy', () => {
    const settings: Settings = { steps: 25, guidanceScale: 5, scheduler: 'checkpoint' };
    const [a, b] = [makeLayout(0), makeLayout(1)];
    const guided: Strategy = { ...SCENE_ALONE, options: { guidanceScale: 3 } };
    const files = [
      pictureFile('out', 'model', settings, a, SCENE_ALONE),
      pictureFile('out', 'other', settings, a, SCENE_ALONE),
      pictureFile('out', 'model', { ...settings, steps: 20 }, a, SCENE_ALONE),
      pictureFile('out', 'model', settings, b, SCENE_ALONE),
      ...[guided, ...STRATEGIES].map((strategy) => pictureFile('out', 'model', settings, a, strategy)),
    ];
    assert.equal(new Set(files).size, files.length);
    assert.equal(pictureFile('out', 'model', settings, a, SCENE_ALONE), files[0]);
  });

  it('include a sheet of all pictures', async () => {
    const layouts = makeLayouts(2);
    const seen = new Map(
      layouts.map(({ index, objects }) => [
        index,
        { regions: objects.map(({ name }) => ({ asked: name, seen: 'cat', iou: 0, inside: 0 })), scene: true },
      ]),
    );
    const bytes = await makeSheet(layouts, [{ title: 'plain', pictures: new Map([[0, black]]), seen }], { tile: 32 });
    assert.equal(bytes.subarray(1, 4).toString(), 'PNG');
    const [one, two] = await Promise.all([bytes, await joinSheets([bytes, bytes])].map((png) => sharp(png).metadata()));
    assert.equal(two.height, one.height);
    assert.ok(two.width >= 2 * one.width, `${two.width} of ${one.width}`);
  });
});

describe('the evaluation that is shown', () => {
  const root = path.join(__dirname, '..', '..');
  const { layouts, settings, strategies, smallBoxes } = JSON.parse(
    fs.readFileSync(path.join(root, 'docs', 'evaluation.json'), 'utf8'),
  ) as { layouts: number; settings: Settings; strategies: Row[]; smallBoxes: Row };

  it('has the shipped defaults as its default, and nothing better', () => {
    const [shipped, ...others] = strategies.filter((row) => row.default);
    assert.deepEqual(others, []);
    assert.equal(settings.guidanceScale, usualGuidanceScale({ guidanceEmbedded: false }));
    for (const [name, value] of Object.entries(shipped.options))
      assert.equal((SAMPLER_OPTIONS as Record<string, { default?: unknown }>)[name].default, value, name);
    for (const [name, value] of Object.entries(shipped.region))
      assert.equal((REGION_OPTIONS as Record<string, { default?: unknown }>)[name].default, value, name);
    assert.deepEqual(
      betterThanDefault(strategies).map(({ title }) => title),
      [],
    );
  });

  it('compares every strategy, over all layouts, with the default steps and scheduler', () => {
    assert.deepEqual(
      strategies.map(({ name }) => name),
      [SCENE_ALONE, ...STRATEGIES].map(({ name }) => name),
    );
    assert.ok(layouts >= 60);
    for (const row of [...strategies, smallBoxes]) assert.equal(row.layouts, layouts, row.name);
    assert.deepEqual(smallBoxes.options, strategies.find((row) => row.default)!.options);
    assert.equal(settings.steps, SAMPLER_OPTIONS.steps.default);
    assert.equal(settings.scheduler, SAMPLER_OPTIONS.scheduler.default);
  });

  for (const name of ['README.md', path.join('docs', 'evaluation.md')]) {
    it(`is the table of ${name}`, () => {
      const text = fs.readFileSync(path.join(root, name), 'utf8');
      assert.equal(putTable(text, toTable(strategies, smallBoxes)), text);
    });
  }
});
