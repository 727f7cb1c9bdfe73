/** Flows that were saved with 0.1.0, its fifteen examples, still draw what they drew with it. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { readFlow } from '../../scripts/lib/flow.js';
import { startNodeRed, temporaryFolder } from '../../scripts/lib/headless.js';
import { drawExample, type Drawn } from './support/draw';

const flows = path.join(__dirname, '../fixtures/flows-0.1.0');
const recorded = JSON.parse(fs.readFileSync(path.join(flows, 'drawn.json'), 'utf8')) as Record<string, Drawn>;

/** Processors round differently; the latents' values go up to about 40. */
const LATENTS_TOLERANCE = 0.02;
const PICTURE_TOLERANCE = 0.5;

describe('flows of 0.1.0', function () {
  this.timeout(120_000);
  let nodeRed: Awaited<ReturnType<typeof startNodeRed>>;

  before(async () => {
    nodeRed = await startNodeRed({ images: temporaryFolder(), onLog: () => {} });
  });
  after(() => nodeRed.stop());

  it('are all fifteen', () => assert.equal(Object.keys(recorded).length, 15));

  for (const [file, expected] of Object.entries(recorded)) {
    it(`${file} draws the same latents and picture`, async () => {
      const { latents, picture } = await drawExample(nodeRed, readFlow(path.join(flows, file)));
      const facts = (drawn: Drawn['latents']): unknown => drawn.map(({ sampler, dims }) => ({ sampler, dims }));
      assert.deepEqual(facts(latents), facts(expected.latents));
      latents.forEach(({ means }, i) => near(means, expected.latents[i]!.means, LATENTS_TOLERANCE));
      assert.deepEqual([picture.width, picture.height], [expected.picture.width, expected.picture.height]);
      near(picture.means, expected.picture.means, PICTURE_TOLERANCE);
    });
  }
});

function near(actual: number[], expected: number[], tolerance: number): void {
  assert.equal(actual.length, expected.length);
  const difference = Math.max(...actual.map((value, i) => Math.abs(value - expected[i]!)));
  assert.ok(difference <= tolerance, `differs by ${difference}`);
}
