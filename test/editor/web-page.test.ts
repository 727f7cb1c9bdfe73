/** The page of example 14 in a real browser, as people use it: mouse, fingers, keyboard. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import type { Browser, BrowserContextOptions, Locator, Page } from 'playwright-core';
import { readFlow } from '../../scripts/lib/flow.js';
import { startNodeRed, temporaryFolder } from '../../scripts/lib/headless.js';
import { launchBrowser, OUTPUT } from './support/editor';
import { ROOT } from './support/node-red';

const DESKTOP: BrowserContextOptions = { viewport: { width: 1100, height: 940 }, colorScheme: 'light' };
const PHONE: BrowserContextOptions = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true, colorScheme: 'dark', deviceScaleFactor: 2 };

type Point = [number, number];

describe('the web page', function () {
  this.timeout(180_000);
  let nodeRed: Awaited<ReturnType<typeof startNodeRed>>;
  let browser: Browser;
  let page: Page;
  let errors: string[];

  before(async () => {
    nodeRed = await startNodeRed({ images: temporaryFolder(), onLog: () => {} });
    await nodeRed.deploy(readFlow(path.join(ROOT, 'examples/14-web-page.json')));
    browser = await launchBrowser();
  });
  after(async () => {
    await browser?.close();
    await nodeRed?.stop();
  });
  afterEach(async () => {
    await page.context().close();
    assert.deepEqual(errors, [], 'the page reports no errors');
  });

  async function open(device: BrowserContextOptions): Promise<void> {
    page = await (await browser.newContext(device)).newPage();
    errors = [];
    page.on('pageerror', (error) => errors.push(String(error)));
    page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
    await page.goto(`${nodeRed.url}/studio`);
  }

  const boxes = (): Locator => page.locator('#stage .box');
  const prompts = (): Locator => page.locator('#regions input');
  const status = (): Locator => page.getByRole('status');
  const pictures = (): Locator => page.locator('#gallery img');

  /** The place of a box as shares of the canvas. */
  async function placeOf(index: number): Promise<number[]> {
    const stage = (await page.locator('#stage').boundingBox())!;
    const box = (await boxes().nth(index).boundingBox())!;
    return [(box.x - stage.x) / stage.width, (box.y - stage.y) / stage.height, box.width / stage.width, box.height / stage.height];
  }

  async function assertPlace(index: number, expected: number[]): Promise<void> {
    const actual = await placeOf(index);
    actual.forEach((value, i) => assert.ok(Math.abs(value - expected[i]) < 0.012, `${actual.join()} is not ${expected.join()}`));
  }

  async function drag(from: Point, to: Point): Promise<void> {
    const stage = (await page.locator('#stage').boundingBox())!;
    const at = ([x, y]: Point): Point => [stage.x + x * stage.width, stage.y + y * stage.height];
    await page.mouse.move(...at(from));
    await page.mouse.down();
    await page.mouse.move(...at([(from[0] + to[0]) / 2, (from[1] + to[1]) / 2]));
    await page.mouse.move(...at(to));
    await page.mouse.up();
  }

  async function clear(): Promise<void> {
    while (await boxes().count()) await page.getByRole('button', { name: 'Remove box 1' }).click();
  }

  /** Presses Draw and waits for the end. */
  async function draw(): Promise<void> {
    await page.getByRole('button', { name: 'Draw' }).click();
    await status().getByText(/^Done, with seed \d+/).waitFor({ timeout: 60_000 });
  }

  async function screenshot(name: string): Promise<void> {
    fs.mkdirSync(OUTPUT, { recursive: true });
    await page.screenshot({ path: path.join(OUTPUT, `web-page-${name}.png`) });
  }

  it('draws boxes by mouse and makes a picture of them, which outlives a reload and brings its boxes back', async () => {
    await open(DESKTOP);
    await clear();
    await page.getByLabel('Everywhere').fill('a meadow');
    await page.getByLabel('Seed').fill('11');
    await page.getByLabel('Steps').fill('20');
    await drag([0.1, 0.2], [0.5, 0.6]);
    assert.equal(await prompts().first().evaluate((input) => input === document.activeElement), true, 'a new box asks what is in it');
    await page.keyboard.type('a tree');
    await assertPlace(0, [0.1, 0.2, 0.4, 0.4]);
    await drag([0.3, 0.4], [0.25, 0.5]);
    await assertPlace(0, [0.05, 0.3, 0.4, 0.4]);
    await drag([0.45, 0.7], [0.5, 0.9]);
    await assertPlace(0, [0.05, 0.3, 0.45, 0.6]);
    await drag([0.95, 0.9], [0.6, 0.5]);
    await page.keyboard.type('a dog');
    await assertPlace(1, [0.6, 0.5, 0.35, 0.4]);

    await page.evaluate(() => {
      const seen: string[] = [];
      Object.assign(window, { seen });
      new MutationObserver((changes) => changes.forEach(({ target }) => seen.push((target as HTMLImageElement).src))).observe(document.querySelector('#shown')!, { attributeFilter: ['src'] });
    });
    await draw();
    const seen = await page.evaluate(() => (window as unknown as { seen: string[] }).seen);
    assert.ok(seen.some((src) => src.startsWith('data:image/png;base64,')), 'previews come before the picture');
    assert.match(seen.at(-1)!, /\/studio\/gallery\/studio-.*-11\.png$/);
    await page.locator('#shown').evaluate((image: HTMLImageElement) => image.decode());
    await pictures().first().waitFor();
    await screenshot('light');

    await page.reload();
    await pictures().first().waitFor();
    assert.deepEqual(await prompts().evaluateAll((inputs) => inputs.map((input) => (input as HTMLInputElement).value)), ['a tree', 'a dog']);
    await clear();
    await page.getByLabel('Everywhere').fill('something else');
    await page.getByRole('button', { name: 'a meadow' }).first().click();
    await status().getByText(/^Brought back/).waitFor();
    assert.equal(await page.getByLabel('Everywhere').inputValue(), 'a meadow');
    assert.equal(await page.getByLabel('Seed').inputValue(), '11');
    assert.equal(await page.getByLabel('Steps').inputValue(), '20');
    assert.deepEqual(await prompts().evaluateAll((inputs) => inputs.map((input) => (input as HTMLInputElement).value)), ['a tree', 'a dog']);
    await assertPlace(0, [0.05, 0.3, 0.45, 0.6]);

    const bytes = async (index: number): Promise<string> => pictures().nth(index).evaluate((image: HTMLImageElement) => {
      const canvas = Object.assign(document.createElement('canvas'), { width: image.naturalWidth, height: image.naturalHeight });
      canvas.getContext('2d')!.drawImage(image, 0, 0);
      return canvas.toDataURL();
    });
    await draw();
    await page.waitForFunction(() => document.querySelectorAll('#gallery img').length === 2);
    await pictures().first().evaluate((image: HTMLImageElement) => image.decode());
    assert.equal(await bytes(0), await bytes(1), 'a picture that was brought back is drawn again as it was');
  });

  it('can be used by keyboard alone', async () => {
    await open(DESKTOP);
    await clear();
    await page.getByRole('button', { name: 'Add a box' }).focus();
    await page.keyboard.press('Enter');
    await page.keyboard.type('a boat');
    await page.keyboard.press('Shift+Tab');
    await page.keyboard.press('Shift+Tab');
    assert.match((await page.evaluate(() => document.activeElement?.getAttribute('aria-label')))!, /^Box 1, a boat: 30 % from the left/);
    for (const key of ['ArrowLeft', 'ArrowLeft', 'ArrowDown', 'Shift+ArrowRight', 'Shift+ArrowUp']) await page.keyboard.press(key);
    await assertPlace(0, [0.26, 0.32, 0.42, 0.38]);
    assert.match(await page.locator('#place').innerText(), /^26 % from the left, 32 % from the top, 42 % wide, 38 % high$/);
    await page.keyboard.press('Tab');
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    await status().getByText(/^Done/).waitFor({ timeout: 60_000 });
    await boxes().first().focus();
    await page.keyboard.press('Delete');
    assert.equal(await boxes().count(), 0);
  });

  it('fits a phone: fingers draw, nothing is wider than the screen, the dark theme is dark', async () => {
    await open(PHONE);
    await clear();
    const width = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(width[0] <= width[1], width.join());
    const small = await page.locator('button:visible, input:visible').evaluateAll((controls) => controls.filter((control) => control.getBoundingClientRect().height < 44).map((control) => control.id));
    assert.deepEqual(small, [], 'everything is large enough for a finger');

    const touch = await page.context().newCDPSession(page);
    const stage = (await page.locator('#stage').boundingBox())!;
    const point = ([x, y]: Point): object => ({ x: stage.x + x * stage.width, y: stage.y + y * stage.height });
    for (const [type, at] of [['touchStart', [0.2, 0.3]], ['touchMove', [0.4, 0.5]], ['touchMove', [0.7, 0.8]], ['touchEnd', undefined]] as Array<['touchStart' | 'touchMove' | 'touchEnd', Point | undefined]>) {
      await touch.send('Input.dispatchTouchEvent', { type, touchPoints: at ? [point(at) as { x: number; y: number }] : [] });
    }
    await page.keyboard.type('a red car');
    await assertPlace(0, [0.2, 0.3, 0.5, 0.5]);
    assert.equal(await page.evaluate(() => scrollY), 0, 'a finger on the canvas does not scroll');
    await draw();
    await page.evaluate(() => scrollTo(0, 0));
    await screenshot('phone');
    const [red, green, blue] = (await page.evaluate(() => getComputedStyle(document.body).backgroundColor)).match(/\d+/g)!.map(Number);
    assert.ok(red + green + blue < 120, `${red} ${green} ${blue}`);
  });

  it('cancels, follows its job over a reload, and says what the server finds wrong', async () => {
    await open(DESKTOP);
    const before = await pictures().count();
    await page.route('**/studio/jobs', (route) => route.continue({ postData: JSON.stringify({ ...(route.request().postDataJSON() as object), steps: 900 }) }));
    await page.getByRole('button', { name: 'Draw' }).click();
    await page.locator('#count').getByText(/^Step \d+ of 900/).waitFor({ timeout: 60_000 });
    assert.equal(await page.getByRole('button', { name: 'Draw' }).isDisabled(), true);
    await page.reload();
    await page.locator('#count').getByText(/^Step \d+ of 900/).waitFor();
    await page.getByRole('button', { name: 'Cancel' }).click();
    await status().getByText('Cancelled.').waitFor();
    assert.equal(await page.getByRole('button', { name: 'Draw' }).isDisabled(), false);
    assert.equal(await pictures().count(), before);

    await page.unroute('**/studio/jobs');
    await page.route('**/studio/jobs', (route) => route.continue({ postData: JSON.stringify({ ...(route.request().postDataJSON() as object), steps: -1 }) }));
    await page.getByRole('button', { name: 'Draw' }).click();
    await page.getByRole('alert').getByText(/steps is -1; allowed/).waitFor();
  });
});
