// @ts-check
/**
 * The list beside the canvas: for every region its words, its order, and its options folded away.
 */
(function () {
  'use strict';
  const parts = (globalThis.MultiDiffusionCompose ??= {});

  /** @param {string} name @param {Record<string, any>} [properties] @param {...(Node | string)} children @returns {any} */
  function make(name, properties = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key in element && !key.includes('-')) /** @type {any} */ (element)[key] = value;
      else element.setAttribute(key, String(value));
    }
    element.append(...children);
    return element;
  }

  /** Drawings of 16 × 16, so that the page of an example needs no font. */
  const ICONS = {
    select: 'M3 2l10 6-4.5 1L11 13.5 9 14.5 6.6 10 3 13z',
    box: 'M2.5 3.5h11v9h-11z',
    ellipse: 'M2 8a6 4.5 0 1 0 12 0a6 4.5 0 1 0-12 0z',
    polygon: 'M8 2l6 5-2.5 6.5h-7L2 7z',
    brush: 'M13.5 2.5L7 9l-1 2 2-1 6.5-6.5zM5.5 10.5c-2 0-2 2.5-3.5 3 2.5.5 5 0 5-1.5z',
    erase: 'M9 3l4.5 4.5L8 13H5l-2.5-2.5zM6 6l4.5 4.5',
    image: 'M2 3h12v10H2zM2 11l4-4 3 3 2-2 3 3',
    rest: 'M2 3h12v10H2zM5 6h6v4H5z',
    undo: 'M6 3L2.5 6.5 6 10M3 6.5h6.5a3.5 3.5 0 0 1 0 7H6',
    redo: 'M10 3l3.5 3.5L10 10M13 6.5H6.5a3.5 3.5 0 0 0 0 7H10',
    up: 'M8 13V3M4 7l4-4 4 4',
    down: 'M8 3v10M4 9l4 4 4-4',
    remove: 'M4 4l8 8M12 4l-8 8',
    add: 'M8 3v10M3 8h10',
  };

  /** @param {keyof typeof ICONS} name */
  function icon(name) {
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    for (const [key, value] of Object.entries({ viewBox: '0 0 16 16', width: 16, height: 16, 'aria-hidden': 'true' }))
      svg.setAttribute(key, String(value));
    const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
    path.setAttribute('d', ICONS[name]);
    svg.append(path);
    return svg;
  }

  /** One region's row. */
  class Row {
    /** @param {any} host the composer @param {Region} region */
    constructor(host, region) {
      this.host = host;
      this.key = region.key;
      const { say } = host;
      this.element = make('li', { className: 'multidiffusion-row', 'data-region': region.key });
      this.number = make('button', { type: 'button', className: 'multidiffusion-number' });
      this.number.addEventListener('click', () => host.select(this.key));
      const words = make('div', { className: 'multidiffusion-row-words' });
      const head = make('div', { className: 'multidiffusion-row-head' }, this.number, words);
      this.element.append(head);
      this.editable = host.canEdit(region) && !host.only;
      if (!this.editable) {
        this.read = make('span', { className: 'multidiffusion-row-read' });
        words.append(this.read);
        if (host.canEdit(region)) return;
        this.open = make('button', { type: 'button', className: 'multidiffusion-button' }, say('list.open'));
        this.open.addEventListener('click', () => host.select(this.key));
        head.append(this.open);
        return;
      }
      this.words = new parts.words.WordsField(words, {
        label: say('list.words', { number: 1 }),
        placeholder: say('placeholder.words'),
        value: region.prompt,
        say: host.say,
        vocabulary: () => host.vocabulary,
        onchange: (/** @type {string} */ prompt) => this.set({ prompt }, 'words'),
        onfocus: () => host.select(this.key),
      });
      this.up = this.button('up', () => host.reorder(this.key, -1));
      this.down = this.button('down', () => host.reorder(this.key, 1));
      this.remove = this.button('remove', () => host.remove(this.key));
      head.append(make('span', { className: 'multidiffusion-row-buttons' }, this.up, this.down, this.remove));
      this.addOptions(region);
    }

    /** @param {keyof typeof ICONS} name @param {() => void} act */
    button(name, act) {
      const button = make('button', { type: 'button', className: 'multidiffusion-icon', title: '' }, icon(name));
      button.addEventListener('click', act);
      return button;
    }

    /** @param {Partial<Region>} values @param {string} kind */
    set(values, kind) {
      this.host.change(this.key, values);
      this.host.commit(`${kind} ${this.key}`);
    }

    /** @param {Region} region */
    addOptions(region) {
      const { host } = this;
      const { say } = host;
      this.details = make('details', { className: 'multidiffusion-options' });
      this.summary = make('span', { className: 'multidiffusion-options-set' });
      this.details.append(make('summary', {}, make('span', {}, say('list.options')), this.summary));
      const body = make('div', { className: 'multidiffusion-fields' });
      this.details.append(body);
      this.element.append(this.details);
      /** @type {Record<string, HTMLInputElement>} */
      this.inputs = {};
      const field = (/** @type {string} */ label, /** @type {any} */ input, wide = false) =>
        body.append(make('label', { className: wide ? 'multidiffusion-wide' : '' }, make('span', {}, label), input));
      const typed = (/** @type {string} */ name, /** @type {string} */ mode, /** @type {string} */ placeholder) => {
        const input = make('input', { type: 'text', inputMode: mode, placeholder });
        /** @type {any} */ (this.inputs)[name] = input;
        return input;
      };

      const name = typed('name', 'text', say('placeholder.name'));
      name.maxLength = 200;
      name.addEventListener('input', () => this.set({ name: name.value }, 'name'));
      field(say('label.name'), name);

      this.shape = make(
        'select',
        {},
        ...parts.layout.SHAPES.map((/** @type {string} */ shape) =>
          make('option', { value: shape }, say(`shape.${shape}`)),
        ),
      );
      this.shape.addEventListener('change', () => host.reshape(this.key, this.shape.value));
      field(say('label.shape'), this.shape);

      this.places = ['x', 'y', 'width', 'height'].map((side, i) => {
        const input = typed(side, 'decimal', '');
        input.addEventListener('change', () => host.setNumber(this.key, i, input.value));
        field(say(`label.${side}`), input);
        return input;
      });

      const negative = make('div', { className: 'multidiffusion-wide' }, make('span', {}, say('label.negativePrompt')));
      this.negative = new parts.words.WordsField(negative, {
        label: say('label.negativePrompt'),
        placeholder: say('placeholder.likeBackground'),
        value: region.negativePrompt,
        say: host.say,
        vocabulary: () => host.vocabulary,
        onchange: (/** @type {string} */ negativePrompt) => this.set({ negativePrompt }, 'negative'),
      });
      body.append(negative);

      this.file = typed('image', 'text', say('placeholder.file'));
      this.file.addEventListener('change', () => this.set({ image: this.file.value.trim() }, 'file'));
      const choose = make('button', { type: 'button', className: 'multidiffusion-button' }, say('list.choosePicture'));
      choose.addEventListener('click', () => host.choosePicture(this.key));
      this.imageField = make(
        'div',
        { className: 'multidiffusion-wide multidiffusion-image-field' },
        make('label', {}, make('span', {}, say('label.file')), this.file),
        choose,
      );
      body.append(this.imageField);

      for (const [option, range] of Object.entries(parts.layout.RANGES)) {
        const placeholder = range.standard === undefined ? say('placeholder.sampler') : String(range.standard);
        const input = typed(option, range.integer ? 'numeric' : 'decimal', placeholder);
        input.addEventListener('input', () => {
          const options = { ...this.region.options, [option]: parts.layout.numberOf(input.value) };
          this.set({ options }, option);
        });
        field(say(`label.${option}`), input);
      }
      this.bootstrap = make('input', { type: 'checkbox' });
      this.bootstrap.addEventListener('change', () => {
        this.set({ options: { ...this.region.options, bootstrap: this.bootstrap.checked } }, 'bootstrap');
      });
      body.append(
        make(
          'label',
          { className: 'multidiffusion-wide multidiffusion-check' },
          this.bootstrap,
          say('label.bootstrap'),
        ),
      );
    }

    /** @returns {Region} */
    get region() {
      return this.host.regions.find((/** @type {Region} */ region) => region.key === this.key);
    }

    /** @param {Region} region @param {number} index @param {number} count of all regions */
    show(region, index, count) {
      const { host } = this;
      const { say } = host;
      const label = host.labelOf(region, index) || say('canvas.unnamed', { number: index + 1 });
      const chosen = region.key === host.selected;
      this.element.style.setProperty('--hue', String(parts.HUES[index % parts.HUES.length]));
      this.element.classList.toggle('multidiffusion-selected', chosen);
      this.number.textContent = String(index + 1);
      this.number.setAttribute('aria-label', say('list.select', { number: index + 1, name: label }));
      this.number.setAttribute('aria-pressed', String(chosen));
      if (!this.editable) {
        this.read.textContent = region.prompt || label;
        this.open?.setAttribute('aria-label', say('list.openThis', { name: label }));
        return;
      }
      this.words.set(region.prompt, say('list.words', { number: index + 1 }));
      for (const [button, key, off] of [
        [this.up, 'list.up', index === 0],
        [this.down, 'list.down', index === count - 1],
        [this.remove, 'list.remove', false],
      ]) {
        const text = say(key, { number: index + 1 });
        button.title = text;
        button.setAttribute('aria-label', text);
        button.disabled = off;
      }
      this.showOptions(region);
    }

    /** @param {Region} region */
    showOptions(region) {
      const { RANGES, isAllowed } = parts.layout;
      const { extentOf, percent } = parts.geometry;
      const put = (/** @type {any} */ input, /** @type {unknown} */ value) => {
        if (input !== document.activeElement) input.value = String(value ?? '');
      };
      put(this.inputs?.name, region.name);
      this.shape.value = region.shape;
      const outlined = ['box', 'ellipse', 'polygon'].includes(region.shape);
      extentOf(region).forEach((/** @type {number} */ share, /** @type {number} */ i) => {
        put(this.places?.[i], percent(share));
        this.places?.[i].closest('label').toggleAttribute('hidden', !outlined);
      });
      this.negative.set(region.negativePrompt);
      this.imageField.hidden = region.shape !== 'image';
      const painted = parts.mask.isDataUri(region.image);
      put(this.file, painted ? '' : region.image);
      for (const [option, range] of Object.entries(RANGES)) {
        const input = /** @type {any} */ (this.inputs)[option];
        put(input, region.options[option]);
        input.setAttribute('aria-invalid', String(!isAllowed(region.options[option], range)));
      }
      this.bootstrap.checked = region.options.bootstrap !== false;
      const set = Object.entries(region.options).filter(([option, value]) => parts.layout.isSet(option, value));
      this.summary.textContent = [
        region.name,
        region.shape === 'box' ? '' : this.host.say(`shape.${region.shape}`),
        ...set.map(([option, value]) =>
          option === 'bootstrap'
            ? this.host.say('list.noBootstrap')
            : `${this.host.say(`label.${option}`)} ${String(value)}`,
        ),
      ]
        .filter(Boolean)
        .join(' · ');
    }
  }

  class List {
    /** @param {HTMLElement} container @param {any} host the composer */
    constructor(container, host) {
      this.host = host;
      this.element = make('ol', { className: 'multidiffusion-rows', 'aria-label': host.say('list.label') });
      container.append(this.element);
      /** @type {Map<string, Row>} */
      this.rows = new Map();
    }

    draw() {
      const { regions } = this.host;
      const gone = new Set(this.rows.keys());
      regions.forEach((/** @type {Region} */ region, /** @type {number} */ index) => {
        gone.delete(region.key);
        let row = this.rows.get(region.key);
        if (!row) {
          row = new Row(this.host, region);
          this.rows.set(region.key, row);
        }
        if (this.element.children[index] !== row.element) {
          const focused = /** @type {any} */ (row.element.contains(document.activeElement) && document.activeElement);
          this.element.insertBefore(row.element, this.element.children[index] ?? null);
          if (focused) focused.focus({ preventScroll: true });
        }
        row.show(region, index, regions.length);
      });
      for (const key of gone) {
        this.rows.get(key)?.element.remove();
        this.rows.delete(key);
      }
    }

    /** @param {string} key */
    focusWords(key) {
      this.rows.get(key)?.words?.input.focus({ preventScroll: false });
    }
  }

  parts.make = make;
  parts.icon = icon;
  parts.List = List;
})();
