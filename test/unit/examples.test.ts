/** The example flows as files; test/flows runs them. */
import assert from 'node:assert/strict';
import { readDefinitions, readExamples, readNodeHtml } from './support/package';

const NUMBERED = /^(\d\d)-[a-z0-9-]+\.json$/;
/** What every node in the editor's export has beside its own properties. */
const COMMON = ['id', 'type', 'z', 'x', 'y', 'wires', 'd', 'g', 'l', 'info'];
const GRID = 20;

describe('examples', () => {
  const examples = readExamples();
  const definitions = new Map(Object.values(readNodeHtml()).flatMap((html) => readDefinitions(html).map((definition) => [definition.type, definition])));

  it('are numbered from 01 on', () => {
    assert.ok(examples.length >= 7);
    assert.deepEqual(
      examples.map(({ file }) => Number(NUMBERED.exec(file)?.[1])),
      examples.map((_, i) => i + 1),
    );
  });

  it('have ids that are unique over all of them, so that all can be imported together', () => {
    const ids = examples.flatMap(({ nodes }) => nodes.map(({ id }) => id));
    assert.equal(new Set(ids).size, ids.length);
    for (const id of ids) assert.match(id, /^[0-9a-f]{16}$/);
  });

  for (const { file, nodes } of examples) {
    describe(file, () => {
      const tab = nodes.find(({ type }) => type === 'tab');
      const onCanvas = nodes.filter((node) => 'z' in node);
      const byId = new Map(nodes.map((node) => [node.id, node]));

      it('is one tab with a comment that explains it', () => {
        assert.equal(nodes.filter(({ type }) => type === 'tab').length, 1);
        assert.ok(onCanvas.every(({ z }) => z === tab?.id));
        const comment = nodes.find(({ type }) => type === 'comment');
        assert.ok(String(comment?.name).length > 5);
        assert.ok(String(comment?.info).length > 100);
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

      it('gives each of our nodes exactly the properties that its dialog has', () => {
        for (const node of nodes) {
          const definition = definitions.get(node.type);
          if (!definition) continue;
          const own = Object.keys(node).filter((key) => !COMMON.includes(key));
          assert.deepEqual(own.sort(), Object.keys(definition.defaults).sort(), `${node.type} ${node.id}`);
        }
      });

      it('names configuration nodes that are in it, of the right type', () => {
        for (const node of nodes) {
          for (const [property, { type }] of Object.entries(definitions.get(node.type)?.defaults ?? {})) {
            if (type) assert.equal(byId.get(String(node[property]))?.type, type, `${node.type}.${property}`);
          }
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
