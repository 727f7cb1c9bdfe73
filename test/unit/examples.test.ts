/** The example flows as files; test/flows runs them. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { modulesOf } from '../../scripts/lib/flow.js';
import { readDefinitions, readExamples, readNodeHtml } from './support/package';

const NUMBERED = /^(\d\d)-[a-z0-9-]+\.json$/;
/** What every node in the editor's export has beside its own properties. */
const COMMON = ['id', 'type', 'z', 'x', 'y', 'wires', 'd', 'g', 'l', 'info'];
const GRID = 20;
/** They take no message from the flow. */
const UNCAUGHT = ['inject', 'http in', 'mqtt in', 'comment', 'catch'];

describe('examples', () => {
  const examples = readExamples();
  const definitions = new Map(
    Object.values(readNodeHtml()).flatMap((html) =>
      readDefinitions(html).map((definition) => [definition.type, definition]),
    ),
  );

  it('are numbered from 01 on, without a gap', () => {
    const numbers = examples.map(({ file }) => Number(NUMBERED.exec(file)?.[1]));
    assert.ok(numbers.length >= 19);
    assert.deepEqual(
      numbers,
      numbers.map((_, i) => i + 1),
    );
  });

  it('name the packages that they need besides this one, and say how to install them', () => {
    for (const { file, nodes } of examples) {
      const foreign = nodes.some(({ type }) => type.startsWith('ui-'));
      const modules = modulesOf(nodes);
      assert.equal(modules.length > 0, foreign, file);
      const { info } = nodes.find(({ type }) => type === 'comment')!;
      for (const name of modules) assert.ok(String(info).includes(`npm install ${name}`), file);
    }
  });

  it('have ids that are unique over all of them, so that all can be imported together', () => {
    const ids = examples.flatMap(({ nodes }) => nodes.map(({ id }) => id));
    assert.equal(new Set(ids).size, ids.length);
    for (const id of ids) assert.match(id, /^[0-9a-f]{16}$/);
  });

  for (const { file, nodes } of examples) {
    describe(file, () => {
      const tab = nodes.find(({ type }) => type === 'tab');
      const onCanvas = nodes.filter((node) => 'x' in node);
      const byId = new Map(nodes.map((node) => [node.id, node]));

      it('is one tab with a comment that explains it', () => {
        assert.equal(nodes.filter(({ type }) => type === 'tab').length, 1);
        assert.ok(onCanvas.every(({ z }) => z === tab?.id));
        const comment = nodes.find(({ type }) => type === 'comment');
        assert.ok(String(comment?.name).length > 5);
        assert.ok(String(comment?.info).length > 100);
      });

      it('says the same in the description of its tab', () => {
        const comments = nodes.filter(({ type }) => type === 'comment');
        assert.equal(comments.length, 1);
        assert.equal(tab?.info, comments[0].info);
      });

      it('saves into a folder of its own', () => {
        const savers = nodes.filter(({ type }) => type === 'save-image');
        assert.ok(savers.length > 0);
        for (const { id, folder } of savers) assert.equal(folder, path.basename(file, '.json'), id);
      });

      it('has wires that lead somewhere, and nothing that hangs loose', () => {
        const targets = new Set<string>();
        for (const { id, wires = [] } of nodes) {
          for (const target of wires.flat()) {
            assert.ok(byId.has(target), `${id} is wired to ${target}`);
            targets.add(target);
          }
        }
        for (const node of onCanvas) {
          const inputs = definitions.get(node.type)?.inputs ?? 0;
          if (inputs > 0) assert.ok(targets.has(node.id), `nothing comes to ${node.type} ${node.id}`);
        }
      });

      it('has as many outputs as each node type', () => {
        for (const node of onCanvas) {
          const outputs = definitions.get(node.type)?.outputs;
          if (outputs !== undefined) assert.equal(node.wires?.length, outputs, `${node.type} ${node.id}`);
        }
      });

      it('gives each of our nodes only properties that its dialog has, none from an older version', () => {
        for (const node of nodes) {
          const definition = definitions.get(node.type);
          if (!definition) continue;
          const own = Object.keys(node).filter((key) => !COMMON.includes(key));
          const known = Object.entries(definition.defaults).filter(
            ([, { value, type }]) => type || value !== undefined,
          );
          const unknown = own.filter((key) => !known.some(([name]) => name === key));
          assert.deepEqual(unknown, [], `${node.type} ${node.id}`);
        }
      });

      it('names configuration nodes that are in it, of the right type', () => {
        for (const node of nodes) {
          for (const [property, { type }] of Object.entries(definitions.get(node.type)?.defaults ?? {})) {
            if (type) assert.equal(byId.get(String(node[property]))?.type, type, `${node.type}.${property}`);
          }
        }
      });

      it('catches what goes wrong in every node, but not in those that tell of it', () => {
        for (const { id, scope } of nodes.filter(({ type }) => type === 'catch')) {
          const telling = new Set([id]);
          for (const teller of telling) {
            // What draws begins anew, with a message of its own.
            const next = byId
              .get(teller)!
              .wires!.flat()
              .filter((to) => !definitions.has(byId.get(to)!.type));
            for (const to of next) telling.add(to);
          }
          const expected = onCanvas.filter((node) => !telling.has(node.id) && !UNCAUGHT.includes(node.type));
          const named = (scope as string[] | null) ?? [];
          assert.ok(named.length > 0, 'it names the nodes whose errors it takes');
          for (const node of expected) assert.ok(named.includes(node.id), `${node.type} ${node.name ?? node.id}`);
          for (const name of named) assert.ok(!telling.has(name), `its own ${byId.get(name)?.type}`);
        }
      });

      it('keeps nothing that lives with the process in a context store', () => {
        for (const { type, name, initialize, func, finalize } of nodes) {
          if (type !== 'function') continue;
          // Without a callback a store that is not in memory refuses.
          const code = [initialize, func, finalize].join('\n');
          assert.doesNotMatch(code, /\b(flow|global|context)\.(get|set|keys)\([^()]*\)/, String(name));
        }
      });

      it('keeps clear of the left edge', () => {
        for (const { type, x, name, topic, url } of onCanvas) {
          const label = String(name || topic || url || type);
          assert.ok(Number(x) - (50 + 7 * label.length) / 2 >= 10, `${type} ${label}`); // as wide as the editor draws it, about
        }
      });

      it('lies on the grid, with room for every node', () => {
        for (const node of onCanvas) {
          assert.equal(Number(node.y) % GRID, 0, `${node.type} ${node.id}`);
          for (const other of onCanvas) {
            if (other === node || other.y !== node.y) continue;
            assert.ok(Math.abs(Number(other.x) - Number(node.x)) >= 120, `${node.type} and ${other.type} overlap`);
          }
        }
      });
    });
  }
});
