/** Example 19 with FlowFuse's dashboard: imported in the editor, deployed, and used as its users do. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import type { Browser, Locator, Page } from 'playwright-core';
import { assertAccessible } from './support/axe';
import { Editor, launchBrowser, OUTPUT } from './support/editor';
import { DASHBOARD, startNodeRed, VERSIONS, type NodeRed } from './support/node-red';

for (const version of VERSIONS) {
  const short = version.name.replace(/\W+/g, '-').toLowerCase();

  describe(`the dashboard in ${version.name}`, function () {
    this.timeout(180_000);
    let browser: Browser;
    let nodeRed: NodeRed;
    let page: Page;
    const errors: string[] = [];

    before(async () => {
      nodeRed = await startNodeRed(version, { '@flowfuse/node-red-dashboard': DASHBOARD });
      browser = await launchBrowser();
      const editor = await Editor.open(browser, nodeRed.url);
      await editor.importExample('19-dashboard');
      await editor.deploy();
      await editor.screenshot(`${short}-19-dashboard`);
      assert.deepEqual(editor.errors, []);
      await editor.close();
      page = await browser.newPage({ viewport: { width: 1400, height: 900 } });
      page.on('pageerror', (error) => errors.push(String(error)));
      await page.goto(`${nodeRed.url}/dashboard/draw`);
    });
    after(async () => {
      await browser?.close();
      await nodeRed?.stop();
    });
    afterEach(() => assert.deepEqual(errors.splice(0), [], 'the page reports no errors'));

    const field = (label: string): Locator => page.getByLabel(label);
    const says = (text: RegExp): Promise<void> => page.getByText(text).first().waitFor({ timeout: 30_000 });
    const picture = (): Locator => page.locator('.md-picture');
    const thumbnails = (): Locator => page.locator('.md-gallery img');
    const draw = (): Promise<void> => page.getByRole('button', { name: 'Draw' }).click();
    const screenshot = async (name: string): Promise<void> => {
      fs.mkdirSync(OUTPUT, { recursive: true });
      await page.screenshot({ path: path.join(OUTPUT, `${short}-dashboard-${name}.png`) });
    };

    it('draws what its form says, with progress and preview, and puts it into the gallery', async () => {
      await page.waitForFunction(() =>
        Array.from(document.querySelectorAll('input')).some(({ value }) => value === 'a living room'),
      );
      assert.equal(await field('On the right').inputValue(), 'a red sofa in a living room');
      await field('On the left').fill('a chair in a living room');
      await field('Seed').fill('7');
      await page.evaluate(() => {
        const seen = new Set<string>();
        Object.assign(window, { seen });
        new MutationObserver(() => {
          const image = document.querySelector('.md-picture');
          if (image) seen.add(image.getAttribute('alt')!);
          for (const [step] of document.body.innerText.matchAll(/Step \d+ of \d+/g)) seen.add(step);
        }).observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
      });
      await draw();
      await says(/^Done, with seed 7$/);
      await picture().and(page.getByAltText('a living room, seed 7')).waitFor();
      const seen = await page.evaluate(() => [...(window as unknown as { seen: Set<string> }).seen]);
      assert.ok(
        seen.some((text) => /^Step \d+ of 25$/.test(text)),
        seen.join(' | '),
      );
      assert.ok(
        seen.some((text) => /^The picture so far, step/.test(text)),
        seen.join(' | '),
      );
      assert.equal(await thumbnails().count(), 1);
      const width = await picture().evaluate((image) => (image as HTMLImageElement).naturalWidth);
      assert.equal(width, 128);
      const folder = path.join(nodeRed.userDir, 'multidiffusion/images/19-dashboard');
      assert.equal(fs.readdirSync(folder).length, 1);
      await screenshot('done');
      await assertAccessible(page, '.md-picture, .md-gallery');
    });

    it('brings a picture of the gallery back, with its words and its seed, also after a reload', async () => {
      await field('On the left').fill('');
      await field('Seed').fill('8');
      await draw();
      await says(/^Done, with seed 8$/);
      await page.reload();
      await page.getByRole('button', { name: 'a living room, seed 7' }).click();
      await picture().and(page.getByAltText('a living room, seed 7')).waitFor();
      await page.waitForFunction(() =>
        Array.from(document.querySelectorAll('input')).some(({ value }) => value === '7'),
      );
      assert.equal(await field('On the left').inputValue(), 'a chair in a living room');
      const [shown, kept] = [await picture().getAttribute('src'), await thumbnails().nth(1).getAttribute('src')];
      assert.equal(shown, kept);
      await draw();
      await page.waitForFunction(() => document.querySelectorAll('.md-gallery img').length === 3);
      assert.equal(await pixels(thumbnails().first()), await pixels(thumbnails().nth(2)), 'the same picture again');
    });

    it('cancels, and says what is wrong', async () => {
      await field('Steps').fill('900');
      await draw();
      await says(/^Step \d+ of 900/);
      await page.getByRole('button', { name: 'Cancel' }).click();
      await says(/^Cancelled$/);
      await field('Steps').fill('5000');
      await draw();
      await says(/steps is 5000/);
      await screenshot('wrong');
      assert.equal(await thumbnails().count(), 3);
    });
  });
}

/** What an image shows: its file also says when it was made. */
function pixels(image: Locator): Promise<string> {
  return image.evaluate((element) => {
    const source = element as HTMLImageElement;
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [source.naturalWidth, source.naturalHeight];
    canvas.getContext('2d')!.drawImage(source, 0, 0);
    return canvas.toDataURL();
  });
}
