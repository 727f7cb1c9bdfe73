import assert from 'node:assert/strict';
import fc from 'fast-check';
import * as masks from '../../dist/engine/regions/masks';
import { atOnce } from '../../dist/engine/turns';
import { checkShape, findShape, MASK_SIZE, restMask, type Shape, shapeMask } from '../../dist/engine/regions/shapes';
import { spreadViews } from '../../dist/engine/multidiffusion/views';
import { Tensor } from '../../dist/engine/tensor';
import { mask } from './support/analytic-model';

const { largest } = masks;
const maskPlane = (...of: Parameters<typeof masks.maskPlane>) => atOnce(masks.maskPlane(...of));
const resizeByArea = (...of: Parameters<typeof masks.resizeByArea>) => atOnce(masks.resizeByArea(...of));
const reduceMask = (...of: Parameters<typeof masks.reduceMask>) => atOnce(masks.reduceMask(...of));
const featherMask = (...of: Parameters<typeof masks.featherMask>) => atOnce(masks.featherMask(...of));

const side = fc.integer({ min: 1, max: 40 });

describe('masks on the latent grid', () => {
  it('averages by area, coarser and finer', () => {
    const plane = { data: Float32Array.from([0, 1, 1, 1, 0, 0, 0, 1, 1]), height: 3, width: 3 };
    assert.deepEqual(
      [...resizeByArea(plane, 1, 1)].map((v) => +v.toFixed(6)),
      [0.555556],
    );
    assert.deepEqual(
      [...resizeByArea(plane, 1, 3)].map((v) => +v.toFixed(6)),
      [0.333333, 0.666667, 0.666667],
    );
    assert.deepEqual([...resizeByArea({ data: Float32Array.from([0, 1]), height: 1, width: 2 }, 1, 4)], [0, 0, 1, 1]);
    assert.deepEqual(
      [...resizeByArea({ data: Float32Array.from([0, 1, 1]), height: 1, width: 3 }, 1, 2)].map((v) => +v.toFixed(6)),
      [0.333333, 1],
    );
  });

  it('keeps what is full full and what is empty empty, whatever the sizes', () => {
    fc.assert(
      fc.property(side, side, side, side, fc.constantFrom(0, 1), (h, w, toH, toW, value) => {
        const result = resizeByArea({ data: new Float32Array(h * w).fill(value), height: h, width: w }, toH, toW);
        assert.ok(result.every((v) => v === value));
      }),
    );
  });

  it('keeps the mean', () => {
    fc.assert(
      fc.property(
        side,
        side,
        side,
        side,
        fc.infiniteStream(fc.double({ min: 0, max: 1, noNaN: true })),
        (h, w, toH, toW, values) => {
          const data = Float32Array.from({ length: h * w }, () => values.next().value as number);
          const mean = (array: Float32Array) => array.reduce((a, b) => a + b, 0) / array.length;
          assert.ok(Math.abs(mean(data) - mean(resizeByArea({ data, height: h, width: w }, toH, toW))) < 1e-5);
        },
      ),
    );
  });

  it('never loses a region', () => {
    fc.assert(
      fc.property(
        side,
        side,
        side,
        side,
        fc.array(fc.tuple(fc.nat(), fc.double({ min: 0.01, max: 1, noNaN: true })), { minLength: 1, maxLength: 5 }),
        (h, w, toH, toW, spots) => {
          const data = new Float32Array(h * w);
          for (const [at, value] of spots) data[at % data.length] = value;
          const { soft, hard } = reduceMask({ data, height: h, width: w }, toH, toW);
          const cells = hard.reduce((a, b) => a + b, 0);
          assert.ok(cells > 0);
          assert.ok(
            hard.every((held, i) => !held || soft[i] > 0),
            'a held cell weighs something',
          );
          assert.ok(soft.every((v) => v >= 0 && v <= 1));
        },
      ),
    );
  });

  it('keeps a line thinner than a cell, at full strength, where it is', () => {
    const data = new Float32Array(64 * 64);
    for (let x = 8; x < 40; x++) data[21 * 64 + x] = 1; // one pixel high, in cells of eight
    const { soft, hard } = reduceMask({ data, height: 64, width: 64 }, 8, 8);
    assert.deepEqual(
      [...hard].flatMap((held, i) => (held ? [[i % 8, Math.floor(i / 8)]] : [])),
      [
        [1, 2],
        [2, 2],
        [3, 2],
        [4, 2],
      ],
    );
    assert.ok([1, 2, 3, 4].every((x) => Math.abs(soft[2 * 8 + x] - 1) < 1e-6));
  });

  it('keeps a weak mask weak', () => {
    const { soft, hard } = reduceMask({ data: new Float32Array(64).fill(0.25), height: 8, width: 8 }, 4, 4);
    assert.ok(soft.every((v) => v === 0.25));
    assert.ok(hard.every((v) => v === 1));
  });

  it('refuses what is no mask', () => {
    assert.throws(() => maskPlane('mask', 'm'), /m is "mask"; allowed: a tensor/);
    assert.throws(() => maskPlane(Tensor.float32([1, 1], [2]), 'm'), /float32 tensor \[1, H, W\]/);
    assert.throws(
      () => maskPlane(Tensor.float32(new Float32Array(12).fill(1), [3, 2, 2]), 'm'),
      /float32 tensor \[1, H, W\]/,
    );
    assert.throws(() => maskPlane(Tensor.uint8(new Uint8Array(4), [1, 2, 2]), 'm'), /float32/);
    assert.throws(() => maskPlane(Tensor.float32(new Float32Array(0), [1, 0, 4]), 'm'), /float32 tensor \[1, H, W\]/);
    assert.throws(() => maskPlane(Tensor.float32([1, NaN], [1, 1, 2]), 'm'), /NaN at row 0, column 1.*from 0 to 1/);
    assert.throws(() => maskPlane(Tensor.float32([1, 1.5], [1, 2, 1]), 'm'), /1.5 at row 1, column 0/);
    assert.throws(() => maskPlane(Tensor.float32([0, 0], [1, 1, 2]), 'm'), /zero everywhere/);
  });

  it('feathers inwards only, and not along the canvas border', () => {
    const data = Float32Array.from({ length: 64 }, (_, i) => (i % 8 < 5 ? 1 : 0)); // the left five columns of eight
    const { soft } = featherMask(reduceMask({ data, height: 8, width: 8 }, 8, 8), 8, 8, 2);
    assert.deepEqual([...soft.slice(0, 8)], [1, 1, 1, 0.75, 0.25, 0, 0, 0]);
  });

  it('leaves a narrow feathered region its strength in the middle, and everything its all', () => {
    const narrow = Float32Array.from({ length: 64 }, (_, i) => (i % 8 >= 3 && i % 8 < 6 ? 1 : 0));
    assert.equal(largest(featherMask(reduceMask({ data: narrow, height: 8, width: 8 }, 8, 8), 8, 8, 4).soft), 1);
    const whole = featherMask(
      reduceMask({ data: new Float32Array(64).fill(1), height: 8, width: 8 }, 8, 8),
      8,
      8,
      4,
    ).soft;
    assert.ok(whole.every((v) => v === 1));
  });
});

