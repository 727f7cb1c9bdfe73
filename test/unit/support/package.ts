/** What the package says about itself, read from its files alone. */
import fs from 'node:fs';
import path from 'node:path';
import vm from 'node:vm';
import { loadForms } from './editor';

export const root = path.join(__dirname, '..', '..', '..');

export const manifest = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));

export interface FlowNode {
  id: string;
  type: string;
  z?: string;
  x?: number;
  y?: number;
  wires?: string[][];
  [property: string]: unknown;
}

export interface Example {
  file: string;
  nodes: FlowNode[];
}

/** The flows of examples/, by their file names. */
export function readExamples(): Example[] {
  const folder = path.join(root, 'examples');
  const files = fs
    .readdirSync(folder)
    .filter((file) => file.endsWith('.json'))
    .sort();
  return files.map((file) => ({ file, nodes: JSON.parse(fs.readFileSync(path.join(folder, file), 'utf8')) }));
}

/** What a node's html registers with the editor. */
export interface Definition {
  type: string;
  category: string;
  defaults: Record<string, { value?: unknown; type?: string }>;
  inputs?: number;
  outputs?: number;
}

/** The definitions that a node's html registers, by running its script with an editor that does nothing. */
export function readDefinitions(html: string): Definition[] {
  const definitions: Definition[] = [];
  const registerType = (type: string, definition: object) => definitions.push({ type, ...definition } as Definition);
  const context = loadForms({ nodes: { registerType } });
  for (const [, script] of html.matchAll(/<script(?! src)[^>]*text\/javascript[^>]*>([^]*?)<\/script>/g))
    vm.runInContext(script, context);
  return definitions;
}

/** The html beside each node's compiled file, by the name that package.json gives the node. */
export function readNodeHtml(): Record<string, string> {
  const nodes = manifest['node-red'].nodes as Record<string, string>;
  return Object.fromEntries(
    Object.entries(nodes).map(([name, file]) => [
      name,
      fs.readFileSync(path.join(root, file.replace(/\.js$/, '.html')), 'utf8'),
    ]),
  );
}
