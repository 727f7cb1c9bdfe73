// @ts-check
/* global module */
/**
 * A layout as docs/messages.md describes it, and as the composer edits it: there every region has all its parts.
 */
(function () {
  'use strict';
  const parts = (globalThis.MultiDiffusionCompose ??= {});

  /** @type {Shape[]} */
  const SHAPES = ['box', 'ellipse', 'polygon', 'image', 'rest'];

  /** What the engine takes for each option of a region, see engine/options.ts. */
  const RANGES = {
    weight: { min: 0.001, max: 1000, standard: 1 },
    feather: { min: 0, max: 0.5, standard: 0 },
    guidanceScale: { min: 0, max: 100 },
    seed: { min: 0, max: Number.MAX_SAFE_INTEGER, integer: true },
    start: { min: 0, max: 1, standard: 0 },
    end: { min: 0, max: 1, standard: 1 },
  };
  /** And for the picture as a whole. */
  const CANVAS_RANGES = {
    width: { min: 16, max: 16384, integer: true },
    height: { min: 16, max: 16384, integer: true },
    seed: { min: 0, max: Number.MAX_SAFE_INTEGER, integer: true },
  };

  let lastKey = 0;
  /** @returns {string} */
  const newKey = () => `r${++lastKey}`;
  /** @param {unknown} value @returns {string} */
  const text = (value) => (typeof value === 'string' || typeof value === 'number' ? String(value) : '');

  /** @param {Partial<Region>} [values] @returns {Region} */
  function newRegion(values = {}) {
    const { START_BOX } = parts.geometry;
    return {
      key: newKey(),
      name: '',
      prompt: '',
      negativePrompt: '',
      shape: 'box',
      box: /** @type {Box} */ ([...START_BOX]),
      points: [],
      image: '',
      options: {},
      drawn: true,
      ...values,
    };
  }

  /**
   * A layout as the composer edits it. What it holds besides is left out; nothing in it can make this fail.
   * @param {any} layout @returns {Composition}
   */
  function compositionOf(layout) {
    const source = layout && typeof layout === 'object' ? layout : {};
    const regions = Array.isArray(source.regions) ? source.regions : [];
    return {
      prompt: text(source.prompt),
      negativePrompt: text(source.negativePrompt),
      width: text(source.width),
      height: text(source.height),
      seed: text(source.seed),
      regions: regions.filter((/** @type {unknown} */ region) => region && typeof region === 'object').map(regionOf),
    };
  }

  /** @param {any} source a layout's region @returns {Region} */
  function regionOf(source) {
    const { boxOf, pointsOf, boundsOf } = parts.geometry;
    const shape = SHAPES.find((kind) => source[kind] !== undefined && source[kind] !== false) ?? 'box';
    /** @type {Record<string, any>} */
    const options = {};
    for (const name of [...Object.keys(RANGES), 'bootstrap'])
      if (source[name] !== undefined && source[name] !== '') options[name] = source[name];
    const points = shape === 'polygon' ? pointsOf(source.polygon) : [];
    return newRegion({
      name: text(source.name),
      prompt: text(source.prompt),
      negativePrompt: text(source.negativePrompt),
      shape,
      box: points.length > 1 ? boundsOf(points) : boxOf(source[shape]),
      points,
      image: shape === 'image' ? text(source.image) : '',
      options,
    });
  }

  /**
   * The regions as a layout's, with what is set only.
   * @param {Region[]} regions @returns {Record<string, unknown>[]}
   */
  function layoutRegions(regions) {
    return regions.map(({ name, prompt, negativePrompt, shape, box, points, image, options }) => ({
      ...(name.trim() && { name: name.trim() }),
      prompt,
      ...(negativePrompt && { negativePrompt }),
      ...outlineOf({ shape, box, points, image }),
      ...Object.fromEntries(Object.entries(options).filter(([option, value]) => isSet(option, value))),
    }));
  }

  /** @param {Pick<Region, 'shape' | 'box' | 'points' | 'image'>} region @returns {Record<string, unknown>} */
  function outlineOf({ shape, box, points, image }) {
    if (shape === 'polygon') return { polygon: points };
    if (shape === 'image') return { image };
    return shape === 'rest' ? { rest: true } : { [shape]: box };
  }

  /** Whether an option differs from what holds without it. @param {string} option @param {unknown} value */
  function isSet(option, value) {
    if (option === 'bootstrap') return value === false;
    const { standard } = /** @type {Record<string, {standard?: number}>} */ (RANGES)[option] ?? {};
    return value !== '' && value !== undefined && value !== standard;
  }

  /** @param {unknown} value as typed @returns {string | number} a number where it is one */
  function numberOf(value) {
    const typed = String(value ?? '').trim();
    const number = Number(typed.replace(',', '.'));
    return typed !== '' && Number.isFinite(number) ? number : typed;
  }

  /** Whether a value is allowed; nothing is. @param {unknown} value @param {{min: number, max: number, integer?: boolean}} range */
  function isAllowed(value, range) {
    if (value === '' || value === undefined || value === null) return true;
    // A value such as ${SEED} is filled in when the flow is deployed.
    if (/^\$\{[^{}]+\}$/.test(String(value).trim())) return true;
    const number = typeof value === 'number' ? value : Number(value);
    return number >= range.min && number <= range.max && (!range.integer || Number.isInteger(number));
  }

  /**
   * The first thing in a layout's regions that can't be drawn.
   * @param {unknown} regions
   * @returns {{
   *   index: number, problem: 'region' | 'words' | 'outline' | 'range' | 'period',
   *   property?: string, value?: unknown, min?: number, max?: number,
   * } | undefined}
   */
  function findProblem(regions) {
    if (!Array.isArray(regions)) return { index: 0, problem: 'region' };
    for (const [index, region] of regions.entries()) {
      if (!region || typeof region !== 'object') return { index, problem: 'region' };
      if (typeof region.prompt !== 'string') return { index, problem: 'words' };
      if (!hasOutline(region)) return { index, problem: 'outline' };
      for (const [property, range] of Object.entries(RANGES)) {
        const value = region[property];
        if (!isAllowed(value, range))
          return { index, problem: 'range', property, value, min: range.min, max: range.max };
      }
      if (Number(region.end ?? 1) <= Number(region.start ?? 0)) return { index, problem: 'period' };
    }
    return undefined;
  }

  /** @param {any} region */
  function hasOutline(region) {
    const kinds = SHAPES.filter((kind) => region[kind] !== undefined && region[kind] !== false);
    if (kinds.length !== 1) return false;
    const [kind] = kinds;
    const outline = region[kind];
    const finite = (/** @type {unknown[]} */ list) => list.every((value) => Number.isFinite(Number(value)));
    if (kind === 'rest') return outline === true;
    if (kind === 'image') return typeof outline === 'string' && outline !== '';
    if (kind === 'polygon')
      return Array.isArray(outline) && outline.length >= 3 && outline.every((p) => Array.isArray(p) && finite(p));
    if (!Array.isArray(outline) || outline.length !== 4 || !finite(outline)) return false;
    const [x, y, width, height] = outline.map(Number);
    return width > 0 && height > 0 && x < 1 && y < 1 && x + width > 0 && y + height > 0;
  }

  const layout = {
    SHAPES,
    RANGES,
    CANVAS_RANGES,
    newRegion,
    compositionOf,
    layoutRegions,
    numberOf,
    isAllowed,
    isSet,
    findProblem,
  };
  parts.layout = layout;
  if (typeof module !== 'undefined') module.exports = layout;
})();
