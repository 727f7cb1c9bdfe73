// @ts-check
/* global module */
/**
 * The geometry of regions: pure functions on shares of the canvas.
 */
(function () {
  'use strict';

  /** The smallest side of a region. */
  const SMALLEST = 0.01;
  /** @type {Box} */
  const START_BOX = [0.25, 0.25, 0.5, 0.5];

  /** @param {number} value @param {number} low @param {number} high */
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  /** Four decimals are a hundredth of a percent: finer than a pixel of any canvas that is drawn on. @param {number} value */
  const round = (value) => Math.round(value * 10000) / 10000;
  /** @param {number} value @param {number} step 0: no grid */
  const snap = (value, step) => (step > 0 ? clamp(Math.round(value / step) * step, 0, 1) : value);

  /** @param {Point} a @param {Point} b opposite corners in any order @returns {Box} inside the canvas */
  function boxBetween(a, b) {
    const [left, right] = [a[0], b[0]].map((x) => clamp(x, 0, 1)).sort((p, q) => p - q);
    const [top, bottom] = [a[1], b[1]].map((y) => clamp(y, 0, 1)).sort((p, q) => p - q);
    const width = Math.max(right - left, SMALLEST);
    const height = Math.max(bottom - top, SMALLEST);
    return /** @type {Box} */ ([Math.min(left, 1 - width), Math.min(top, 1 - height), width, height].map(round));
  }

  /** @param {Box} box @param {number} dx @param {number} dy @returns {Box} moved, as far as the canvas goes */
  function moveBox([x, y, width, height], dx, dy) {
    return /** @type {Box} */ ([moveWithin(x + dx, width), moveWithin(y + dy, height), width, height].map(round));
  }

  /** What is larger than the canvas goes on to cover it. @param {number} start @param {number} length */
  const moveWithin = (start, length) => clamp(start, Math.min(0, 1 - length), Math.max(0, 1 - length));

  /**
   * Puts the sides that a handle belongs to at a point; they stop short of the opposite sides.
   * @param {Box} box @param {string} handle 'n', 'ne', 'e', … @param {Point} point @returns {Box}
   */
  function resizeBox([x, y, width, height], handle, [px, py]) {
    let [left, top, right, bottom] = [x, y, x + width, y + height];
    if (handle.includes('w')) left = clamp(px, 0, right - SMALLEST);
    if (handle.includes('e')) right = clamp(px, left + SMALLEST, 1);
    if (handle.includes('n')) top = clamp(py, 0, bottom - SMALLEST);
    if (handle.includes('s')) bottom = clamp(py, top + SMALLEST, 1);
    return [round(left), round(top), round(right - left), round(bottom - top)];
  }

  /** @param {Point[]} points @returns {Box} their bounding box, as wide and high as a region is at least */
  function boundsOf(points) {
    const [left, top] = [0, 1].map((axis) => Math.min(...points.map((point) => point[axis])));
    const [right, bottom] = [0, 1].map((axis) => Math.max(...points.map((point) => point[axis])));
    if (left < 0 || top < 0 || right > 1 || bottom > 1)
      return /** @type {Box} */ ([left, top, ...atLeast(right - left, bottom - top)].map(round));
    return boxBetween([left, top], [right, bottom]);
  }

  /** @param {...number} sides */
  const atLeast = (...sides) => sides.map((side) => Math.max(side, SMALLEST));

  /** @param {Point[]} points @param {number} dx @param {number} dy @returns {Point[]} */
  function movePoints(points, dx, dy) {
    const xs = points.map((point) => point[0]);
    const ys = points.map((point) => point[1]);
    const mx = moveWithin(Math.min(...xs) + dx, Math.max(...xs) - Math.min(...xs)) - Math.min(...xs);
    const my = moveWithin(Math.min(...ys) + dy, Math.max(...ys) - Math.min(...ys)) - Math.min(...ys);
    return points.map(([x, y]) => [round(x + mx), round(y + my)]);
  }

  /** Points stretched from one bounding box to another. @param {Point[]} points @param {Box} to @returns {Point[]} */
  function fitPoints(points, to) {
    if (points.length === 0) return points;
    const from = boundsOf(points);
    return points.map(([x, y]) => [
      round(to[0] + ((x - from[0]) / from[2]) * to[2]),
      round(to[1] + ((y - from[1]) / from[3]) * to[3]),
    ]);
  }

  /**
   * The polygon a box or ellipse becomes when its shape is changed.
   * @param {Box} box @param {boolean} round8 whether it was an ellipse @returns {Point[]}
   */
  function outlineOf([x, y, width, height], round8) {
    if (!round8)
      return /** @type {Point[]} */ (
        [
          [x, y],
          [x + width, y],
          [x + width, y + height],
          [x, y + height],
        ].map((point) => point.map(round))
      );
    return Array.from({ length: 8 }, (_, index) => {
      const angle = (index * Math.PI) / 4;
      return [round(x + (width * (1 + Math.cos(angle))) / 2), round(y + (height * (1 + Math.sin(angle))) / 2)];
    });
  }

  /**
   * Between which two points a new one belongs: on the edge nearest to it.
   * @param {Point[]} points @param {Point} point @param {number} aspect width of the canvas by its height
   * @returns {number} the index that the new point takes
   */
  function insertionIndex(points, [px, py], aspect) {
    if (points.length < 3) return points.length;
    let best = points.length;
    let nearest = Infinity;
    points.forEach(([ax, ay], index) => {
      const [bx, by] = points[(index + 1) % points.length];
      const [ux, uy, vx, vy] = [(bx - ax) * aspect, by - ay, (px - ax) * aspect, py - ay];
      const length = ux * ux + uy * uy;
      const along = length === 0 ? 0 : clamp((ux * vx + uy * vy) / length, 0, 1);
      const distance = (vx - along * ux) ** 2 + (vy - along * uy) ** 2;
      if (distance < nearest) {
        nearest = distance;
        best = index + 1;
      }
    });
    return best;
  }

  /**
   * Whether a region can have this box: the rule is the engine's (engine/regions/shapes.ts). What reaches over the edge
   * is cut off, and reported when it is drawn.
   * @param {unknown} value as it is saved
   */
  function isBox(value) {
    const [x, y, width, height] = numbersOf(value, 4);
    return width > 0 && height > 0 && x < 1 && y < 1 && x + width > 0 && y + height > 0;
  }

  /** Whether a region can have this outline: as for isBox. @param {unknown} value as it is saved */
  function isPolygon(value) {
    if (!Array.isArray(value) || value.length < 3 || pointsOf(value).length < value.length || onOneLine(value))
      return false;
    return [0, 1].every((axis) => value.some((point) => point[axis] > 0) && value.some((point) => point[axis] < 1));
  }

  /** @param {Point[]} points */
  function onOneLine([[x, y], ...others]) {
    const steps = others.map((point) => [point[0] - x, point[1] - y]);
    const [u, v] = steps.reduce((a, b) => (Math.hypot(...b) > Math.hypot(...a) ? b : a));
    return steps.every(([du, dv]) => Math.abs(u * dv - v * du) <= 1e-12 * (u * u + v * v));
  }

  /** @param {unknown} value @param {number} count @returns {number[]} empty when it is not as many numbers */
  function numbersOf(value, count) {
    const numbers = Array.isArray(value) && value.length === count ? value.map(Number) : [];
    return numbers.every(Number.isFinite) ? numbers : [];
  }

  /** @param {unknown} value @returns {Box} the value if it is a box, else a box in the middle */
  function boxOf(value) {
    if (!isBox(value)) return [...START_BOX];
    const [x, y, width, height] = numbersOf(value, 4);
    if (x < 0 || y < 0 || x + width > 1 || y + height > 1)
      return /** @type {Box} */ ([x, y, ...atLeast(width, height)].map(round));
    return boxBetween([x, y], [x + width, y + height]);
  }

  /** @param {unknown} value @returns {Point[]} those of the value's items that are points */
  function pointsOf(value) {
    const list = Array.isArray(value) ? value : [];
    return list
      .map((point) => numbersOf(point, 2))
      .filter((point) => point.length > 0)
      .map(([x, y]) => [round(x), round(y)]);
  }

  /** @param {number} value @returns {number} in percent, with one decimal */
  const percent = (value) => Math.round(value * 1000) / 10;

  /**
   * The rectangle that a region takes up.
   * @param {{shape: string, box: Box, points: Point[]}} region
   * @returns {Box} the whole canvas for what isn't drawn as an outline
   */
  function extentOf({ shape, box, points }) {
    if (shape === 'polygon') return points.length > 1 ? boundsOf(points) : box;
    return shape === 'box' || shape === 'ellipse' ? box : [0, 0, 1, 1];
  }

  const geometry = {
    START_BOX,
    clamp,
    round,
    snap,
    boxBetween,
    moveBox,
    resizeBox,
    boundsOf,
    movePoints,
    fitPoints,
    outlineOf,
    insertionIndex,
    isBox,
    isPolygon,
    boxOf,
    pointsOf,
    percent,
    extentOf,
  };
  const parts = (globalThis.MultiDiffusionCompose ??= {});
  parts.geometry = geometry;
  if (typeof module !== 'undefined') module.exports = geometry;
})();
