// @ts-check
/** The dialog of region-mask: the composer with all regions of its picture, of which only its own can be changed. */
(function () {
  'use strict';
  const parts = (globalThis.MultiDiffusionCompose ??= {});

  const TEXTS = 'node-red-contrib-multidiffusion/compose:compose.composer.';
  const START = '0.25,0.25,0.5,0.5';

  /** @param {string} key @param {Record<string, unknown>} [values] @returns {string} */
  const composerText = (key, values) => RED._(TEXTS + key, values);

  /** A region of the workspace as a layout has it. @param {any} region @returns {object} */
  function layoutRegion({ name, prompt, shape, box, points, image, imageType }) {
    const outline = /** @type {Record<string, object>} */ ({
      box: { box },
      ellipse: { ellipse: box },
      polygon: { polygon: points },
      rest: { rest: true },
      // What a message brings can't be shown.
      image: { image: imageType === 'msg' ? '' : (image ?? '') },
    });
    return { name, prompt, ...(outline[shape] ?? { box }) };
  }

  class RegionDialog {
    /** @param {any} node @param {HTMLElement} form */
    constructor(node, form) {
      this.node = node;
      this.form = form;
      this.height = 360;
      const scene = globalThis.MultiDiffusionScene.sceneOf(globalThis.MultiDiffusionScene.graphOfEditor(), node.id);
      this.scene = scene;
      const undrawn = String(node.box) === START && ['box', 'ellipse'].includes(node.shape);
      this.composer = new parts.Composer(form.querySelector('#multidiffusion-region-canvas'), {
        layout: { regions: scene.regions.map(layoutRegion) },
        say: composerText,
        size: scene,
        only: scene.own,
        undrawn,
        onchange: () => this.showNumbers(),
        onopen: (/** @type {number} */ index) => this.open(scene.regions[index].id),
        maxHeight: () => this.height,
      });
      this.key = this.composer.own;
      void this.showLast();
      void parts.facts.inform(this.composer, scene);
      this.addNotes();
      this.bindNumbers();
      this.bindShapes();
      $('#node-input-regionName').on('input', (/** @type {any} */ event) =>
        this.composer.change(this.key, { name: event.target.value }),
      );
      this.showNumbers();
    }

    async showLast() {
      this.composer.setBackdrop(await parts.fromGallery.backdropOf(this.node.id, this.scene.sampler?.id));
    }

    /** What surrounds the region, as far as the list does not show it, and why something may be missing. */
    addNotes() {
      const { background, sampler, subflowUses } = this.scene;
      const notes = [];
      if (background) notes.push(composerText('scene.background', { words: background }));
      if (subflowUses === 0) notes.push(composerText('scene.unused'));
      else if (subflowUses > 1) notes.push(composerText('scene.several', { count: subflowUses }));
      if (!sampler) notes.push(composerText('scene.noSampler'));
      this.composer.after.append(...notes.map((text) => parts.make('p', { className: 'multidiffusion-quiet' }, text)));
    }

    /** @returns {Region} */
    get region() {
      return this.composer.regions.find((/** @type {Region} */ region) => region.key === this.key);
    }

    bindNumbers() {
      /** @type {HTMLInputElement[]} */
      this.numbers = [...this.form.querySelectorAll('input')].filter((input) => input.dataset.box !== undefined);
      this.numbers.forEach((input, index) => {
        input.addEventListener('change', () => {
          this.composer.setNumber(this.key, index, input.value);
          this.showNumbers(true);
        });
      });
    }

    /** @param {boolean} [all] also the one that is being typed in */
    showNumbers(all = false) {
      if (!this.key) return;
      const { extentOf, percent } = parts.geometry;
      const box = extentOf(this.region);
      this.numbers?.forEach((input, index) => {
        if (all || input !== document.activeElement) input.value = String(percent(box[index]));
      });
    }

    bindShapes() {
      const buttons = /** @type {HTMLElement[]} */ ([...this.form.querySelectorAll('.multidiffusion-shapes button')]);
      const choose = (/** @type {string} */ shape) => {
        $('#node-input-shape').val(shape).trigger('change');
        for (const button of buttons) {
          const chosen = button.dataset.shape === shape;
          button.setAttribute('aria-checked', String(chosen));
          button.tabIndex = chosen ? 0 : -1;
        }
        this.composer.reshape(this.key, shape);
        this.showNumbers();
      };
      buttons.forEach((button, index) => {
        button.addEventListener('click', () => choose(button.dataset.shape ?? 'box'));
        button.addEventListener('keydown', (event) => {
          const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
          if (!step) return;
          event.preventDefault();
          const next = buttons[(index + step + buttons.length) % buttons.length];
          next.click();
          next.focus();
        });
      });
      choose(this.node.shape);
    }

    /** Keeps what stands here, and opens the dialog of another region. @param {string} id */
    open(id) {
      const show = () => {
        RED.events.off('editor:close', show);
        setTimeout(() => RED.editor.edit(RED.nodes.node(id)), 0);
      };
      RED.events.on('editor:close', show);
      $('#node-dialog-ok').trigger('click');
    }

    /** @param {{height: number}} size */
    resize({ height }) {
      this.height = Math.max(200, Math.min(440, height - 365));
      this.composer.layout();
    }

    save() {
      const { box, points, shape } = this.region;
      this.node.box = [...box];
      this.node.points = shape === 'polygon' ? points.map((point) => [...point]) : [];
      this.close();
    }

    close() {
      this.composer.destroy();
    }
  }

  parts.RegionDialog = RegionDialog;
})();
