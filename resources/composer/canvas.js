// @ts-check
/**
 * The canvas with every region, each in its colour with its words. Regions are drawn, moved and resized with mouse,
 * fingers and keyboard. The canvas shows what its host holds and asks the host for every change.
 * @typedef {{
 *   readonly regions: Region[], readonly selected: string | undefined, readonly tool: string, readonly snapping: boolean,
 *   readonly only: boolean,
 *   readonly erasing: boolean, readonly brush: number, readonly size: {width: number, height: number, cell: number},
 *   say: (key: string, values?: Record<string, unknown>) => string,
 *   labelOf: (region: Region, index: number) => string,
 *   canEdit: (region: Region) => boolean,
 *   select: (key: string | undefined) => void,
 *   change: (key: string, values: Partial<Region>) => void,
 *   commit: (kind?: string) => void,
 *   revert: () => void,
 *   add: (values: Partial<Region>) => Region,
 *   remove: (key: string) => void,
 *   drawn: (region: Region) => void,
 *   setTool: (tool: string) => void,
 *   undo: () => void, redo: () => void,
 * }} Host change: shown at once, kept by commit or taken back by revert; drawn: a new region has its outline
 */
(function () {
  'use strict';
  const parts = (globalThis.MultiDiffusionCompose ??= {});

  const SVG = 'http://www.w3.org/2000/svg';
  const HANDLES = ['nw', 'n', 'ne', 'e', 'se', 's', 'sw', 'w'];
  /** @type {Record<string, Point>} */
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  /** Pixels a pointer must travel before a press becomes a drag. */
  const DRAG_THRESHOLD = 4;
  /** Pixels from a handle at which a finger still takes it. */
  const FINGER = 22;
  /** Hues of the regions, one after the other. */
  const HUES = [350, 215, 130, 35, 285, 185, 60, 320];

  /**
   * @param {string} name @param {Record<string, string | number>} attributes @param {Element} [parent]
   * @returns {any}
   */
  function create(name, attributes, parent) {
    const element = document.createElementNS(SVG, name);
    set(element, attributes);
    if (parent) parent.appendChild(element);
    return element;
  }
  /** @param {Element} element @param {Record<string, string | number>} attributes */
  function set(element, attributes) {
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  }

  class Canvas {
    /** @param {HTMLElement} container @param {Host} host */
    constructor(container, host) {
      this.host = host;
      /** @type {any} what the pointer is doing */
      this.drag = null;
      this.pixels = { width: 1, height: 1 };
      /** @type {Map<string, {image: string, mask: any, tint: string, hue: number}>} masks by region */
      this.masks = new Map();

      this.svg = create('svg', { class: 'multidiffusion-canvas', role: 'group' }, container);
      this.backdrop = create('image', { class: 'multidiffusion-backdrop', preserveAspectRatio: 'none' }, this.svg);
      this.grid = create('path', { class: 'multidiffusion-grid' }, this.svg);
      this.shapes = create('g', {}, this.svg);
      this.captions = create('g', { 'aria-hidden': 'true' }, this.svg);
      this.edges = create('g', { 'aria-hidden': 'true' }, this.svg);
      this.handles = create('g', {}, this.svg);
      this.announcement = document.createElement('div');
      this.announcement.className = 'multidiffusion-announcement';
      this.announcement.setAttribute('aria-live', 'polite');
      container.appendChild(this.announcement);

      this.svg.addEventListener('pointerdown', (/** @type {PointerEvent} */ event) => this.press(event));
      this.svg.addEventListener('pointermove', (/** @type {PointerEvent} */ event) => this.pull(event));
      this.svg.addEventListener('pointerup', (/** @type {PointerEvent} */ event) => this.release(event));
      this.svg.addEventListener('pointercancel', () => this.abandon());
      this.svg.addEventListener('dblclick', (/** @type {MouseEvent} */ event) => this.doubleClick(event));
      this.svg.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => this.key(event));
      this.svg.addEventListener('focusin', (/** @type {FocusEvent} */ event) => {
        const { key } = /** @type {SVGElement} */ (event.target).dataset;
        const region = host.regions.find((other) => other.key === key);
        // A region that is another node's opens by Enter, not by being passed.
        if (region && !this.drag && host.canEdit(region)) host.select(region.key);
      });
    }

    /** Fits the canvas into a space, keeping its proportions. @param {number} width @param {number} height in pixels */
    layout(width, height) {
      const { size } = this.host;
      const scale = Math.min(width / size.width, height / size.height);
      this.pixels = {
        width: Math.max(1, Math.round(size.width * scale)),
        height: Math.max(1, Math.round(size.height * scale)),
      };
      set(this.svg, { ...this.pixels, viewBox: `0 0 ${this.pixels.width} ${this.pixels.height}` });
      this.draw();
    }

    /** @param {string | undefined} href a picture behind the regions @param {number} strength from 0 to 1 */
    setBackdrop(href, strength) {
      if (href) set(this.backdrop, { href, opacity: strength });
      else this.backdrop.removeAttribute('href');
      this.svg.classList.toggle('multidiffusion-with-backdrop', Boolean(href));
    }

    /** @returns {Region | undefined} */
    get current() {
      return this.host.regions.find(({ key }) => key === this.host.selected);
    }

    // -- drawing --

    /** @param {Pick<Region, 'shape' | 'box' | 'points'>} region @param {boolean} [open] @returns {string} path data in pixels */
    path({ shape, box, points }, open) {
      const { width, height } = this.pixels;
      if (shape === 'polygon') {
        if (points.length === 0) return '';
        return 'M' + points.map(([x, y]) => `${x * width} ${y * height}`).join('L') + (open ? '' : 'Z');
      }
      const [x, y, w, h] = (shape === 'box' || shape === 'ellipse' ? box : [0, 0, 1, 1]).map((share, i) =>
        i % 2 === 0 ? share * width : share * height,
      );
      if (shape === 'ellipse')
        return `M${x} ${y + h / 2}a${w / 2} ${h / 2} 0 1 0 ${w} 0a${w / 2} ${h / 2} 0 1 0 ${-w} 0Z`;
      return `M${x} ${y}h${w}v${h}h${-w}Z`;
    }

    draw() {
      const { host } = this;
      const { size, tool } = host;
      set(this.svg, { 'aria-label': host.say('canvas.label', size), 'data-tool': tool });
      set(this.backdrop, this.pixels);
      set(this.grid, { d: this.gridPath() });
      this.drawShapes();
      this.drawCaptions();
      this.drawHandles();
    }

    /** Thirds, or the latent cells while snapping (every fourth where they would be too fine to see). */
    gridPath() {
      const { width, height } = this.pixels;
      const { size, snapping } = this.host;
      let columns = snapping ? size.width / size.cell : 3;
      let rows = snapping ? size.height / size.cell : 3;
      while (snapping && width / columns < 6) {
        columns /= 4;
        rows /= 4;
      }
      let data = '';
      for (let i = 1; i < columns; i++) data += `M${(i * width) / columns} 0V${height}`;
      for (let i = 1; i < rows; i++) data += `M0 ${(i * height) / rows}H${width}`;
      return data;
    }

    /** The small regions lie on the large ones, so that each can be reached; the selected one on all. */
    drawShapes() {
      const { host } = this;
      const { extentOf } = parts.geometry;
      const known = new Map([...this.shapes.children].map((element) => [element.dataset.key, element]));
      const order = host.regions
        .map((region, index) => ({ region, index, area: extentOf(region)[2] * extentOf(region)[3] }))
        .sort((a, b) => b.area - a.area || a.index - b.index)
        .sort((a, b) => Number(a.region.key === host.selected) - Number(b.region.key === host.selected));
      order.forEach(({ region, index }, place) => {
        const element = known.get(region.key) ?? create('g', { 'data-key': region.key, tabindex: 0, role: 'img' });
        known.delete(region.key);
        // A shape that is put where it is already would lose the focus.
        if (this.shapes.children[place] !== element) this.place(element, place);
        this.drawShape(element, region, index);
      });
      for (const element of known.values()) element.remove();
    }

    /** @param {SVGElement} element @param {number} place */
    place(element, place) {
      const focused = document.activeElement === element;
      this.shapes.insertBefore(element, this.shapes.children[place] ?? null);
      if (focused) element.focus({ preventScroll: true });
    }

    /** @param {SVGElement} element @param {Region} region @param {number} index */
    drawShape(element, region, index) {
      const { host } = this;
      const chosen = region.key === host.selected;
      element.style.setProperty('--hue', String(HUES[index % HUES.length]));
      set(element, {
        class: [
          'multidiffusion-shape',
          `multidiffusion-shape-${region.shape}`,
          chosen ? 'multidiffusion-selected' : '',
          host.canEdit(region) ? '' : 'multidiffusion-fixed',
          region.drawn ? '' : 'multidiffusion-undrawn',
        ].join(' '),
        'aria-label': this.description(region, index),
      });
      const path = element.querySelector('path') ?? create('path', { class: 'multidiffusion-region' }, element);
      const open = this.drag?.kind === 'corners' && chosen;
      set(path, { d: this.path(region, open) });
      const masked = region.shape === 'image';
      let picture = element.querySelector('image');
      if (!masked) picture?.remove();
      else {
        picture ??= create('image', { class: 'multidiffusion-mask', preserveAspectRatio: 'none' }, element);
        this.tint(/** @type {SVGImageElement} */ (picture), region, HUES[index % HUES.length]);
        set(/** @type {SVGImageElement} */ (picture), this.pixels);
      }
    }

    /** @param {SVGImageElement} element @param {Region} region @param {number} hue */
    tint(element, region, hue) {
      const entry = this.maskOf(region);
      if (!entry) return element.removeAttribute('href');
      if (entry.hue !== hue || !entry.tint) {
        entry.hue = hue;
        entry.tint = entry.mask.tinted(`hsl(${hue} 75% 45%)`);
      }
      if (element.getAttribute('href') !== entry.tint) set(element, { href: entry.tint });
    }

    /**
     * The mask of a region, which is there at once where it has been painted here.
     * @param {Region} region @returns {{image: string, mask: any, tint: string, hue: number} | undefined}
     */
    maskOf(region) {
      const { Mask, loadPicture, isDataUri } = parts.mask;
      const entry = this.masks.get(region.key);
      if (entry?.image === region.image) return entry;
      if (region.image !== '' && !isDataUri(region.image)) return undefined; // a file in the mask directory
      const mask = new Mask(this.host.size.width, this.host.size.height);
      const made = { image: region.image, mask, tint: '', hue: 0 };
      this.masks.set(region.key, made);
      if (region.image !== '')
        loadPicture(region.image).then(
          (/** @type {HTMLImageElement} */ picture) => {
            mask.take(picture);
            made.tint = '';
            this.draw();
          },
          () => undefined, // the run time reports a picture that can't be read
        );
      return made;
    }

    drawCaptions() {
      const { extentOf } = parts.geometry;
      const { width, height } = this.pixels;
      const regions = this.host.regions;
      while (this.captions.childNodes.length > regions.length) this.captions.lastChild.remove();
      /** @type {Set<number>} where captions in the corner stand already */
      const lines = new Set();
      regions.forEach((region, index) => {
        const text = this.captions.childNodes[index] ?? create('text', {}, this.captions);
        const drawnAs = ['box', 'ellipse', 'polygon'].includes(region.shape);
        const [x, y, w, h] = extentOf(region);
        text.style.setProperty('--hue', String(HUES[index % HUES.length]));
        text.style.textAnchor = region.shape === 'ellipse' ? 'middle' : 'start';
        const chosen = region.key === this.host.selected;
        let line = y * height + 15;
        if (!drawnAs) {
          line = height - 8;
          while (lines.has(line)) line -= 15;
          lines.add(line);
        }
        set(text, {
          class: `multidiffusion-caption${chosen ? ' multidiffusion-caption-selected' : ''}`,
          x: region.shape === 'ellipse' ? (x + w / 2) * width : x * width + 6,
          y: region.shape === 'ellipse' ? (y + h / 2) * height + 4 : line,
        });
        text.textContent = fitted(`${index + 1} ${this.host.labelOf(region, index)}`.trim(), w * width);
      });
    }

    drawHandles() {
      const { width, height } = this.pixels;
      const { host, current: region } = this;
      const { percent } = parts.geometry;
      /** @type {Array<{id: string, x: number, y: number, label: string}>} */
      let wanted = [];
      this.edges.replaceChildren();
      if (region && region.drawn && host.canEdit(region)) {
        if (region.shape === 'polygon') {
          wanted = region.points.map(([x, y], index) => ({
            id: String(index),
            x,
            y,
            label: host.say('canvas.point', { index: index + 1, x: percent(x), y: percent(y) }),
          }));
          if (region.points.length > 2 && this.drag?.kind !== 'corners') this.drawEdges(region.points);
        } else if (region.shape === 'box' || region.shape === 'ellipse') {
          const [x, y, w, h] = region.box;
          wanted = HANDLES.map((id) => ({
            id,
            x: id.includes('w') ? x : id.includes('e') ? x + w : x + w / 2,
            y: id.includes('n') ? y : id.includes('s') ? y + h : y + h / 2,
            label: host.say('canvas.handle.' + id),
          }));
        }
      }
      // Handles are reused, so that the one with the focus keeps it.
      while (this.handles.childNodes.length > wanted.length) this.handles.lastChild.remove();
      wanted.forEach(({ id, x, y, label }, index) => {
        const handle =
          this.handles.childNodes[index] ||
          create(
            'rect',
            { class: 'multidiffusion-handle', tabindex: 0, role: 'button', width: 10, height: 10 },
            this.handles,
          );
        const round = region?.shape === 'polygon' ? 5 : 2;
        set(handle, { x: x * width - 5, y: y * height - 5, rx: round, 'data-handle': id, 'aria-label': label });
      });
    }

    /** @param {Point[]} points */
    drawEdges(points) {
      const { width, height } = this.pixels;
      points.forEach(([ax, ay], index) => {
        const [bx, by] = points[(index + 1) % points.length];
        const attributes = { 'data-edge': index + 1, cx: ((ax + bx) / 2) * width, cy: ((ay + by) / 2) * height, r: 4 };
        create('circle', { class: 'multidiffusion-edge', ...attributes }, this.edges);
      });
    }

    /** @param {Region} region @param {number} index @returns {string} the region in words, for screen readers */
    description(region, index) {
      const { extentOf, percent } = parts.geometry;
      const [x, y, width, height] = extentOf(region).map(percent);
      const { say } = this.host;
      const name = this.host.labelOf(region, index) || say('canvas.unnamed', { number: index + 1 });
      const values = { number: index + 1, name, shape: say(`shape.${region.shape}`), x, y, width, height };
      return say(this.host.canEdit(region) ? 'canvas.region' : 'canvas.neighbour', values);
    }

    // -- pointer --

    /** @param {MouseEvent} event @param {boolean} [free] without grid @returns {Point} */
    at(event, free) {
      const { clamp } = parts.geometry;
      const frame = this.svg.getBoundingClientRect();
      const x = clamp((event.clientX - frame.left) / frame.width, 0, 1);
      const y = clamp((event.clientY - frame.top) / frame.height, 0, 1);
      return free ? [x, y] : this.snapped([x, y]);
    }

    /** @returns {Point} the side of a latent cell as shares of the canvas; [0, 0] while not snapping */
    step() {
      const { snapping, size } = this.host;
      return snapping ? [size.cell / size.width, size.cell / size.height] : [0, 0];
    }

    /** @param {Point} point @returns {Point} */
    snapped([x, y]) {
      const { round, snap } = parts.geometry;
      const [sx, sy] = this.step();
      return [round(snap(x, sx)), round(snap(y, sy))];
    }

    /** @param {PointerEvent} event */
    press(event) {
      if (event.button !== 0 || (this.drag && this.drag.kind !== 'corners')) return;
      event.preventDefault();
      const focus = this.begin(event);
      if (!this.drag) return;
      Object.assign(this.drag, {
        from: this.at(event, true),
        x: event.clientX,
        y: event.clientY,
        moved: this.drag.moved === true,
      });
      this.svg.setPointerCapture(event.pointerId);
      focus?.focus({ preventScroll: true });
    }

    /** What a press begins. @param {PointerEvent} event @returns {SVGElement | undefined} what gets the focus */
    begin(event) {
      const { host } = this;
      const target = this.touched(event);
      const { handle, edge } = target.dataset;
      if (this.drag?.kind === 'corners') return this.addCorner(event);
      const region = this.current;
      if (host.tool === 'brush') return this.beginStroke(event);
      if (region && !region.drawn && host.canEdit(region)) {
        // The first drag draws, wherever it begins: the outline only stands in for one.
        const { tool } = host;
        const shape = tool === 'select' ? region.shape : tool;
        if (shape === 'polygon') return this.beginPolygon(event, region);
        this.drag = { kind: 'draw', corner: this.at(event), shape, key: region.key };
        return undefined;
      }
      if (region && handle !== undefined) {
        this.drag = { kind: 'handle', handle };
        return target;
      }
      if (region && edge !== undefined) {
        const points = [...region.points];
        points.splice(Number(edge), 0, this.at(event));
        host.change(region.key, { points });
        this.drag = { kind: 'handle', handle: edge, moved: true };
        return this.handles.childNodes[Number(edge)];
      }
      const key = /** @type {HTMLElement | null} */ (target.closest('[data-key]'))?.dataset.key;
      if (key && host.tool === 'select') {
        const touched = /** @type {Region} */ (host.regions.find((other) => other.key === key));
        this.drag = { kind: host.canEdit(touched) ? 'move' : 'open', key, before: touched };
        if (host.canEdit(touched)) host.select(key);
        return /** @type {SVGElement} */ (target.closest('[data-key]'));
      }
      if (host.tool === 'polygon') return this.beginPolygon(event);
      if (host.only && region) return this.beginAgain(event, region);
      this.drag = { kind: 'draw', corner: this.at(event), shape: host.tool === 'ellipse' ? 'ellipse' : 'box' };
      return undefined;
    }

    /**
     * On an empty place, where there is only one region to draw: it is drawn anew, and a polygon gets one more corner.
     * @param {PointerEvent} event @param {Region} region
     */
    beginAgain(event, region) {
      const { size } = this.host;
      const point = this.at(event);
      if (region.shape !== 'polygon') {
        if (region.shape === 'box' || region.shape === 'ellipse')
          this.drag = { kind: 'draw', corner: point, shape: region.shape, key: region.key };
        return undefined;
      }
      const index = parts.geometry.insertionIndex(region.points, point, size.width / size.height);
      const points = [...region.points];
      points.splice(index, 0, point);
      this.host.change(region.key, { points });
      this.drag = { kind: 'handle', handle: String(index), moved: true };
      return this.handles.childNodes[index];
    }

    /** @param {PointerEvent} event @param {Region} [region] that has no outline yet */
    beginPolygon(event, region) {
      const { host } = this;
      const points = [this.at(event)];
      if (region) host.change(region.key, { shape: 'polygon', points, drawn: true });
      const key = region?.key ?? host.add({ shape: 'polygon', points }).key;
      this.drag = { kind: 'corners', key };
      host.select(key);
      this.draw();
      return undefined;
    }

    /** @param {PointerEvent} event */
    addCorner(event) {
      const region = this.current;
      const { handle } = this.touched(event).dataset;
      if (!region) return undefined;
      if (handle === '0' && region.points.length >= 3) this.closePolygon();
      else if (handle === undefined) this.host.change(region.key, { points: [...region.points, this.at(event)] });
      return undefined;
    }

    /** Ends a polygon that is being drawn; with less than three corners it is none. */
    closePolygon() {
      const region = this.current;
      if (this.drag?.kind !== 'corners') return;
      this.drag = null;
      const points = (region?.points ?? []).filter((point, i, all) => i === 0 || String(point) !== String(all[i - 1]));
      if (!region || points.length < 3) return this.host.revert();
      this.host.change(region.key, { points });
      this.host.commit();
      this.host.drawn(region);
    }

    /** @param {PointerEvent} event */
    beginStroke(event) {
      const { host } = this;
      let region = this.current;
      if (!region || region.shape !== 'image' || !host.canEdit(region) || !this.maskOf(region)) {
        if (host.erasing) return undefined;
        region = host.add({ shape: 'image', image: '' });
        host.select(region.key);
      }
      this.drag = { kind: 'stroke', key: region.key, last: this.at(event, true), fresh: region.image === '' };
      this.paint(this.at(event, true));
      return undefined;
    }

    /** @param {Point} to */
    paint(to) {
      const region = this.current;
      const entry = region && this.maskOf(region);
      if (!entry) return;
      entry.mask.stroke(this.drag.last, to, this.host.brush, this.host.erasing);
      entry.tint = '';
      this.drag.last = to;
      this.draw();
    }

    endStroke() {
      const region = this.current;
      const entry = region && this.masks.get(region.key);
      const { fresh } = this.drag;
      this.drag = null;
      if (!region || !entry) return;
      if (entry.mask.empty) return this.host.revert();
      entry.image = entry.mask.toDataURL();
      this.host.change(region.key, { image: entry.image });
      this.host.commit();
      if (fresh) this.host.drawn(region);
    }

    /** @param {PointerEvent} event @returns {SVGElement} what was meant: a finger need not hit a handle exactly */
    touched(event) {
      const target = /** @type {SVGElement} */ (event.target);
      if (event.pointerType === 'mouse') return target;
      const distance = (/** @type {SVGElement} */ handle) => {
        const { x, y, width, height } = handle.getBoundingClientRect();
        return Math.hypot(x + width / 2 - event.clientX, y + height / 2 - event.clientY);
      };
      const [nearest] = [...this.handles.childNodes].sort((a, b) => distance(a) - distance(b));
      return nearest && distance(nearest) < FINGER ? nearest : target;
    }

    /** @param {PointerEvent} event */
    pull(event) {
      const { drag, host } = this;
      if (!drag) return;
      if (drag.kind === 'corners') return;
      if (drag.kind === 'stroke') return this.paint(this.at(event, true));
      drag.moved ||= Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > DRAG_THRESHOLD;
      if (!drag.moved || drag.kind === 'open') return;
      const point = this.at(event);
      if (drag.kind === 'draw') {
        const box = parts.geometry.boxBetween(drag.corner, point);
        if (drag.key) host.change(drag.key, { box, shape: drag.shape, drawn: true });
        else {
          drag.key = host.add({ box, shape: drag.shape }).key;
          drag.added = true;
          host.select(drag.key);
        }
        if (drag.added) host.change(drag.key, { box });
      } else if (drag.kind === 'handle') {
        this.moveHandle(drag.handle, point);
      } else {
        const now = this.at(event, true);
        this.move(drag.before, now[0] - drag.from[0], now[1] - drag.from[1]);
      }
    }

    /** @param {PointerEvent} event */
    release(event) {
      const { drag, host } = this;
      if (!drag || drag.kind === 'corners') return;
      if (drag.kind === 'stroke') return this.endStroke();
      this.drag = null;
      if (drag.kind === 'open' && !drag.moved) return host.select(drag.key);
      if (!drag.moved) {
        // A click on an empty place lets go of the selection; one beside a polygon's corners adds another.
        const region = this.current;
        if (drag.kind !== 'draw' || drag.key) return;
        if (region?.shape === 'polygon' && host.canEdit(region) && host.tool === 'select')
          return this.insertNear(region, this.at(event));
        return host.select(undefined);
      }
      host.commit();
      const region = this.current;
      if (drag.kind === 'draw' && region) host.drawn(region);
    }

    /** Takes back what the pointer has done since it was pressed. */
    abandon() {
      if (!this.drag) return;
      const stroke = this.drag.kind === 'stroke' ? this.drag.key : undefined;
      this.drag = null;
      if (stroke) this.masks.delete(stroke);
      this.host.revert();
    }

    /** @param {MouseEvent} event */
    doubleClick(event) {
      if (this.drag?.kind === 'corners') return this.closePolygon();
      // While the pointer is captured the canvas is the target, whatever was hit.
      const hit = document.elementFromPoint(event.clientX, event.clientY);
      const { handle } = /** @type {SVGElement} */ (hit)?.dataset ?? {};
      const region = this.current;
      if (region?.shape === 'polygon' && handle !== undefined) this.removePoint(region, Number(handle));
    }

    // -- changes --

    /** @param {Region} from @param {number} dx @param {number} dy */
    move(from, dx, dy) {
      const { moveBox, movePoints, boundsOf } = parts.geometry;
      if (from.shape === 'polygon') {
        if (from.points.length === 0) return;
        const bounds = boundsOf(from.points);
        const [x, y] = this.snapped([bounds[0] + dx, bounds[1] + dy]);
        this.host.change(from.key, { points: movePoints(from.points, x - bounds[0], y - bounds[1]) });
      } else if (from.shape === 'box' || from.shape === 'ellipse') {
        const [x, y] = this.snapped([from.box[0] + dx, from.box[1] + dy]);
        this.host.change(from.key, { box: moveBox(from.box, x - from.box[0], y - from.box[1]) });
      }
    }

    /** @param {string} handle @param {Point} point */
    moveHandle(handle, point) {
      const region = this.current;
      if (!region) return;
      if (region.shape === 'polygon') {
        const points = region.points.map((other, index) => (index === Number(handle) ? point : other));
        this.host.change(region.key, { points });
      } else this.host.change(region.key, { box: parts.geometry.resizeBox(region.box, handle, point) });
    }

    /** @param {Region} region @param {Point} point */
    insertNear(region, point) {
      const { size } = this.host;
      this.insertPoint(region, point, parts.geometry.insertionIndex(region.points, point, size.width / size.height));
    }

    /** @param {Region} region @param {Point} point @param {number} index */
    insertPoint(region, point, index) {
      const points = [...region.points];
      points.splice(index, 0, point);
      this.host.change(region.key, { points });
      this.host.commit();
      this.handles.childNodes[index]?.focus({ preventScroll: true });
    }

    /** A polygon keeps at least three points. @param {Region} region @param {number} index */
    removePoint(region, index) {
      if (region.points.length <= 3) return;
      this.host.change(region.key, { points: region.points.filter((_, i) => i !== index) });
      this.host.commit();
      this.handles.childNodes[Math.min(index, region.points.length - 2)]?.focus({ preventScroll: true });
    }

    // -- keyboard --

    /** @param {KeyboardEvent} event */
    key(event) {
      const target = /** @type {SVGElement} */ (event.target);
      if (!this.handleKey(event, target)) return;
      // Or the editor would take Delete and the arrows for the nodes selected on the workspace.
      event.preventDefault();
      event.stopPropagation();
      const region = this.current;
      if (region) this.announcement.textContent = this.description(region, this.host.regions.indexOf(region));
    }

    /** @param {KeyboardEvent} event @param {SVGElement} target @returns {boolean} whether the key was for the canvas */
    handleKey(event, target) {
      const { host, current: region } = this;
      if (event.key === 'Escape') return this.escape();
      if (this.drag?.kind === 'corners' && event.key === 'Enter') {
        this.closePolygon();
        return true;
      }
      if ((event.ctrlKey || event.metaKey) && /^[zy]$/i.test(event.key)) {
        if (event.key.toLowerCase() === 'y' || event.shiftKey) host.redo();
        else host.undo();
        return true;
      }
      if (target.dataset.key && event.key === 'Enter') {
        host.select(target.dataset.key);
        return true;
      }
      if (!region || !host.canEdit(region)) return false;
      const { handle } = target.dataset;
      return handle === undefined ? this.regionKey(event, region) : this.cornerKey(event, region, handle);
    }

    /** @returns {boolean} whether there was something to take back or let go; if not, the dialog may have the key */
    escape() {
      if (this.drag) {
        this.abandon();
        return true;
      }
      if (this.host.tool === 'select') return false;
      this.host.setTool('select');
      return true;
    }

    /**
     * How far an arrow key goes: one cell, or one percent, or a tenth of it with Alt.
     * @param {KeyboardEvent} event @returns {Point | undefined}
     */
    arrow(event) {
      const direction = ARROWS[event.key];
      if (!direction) return undefined;
      const [sx, sy] = this.step();
      const free = event.altKey ? 0.001 : 0.01;
      return [direction[0] * (sx || free), direction[1] * (sy || free)];
    }

    /** @param {KeyboardEvent} event @param {Region} region @returns {boolean} */
    regionKey(event, region) {
      const { resizeBox, fitPoints, boundsOf } = parts.geometry;
      if (event.key === 'Delete' || event.key === 'Backspace') {
        this.host.remove(region.key);
        return true;
      }
      const by = this.arrow(event);
      if (!by || region.shape === 'image' || region.shape === 'rest') return false;
      if (!region.drawn) this.host.change(region.key, { drawn: true });
      if (event.shiftKey) {
        const from = region.shape === 'polygon' ? boundsOf(region.points) : region.box;
        const [x, y, width, height] = from;
        const box = resizeBox(from, 'se', [x + width + by[0], y + height + by[1]]);
        this.host.change(region.key, region.shape === 'polygon' ? { points: fitPoints(region.points, box) } : { box });
      } else this.move({ ...region }, by[0], by[1]);
      this.host.commit(`key ${region.key}`);
      return true;
    }

    /** @param {KeyboardEvent} event @param {Region} region @param {string} handle @returns {boolean} */
    cornerKey(event, region, handle) {
      const { round, clamp } = parts.geometry;
      const index = Number(handle);
      if (event.key === 'Delete' || event.key === 'Backspace') {
        if (region.shape === 'polygon') this.removePoint(region, index);
        return true;
      }
      if (region.shape === 'polygon' && (event.key === 'Insert' || event.key === '+')) {
        const [ax, ay] = region.points[index];
        const [bx, by] = region.points[(index + 1) % region.points.length];
        this.insertPoint(region, [round((ax + bx) / 2), round((ay + by) / 2)], index + 1);
        return true;
      }
      const by = this.arrow(event);
      if (!by) return false;
      const [x, y, width, height] = region.box;
      const from =
        region.shape === 'polygon'
          ? region.points[index]
          : [handle.includes('w') ? x : x + width, handle.includes('n') ? y : y + height];
      this.moveHandle(handle, this.snapped([clamp(from[0] + by[0], 0, 1), clamp(from[1] + by[1], 0, 1)]));
      this.host.commit(`key ${region.key} ${handle}`);
      return true;
    }
  }

  /** Cuts a caption to a width; a letter is taken as 6.5 pixels wide. @param {string} text @param {number} width */
  function fitted(text, width) {
    const letters = Math.floor((width - 10) / 6.5);
    if (text.length <= letters) return text;
    return letters < 3 ? text.split(' ')[0] : text.slice(0, letters - 1).trimEnd() + '…';
  }

  parts.Canvas = Canvas;
  parts.HUES = HUES;
})();
