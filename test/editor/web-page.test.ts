/** The page of example 14 in a real browser, as people use it: mouse, fingers, keyboard. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import type { Browser, BrowserContextOptions, Locator, Page } from 'playwright-core';
import { readFlow } from '../../scripts/lib/flow.js';
import { startNodeRed, temporaryFolder } from '../../scripts/lib/headless.js';
import { assertAccessible } from './support/axe';
import { launchBrowser, OUTPUT } from './support/editor';
import { ROOT } from './support/node-red';

const DESKTOP: BrowserContextOptions = { viewport: { width: 1100, height: 940 }, colorScheme: 'light' };
const PHONE: BrowserContextOptions = {
  viewport: { width: 390, height: 844 },
  hasTouch: true,
  isMobile: true,
  colorScheme: 'dark',
  deviceScaleFactor: 2,
};

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

  const canvas = (): Locator => page.locator('.multidiffusion-canvas');
  const boxes = (): Locator => canvas().locator('.multidiffusion-shape');
  const prompts = (): Locator => page.locator('.multidiffusion-row-words textarea');
  const background = (): Locator => page.getByLabel('Everywhere');
  const seed = (): Locator => page.locator('.multidiffusion-background').getByLabel('Seed');
  const status = (): Locator => page.locator('#status');
  const pictures = (): Locator => page.locator('#gallery img');

  /** The place of a box as shares of the canvas, as it can be seen. */
  async function placeOf(number: number): Promise<number[]> {
    const frame = (await canvas().boundingBox())!;
    const path = canvas().locator(`[aria-label^="Region ${number},"] > .multidiffusion-region`);
    const box = await path.evaluate((element) => {
      const { x, y, width, height } = (element as SVGPathElement).getBBox();
      return [x, y, width, height];
    });
    return box.map((value, i) => value / (i % 2 === 0 ? frame.width : frame.height));
  }

  async function assertPlace(number: number, expected: number[]): Promise<void> {
    const actual = await placeOf(number);
    actual.forEach((value, i) =>
      assert.ok(Math.abs(value - expected[i]) < 0.012, `${actual.join()} is not ${expected.join()}`),
    );
  }

  async function drag(from: Point, to: Point): Promise<void> {
    const frame = (await canvas().boundingBox())!;
    const at = ([x, y]: Point): Point => [frame.x + x * frame.width, frame.y + y * frame.height];
    await page.mouse.move(...at(from));
    await page.mouse.down();
    await page.mouse.move(...at([(from[0] + to[0]) / 2, (from[1] + to[1]) / 2]));
    await page.mouse.move(...at(to));
    await page.mouse.up();
  }

  async function clear(): Promise<void> {
    while (await boxes().count()) await page.getByRole('button', { name: 'Remove region 1' }).click();
  }

  /** Presses Tab until something has the focus; it must come within one round of the page. */
  async function tabTo(wanted: RegExp, key: string, focused: () => Promise<string>): Promise<void> {
    for (let presses = 0; presses < 60; presses++) {
      await page.keyboard.press(key);
      if (wanted.test(await focused())) return;
    }
    assert.fail(`${key} does not lead to ${wanted}`);
  }

  /** Presses Draw and waits for the end. */
  async function draw(): Promise<void> {
    await page.getByRole('button', { name: 'Draw', exact: true }).click();
    await status()
      .getByText(/^Done, with seed \d+/)
      .waitFor({ timeout: 60_000 });
  }

  async function screenshot(name: string): Promise<void> {
    fs.mkdirSync(OUTPUT, { recursive: true });
    await page.screenshot({ path: path.join(OUTPUT, `web-page-${name}.png`) });
  }

  it('draws boxes by mouse and makes a picture of them, which outlives a reload and brings its boxes back', async () => {
    await open(DESKTOP);
    await clear();
    await background().fill('a meadow');
    await page.locator('.multidiffusion-background summary').click();
    await seed().fill('11');
    await page.getByLabel('Steps').fill('20');
    await drag([0.1, 0.2], [0.5, 0.6]);
    assert.equal(
      await prompts()
        .first()
        .evaluate((input) => input === document.activeElement),
      true,
      'a new box asks what is in it',
    );
    await page.keyboard.type('a tree');
    await assertPlace(1, [0.1, 0.2, 0.4, 0.4]);
    await drag([0.3, 0.4], [0.25, 0.5]);
    await assertPlace(1, [0.05, 0.3, 0.4, 0.4]);
    await drag([0.45, 0.7], [0.5, 0.9]);
    await assertPlace(1, [0.05, 0.3, 0.45, 0.6]);
    await drag([0.95, 0.9], [0.6, 0.5]);
    await page.keyboard.type('a dog');
    await assertPlace(2, [0.6, 0.5, 0.35, 0.4]);

    await page.evaluate(() => {
      const seen: string[] = [];
      Object.assign(window, { seen });
      new MutationObserver((changes) =>
        changes.forEach(({ target }) => seen.push((target as SVGImageElement).getAttribute('href')!)),
      ).observe(document.querySelector('.multidiffusion-backdrop')!, { attributeFilter: ['href'] });
    });
    await draw();
    const seen = await page.evaluate(() => (window as unknown as { seen: string[] }).seen);
    assert.ok(
      seen.some((src) => src.startsWith('data:image/png;base64,')),
      'previews come before the picture',
    );
    assert.match(seen.at(-1)!, /\/studio\/gallery\/studio-.*-11\.png$/);
    await page.locator('.multidiffusion-backdrop').evaluate((image) => (image as unknown as HTMLImageElement).decode());
    await pictures().first().waitFor();
    await screenshot('light');

    await page.reload();
    await pictures().first().waitFor();
    assert.deepEqual(
      await prompts().evaluateAll((inputs) => inputs.map((input) => (input as HTMLTextAreaElement).value)),
      ['a tree', 'a dog'],
    );
    await clear();
    await background().fill('something else');
    await page.getByRole('button', { name: 'a meadow' }).first().click();
    await status()
      .getByText(/^Brought back/)
      .waitFor();
    assert.equal(await background().inputValue(), 'a meadow');
    assert.equal(await seed().inputValue(), '11');
    assert.equal(await page.getByLabel('Steps').inputValue(), '20');
    assert.deepEqual(
      await prompts().evaluateAll((inputs) => inputs.map((input) => (input as HTMLTextAreaElement).value)),
      ['a tree', 'a dog'],
    );
    await assertPlace(1, [0.05, 0.3, 0.45, 0.6]);

    const bytes = async (index: number): Promise<string> =>
      pictures()
        .nth(index)
        .evaluate((image: HTMLImageElement) => {
          const canvas = Object.assign(document.createElement('canvas'), {
            width: image.naturalWidth,
            height: image.naturalHeight,
          });
          canvas.getContext('2d')!.drawImage(image, 0, 0);
          return canvas.toDataURL();
        });
    await draw();
    await page.waitForFunction(() => document.querySelectorAll('#gallery img').length === 2);
    await pictures()
      .first()
      .evaluate((image: HTMLImageElement) => image.decode());
    assert.equal(await bytes(0), await bytes(1), 'a picture that was brought back is drawn again as it was');
  });

  it('is found with a slash at the end of its address, too', async () => {
    await open({ viewport: { width: 1000, height: 900 } });
    await page.goto(`${nodeRed.url}/studio/?from=elsewhere`);
    await boxes().first().waitFor();
    assert.equal(page.url(), `${nodeRed.url}/studio`);
  });

  it('can be used by keyboard alone', async () => {
    await open(DESKTOP);
    await clear();
    await page.getByRole('button', { name: 'Region', exact: true }).focus();
    await page.keyboard.press('Enter');
    await page.keyboard.type('a boat');
    const focused = (): Promise<string> =>
      page.evaluate(() => document.activeElement?.getAttribute('aria-label') ?? document.activeElement?.id ?? '');
    await tabTo(/^Region 1, a boat, box: left 25 %/, 'Shift+Tab', focused);
    for (const key of ['ArrowLeft', 'ArrowLeft', 'ArrowDown', 'Shift+ArrowRight', 'Shift+ArrowUp'])
      await page.keyboard.press(key);
    await assertPlace(1, [0.23, 0.26, 0.51, 0.49]);
    assert.match(
      await page.locator('.multidiffusion-announcement').innerText(),
      /left 23 %, top 26 %, width 51 %, height 49 %/,
    );
    await page.keyboard.press('Control+z');
    await assertPlace(1, [0.25, 0.25, 0.5, 0.5]);
    await tabTo(/^draw$/, 'Tab', focused);
    await page.keyboard.press('Enter');
    await status().getByText(/^Done/).waitFor({ timeout: 60_000 });
    await prompts().first().focus();
    await page.keyboard.press('Control+Enter');
    await page.waitForFunction(() => (document.querySelector('#draw') as HTMLButtonElement).disabled);
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
    await page.locator('.multidiffusion-background summary').click();
    await page.getByRole('button', { name: 'Region', exact: true }).click();
    await page.locator('.multidiffusion-row summary').click();
    const small = await page
      .locator('button:visible, input:visible, textarea:visible, select:visible, summary:visible')
      .evaluateAll((controls) =>
        controls
          .map((control) => control.closest('.multidiffusion-check') ?? control)
          .filter((control) => control.getBoundingClientRect().height < 44)
          .map((control) => control.outerHTML),
      );
    await clear();
    await page.evaluate(() => scrollTo(0, 0));
    assert.deepEqual(small, [], 'everything is large enough for a finger');

    const touch = await page.context().newCDPSession(page);
    const frame = (await canvas().boundingBox())!;
    const point = ([x, y]: Point): object => ({ x: frame.x + x * frame.width, y: frame.y + y * frame.height });
    for (const [type, at] of [
      ['touchStart', [0.2, 0.3]],
      ['touchMove', [0.4, 0.5]],
      ['touchMove', [0.7, 0.8]],
      ['touchEnd', undefined],
    ] as Array<['touchStart' | 'touchMove' | 'touchEnd', Point | undefined]>) {
      if (!at) assert.equal(await page.evaluate(() => scrollY), 0, 'a finger on the canvas does not scroll');
      await touch.send('Input.dispatchTouchEvent', {
        type,
        touchPoints: at ? [point(at) as { x: number; y: number }] : [],
      });
    }
    await page.keyboard.type('a red car');
    await assertPlace(1, [0.2, 0.3, 0.5, 0.5]);
    await draw();
    await page.evaluate(() => scrollTo(0, 0));
    await screenshot('phone');
    const [red, green, blue] = (await page.evaluate(() => getComputedStyle(document.body).backgroundColor))
      .match(/\d+/g)!
      .map(Number);
    assert.ok(red + green + blue < 120, `${red} ${green} ${blue}`);
  });

  for (const width of [1400, 1024, 820, 390]) {
    for (const colorScheme of ['light', 'dark'] as const) {
      it(`fits ${width} pixels in ${colorScheme}, and axe finds nothing serious`, async () => {
        await open({ viewport: { width, height: 900 }, colorScheme });
        await page.locator('.multidiffusion-row summary').first().click();
        const [inner, outer] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
        assert.ok(inner <= outer, `${inner} in ${outer}`);
        const [list, stage] = await page.evaluate(() =>
          ['side', 'stage'].map((part) => document.querySelector(`.multidiffusion-${part}`)!.getBoundingClientRect()),
        );
        assert.equal(list.left >= stage.right, width > 700, 'the list is beside the canvas, or below it');
        await screenshot(`${width}-${colorScheme}`);
        await assertAccessible(page, 'body');
      });
    }
  }

  it('cancels, follows its job over a reload, and says what the server finds wrong', async () => {
    await open(DESKTOP);
    const before = await pictures().count();
    await page.route('**/studio/jobs', (route) =>
      route.continue({ postData: JSON.stringify({ ...(route.request().postDataJSON() as object), steps: 900 }) }),
    );
    await page.getByRole('button', { name: 'Draw', exact: true }).click();
    await page
      .locator('#count')
      .getByText(/^Step \d+ of 900/)
      .waitFor({ timeout: 60_000 });
    assert.equal(await page.getByRole('button', { name: 'Draw', exact: true }).isDisabled(), true);
    await page.reload();
    await page
      .locator('#count')
      .getByText(/^Step \d+ of 900/)
      .waitFor();
    await page.getByRole('button', { name: 'Cancel' }).click();
    await status().getByText('Cancelled.').waitFor();
    assert.equal(await page.getByRole('button', { name: 'Draw', exact: true }).isDisabled(), false);
    assert.equal(await pictures().count(), before);

    await page.unroute('**/studio/jobs');
    await page.route('**/studio/jobs', (route) =>
      route.continue({ postData: JSON.stringify({ ...(route.request().postDataJSON() as object), steps: -1 }) }),
    );
    await page.getByRole('button', { name: 'Draw', exact: true }).click();
    await page
      .getByRole('alert')
      .getByText(/steps is -1; allowed/)
      .waitFor();
  });
});
