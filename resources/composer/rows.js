// @ts-check
/* global module */
/**
 * From a compose node to rows of text-encode and region-mask nodes, and back. Both ways draw the same picture.
 * @typedef {{id: string, type: string, x: number, y: number, z: string, wires: string[][], [property: string]: any}} PlainNode
 *   as a flow's JSON holds it
 * @typedef {{regions: any[], prompt: string, negativePrompt: string, [property: string]: any}} Layout
 * @typedef {{error: string}} Refusal error: a key of the catalogue's rows.error
 */
(function () {
  'use strict';
  const parts = (globalThis.MultiDiffusionCompose ??= {});

  const CANVAS = ['width', 'height', 'seed'];
  const OPTIONS = ['weight', 'feather', 'guidanceScale', 'seed', 'start', 'end', 'bootstrap'];
  /** Kinds of a typed input whose value stands in the node. */
  const FIXED = [undefined, '', 'str', 'num', 'bool'];
  /** Where the words of a row are empty: its node would look for them in the message. It encodes like no words at all. */
  const NO_WORDS = ' ';

  /**
   * The rows of a layout, wired in a chain, each region one row.
   * @param {Layout} layout
   * @param {{model: string, x: number, y: number, z: string}} place of the first row
   * @param {() => string} newId
   * @param {(type: string) => Record<string, unknown>} defaultsOf the properties of a new node
   * @returns {PlainNode[]} in the order of their wires
   */
  function toRows(layout, { model, x, y, z }, newId, defaultsOf) {
    /** @type {PlainNode[]} */
    const nodes = [];
    let row = 0;
    const add = (/** @type {string} */ type, /** @type {number} */ column, /** @type {object} */ values) => {
      nodes.push({ ...defaultsOf(type), ...values, id: newId(), type, z, x: x + column, y: y + 60 * row, wires: [[]] });
    };
    const encode = (/** @type {string} */ prompt, /** @type {string} */ negativePrompt) => {
      const types = { promptType: 'str', negativePromptType: 'str' };
      add('text-encode', 0, { name: '', model, prompt: prompt || NO_WORDS, negativePrompt, ...types });
    };
    const canvas = CANVAS.filter((name) => isGiven(layout[name]));
    if (canvas.length > 0) {
      const rules = canvas.map((name) => rule(name, layout[name]));
      add('change', 0, { name: '', rules, action: '', property: '', from: '', to: '', reg: false });
      row++;
    }
    const negative = layout.negativePrompt || '';
    if (layout.prompt || negative) {
      encode(layout.prompt, negative);
      row++;
    }
    for (const region of layout.regions) {
      encode(region.prompt, region.negativePrompt ?? negative);
      add('region-mask', 280, { name: '', regionName: region.name || '', ...outlineOf(region), ...optionsOf(region) });
      row++;
    }
    nodes.forEach((node, i) => (node.wires = [i + 1 < nodes.length ? [nodes[i + 1].id] : []]));
    return nodes;
  }

  /** @param {unknown} value */
  const isGiven = (value) => value !== undefined && value !== null && value !== '';

  /** @param {string} name @param {unknown} value */
  function rule(name, value) {
    return { t: 'set', p: name, pt: 'msg', to: String(value), tot: Number.isFinite(Number(value)) ? 'num' : 'str' };
  }

  /** @param {any} region of a layout @returns {Record<string, unknown>} as region-mask has it */
  function outlineOf(region) {
    if (region.rest) return { shape: 'rest' };
    if (region.polygon)
      return { shape: 'polygon', points: region.polygon, box: parts.geometry.boundsOf(region.polygon) };
    if (typeof region.image === 'string') {
      return { shape: 'image', image: region.image, imageType: parts.mask.isDataUri(region.image) ? 'str' : 'file' };
    }
    return region.ellipse ? { shape: 'ellipse', box: region.ellipse } : { shape: 'box', box: region.box };
  }

  /** @param {any} region @returns {Record<string, unknown>} */
  function optionsOf(region) {
    return Object.fromEntries(OPTIONS.filter((name) => isGiven(region[name])).map((name) => [name, region[name]]));
  }

  /**
   * The layout that a chain of rows draws.
   * @param {PlainNode[]} chain in the order of its wires
   * @returns {{layout: Layout, model: string} | Refusal}
   */
  function toLayout(chain) {
    /** @type {Record<string, any>} */
    const layout = { prompt: '', negativePrompt: '' };
    const regions = [];
    /** @type {PlainNode | undefined} */
    let background;
    /** @type {PlainNode | undefined} the words that no region has taken yet */
    let words;
    for (const node of chain) {
      if (node.type === 'change') Object.assign(layout, canvasIn(node));
      else if (node.type === 'text-encode') {
        if (!isFixed(node, ['prompt', 'negativePrompt']) || !node.prompt) return { error: 'words' };
        background ??= words;
        words = node;
      } else {
        if (!words) return { error: 'noWords' };
        const outline = layoutOutline(node);
        if (!outline || !isFixed(node, OPTIONS)) return { error: 'outline' };
        regions.push({ node, words, outline });
        words = undefined;
      }
    }
    background ??= words;
    const encoders = chain.filter(({ type }) => type === 'text-encode');
    const [model = ''] = encoders.map((node) => node.model || '');
    if (encoders.some((node) => (node.model || '') !== model)) return { error: 'models' };
    if (regions.length === 0) return { error: 'none' };
    layout.prompt = plain(background?.prompt);
    layout.negativePrompt = background?.negativePrompt || '';
    layout.regions = regions.map((region) => layoutRegion(region, layout.negativePrompt));
    return { layout: /** @type {Layout} */ (layout), model };
  }

  /**
   * @param {{node: PlainNode, words: PlainNode, outline: object}} region @param {string} negative words of the layout
   * @returns {Record<string, unknown>}
   */
  function layoutRegion({ node, words, outline }, negative) {
    const own = words.negativePrompt || '';
    return {
      ...((node.regionName || node.name) && { name: node.regionName || node.name }),
      prompt: plain(words.prompt),
      // A region without negative words takes those of the layout: one that has none must say so.
      ...(own !== negative && { negativePrompt: own || NO_WORDS }),
      ...outline,
      ...Object.fromEntries(OPTIONS.filter((name) => parts.layout.isSet(name, node[name])).map((n) => [n, node[n]])),
    };
  }

  /** @param {unknown} words @returns {string} */
  const plain = (words) => (typeof words === 'string' && words !== NO_WORDS ? words : '');

  /** @param {PlainNode} node @returns {Record<string, unknown> | undefined} undefined where a message decides */
  function layoutOutline(node) {
    if (isGiven(node.boxFrom) || (node.boxFromType && !['drawn', 'str'].includes(node.boxFromType))) return undefined;
    switch (node.shape) {
      case 'rest':
        return { rest: true };
      case 'polygon':
        return { polygon: node.points };
      case 'image':
        return ['str', 'file'].includes(node.imageType) && node.image ? { image: node.image } : undefined;
      case 'ellipse':
        return { ellipse: node.box };
      default:
        return { box: node.box };
    }
  }

  /** @param {PlainNode} node @param {string[]} properties */
  const isFixed = (node, properties) => properties.every((name) => FIXED.includes(node[`${name}Type`]));

  /** What a change node of a row sets; undefined when it does anything else. @param {PlainNode} node */
  function canvasIn(node) {
    const rules = Array.isArray(node.rules) ? node.rules : [];
    const known = rules.every(
      ({ t, p, pt, tot }) => t === 'set' && (pt ?? 'msg') === 'msg' && CANVAS.includes(p) && FIXED.includes(tot),
    );
    if (!known || rules.length === 0) return undefined;
    return Object.fromEntries(rules.map(({ p, to }) => [p, parts.layout.numberOf(to)]));
  }

  /** @param {PlainNode} node */
  const isRow = (node) =>
    node.type === 'text-encode' ||
    node.type === 'region-mask' ||
    (node.type === 'change' && canvasIn(node) !== undefined);

  /**
   * The chain of rows that a node lies in.
   * @param {string} id @param {Map<string, PlainNode>} nodes @param {Array<[string, string]>} wires
   * @returns {PlainNode[]} in the order of the wires
   */
  function chainOf(id, nodes, wires) {
    const start = nodes.get(id);
    if (!start || !isRow(start)) return [];
    const only = (/** @type {string} */ node, /** @type {0 | 1} */ end) => {
      const found = wires.filter((wire) => wire[end] === node).map((wire) => wire[1 - end]);
      return found.length === 1 ? nodes.get(found[0]) : undefined;
    };
    const chain = [start];
    for (let node = only(id, 1); node && isRow(node) && only(node.id, 0); node = only(node.id, 1)) {
      if (chain.includes(node)) break;
      chain.unshift(node);
    }
    for (let node = only(id, 0); node && isRow(node) && only(node.id, 1); node = only(node.id, 0)) {
      if (chain.includes(node)) break;
      chain.push(node);
    }
    // What only passes words on to the rows of another chain is none of them.
    while (chain.length > 0 && chain[chain.length - 1].type !== 'region-mask' && !isBackground(chain)) chain.pop();
    return chain;
  }

  /** Whether the last words of a chain are those of the background. @param {PlainNode[]} chain */
  const isBackground = (chain) => chain[chain.length - 1].type === 'text-encode' && chain[chain.length - 1].prompt;

  // ---- in the editor

  /** @param {string} key @param {'success' | 'error'} [type] */
  const notify = (key, type = 'error') => RED.notify(parts.dialogText(`rows.${key}`), type);

  /** @param {string} type @returns {Record<string, unknown>} */
  function defaultsOf(type) {
    const definition = RED.nodes.getType(type);
    return Object.fromEntries(
      Object.entries(definition?.defaults ?? {})
        .filter(([, { value }]) => value !== undefined)
        .map(([name, { value }]) => [name, structuredClone(value)]),
    );
  }

  /** @returns {Array<{source: any, sourcePort: number, target: any}>} */
  function allLinks() {
    /** @type {any[]} */
    const links = [];
    RED.nodes.eachLink((/** @type {any} */ link) => links.push(link));
    return links;
  }

  /** Puts rows in the place of a compose node and of the text-encode that it leads to. @param {string} id */
  function split(id) {
    const node = RED.nodes.node(id);
    if (!node || node.type !== 'compose') return;
    if (isLocked(node)) return void notify('error.locked');
    const links = allLinks();
    const after = links.filter((link) => link.source === node).map((link) => link.target);
    if (after.some((target) => target.type !== 'text-encode')) return void notify('error.notStraight');
    if (new Set(after.map(({ model }) => model || '')).size > 1) return void notify('error.models');
    // A text-encode that others use as well stays for them.
    const gone = after.filter((target) => links.every((link) => link.target !== target || link.source === node));
    const place = { model: after[0]?.model ?? '', x: node.x, y: node.y, z: node.z };
    const layout = { ...node, negativePrompt: node.negativePrompt || '', regions: node.regions };
    const rows = toRows(layout, place, RED.nodes.id, defaultsOf);
    if (rows.length === 0) return void notify('error.empty');
    replace(
      [node, ...gone],
      rows,
      links.filter((link) => link.target === node),
      links.filter((link) => after.includes(link.source)),
    );
  }

  /** Makes a compose node of the rows that the selected nodes, or one, lie in. @param {string} [id] */
  function gather(id) {
    const selection = RED.view.selection().nodes ?? [];
    const start = id ?? selection.find(isRow)?.id;
    if (!start) return void notify('error.select');
    const links = allLinks();
    const nodes = new Map();
    RED.nodes.eachNode((/** @type {any} */ node) => nodes.set(node.id, node));
    const chain = chainOf(
      start,
      nodes,
      links.map((link) => [link.source.id, link.target.id]),
    );
    if (chain.length === 0) return void notify('error.select');
    if (isLocked(chain[0])) return void notify('error.locked');
    const made = toLayout(chain);
    if ('error' in made) return void notify(`error.${made.error}`);
    const [first] = chain;
    const last = chain[chain.length - 1];
    const common = { z: first.z, y: first.y };
    const encoder = { ...defaultsOf('text-encode'), id: RED.nodes.id(), type: 'text-encode', model: made.model };
    const compose = { ...defaultsOf('compose'), ...made.layout, id: RED.nodes.id(), type: 'compose' };
    replace(
      chain,
      [
        { ...compose, ...common, x: first.x, wires: [[encoder.id]] },
        { ...encoder, ...common, x: first.x + 200, wires: [[]] },
      ],
      links.filter((link) => link.target === first),
      links.filter((link) => link.source === last),
    );
  }

  /** @param {any} node */
  const isLocked = (node) => Boolean(RED.workspaces.isLocked?.(node.z));

  /**
   * Removes nodes and puts others in their place, as one step that can be undone.
   * @param {any[]} old @param {PlainNode[]} made in a chain @param {any[]} before links that led to the old ones
   * @param {any[]} after links that led on from them
   */
  function replace(old, made, before, after) {
    const dirty = RED.nodes.dirty();
    /** @type {any[]} */
    const removedLinks = [];
    for (const node of old) {
      removedLinks.push(...RED.nodes.remove(node.id).links);
      const group = node.g && RED.nodes.group(node.g);
      if (!group) continue;
      group.nodes.splice(group.nodes.indexOf(node), 1);
      RED.group.markDirty(group);
    }
    const { nodes, links } = RED.nodes.import(made, { generateIds: false, addFlow: false });
    const created = new Map(nodes.map((/** @type {any} */ node) => [node.id, node]));
    const first = created.get(made[0].id);
    const last = created.get(made[made.length - 1].id);
    const outer = [
      ...before.map(({ source, sourcePort }) => ({ source, sourcePort, target: first })),
      ...after.map(({ target }) => ({ source: last, sourcePort: 0, target })),
    ];
    for (const link of outer) RED.nodes.addLink(link);
    for (const node of nodes) Object.assign(node, { changed: true, dirty: true, moved: true });
    RED.history.push({
      t: 'multi',
      events: [
        { t: 'delete', nodes: old, links: removedLinks, dirty },
        { t: 'add', nodes: nodes.map((/** @type {any} */ node) => node.id), links: [...links, ...outer], dirty },
      ],
      dirty,
    });
    RED.nodes.dirty(true);
    RED.view.select({ nodes });
    RED.view.redraw(true);
  }

  function addActions() {
    RED.actions.add('multidiffusion:split-into-rows', () => {
      const node = (RED.view.selection().nodes ?? []).find((/** @type {any} */ { type }) => type === 'compose');
      if (node) split(node.id);
      else notify('error.selectCompose');
    });
    RED.actions.add('multidiffusion:gather-rows-into-compose', () => gather());
  }

  function removeActions() {
    RED.actions.remove('multidiffusion:split-into-rows');
    RED.actions.remove('multidiffusion:gather-rows-into-compose');
  }

  parts.rows = { toRows, toLayout, chainOf, split, gather, addActions, removeActions };
  if (typeof module !== 'undefined') module.exports = parts.rows;
})();
