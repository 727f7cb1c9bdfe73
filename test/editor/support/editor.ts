/** Node-RED's editor in headless Chromium. */
import fs from 'node:fs';
import path from 'node:path';
import { chromium, type Browser, type Locator, type Page } from 'playwright-core';
import { ROOT } from './node-red';

export const OUTPUT = path.join(ROOT, 'test/output');

const CANDIDATES = [
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
];

/** @throws Error that says how to come by a browser */
export async function launchBrowser(): Promise<Browser> {
  const executablePath = [process.env.CHROMIUM_PATH, ...CANDIDATES].find((file) => file && fs.existsSync(file));
  if (!executablePath) {
    throw new Error(
      'The browser tests need Chromium: install it (apt-get install chromium), or say where it is in CHROMIUM_PATH.',
    );
  }
  return chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] });
}

export type FlowNode = Record<string, unknown> & { id: string; type: string };

export class Editor {
  /** Errors that the page has logged or thrown. */
  readonly errors: string[] = [];

  private constructor(readonly page: Page) {
    page.on('pageerror', (error) => this.errors.push(String(error)));
    page.on('console', (message) => {
      if (message.type() === 'error') this.errors.push(`${message.text()} (${message.location().url})`);
    });
  }

  static async open(
    browser: Browser,
    url: string,
    options: { dark?: boolean; language?: string; touch?: boolean } = {},
  ): Promise<Editor> {
    const context = await browser.newContext({
      viewport: { width: 1360, height: 900 },
      locale: options.language ?? 'en-US',
      colorScheme: options.dark ? 'dark' : 'light',
      hasTouch: options.touch ?? false,
      isMobile: options.touch ?? false,
    });
    const page = await context.newPage();
    const editor = new Editor(page);
    await page.goto(url);
    await page.waitForSelector('.red-ui-palette-node[data-palette-type="save-image"]', { timeout: 60_000 });
    await page.waitForSelector('#red-ui-loading-progress', { state: 'hidden', timeout: 60_000 });
    if (options.dark) await page.evaluate(() => document.documentElement.classList.add('nr-theme-dark'));
    return editor;
  }

  async close(): Promise<void> {
    await this.page.context().close();
  }

  /** Removes everything from the workspace. */
  async clear(): Promise<void> {
    await this.page.evaluate(() => {
      RED.nodes.clear();
      RED.view.redraw(true, true);
    });
  }

  /** Replaces the flows with these and deploys them. */
  async load(flow: FlowNode[]): Promise<void> {
    await this.clear();
    await this.page.evaluate((nodes) => {
      RED.nodes.import(nodes);
      RED.workspaces.show(nodes.find((node) => node.type === 'tab')!.id);
      RED.view.redraw(true, true);
    }, flow);
    await this.deploy();
  }

  /** Imports one of the package's examples as a user does, and shows it. */
  async importExample(name: string): Promise<void> {
    await this.page.evaluate(() => RED.actions.invoke('core:show-examples-import-dialog'));
    const label = (text: string) =>
      this.page.locator('#red-ui-clipboard-dialog .red-ui-treeList-label:visible', { hasText: text });
    const file = label(name);
    const offered = this.page.locator('#red-ui-clipboard-dialog-ok:not(:disabled)');
    // The lists fill while they are shown, and a click on what isn't complete yet is lost.
    const clickUntilVisible = async (target: Locator, wanted: Locator): Promise<void> => {
      for (let attempt = 0; attempt < 5 && !(await wanted.isVisible()); attempt++) {
        await target.click();
        await wanted.waitFor({ timeout: 4000 }).catch(() => {});
      }
    };
    await clickUntilVisible(label('node-red-contrib-multidiffusion'), file);
    await clickUntilVisible(file, offered);
    await offered.click();
    await this.page.waitForFunction(
      () =>
        RED.nodes.getWorkspaceOrder().length > 0 &&
        !document.querySelector(
          '#red-ui-clipboard-dialog:popover-open, .ui-dialog:has(#red-ui-clipboard-dialog):not([style*="display: none"])',
        ),
    );
    await this.page.evaluate(() => RED.workspaces.show(RED.nodes.getWorkspaceOrder().at(-1)));
  }

  /** Deploys, and fails if the editor has something to say against it. */
  async deploy(): Promise<void> {
    await this.page.evaluate(() => RED.nodes.dirty(true));
    await this.page.click('#red-ui-header-button-deploy');
    const complaint = this.page
      .locator(
        '.red-ui-notification:is(.red-ui-notification-warning, .red-ui-notification-error, :has(button)):visible',
      )
      .first();
    const deployed = this.page.waitForFunction(() => !RED.nodes.dirty(), undefined, { timeout: 30_000 });
    await Promise.race([deployed, complaint.waitFor({ timeout: 30_000 })]);
    deployed.catch(() => {});
    if (await complaint.isVisible())
      throw new Error(`The editor warned while deploying: ${await complaint.innerText()}`);
  }

  /** Closes whatever the editor asks or tells. */
  async dismiss(): Promise<void> {
    const button = this.page.locator('.red-ui-notification button:visible').first();
    await button.click();
    await button.waitFor({ state: 'detached' });
  }

  /** Opens a node's edit dialog. */
  async edit(id: string): Promise<Locator> {
    await this.page.evaluate((node) => {
      const found = RED.nodes.node(node);
      if (found._def.category === 'config') RED.editor.editConfig('', found.type, found.id);
      else RED.editor.edit(found);
    }, id);
    const form = this.page.locator('.multidiffusion-form');
    await form.waitFor({ state: 'visible' });
    await this.page.waitForTimeout(400); // the tray slides in
    return form;
  }

  async done(): Promise<void> {
    await this.page.locator('#node-dialog-ok, #node-config-dialog-ok').first().click();
    await this.page.waitForSelector('.red-ui-tray', { state: 'detached' });
  }

  async cancel(): Promise<void> {
    await this.page.locator('#node-dialog-cancel, #node-config-dialog-cancel').first().click();
    await this.page.waitForSelector('.red-ui-tray', { state: 'detached' });
  }

  /** What the editor holds for a node. */
  node<T = Record<string, unknown>>(id: string): Promise<T> {
    return this.page.evaluate((node) => RED.nodes.convertNode(RED.nodes.node(node)), id) as Promise<T>;
  }

  async screenshot(name: string): Promise<void> {
    fs.mkdirSync(OUTPUT, { recursive: true });
    const style = '.red-ui-notification-success, .red-ui-notification:not([class*=" "]) { display: none !important }';
    await this.page.screenshot({ path: path.join(OUTPUT, `${name}.png`), style });
  }
}
