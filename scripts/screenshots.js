'use strict';
// npm run screenshots: the pictures of README.md, taken in Chromium of the examples as they are shipped.
const fs = require('node:fs');
const path = require('node:path');
const { chromium } = require('playwright-core');
const sharp = require('sharp');
const { startNodeRed, temporaryFolder } = require('./lib/headless');
const { readFlow } = require('./lib/flow');

const root = path.join(__dirname, '..');
const images = path.join(root, 'docs', 'images');
const EXAMPLES = ['02-living-room', '14-web-page', '16-compose'];
/** Few enough for small files, enough for a picture of 128 × 128 and flat surfaces. */
const COLOURS = 160;

/** @typedef {import('playwright-core').Page} Page */
/** @typedef {import('./lib/flow').FlowNode} FlowNode */

/** @param {string} name of the example @returns {FlowNode[]} */
const readExample = (name) => readFlow(path.join(root, 'examples', `${name}.json`));

/** @param {FlowNode[]} flow @param {string} type */
const idOf = (flow, type) => /** @type {FlowNode} */ (flow.find((node) => node.type === type)).id;

/**
 * @param {string} name
 * @param {Buffer} png
 * @param {import('sharp').Region} [cut] to keep of it
 */
async function write(name, png, cut) {
  const image = cut ? sharp(png).extract(cut) : sharp(png);
  const file = path.join(images, name);
  await image.png({ palette: true, colours: COLOURS, effort: 10 }).toFile(file);
  console.log(`${path.relative(root, file)}: ${Math.round(fs.statSync(file).size / 1024)} KB`);
}

/** The editor with a tab shown, its palette closed. @param {Page} page @param {string} url @param {string} tab */
async function openEditor(page, url, tab) {
  await page.goto(`${url}/#flow/${tab}`);
  await page.waitForSelector('.red-ui-palette-node[data-palette-type="save-image"]', { timeout: 60_000 });
  await page.waitForSelector('#red-ui-loading-progress', { state: 'hidden', timeout: 60_000 });
  await page.evaluate('RED.menu.setSelected("menu-item-palette", false)');
}

/**
 * Presses a flow's button, and waits until its picture is under save-image and in the panel.
 * @param {Page} page
 * @param {FlowNode[]} flow
 */
async function draw(page, flow) {
  const pictures = '.multidiffusion-thumbnail img[src]';
  const before = await page.evaluate(`document.querySelectorAll('${pictures}').length`);
  await page.locator(`[id="${idOf(flow, 'inject')}"] .red-ui-flow-node-button-button`).click();
  await page.waitForFunction(`document.querySelectorAll('${pictures}').length > ${before}`, undefined, {
    timeout: 120_000,
  });
  const name = page.locator(`[id="${idOf(flow, 'save-image')}"] .red-ui-flow-node-status-label`);
  await name.getByText(/\.png$/).waitFor();
  // save-image's picture replaces that of vae-decode, and the editor's notes go by themselves.
  await page.waitForFunction(
    `[...document.querySelectorAll('.multidiffusion-thumbnail img')].every((image) => image.complete && image.naturalWidth) &&
      !document.querySelector('.multidiffusion-job, .red-ui-notification')`,
    undefined,
    { timeout: 60_000 },
  );
  await page.waitForLoadState('networkidle');
  await page.waitForTimeout(1000);
}

/** The dialog of a node, without the tray's animation. @param {Page} page @param {string} id */
async function openDialog(page, id) {
  await page.evaluate(`RED.editor.edit(RED.nodes.node(${JSON.stringify(id)}))`);
  await page.locator('.multidiffusion-form').waitFor();
  await page.locator('.multidiffusion-canvas').waitFor();
  await page.waitForFunction('!document.querySelector(".red-ui-tray")?.getAnimations({ subtree: true }).length');
  await page.locator('.multidiffusion-backdrop[href]').waitFor();
  await page.waitForTimeout(500);
}

async function main() {
  const executablePath = process.env.CHROMIUM_PATH ?? '/usr/bin/chromium';
  const [living, web, compose] = EXAMPLES.map(readExample);
  const nodeRed = await startNodeRed({ editor: true, images: temporaryFolder() });
  await nodeRed.deploy([...living, ...web, ...compose]);
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
  const page = await browser.newPage({ viewport: { width: 1330, height: 800 }, colorScheme: 'light' });

  // Something to see in the panel.
  for (const seed of [3, 5, 8, 9, 11]) await nodeRed.generate(living, { message: { seed } });
  await openEditor(page, nodeRed.url, idOf(living, 'tab'));
  await draw(page, living);
  await page.mouse.move(600, 730);
  await write('editor.png', await page.screenshot());

  await page.setViewportSize({ width: 1330, height: 840 });
  await openDialog(page, idOf(living, 'region-mask'));
  await page.mouse.move(0, 0); // off what would look pressed
  await write('region.png', await page.locator('.red-ui-tray').last().screenshot());
  await page.locator('#node-dialog-cancel').click();
  await page.waitForSelector('.red-ui-tray', { state: 'detached' });

  await page.evaluate(`RED.workspaces.show(${JSON.stringify(idOf(compose, 'tab'))})`);
  await draw(page, compose);
  await openDialog(page, idOf(compose, 'compose'));
  await write('compose.png', await page.locator('.red-ui-tray').last().screenshot());

  const web14 = await browser.newPage({ viewport: { width: 900, height: 760 }, colorScheme: 'light' });
  await web14.goto(`${nodeRed.url}/studio`);
  for (const seed of [5, 9, 12]) {
    await web14.locator('.multidiffusion-background summary').click();
    await web14.locator('.multidiffusion-background').getByLabel('Seed').fill(String(seed));
    await web14.locator('.multidiffusion-background summary').click();
    await web14.locator('#draw').click();
    await web14.locator('#status').getByText(`Done, with seed ${seed}.`).waitFor({ timeout: 120_000 });
  }
  await web14.waitForLoadState('networkidle');
  await write('web-page.png', await web14.screenshot({ fullPage: true }));

  await browser.close();
  await nodeRed.stop();
}

main().then(
  () => process.exit(),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
