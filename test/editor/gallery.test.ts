/** The panel with jobs and pictures, and the pictures under nodes, in a real browser. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import type { Browser } from 'playwright-core';
import { loadDefinition, newNode, TYPES as OURS } from '../unit/support/editor';
import { Editor, launchBrowser, type FlowNode } from './support/editor';
import { ROOT, startNodeRed, VERSIONS, type NodeRed } from './support/node-red';

/** From a prompt to a file. */
function flow(): FlowNode[] {
  const pocket = fs.existsSync(path.join(ROOT, 'models/pocket/model_index.json'));
  const model = pocket
    ? { checkpoint: 'pocket' }
    : { checkpoint: 'folder', folder: path.join(ROOT, 'test/fixtures/golden/checkpoints/tiny-sd2') };
  const nodes: FlowNode[] = [
    { id: 'tab', type: 'tab', label: 'Previews' },
    { id: 'model', type: 'diffusion-model', provider: 'cpu', threads: 1, ...model },
    {
      id: 'draw',
      type: 'inject',
      name: 'draw',
      props: [],
      repeat: '',
      once: false,
      z: 'tab',
      x: 120,
      y: 80,
      wires: [['room']],
    },
    {
      id: 'room',
      type: 'text-encode',
      model: 'model',
      prompt: 'a living room',
      z: 'tab',
      x: 320,
      y: 80,
      wires: [['sampler']],
    },
    {
      id: 'sampler',
      type: 'multidiffusion-sampler',
      name: 'my sampler',
      model: 'model',
      width: 128,
      height: 128,
      steps: 40,
      z: 'tab',
      x: 540,
      y: 80,
      wires: [['decode'], [], [], []],
    },
    { id: 'decode', type: 'vae-decode', model: 'model', z: 'tab', x: 320, y: 320, wires: [['save']] },
    { id: 'save', type: 'save-image', filename: '{counter}', z: 'tab', x: 540, y: 320, wires: [[]] },
  ];
  return nodes.map((node) =>
    (OURS as readonly string[]).includes(node.type)
      ? { ...newNode(node.type, loadDefinition(node.type)), _: undefined, ...node }
      : node,
  );
}

