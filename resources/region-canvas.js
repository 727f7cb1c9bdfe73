// @ts-check
/* global module */
/**
 * The canvas in region-mask's dialog: a box, an ellipse or a polygon is drawn, moved and resized on it with
 * pointer and keyboard. All coordinates are shares of the canvas. It works on its own copy and listens only on
 * its own elements.
 * @typedef {'box' | 'ellipse' | 'polygon'} Shape
 * @typedef {[number, number, number, number]} Box x, y, width, height
 * @typedef {[number, number]} Point
 * @typedef {{shape: string, label: string, box: number[], points: number[][]}} Faint
 * @typedef {{
 *   shape: Shape, box: number[], points: number[][], label: string, others: Faint[],
 *   width: number, height: number, cell: number,
 *   say: (key: string, values?: Record<string, unknown>) => string,
 *   onchange: (value: {box: Box, points: Point[]}) => void,
 * }} Options width, height: the canvas in pixels; cell: the side of a latent cell in pixels
 */
(function () {
  'use strict';

  // ---- geometry: pure functions on shares of the canvas ----

  /** The smallest side of a region. */
  const SMALLEST = 0.01;
  /** @type {Box} */
  const START_BOX = [0.25, 0.25, 0.5, 0.5];

  /** @param {number} value @param {number} low @param {number} high */
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  /** Four decimals are a hundredth of a percent: finer than a pixel of any canvas that is drawn on. @param {number} value */
  const round = (value) => Math.round(value * 10000) / 10000;
  /** @param {number} value @param {number} step 0: no grid */
  const snap = (value, step) => (step > 0 ? clamp(Math.round(value / step) * step, 0, 1) : value);

  /** @param {Point} a @param {Point} b opposite corners in any order @returns {Box} inside the canvas */
  function boxBetween(a, b) {
    const [left, right] = [a[0], b[0]].map((x) => clamp(x, 0, 1)).sort((p, q) => p - q);
    const [top, bottom] = [a[1], b[1]].map((y) => clamp(y, 0, 1)).sort((p, q) => p - q);
    const width = Math.max(right - left, SMALLEST);
    const height = Math.max(bottom - top, SMALLEST);
    return /** @type {Box} */ ([Math.min(left, 1 - width), Math.min(top, 1 - height), width, height].map(round));
  }

  /** @param {Box} box @param {number} dx @param {number} dy @returns {Box} moved, as far as the canvas goes */
  function moveBox([x, y, width, height], dx, dy) {
    return [round(clamp(x + dx, 0, 1 - width)), round(clamp(y + dy, 0, 1 - height)), width, height];
  }

  /**
   * Puts the sides that a handle belongs to at a point; they stop short of the opposite sides.
   * @param {Box} box @param {string} handle 'n', 'ne', 'e', … @param {Point} point @returns {Box}
   */
  function resizeBox([x, y, width, height], handle, [px, py]) {
    let [left, top, right, bottom] = [x, y, x + width, y + height];
    if (handle.includes('w')) left = clamp(px, 0, right - SMALLEST);
    if (handle.includes('e')) right = clamp(px, left + SMALLEST, 1);
    if (handle.includes('n')) top = clamp(py, 0, bottom - SMALLEST);
    if (handle.includes('s')) bottom = clamp(py, top + SMALLEST, 1);
    return [round(left), round(top), round(right - left), round(bottom - top)];
  }

  /** @param {Point[]} points @returns {Box} their bounding box */
  function boundsOf(points) {
    const xs = points.map((point) => point[0]);
    const ys = points.map((point) => point[1]);
    return boxBetween([Math.min(...xs), Math.min(...ys)], [Math.max(...xs), Math.max(...ys)]);
  }

  /** @param {Point[]} points @param {number} dx @param {number} dy @returns {Point[]} */
  function movePoints(points, dx, dy) {
    const xs = points.map((point) => point[0]);
    const ys = points.map((point) => point[1]);
    const mx = clamp(dx, -Math.min(...xs), 1 - Math.max(...xs));
    const my = clamp(dy, -Math.min(...ys), 1 - Math.max(...ys));
    return points.map(([x, y]) => [round(x + mx), round(y + my)]);
  }

  /** Points stretched from one bounding box to another. @param {Point[]} points @param {Box} to @returns {Point[]} */
  function fitPoints(points, to) {
    if (points.length === 0) return points;
    const from = boundsOf(points);
    return points.map(([x, y]) => [round(to[0] + ((x - from[0]) / from[2]) * to[2]), round(to[1] + ((y - from[1]) / from[3]) * to[3])]);
  }

  /**
   * The polygon a box or ellipse becomes when its shape is changed.
   * @param {Box} box @param {boolean} round8 whether it was an ellipse @returns {Point[]}
   */
  function outlineOf([x, y, width, height], round8) {
    if (!round8) return /** @type {Point[]} */ ([[x, y], [x + width, y], [x + width, y + height], [x, y + height]].map((point) => point.map(round)));
    return Array.from({ length: 8 }, (_, index) => {
      const angle = (index * Math.PI) / 4;
      return [round(x + (width * (1 + Math.cos(angle))) / 2), round(y + (height * (1 + Math.sin(angle))) / 2)];
    });
  }

  /**
   * Between which two points a new one belongs: on the edge nearest to it.
   * @param {Point[]} points @param {Point} point @param {number} aspect width of the canvas by its height
   * @returns {number} the index that the new point takes
   */
  function insertionIndex(points, [px, py], aspect) {
    if (points.length < 3) return points.length;
    let best = points.length;
    let nearest = Infinity;
    points.forEach(([ax, ay], index) => {
      const [bx, by] = points[(index + 1) % points.length];
      const [ux, uy, vx, vy] = [(bx - ax) * aspect, by - ay, (px - ax) * aspect, py - ay];
      const length = ux * ux + uy * uy;
      const along = length === 0 ? 0 : clamp((ux * vx + uy * vy) / length, 0, 1);
      const distance = (vx - along * ux) ** 2 + (vy - along * uy) ** 2;
      if (distance < nearest) {
        nearest = distance;
        best = index + 1;
      }
    });
    return best;
  }

  /** @param {unknown} value @returns {Box} the value if it is a box, else a box in the middle */
  function boxOf(value) {
    const numbers = Array.isArray(value) && value.length === 4 ? value.map(Number) : [];
    if (numbers.length !== 4 || !numbers.every(Number.isFinite)) return [...START_BOX];
    return boxBetween([numbers[0], numbers[1]], [numbers[0] + numbers[2], numbers[1] + numbers[3]]);
  }

  /** @param {unknown} value @returns {Point[]} those of the value's items that are points */
  function pointsOf(value) {
    const list = Array.isArray(value) ? value : [];
    return list
      .filter((point) => Array.isArray(point) && point.length === 2 && point.every((number) => Number.isFinite(Number(number))))
      .map(([x, y]) => [round(clamp(Number(x), 0, 1)), round(clamp(Number(y), 0, 1))]);
  }

  // ---- the widget ----

  const SVG = 'http://www.w3.org/2000/svg';
  const HANDLES = ['nw', 'n', 'ne', 'e', 'se', 's', 'sw', 'w'];
  /** @type {Record<string, Point>} */
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  /** Pixels a pointer must travel before a press becomes the drawing of a new box. */
  const DRAG_THRESHOLD = 4;
  /** Pixels from a handle at which a finger still takes it. */
  const FINGER = 22;

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

  class RegionCanvas {
    /** @param {HTMLElement} container @param {Options} options */
    constructor(container, options) {
      this.options = options;
      this.say = options.say;
      this.shape = options.shape;
      this.box = boxOf(options.box);
      this.points = pointsOf(options.points);
      this.label = options.label;
      this.snapping = false;
      /** @type {any} what the pointer is doing */
      this.drag = null;
      this.pixels = { width: 1, height: 1 };

      container.replaceChildren();
      this.svg = create('svg', { class: 'multidiffusion-canvas', role: 'application', 'aria-label': this.say('canvas.label', options) }, container);
      this.grid = create('path', { class: 'multidiffusion-grid' }, this.svg);
      this.faint = create('g', { 'aria-hidden': 'true' }, this.svg);
      this.outline = create('path', { class: 'multidiffusion-region', tabindex: 0, role: 'img', 'data-part': 'region' }, this.svg);
      this.caption = create('text', { class: 'multidiffusion-caption', 'aria-hidden': 'true' }, this.svg);
      this.edges = create('g', { 'aria-hidden': 'true' }, this.svg);
      this.handles = create('g', {}, this.svg);
      this.announcement = document.createElement('div');
      this.announcement.className = 'multidiffusion-announcement';
      this.announcement.setAttribute('aria-live', 'polite');
      container.appendChild(this.announcement);

      this.svg.addEventListener('pointerdown', (/** @type {PointerEvent} */ event) => this.press(event));
      this.svg.addEventListener('pointermove', (/** @type {PointerEvent} */ event) => this.pull(event));
      this.svg.addEventListener('pointerup', () => this.release());
      this.svg.addEventListener('pointercancel', () => this.abandon());
      this.svg.addEventListener('dblclick', (/** @type {MouseEvent} */ event) => this.removePointAt(event));
      this.svg.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => this.key(event));
      this.draw();
    }

    /** @returns {{box: Box, points: Point[]}} a copy of what is drawn */
    value() {
      return { box: [...this.box], points: this.points.map((point) => [...point]) };
    }

    /** @param {Shape} shape a polygon takes the outline of what was there; a box or ellipse its bounds */
    setShape(shape) {
      if (shape === this.shape) return;
      if (shape === 'polygon') {
        const same = this.points.length >= 3 && String(boundsOf(this.points)) === String(this.box);
        if (!same) this.points = outlineOf(this.box, this.shape === 'ellipse');
      } else if (this.shape === 'polygon' && this.points.length >= 2) {
        this.box = boundsOf(this.points);
      }
      this.shape = shape;
      this.changed();
    }

    /**
     * One number of the bounding box, as typed: x and y move the region, width and height stretch it.
     * @param {number} index of [x, y, width, height] @param {number} value what is no number changes nothing
     */
    setNumber(index, value) {
      if (!Number.isFinite(value)) return;
      const [x, y] = this.box;
      if (index === 0) this.setBox(moveBox(this.box, value - x, 0));
      else if (index === 1) this.setBox(moveBox(this.box, 0, value - y));
      else if (index === 2) this.setBox(resizeBox(this.box, 'e', [x + value, y]));
      else this.setBox(resizeBox(this.box, 's', [x, y + value]));
    }

    /** @param {Box} box a polygon is stretched to it */
    setBox(box) {
      if (this.shape === 'polygon') this.points = fitPoints(this.points, box);
      this.box = box;
      this.changed();
    }

    /** @param {string} label */
    setLabel(label) {
      this.label = label;
      this.draw();
    }

    /** @param {boolean} on whether coordinates keep to the latent cells */
    setSnapping(on) {
      this.snapping = on;
      this.draw();
    }

    /** Fits the canvas into a space, keeping its aspect ratio. @param {number} width @param {number} height in pixels */
    layout(width, height) {
      const scale = Math.min(width / this.options.width, height / this.options.height);
      this.pixels = { width: Math.max(1, Math.round(this.options.width * scale)), height: Math.max(1, Math.round(this.options.height * scale)) };
      set(this.svg, { width: this.pixels.width, height: this.pixels.height, viewBox: `0 0 ${this.pixels.width} ${this.pixels.height}` });
      this.draw();
    }

    // -- drawing --

    /** @param {string} shape @param {number[]} box @param {number[][]} points @returns {string} path data in pixels */
    path(shape, box, points) {
      const { width, height } = this.pixels;
      if (shape === 'polygon') {
        return points.length === 0 ? '' : 'M' + points.map(([x, y]) => `${x * width} ${y * height}`).join('L') + 'Z';
      }
      const [x, y, w, h] = [box[0] * width, box[1] * height, box[2] * width, box[3] * height];
      if (shape === 'ellipse') return `M${x} ${y + h / 2}a${w / 2} ${h / 2} 0 1 0 ${w} 0a${w / 2} ${h / 2} 0 1 0 ${-w} 0Z`;
      return `M${x} ${y}h${w}v${h}h${-w}Z`;
    }

    draw() {
      const { width, height } = this.pixels;
      set(this.grid, { d: this.gridPath() });
      this.drawOthers();

      set(this.outline, { d: this.path(this.shape, this.box, this.points), 'aria-label': this.description() });
      const bounds = this.shape === 'polygon' && this.points.length > 1 ? boundsOf(this.points) : this.box;
      this.caption.textContent = fitted(this.label, bounds[2] * width);
      set(this.caption, { x: (bounds[0] + bounds[2] / 2) * width, y: (bounds[1] + bounds[3] / 2) * height });
      this.drawHandles();
    }

    /** Thirds, or the latent cells while snapping (every eighth where they would be too fine to see). */
    gridPath() {
      const { width, height } = this.pixels;
      let columns = 3;
      let rows = 3;
      if (this.snapping) {
        columns = this.options.width / this.options.cell;
        rows = this.options.height / this.options.cell;
        while (width / columns < 6) {
          columns /= 4;
          rows /= 4;
        }
      }
      let data = '';
      for (let i = 1; i < columns; i++) data += `M${(i * width) / columns} 0V${height}`;
      for (let i = 1; i < rows; i++) data += `M0 ${(i * height) / rows}H${width}`;
      return data;
    }

    drawOthers() {
      const { width, height } = this.pixels;
      this.faint.replaceChildren();
      for (const other of this.options.others) {
        if (!['box', 'ellipse', 'polygon'].includes(other.shape)) continue;
        const points = pointsOf(other.points);
        if (other.shape === 'polygon' && points.length === 0) continue;
        const box = other.shape === 'polygon' ? boundsOf(points) : boxOf(other.box);
        create('path', { class: 'multidiffusion-other', d: this.path(other.shape, box, points) }, this.faint);
        const text = create('text', { class: 'multidiffusion-other-caption', x: box[0] * width + 6, y: box[1] * height + 14 }, this.faint);
        text.textContent = fitted(other.label, box[2] * width);
      }
    }

    drawHandles() {
      const { width, height } = this.pixels;
      /** @type {Array<{id: string, x: number, y: number, label: string}>} */
      let wanted;
      this.edges.replaceChildren();
      if (this.shape === 'polygon') {
        wanted = this.points.map(([x, y], index) => ({ id: String(index), x, y, label: this.say('canvas.point', { index: index + 1, x: percent(x), y: percent(y) }) }));
        if (this.points.length > 2) {
          this.points.forEach(([ax, ay], index) => {
            const [bx, by] = this.points[(index + 1) % this.points.length];
            create('circle', { class: 'multidiffusion-edge', 'data-edge': index + 1, cx: ((ax + bx) / 2) * width, cy: ((ay + by) / 2) * height, r: 4 }, this.edges);
          });
        }
      } else {
        const [x, y, w, h] = this.box;
        wanted = HANDLES.map((id) => ({
          id,
          x: id.includes('w') ? x : id.includes('e') ? x + w : x + w / 2,
          y: id.includes('n') ? y : id.includes('s') ? y + h : y + h / 2,
          label: this.say('canvas.handle.' + id),
        }));
      }
      // Handles are reused, so that the one with the focus keeps it.
      while (this.handles.childNodes.length > wanted.length) this.handles.lastChild.remove();
      wanted.forEach(({ id, x, y, label }, index) => {
        const handle = this.handles.childNodes[index] || create('rect', { class: 'multidiffusion-handle', tabindex: 0, role: 'button', width: 10, height: 10 }, this.handles);
        set(handle, { x: x * width - 5, y: y * height - 5, rx: this.shape === 'polygon' ? 5 : 2, 'data-handle': id, 'aria-label': label });
      });
    }

    /** @returns {string} the region in words, for screen readers */
    description() {
      const box = this.shape === 'polygon' && this.points.length > 1 ? boundsOf(this.points) : this.box;
      const [x, y, width, height] = box.map(percent);
      const values = { name: this.label || this.say('canvas.unnamed'), shape: this.say('shape.' + this.shape), x, y, width, height };
      return this.say('canvas.region', values);
    }

    // -- pointer --

    /** @param {MouseEvent} event @param {boolean} [free] without grid @returns {Point} */
    at(event, free) {
      const frame = this.svg.getBoundingClientRect();
      const x = clamp((event.clientX - frame.left) / frame.width, 0, 1);
      const y = clamp((event.clientY - frame.top) / frame.height, 0, 1);
      return free ? [x, y] : this.snapped([x, y]);
    }

    /** @returns {Point} the side of a latent cell as shares of the canvas; [0, 0] while not snapping */
    step() {
      return this.snapping ? [this.options.cell / this.options.width, this.options.cell / this.options.height] : [0, 0];
    }

    /** @param {Point} point @returns {Point} */
    snapped([x, y]) {
      const [sx, sy] = this.step();
      return [round(snap(x, sx)), round(snap(y, sy))];
    }

    /** @param {PointerEvent} event */
    press(event) {
      if (event.button !== 0 || this.drag) return;
      event.preventDefault();
      const target = this.touched(event);
      const before = this.value();
      const from = this.at(event, true);
      let focus = target;
      if (target.dataset.handle !== undefined) {
        this.drag = { kind: 'handle', handle: target.dataset.handle };
      } else if (target.dataset.edge !== undefined) {
        this.insertPoint(this.at(event), Number(target.dataset.edge));
        this.drag = { kind: 'handle', handle: target.dataset.edge };
        focus = this.handles.childNodes[Number(target.dataset.edge)];
      } else if (target.dataset.part === 'region') {
        this.drag = { kind: 'move' };
      } else if (this.shape === 'polygon') {
        const point = this.at(event);
        const index = insertionIndex(this.points, point, this.options.width / this.options.height);
        this.insertPoint(point, index);
        this.drag = { kind: 'handle', handle: String(index) };
        focus = this.handles.childNodes[index];
      } else {
        this.drag = { kind: 'draw', corner: this.at(event), begun: false };
        focus = this.outline;
      }
      Object.assign(this.drag, { before, from, x: event.clientX, y: event.clientY });
      this.svg.setPointerCapture(event.pointerId);
      focus.focus({ preventScroll: true });
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
      const drag = this.drag;
      if (!drag) return;
      const point = this.at(event);
      if (drag.kind === 'draw') {
        drag.begun = drag.begun || Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > DRAG_THRESHOLD;
        if (drag.begun) this.box = boxBetween(drag.corner, point);
      } else if (drag.kind === 'handle') {
        this.moveHandle(drag.handle, point);
      } else {
        const now = this.at(event, true);
        this.move(drag.before, now[0] - drag.from[0], now[1] - drag.from[1]);
      }
      this.changed();
    }

    release() {
      this.drag = null;
    }

    /** Takes back what the pointer has done since it was pressed. */
    abandon() {
      if (!this.drag) return;
      this.box = this.drag.before.box;
      this.points = this.drag.before.points;
      this.drag = null;
      this.changed();
    }

    /** @param {MouseEvent} event */
    removePointAt(event) {
      const { handle } = /** @type {SVGElement} */ (event.target).dataset;
      if (this.shape === 'polygon' && handle !== undefined) this.removePoint(Number(handle));
    }

    // -- changes --

    /** @param {{box: Box, points: Point[]}} from @param {number} dx @param {number} dy */
    move(from, dx, dy) {
      if (this.shape === 'polygon') {
        if (from.points.length === 0) return;
        const bounds = boundsOf(from.points);
        const [x, y] = this.snapped([bounds[0] + dx, bounds[1] + dy]);
        this.points = movePoints(from.points, x - bounds[0], y - bounds[1]);
      } else {
        const [x, y] = this.snapped([from.box[0] + dx, from.box[1] + dy]);
        this.box = moveBox(from.box, x - from.box[0], y - from.box[1]);
      }
    }

    /** @param {string} handle @param {Point} point */
    moveHandle(handle, point) {
      if (this.shape === 'polygon') this.points[Number(handle)] = point;
      else this.box = resizeBox(this.box, handle, point);
    }

    /** @param {Point} point @param {number} index */
    insertPoint(point, index) {
      this.points.splice(index, 0, point);
      this.changed();
    }

    /** A polygon keeps at least three points. @param {number} index */
    removePoint(index) {
      if (this.points.length <= 3) return;
      this.points.splice(index, 1);
      this.changed();
      this.handles.childNodes[Math.min(index, this.points.length - 1)].focus({ preventScroll: true });
    }

    changed() {
      if (this.shape === 'polygon' && this.points.length > 1) this.box = boundsOf(this.points);
      this.draw();
      this.options.onchange(this.value());
    }

    // -- keyboard --

    /** @param {KeyboardEvent} event */
    key(event) {
      const target = /** @type {SVGElement} */ (event.target);
      const handled = event.key === 'Escape' ? this.escape() : target.dataset.handle !== undefined ? this.handleKey(event, target.dataset.handle) : this.regionKey(event);
      if (!handled) return;
      // Or the editor would take Delete and the arrows for the nodes selected in the workspace.
      event.preventDefault();
      event.stopPropagation();
      this.announcement.textContent = this.description();
    }

    /** @returns {boolean} whether a drag was taken back; if none was, the dialog may have the key */
    escape() {
      const dragging = this.drag !== null;
      this.abandon();
      return dragging;
    }

    /** @param {KeyboardEvent} event @returns {Point | undefined} how far an arrow key goes: one cell, or one percent, or a tenth of it with Alt */
    arrow(event) {
      const direction = ARROWS[event.key];
      if (!direction) return undefined;
      const [sx, sy] = this.step();
      const free = event.altKey ? 0.001 : 0.01;
      return [direction[0] * (sx || free), direction[1] * (sy || free)];
    }

    /** @param {KeyboardEvent} event @returns {boolean} */
    regionKey(event) {
      const by = this.arrow(event);
      if (!by) return false;
      if (!event.shiftKey) {
        this.move(this.value(), by[0], by[1]);
        this.changed();
      } else {
        const [x, y, width, height] = this.box;
        this.setBox(resizeBox(this.box, 'se', [x + width + by[0], y + height + by[1]]));
      }
      return true;
    }

    /** @param {KeyboardEvent} event @param {string} handle @returns {boolean} */
    handleKey(event, handle) {
      if (this.shape === 'polygon' && (event.key === 'Delete' || event.key === 'Backspace')) {
        this.removePoint(Number(handle));
        return true;
      }
      if (this.shape === 'polygon' && (event.key === 'Insert' || event.key === '+')) {
        const index = Number(handle);
        const [ax, ay] = this.points[index];
        const [bx, by] = this.points[(index + 1) % this.points.length];
        this.insertPoint([round((ax + bx) / 2), round((ay + by) / 2)], index + 1);
        this.handles.childNodes[index + 1].focus({ preventScroll: true });
        return true;
      }
      const by = this.arrow(event);
      if (!by) return false;
      const [x, y, width, height] = this.box;
      const from = this.shape === 'polygon' ? this.points[Number(handle)] : [handle.includes('w') ? x : x + width, handle.includes('n') ? y : y + height];
      const to = this.snapped([clamp(from[0] + by[0], 0, 1), clamp(from[1] + by[1], 0, 1)]);
      this.moveHandle(handle, to);
      this.changed();
      return true;
    }
  }

  /** @param {number} value @returns {number} with one decimal */
  const percent = (value) => Math.round(value * 1000) / 10;

  /** Cuts a caption to a width; a letter is taken as 6.5 pixels wide. @param {string} text @param {number} width */
  function fitted(text, width) {
    const letters = Math.floor((width - 10) / 6.5);
    if (text.length <= letters) return text;
    return letters < 4 ? '' : text.slice(0, letters - 1).trimEnd() + '…';
  }

  const geometry = { boxBetween, moveBox, resizeBox, boundsOf, movePoints, fitPoints, outlineOf, insertionIndex, boxOf, pointsOf, snap };
  /** @type {any} */ (globalThis).MultiDiffusionRegionCanvas = RegionCanvas;
  if (typeof module !== 'undefined') module.exports = { RegionCanvas, geometry };
})();
