import assert from 'node:assert/strict';
import path from 'node:path';
import fc from 'fast-check';
import { checkShape } from '../../dist/engine/regions/shapes';
import { ROOT } from './support/editor';

type Box = [number, number, number, number];
type Point = [number, number];
interface Geometry {
  boxBetween(a: Point, b: Point): Box;
  moveBox(box: Box, dx: number, dy: number): Box;
  resizeBox(box: Box, handle: string, point: Point): Box;
  boundsOf(points: Point[]): Box;
  movePoints(points: Point[], dx: number, dy: number): Point[];
  fitPoints(points: Point[], to: Box): Point[];
  outlineOf(box: Box, ellipse: boolean): Point[];
  insertionIndex(points: Point[], point: Point, aspect: number): number;
  isBox(value: unknown): boolean;
  isPolygon(value: unknown): boolean;
  boxOf(value: unknown): Box;
  pointsOf(value: unknown): Point[];
  snap(value: number, step: number): number;
}
// eslint-disable-next-line @typescript-eslint/no-require-imports
const geometry = require(path.join(ROOT, 'resources/composer/geometry.js')) as Geometry;
// eslint-disable-next-line @typescript-eslint/no-require-imports
const { sceneOf } = require(path.join(ROOT, 'resources/region-scene.js')) as {
  sceneOf(
    graph: { nodes: Map<string, object>; wires: Array<[string, string]> },
    id: string,
  ): {
    sampler?: { id: string };
    width: number;
    height: number;
    cell: number;
    label: string;
    own: number;
    background: string;
    regions: Array<{ id: string; name: string; prompt: string }>;
  };
};

const EPSILON = 2e-4; // coordinates have four decimals
const share = fc.double({ min: 0, max: 1, noNaN: true });
const anywhere = fc.double({ min: -2, max: 3, noNaN: true });
const point = fc.tuple(share, share);
const box = fc.tuple(point, point).map(([a, b]) => geometry.boxBetween(a, b));

function assertInside([x, y, width, height]: Box): void {
  assert.ok(
    x >= 0 && y >= 0 && width >= 0.01 - EPSILON && height >= 0.01 - EPSILON,
    JSON.stringify([x, y, width, height]),
  );
  assert.ok(x + width <= 1 + EPSILON && y + height <= 1 + EPSILON, JSON.stringify([x, y, width, height]));
}