for (const version of VERSIONS) {
  describe(`the gallery in ${version.name}`, function () {
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

    const draw = (): Promise<void> => editor.page.locator('[id="draw"] .red-ui-flow-node-button-button').click();
    const under = (id: string) => editor.page.locator(`[id="${id}"] .multidiffusion-under`);

    it('shows itself at the first job, each job with its progress and what it begins to look like', async () => {
      const { page } = editor;
      await editor.load(flow());
      const panel = page.locator('.multidiffusion-panel');
      // A job may be over before a locator has looked: the page itself notes what its bar and its picture have shown.
      await panel.evaluate((element) => {
        const seen = new Set<string>();
        Object.assign(window, { seenInPanel: seen });
        new MutationObserver(() => {
          element
            .querySelectorAll('progress')
            .forEach((bar) => seen.add(`step ${bar.getAttribute('value')} of ${bar.getAttribute('max')}`));
          element
            .querySelectorAll('.multidiffusion-job img[src]')
            .forEach((image) => seen.add(image.getAttribute('src')!));
        }).observe(element, { subtree: true, childList: true, attributes: true });
      });
      await draw();
      await panel.waitFor({ state: 'visible' });
      await panel.locator('.multidiffusion-thumbnail img[src]').waitFor({ timeout: 60_000 });
      const seen = await page.evaluate(() => [...(window as unknown as { seenInPanel: Set<string> }).seenInPanel]);
      assert.ok(
        seen.some((text) => /^step ([1-9]|[123]\d) of 40$/.test(text)),
        `the bar moved: ${seen.filter((text) => text.startsWith('step')).join(', ')}`,
      );
      assert.ok(
        seen.some((text) => text.startsWith('blob:')),
        'the picture could be seen while it came about',
      );
      assert.equal(await panel.locator('.multidiffusion-job').count(), 0, 'what is done is a picture');
      assert.equal(await panel.locator('.multidiffusion-thumbnail').count(), 1, 'decoded and saved it is one picture');
    });

    it('shows the last picture under the nodes that made it, until a button hides it', async () => {
      const { page } = editor;
      for (const id of ['decode', 'save']) await under(id).locator('image').waitFor({ timeout: 20_000 });
      assert.equal(await under('sampler').count(), 0, 'a preview goes when the picture is there');
      const size = await under('save').locator('image').boundingBox();
      assert.equal(Math.round(size!.width), 128);
      await editor.screenshot(`${version.name.replace(/\W+/g, '-').toLowerCase()}-gallery`);

      await under('save').locator('.multidiffusion-eye').click();
      await under('save').locator('image').waitFor({ state: 'detached', timeout: 10_000 });
      assert.equal((await editor.node<{ showPicture: boolean }>('save')).showPicture, false);
      assert.equal(await page.evaluate(() => RED.nodes.dirty()), true, 'it is a change that is deployed');
      await page.evaluate(() => RED.history.pop());
      assert.equal((await editor.node<{ showPicture: boolean }>('save')).showPicture, true);
      await page.evaluate(() => RED.view.redraw(true));
      await under('save').locator('image').waitFor();
    });

    it('keeps the pictures when the workspace changes and when the editor is loaded again', async () => {
      const { page } = editor;
      await page.evaluate(() => {
        RED.workspaces.add({ id: 'other', type: 'tab', label: 'other', disabled: false, info: '', env: [] });
        RED.workspaces.show('other');
      });
      await under('save').waitFor({ state: 'detached' });
      await page.evaluate(() => RED.workspaces.show('tab'));
      await under('save').locator('image').waitFor();

      const second = await Editor.open(browser, nodeRed.url);
      await second.page.evaluate(() => RED.workspaces.show('tab'));
      await second.page.locator('[id="save"] .multidiffusion-under image').waitFor({ timeout: 20_000 });
      await second.page.evaluate(() => RED.actions.invoke('multidiffusion:show-progress'));
      await second.page.locator('.multidiffusion-thumbnail img[src]').waitFor({ timeout: 20_000 });
      assert.deepEqual(second.errors, []);
      await second.close();
    });

    it('enlarges a picture, with what made it; its seed can be used again', async () => {
      const { page } = editor;
      await page.locator('.multidiffusion-thumbnail button').first().click();
      const dialog = page.locator('dialog.multidiffusion-picture');
      await dialog.locator('dd').first().waitFor();
      assert.match(await dialog.innerText(), /Prompt\s+a living room[^]*Seed\s+\d+[^]*Steps\s+40/);
      const width = await dialog.locator('img').evaluate((image) => (image as HTMLImageElement).naturalWidth);
      assert.equal(width, 128);
      await editor.screenshot(`${version.name.replace(/\W+/g, '-').toLowerCase()}-picture`);
      const [download] = await Promise.all([
        page.waitForEvent('download'),
        dialog.getByRole('button', { name: 'Download' }).click(),
      ]);
      assert.match(download.suggestedFilename(), /\.png$/);
      await dialog.getByRole('button', { name: 'Use this seed' }).click();
      await dialog.waitFor({ state: 'detached' });
      const { seed, seedType } = await editor.node<{ seed: string; seedType: string }>('sampler');
      assert.equal(seedType, 'num');
      assert.match(seed, /^\d+$/);
      await page.locator('.multidiffusion-thumbnail button').first().click();
      await dialog.waitFor();
      await page.keyboard.press('Escape');
      await dialog.waitFor({ state: 'detached' });
    });

    it('opens its layout in a compose node, and stands behind the regions', async () => {
      const { page } = editor;
      await page.locator('.multidiffusion-thumbnail button').first().click();
      const dialog = page.locator('dialog.multidiffusion-picture');
      await dialog.getByRole('button', { name: 'Open in compose' }).click();
      await page.locator('#multidiffusion-compose-form').waitFor({ timeout: 20_000 });
      await page.waitForFunction(() =>
        Array.from(
          document.querySelectorAll<HTMLTextAreaElement>(
            '#multidiffusion-compose textarea, #multidiffusion-compose input',
          ),
        ).some(({ value }) => value === 'a living room'),
      );
      await editor.done();
      const composed = await page.evaluate(() =>
        RED.nodes.filterNodes({ type: 'compose' }).map(({ prompt }: { prompt: string }) => prompt),
      );
      assert.deepEqual(composed, ['a living room']);

      await page.locator('.multidiffusion-thumbnail button').first().click();
      await dialog.getByRole('button', { name: 'Use as backdrop' }).click();
      await page.waitForFunction(
        () =>
          (globalThis as unknown as { MultiDiffusionCompose: { pictures: Map<string, unknown> } }).MultiDiffusionCompose
            .pictures.size === 1,
      );
      await page.evaluate(() => RED.nodes.remove(RED.nodes.filterNodes({ type: 'compose' })[0].id));
    });

    it('cancels a job, and leaves nothing of it on the workspace', async () => {
      const { page } = editor;
      await page.evaluate(() => {
        RED.nodes.node('sampler').steps = 900;
      });
      await editor.deploy();
      await page.waitForFunction(() => !document.querySelector('.multidiffusion-under'));
      await draw();
      await under('sampler').locator('image').waitFor({ timeout: 60_000 });
      await page.locator('.multidiffusion-job').getByRole('button', { name: 'Cancel' }).click();
      await page.locator('.multidiffusion-job-cancelled').waitFor({ timeout: 20_000 });
      assert.equal(await under('sampler').count(), 0);
      assert.equal(await page.locator('.multidiffusion-job progress').count(), 0);
      assert.deepEqual(editor.errors, []);
    });

    it('leaves no preview that is ready only when its job has ended', async () => {
      await editor.page.evaluate(async () => {
        const { MultiDiffusionPictures: pictures } = globalThis as unknown as {
          MultiDiffusionPictures: {
            show: (place: object, blob: Blob, options?: object) => Promise<void>;
            clear: (place: object) => void;
          };
        };
        const canvas = Object.assign(document.createElement('canvas'), { width: 4, height: 4 });
        const preview = await new Promise<Blob>((resolve) => canvas.toBlob((made) => resolve(made!)));
        const showing = pictures.show({ node: 'sampler' }, preview, { live: true });
        pictures.clear({ node: 'sampler' });
        await showing;
      });
      assert.equal(await under('sampler').count(), 0);
    });

    it('shows itself once the editor has loaded, with news of a job before', async () => {
      const page = await (await browser.newContext()).newPage();
      const news = new Promise<void>((resolve) =>
        page.on('websocket', (socket) =>
          socket.on('framereceived', ({ payload }) => {
            if (String(payload).includes('multidiffusion/job')) resolve();
          }),
        ),
      );
      await page.route(/\/flows(\?|$)/, async (route) => {
        await news;
        await route.continue();
      });
      await draw();
      await page.goto(nodeRed.url);
      await page.waitForSelector('.red-ui-palette-node[data-palette-type="save-image"]', { timeout: 60_000 });
      await page.waitForSelector('#red-ui-loading-progress', { state: 'hidden', timeout: 60_000 });
      await page.locator('.multidiffusion-panel').waitFor({ state: 'visible' });
      await page.locator('.multidiffusion-job').getByRole('button', { name: 'Cancel' }).click();
      await page.locator('.multidiffusion-job-cancelled').waitFor({ timeout: 20_000 });
      await page.context().close();
    });

    it('shows no words as markup', async () => {
      const { page } = editor;
      const prompt = '<img src=x onerror="window.hacked = 1"> a room';
      await page.evaluate((words) => {
        RED.nodes.node('sampler').steps = 2;
        RED.nodes.node('room').prompt = words;
        RED.nodes.node('save').name = '<b onclick="1">save</b>';
      }, prompt);
      await editor.deploy();
      const before = await page.locator('.multidiffusion-thumbnail').count();
      await draw();
      await page.waitForFunction(
        (count) => document.querySelectorAll('.multidiffusion-thumbnail').length > count,
        before,
      );
      await page.locator('.multidiffusion-thumbnail button').first().click();
      const dialog = page.locator('dialog.multidiffusion-picture');
      await dialog.locator('dd').first().waitFor();
      assert.ok((await dialog.innerText()).includes(prompt));
      assert.equal(await dialog.locator('b').count(), 0);
      assert.equal(await page.evaluate(() => 'hacked' in window), false);
    });
  });
}