describe('shapes', () => {
  const area = (shape: Shape) => shapeMask(shape).data.reduce((a, b) => a + b, 0) / MASK_SIZE ** 2;

  it('draw a box with the exact covered share of every pixel', () => {
    const half = 0.5 / MASK_SIZE;
    const { data, dims } = shapeMask({ box: [half, 0, 1 / MASK_SIZE, 2 / MASK_SIZE] });
    assert.deepEqual(dims, [1, MASK_SIZE, MASK_SIZE]);
    assert.deepEqual([...data.slice(0, 3)], [0.5, 0.5, 0]);
    assert.deepEqual([...data.slice(MASK_SIZE, MASK_SIZE + 3)], [0.5, 0.5, 0]);
    assert.equal(data[2 * MASK_SIZE], 0);
    assert.ok(shapeMask({ box: [0, 0, 1, 1] }).data.every((v) => v === 1));
  });

  it('clip what is partly off the canvas', () => {
    assert.ok(Math.abs(area({ box: [-0.5, 0.5, 1, 1] }) - 0.25) < 1e-6);
    assert.ok(Math.abs(area({ ellipse: [-0.5, -0.5, 1, 1] }) - Math.PI / 16) < 1e-3);
    assert.ok(
      Math.abs(
        area({
          polygon: [
            [-1, -1],
            [3, -1],
            [-1, 3],
          ],
        }) - 1,
      ) < 1e-6,
    );
  });

  it('have the area that geometry gives them', () => {
    assert.ok(Math.abs(area({ ellipse: [0.1, 0.2, 0.6, 0.5] }) - (Math.PI * 0.6 * 0.5) / 4) < 1e-4);
    assert.ok(
      Math.abs(
        area({
          polygon: [
            [0.1, 0.1],
            [0.9, 0.1],
            [0.5, 0.9],
          ],
        }) - 0.32,
      ) < 1e-4,
    );
    assert.ok(
      Math.abs(
        area({
          polygon: [
            [0, 0],
            [1, 0],
            [0, 1],
            [1, 1],
          ],
        }) - 0.5,
      ) < 1e-3,
      'an hourglass, by the even-odd rule',
    );
  });

  it('keep their place at full strength, however thin they are', () => {
    const thin = (t: number): Shape[] => [
      {
        polygon: [
          [0.2, 0.5001],
          [0.6, 0.5001],
          [0.6, 0.5001 + t],
          [0.2, 0.5001 + t],
        ],
      },
      {
        polygon: [
          [0.2, 0.5001],
          [0.6, 0.5001 + t / 2],
          [0.6, 0.5001 + t],
        ],
      },
      {
        polygon: [
          [0.2, 0.5001],
          [0.2, 0.5001 + t],
          [0.6, 0.5001],
          [0.6, 0.5001 + t],
        ],
      },
      {
        polygon: [
          [0.4, 0.3],
          [0.4 + t, 0.3],
          [0.4 + t, 0.7],
          [0.4, 0.7],
        ],
      },
      { ellipse: [0.2, 0.5001, 0.4, t] },
      { ellipse: [0.4, 0.3, t, 0.4] },
      { box: [0.2, 0.5001, 0.4, t] },
      { box: [0.4, 0.3, t, 0.4] },
      {
        polygon: [
          [0.2, -1],
          [0.6, -1],
          [0.6, t],
          [0.2, t],
        ],
      },
      {
        polygon: [
          [0.4, 0.5],
          [0.4 + t, 0.5],
          [0.4, 0.5 + t],
        ],
      },
    ];
    for (const t of [1 / 2000, 1 / 4100, 1e-5, 1e-8]) {
      for (const shape of thin(t)) {
        const { data } = shapeMask(shape);
        assert.ok(Math.abs(largest(data) - 1) < 1e-6, JSON.stringify(shape));
        const held = [...data.keys()].filter((i) => data[i] > 0);
        const [columns, rows] = [held.map((i) => i % MASK_SIZE), held.map((i) => Math.floor(i / MASK_SIZE))];
        const span = (places: number[]): number => Math.max(...places) - Math.min(...places);
        assert.ok(Math.min(span(columns), span(rows)) <= 1, `thin: ${JSON.stringify(shape)}`);
        assert.ok(
          Math.min(...columns) >= 0.2 * MASK_SIZE - 1 && Math.max(...columns) <= 0.6 * MASK_SIZE,
          JSON.stringify(shape),
        );
        assert.ok(
          reduceMask({ data, height: MASK_SIZE, width: MASK_SIZE }, 64, 64).hard.includes(1),
          JSON.stringify(shape),
        );
      }
    }
  });

  it('give the rest: what the other masks leave', () => {
    const left = shapeMask({ box: [0, 0, 0.25, 1] });
    const small = mask(4, 4, (_, x) => (x === 3 ? 1 : 0));
    const { data } = restMask([left, small]);
    assert.deepEqual(
      [0, 127, 128, 383, 384, 511].map((x) => data[x]),
      [0, 0, 1, 1, 0, 0],
    );
    assert.ok(restMask([]).data.every((v) => v === 1));
    assert.throws(() => restMask([shapeMask({ box: [0, 0, 1, 1] })]), /do not cover completely/);
  });

  it('are found in a layout or a configuration', () => {
    assert.equal(findShape({ prompt: 'a sofa' }), undefined);
    assert.deepEqual(findShape({ prompt: 'a sofa', box: [0, 0, 1, 1] }), { box: [0, 0, 1, 1] });
    assert.deepEqual(findShape({ rest: true, box: null }), { rest: true });
    assert.throws(() => findShape({ rest: true, box: [0, 0, 1, 1] }), /box and rest/);
  });

  it('are refused with a reason when they make no sense', () => {
    const bad: Array<[unknown, RegExp]> = [
      [undefined, /one of box, ellipse, polygon, rest/],
      [{}, /one of box/],
      [{ box: 'left' }, /shape\.box is "left"/],
      [{ box: [0, 0, 1] }, /\[x, y, width, height\]/],
      [{ box: [0, 0, 0, 1] }, /greater than 0/],
      [{ ellipse: [0, 0, 1, -1] }, /greater than 0/],
      [{ box: [0, 0, NaN, 1] }, /greater than 0/],
      [{ box: [0, 0, '1', 1] }, /greater than 0/],
      [{ box: [100, 100, 200, 200] }, /fractions, not pixels/],
      [{ box: [-1, 0, 1, 1] }, /overlaps the canvas/],
      [
        {
          polygon: [
            [0, 0],
            [1, 1],
          ],
        },
        /3 to 1000 points/,
      ],
      [
        {
          polygon: [
            [0, 0],
            [1, 1],
            [0, 'a'],
          ],
        },
        /3 to 1000 points/,
      ],
      [
        {
          polygon: [
            [0, 0],
            [1, 1],
            [0.5, 0.5],
          ],
        },
        /some area; these lie on one line/,
      ],
      [
        {
          polygon: [
            [0.1, 0.2],
            [0.2, 0.4],
            [0.3, 0.6],
            [0.7, 1.4],
          ],
        },
        /some area; these lie on one line/,
      ],
      [
        {
          polygon: [
            [0.5, 0.5],
            [0.5, 0.5],
            [0.5, 0.5],
          ],
        },
        /some area; these lie on one line/,
      ],
      [
        {
          polygon: [
            [2, 2],
            [3, 2],
            [2, 3],
          ],
        },
        /fractions, not pixels/,
      ],
      [{ rest: 1 }, /shape\.rest is 1; allowed: true/],
    ];
    for (const [shape, reason] of bad) assert.throws(() => checkShape(shape), reason);
    assert.throws(
      () =>
        shapeMask({
          polygon: [
            [0, 0],
            [1, 0],
            [0, 0],
            [1, 0],
          ],
        }),
      /shape\.polygon .*some area.*one line/,
    );
    assert.throws(
      () =>
        shapeMask({
          polygon: [
            [0, 0],
            [1, 1],
            [1, 0],
            [0, 0],
            [1, 1],
            [1, 0],
          ],
        }),
      /some area on the canvas/,
      'round it twice, by the even-odd rule',
    );
    assert.throws(() => shapeMask({ rest: true }), /depends on the other regions/);
  });

  it('never fail otherwise, whatever numbers they hold', () => {
    const number = fc.oneof(fc.double(), fc.double({ min: -2, max: 2 }));
    fc.assert(
      fc.property(
        fc.constantFrom('box', 'ellipse', 'polygon'),
        fc.array(number, { minLength: 4, maxLength: 8 }),
        (kind, n) => {
          const outline =
            kind === 'polygon'
              ? [
                  [n[0], n[1]],
                  [n[2], n[3]],
                  [n[1], n[2]],
                ]
              : n.slice(0, 4);
          let made: Tensor;
          try {
            made = shapeMask({ [kind]: outline } as unknown as Shape, 32);
          } catch (error) {
            assert.equal((error as { code?: string }).code, 'INVALID_INPUT');
            return;
          }
          maskPlane(made, 'made');
        },
      ),
    );
  });
});

