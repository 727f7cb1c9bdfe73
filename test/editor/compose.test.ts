/** compose in a real browser: how far it is from an empty tab to a picture, and what its dialog can do. */
import assert from 'node:assert/strict';
import type { Browser, Locator, Page, Route } from 'playwright-core';
import { loadDefinition, newNode } from '../unit/support/editor';
import { assertAccessible } from './support/axe';
import { Editor, launchBrowser, type FlowNode } from './support/editor';
import { startNodeRed, VERSIONS, type NodeRed } from './support/node-red';

type Place = [number, number];
const SOFA: [Place, Place, string] = [[0.31, 0.48], [0.87, 0.89], 'a red sofa in a living room'];
const PLANT: [Place, Place, string] = [[0.01, 0.36], [0.3, 0.92], 'a plant in a living room'];
const PAINTING: [Place, Place, string] = [[0.6, 0.05], [0.94, 0.41], 'a painting on a living room wall'];
const ROOM = 'a living room';

/** A user's hands: each drag, click and text typed is one action. */
class Hands {
  actions = 0;
  constructor(private readonly page: Page) {}

  /**
   * @param until what is to be seen before the mouse is released. Node-RED 5 looks for it ten pixels below the node
   * that is dragged, so that the hand moves up and down until it is there.
   */
  async drag(from: Place, to: Place, until?: Locator): Promise<void> {
    this.actions++;
    const { mouse } = this.page;
    await mouse.move(...from, { steps: 3 });
    await this.page.waitForTimeout(80);
    await mouse.down();
    await mouse.move(from[0] + 3, from[1], { steps: 2 });
    await mouse.move((from[0] + to[0]) / 2, (from[1] + to[1]) / 2, { steps: 4 });
    await mouse.move(...to, { steps: 6 });
    await mouse.move(to[0] + 1, to[1], { steps: 2 });
    if (until) await this.search(to, until);
    await mouse.up();
  }

  private async search([x, y]: Place, until: Locator): Promise<void> {
    for (let tries = 0; tries < 4; tries++) {
      for (const aside of [0, -10, 10, -5, 5]) {
        await this.page.mouse.move(x, y + aside, { steps: 2 });
        const seen = until.waitFor({ state: 'attached', timeout: 1000 * (1 + tries) });
        if (await seen.then(() => true).catch(() => false)) return;
      }
    }
    assert.fail('nothing takes what is dragged');
  }

  async click(target: Locator): Promise<void> {
    this.actions++;
    await target.click();
  }

  async open(target: Locator): Promise<void> {
    this.actions++;
    await target.dblclick();
    await this.page.locator('.multidiffusion-form').waitFor({ state: 'visible' });
    await this.page.waitForTimeout(400); // the tray slides in
  }

  async type(text: string): Promise<void> {
    this.actions++;
    await this.page.keyboard.type(text);
  }
}

