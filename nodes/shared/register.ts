/** Registers a node type: with its options for the editor's forms, and with configurations of older versions brought up to date. */
import type { Node, NodeAPI, NodeDef } from 'node-red';
import { isOffered, type ProviderName } from '../../engine/inference/providers';
import { NODE_OPTIONS, type OptionSpec } from '../../engine/options';

interface Migrations {
  migrate(type: string, config: object): boolean;
}
// The editor loads the same file.
// eslint-disable-next-line @typescript-eslint/no-require-imports
const { migrate } = require('../../../resources/migrations.js') as Migrations;

/**
 * @param start makes the node work; called once it has been created
 * @param more what else Node-RED's registerType takes, such as credentials
 */
export function registerNode<N extends Node, D extends NodeDef = NodeDef>(
  RED: NodeAPI,
  type: string,
  start: (node: N, config: D) => void,
  more: object = {},
): void {
  function create(this: N, config: D): void {
    migrate(type, config);
    RED.nodes.createNode(this, config);
    start(this, config);
  }
  // Node-RED hands such settings to the editor before it loads the nodes; their names must begin with the type's.
  const settings = { [settingName(type)]: { value: optionsHere(type), exportable: true } };
  RED.nodes.registerType(type, create as never, { ...more, settings } as never);
}

/** A type's options, without the providers that this system can't have. */
function optionsHere(type: string): Readonly<Record<string, OptionSpec>> {
  const options = NODE_OPTIONS[type] ?? {};
  const { provider } = options;
  if (provider?.type !== 'choice') return options;
  const everywhere = ['auto', 'pool'];
  const choices = provider.choices.filter((name) => everywhere.includes(name) || isOffered(name as ProviderName));
  return { ...options, provider: { ...provider, choices } };
}

/** The name by which the editor finds a type's options, as `saveImageOptions`. */
export function settingName(type: string): string {
  return `${type.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())}Options`;
}
