// @ts-check
/**
 * The composer: a canvas with every region of a picture and a list of their words, in one. The editor's dialogs of
 * compose and region-mask use it, and the page of example 14. It edits a copy of a layout and binds nothing outside its
 * own elements.
 * @typedef {{
 *   layout: any,
 *   say: (key: string, values?: Record<string, unknown>) => string,
 *   size: {width: number, height: number, cell: number},
 *   only?: number,
 *   undrawn?: boolean,
 *   onchange?: (composition: Composition) => void,
 *   onopen?: (index: number) => void,
 *   maxHeight?: () => number,
 * }} Options
 *   size: of the canvas where the layout sets none, and the side of a latent cell, in pixels;
 *   only: the one region that can be changed; undrawn: its outline only stands in for one, and the first drag draws it;
 *   onopen: another region was asked for
 */
(function () {
  'use strict';
  const parts = (globalThis.MultiDiffusionCompose ??= {});

  const TOOLS = ['select', 'box', 'ellipse', 'polygon', 'brush'];
  const MAX_PICTURE_BYTES = 50_000_000;

  class Composer {
    /** @param {HTMLElement} container @param {Options} options */
    constructor(container, options) {
      this.options = options;
      this.say = options.say;
      this.composition = parts.layout.compositionOf(options.layout);
      this.only = options.only !== undefined;
      this.own = this.only ? this.composition.regions[options.only ?? 0]?.key : undefined;
      if (this.own && options.undrawn)
        this.composition.regions[options.only ?? 0] = { ...this.composition.regions[options.only ?? 0], drawn: false };
      this.selected = this.own;
      this.tool = 'select';
      this.snapping = false;
      this.erasing = false;
      this.brush = 0.12;
      this.vocabulary = new parts.words.Vocabulary();
      /** @type {Record<string, any>} the fields of the picture as a whole */
      this.numbers = {};
      /** @type {Record<string, any>} the buttons of the tools */
      this.tools = {};
      this.history = new parts.History(this.composition);
      this.build(container);
      this.draw();
    }

    /** @param {HTMLElement} container */
    build(container) {
      const { say } = this;
      const { make } = parts;
      container.replaceChildren();
      this.element = make('div', { className: `multidiffusion-composer${this.only ? ' multidiffusion-only' : ''}` });
      this.stage = make('div', { className: 'multidiffusion-stage' });
      this.frame = make('div', { className: 'multidiffusion-frame' });
      this.side = make('div', { className: 'multidiffusion-side' });
      this.element.append(make('div', { className: 'multidiffusion-columns' }, this.stage, this.side));
      container.append(this.element);

      this.buildToolbar();
      this.stage.append(this.frame);
      this.canvas = new parts.Canvas(this.frame, this);
      this.hint = make('p', { className: 'multidiffusion-quiet', role: 'status' });
      this.buildBackdrop();
      this.stage.append(this.hint);
      if (!this.only) this.buildBackground();
      this.side.append(make('h4', { className: 'multidiffusion-heading' }, say('list.label')));
      this.list = new parts.List(this.side, this);
      if (!this.only) this.buildAdding();
      this.after = make('div', { className: 'multidiffusion-after' });
      this.side.append(this.after);

      this.observer = new ResizeObserver(() => this.layout());
      this.observer.observe(this.stage);
      this.element.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => this.key(event));
    }

    buildToolbar() {
      const { say } = this;
      const { make, icon } = parts;
      this.toolbar = make('div', {
        className: 'multidiffusion-toolbar',
        role: 'toolbar',
        'aria-label': say('tool.label'),
      });
      const group = make('div', {
        className: 'multidiffusion-tools',
        role: 'radiogroup',
        'aria-label': say('tool.draw'),
      });
      for (const tool of this.only ? TOOLS.filter((name) => name === 'select') : TOOLS) {
        const button = make(
          'button',
          { type: 'button', className: 'multidiffusion-icon', role: 'radio', title: say(`tool.${tool}`) },
          icon(tool),
        );
        button.setAttribute('aria-label', say(`tool.${tool}`));
        button.addEventListener('click', () => this.setTool(tool));
        button.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => this.toolKey(event, tool));
        this.tools[tool] = button;
        group.append(button);
      }
      if (!this.only) this.toolbar.append(group);
      this.undoButton = this.action('undo', () => this.undo());
      this.redoButton = this.action('redo', () => this.redo());
      this.toolbar.append(make('span', { className: 'multidiffusion-tools' }, this.undoButton, this.redoButton));

      this.brushSize = make('input', { type: 'range', min: '2', max: '40', value: '12' });
      this.brushSize.addEventListener('input', () => (this.brush = Number(this.brushSize.value) / 100));
      this.eraser = make('input', { type: 'checkbox' });
      this.eraser.addEventListener('change', () => (this.erasing = this.eraser.checked));
      this.brushes = make(
        'span',
        { className: 'multidiffusion-brushes' },
        make('label', {}, say('tool.brushSize'), this.brushSize),
        make('label', {}, this.eraser, say('tool.erase')),
      );
      const snap = make('input', { type: 'checkbox', className: 'multidiffusion-snap' });
      snap.addEventListener('change', () => this.setSnapping(snap.checked));
      this.toolbar.append(this.brushes, make('label', { className: 'multidiffusion-check' }, snap, say('tool.snap')));
      this.sizeText = make('span', { className: 'multidiffusion-quiet multidiffusion-size' });
      this.toolbar.append(this.sizeText);
      this.stage.append(this.toolbar);
    }

    /** @param {'undo' | 'redo' | 'add' | 'image' | 'rest'} name @param {() => void} act */
    action(name, act) {
      const button = parts.make('button', {
        type: 'button',
        className: 'multidiffusion-icon',
        title: this.say(`tool.${name}`),
      });
      button.setAttribute('aria-label', this.say(`tool.${name}`));
      button.append(parts.icon(name));
      button.addEventListener('click', act);
      return button;
    }

    buildBackdrop() {
      const { make } = parts;
      this.strength = make('input', { type: 'range', min: '0', max: '100', value: '100' });
      this.strength.addEventListener('input', () => this.showBackdrop());
      this.backdropField = make(
        'label',
        { className: 'multidiffusion-backdrop-field', hidden: true },
        this.say('backdrop.label'),
        this.strength,
      );
      this.stage.append(this.backdropField);
    }

    buildBackground() {
      const { say } = this;
      const { make } = parts;
      const words = make('div', { className: 'multidiffusion-background' });
      words.append(make('h4', { className: 'multidiffusion-heading' }, say('label.background')));
      this.backgroundWords = new parts.words.WordsField(words, {
        label: say('label.background'),
        placeholder: say('placeholder.background'),
        value: this.composition.prompt,
        say,
        vocabulary: () => this.vocabulary,
        onchange: (/** @type {string} */ prompt) => this.set({ prompt }, 'background'),
      });
      const details = make('details', { className: 'multidiffusion-options' });
      this.pictureSummary = make('span', { className: 'multidiffusion-options-set' });
      details.append(make('summary', {}, make('span', {}, say('list.picture')), this.pictureSummary));
      const fields = make('div', { className: 'multidiffusion-fields' });
      const negative = make('div', { className: 'multidiffusion-wide' }, make('span', {}, say('label.negativePrompt')));
      this.backgroundNegative = new parts.words.WordsField(negative, {
        label: say('label.backgroundNegative'),
        placeholder: say('placeholder.negativePrompt'),
        value: this.composition.negativePrompt,
        say,
        vocabulary: () => this.vocabulary,
        onchange: (/** @type {string} */ negativePrompt) => this.set({ negativePrompt }, 'negative'),
      });
      fields.append(negative);
      for (const name of ['width', 'height', 'seed']) {
        const input = make('input', { type: 'text', inputMode: 'numeric', placeholder: say('placeholder.sampler') });
        input.addEventListener('input', () => this.set({ [name]: input.value.trim() }, name));
        this.numbers[name] = input;
        fields.append(make('label', {}, make('span', {}, say(`label.canvas.${name}`)), input));
      }
      details.append(fields);
      words.append(details);
      this.side.append(words);
    }

    buildAdding() {
      const { say } = this;
      const { make, icon } = parts;
      const button = (/** @type {'add' | 'image' | 'rest'} */ name, /** @type {() => void} */ act) => {
        const element = make(
          'button',
          { type: 'button', className: 'multidiffusion-button' },
          icon(name),
          say(`tool.${name}`),
        );
        element.addEventListener('click', act);
        return element;
      };
      this.picker = make('input', { type: 'file', accept: 'image/png,image/jpeg,image/webp,image/gif', hidden: true });
      this.picker.addEventListener('change', () => void this.takePicture());
      this.side.append(
        make(
          'div',
          { className: 'multidiffusion-adding' },
          button('add', () => this.addNow({ shape: 'box' })),
          button('image', () => this.choosePicture(undefined)),
          button('rest', () => this.addNow({ shape: 'rest' })),
          this.picker,
        ),
      );
    }

    // -- what the canvas and the list ask for --

    /** @returns {Region[]} */
    get regions() {
      return this.composition.regions;
    }

    /** @returns {{width: number, height: number, cell: number}} in pixels */
    get size() {
      const side = (/** @type {string} */ value, /** @type {number} */ standard) => {
        const number = Number(value);
        return number >= 16 && number <= 16384 ? number : standard;
      };
      const { size } = this.options;
      return {
        width: side(this.composition.width, size.width),
        height: side(this.composition.height, size.height),
        cell: size.cell,
      };
    }

    /** @param {Region} region @param {number} _index */
    labelOf(region, _index) {
      return region.name || region.prompt.trim().replace(/\s+/g, ' ');
    }

    /** @param {Region} region */
    canEdit(region) {
      return !this.only || region.key === this.own;
    }

    /** @param {string | undefined} key */
    select(key) {
      const region = this.regions.find((other) => other.key === key);
      if (this.only) {
        if (region && !this.canEdit(region)) this.options.onopen?.(this.regions.indexOf(region));
        return;
      }
      if (key === this.selected) return;
      this.selected = key;
      this.draw();
    }

    /** Changes a region; shown at once. @param {string} key @param {Partial<Region>} values */
    change(key, values) {
      this.composition = {
        ...this.composition,
        regions: this.regions.map((region) => {
          if (region.key !== key) return region;
          const changed = { ...region, ...values };
          if (changed.shape === 'polygon' && changed.points.length > 1)
            changed.box = parts.geometry.boundsOf(changed.points);
          return changed;
        }),
      };
      this.draw();
      this.options.onchange?.(this.composition);
    }

    /** Changes the picture as a whole. @param {Partial<Composition>} values @param {string} kind */
    set(values, kind) {
      this.composition = { ...this.composition, ...values };
      this.commit(kind);
      if ('width' in values || 'height' in values) this.layout();
    }

    /** Keeps what was changed. @param {string} [kind] */
    commit(kind) {
      this.history.push(this.composition, kind);
      this.draw();
      this.options.onchange?.(this.composition);
    }

    /** Takes back what was changed since the last commit. */
    revert() {
      this.restore(this.history.states[this.history.at]);
    }

    undo() {
      this.canvas.drag = null;
      this.restore(this.history.undo());
    }

    redo() {
      this.restore(this.history.redo());
    }

    /** @param {Composition | undefined} composition */
    restore(composition) {
      if (!composition) return;
      this.composition = composition;
      if (!this.regions.some(({ key }) => key === this.selected)) this.selected = this.own;
      this.layout();
      this.draw();
      this.options.onchange?.(this.composition);
    }

    /** A region that is being drawn; kept by commit. @param {Partial<Region>} values @returns {Region} */
    add(values) {
      const region = parts.layout.newRegion(values);
      this.composition = { ...this.composition, regions: [...this.regions, region] };
      return region;
    }

    /** @param {Partial<Region>} values */
    addNow(values) {
      const { key } = this.add(values);
      this.selected = key;
      this.commit();
      this.list.focusWords(key);
    }

    /** A new region has its outline: what is in it? @param {Region} region */
    drawn(region) {
      if (this.tool !== 'brush') this.setTool('select');
      if (!this.only) this.list.focusWords(region.key);
    }

    /** @param {string} key */
    remove(key) {
      if (this.only) return;
      const index = this.regions.findIndex((region) => region.key === key);
      this.composition = { ...this.composition, regions: this.regions.filter((region) => region.key !== key) };
      this.selected = undefined;
      this.commit();
      const next = this.regions[Math.min(index, this.regions.length - 1)];
      if (next) this.list.rows.get(next.key)?.number.focus({ preventScroll: true });
      else this.backgroundWords?.input.focus({ preventScroll: true });
    }

    /** @param {string} key @param {number} by places in the list */
    reorder(key, by) {
      const regions = [...this.regions];
      const from = regions.findIndex((region) => region.key === key);
      const to = parts.geometry.clamp(from + by, 0, regions.length - 1);
      regions.splice(to, 0, ...regions.splice(from, 1));
      this.composition = { ...this.composition, regions };
      this.commit();
    }

    /** A polygon takes the outline of what was there; a box or an ellipse its bounds. @param {string} key @param {string} shape */
    reshape(key, shape) {
      const region = this.regions.find((other) => other.key === key);
      if (!region || region.shape === shape) return;
      const { outlineOf } = parts.geometry;
      const points = shape === 'polygon' ? outlineOf(region.box, region.shape === 'ellipse') : [];
      this.change(key, { shape: /** @type {any} */ (shape), points });
      this.commit();
      if (shape === 'image' && !this.only) this.setTool('brush');
    }

    /** @param {string} key @param {number} index of x, y, width, height @param {string} typed in percent */
    setNumber(key, index, typed) {
      const region = this.regions.find((other) => other.key === key);
      const value = Number(typed.trim().replace(',', '.') || NaN) / 100;
      if (!region || !Number.isFinite(value)) return this.draw();
      const { extentOf, boxBetween, fitPoints, clamp } = parts.geometry;
      const box = [...extentOf(region)];
      // A place moves the region, a size keeps its place.
      box[index] = index < 2 ? clamp(value, 0, 1 - box[index + 2]) : clamp(value, 0.01, 1 - box[index - 2]);
      const to = boxBetween([box[0], box[1]], [box[0] + box[2], box[1] + box[3]]);
      const values = region.shape === 'polygon' ? { points: fitPoints(region.points, to) } : { box: to };
      this.change(key, { ...values, drawn: true });
      this.commit();
    }

    /** @param {string | undefined} key of the region that gets it; a new one without */
    choosePicture(key) {
      this.pickedFor = key;
      this.picker.value = '';
      this.picker.click();
    }

    async takePicture() {
      const [file] = this.picker.files ?? [];
      if (!file) return;
      const url = URL.createObjectURL(file);
      try {
        if (file.size > MAX_PICTURE_BYTES) throw new Error('size');
        const mask = new parts.mask.Mask(this.size.width, this.size.height);
        mask.take(await parts.mask.loadPicture(url));
        const image = mask.toDataURL();
        if (this.pickedFor) {
          this.change(this.pickedFor, { shape: 'image', image });
          this.commit();
        } else this.addNow({ shape: 'image', image });
      } catch {
        this.hint.textContent = this.say('list.noPicture', { name: file.name });
      } finally {
        URL.revokeObjectURL(url);
      }
    }

    /** @param {string} tool */
    setTool(tool) {
      if (this.canvas.drag?.kind === 'corners') this.canvas.closePolygon();
      this.tool = tool;
      this.draw();
    }

    /** @param {boolean} on whether coordinates keep to the latent cells */
    setSnapping(on) {
      this.snapping = on;
      this.draw();
    }

    // -- what the dialog or the page asks for --

    /** @param {string[] | undefined} entries */
    setVocabulary(entries) {
      this.vocabulary = new parts.words.Vocabulary(entries);
      this.draw();
    }

    /** @param {{width: number, height: number, cell: number}} size */
    setSize(size) {
      this.options.size = size;
      this.layout();
    }

    /** Shows another layout; that can be undone. @param {any} layout */
    setLayout(layout) {
      this.composition = parts.layout.compositionOf(layout);
      this.selected = undefined;
      this.commit();
      this.layout();
    }

    /** A picture behind the regions. @param {string | undefined} href */
    setBackdrop(href) {
      this.backdrop = href;
      this.showBackdrop();
    }

    showBackdrop() {
      this.backdropField.hidden = !this.backdrop;
      this.canvas.setBackdrop(this.backdrop, Number(this.strength.value) / 100);
    }

    /** @returns {Record<string, unknown>} the layout, with what is set only */
    get value() {
      const { prompt, negativePrompt, width, height, seed, regions } = this.composition;
      const { numberOf, layoutRegions } = parts.layout;
      const numbers = Object.entries({ width, height, seed }).filter(([, value]) => value !== '');
      return {
        prompt,
        ...(negativePrompt && { negativePrompt }),
        ...Object.fromEntries(numbers.map(([name, value]) => [name, numberOf(value)])),
        regions: layoutRegions(
          regions.filter((/** @type {Region} */ { shape, image }) => shape !== 'image' || image !== ''),
        ),
      };
    }

    destroy() {
      this.observer?.disconnect();
    }

    // -- showing --

    layout() {
      const width = this.frame.clientWidth;
      if (width > 0) this.canvas.layout(width, this.options.maxHeight?.() ?? 520);
    }

    draw() {
      const { say, size } = this;
      this.canvas.draw();
      this.list.draw();
      for (const [tool, button] of Object.entries(this.tools)) {
        button.setAttribute('aria-checked', String(tool === this.tool));
        button.tabIndex = tool === this.tool ? 0 : -1;
      }
      // A button that is disabled would lose the focus, and the editor would take the keys.
      this.undoButton.setAttribute('aria-disabled', String(!this.history.canUndo));
      this.redoButton.setAttribute('aria-disabled', String(!this.history.canRedo));
      this.brushes.hidden = this.tool !== 'brush';
      this.sizeText.textContent = say('canvas.size', size);
      const undrawn = this.only && this.regions.some((region) => region.key === this.own && !region.drawn);
      const hint = this.tool === 'select' ? (this.only ? (undrawn ? 'undrawn' : 'only') : 'select') : this.tool;
      const text = say(`hint.${hint}`);
      if (this.hint.textContent !== text) this.hint.textContent = text;
      if (!this.only) this.drawPicture();
    }

    drawPicture() {
      const { CANVAS_RANGES, isAllowed } = parts.layout;
      const { prompt, negativePrompt } = this.composition;
      this.backgroundWords.set(prompt);
      this.backgroundNegative.set(negativePrompt);
      for (const [name, input] of Object.entries(this.numbers)) {
        const value = /** @type {any} */ (this.composition)[name];
        if (input !== document.activeElement) input.value = value;
        input.setAttribute('aria-invalid', String(!isAllowed(value, CANVAS_RANGES[name])));
      }
      const { width, height, seed } = this.composition;
      this.pictureSummary.textContent = [
        width || height ? `${this.size.width} × ${this.size.height}` : '',
        seed === '' ? '' : `${this.say('label.canvas.seed')} ${seed}`,
        negativePrompt,
      ]
        .filter(Boolean)
        .join(' · ');
    }

    // -- keyboard --

    /** @param {KeyboardEvent} event @param {string} tool */
    toolKey(event, tool) {
      const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const next = TOOLS[(TOOLS.indexOf(tool) + step + TOOLS.length) % TOOLS.length];
      this.setTool(next);
      this.tools[next].focus();
    }

    /** @param {KeyboardEvent} event */
    key(event) {
      // Fields undo their own typing.
      const typing = /** @type {HTMLElement} */ (event.target).matches('textarea, input[type=text]');
      if (typing || !(event.ctrlKey || event.metaKey) || !/^[zy]$/i.test(event.key)) return;
      if (event.key.toLowerCase() === 'y' || event.shiftKey) this.redo();
      else this.undo();
      event.preventDefault();
      event.stopPropagation();
    }
  }

  parts.Composer = Composer;
})();
