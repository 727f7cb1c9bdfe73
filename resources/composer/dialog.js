// @ts-check
/**
 * The dialog of the compose node: the composer, and what the editor adds to it: drawing before the deploy, variants,
 * and the way to rows and back.
 */
(function () {
  'use strict';
  const parts = (globalThis.MultiDiffusionCompose ??= {});

  const TEXTS = 'node-red-contrib-multidiffusion/compose:compose.';
  const MOST_VARIANTS = 16;
  const PROPERTIES = ['prompt', 'negativePrompt', 'width', 'height', 'seed', 'regions'];
  /** The last picture drawn in each node's dialog, so that it is there again when the dialog is. @type {Map<string, string>} */
  const pictures = new Map();

  /** @param {string} key @param {Record<string, unknown>} [values] @returns {string} */
  const dialogText = (key, values) => RED._(TEXTS + key, values);
  /** @param {string} key @param {Record<string, unknown>} [values] @returns {string} */
  const composerText = (key, values) => RED._(`${TEXTS}composer.${key}`, values);

  class Dialog {
    /** @param {any} node @param {HTMLElement} container */
    constructor(node, container) {
      const { make } = parts;
      this.node = node;
      this.scene = globalThis.MultiDiffusionScene.sceneOf(globalThis.MultiDiffusionScene.graphOfEditor(), node.id);
      /** @type {any} the picture that is being drawn */
      this.drawing = undefined;
      this.height = 460;
      this.composer = new parts.Composer(container, {
        layout: node,
        say: composerText,
        size: this.scene,
        maxHeight: () => this.height,
      });
      /** @type {string | undefined} the last finished picture */
      this.finished = undefined;
      void this.showLast();
      void parts.facts.inform(this.composer, this.scene);

      this.drawButton = this.button('draw', () => void this.draw(), 'multidiffusion-primary');
      this.cancelButton = this.button('cancel', () => this.cancel());
      this.variantsButton = this.button('variants', () => void this.drawVariants());
      this.count = make('input', { type: 'number', min: '2', max: String(MOST_VARIANTS), value: '4' });
      this.count.setAttribute('aria-label', dialogText('draw.count'));
      this.progress = make('progress', { max: 1, value: 0, hidden: true, 'aria-label': dialogText('draw.progress') });
      this.status = make('p', { className: 'multidiffusion-quiet', role: 'status' });
      this.findings = make('ul', { className: 'multidiffusion-findings' });
      this.grid = make('div', { className: 'multidiffusion-variants', role: 'group', hidden: true });
      this.grid.setAttribute('aria-label', dialogText('draw.grid'));
      const split = this.button('split', () => this.split());
      const panel = this.button('panel', () => {}, 'multidiffusion-show-gallery');
      this.cancelButton.hidden = true;
      this.composer.stage.append(
        make(
          'div',
          { className: 'multidiffusion-draw' },
          this.drawButton,
          this.cancelButton,
          make('span', { className: 'multidiffusion-joined' }, this.variantsButton, this.count),
          split,
          panel,
        ),
        this.progress,
        this.status,
        this.findings,
        this.grid,
      );
      if (!this.scene.sampler) this.say(dialogText('draw.noSampler'));
    }

    /** @param {string} key @param {() => void} act @param {string} [more] class @returns {HTMLButtonElement} */
    button(key, act, more = '') {
      const properties = { type: 'button', className: `multidiffusion-button ${more}` };
      const button = parts.make('button', properties, dialogText(`draw.${key}`));
      button.addEventListener('click', act);
      return button;
    }

    /** @param {string} text @param {boolean} [trouble] */
    say(text, trouble = false) {
      this.status.textContent = text;
      this.status.classList.toggle('multidiffusion-trouble', trouble);
    }

    async showLast() {
      const picture = await parts.fromGallery.backdropOf(this.node.id, this.scene.sampler?.id);
      if (!picture || this.drawing) return;
      this.finished = picture;
      this.composer.setBackdrop(picture);
    }

    // -- drawing --

    /** @param {string} picture which is there again when the dialog is */
    keep(picture) {
      this.finished = picture;
      pictures.set(this.node.id, picture);
    }

    /** @param {number} [seed] instead of the layout's @returns {Promise<any>} how it ended */
    draw(seed) {
      this.cancel();
      const { sampler, model } = this.scene;
      const layout = this.composer.value;
      this.findings.replaceChildren();
      const drawing = new parts.Drawing(
        {
          node: this.node.id,
          layout: seed === undefined ? layout : { ...layout, seed },
          model,
          bundled: parts.facts.isBundled(model ? RED.nodes.node(model) : undefined),
          sampler: sampler ? samplerOptions(sampler) : {},
        },
        (/** @type {any} */ news) => this.show(news),
      );
      this.drawing = drawing;
      this.setBusy(true);
      return drawing.result;
    }

    cancel() {
      this.variants = undefined;
      this.drawing?.cancel();
    }

    /** @param {boolean} busy */
    setBusy(busy) {
      this.cancelButton.hidden = !busy;
      this.progress.hidden = !busy;
      if (busy) this.progress.removeAttribute('value');
    }

    /** @param {any} news */
    show(news) {
      const { state, index, total, rate, position, picture, seed, findings, message } = news;
      if (picture) this.composer.setBackdrop(picture);
      if (state === 'queued') this.say(dialogText('draw.queued', { position }));
      else if (state === 'loading') this.say(dialogText('draw.loading'));
      else if (state === 'drawing') {
        if (total) Object.assign(this.progress, { max: total, value: index });
        this.say(total ? dialogText('draw.step', { index, total, rate }) : dialogText('draw.drawing'));
      } else this.setBusy(false);
      if (state === 'failed') this.say(message, true);
      if (state === 'cancelled') {
        this.say(dialogText('draw.cancelled'));
        this.composer.setBackdrop(this.finished);
      }
      if (state === 'done') {
        this.keep(picture ?? this.composer.backdrop);
        this.say(dialogText('draw.done', { seed }));
        this.findings.replaceChildren(
          ...findings.map((/** @type {string} */ finding) => parts.make('li', {}, finding)),
        );
      }
    }

    /** Draws the layout with several seeds, one after the other. */
    async drawVariants() {
      const count = parts.geometry.clamp(Math.round(Number(this.count.value)) || 4, 2, MOST_VARIANTS);
      this.count.value = String(count);
      this.cancel();
      const round = {};
      this.variants = round;
      this.grid.replaceChildren();
      this.grid.hidden = false;
      const first = Math.floor(Math.random() * 2 ** 31);
      for (let i = 0; i < count; i++) {
        const result = this.draw(first + i);
        this.variants = round;
        const { state, picture, seed } = await result;
        if (this.variants !== round || state !== 'done') return;
        this.addVariant(picture ?? this.composer.backdrop, seed);
        this.say(dialogText('draw.variant', { index: i + 1, total: count }));
      }
    }

    /** @param {string} picture @param {number} seed */
    addVariant(picture, seed) {
      const { make } = parts;
      const label = dialogText('draw.take', { seed });
      const button = make('button', { type: 'button', title: label, 'aria-label': label, 'aria-pressed': 'false' });
      button.append(make('img', { src: picture, alt: '' }), make('span', {}, String(seed)));
      button.addEventListener('click', () => {
        for (const other of this.grid.children) other.setAttribute('aria-pressed', String(other === button));
        this.composer.set({ seed: String(seed) }, 'variant');
        this.composer.setBackdrop(picture);
        this.keep(picture);
        this.say(dialogText('draw.taken', { seed }));
      });
      this.grid.append(button);
    }

    // -- the way to rows --

    /** Keeps what stands here, closes the dialog, and puts rows in the place of the node. */
    split() {
      const { id } = this.node;
      $('#node-dialog-ok').trigger('click');
      setTimeout(() => parts.rows.split(id), 0);
    }

    // -- the tray --

    /** @param {{width: number, height: number}} size */
    resize({ height }) {
      this.height = Math.max(220, Math.min(640, height - 200));
      this.composer.layout();
    }

    save() {
      const value = this.composer.value;
      for (const property of PROPERTIES) this.node[property] = value[property] ?? '';
      this.close();
    }

    close() {
      this.cancel();
      this.composer.destroy();
    }
  }

  /**
   * The sampler's options as they stand in the editor. What a message, the context or an expression would give is not
   * known here: the default holds.
   * @param {any} sampler
   */
  function samplerOptions(sampler) {
    const known = [undefined, '', 'num', 'str', 'bool'];
    return Object.fromEntries(
      Object.keys(sampler._def.defaults)
        .filter((name) => known.includes(sampler[`${name}Type`]))
        .map((name) => [name, sampler[name]]),
    );
  }

  parts.dialogText = dialogText;
  parts.composerText = composerText;
  parts.Dialog = Dialog;
  parts.pictures = pictures;
})();
