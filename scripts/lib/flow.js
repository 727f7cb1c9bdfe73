'use strict';
// What a flow file says, without Node-RED: its nodes, where it starts, and changes to its configuration.
const fs = require('node:fs');

/** @typedef {Record<string, any> & { id: string, type: string }} FlowNode */

/** Node types that an outside event starts. */
const SOURCES = ['inject', 'http in', 'mqtt in'];

/**
 * @param {string} file a flow exported from the editor
 * @returns {FlowNode[]}
 */
function readFlow(file) {
  let nodes;
  try {
    nodes = JSON.parse(fs.readFileSync(file, 'utf8'));
  } catch (error) {
    throw new Error(`${file} can't be read as a flow: ${error.message}`, { cause: error });
  }
  if (!Array.isArray(nodes) || nodes.some((node) => typeof node?.id !== 'string' || typeof node.type !== 'string')) {
    throw new Error(`${file} is no flow: it should hold an array of nodes, as the editor exports it.`);
  }
  return nodes;
}

/**
 * The packages that a flow needs besides this one, as the editor writes them into an export.
 * @param {FlowNode[]} flow
 * @returns {string[]}
 */
function modulesOf(flow) {
  return flow.flatMap(({ type, modules }) => (type === 'global-config' ? Object.keys(modules ?? {}) : []));
}

/**
 * Every node that a message from `start` can come to.
 * @param {FlowNode[]} flow
 * @param {FlowNode} start
 */
function downstream(flow, start) {
  const found = new Set([start]);
  for (const node of found) {
    const next = [...(node.wires ?? []).flat(), ...(node.type === 'link out' ? (node.links ?? []) : [])];
    for (const id of next) {
      const target = flow.find((candidate) => candidate.id === id);
      if (target) found.add(target);
    }
  }
  return [...found];
}

/**
 * The node that starts the making of a picture: an inject before an endpoint.
 * @param {FlowNode[]} flow
 */
function findStart(flow) {
  const starts = SOURCES.flatMap((type) => flow.filter((node) => node.type === type));
  const start = starts.find((node) => downstream(flow, node).some(({ type }) => type === 'save-image'));
  if (!start) throw new Error(`The flow has no ${SOURCES.join(', ')} node whose messages come to a save-image node.`);
  return start;
}

/**
 * The layout that an endpoint's comment shows: the first block of JSON in it.
 * @param {FlowNode[]} flow
 */
function exampleLayout(flow) {
  for (const { type, info } of flow) {
    const block = type === 'comment' && /```json\n([^]*?)```/.exec(info ?? '');
    if (block) return JSON.parse(block[1]);
  }
  return undefined;
}

/**
 * Takes apart `key=value`. The value is read as JSON where it is JSON, else as text.
 * @param {string} text
 * @returns {[string, unknown]}
 */
function parseSetting(text) {
  const at = text.indexOf('=');
  if (at < 1) throw new Error(`--set ${text}: should be key=value, such as seed=7.`);
  const value = text.slice(at + 1);
  try {
    return [text.slice(0, at), JSON.parse(value)];
  } catch {
    return [text.slice(0, at), value];
  }
}

/**
 * Splits settings into changes of nodes and properties of the message. A key that begins with a node's
 * name, region name, id or type ("sofa.box") is that node's configuration; any other is a message property.
 * @param {FlowNode[]} flow
 * @param {Record<string, unknown>} settings
 * @returns {{ flow: FlowNode[], message: Record<string, unknown>, notes: string[] }} a changed copy of the flow,
 *   what is left, and what may be a misspelt name
 */
function applySettings(flow, settings) {
  const changed = structuredClone(flow);
  /** @type {Record<string, unknown>} */
  const message = {};
  /** @type {string[]} */
  const notes = [];
  for (const [key, value] of Object.entries(settings)) {
    const at = key.lastIndexOf('.');
    const owner = key.slice(0, Math.max(at, 0));
    const property = key.slice(at + 1);
    const nodes = owner
      ? changed.filter(({ name, regionName, id, type }) => [name, regionName, id, type].includes(owner))
      : [];
    for (const node of nodes) {
      if (!(property in node)) throw new Error(`--set ${key}: the node "${owner}" has no property ${property}.`);
      node[property] = value;
    }
    if (nodes.length > 0) continue;
    message[key] = value;
    if (owner) notes.push(`--set ${key}: no node is called "${owner}", so that it is set in the message.`);
  }
  return { flow: changed, message, notes };
}

module.exports = { readFlow, modulesOf, downstream, findStart, exampleLayout, parseSetting, applySettings };
