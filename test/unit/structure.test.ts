/** How the house is built: which folder may import which, and that nothing turns in a circle. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import ts from 'typescript';
import { root } from './support/package';

/** From the roof to the ground: a folder imports folders below its own floor only. Folders on one floor don't know each other. */
const FLOORS: string[][] = [
  ['nodes/*'],
  ['nodes/shared'],
  ['engine/index'],
  ['engine/pool'],
  ['engine/multidiffusion', 'engine/checkpoint'],
  ['engine/regions', 'engine/image', 'engine/hub', 'engine/inference/process'],
  ['engine/inference', 'engine/queue'],
  ['engine/model'],
  ['engine/schedulers', 'engine/onnx', 'engine/files'],
  ['engine'], // options, types, tensor, noise, errors, cpu
];

interface Import {
  from: string;
  to: string;
  /** Whether only types are taken, which vanish when the code is compiled. */
  types: boolean;
}

describe('structure', () => {
  const imports = readImports();

  it('every folder has its floor', () => {
    const rooms = new Set([...imports.files].map(roomOf));
    for (const room of rooms) assert.ok(floorOf(room) >= 0, `${room} stands on no floor`);
    const empty = FLOORS.flat().filter((room) => room !== 'nodes/*' && !rooms.has(room));
    assert.deepEqual(empty, []);
  });

  it('no folder imports one above it, or beside it', () => {
    const up = imports.local.filter(({ from, to }) => {
      const [room, other] = [roomOf(from), roomOf(to)];
      return room !== other && floorOf(other) <= floorOf(room);
    });
    assert.deepEqual(up.map(show), []);
  });

  it('no file imports itself by way of others', () => {
    const circles = findCircles(imports.local);
    assert.deepEqual(circles, []);
  });

  it('nothing but the inference process imports ONNX Runtime', () => {
    const others = imports.packages.filter(
      ({ from, to, types }) => to === 'onnxruntime-node' && !types && roomOf(from) !== 'engine/inference/process',
    );
    assert.deepEqual(others.map(show), []);
  });

  it('the engine knows nothing of Node-RED', () => {
    const others = imports.packages.filter(
      ({ from, to }) => from.startsWith('engine/') && /^(node-red|@node-red\/)/.test(to),
    );
    assert.deepEqual(others.map(show), []);
  });
});

/** The folder of a file; the engine's index and its model stand on floors of their own. */
function roomOf(file: string): string {
  const name = file.replace(/\.ts$/, '');
  return FLOORS.some((floor) => floor.includes(name)) ? name : path.posix.dirname(file);
}

function floorOf(room: string): number {
  const name = room.startsWith('nodes/') && room !== 'nodes/shared' ? 'nodes/*' : room;
  return FLOORS.findIndex((floor) => floor.includes(name));
}

function show({ from, to }: Import): string {
  return `${from} → ${to}`;
}

/** What the sources import: import and export declarations, and calls of require and import. */
function readImports(): { files: Set<string>; local: Import[]; packages: Import[] } {
  const files = new Set(
    ['engine', 'nodes'].flatMap((folder) =>
      (fs.readdirSync(path.join(root, folder), { recursive: true }) as string[])
        .filter((file) => file.endsWith('.ts'))
        .map((file) => path.posix.join(folder, file.split(path.sep).join('/'))),
    ),
  );
  const [local, packages]: [Import[], Import[]] = [[], []];
  for (const from of files) {
    const source = ts.createSourceFile(
      from,
      fs.readFileSync(path.join(root, from), 'utf8'),
      ts.ScriptTarget.Latest,
      true,
    );
    const add = (name: string, types: boolean): void => {
      if (!name.startsWith('.')) {
        packages.push({ from, to: name, types });
        return;
      }
      const target = path.posix.join(path.posix.dirname(from), name);
      const to = [`${target}.ts`, `${target}/index.ts`].find((file) => files.has(file));
      if (to) local.push({ from, to, types });
      // Paths lead from dist, one folder deeper, out to the package's own files.
      else assert.match(target, /\.json$|^\.\.\/resources\//, `${from} imports ${name}, which is not there`);
    };
    const visit = (node: ts.Node): void => {
      if (ts.isImportDeclaration(node)) add(text(node.moduleSpecifier), onlyTypes(node.importClause));
      else if (ts.isExportDeclaration(node) && node.moduleSpecifier) add(text(node.moduleSpecifier), node.isTypeOnly);
      else if (ts.isCallExpression(node) && /^(require|import)$/.test(node.expression.getText()))
        add(text(node.arguments[0]), false);
      ts.forEachChild(node, visit);
    };
    visit(source);
  }
  return { files, local, packages };
}

function text(node: ts.Node): string {
  return (node as ts.StringLiteral).text;
}

function onlyTypes(clause: ts.ImportClause | undefined): boolean {
  if (!clause) return false;
  const named = clause.namedBindings;
  const all =
    !clause.name && named !== undefined && ts.isNamedImports(named) && named.elements.every((e) => e.isTypeOnly);
  return clause.isTypeOnly || all;
}

/** One circle for each way back that a walk through the imports finds. */
function findCircles(links: Import[]): string[] {
  const next = new Map<string, string[]>();
  for (const { from, to } of links) next.set(from, [...(next.get(from) ?? []), to]);
  const [done, circles]: [Set<string>, string[]] = [new Set(), []];
  const walk = (file: string, way: string[]): void => {
    if (way.includes(file)) circles.push([...way.slice(way.indexOf(file)), file].join(' → '));
    if (done.has(file) || way.includes(file)) return;
    for (const to of next.get(file) ?? []) walk(to, [...way, file]);
    done.add(file);
  };
  for (const file of next.keys()) walk(file, []);
  return circles;
}