describe('region canvas geometry', () => {
  it('draws a box between any two points inside the canvas', () => {
    assert.deepEqual(geometry.boxBetween([0.7, 0.2], [0.3, 0.6]), [0.3, 0.2, 0.4, 0.4]);
    fc.assert(
      fc.property(fc.tuple(anywhere, anywhere), fc.tuple(anywhere, anywhere), (a, b) =>
        assertInside(geometry.boxBetween(a, b)),
      ),
    );
  });

  it('moves a box as far as the canvas goes, without changing its size', () => {
    assert.deepEqual(geometry.moveBox([0.2, 0.2, 0.5, 0.5], 0.9, -0.9), [0.5, 0, 0.5, 0.5]);
    fc.assert(
      fc.property(box, anywhere, anywhere, (before, dx, dy) => {
        const after = geometry.moveBox(before, dx, dy);
        assertInside(after);
        assert.deepEqual(after.slice(2), before.slice(2));
      }),
    );
  });

  it('resizes by a handle, keeping the opposite sides and an area', () => {
    assert.deepEqual(geometry.resizeBox([0.2, 0.2, 0.4, 0.4], 'nw', [0.1, 0.3]), [0.1, 0.3, 0.5, 0.3]);
    assert.deepEqual(geometry.resizeBox([0.2, 0.2, 0.4, 0.4], 'e', [0.9, 0]), [0.2, 0.2, 0.7, 0.4]);
    fc.assert(
      fc.property(
        box,
        fc.constantFrom('nw', 'n', 'ne', 'e', 'se', 's', 'sw', 'w'),
        fc.tuple(anywhere, anywhere),
        (before, handle, to) => {
          const after = geometry.resizeBox(before, handle, to);
          assertInside(after);
          const right = (b: Box) => b[0] + b[2];
          if (handle.includes('w')) assert.ok(Math.abs(right(after) - right(before)) < EPSILON);
          if (handle === 'n' || handle === 's') assert.deepEqual([after[0], after[2]], [before[0], before[2]]);
        },
      ),
    );
  });

  it('moves a polygon as a whole', () => {
    const points = fc.array(point, { minLength: 3, maxLength: 8 });
    fc.assert(
      fc.property(points, anywhere, anywhere, (before, dx, dy) => {
        const after = geometry.movePoints(before, dx, dy);
        for (const [x, y] of after) assert.ok(x >= -EPSILON && x <= 1 + EPSILON && y >= -EPSILON && y <= 1 + EPSILON);
        const shift = after[0][0] - before[0][0];
        after.forEach(([x], i) => assert.ok(Math.abs(x - before[i][0] - shift) < EPSILON));
      }),
    );
  });

  it('stretches a polygon to a box', () => {
    const triangle: Point[] = [
      [0, 0],
      [0.5, 0],
      [0, 0.5],
    ];
    assert.deepEqual(geometry.fitPoints(triangle, [0.2, 0.4, 0.4, 0.2]), [
      [0.2, 0.4],
      [0.6, 0.4],
      [0.2, 0.6],
    ]);
  });

  it('turns a box and an ellipse into polygons with the same bounds', () => {
    fc.assert(
      fc.property(box, fc.boolean(), (from, ellipse) => {
        const bounds = geometry.boundsOf(geometry.outlineOf(from, ellipse));
        bounds.forEach((value, i) => assert.ok(Math.abs(value - from[i]) < EPSILON));
      }),
    );
  });

  it('adds a point to the nearest edge', () => {
    const square: Point[] = [
      [0, 0],
      [1, 0],
      [1, 1],
      [0, 1],
    ];
    assert.equal(geometry.insertionIndex(square, [0.5, 0.1], 1), 1);
    assert.equal(geometry.insertionIndex(square, [0.9, 0.5], 1), 2);
    assert.equal(geometry.insertionIndex(square, [0.1, 0.5], 1), 4);
    assert.equal(
      geometry.insertionIndex(
        [
          [0, 0],
          [1, 1],
        ],
        [0.5, 0],
        1,
      ),
      2,
      'the third point comes last',
    );
    // On a canvas four times as wide as high, a point left of the middle is nearer to the top than to the left side.
    assert.equal(geometry.insertionIndex(square, [0.25, 0.3], 4), 1);
  });

  it('snaps to cells, and reads only what is a box or a point', () => {
    assert.equal(geometry.snap(0.27, 0.25), 0.25);
    assert.equal(geometry.snap(0.27, 0), 0.27);
    for (const wrong of [undefined, null, 'x', [1, 2, 3], [0, 0, NaN, 1], {}])
      assert.deepEqual(geometry.boxOf(wrong), [0.25, 0.25, 0.5, 0.5]);
    assert.deepEqual(geometry.boxOf(['0.1', '0.2', '0.3', '0.4']), [0.1, 0.2, 0.3, 0.4]);
    assert.deepEqual(geometry.pointsOf([[0.1, 0.2], 'x', [1], [2, -1]]), [
      [0.1, 0.2],
      [2, -1],
    ]);
  });

  describe('over the edge of the canvas', () => {
    const accepts = (shape: object): boolean => {
      try {
        checkShape(shape);
        return true;
      } catch {
        return false;
      }
    };
    const side = fc.oneof(fc.constantFrom(-1, -0.25, 0, 0.5, 1, 1.5), anywhere);

    it('a region is valid where the engine draws it', () => {
      fc.assert(
        fc.property(fc.tuple(side, side, side, side), (value) =>
          assert.equal(geometry.isBox(value), accepts({ box: value })),
        ),
      );
      const step = fc.integer({ min: -20, max: 40 }).map((twentieths) => twentieths / 20);
      const corners = fc.array(fc.tuple(step, step), { minLength: 3, maxLength: 8 });
      fc.assert(fc.property(corners, (value) => assert.equal(geometry.isPolygon(value), accepts({ polygon: value }))));
      for (const wrong of [
        undefined,
        null,
        'x',
        [],
        [1, 2, 3],
        [0, 0, NaN, 1],
        {},
        [
          [0, 0],
          [1, 1],
        ],
      ])
        assert.deepEqual([geometry.isBox(wrong), geometry.isPolygon(wrong)], [false, false]);
    });

    it('it keeps its place as long as nobody moves it', () => {
      const value: Box = [0.3, 0.5, 1, 2];
      assert.deepEqual(geometry.boxOf(value), value);
      assert.deepEqual(geometry.moveBox(value, 0.5, -0.75), [0, -0.25, 1, 2]);
      assert.deepEqual(geometry.resizeBox(value, 'w', [0.4, 0.7]), [0.4, 0.5, 0.9, 2]);
      const triangle: Point[] = [
        [-0.5, 0.2],
        [0.5, 0.2],
        [0, 1.4],
      ];
      assert.deepEqual(geometry.pointsOf(triangle), triangle);
      assert.deepEqual(geometry.boundsOf(triangle), [-0.5, 0.2, 1, 1.2]);
      const fitted = geometry.fitPoints(triangle, [0, 0, 1, 0.6]);
      assert.deepEqual(fitted, [
        [0, 0],
        [1, 0],
        [0.5, 0.6],
      ]);
    });
  });
});