describe('windows', () => {
  it('cover every cell of any canvas, and stay on it', () => {
    fc.assert(
      fc.property(
        side,
        side,
        fc.integer({ min: 1, max: 24 }),
        fc.double({ min: 0, max: 0.95, noNaN: true }),
        (height, width, window, overlap) => {
          const stride = Math.max(1, Math.round(window * (1 - overlap)));
          const covered = new Uint8Array(height * width);
          const views = spreadViews({ channels: 4, height, width }, window, stride);
          for (const view of views) {
            assert.ok(view.x >= 0 && view.y >= 0 && view.x + view.width <= width && view.y + view.height <= height);
            assert.equal(view.width, Math.min(window, width));
            assert.equal(view.height, Math.min(window, height));
            for (let y = view.y; y < view.y + view.height; y++)
              covered.fill(1, y * width + view.x, y * width + view.x + view.width);
          }
          assert.ok(covered.every((c) => c === 1));
          assert.deepEqual(
            views.map((view) => view.index),
            views.map((_, i) => i),
          );
        },
      ),
    );
  });

  it("are the official program's where its stride divides the canvas, and end on the border where it does not", () => {
    const xs = (width: number) => spreadViews({ channels: 4, height: 64, width }, 64, 8).map((view) => view.x);
    assert.deepEqual(xs(64), [0]);
    assert.deepEqual(xs(80), [0, 8, 16]);
    assert.deepEqual(xs(84), [0, 7, 13, 20]);
  });
});
