/** What `npm publish` would send: everything that runs, and nothing else. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { manifest, root } from './support/package';

const MEGABYTE = 1024 * 1024;

interface Packed {
  files: Array<{ path: string; size: number }>;
  size: number;
}

describe('package', function () {
  this.timeout(60_000);
  let packed: Packed;
  let files: Set<string>;

  before(() => {
    const output = execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], {
      cwd: root,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
      shell: process.platform === 'win32',
      maxBuffer: 64 * MEGABYTE,
    });
    [packed] = JSON.parse(output) as [Packed];
    files = new Set(packed.files.map((file) => file.path));
  });

  it('has the compiled file, the html and the icon of every node', () => {
    for (const [name, file] of Object.entries(manifest['node-red'].nodes as Record<string, string>)) {
      assert.ok(files.has(file), file);
      assert.ok(files.has(file.replace(/\.js$/, '.html')), name);
      assert.ok(files.has(`dist/nodes/${name}/icons/${name}.svg`), name);
      for (const language of ['en-US', 'es-ES']) {
        assert.ok(files.has(`dist/nodes/${name}/locales/${language}/${name}.json`), `${language} ${name}`);
        assert.ok(files.has(`dist/nodes/${name}/locales/${language}/${name}.html`), `${language} ${name}`);
      }
    }
  });

  it('has the engine with its types, as the exports say', () => {
    for (const target of [manifest.exports['.'], manifest.exports['./engine']]) {
      assert.ok(files.has(path.normalize(target.default)), target.default);
      assert.ok(files.has(path.normalize(target.types)), target.types);
    }
  });

  it('has the examples, the resources of the editor, the README, the pages that errors point to and the licence', () => {
    for (const folder of ['examples', 'resources']) {
      for (const entry of fs.readdirSync(path.join(root, folder), { recursive: true, withFileTypes: true })) {
        const file = path.relative(root, path.join(entry.parentPath, entry.name)).split(path.sep).join('/');
        if (entry.isFile()) assert.ok(files.has(file), file);
      }
    }
    for (const page of ['README.md', 'docs/gpu.md', 'docs/checkpoints.md', 'docs/messages.md', 'docs/operations.md'])
      assert.ok(files.has(page), page);
    assert.ok(files.has('LICENSE'));
  });

  it('has every file of the bundled model', () => {
    const folder = path.join(root, 'models', 'pocket');
    const wanted = fs.readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    assert.ok(wanted.some(({ name }) => name === 'model.onnx'));
    for (const { parentPath, name } of wanted) {
      const file = path.relative(root, path.join(parentPath, name)).split(path.sep).join('/');
      assert.ok(files.has(file), file);
    }
  });

  it('has nothing else', () => {
    const allowed = [
      /^dist\/(engine|nodes)\/.+\.(js|d\.ts|html|json|svg)$/,
      /^(resources|models\/pocket)\/.+$/,
      /^(examples\/[^/]+\.json|docs\/[^/]+\.md)$/,
      /^(scripts\/setup-cuda\.js|package\.json|README\.md|LICENSE)$/,
    ];
    assert.deepEqual(
      [...files].filter((file) => !allowed.some((pattern) => pattern.test(file))),
      [],
    );
  });

  it('has no file whose source is gone', () => {
    const compiled = [...files].filter((file) => /^dist\/.*\.js$/.test(file));
    assert.ok(compiled.length > 10);
    for (const file of compiled) {
      const source = file.replace('dist/', '').replace(/\.js$/, '.ts');
      assert.ok(fs.existsSync(path.join(root, source)), file);
    }
  });

  it('stays below 100 megabytes', () => {
    assert.ok(packed.size < 100 * MEGABYTE, `${(packed.size / MEGABYTE).toFixed(1)} MB`);
  });
});
