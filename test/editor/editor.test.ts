/** The nodes in a real browser: npm run test:browser. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import type { Browser, Locator } from 'playwright-core';
import { modulesOf, readFlow } from '../../scripts/lib/flow.js';
import { Editor, launchBrowser, type FlowNode } from './support/editor';
import { loadDefinition, newNode, TYPES as OURS } from '../unit/support/editor';
import { ROOT, startNodeRed, VERSIONS, type NodeRed } from './support/node-red';

const EXAMPLES = fs
  .readdirSync(path.join(ROOT, 'examples'))
  .filter((file) => file.endsWith('.json'))
  // Those that need other packages have tests of their own.
  .filter((file) => modulesOf(readFlow(path.join(ROOT, 'examples', file))).length === 0);

/** Two regions on a wide canvas, with the bundled model, or the tests' own where that is missing. */
function livingRoom(): FlowNode[] {
  const pocket = fs.existsSync(path.join(ROOT, 'models/pocket/model_index.json'));
  const model = pocket
    ? { checkpoint: 'pocket' }
    : { checkpoint: 'folder', folder: path.join(ROOT, 'test/fixtures/golden/checkpoints/tiny-sd2') };
  const at = (x: number, y: number) => ({ z: 'tab', x, y });
  const nodes: FlowNode[] = [
    { id: 'tab', type: 'tab', label: 'Living room' },
    { id: 'model', type: 'diffusion-model', provider: 'cpu', threads: 1, ...model },
    { id: 'draw', type: 'inject', name: 'draw', props: [], repeat: '', once: false, ...at(120, 80), wires: [['room']] },
    { id: 'room', type: 'text-encode', model: 'model', prompt: 'a living room', ...at(320, 80), wires: [['red']] },
    { id: 'red', type: 'text-encode', model: 'model', prompt: 'a red sofa', ...at(320, 160), wires: [['sofa']] },
    { id: 'sofa', type: 'region-mask', box: [0.25, 0.5, 0.5, 0.4], ...at(540, 160), wires: [['green']] },
    { id: 'green', type: 'text-encode', model: 'model', prompt: 'a plant', ...at(320, 240), wires: [['plant']] },
    {
      id: 'plant',
      type: 'region-mask',
      regionName: 'plant',
      box: [0.02, 0.4, 0.2, 0.5],
      ...at(540, 240),
      wires: [['sampler']],
    },
    {
      id: 'sampler',
      type: 'multidiffusion-sampler',
      model: 'model',
      width: 192,
      height: 128,
      steps: 12,
      seedType: 'num',
      seed: 7,
      ...at(320, 320),
      wires: [['decode']],
    },
    { id: 'decode', type: 'vae-decode', model: 'model', ...at(540, 320), wires: [['save']] },
    { id: 'save', type: 'save-image', filename: 'picture', overwrite: true, ...at(720, 320), wires: [['debug']] },
    {
      id: 'debug',
      type: 'debug',
      name: 'file',
      active: true,
      tosidebar: true,
      console: false,
      complete: 'filename',
      targetType: 'msg',
      ...at(720, 400),
      wires: [],
    },
  ];
  return nodes.map((node) =>
    (OURS as readonly string[]).includes(node.type)
      ? { ...newNode(node.type, loadDefinition(node.type)), _: undefined, ...node }
      : node,
  );
}

interface RegionNode {
  shape: string;
  box: number[];
  points: number[][];
}

/** The region canvas of the open dialog. */
class Canvas {
  readonly svg: Locator;
  readonly shape: Locator;
  constructor(private readonly editor: Editor) {
    this.svg = editor.page.locator('.multidiffusion-canvas');
    this.shape = this.svg.locator('.multidiffusion-selected');
  }

  handle(name: string): Locator {
    return this.svg.locator(`[data-handle="${name}"]`);
  }

  /** Presses the mouse at one place of the canvas and releases it at another; both as fractions. */
  async drag(from: [number, number], to: [number, number]): Promise<void> {
    const frame = (await this.svg.boundingBox())!;
    const at = ([x, y]: [number, number]): [number, number] => [frame.x + x * frame.width, frame.y + y * frame.height];
    const { mouse } = this.editor.page;
    await mouse.move(...at(from));
    await mouse.down();
    await mouse.move(...at([(from[0] + to[0]) / 2, (from[1] + to[1]) / 2]));
    await mouse.move(...at(to));
    await mouse.up();
  }

