/** The editor side of the nodes, loaded without an editor. */
import fs from 'node:fs';
import path from 'node:path';
import vm from 'node:vm';
import { NODE_OPTIONS } from '../../../dist/engine/options';
import { settingName } from '../../../dist/nodes/shared/register';

export const ROOT = path.resolve(__dirname, '../../..');
export const TYPES = [
  'diffusion-model',
  'compose',
  'text-encode',
  'region-mask',
  'multidiffusion-sampler',
  'multidiffusion-bootstrap',
  'multidiffusion-denoise',
  'multidiffusion-fuse',
  'vae-encode',
  'vae-decode',
  'save-image',
] as const;
export const LANGUAGES = ['en-US', 'es-ES'] as const;

export interface PropertyDefinition {
  value: unknown;
  type?: string;
  required?: boolean;
  validate?: (this: unknown, value: unknown, options: object) => boolean | string;
}

export interface NodeDefinition {
  category: string;
  color: string;
  icon: string;
  inputs?: number;
  outputs?: number;
  defaults: Record<string, PropertyDefinition>;
  label: (this: unknown) => string;
  labelStyle: (this: unknown) => string;
}

export const readHtml = (type: string): string =>
  fs.readFileSync(path.join(ROOT, 'nodes', type, `${type}.html`), 'utf8');

export const readCatalogue = (language: string, type: string): Record<string, unknown> =>
  JSON.parse(fs.readFileSync(path.join(ROOT, 'nodes', type, 'locales', language, `${type}.json`), 'utf8')) as Record<
    string,
    unknown
  >;

/** The text behind a dotted key, or undefined. */
export function lookUp(catalogue: unknown, key: string): unknown {
  return key
    .split('.')
    .reduce<unknown>((level, part) => (level as Record<string, unknown> | undefined)?.[part], catalogue);
}

/** Translates as Node-RED does: a key with a namespace, else one of the type's own. A missing key is an error. */
export function translator(type: string, language = 'en-US') {
  return (key: string, values: Record<string, unknown> = {}): string => {
    const [namespace, name] = key.includes(':') ? key.split(':') : [`node-red-contrib-multidiffusion/${type}`, key];
    const text = lookUp(readCatalogue(language, namespace.split('/')[1]), name);
    if (typeof text !== 'string') throw new Error(`${key} has no text`);
    return text.replace(/__(\w+)__/g, (_, value: string) => String(values[value]));
  };
}

/** The options as Node-RED's settings hand them to the editor. */
export const exportedSettings = (): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(NODE_OPTIONS).map(([type, options]) => [settingName(type), JSON.parse(JSON.stringify(options))]),
  );

/** The editor's parts that registering a node takes, and what they are called there. */
export function loadForms(
  RED: object,
): vm.Context & { MultiDiffusionForms: Forms; MultiDiffusionMigrations: Migrations } {
  const nothing = { length: 0, first: () => nothing, html: () => '' };
  const context = vm.createContext({ RED: { settings: exportedSettings(), ...RED }, $: () => nothing, Number });
  for (const file of [
    ...['form-dialog.js', 'form-rows.js', 'forms.js', 'migrations.js'],
    ...['composer/geometry.js', 'composer/layout.js'],
  ])
    vm.runInContext(fs.readFileSync(path.join(ROOT, 'resources', file), 'utf8'), context);
  return context as ReturnType<typeof loadForms>;
}

interface Forms {
  defaults(type: string): Record<string, PropertyDefinition>;
  expand(type: string, html: string): string;
}
interface Migrations {
  migrate(type: string, config: object): boolean;
  retired(type: string): string[];
}

/** The dialog as the editor gets it: the html with the rows in it. */
export function dialogOf(type: string): string {
  return loadForms({}).MultiDiffusionForms.expand(type, readHtml(type));
}

/** What a node's html registers. */
export function loadDefinition(type: string): NodeDefinition {
  const scripts = [...readHtml(type).matchAll(/<script type="text\/javascript">([\s\S]*?)<\/script>/g)].map(
    (match) => match[1],
  );
  const registered: Array<[string, NodeDefinition]> = [];
  const RED = {
    nodes: { registerType: (name: string, definition: NodeDefinition) => registered.push([name, definition]) },
    editor: { getEditStack: () => [] },
    utils: { validateTypedProperty: (value: string) => /^[a-z]\w*$/i.test(value) || 'not a property' },
    _: translator(type),
  };
  const context = loadForms(RED);
  for (const script of scripts) vm.runInContext(script, context);
  if (registered.length !== 1 || registered[0][0] !== type)
    throw new Error(`${type}.html registers ${registered.map(([name]) => name).join(', ') || 'nothing'}`);
  return registered[0][1];
}

/** A node as the editor makes it when it is dragged from the palette. */
export function newNode(
  type: string,
  definition: NodeDefinition,
  values: Record<string, unknown> = {},
): Record<string, unknown> {
  const defaults = Object.fromEntries(
    Object.entries(definition.defaults).map(([name, { value }]) => [name, structuredClone(value)]),
  );
  return { id: 'n', type, ...defaults, ...values, _: translator(type) };
}

/** What the validator says: true, or the reason. */
export function validate(
  definition: NodeDefinition,
  node: Record<string, unknown>,
  property: string,
): boolean | string {
  const { validate: check } = definition.defaults[property];
  return check ? check.call(node, node[property], {}) : true;
}
