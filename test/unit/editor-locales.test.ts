import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { NODE_OPTIONS } from '../../dist/engine/options';
import { dialogOf, LANGUAGES, lookUp, readCatalogue, ROOT, TYPES } from './support/editor';

/** The status has room for about 20 characters; a place-holder counts as what it usually holds. */
const STATUS_LENGTH = 22;

describe('texts', () => {
  for (const type of TYPES) {
    describe(type, () => {
      it('has the same keys in every language, and no empty text', () => {
        const [first, ...others] = LANGUAGES.map((language) => flatten(readCatalogue(language, type)));
        for (const other of others) assert.deepEqual([...other.keys()].sort(), [...first.keys()].sort());
        for (const texts of [first, ...others]) for (const [key, text] of texts) assert.notEqual(text.trim(), '', key);
      });

      it('fills in the same values in every language', () => {
        const [first, ...others] = LANGUAGES.map((language) => flatten(readCatalogue(language, type)));
        const values = (text: string) => [...text.matchAll(/__\w+__/g)].map(String).sort();
        for (const other of others)
          for (const [key, text] of other) assert.deepEqual(values(text), values(first.get(key)!), key);
      });

      it('has a text for every key that the dialog uses', () => {
        const html = dialogOf(type);
        const attributes = [...html.matchAll(/data-i18n="([^"]+)"/g)].flatMap((match) => match[1].split(';'));
        const keys = attributes.map((key) => key.replace(/^\[[^\]]+\]/, ''));
        const calls = [...html.matchAll(/this\._\('([^']+[^.'])'[,)]/g)].map((match) => match[1]);
        const said = [...html.matchAll(/\bsay\('([^']+[^.'])'[,)]/g)].map((match) => `${type}.${match[1]}`);
        for (const key of [...keys, ...calls, ...said]) assertText(type, key);
      });

      it('has a label and a sentence for every option', () => {
        for (const name of Object.keys(NODE_OPTIONS[type]))
          for (const kind of ['label', 'hint']) assertText(type, `${type}.${kind}.${name}`);
      });

      it('has a text for every status that the node shows', () => {
        const sources = [type, 'shared'].flatMap((folder) =>
          fs
            .readdirSync(path.join(ROOT, 'nodes', folder))
            .filter((file) => file.endsWith('.ts'))
            .map((file) => `nodes/${folder}/${file}`),
        );
        const shown = sources.flatMap((file) => {
          const code = fs.readFileSync(path.join(ROOT, file), 'utf8');
          const calls = [...code.matchAll(/status\.(?:busy|ok|warn|idle)\(([^;]*)/g)].flatMap((call) =>
            [...call[1].matchAll(/'([a-z]\w*)'/g)].map((match) => match[1]),
          );
          return calls.map((key) => ({ file, key }));
        });
        if (type !== 'diffusion-model') assert.ok(shown.length > 0);
        const everywhere: Record<string, string[]> = {
          'nodes/shared/tasks.ts': [
            'text-encode',
            'region-mask',
            'multidiffusion-sampler',
            'vae-encode',
            'vae-decode',
            'save-image',
          ],
          'nodes/shared/model.ts': ['text-encode', 'multidiffusion-sampler', 'vae-encode', 'vae-decode'],
          'nodes/shared/steps.ts': ['multidiffusion-bootstrap', 'multidiffusion-denoise', 'multidiffusion-fuse'],
        };
        for (const { file, key } of shown) {
          if (file.startsWith(`nodes/${type}/`) || everywhere[file]?.includes(type))
            assertText(type, `${type}.status.${key}`);
        }
      });

      it('has a name for the palette, the sidebar and the title of its dialog', () => {
        assertText(type, `${type}.palette`);
      });

      it('has a status for every error code', () => {
        if (type === 'diffusion-model') return; // it takes no messages
        const source = fs.readFileSync(path.join(ROOT, 'engine/errors.ts'), 'utf8');
        const codes = [...source.matchAll(/\| '([A-Z_]+)'/g)].map((match) => match[1]);
        assert.ok(codes.length > 5);
        for (const code of [...codes, 'OTHER']) assertText(type, `${type}.status.error.${code}`);
      });

      it('keeps statuses short', () => {
        for (const language of LANGUAGES) {
          for (const [key, text] of flatten(readCatalogue(language, type))) {
            if (key.startsWith(`${type}.status.`))
              assert.ok(text.replace(/__\w+__/g, '123').length <= STATUS_LENGTH, `${language} ${key}: ${text}`);
          }
        }
      });

      for (const language of LANGUAGES) {
        it(`has help in ${language}`, () => {
          const help = fs.readFileSync(path.join(ROOT, 'nodes', type, 'locales', language, `${type}.html`), 'utf8');
          assert.match(
            help,
            new RegExp(`<script type="text/markdown" data-help-name="${type}">\\n[^#\\n]{20,120}\\.\\n\\n`),
            'the first paragraph is the tooltip',
          );
          const sections = language === 'en-US' ? ['Details', 'References'] : ['Detalles', 'Referencias'];
          if (type !== 'diffusion-model')
            sections.push(...(language === 'en-US' ? ['Inputs', 'Outputs'] : ['Entradas', 'Salidas']));
          // Node-RED's markdown takes a property only if all of it is on one line, without a further colon.
          for (const property of help.match(/^:.*$/gm) ?? [])
            assert.match(property, /^: [^:]+ \([^:]+\) : [^:]+[.,]?$/);
          assert.doesNotMatch(help, /^:.*\n[^:\n\d]/m, 'a property goes on in the next line');
          for (const section of sections) assert.match(help, new RegExp(`^### ${section}$`, 'm'), section);
        });
      }
    });
  }

  it('names the category of the palette', () => {
    for (const language of LANGUAGES) {
      for (const type of TYPES.slice(1))
        assert.equal(typeof lookUp(readCatalogue(language, type), 'palette.label.multidiffusion'), 'string');
    }
  });
});

/** A key with a namespace, `package/type:key`, is in another node's catalogue. */
function assertText(type: string, key: string): void {
  const [owner, name] = key.includes(':') ? [key.split(':')[0].split('/')[1], key.split(':')[1]] : [type, key];
  for (const language of LANGUAGES)
    assert.equal(typeof lookUp(readCatalogue(language, owner), name), 'string', `${language}: ${key}`);
}

function flatten(value: unknown, prefix = '', found = new Map<string, string>()): Map<string, string> {
  if (typeof value === 'string') found.set(prefix, value);
  else
    for (const [key, child] of Object.entries(value as object))
      flatten(child, prefix ? `${prefix}.${key}` : key, found);
  return found;
}