for (const version of VERSIONS) {
  const short = version.name.replace(/\W+/g, '-').toLowerCase();

  describe(`compose in ${version.name}`, function () {
    this.timeout(180_000);
    let browser: Browser;
    let nodeRed: NodeRed;
    let editor: Editor;
    let page: Page;

    const open = async (): Promise<void> => {
      editor = await Editor.open(browser, nodeRed.url);
      page = editor.page;
      await page.setViewportSize({ width: 1400, height: 900 });
    };
    before(async () => {
      [browser, nodeRed] = await Promise.all([launchBrowser(), startNodeRed(version)]);
      await open();
    });
    after(async () => {
      await browser?.close();
      await nodeRed?.stop();
    });
    afterEach(async function () {
      if (this.currentTest?.state === 'failed') {
        await editor?.screenshot(`${short}-compose-failed`);
        await editor?.close();
        await open();
      }
      assert.deepEqual(editor?.errors.splice(0) ?? [], [], 'the page reports no errors');
    });

    /** A tab with nothing on it, shown. */
    async function emptyTab(): Promise<void> {
      await editor.load([{ id: 'tab', type: 'tab', label: 'Cover' }]);
      await page.locator('.red-ui-notification').first().waitFor({ state: 'detached', timeout: 20_000 });
    }

    const inPalette = (type: string): Locator => page.locator(`.red-ui-palette-node[data-palette-type="${type}"]`);
    const middle = async (target: Locator): Promise<Place> => {
      await target.scrollIntoViewIfNeeded();
      const { x, y, width, height } = (await target.boundingBox())!;
      return [x + width / 2, y + height / 2];
    };
    /** A place on the workspace, in pixels from its corner. */
    const workspace = async ([x, y]: Place): Promise<Place> => {
      const frame = (await page.locator('#red-ui-workspace-chart').boundingBox())!;
      return [frame.x + x, frame.y + y];
    };
    /** Drags a node from the palette to a place of the workspace. @returns its id */
    async function place(hands: Hands, type: string, at: Place, onWire = false): Promise<string> {
      const before = await nodes();
      const wireTakesIt = page.locator('.red-ui-flow-link-splice').first();
      await hands.drag(await middle(inPalette(type)), await workspace(at), onWire ? wireTakesIt : undefined);
      await page.waitForFunction((known) => RED.nodes.filterNodes({}).length > known, before.length, {
        timeout: 10_000,
      });
      const added = (await nodes()).filter(({ id }) => !before.some((node) => node.id === id));
      assert.deepEqual(
        added.map((node) => node.type),
        [type],
      );
      return added[0].id;
    }
    const nodes = (): Promise<FlowNode[]> =>
      page.evaluate(() => {
        const found: FlowNode[] = [];
        RED.nodes.eachNode((node: FlowNode) => found.push(RED.nodes.convertNode(node)));
        return found;
      });
    const element = (id: string): Locator => page.locator(`[id="${id}"]`);

    /** Wires two nodes, from port to port. */
    async function wire(hands: Hands, from: string, to: string): Promise<void> {
      const output = element(from).locator('.red-ui-flow-port-output .red-ui-flow-port').first();
      const input = element(to).locator('.red-ui-flow-port-input .red-ui-flow-port');
      await hands.drag(await middle(output), await middle(input));
    }

    /** Draws on the canvas of the open dialog; places as shares of it. */
    async function draw(hands: Hands, from: Place, to: Place): Promise<void> {
      const frame = (await page.locator('.multidiffusion-canvas').boundingBox())!;
      const at = ([x, y]: Place): Place => [frame.x + x * frame.width, frame.y + y * frame.height];
      await hands.drag(at(from), at(to));
    }

    /**
     * Nodes in a chain. The first and the last are wired to each other, and the others are dropped on that wire, which
     * takes them in.
     * @returns their ids, in the order of the types
     */
    async function chain(hands: Hands, types: string[]): Promise<string[]> {
      const y = 100;
      // Room for all of them, side by side.
      await page.setViewportSize({ width: types.length > 6 ? 2500 : 1400, height: 900 });
      const step = Math.floor((types.length > 6 ? 1700 : 680) / (types.length - 1));
      const first = await place(hands, types[0], [130, y]);
      const last = await place(hands, types.at(-1)!, [130 + step * (types.length - 1), y]);
      await wire(hands, first, last);
      // Nodes keep to the grid, and the wire to its nodes.
      const level = (await middle(element(first)))[1] - (await workspace([0, 0]))[1];
      const ids = [first];
      for (const [i, type] of types.slice(1, -1).entries())
        ids.push(await place(hands, type, [130 + step * (i + 1), level], true));
      return [...ids, last];
    }

    async function deployAndPress(hands: Hands, inject: string): Promise<void> {
      await hands.click(page.locator('#red-ui-header-button-deploy'));
      await page.waitForFunction(() => !RED.nodes.dirty(), undefined, { timeout: 30_000 });
      await hands.click(element(inject).locator('.red-ui-flow-node-button-button'));
    }

    async function pictureIsMade(save: string): Promise<void> {
      await element(save)
        .locator('.red-ui-flow-node-status-label')
        .getByText(/\.png|saved/)
        .waitFor({ timeout: 90_000 });
    }

    it("makes the article's cover from an empty tab in at most 20 actions, with 6 nodes", async () => {
      await emptyTab();
      const hands = new Hands(page);
      const ids = await chain(hands, [
        'inject',
        'compose',
        'text-encode',
        'multidiffusion-sampler',
        'vae-decode',
        'save-image',
      ]);
      await hands.open(element(ids[1]));
      await hands.click(page.getByLabel('Everywhere'));
      await hands.type(ROOM);
      for (const [from, to, words] of [SOFA, PLANT, PAINTING]) {
        await draw(hands, from, to);
        await hands.type(words);
      }
      await editor.screenshot(`${short}-compose-cover`);
      await hands.click(page.locator('#node-dialog-ok'));
      await page.waitForSelector('.red-ui-tray', { state: 'detached' });
      await deployAndPress(hands, ids[0]);
      await pictureIsMade(ids[5]);
      await editor.screenshot(`${short}-compose-picture`);
      assert.equal((await nodes()).length, 6);
      const compose = await editor.node<{ prompt: string; regions: Array<{ prompt: string; box: number[] }> }>(ids[1]);
      assert.equal(compose.prompt, ROOM);
      assert.deepEqual(
        compose.regions.map(({ prompt }) => prompt),
        [SOFA[2], PLANT[2], PAINTING[2]],
      );
      assert.ok(hands.actions <= 20, `${hands.actions} actions`);
    });

    it("makes the article's cover by wires in at most 36 actions", async () => {
      await emptyTab();
      const hands = new Hands(page);
      const row = ['text-encode', 'region-mask'];
      const types = [
        'inject',
        'text-encode',
        ...row,
        ...row,
        ...row,
        'multidiffusion-sampler',
        'vae-decode',
        'save-image',
      ];
      const ids = await chain(hands, types);
      const words = [1, 2, 4, 6];
      for (const [i, text] of [ROOM, SOFA[2], PLANT[2], PAINTING[2]].entries()) {
        await hands.open(element(ids[words[i]]));
        await page.locator('#node-input-prompt').focus();
        await hands.type(text);
        await hands.click(page.locator('#node-dialog-ok'));
        await page.waitForSelector('.red-ui-tray', { state: 'detached' });
      }
      // One dialog for all regions: each leads to its neighbours.
      await hands.open(element(ids[3]));
      await draw(hands, SOFA[0], SOFA[1]);
      for (const [from, to, text] of [PLANT, PAINTING]) {
        await hands.click(page.getByRole('button', { name: `Open ${text}` }));
        await page.locator('.multidiffusion-row.multidiffusion-selected', { hasText: text }).waitFor();
        await page.waitForTimeout(500); // one tray slides out, another in
        await draw(hands, from, to);
      }
      await editor.screenshot(`${short}-region-cover`);
      await hands.click(page.locator('#node-dialog-ok'));
      await page.waitForSelector('.red-ui-tray', { state: 'detached' });
      await deployAndPress(hands, ids[0]);
      await pictureIsMade(ids.at(-1)!);
      for (const [i, [from, to]] of [SOFA, PLANT, PAINTING].entries()) {
        const { box } = await editor.node<{ box: number[] }>(ids[3 + 2 * i]);
        assertNear(box, [from[0], from[1], to[0] - from[0], to[1] - from[1]]);
      }
      assert.ok(hands.actions <= 36, `${hands.actions} actions`);
    });

    describe('its dialog', () => {
      const REGIONS = [
        { name: 'sofa', prompt: SOFA[2], box: [0.31, 0.48, 0.56, 0.41] },
        {
          name: 'roof',
          prompt: 'a plant',
          polygon: [
            [0.1, 0.05],
            [0.5, 0.05],
            [0.5, 0.3],
            [0.1, 0.3],
          ],
        },
      ];
      const flow = (): FlowNode[] =>
        [
          { id: 'tab', type: 'tab', label: 'Compose' },
          { id: 'compose', type: 'compose', prompt: ROOM, regions: REGIONS, x: 150, y: 100, wires: [['encode']] },
          { id: 'encode', type: 'text-encode', x: 320, y: 100, wires: [['sampler']] },
          {
            id: 'sampler',
            type: 'multidiffusion-sampler',
            steps: 5,
            seedType: 'num',
            seed: 12,
            x: 520,
            y: 100,
            wires: [['decode'], [], [], []],
          },
          { id: 'decode', type: 'vae-decode', x: 520, y: 200, wires: [[]] },
        ].map((node) =>
          node.type === 'tab'
            ? node
            : { ...newNode(node.type, loadDefinition(node.type)), _: undefined, z: 'tab', ...node },
        ) as FlowNode[];
      const hands = (): Hands => new Hands(page);
      const canvas = (): Locator => page.locator('.multidiffusion-canvas');
      const regions = async (): Promise<Array<Record<string, unknown>>> =>
        (await editor.node<{ regions: Array<Record<string, unknown>> }>('compose')).regions;

      beforeEach(() => editor.load(flow()));

      it('draws before the deploy, with what stands in it, and offers variants', async () => {
        await editor.edit('compose');
        await page.getByLabel('Everywhere').fill('a kitchen');
        await page.getByRole('button', { name: 'Draw', exact: true }).click();
        await page.getByText('Done, with seed 12.').waitFor({ timeout: 60_000 });
        const href = await page.locator('.multidiffusion-backdrop').getAttribute('href');
        assert.match(href!, /^data:image\/png;base64,/);
        await page.getByLabel('How many variants').fill('2');
        await page.getByRole('button', { name: 'Variants', exact: true }).click();
        await page.getByText('2 of 2 drawn.').waitFor({ timeout: 60_000 });
        const variants = page.locator('.multidiffusion-variants button');
        assert.equal(await variants.count(), 2);
        const seed = Number(await variants.nth(1).innerText());
        await variants.nth(1).click();
        await editor.screenshot(`${short}-compose-variants`);
        await editor.done();
        const { prompt, seed: kept } = await editor.node<{ prompt: string; seed: number }>('compose');
        assert.deepEqual([prompt, kept], ['a kitchen', seed]);
      });

      it('cancels a drawing, and says why one fails', async () => {
        // Draw takes the sampler as it stands in the editor, deployed or not.
        await page.evaluate(() => (RED.nodes.node('sampler').steps = 900));
        await editor.edit('compose');
        await page.getByRole('button', { name: 'Draw', exact: true }).click();
        await page.getByText(/^Step \d+ of 900/).waitFor({ timeout: 60_000 });
        // The dialog is just asking how far the drawing is.
        const questions = /\/drawings\/.+seen=/;
        const question = await new Promise<Route>((resolve) => void page.route(questions, resolve));
        await page.getByRole('button', { name: 'Cancel drawing' }).click();
        await page.getByText('Cancelled.', { exact: true }).waitFor();
        await question.continue().catch(() => {});
        await page.unroute(questions);
        await page.locator('.multidiffusion-background summary').click();
        await page.getByLabel('Seed', { exact: true }).first().fill('-5');
        await page.getByRole('button', { name: 'Draw', exact: true }).click();
        // The panel says it, too.
        await page
          .locator('#multidiffusion-compose')
          .getByText(/payload\.seed is -5; allowed/)
          .waitFor();
        await editor.cancel();
      });

      it('leads to the panel, which cancels a drawing of a node that is not deployed', async () => {
        await page.evaluate(() => {
          RED.nodes.node('sampler').steps = 900;
          const compose = RED.nodes.convertNode(RED.nodes.node('compose'));
          RED.nodes.import([{ ...compose, id: 'undeployed', y: 300 }], { generateIds: false, addFlow: false });
          const [source, target] = ['undeployed', 'encode'].map((id) => RED.nodes.node(id) as unknown);
          RED.nodes.addLink({ source, sourcePort: 0, target });
          RED.view.redraw(true, true);
          RED.sidebar.show('info');
        });
        await editor.edit('undeployed');
        const panel = page.locator('.multidiffusion-panel');
        assert.equal(await panel.isVisible(), false);
        await page.getByRole('button', { name: 'Show all pictures' }).click();
        await panel.waitFor();
        const cancelled = panel.locator('.multidiffusion-job-cancelled');
        const before = await cancelled.count();
        await page.getByRole('button', { name: 'Draw', exact: true }).click();
        await page.getByText(/^Step \d+ of 900/).waitFor({ timeout: 60_000 });
        await panel.locator('.multidiffusion-job').getByRole('button', { name: 'Cancel' }).click();
        await page.getByText('Cancelled.', { exact: true }).waitFor();
        await cancelled.nth(before).waitFor();
        await editor.cancel();
      });

      it('draws by finger, without moving what is under it', async () => {
        const touching = await Editor.open(browser, nodeRed.url, { touch: true });
        await touching.page.locator('[id="compose"]').waitFor();
        await touching.edit('compose');
        const client = await touching.page.context().newCDPSession(touching.page);
        const frame = (await touching.page.locator('.multidiffusion-canvas').boundingBox())!;
        for (const [type, place] of [
          ['touchStart', [0.55, 0.06]],
          ['touchMove', [0.7, 0.2]],
          ['touchMove', [0.95, 0.4]],
          ['touchEnd', undefined],
        ] as Array<['touchStart' | 'touchMove' | 'touchEnd', Place | undefined]>) {
          const touchPoints = place
            ? [{ x: frame.x + place[0] * frame.width, y: frame.y + place[1] * frame.height }]
            : [];
          await client.send('Input.dispatchTouchEvent', { type, touchPoints });
        }
        await touching.page.keyboard.type('a painting');
        const small = await touching.page.locator('.multidiffusion-composer').evaluate((composer) =>
          Array.from(composer.querySelectorAll('button, textarea, summary'))
            .filter((control) => control.checkVisibility() && control.getBoundingClientRect().height < 44)
            .map((control) => control.outerHTML.slice(0, 120)),
        );
        assert.deepEqual(small, [], 'everything is large enough for a finger');
        await touching.screenshot(`${short}-compose-touch`);
        await touching.done();
        const { regions: drawn } = await touching.node<{ regions: Array<{ prompt: string; box: number[] }> }>(
          'compose',
        );
        assert.equal(drawn[2].prompt, 'a painting');
        assertNear(drawn[2].box, [0.55, 0.06, 0.4, 0.34]);
        assert.deepEqual(touching.errors, []);
        await touching.close();
      });

      it('works inside a subflow', async () => {
        const inside = flow()
          .filter(({ type }) => type !== 'tab')
          .map((node) => ({ ...node, z: 'sub' }));
        await editor.load([
          { id: 'tab', type: 'tab', label: 'Subflow' },
          { id: 'sub', type: 'subflow', name: 'a room', info: '', category: '', in: [], out: [], env: [] },
          ...inside,
          { id: 'use', type: 'subflow:sub', z: 'tab', x: 200, y: 100, wires: [] },
        ]);
        await page.evaluate(() => RED.workspaces.show('sub'));
        await editor.edit('compose');
        assert.equal(await canvas().locator('.multidiffusion-shape').count(), 2);
        await page.getByRole('button', { name: 'Draw', exact: true }).click();
        await page.getByText('Done, with seed 12.').waitFor({ timeout: 60_000 });
        await editor.screenshot(`${short}-compose-subflow`);
        await editor.cancel();
      });

      it('completes words that the model knows and marks those that it does not', async () => {
        await editor.edit('compose');
        const field = page.getByLabel('Words of region 1');
        await field.fill('a zebra on a so');
        await page.locator('.multidiffusion-row mark', { hasText: 'zebra' }).waitFor();
        await page.getByText('The model does not know: zebra').waitFor();
        await field.press('End');
        await page.keyboard.type('f');
        await page.getByRole('option', { name: 'sofa' }).waitFor();
        await page.keyboard.press('ArrowDown');
        await page.keyboard.press('Enter');
        assert.equal(await field.inputValue(), 'a zebra on a sofa');
        await editor.cancel();
        assert.equal((await regions())[0].prompt, SOFA[2], 'nothing is kept');
      });

      it('adds and removes corners of a polygon, removes one by a double click, and undoes all of it', async () => {
        await editor.edit('compose');
        await page.getByRole('button', { name: 'Region 2: roof' }).click();
        const corner = canvas().locator('[data-handle="2"]');
        await corner.dblclick();
        assert.equal(await canvas().locator('.multidiffusion-handle').count(), 3);
        await page.getByRole('button', { name: 'Undo' }).click();
        assert.equal(await canvas().locator('.multidiffusion-handle').count(), 4);
        await page.getByRole('button', { name: 'Redo' }).click();
        await page.keyboard.press('Control+z');
        assert.equal(await canvas().locator('.multidiffusion-handle').count(), 4);
        await corner.focus();
        await page.keyboard.press('Delete');
        await editor.done();
        assert.deepEqual((await regions())[1].polygon, [
          [0.1, 0.05],
          [0.5, 0.05],
          [0.1, 0.3],
        ]);
      });

      it('paints a mask, draws an ellipse on another region, and adds the rest', async () => {
        await editor.edit('compose');
        await page.getByRole('radio', { name: 'Draw an ellipse' }).click();
        await draw(hands(), [0.4, 0.55], [0.6, 0.75]);
        await page.keyboard.type('a cat');
        await page.getByRole('radio', { name: 'Paint a mask' }).click();
        await draw(hands(), [0.1, 0.8], [0.25, 0.9]);
        await page.keyboard.type('a dog');
        await page.getByRole('button', { name: 'The rest', exact: true }).click();
        await page.keyboard.type('<img src=x onerror=alert(1)>');
        await editor.screenshot(`${short}-compose-shapes`);
        await editor.done();
        const [, , ellipse, mask, rest] = await regions();
        assert.equal(ellipse.prompt, 'a cat');
        assertNear(ellipse.ellipse as number[], [0.4, 0.55, 0.2, 0.2]);
        assert.equal(mask.prompt, 'a dog');
        assert.match(String(mask.image), /^data:image\/png;base64,/);
        assert.ok(String(mask.image).length < 6000, `${String(mask.image).length} characters`);
        assert.deepEqual(rest, { prompt: '<img src=x onerror=alert(1)>', rest: true });
        await editor.deploy();
        await editor.edit('compose');
        assert.equal(await page.locator('.multidiffusion-mask').count(), 1);
        await editor.cancel();
      });

      it('splits into rows, which can be undone, and gathers them again', async () => {
        const before = await editor.node('compose');
        await editor.edit('compose');
        await page.getByRole('button', { name: 'Split into rows' }).click();
        await page.waitForSelector('.red-ui-tray', { state: 'detached' });
        const types = async (): Promise<string[]> => (await nodes()).map(({ type }) => type).sort();
        const row = ['region-mask', 'region-mask', 'text-encode', 'text-encode', 'text-encode'];
        assert.deepEqual(await types(), ['multidiffusion-sampler', ...row, 'vae-decode']);
        await editor.screenshot(`${short}-compose-rows`);
        await page.evaluate(() => RED.actions.invoke('multidiffusion:gather-rows-into-compose'));
        assert.deepEqual(await types(), ['compose', 'multidiffusion-sampler', 'text-encode', 'vae-decode']);
        const [gathered] = (await nodes()).filter(({ type }) => type === 'compose');
        for (const property of ['prompt', 'negativePrompt', 'regions'])
          assert.deepEqual(gathered[property], before[property], property);
        await editor.deploy();
        for (let i = 0; i < 2; i++) await page.evaluate(() => RED.actions.invoke('core:undo'));
        assert.deepEqual(await types(), ['compose', 'multidiffusion-sampler', 'text-encode', 'vae-decode']);
        const { regions: restored } = await editor.node('compose');
        assert.deepEqual(restored, before.regions);
        const wires = await page.evaluate(() => {
          const found: string[] = [];
          RED.nodes.eachLink((link: { source: FlowNode; target: FlowNode }) =>
            found.push(`${link.source.id} ${link.target.id}`),
          );
          return found.sort();
        });
        assert.deepEqual(wires, ['compose encode', 'encode sampler', 'sampler decode']);
      });

      it('has nothing serious for axe to find, at every width, and nothing wider than the dialog', async () => {
        for (const width of [1400, 1024, 820]) {
          await page.setViewportSize({ width, height: 800 });
          await editor.edit('compose');
          await page.locator('.multidiffusion-row summary').first().click();
          await assertAccessible(page, '.multidiffusion-composer', `${width}`);
          const [inner, outer] = await page
            .locator('.multidiffusion-composer')
            .evaluate((composer) => [composer.scrollWidth, composer.clientWidth]);
          assert.ok(inner <= outer + 1, `${inner} in ${outer} at ${width}`);
          await editor.screenshot(`${short}-compose-${width}`);
          await editor.cancel();
        }
        await page.setViewportSize({ width: 1400, height: 900 });
      });
    });
  });
}

/** Within a pixel or two of a canvas of some 400 pixels. */
function assertNear(actual: number[], expected: number[]): void {
  actual.forEach((value, i) =>
    assert.ok(Math.abs(value - expected[i]) < 0.02, `${JSON.stringify(actual)} is not ${JSON.stringify(expected)}`),
  );
}
