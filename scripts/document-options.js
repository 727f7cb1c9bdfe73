'use strict';
// Writes docs/options.md: every option of every node, from engine/options.ts and the English catalogues.
const fs = require('node:fs');
const path = require('node:path');

const root = path.join(__dirname, '..');

/** @returns {string} the page */
function optionsPage() {
  const { NODE_OPTIONS } = require('../dist/engine/options');
  const lines = [
    '# Options',
    '',
    'Every option of every node, as `npm run docs` writes it from `engine/options.ts` and the editor’s texts. In a message',
    'an option has the name that stands here, and overrides the node’s setting; see [messages.md](messages.md).',
  ];
  for (const [type, options] of Object.entries(NODE_OPTIONS)) {
    if (Object.keys(options).length === 0) continue;
    lines.push('', `## ${type}`, '', '| option | values | default | |', '|---|---|---|---|');
    const texts = readTexts(type);
    for (const [name, spec] of Object.entries(options)) {
      const cells = [`\`${name}\``, valuesOf(spec), defaultOf(name, spec, texts), texts.hint[name]];
      lines.push(`| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`);
    }
  }
  return `${lines.join('\n')}\n`;
}

/** @param {string} type @returns {any} the node's part of its English catalogue */
function readTexts(type) {
  const file = path.join(root, 'nodes', type, 'locales/en-US', `${type}.json`);
  return JSON.parse(fs.readFileSync(file, 'utf8'))[type];
}

/** @param {any} spec @returns {string} */
function valuesOf(spec) {
  switch (spec.type) {
    case 'integer':
      return `whole number, ${spec.min} to ${spec.max === Number.MAX_SAFE_INTEGER ? '2⁵³ − 1' : spec.max}`;
    case 'number':
      return `number, ${spec.min} to ${spec.max}`;
    case 'choice':
      return spec.choices.map((/** @type {string} */ choice) => `\`${choice}\``).join(', ');
    case 'boolean':
      return '`true`, `false`';
    case 'colour':
      return 'colour, `#rrggbb`';
    default:
      return 'text';
  }
}

/** @param {string} name @param {any} spec @param {any} texts @returns {string} */
function defaultOf(name, spec, texts) {
  if (spec.default !== undefined && spec.default !== '') return `\`${spec.default}\``;
  if (spec.form?.kinds?.[0] === 'random') return 'random';
  return spec.form?.placeholder === true && spec.type !== 'text' ? texts.placeholder[name] : '';
}

module.exports = { optionsPage };

if (require.main === module) fs.writeFileSync(path.join(root, 'docs/options.md'), optionsPage());
