/** axe-core on all that the package shows in the editor, light and dark, and what a press and a key leave behind. */
import assert from 'node:assert/strict';
import type { Browser } from 'playwright-core';
import { loadDefinition, newNode, TYPES } from '../unit/support/editor';
import { assertAccessible } from './support/axe';
import { Editor, launchBrowser, type FlowNode } from './support/editor';
import { startNodeRed, VERSIONS, type NodeRed } from './support/node-red';

/** A picture by compose, and one of every other node beside it. */
function flow(): FlowNode[] {
  const chain = ['compose', 'text-encode', 'multidiffusion-sampler', 'vae-decode', 'save-image'];
  const others = TYPES.filter((type) => type !== 'diffusion-model' && !chain.includes(type));
  const outputs = (type: string): string[][] =>
    Array.from({ length: (loadDefinition(type) as unknown as { outputs: number }).outputs }, () => []);
  const values: Record<string, object> = {
    compose: { prompt: 'a living room', regions: [{ prompt: 'a red sofa', box: [0.3, 0.5, 0.5, 0.4] }] },
    'multidiffusion-sampler': { steps: 8 },
  };
  const nodes = [...chain, ...others].map((type, i) => {
    const wires = outputs(type);
    const next = chain[chain.indexOf(type) + 1];
    if (chain.includes(type) && next) wires[0] = [next];
    const place = { z: 'tab', x: 160 + 180 * (i % 4), y: 120 + 60 * Math.floor(i / 4), wires };
    const model = 'model' in loadDefinition(type).defaults && { model: 'model' };
    return {
      ...newNode(type, loadDefinition(type)),
      _: undefined,
      ...model,
      ...values[type],
      ...place,
      id: type,
      type,
    };
  });
  const model = { ...newNode('diffusion-model', loadDefinition('diffusion-model')), _: undefined };
  return [
    { id: 'tab', type: 'tab', label: 'All nodes' },
    { ...model, id: 'model', type: 'diffusion-model' },
    { id: 'draw', type: 'inject', props: [], repeat: '', once: false, z: 'tab', x: 160, y: 60, wires: [['compose']] },
    ...nodes,
  ];
}

for (const version of VERSIONS) {
  const short = version.name.replace(/\W+/g, '-').toLowerCase();

  describe(`axe in ${version.name}`, function () {
    this.timeout(180_000);
    let browser: Browser;
    let nodeRed: NodeRed;

    before(async () => {
      [browser, nodeRed] = await Promise.all([launchBrowser(), startNodeRed(version)]);
      const editor = await Editor.open(browser, nodeRed.url);
      await editor.load(flow());
      await editor.close();
    });
    after(async () => {
      await browser?.close();
      await nodeRed?.stop();
    });

    for (const dark of version.name === 'Node-RED 5' ? [false, true] : [false]) {
      describe(dark ? 'in the dark' : 'in the light', () => {
        let editor: Editor;
        before(async () => {
          editor = await Editor.open(browser, nodeRed.url, { dark });
          await editor.page.locator('[id="compose"]').waitFor();
        });
        after(() => editor?.close());
        afterEach(() => assert.deepEqual(editor.errors.splice(0), [], 'the page reports no errors'));

        for (const type of TYPES) {
          it(`finds nothing serious in the dialog of ${type}`, async () => {
            const form = await editor.edit(type === 'diffusion-model' ? 'model' : type);
            await form.locator('details').evaluateAll((all) => all.forEach((one) => one.setAttribute('open', '')));
            await editor.screenshot(`${short}-axe-${type}${dark ? '-dark' : ''}`);
            await assertAccessible(editor.page, '.multidiffusion-form');
            await editor.cancel();
          });
        }

        // In the dark they are as wide.
        if (!dark)
          it('cuts no dialog off at its right, however narrow the editor is', async () => {
            const { page } = editor;
            const usual = page.viewportSize()!;
            try {
              for (const width of [1024, 820])
                for (const type of TYPES) {
                  await page.setViewportSize({ width, height: 900 });
                  await editor.edit(type === 'diffusion-model' ? 'model' : type);
                  const [body, tray] = await page.locator('.red-ui-tray-body, .red-ui-tray').evaluateAll((all) =>
                    ['.red-ui-tray-body', '.red-ui-tray'].map(
                      (kind) =>
                        all
                          .filter((one) => one.matches(kind))
                          .at(-1)!
                          .getBoundingClientRect().right,
                    ),
                  );
                  assert.ok(body <= tray + 1, `${type} at ${width} px is cut off by ${body - tray} px`);
                  await editor.cancel();
                }
            } finally {
              await page.setViewportSize(usual);
            }
          });

        it('finds nothing serious in the panel, with a job and a picture, and in the picture', async () => {
          const { page } = editor;
          await page.evaluate(() => RED.sidebar.show('multidiffusion'));
          await page.locator('[id="draw"] .red-ui-flow-node-button-button').click();
          await page.locator('.multidiffusion-job').first().waitFor();
          await assertAccessible(page, '.multidiffusion-panel', 'a job');
          await page.locator('.multidiffusion-thumbnail img[src]').first().waitFor({ timeout: 60_000 });
          await assertAccessible(page, '.multidiffusion-panel', 'a picture');
          await page.locator('.multidiffusion-thumbnail button').first().click();
          await page.locator('dialog.multidiffusion-picture dd').first().waitFor();
          await editor.screenshot(`${short}-axe-picture${dark ? '-dark' : ''}`);
          await assertAccessible(page, 'dialog.multidiffusion-picture');
          await page.keyboard.press('Escape');
        });

        it('leaves no ring after a press, and one where a key leads to', async () => {
          const { page } = editor;
          await editor.edit('compose');
          const outline = (selector: string): Promise<string> =>
            page.locator(selector).evaluate((element) => getComputedStyle(element).outlineStyle);
          for (const [pressed, next] of [
            ['.multidiffusion-tools [aria-checked="true"]', '[aria-checked="true"]'],
            ['.multidiffusion-number', '.multidiffusion-number'],
          ]) {
            await page.locator(pressed).first().click();
            assert.equal(await outline(`${next}:focus`), 'none', pressed);
          }
          await page.keyboard.press('Tab');
          assert.equal(await outline('.multidiffusion-composer :focus'), 'solid');
          await editor.cancel();
        });
      });
    }
  });
}
