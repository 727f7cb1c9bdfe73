// @ts-check
/* global module */
/**
 * What surrounds a node on the workspace, found by walking the wires: the sampler it leads to (whose canvas it is drawn
 * on), the regions of that picture and their words.
 * @typedef {{id: string, type: string, [property: string]: any}} FlowNode
 * @typedef {{nodes: Map<string, FlowNode>, wires: Array<[string, string]>, instances?: Map<string, number>}} Graph
 *   instances: how often each subflow is used
 * @typedef {{
 *   id: string, name: string, prompt: string, shape: string, box: number[], points: number[][], image?: string,
 *   imageType?: string,
 * }} SceneRegion
 * @typedef {{
 *   sampler?: FlowNode, model: string, width: number, height: number, cell: number, label: string,
 *   regions: SceneRegion[], own: number, background: string, subflowUses?: number,
 * }} Scene regions: in the order in which they are wired; own: which of them the node is; subflowUses: of the subflow
 *   that the node lies in
 */
(function () {
  'use strict';

  /** Picture and cell side in pixels of the bundled model, and of Stable Diffusion, until the model's own are known. */
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

  /** @param {FlowNode | undefined} encoder @returns {string} its words, or where it takes them from */
  function wordsOf(encoder) {
    if (!encoder || !encoder.prompt) return '';
    const type = encoder.promptType || 'str';
    return type === 'str' ? encoder.prompt : `${type}.${encoder.prompt}`;
  }

  /** @param {Graph} graph @param {string} id @returns {string} the prompt that reaches a region, or '' */
  function promptOf(graph, id) {
    return wordsOf(walk(graph, id, 'up').find((node) => node.type === 'text-encode'));
  }

  /** @param {Graph} graph @param {FlowNode} region @returns {string} */
  function labelOf(graph, region) {
    return region.regionName || promptOf(graph, region.id) || region.name || '';
  }

  /**
   * Words of the text-encode above a picture's regions that no region takes.
   * @param {Graph} graph @param {string} sampler @returns {string}
   */
  function backgroundOf(graph, sampler) {
    const encoders = walk(graph, sampler, 'up').filter((node) => node.type === 'text-encode');
    const takes = (/** @type {FlowNode} */ encoder) => {
      const below = walk(graph, encoder.id, 'down').find(
        ({ type }) => type === 'region-mask' || type === 'text-encode' || type === 'multidiffusion-sampler',
      );
      return below?.type === 'region-mask';
    };
    return wordsOf(encoders.find((encoder) => !takes(encoder)));
  }

  /** The canvas and the model of a picture. @param {Graph} graph @param {FlowNode | undefined} sampler @param {string} modelId */
  function canvasOf(graph, sampler, modelId) {
    const model = graph.nodes.get(modelId);
    const native = !model || !model.checkpoint || model.checkpoint === 'pocket' ? POCKET : STABLE_DIFFUSION;
    return {
      width: Number(sampler && sampler.width) || native.size,
      height: Number(sampler && sampler.height) || native.size,
      cell: native.cell,
    };
  }

  /** @param {Graph} graph @param {string} id of any node on the way to a sampler @returns {Scene} */
  function sceneOf(graph, id) {
    const self = graph.nodes.get(id);
    const below = walk(graph, id, 'down');
    const sampler = below.find((node) => node.type === 'multidiffusion-sampler');
    const related = sampler ? walk(graph, sampler.id, 'up') : walk(graph, id, 'up');
    const masks = related.filter((node) => node.type === 'region-mask');
    if (self && self.type === 'region-mask' && !masks.includes(self)) masks.unshift(self);
    // The walk goes against the wires.
    masks.reverse();
    const withModel = sampler || below.find((node) => node.type === 'text-encode');
    const modelId = (withModel && withModel.model) || '';
    return {
      sampler,
      model: modelId,
      ...canvasOf(graph, sampler, modelId),
      label: self ? labelOf(graph, self) : '',
      regions: masks.map((node) => ({
        id: node.id,
        name: node.regionName || '',
        prompt: promptOf(graph, node.id),
        shape: node.shape,
        box: node.box,
        points: node.points,
        image: node.image,
        imageType: node.imageType,
      })),
      own: masks.findIndex((node) => node.id === id),
      background: sampler ? backgroundOf(graph, sampler.id) : '',
      subflowUses: self && self.z ? graph.instances?.get(self.z) : undefined,
    };
  }

  /**
   * The editor's workspace as a graph. Link nodes count as wires, and a subflow is open: what leads into an instance
   * leads to its first nodes, and its last ones lead to what follows an instance.
   * @returns {Graph}
   */
  function graphOfEditor() {
    /** @type {Graph} */
    const graph = { nodes: new Map(), wires: [] };
    /** @type {Map<string, number>} */
    const instances = new Map();
    graph.instances = instances;
    RED.nodes.eachSubflow((/** @type {FlowNode} */ subflow) => instances.set(subflow.id, 0));
    RED.nodes.eachNode((/** @type {FlowNode} */ node) => {
      graph.nodes.set(node.id, node);
      if (node.type === 'link out' && node.mode !== 'return') {
        for (const target of node.links || []) graph.wires.push([node.id, target]);
      }
      const subflow = node.type.startsWith('subflow:') ? node.type.slice(8) : undefined;
      if (subflow) instances.set(subflow, (instances.get(subflow) || 0) + 1);
    });
    RED.nodes.eachConfig((/** @type {FlowNode} */ node) => {
      graph.nodes.set(node.id, node);
    });
    RED.nodes.eachLink((/** @type {any} */ link) => {
      const into = subflowOf(link.target);
      const from = subflowOf(link.source);
      const target = into ? portId(into, 'in', 0) : endId(link.target);
      const source = from ? portId(from, 'out', link.sourcePort) : endId(link.source);
      graph.wires.push([source, target]);
    });
    return graph;
  }

  /** @param {FlowNode} node @returns {string | undefined} the subflow that it is an instance of */
  const subflowOf = (node) => (node.type.startsWith('subflow:') ? node.type.slice(8) : undefined);
  /** @param {string} subflow @param {string} direction @param {number} index */
  const portId = (subflow, direction, index) => `${subflow} ${direction} ${index}`;
  /** @param {any} end of a wire: a node, or a port of the subflow that is open @returns {string} */
  const endId = (end) => (end.type === 'subflow' && end.direction ? portId(end.z, end.direction, end.i || 0) : end.id);

  const api = { sceneOf, walk, graphOfEditor };
  /** @type {any} */ (globalThis).MultiDiffusionScene = api;
  if (typeof module !== 'undefined') module.exports = api;
})();
