/** The sidebar panel in a real browser. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import type { Browser } from 'playwright-core';
import { loadDefinition, newNode, TYPES as OURS } from '../unit/support/editor';
import { Editor, launchBrowser, type FlowNode } from './support/editor';
import { ROOT, startNodeRed, VERSIONS, type NodeRed } from './support/node-red';

/** A prompt and a sampler that sends previews. */
function flow(): FlowNode[] {
  const pocket = fs.existsSync(path.join(ROOT, 'models/pocket/model_index.json'));
  const model = pocket ? { checkpoint: 'pocket' } : { checkpoint: 'folder', folder: path.join(ROOT, 'test/fixtures/golden/checkpoints/tiny-sd2') };
  const nodes: FlowNode[] = [
    { id: 'tab', type: 'tab', label: 'Previews' },
    { id: 'model', type: 'diffusion-model', provider: 'cpu', threads: 1, ...model },
    { id: 'draw', type: 'inject', name: 'draw', props: [], repeat: '', once: false, z: 'tab', x: 120, y: 80, wires: [['room']] },
    { id: 'room', type: 'text-encode', model: 'model', prompt: 'a living room', z: 'tab', x: 320, y: 80, wires: [['sampler']] },
    { id: 'sampler', type: 'multidiffusion-sampler', name: 'my sampler', model: 'model', width: 128, height: 128, steps: 40, previewEvery: 5, z: 'tab', x: 540, y: 80, wires: [[], [], [], []] },
  ];
  return nodes.map((node) => ((OURS as readonly string[]).includes(node.type) ? { ...newNode(node.type, loadDefinition(node.type)), _: undefined, ...node } : node));
}

for (const version of VERSIONS) {
  describe(`the panel in ${version.name}`, function () {
    this.timeout(180_000);
    let browser: Browser;
    let nodeRed: NodeRed;
    let editor: Editor;

    before(async () => {
      [browser, nodeRed] = await Promise.all([launchBrowser(), startNodeRed(version)]);
      editor = await Editor.open(browser, nodeRed.url);
    });
    after(async () => {
      await browser?.close();
      await nodeRed?.stop();
    });

    it('shows each job, how far it is, and the picture as it comes about', async () => {
      const { page } = editor;
      await editor.load(flow());
      await page.evaluate(() => RED.actions.invoke('multidiffusion:show-progress'));
      const panel = page.locator('.multidiffusion-panel');
      await panel.locator('p').waitFor({ state: 'visible' });
      assert.match(await panel.innerText(), /appear here/);

      // A job may be over before a locator has looked: the page itself notes what its bar and its picture have shown.
      await panel.evaluate((element) => {
        const seen = new Set<string>();
        Object.assign(window, { seenInPanel: seen });
        new MutationObserver(() => {
          element.querySelectorAll('progress:not([hidden])').forEach((bar) => seen.add(`step ${bar.getAttribute('value')} of ${bar.getAttribute('max')}`));
          element.querySelectorAll('img[src]').forEach((image) => seen.add(image.getAttribute('src')!));
        }).observe(element, { subtree: true, childList: true, attributes: true });
      });
      await page.locator('.red-ui-flow-node-button-button').click();
      const job = panel.locator('.multidiffusion-job');
      await job.locator('img').waitFor({ state: 'visible', timeout: 60_000 });
      await panel.locator('.multidiffusion-job-done').waitFor({ timeout: 60_000 });
      const seen = await page.evaluate(() => [...(window as unknown as { seenInPanel: Set<string> }).seenInPanel]);
      assert.ok(seen.some((text) => /^step ([1-9]|[123]\d) of 40$/.test(text)), `the bar moved: ${seen.filter((text) => text.startsWith('step')).join(', ')}`);
      assert.ok(seen.filter((text) => text.startsWith('data:image/')).length >= 2, 'the picture changed while it came about');
      assert.equal(await panel.locator('p').isVisible(), false);
      assert.equal(await job.locator('progress').isVisible(), false);
      assert.match(await job.innerText(), /my sampler\s+done/);
      const width = await job.locator('img').evaluate((image) => (image as HTMLImageElement).naturalWidth);
      assert.ok(width >= 16, `${width}`);
      await editor.screenshot(`${version.name.replace(/\W+/g, '-').toLowerCase()}-panel`);

      await job.locator('a').click();
      await page.locator('.red-ui-flow-node-button-button').click();
      await page.waitForFunction(() => document.querySelectorAll('.multidiffusion-job').length === 2);
      assert.deepEqual(editor.errors, []);
    });
  });
}
