/** A rule that several parts know is one declaration: none of them may come to contradict the others. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { openCheckpoint } from '../../dist/engine';
import { toRecipe } from '../../dist/engine/image/recipe';
import { MAX_POINTS, MAX_REGIONS } from '../../dist/engine/limits';
import { FILE_FIELDS, MODEL_OPTIONS, NODE_OPTIONS, SAMPLER_OPTIONS } from '../../dist/engine/options';
import { findShape } from '../../dist/engine/regions/shapes';
import { readSettings } from '../../dist/nodes/shared/settings';
import { optionsPage } from '../../scripts/document-options.js';
import { LANGUAGES, lookUp, readCatalogue, ROOT } from './support/editor';

const read = (file: string): string => fs.readFileSync(path.join(ROOT, file), 'utf8');
const settings = (multidiffusion: object) => readSettings({ settings: { userDir: '/data', multidiffusion } } as never);

describe('declared once', () => {
  it('as many regions are allowed in settings.js as the engine takes and a recipe keeps', () => {
    assert.equal(settings({ maxRegions: MAX_REGIONS }).limits.maxRegions, MAX_REGIONS);
    assert.throws(() => settings({ maxRegions: MAX_REGIONS + 1 }), new RegExp(`from 1 to ${MAX_REGIONS}`));
    const regions = Array.from({ length: MAX_REGIONS + 1 }, () => ({ prompt: 'a tree', box: [0, 0, 1, 1] }));
    assert.equal(toRecipe({ regions })!.regions!.length, MAX_REGIONS);
  });

  it('a polygon has as many corners in a recipe as a region may have', () => {
    const polygon = Array.from({ length: MAX_POINTS }, (_, i) => {
      const angle = (2 * Math.PI * i) / MAX_POINTS;
      return [0.5 + 0.4 * Math.cos(angle), 0.5 + 0.4 * Math.sin(angle)];
    });
    assert.ok(findShape({ polygon }));
    assert.ok(toRecipe({ regions: [{ prompt: 'a ring', polygon }] })!.regions![0].polygon);
    assert.throws(() => findShape({ polygon: [...polygon, [0.5, 0.5]] }), new RegExp(`3 to ${MAX_POINTS} points`));
  });

  it('as many steps are allowed in settings.js as the sampler has', () => {
    assert.equal(settings({}).limits.maxSteps, SAMPLER_OPTIONS.steps.max);
    assert.throws(() => settings({ maxSteps: SAMPLER_OPTIONS.steps.max + 1 }), /maxSteps/);
  });

  it('the engine refuses what a diffusion-model refuses', async () => {
    for (const [name, value] of Object.entries({
      provider: 'abacus',
      threads: MODEL_OPTIONS.threads.max + 1,
      batchSize: MODEL_OPTIONS.batchSize.max + 1,
      memoryBudget: MODEL_OPTIONS.memoryBudget.min - 1,
    }))
      await assert.rejects(openCheckpoint('/nowhere', { [name]: value } as never), new RegExp(`${name} is`), name);
  });

  it('the contract lists every error and every finding, and no others', () => {
    const contract = read('docs/messages.md');
    for (const [file, pattern, heading] of [
      ['engine/errors.ts', /export type ErrorCode =([^;]*);/, 'Errors'],
      ['engine/types.ts', /export interface Finding \{([^;]*);/, 'Findings'],
    ] as const) {
      const codes = [...pattern.exec(read(file))![1].matchAll(/\| '([A-Z_]+)'/g)].map(([, code]) => code);
      const section = contract.split(`\n## ${heading}\n`)[1].split('\n## ')[0];
      const listed = [...section.matchAll(/^\| (`.*`) \|/gm)].flatMap(([, row]) => row.match(/[A-Z_]{3,}/g) ?? []);
      assert.ok(codes.length > 10, heading);
      assert.deepEqual(listed.sort(), codes.sort(), heading);
    }
  });

  it('a file name has the fields that the form and the contract list', () => {
    const listed = (text: string): string[] => [...text.matchAll(/\{([a-z]+)\}/g)].map(([, name]) => name).sort();
    const expected = [...FILE_FIELDS].sort();
    for (const language of LANGUAGES) {
      const hint = String(lookUp(readCatalogue(language, 'save-image'), 'save-image.hint.filename'));
      assert.deepEqual(listed(hint), expected, language);
    }
    const contract = /^File names may hold .*$/m.exec(read('docs/messages.md'))![0];
    assert.deepEqual(listed(contract), expected);
    assert.deepEqual(NODE_OPTIONS['save-image'].filename.type, 'text');
  });

  it('docs/options.md is what npm run docs writes', () => {
    assert.equal(read('docs/options.md'), optionsPage(), 'run npm run docs');
  });

  it('settings.js in the contract is what the program has without it', () => {
    const block = /^multidiffusion: (\{[^]*?^\})/m.exec(read('docs/messages.md'))![1];
    const documented = new Function(`return ${block}`)() as Record<string, unknown>;
    assert.ok(Object.keys(documented).length > 10);
    const own = settings({});
    assert.deepEqual(settings(documented), {
      ...own,
      imageDirectory: path.resolve(String(documented.imageDirectory)),
      maskDirectory: path.resolve(String(documented.maskDirectory)),
    });
    const limits = Object.keys(own.limits);
    const others = [
      'queueLimit',
      'queueOverflow',
      'maxJobsPerClient',
      'maxWaitingMessages',
      'jobTimeout',
      'requestTimeout',
    ];
    for (const name of [...limits, ...others]) assert.ok(name in documented, `${name} is not in docs/messages.md`);
  });
});
