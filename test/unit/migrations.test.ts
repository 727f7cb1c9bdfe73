/** Options that were renamed or moved since a flow was saved. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { loadDefinition, loadForms, newNode, ROOT, TYPES, validate } from './support/editor';

describe('migrations', () => {
  it('are applied to nodes as soon as the editor has them', () => {
    const listeners: Array<(node: object) => void> = [];
    loadForms({ events: { on: (_event: string, listener: (node: object) => void) => listeners.push(listener) } });
    const definition = loadDefinition('multidiffusion-sampler');
    // As Node-RED imports a node: properties that the definition names, and defaults for those that are missing.
    const imported = (saved: object): Record<string, unknown> =>
      newNode('multidiffusion-sampler', definition, { ...saved });
    const cases: Array<[object, object]> = [
      [
        { seedMode: 'fixed', seed: '12' },
        { seedType: 'num', seed: '12' },
      ],
      [
        { seedMode: 'random', seed: '7' },
        { seedType: 'random', seed: '7' },
      ],
      [
        { seedMode: 'msg', seed: '' },
        { seedType: 'msg', seed: 'seed' },
      ],
      [
        { seedType: 'flow', seed: 'mine' },
        { seedType: 'flow', seed: 'mine' },
      ],
    ];
    for (const [saved, expected] of cases) {
      const node = imported(saved);
      assert.equal(listeners.length, 1, 'one listener, however often the file runs');
      listeners[0](node);
      assert.deepEqual({ seedType: node.seedType, seed: node.seed }, expected);
      assert.equal(JSON.parse(JSON.stringify(node)).seedMode, undefined);
      for (const property of ['seed', 'seedType']) assert.equal(validate(definition, node, property), true, property);
    }
  });

  it('keep the old property among the definition, or the editor would drop it on import', () => {
    const { MultiDiffusionMigrations } = loadForms({});
    let found = 0;
    for (const type of TYPES) {
      const { defaults } = loadDefinition(type);
      for (const property of MultiDiffusionMigrations.retired(type)) {
        assert.ok(property in defaults, `${type}.${property}`);
        assert.equal(defaults[property].value, undefined);
        found++;
      }
    }
    assert.ok(found > 0);
  });

  it('leave nothing of 0.1.0 invalid or unknown', () => {
    const { MultiDiffusionMigrations } = loadForms({});
    const folder = path.join(ROOT, 'test/fixtures/flows-0.1.0');
    let checked = 0;
    for (const file of fs.readdirSync(folder).filter((name) => /^\d\d-/.test(name))) {
      const flow = JSON.parse(fs.readFileSync(path.join(folder, file), 'utf8')) as Array<Record<string, unknown>>;
      for (const saved of flow) {
        if (!TYPES.includes(saved.type as never)) continue;
        const definition = loadDefinition(String(saved.type));
        const node = newNode(String(saved.type), definition, saved);
        MultiDiffusionMigrations.migrate(String(saved.type), node);
        for (const property of Object.keys(definition.defaults))
          assert.equal(validate(definition, node, property), true, `${file} ${String(saved.type)}.${property}`);
        checked++;
      }
    }
    assert.ok(checked > 80);
  });
});
