// @ts-check
/* global module */
/**
 * What surrounds a region on the workspace, found by walking the wires: the sampler it ends in (whose canvas it
 * is drawn on), the other regions of that picture, and the prompt that fills this one.
 * @typedef {{id: string, type: string, [property: string]: any}} FlowNode
 * @typedef {{nodes: Map<string, FlowNode>, wires: Array<[string, string]>}} Graph
 * @typedef {{id: string, label: string, shape: string, box: number[], points: number[][]}} OtherRegion
 * @typedef {{sampler?: FlowNode, width: number, height: number, cell: number, label: string, others: OtherRegion[]}} Scene
 */
(function () {
  'use strict';

  /** The bundled model's picture and cell side in pixels, and Stable Diffusion's. */
  const POCKET = { size: 128, cell: 4 };
  const STABLE_DIFFUSION = { size: 512, cell: 8 };

  /**
   * Nodes reachable from one, nearest first, itself not included.
   * @param {Graph} graph @param {string} from @param {'up' | 'down'} direction
   * @returns {FlowNode[]}
   */
  function walk(graph, from, direction) {
    /** @type {Map<string, string[]>} */
    const next = new Map();
    for (const [source, target] of graph.wires) {
      const [key, value] = direction === 'down' ? [source, target] : [target, source];
      const list = next.get(key);
      if (list) list.push(value);
      else next.set(key, [value]);
    }
    const seen = new Set([from]);
    const queue = [from];
    const found = [];
    for (let id = queue.shift(); id !== undefined; id = queue.shift()) {
      for (const neighbour of next.get(id) || []) {
        if (seen.has(neighbour)) continue;
        seen.add(neighbour);
        queue.push(neighbour);
        const node = graph.nodes.get(neighbour);
        if (node) found.push(node);
      }
    }
    return found;
  }

  /** @param {Graph} graph @param {string} id @returns {string} the prompt that reaches a region, or '' */
  function promptOf(graph, id) {
    const encoder = walk(graph, id, 'up').find((node) => node.type === 'text-encode');
    if (!encoder || !encoder.prompt) return '';
    return encoder.promptType === 'msg' ? 'msg.' + encoder.prompt : encoder.prompt;
  }

  /** @param {Graph} graph @param {FlowNode} region @returns {string} */
  function labelOf(graph, region) {
    return region.regionName || promptOf(graph, region.id) || region.name || '';
  }

  /**
   * @param {Graph} graph @param {string} id of a region-mask
   * @returns {Scene}
   */
  function sceneOf(graph, id) {
    const sampler = walk(graph, id, 'down').find((node) => node.type === 'multidiffusion-sampler');
    const related = sampler ? walk(graph, sampler.id, 'up') : walk(graph, id, 'up');
    const others = related
      .filter((node) => node.type === 'region-mask' && node.id !== id)
      .map((node) => ({ id: node.id, label: labelOf(graph, node), shape: node.shape, box: node.box, points: node.points }));
    const model = sampler && graph.nodes.get(sampler.model);
    const native = model && model.checkpoint === 'folder' ? STABLE_DIFFUSION : POCKET;
    const self = graph.nodes.get(id);
    return {
      sampler,
      width: Number(sampler && sampler.width) || native.size,
      height: Number(sampler && sampler.height) || native.size,
      cell: native.cell,
      label: self ? labelOf(graph, self) : '',
      others,
    };
  }

  /** The editor's workspace as a graph; link nodes count as wires. */
  function graphOfEditor() {
    /** @type {Graph} */
    const graph = { nodes: new Map(), wires: [] };
    RED.nodes.eachNode((/** @type {FlowNode} */ node) => {
      graph.nodes.set(node.id, node);
      if (node.type === 'link out' && node.mode !== 'return') {
        for (const target of node.links || []) graph.wires.push([node.id, target]);
      }
    });
    RED.nodes.eachConfig((/** @type {FlowNode} */ node) => {
      graph.nodes.set(node.id, node);
    });
    RED.nodes.eachLink((/** @type {any} */ link) => graph.wires.push([link.source.id, link.target.id]));
    return graph;
  }

  const api = { sceneOf, walk, graphOfEditor };
  /** @type {any} */ (globalThis).MultiDiffusionScene = api;
  if (typeof module !== 'undefined') module.exports = api;
})();