describe('region scene', () => {
  const graph = (nodes: Array<{ id: string; type: string; wires?: string[]; [property: string]: unknown }>) => ({
    nodes: new Map(nodes.map((node) => [node.id, node])),
    wires: nodes.flatMap(({ id, wires = [] }) => wires.map((target) => [id, target] as [string, string])),
  });

  const chain = graph([
    { id: 'room', type: 'text-encode', prompt: 'a living room', wires: ['red'] },
    { id: 'red', type: 'text-encode', prompt: 'a red sofa', wires: ['sofa'] },
    { id: 'sofa', type: 'region-mask', shape: 'box', box: [0, 0, 1, 1], wires: ['green'] },
    { id: 'green', type: 'text-encode', prompt: 'plant', promptType: 'msg', wires: ['plant'] },
    { id: 'plant', type: 'region-mask', regionName: 'the plant', shape: 'box', wires: ['sampler'] },
    { id: 'sampler', type: 'multidiffusion-sampler', width: '768', height: 512, model: 'sd', wires: ['decode'] },
    { id: 'decode', type: 'vae-decode' },
    { id: 'sd', type: 'diffusion-model', checkpoint: 'folder' },
  ]);

  it('finds the sampler downstream, its canvas and its latent cell', () => {
    const scene = sceneOf(chain, 'sofa');
    assert.equal(scene.sampler?.id, 'sampler');
    assert.deepEqual([scene.width, scene.height, scene.cell], [768, 512, 8]);
  });

  it('labels a region by its name, else by the prompt that feeds it', () => {
    assert.equal(sceneOf(chain, 'sofa').label, 'a red sofa');
    assert.equal(sceneOf(chain, 'plant').label, 'the plant');
  });

  it('knows all regions of the picture, in the order of the wires, with their words', () => {
    for (const [id, own] of [
      ['sofa', 0],
      ['plant', 1],
    ] as const) {
      const scene = sceneOf(chain, id);
      assert.equal(scene.own, own);
      assert.equal(scene.background, 'a living room');
      assert.deepEqual(
        scene.regions.map(({ name, prompt }) => [name, prompt]),
        [
          ['', 'a red sofa'],
          ['the plant', 'msg.plant'],
        ],
      );
    }
  });

  it('sees the other regions of parallel branches', () => {
    const parallel = graph([
      { id: 'a', type: 'region-mask', regionName: 'A', wires: ['join'] },
      { id: 'b', type: 'region-mask', regionName: 'B', wires: ['join'] },
      { id: 'elsewhere', type: 'region-mask', regionName: 'C', wires: ['other'] },
      { id: 'join', type: 'join', wires: ['sampler'] },
      { id: 'sampler', type: 'multidiffusion-sampler' },
      { id: 'other', type: 'multidiffusion-sampler' },
    ]);
    assert.deepEqual(
      sceneOf(parallel, 'a')
        .regions.map(({ id }) => id)
        .sort(),
      ['a', 'b'],
    );
  });

  it('stands loops and a region without a sampler', () => {
    const loop = graph([
      { id: 'a', type: 'region-mask', wires: ['b'] },
      { id: 'b', type: 'region-mask', wires: ['a'] },
    ]);
    const scene = sceneOf(loop, 'a');
    assert.equal(scene.sampler, undefined);
    assert.deepEqual([scene.width, scene.height], [128, 128]);
    assert.deepEqual(scene.regions.map(({ id }) => id).sort(), ['a', 'b']);
  });
});
