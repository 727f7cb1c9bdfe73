// @ts-check
/* global module */
/**
 * What became of options that nodes of earlier versions were saved with. Each entry renames or moves one option;
 * it is applied where the run time creates a node and where the editor adds one, so nothing else in the package
 * needs to know the old name.
 * @typedef {Record<string, any>} Config the properties of a saved node
 * @typedef {{since: string, name: string, from: string[], apply: (config: Config) => void}} Migration
 *   since: the version that saves the new form; from: the properties that are gone; apply: changes the configuration,
 *   in which at least one of them is there
 */
(function () {
  'use strict';

  /** @type {Record<string, Migration[]>} by node type, the oldest first */
  const MIGRATIONS = {
    'multidiffusion-sampler': [
      {
        since: '0.2.0',
        name: 'the kind of seed is the type of a typed input',
        from: ['seedMode'],
        apply: (config) => {
          const mode = config.seedMode;
          config.seedType = mode === 'fixed' ? 'num' : mode;
          if (mode === 'msg') config.seed = 'seed';
        },
      },
    ],
  };

  /**
   * Brings a node's configuration up to date, in place.
   * @param {string} type @param {Config} config
   * @returns {boolean} whether anything was changed
   */
  function migrate(type, config) {
    let changed = false;
    for (const { from, apply } of MIGRATIONS[type] || []) {
      if (from.every((property) => config[property] === undefined)) continue;
      apply(config);
      // The editor only hands over what is among its defaults, so the property itself must stay there.
      for (const property of from) config[property] = undefined;
      changed = true;
    }
    return changed;
  }

  /** @param {string} type @returns {string[]} properties that nodes of this type no longer have */
  function retired(type) {
    return (MIGRATIONS[type] || []).flatMap(({ from }) => from);
  }

  const api = { migrate, retired };
  /** @type {any} */ (globalThis).MultiDiffusionMigrations = api;
  if (typeof module !== 'undefined') module.exports = api;
})();
