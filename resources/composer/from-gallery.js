// @ts-check
/**
 * What the panel's pictures can do for the composer: open their layout in a compose node, and stand behind the regions.
 */
(function () {
  'use strict';
  const parts = (globalThis.MultiDiffusionCompose ??= {});
  const TEXTS = 'node-red-contrib-multidiffusion/compose:compose.gallery.';
  /** @type {Array<{ icon: string, label: () => string, run: (picture: any) => void }>} */
  const actions = (globalThis.MultiDiffusionGalleryActions ??= []);

  /** The compose nodes of the workspace that is shown, the selected one first. @returns {any[]} */
  function composeNodes() {
    const selected = RED.view.selection().nodes ?? [];
    const here = RED.nodes.filterNodes({ type: 'compose', z: RED.workspaces.active() });
    return [...here].sort((a, b) => Number(selected.includes(b)) - Number(selected.includes(a)));
  }

  /** A new compose node; that can be undone. @returns {any} */
  function addNode() {
    const node = { id: RED.nodes.id(), type: 'compose', z: RED.workspaces.active(), x: 140, y: 60, wires: [[]] };
    const dirty = RED.nodes.dirty();
    const { defaults } = RED.nodes.getType('compose');
    const values = Object.fromEntries(
      Object.entries(defaults).map(([name, { value }]) => [name, structuredClone(value)]),
    );
    const { nodes } = RED.nodes.import([{ ...values, ...node }], { generateIds: false, addFlow: false });
    Object.assign(nodes[0], { changed: true, dirty: true, moved: true });
    RED.history.push({ t: 'add', nodes: [node.id], dirty });
    RED.nodes.dirty(true);
    RED.view.redraw(true);
    return nodes[0];
  }

  /** Shows a picture's layout in a compose dialog, where it is kept or dropped. @param {{ recipe: any }} picture */
  function openLayout({ recipe }) {
    const node = composeNodes()[0] ?? addNode();
    RED.editor.edit(node);
    // The dialog is made while its tray slides in.
    let tries = 100;
    const timer = setInterval(() => {
      const composer = node.composeDialog?.composer;
      if (composer) composer.setLayout(recipe);
      if (composer || --tries === 0) clearInterval(timer);
    }, 50);
  }

  /** @param {Blob} blob @returns {Promise<string>} */
  function dataUrl(blob) {
    return new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(String(reader.result));
      reader.onerror = () => reject(reader.error);
      reader.readAsDataURL(blob);
    });
  }

  /** Puts a picture behind the regions of the workspace that is shown. @param {{ blob: Blob }} picture */
  async function useAsBackdrop({ blob }) {
    const z = RED.workspaces.active();
    const nodes = [...composeNodes(), ...RED.nodes.filterNodes({ type: 'region-mask', z })];
    const picture = await dataUrl(blob);
    for (const { id } of nodes) parts.pictures.set(id, picture);
    RED.notify(
      RED._(TEXTS + (nodes.length > 0 ? 'backdropSet' : 'noRegions')),
      nodes.length > 0 ? 'success' : 'warning',
    );
  }

  /**
   * What stands behind the regions of a dialog that opens: what was put there, or else its sampler's last picture.
   * @param {string} node @param {string | undefined} sampler @returns {Promise<string | undefined>}
   */
  async function backdropOf(node, sampler) {
    const chosen = parts.pictures.get(node);
    if (chosen || !sampler) return chosen;
    try {
      const blob = await /** @type {any} */ (globalThis).MultiDiffusionGallery?.latest(sampler);
      return blob && (await dataUrl(blob));
    } catch {
      // It is forgotten, or the runtime can't be reached.
      return undefined;
    }
  }

  function offer() {
    if (actions.some(({ run }) => run === openLayout)) return;
    actions.push(
      { icon: 'object-group', label: () => RED._(`${TEXTS}open`), run: openLayout },
      { icon: 'clone', label: () => RED._(`${TEXTS}backdrop`), run: useAsBackdrop },
    );
  }

  function withdraw() {
    actions.splice(0, actions.length, ...actions.filter(({ run }) => run !== openLayout && run !== useAsBackdrop));
  }

  parts.fromGallery = { offer, withdraw, backdropOf };
})();
