// @ts-check
/**
 * What the dialogs know of the models in the flow: the size of their pictures and of their latent cells, and their
 * vocabulary. Asked once for each model until the next deploy.
 * @typedef {{name: string, nativeSize: number, cell: number, sizeMultiple: number, vocabulary?: string[], canEncodeImages: boolean}} Facts
 */
(function () {
  'use strict';
  const parts = (globalThis.MultiDiffusionCompose ??= {});

  /** @type {Map<string, Promise<Facts | undefined>>} */
  const known = new Map();
  let listening = false;

  /**
   * @param {string} id of a diffusion-model node; empty for the bundled model
   * @returns {Promise<Facts | undefined>} undefined where they can't be known yet
   */
  function factsOf(id) {
    if (!listening) RED.events.on('deploy', () => known.clear());
    listening = true;
    const model = id ? RED.nodes.node(id) : undefined;
    // A node that isn't deployed yet is unknown to the run time, but the bundled model is always there.
    const name = !id || (isBundled(model) && model.changed) ? 'bundled' : id;
    let facts = known.get(name);
    if (!facts) {
      facts = ask(name).then((found) => found ?? (isBundled(model) ? ask('bundled') : undefined));
      known.set(name, facts);
      // What isn't known yet may be so later: a model is downloaded, a flow deployed.
      void facts.then((found) => found ?? known.delete(name));
    }
    return facts;
  }

  /** @param {any} model a diffusion-model node */
  const isBundled = (model) => !model || !model.checkpoint || model.checkpoint === 'pocket';

  /** @param {string} name @returns {Promise<Facts | undefined>} */
  function ask(name) {
    return new Promise((resolve) => {
      $.getJSON(`multidiffusion/models/${encodeURIComponent(name)}/facts`).then(resolve, () => resolve(undefined));
    });
  }

  /**
   * Lets a composer know its model: what the canvas measures where nothing else says, its cells, and the words.
   * @param {any} composer @param {{model: string, sampler?: any, width: number, height: number, cell: number}} scene
   */
  async function inform(composer, scene) {
    const facts = await factsOf(scene.model);
    if (!facts || composer.closed) return;
    const side = (/** @type {unknown} */ value) => Number(value) || facts.nativeSize;
    composer.setSize({
      width: side(scene.sampler?.width),
      height: side(scene.sampler?.height),
      cell: facts.cell,
    });
    composer.setVocabulary(facts.vocabulary);
  }

  parts.facts = { factsOf, inform, isBundled };
})();