  async fields(): Promise<number[]> {
    const values = await this.editor.page
      .locator('.multidiffusion-numbers input[data-box]')
      .evaluateAll((inputs) => inputs.map((input) => (input as HTMLInputElement).value));
    return values.map((value) => Number(value) / 100);
  }
}

/** Within a pixel of a canvas of some 400 pixels, and the percent fields' rounding. */
function assertNear(actual: number[], expected: number[]): void {
  assert.equal(actual.length, expected.length);
  actual.forEach((value, i) =>
    assert.ok(Math.abs(value - expected[i]) < 0.006, `${JSON.stringify(actual)} is not ${JSON.stringify(expected)}`),
  );
}

for (const version of VERSIONS) {
  const short = version.name.replace(/\W+/g, '-').toLowerCase();

  describe(`the editor of ${version.name}`, function () {
    this.timeout(120_000);
    let nodeRed: NodeRed;
    let browser: Browser;
    let editor: Editor;

    before(async () => {
      nodeRed = await startNodeRed(version, {}, 'es-ES');
      browser = await launchBrowser();
      editor = await Editor.open(browser, nodeRed.url);
    });
    after(async () => {
      await browser?.close();
      await nodeRed?.stop();
    });
    afterEach(async function () {
      if (this.currentTest?.state === 'failed') {
        await editor?.screenshot(`${short}-failed`);
        await editor?.close(); // whatever dialog is still open must not spoil the next test
        editor = await Editor.open(browser, nodeRed.url);
      }
      assert.deepEqual(editor?.errors.splice(0) ?? [], [], 'the page reports no errors');
    });

    it('runs on a server that speaks another language than the browser', () => {
      assert.match(nodeRed.log(), /Flujos iniciados/);
    });

    it('shows all nodes in one category of the palette', async () => {
      const category = editor.page.locator('#red-ui-palette-container-multidiffusion');
      assert.equal(await category.locator('.red-ui-palette-header').innerText(), 'multidiffusion');
      const shown = await category
        .locator('.red-ui-palette-node')
        .evaluateAll((nodes) => nodes.map((node) => node.getAttribute('data-palette-type')));
      assert.deepEqual(shown.sort(), OURS.filter((type) => type !== 'diffusion-model').sort());
      const icons = await editor.page.evaluate(
        () => fetch('icons').then((answer) => answer.json()) as Promise<Record<string, string[]>>,
      );
      for (const type of OURS) assert.ok(icons['node-red-contrib-multidiffusion'].includes(`${type}.svg`), type);
      await category.scrollIntoViewIfNeeded();
      await editor.screenshot(`${short}-palette`);
    });

    it('explains every node', async () => {
      for (const type of OURS) {
        const help = await editor.page.evaluate((name) => RED.nodes.getNodeHelp(name) as string, type);
        assert.match(help, /^<p>[^<]+<\/p>/, `${type}: the first paragraph is the tooltip`);
        assert.match(help, /<h3[^>]*>Details/, type);
        if (type !== 'diffusion-model')
          assert.match(help, /<dl class="message-properties">/, `${type}: properties are a list`);
        await editor.page.evaluate((name) => RED.sidebar.help.show(name), type);
        await editor.page.locator('.red-ui-help h3').first().waitFor();
        await editor.screenshot(`${short}-help-${type}`);
      }
    });

    for (const example of EXAMPLES) {
      it(`imports ${example} and deploys it without a warning`, async () => {
        await editor.clear();
        await editor.importExample(example.replace('.json', ''));
        const invalid = await editor.page.evaluate(() => {
          const found: string[] = [];
          RED.nodes.eachNode(
            (node: { valid?: boolean; type: string; validationErrors?: string[] }) =>
              node.valid === false && found.push(`${node.type}: ${node.validationErrors?.join(', ')}`),
          );
          RED.nodes.eachConfig(
            (node: { valid?: boolean; type: string }) => node.valid === false && found.push(node.type),
          );
          return found;
        });
        assert.deepEqual(invalid, []);
        await editor.deploy();
        await editor.screenshot(`${short}-${example.replace('.json', '')}`);
      });
    }

    describe('edit dialogs', () => {
      before(() => editor.load(livingRoom()));

      for (const id of ['room', 'sofa', 'sampler', 'decode', 'save', 'model']) {
        it(`opens that of ${livingRoom().find((node) => node.id === id)!.type}, with every text in place`, async () => {
          const before = await editor.node(id);
          const form = await editor.edit(id);
          await form
            .locator('details')
            .evaluateAll((sections) => sections.forEach((section) => ((section as HTMLDetailsElement).open = true)));
          await assertTranslated(form);
          assert.equal(await form.locator('.input-error').count(), 0);
          await editor.screenshot(`${short}-dialog-${String(before.type)}`);
          await editor.done();
          // The editor asks for a node's credentials when its dialog opens, and keeps them beside its properties.
          const { credentials, ...after } = await editor.node(id);
          assert.deepEqual(after, before, 'nothing changes by looking');
          assert.ok(Object.values(credentials ?? {}).every((value) => value === ''));
        });
      }

      it('fills in the defaults that a node from an older flow lacks', async () => {
        await editor.load(
          livingRoom().map((node) =>
            node.id === 'sampler' ? { ...node, fusion: undefined, windowOverlap: undefined } : node,
          ),
        );
        const form = await editor.edit('sampler');
        assert.equal(await form.locator('.input-error').count(), 0);
        await editor.done();
        const { fusion, windowOverlap } = await editor.node<{ fusion: string; windowOverlap: string }>('sampler');
        assert.deepEqual([fusion, Number(windowOverlap)], ['average', 0.5]);
      });

      it('says what is wrong with a value, and takes it when it is right', async () => {
        const form = await editor.edit('sampler');
        const width = form.getByRole('textbox', { name: 'Width' });
        await width.fill('wide');
        await width.blur();
        const frame = form.locator('#node-input-width + .red-ui-typedInput-container');
        await form.locator('#node-input-width + .input-error').waitFor();
        await frame.hover();
        await editor.page.getByText('Width: wide is not a whole number from 16 to 16384.').first().waitFor();
        await form.locator('[data-section=bootstrapping] > summary').click();
        await form.locator('#node-input-bootstrapping').fill('3');
        await form.locator('#node-input-bootstrapping').blur();
        await form.locator('#node-input-bootstrapping.input-error').waitFor();
        await form.locator('#node-input-bootstrappingUnit').selectOption('steps');
        await form.locator('#node-input-bootstrapping').dispatchEvent('change');
        await form.locator('#node-input-bootstrapping.input-error').waitFor({ state: 'detached' });
        await form.locator('[data-section=bootstrapping] > summary').click();
        assert.equal(
          await form.locator('[data-section=bootstrapping] > summary > .multidiffusion-summary').innerText(),
          'Bootstrapping duration 3, Unit of the duration steps',
        );
        await editor.screenshot(`${short}-invalid`);
        await editor.done();
        assert.equal(await editor.page.evaluate(() => RED.nodes.node('sampler').valid as boolean), false);
        await assert.rejects(editor.deploy(), /not properly configured/);
        await editor.dismiss();
        await editor.load(livingRoom());
      });
    });

    it('shows the neighbours of a region inside a subflow, through its use', async () => {
      const row = livingRoom().filter(({ id }) => ['red', 'sofa'].includes(id));
      const tab = livingRoom().filter(({ id }) => !['red', 'sofa'].includes(id));
      const subflow = (uses: FlowNode[]): FlowNode[] => [
        ...tab.map((node) => (node.id === 'room' ? { ...node, wires: [uses.length ? ['use'] : ['green']] } : node)),
        {
          id: 'sub',
          type: 'subflow',
          name: 'a sofa',
          info: '',
          category: '',
          in: [{ x: 40, y: 40, wires: [{ id: 'red' }] }],
          out: [{ x: 600, y: 40, wires: [{ id: 'sofa', port: 0 }] }],
          env: [],
        },
        ...row.map((node) => ({ ...node, z: 'sub', wires: node.id === 'sofa' ? [[]] : node.wires })),
        ...uses,
      ];
      const open = async (): Promise<Locator> => {
        await editor.page.evaluate(() => RED.workspaces.show('sub'));
        return editor.edit('sofa');
      };
      await editor.load(subflow([{ id: 'use', type: 'subflow:sub', z: 'tab', x: 320, y: 160, wires: [['green']] }]));
      let form = await open();
      await form.locator('.multidiffusion-row-read', { hasText: 'a plant' }).waitFor();
      await form.getByText('Everywhere: a living room').waitFor();
      await editor.screenshot(`${short}-region-subflow`);
      await editor.cancel();
      await editor.load(subflow([]));
      form = await open();
      await form.getByText(/This subflow is not used in any flow yet/).waitFor();
      await editor.cancel();
      await editor.load(livingRoom());
    });

    describe('typed inputs', () => {
      beforeEach(() => editor.load(livingRoom()));

      it('say what they are to a screen reader, and keep what is chosen', async () => {
        const form = await editor.edit('sampler');
        for (const name of ['Width', 'Height', 'Steps', 'Guidance scale', 'Seed'])
          await form.getByRole('textbox', { name, exact: true }).waitFor();
        const kind = form.getByRole('button', { name: 'Steps: number' });
        await kind.click();
        await editor.page.locator('.red-ui-typedInput-options:visible a[value=flow]').click();
        await form.getByRole('button', { name: 'Steps: flow.' }).waitFor();
        await form.getByRole('textbox', { name: 'Steps', exact: true }).fill('wanted.steps');
        await editor.screenshot(`${short}-typed`);
        await editor.done();
        const { steps, stepsType } = await editor.node('sampler');
        assert.deepEqual([steps, stepsType], ['wanted.steps', 'flow']);
        await editor.deploy();
      });

      it('give a prompt several lines, and keep them beside a property that was tried', async () => {
        const form = await editor.edit('room');
        const prompt = form.getByRole('textbox', { name: 'Prompt', exact: true });
        await prompt.fill('a living room\nwith a window');
        const choose = async (value: string) => {
          await form.getByRole('button', { name: /^Prompt: / }).click();
          await editor.page.locator(`.red-ui-typedInput-options:visible a[value=${value}]`).click();
        };
        await choose('msg');
        assert.equal(await form.locator('textarea#node-input-prompt').isVisible(), false);
        await form.locator('#node-input-prompt-source-value').fill('words');
        await editor.screenshot(`${short}-prompt-from-message`);
        await editor.done();
        let node = await editor.node('room');
        assert.deepEqual([node.prompt, node.promptType], ['words', 'msg']);
        await editor.edit('room');
        await choose('str');
        await prompt.fill('a living room\nwith a window');
        await choose('msg');
        await choose('str');
        await editor.screenshot(`${short}-prompt`);
        await editor.done();
        node = await editor.node('room');
        assert.deepEqual([node.prompt, node.promptType], ['a living room\nwith a window', 'str']);
      });

      it('keep the names of environment variables in every kind of field', async () => {
        const named = (name: string) => '$' + `{${name}}`;
        const variables = {
          steps: named('STEPS'),
          fusion: named('FUSION'),
          windowOverlap: named('OVERLAP'),
          circular: named('CIRCULAR'),
          bootstrappingBackground: 'colour',
          bootstrappingColour: named('COLOUR'),
        };
        await editor.load(livingRoom().map((node) => (node.id === 'sampler' ? { ...node, ...variables } : node)));
        const form = await editor.edit('sampler');
        await form
          .locator('details')
          .evaluateAll((sections) => sections.forEach((section) => ((section as HTMLDetailsElement).open = true)));
        assert.equal(await form.locator('.input-error').count(), 0);
        for (const name of ['fusion', 'windowOverlap', 'circular', 'bootstrappingColour'] as const)
          assert.equal(await form.locator(`#node-input-${name}`).inputValue(), variables[name]);
        await editor.screenshot(`${short}-variables`);
        await form.locator('#node-input-name').fill('changed');
        await editor.done();
        const node = await editor.node('sampler');
        for (const [name, value] of Object.entries(variables)) assert.equal(node[name], value, name);
      });

      it('say that without a configuration node the bundled model draws', async () => {
        await editor.load(livingRoom().map((node) => (node.id === 'sampler' ? { ...node, model: '' } : node)));
        const form = await editor.edit('sampler');
        assert.equal(await form.locator('#node-input-model option:checked').textContent(), 'bundled model');
        await editor.done();
        assert.ok(!(await editor.node('sampler')).model);
      });

      it('show a flow of 0.1.0 as it was meant, and keep it when it is deployed', async () => {
        const saved = livingRoom().map((node) => {
          if (node.id !== 'sampler') return node;
          const { id, type, z, x, y, wires, model } = node;
          return { id, type, z, x, y, wires, model, width: 192, height: 128, seedMode: 'fixed', seed: '7', steps: 12 };
        });
        await editor.load(saved as FlowNode[]);
        const form = await editor.edit('sampler');
        assert.equal(await form.getByRole('textbox', { name: 'Seed', exact: true }).inputValue(), '7');
        await editor.done();
        const node = await editor.node('sampler');
        assert.deepEqual([node.seed, node.seedType, node.seedMode], ['7', 'num', undefined]);
      });
    });

    describe('region canvas', () => {
      beforeEach(() => editor.load(livingRoom()));

      it("has the sampler's proportions, the prompt as label, and the other regions faintly", async () => {
        await editor.edit('sofa');
        const canvas = new Canvas(editor);
        const frame = (await canvas.svg.boundingBox())!;
        assert.ok(Math.abs(frame.width / frame.height - 1.5) < 0.02);
        assert.deepEqual(await canvas.svg.locator('.multidiffusion-caption').allTextContents(), [
          '1 a red sofa',
          '2 plant',
        ]);
        const list = editor.page.locator('.multidiffusion-row-read');
        assert.deepEqual(await list.allTextContents(), ['a red sofa', 'a plant'], 'all words can be read');
        await editor.screenshot(`${short}-region`);
        await editor.cancel();
      });

      it('draws, moves and resizes by mouse, and saves the box', async () => {
        await editor.edit('sofa');
        const canvas = new Canvas(editor);
        await canvas.drag([0.6, 0.05], [0.9, 0.35]);
        assertNear(await canvas.fields(), [0.6, 0.05, 0.3, 0.3]);
        await canvas.drag([0.75, 0.2], [0.5, 0.5]);
        assertNear(await canvas.fields(), [0.35, 0.35, 0.3, 0.3]);
        await canvas.drag([0.65, 0.65], [0.8, 0.9]);
        assertNear(await canvas.fields(), [0.35, 0.35, 0.45, 0.55]);
        await canvas.drag([0.575, 0.6], [1.5, 0.6]);
        assertNear(await canvas.fields(), [0.55, 0.35, 0.45, 0.55]);
        await editor.done();
        const { box } = await editor.node<RegionNode>('sofa');
        assertNear(box, [0.55, 0.35, 0.45, 0.55]);
        assert.ok(
          await editor.page.evaluate(() => RED.nodes.node('sofa').changed as boolean),
          'the node is marked as changed',
        );
        await editor.deploy();
      });

      it('moves and resizes by keyboard', async () => {
        await editor.edit('sofa');
        const canvas = new Canvas(editor);
        const { keyboard } = editor.page;
        await canvas.shape.focus();
        for (const key of [
          'ArrowRight',
          'ArrowRight',
          'ArrowUp',
          'Shift+ArrowLeft',
          'Shift+ArrowDown',
          'Alt+ArrowRight',
        ])
          await keyboard.press(key);
        assertNear(await canvas.fields(), [0.271, 0.49, 0.49, 0.41]);
        await keyboard.press('Tab');
        assert.equal(
          await editor.page.evaluate(() => (document.activeElement as SVGElement | null)?.dataset.handle),
          'nw',
        );
        await keyboard.press('ArrowLeft');
        await keyboard.press('Delete');
        assertNear(await canvas.fields(), [0.261, 0.49, 0.5, 0.41]);
        await editor.done();
        assertNear((await editor.node<RegionNode>('sofa')).box, [0.261, 0.49, 0.5, 0.41]);
      });

      it('takes numbers, snaps to cells, and forgets all on cancel', async () => {
        await editor.edit('sofa');
        const canvas = new Canvas(editor);
        const x = editor.page.locator('input[data-box="0"]');
        await x.fill('10');
        await x.blur();
        assertNear(await canvas.fields(), [0.1, 0.5, 0.5, 0.4]);
        await editor.page.locator('input[data-box="2"]').fill('950');
        await x.fill('some');
        await x.blur();
        assertNear(await canvas.fields(), [0.1, 0.5, 0.9, 0.4]);
        await editor.page.locator('input[data-box="2"]').fill('');
        await x.focus();
        assertNear(await canvas.fields(), [0.1, 0.5, 0.9, 0.4]);
        await editor.page.getByLabel('Snap to cells').check();
        await canvas.drag([0.03, 0.03], [0.31, 0.31]);
        const { cell, width, height } = await editor.page.evaluate(
          () => RED.nodes.node('sofa').regionDialog.composer.size as { cell: number; width: number; height: number },
        );
        (await canvas.fields()).forEach((value, i) => {
          const cells = (value * (i % 2 === 0 ? width : height)) / cell;
          assert.ok(Math.abs(cells - Math.round(cells)) < 0.06, `${value} is ${cells} cells`);
        });
        await editor.cancel();
        assert.deepEqual((await editor.node<RegionNode>('sofa')).box, [0.25, 0.5, 0.5, 0.4]);
      });

      it('takes back a drag by Escape, and keeps the dialog open', async () => {
        await editor.edit('sofa');
        const canvas = new Canvas(editor);
        const frame = (await canvas.svg.boundingBox())!;
        await editor.page.mouse.move(frame.x + frame.width / 2, frame.y + frame.height * 0.7);
        await editor.page.mouse.down();
        await editor.page.mouse.move(frame.x + 40, frame.y + 40);
        await editor.page.keyboard.press('Escape');
        await editor.page.mouse.up();
        assertNear(await canvas.fields(), [0.25, 0.5, 0.5, 0.4]);
        assert.ok(await canvas.svg.isVisible());
        await editor.cancel();
      });

      it('makes an ellipse and a polygon of the box, adds and removes points', async () => {
        await editor.edit('sofa');
        const canvas = new Canvas(editor);
        await editor.page.locator('[data-shape=ellipse]').click();
        assert.match((await canvas.shape.locator('path').getAttribute('d'))!, /a/);
        await editor.page.locator('[data-shape=box]').click();
        await editor.page.locator('[data-shape=polygon]').click();
        assert.equal(await canvas.svg.locator('.multidiffusion-handle').count(), 4);
        await canvas.drag([0.5, 0.2], [0.5, 0.1]);
        assert.equal(await canvas.svg.locator('.multidiffusion-handle').count(), 5);
        await editor.screenshot(`${short}-polygon`);
        await canvas.handle('3').focus();
        await editor.page.keyboard.press('Delete');
        assert.equal(await canvas.svg.locator('.multidiffusion-handle').count(), 4);
        await editor.done();
        const { shape, points } = await editor.node<RegionNode>('sofa');
        assert.equal(shape, 'polygon');
        assert.deepEqual(
          [points[0], points[2], points[3]],
          [
            [0.25, 0.5],
            [0.75, 0.5],
            [0.25, 0.9],
          ],
        );
        assertNear(points[1], [0.5, 0.1]);
        await editor.deploy();
      });

      it('has no handles where there is nothing to draw', async () => {
        await editor.edit('sofa');
        const canvas = new Canvas(editor);
        await editor.page.locator('[data-shape=rest]').click();
        await canvas.handle('nw').waitFor({ state: 'detached' });
        await editor.page.locator('[data-shape=image]').click();
        await editor.page.locator('#node-input-image + .red-ui-typedInput-container').waitFor();
        await editor.done();
        assert.equal((await editor.node<RegionNode>('sofa')).shape, 'image');
      });
    });

    it('makes a picture when the button is pressed, and shows progress', async () => {
      await editor.load(livingRoom());
      await editor.page.evaluate(() => {
        const statuses: string[] = [];
        Object.assign(window, { statuses });
        RED.comms.subscribe('status/sampler', (_topic: string, status: { text?: string }) =>
          statuses.push(status.text ?? ''),
        );
        RED.sidebar.show('debug');
      });
      await editor.page.locator('[id="draw"] .red-ui-flow-node-button-button').click();
      const file = editor.page.locator('.red-ui-debug-msg-payload').first();
      // The gallery shows itself at the first job, in place of the sidebar with the messages.
      await file.waitFor({ state: 'attached', timeout: 60_000 });
      assert.match((await file.textContent())!, /picture\.png/);
      const picture = fs.readFileSync(path.join(nodeRed.userDir, 'multidiffusion/images/picture.png'));
      assert.equal(picture.subarray(1, 4).toString(), 'PNG');
      const status = (id: string) => editor.page.locator(`[id="${id}"] .red-ui-flow-node-status-label`);
      await status('sampler').getByText('done', { exact: true }).waitFor();
      await status('sofa')
        .getByText(/^regions: \d$/)
        .waitFor();
      const statuses = await editor.page.evaluate(() => (window as unknown as { statuses: string[] }).statuses);
      assert.ok(
        statuses.some((text) => /^\d+\/\d+ · [\d.]+\/s$/.test(text)),
        statuses.join(' | '),
      );
      await editor.screenshot(`${short}-picture`);
    });

    it('speaks Spanish', async () => {
      const spanish = await Editor.open(browser, nodeRed.url, { language: 'es-ES' });
      await spanish.page.locator('[id="sampler"]').waitFor();
      const form = await spanish.edit('sampler');
      assert.match(await form.innerText(), /Semilla/);
      await assertTranslated(form);
      // The statuses that the picture before has left.
      const status = (id: string) => spanish.page.locator(`[id="${id}"] .red-ui-flow-node-status-label`);
      await status('sampler').getByText('hecho').waitFor();
      await status('sofa')
        .getByText(/^regiones: \d$/)
        .waitFor();
      assert.match((await status('save').textContent())!, /^picture.*\.png$/);
      await spanish.screenshot(`${short}-es-sampler`);
      await spanish.cancel();
      const region = await spanish.edit('sofa');
      assert.match(await region.innerText(), /polígono/);
      await assertTranslated(region);
      await spanish.screenshot(`${short}-es-region`);
      assert.deepEqual(spanish.errors, []);
      await spanish.close();
    });

    if (version.name === 'Node-RED 5') {
      it('fits the dark theme', async () => {
        const dark = await Editor.open(browser, nodeRed.url, { dark: true });
        await dark.page.locator('[id="sampler"]').waitFor();
        await dark.screenshot(`${short}-dark-flow`);
        for (const id of ['sofa', 'sampler']) {
          const form = await dark.edit(id);
          const surfaces = await form
            .locator('.multidiffusion-canvas, input[type=text], select')
            .evaluateAll((elements) =>
              elements
                .filter((element) => element.checkVisibility())
                .map((element) => [
                  element.id || element.getAttribute('class'),
                  getComputedStyle(element).backgroundColor,
                ]),
            );
          assert.ok(surfaces.length > 2);
          for (const [name, colour] of surfaces) {
            const [red, green, blue, alpha = 1] = colour!.match(/[\d.]+/g)!.map(Number);
            assert.ok(alpha === 0 || red + green + blue < 240, `${name} is ${colour}`);
          }
          await dark.screenshot(`${short}-dark-${id}`);
          await dark.cancel();
        }
        assert.deepEqual(dark.errors, []);
        await dark.close();
      });
    }
  });
}

/** No key stands where its text should. */
async function assertTranslated(form: Locator): Promise<void> {
  const texts = await form.evaluate((element) => [
    (element as HTMLElement).innerText,
    ...Array.from(element.querySelectorAll('[placeholder], [aria-label], option')).map(
      (child) => child.getAttribute('placeholder') ?? child.getAttribute('aria-label') ?? child.textContent ?? '',
    ),
  ]);
  for (const text of texts) {
    assert.doesNotMatch(
      text,
      /\b(label|placeholder|section|summary|hint|canvas|shape|scheduler|provider|checkpoint|type)\.[a-z]\w*|__\w+__|\bundefined\b/i,
    );
  }
}
