/** The rules by which the flow library scores a package, as far as they can be checked without a network. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { builtinModules, createRequire } from 'node:module';
import { manifest, readDefinitions, readExamples, readNodeHtml, root } from './support/package';

// semver comes with Node-RED.
const semver = createRequire(require.resolve('node-red/package.json'))('semver') as {
  satisfies(version: string, range: string): boolean;
};

describe('flow library scorecard', () => {
  const html = readNodeHtml();

  it('P01: has a licence, also as a file', () => {
    assert.equal(manifest.license, 'MIT');
    assert.match(fs.readFileSync(path.join(root, 'LICENSE'), 'utf8'), /MIT License/);
  });

  it('P03: says where its source is and where to report faults', () => {
    assert.match(manifest.repository.url, /^git\+https:/);
    assert.match(manifest.bugs.url, /^https:/);
  });

  it('P04: is named node-red-contrib-*', () => {
    assert.match(manifest.name, /^(node-red-contrib-|@[^/]+\/)/);
  });

  it('P05: has the keyword node-red, by which the flow library finds it', () => {
    assert.ok(manifest.keywords.includes('node-red'));
  });

  it('P06: admits Node-RED 4 and 5', () => {
    for (const version of ['4.0.0', '4.1.15', '5.0.7']) {
      assert.ok(semver.satisfies(version, manifest['node-red'].version), version);
    }
  });

  it('P07: admits the Node.js versions that Node-RED 4 and 5 ask for', () => {
    for (const version of ['20.19.0', '22.9.0', '24.0.0']) {
      assert.ok(semver.satisfies(version, manifest.engines.node), version);
    }
  });

  it('N01: registers each node type once, under its own name', () => {
    const types = Object.entries(html).flatMap(([name, text]) => {
      const registered = readDefinitions(text).map(({ type }) => type);
      assert.deepEqual(registered, [name]);
      return registered;
    });
    assert.equal(new Set(types).size, types.length);
  });

  it('N02: uses every node in an example', () => {
    const used = new Set(readExamples().flatMap(({ nodes }) => nodes.map(({ type }) => type)));
    assert.deepEqual(
      Object.keys(html).filter((type) => !used.has(type)),
      [],
    );
  });

  it('D01: has at most six dependencies, and requires no others', () => {
    const dependencies = Object.keys(manifest.dependencies);
    assert.ok(dependencies.length <= 6);

    const required = new Set<string>();
    for (const file of fs.readdirSync(path.join(root, 'dist'), { recursive: true }) as string[]) {
      if (!file.endsWith('.js')) continue;
      const source = fs.readFileSync(path.join(root, 'dist', file), 'utf8');
      for (const [, name] of source.matchAll(/(?:require|import)\(["']([^."'][^"']*)["']\)/g)) required.add(name);
    }
    const known = (name: string): boolean =>
      name.startsWith('node:') ||
      builtinModules.includes(name) ||
      name.startsWith(manifest.name) ||
      dependencies.includes(name);
    assert.deepEqual(
      [...required].filter((name) => !known(name)),
      [],
    );
  });

  it('has a palette entry, labels and help in every locale for each node', () => {
    for (const [name, text] of Object.entries(html)) {
      const [{ category, inputs = 0, outputs = 0 }] = readDefinitions(text);
      assert.ok(category === 'config' || inputs + outputs > 0, name);
      for (const language of ['en-US', 'es-ES']) {
        const locale = path.join(root, 'dist', 'nodes', name, 'locales', language, name);
        assert.ok(Object.hasOwn(JSON.parse(fs.readFileSync(`${locale}.json`, 'utf8')), name), `${language} ${name}`);
        const help = fs.readFileSync(`${locale}.html`, 'utf8');
        assert.ok(help.includes(`data-help-name="${name}"`), `${language} ${name}`);
      }
    }
  });
});
