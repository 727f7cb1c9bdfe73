/** The dialog of diffusion-model in a real browser: choosing a repository, checking it, its token. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import type { Browser, Route } from 'playwright-core';
import { HubServer, REPOSITORY } from '../unit/support/hub-server';
import { Editor, launchBrowser } from './support/editor';
import { ROOT, startNodeRed, VERSIONS, type NodeRed } from './support/node-red';

for (const version of VERSIONS) {
  describe(`the diffusion-model in the editor of ${version.name}`, function () {
    this.timeout(120_000);
    let hub: HubServer;
    let nodeRed: NodeRed;
    let browser: Browser;
    let editor: Editor;

    before(async () => {
      hub = await HubServer.start(path.join(ROOT, 'test/fixtures/golden/checkpoints/tiny-lcm'));
      hub.token = 'hf_right';
      process.env.HF_ENDPOINT = hub.url;
      nodeRed = await startNodeRed(version);
      browser = await launchBrowser();
      editor = await Editor.open(browser, nodeRed.url);
      await editor.load([
        { id: 'tab', type: 'tab', label: 'Model' },
        { id: 'model', type: 'diffusion-model', checkpoint: 'pocket', provider: 'cpu', threads: 1 },
        {
          id: 'encode',
          type: 'text-encode',
          model: 'model',
          prompt: 'a sofa',
          z: 'tab',
          x: 200,
          y: 80,
          wires: [['sofa']],
        },
        {
          id: 'sofa',
          type: 'region-mask',
          shape: 'box',
          box: [0.3, 0.5, 1, 2],
          z: 'tab',
          x: 400,
          y: 80,
          wires: [['sampler']],
        },
        { id: 'sampler', type: 'multidiffusion-sampler', model: 'model', z: 'tab', x: 600, y: 80, wires: [] },
      ]);
    });
    after(async () => {
      delete process.env.HF_ENDPOINT;
      await browser?.close();
      await nodeRed?.stop();
      await hub?.stop();
    });

    it('fills in a repository that is known', async () => {
      const form = await editor.edit('model');
      const repository = form.locator('#node-config-input-repository');
      assert.equal(await repository.isVisible(), false);
      await form.locator('#node-config-input-checkpoint').selectOption('hub');
      assert.equal(await repository.isVisible(), true);
      const known = form.locator('#multidiffusion-known');
      const lines = await known.locator('option').allInnerTexts();
      assert.ok(
        lines.length > 5 && lines.slice(1).every((line) => /about [\d.–]+ GB · .+/.test(line)),
        lines.join('\n'),
      );
      await known.selectOption('1');
      assert.equal(await repository.inputValue(), 'aislamov/stable-diffusion-2-1-base-onnx');
      assert.equal(await form.locator('#node-config-input-revision').inputValue(), 'cpu');
      await repository.fill('somebody/else');
      assert.equal(await known.inputValue(), '');
      await editor.cancel();
    });

    it('gives a check up, also while it asks how far that is', async () => {
      const form = await editor.edit('model');
      const questions = /\/checks\/.+/;
      const asked = new Promise<Route>(
        (resolve) =>
          void editor.page.route(questions, (route) =>
            route.request().method() === 'GET' ? resolve(route) : route.continue(),
          ),
      );
      await form.locator('#multidiffusion-check').click();
      const question = await asked;
      const given = editor.page.waitForResponse((response) => response.request().method() === 'DELETE');
      await form.locator('#multidiffusion-check-cancel').click();
      await given;
      await question.continue().catch(() => {});
      await editor.page.unroute(questions);
      assert.equal(await form.locator('#multidiffusion-check-result').innerText(), '');
      await editor.cancel();
      assert.deepEqual(editor.errors, []);
    });

    it('checks what the dialog says, before it is deployed', async () => {
      const form = await editor.edit('model');
      const field = (name: string) => form.locator(`#node-config-input-${name}`);
      await field('checkpoint').selectOption('hub');
      await field('repository').fill(REPOSITORY);
      const result = form.locator('#multidiffusion-check-result');
      const check = async (until: RegExp): Promise<string> => {
        await form.locator('#multidiffusion-check').click();
        await result.filter({ hasText: until }).waitFor({ timeout: 60_000 });
        return result.innerText();
      };
      assert.match(await check(/private/), /enter an access token/);
      await field('token').fill('hf_right');
      const report = await check(/Disk:/);
      for (const line of [
        /some-owner\/tiny\.sd2@0123456: latent diffusion/,
        /denoiser float32/,
        /Runs on cpu: \d+ ms/,
        /any text of up to 77 tokens/,
        /Memory: \d+ MB/,
        /Disk: \d+ MB in .*models/,
      ])
        assert.match(report, line);
      await editor.screenshot(`${version.name.replace(/\W+/g, '-').toLowerCase()}-model-check`);
      await editor.done();
      await editor.deploy();
      assert.equal((await editor.node<{ repository: string }>('model')).repository, REPOSITORY);
      assert.doesNotMatch(fs.readFileSync(path.join(nodeRed.userDir, 'flows.json'), 'utf8'), /hf_right/);

      // A stored token is not shown, and is used.
      const again = await editor.edit('model');
      assert.equal(await again.locator('#node-config-input-token').inputValue(), '__PWRD__');
      fs.rmSync(path.join(nodeRed.userDir, 'multidiffusion/models'), { recursive: true });
      await check(/Disk:/);
      await editor.cancel();
      assert.doesNotMatch(nodeRed.log(), /hf_right/);
      assert.deepEqual(editor.errors, []);
    });

    it('a region’s canvas has the size and the cells of the model, once it is there', async () => {
      const sizeOf = async (wanted: { width: number; height: number; cell: number }): Promise<void> => {
        await editor.edit('sofa');
        await editor.page.waitForFunction((expected) => {
          const { width, height, cell } = RED.nodes.node('sofa').regionDialog.composer.size;
          return JSON.stringify({ width, height, cell }) === expected;
        }, JSON.stringify(wanted));
        const text = await editor.page.locator('.multidiffusion-size').innerText();
        assert.equal(text, `${wanted.width} × ${wanted.height} px`);
        await editor.cancel();
      };
      // The repository of the deployed flow: 16 cells of 8 pixels. The bundled model has cells of 4.
      await sizeOf({ width: 128, height: 128, cell: 8 });
      // It reaches over the edge, and nobody has moved it.
      await editor.edit('sofa');
      await editor.done();
      assert.deepEqual((await editor.node<{ box: number[] }>('sofa')).box, [0.3, 0.5, 1, 2]);

      await editor.page.evaluate(() => Object.assign(RED.nodes.node('model'), { checkpoint: 'pocket', changed: true }));
      await sizeOf({ width: 128, height: 128, cell: 4 });
      // One that is not downloaded yet: what Stable Diffusion has.
      const other = { checkpoint: 'hub', repository: 'somebody/else', token: '', changed: true };
      await editor.page.evaluate((values) => {
        Object.assign(RED.nodes.node('model'), values);
        RED.nodes.dirty(true);
      }, other);
      await editor.deploy();
      await sizeOf({ width: 512, height: 512, cell: 8 });
      assert.deepEqual(editor.errors, []);
    });
  });
}
