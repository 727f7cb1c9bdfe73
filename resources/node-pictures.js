// @ts-check
/**
 * Pictures under their nodes on the workspace, as large as each node says, with a button that hides them.
 * What is shown lives in the node's own group of the workspace's SVG and goes with it.
 */
(function () {
  'use strict';
  const TYPES = ['multidiffusion-sampler', 'vae-decode', 'save-image'];
  const TEXTS = 'node-red-contrib-multidiffusion/multidiffusion-sampler:multidiffusion-sampler.';
  const SVG = 'http://www.w3.org/2000/svg';
  const HOOK = 'viewRedrawNode.multidiffusion';
  const SIZE = 128;
  /** Pixels below the node: its status stands there. */
  const BELOW = 20;
  const BUTTON = 18;

  /** @typedef {{ node: string, alias?: string }} Place */
  /** @typedef {{ url: string, width: number, height: number, live: boolean, open?: () => void }} Shown */
  /** By the id of the workspace's node. @type {Map<string, Shown>} */
  const shown = new Map();
  /** What is to be shown under a node; what comes to be shown later than its successor is dropped. @type {Map<string, Blob>} */
  const wanted = new Map();

  /** @param {string} name @param {Record<string, unknown>} attributes @returns {any} */
  function make(name, attributes) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
    return element;
  }

  /** @param {Place} place */
  const nodeOf = ({ node, alias }) => RED.nodes.node(node) || (alias && RED.nodes.node(alias));
  /** @param {any} node */
  const isOn = (node) => node.showPicture !== false;
  /** @param {string} key */
  const say = (key) => RED._(TEXTS + key);

  /** Whether this node is on the workspace that is shown, and shows its pictures. @param {Place} place */
  function wants(place) {
    const node = nodeOf(place);
    return Boolean(node && TYPES.includes(node.type) && isOn(node) && document.getElementById(node.id));
  }

  /**
   * Shows a picture under its node, instead of the one before.
   * @param {Place} place
   * @param {Blob} blob
   * @param {{ live?: boolean, open?: () => void }} [options] live: of a job that runs; open: what a click does
   */
  async function show(place, blob, { live = false, open } = {}) {
    const node = nodeOf(place);
    if (!node) return;
    wanted.set(node.id, blob);
    const { width, height } = await createImageBitmap(blob);
    if (wanted.get(node.id) !== blob) return;
    release(node.id);
    shown.set(node.id, { url: URL.createObjectURL(blob), width, height, live, open });
    redraw(node);
  }

  /** @param {Place} place */
  function clear(place) {
    const node = nodeOf(place);
    release(place.node);
    if (!node) return;
    release(node.id);
    redraw(node);
  }

  /** @param {string} id */
  function release(id) {
    wanted.delete(id);
    const picture = shown.get(id);
    if (picture) URL.revokeObjectURL(picture.url);
    shown.delete(id);
  }

  /** @param {any} node */
  function redraw(node) {
    const element = document.getElementById(node.id);
    if (element) draw(node, element);
  }

  /** @param {any} node @param {Element} element its group in the workspace */
  function draw(node, element) {
    element.querySelector('.multidiffusion-under')?.remove();
    const picture = shown.get(node.id);
    if (!picture) return;
    const group = make('g', { class: 'multidiffusion-under', transform: `translate(0, ${node.h + BELOW})` });
    const on = isOn(node);
    const size = Number(node.pictureSize) || SIZE;
    const scale = size / Math.max(picture.width, picture.height);
    const [width, height] = [picture.width * scale, picture.height * scale];
    if (on) {
      const image = make('image', {
        href: picture.url,
        width,
        height,
        class: picture.live ? 'multidiffusion-live' : '',
      });
      if (picture.open) listen(image, picture.open);
      group.append(image);
    }
    const button = make('g', {
      class: 'multidiffusion-eye',
      transform: on ? `translate(${width - BUTTON}, 0)` : '',
      role: 'button',
    });
    button.append(make('rect', { width: BUTTON, height: BUTTON, rx: 3 }), make('text', { x: BUTTON / 2, y: 13 }));
    button.lastChild.textContent = on ? '\uf070' : '\uf06e'; // Font Awesome: eye-slash, eye
    const title = make('title', {});
    title.textContent = say(on ? 'panel.hidePicture' : 'panel.showPicture');
    button.append(title);
    listen(button, () => toggle(node));
    group.append(button);
    element.append(group);
  }

  /** A click on it is no click on the workspace. @param {Element} element @param {() => void} onClick */
  function listen(element, onClick) {
    for (const name of ['mousedown', 'mouseup', 'touchstart', 'touchend', 'dblclick']) {
      element.addEventListener(name, (event) => event.stopPropagation());
    }
    element.addEventListener('click', (event) => {
      event.stopPropagation();
      onClick();
    });
  }

  /** A change of the flow, which can be undone and is deployed. @param {any} node */
  function toggle(node) {
    const changes = { showPicture: node.showPicture };
    RED.history.push({ t: 'edit', node, changes, changed: node.changed, dirty: RED.nodes.dirty() });
    Object.assign(node, { showPicture: !isOn(node), changed: true, dirty: true });
    RED.nodes.dirty(true);
    redraw(node);
    RED.view.redraw();
  }

  /** @param {(node: any) => void} ask for the picture of a node that came on the workspace without one */
  function start(ask) {
    RED.hooks.add(HOOK, (/** @type {{ node: any, el: Element }} */ { node, el }) => {
      if (!TYPES.includes(node.type)) return;
      if (shown.has(node.id)) draw(node, el);
      else ask(node);
    });
  }

  function stop() {
    RED.hooks.remove('*.multidiffusion');
    document.querySelectorAll('.multidiffusion-under').forEach((element) => element.remove());
    [...shown.keys()].forEach(release);
  }

  /** @type {any} */ (globalThis).MultiDiffusionPictures ??= { start, stop, wants, show, clear };
})();
