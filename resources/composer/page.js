// @ts-check
/* global module */
/** The composer's texts on a page of one's own, where Node-RED's editor isn't there to say them. */
(function () {
  'use strict';
  const parts = (globalThis.MultiDiffusionCompose ??= {});
  const ENGLISH = 'en-US';

  /**
   * @param {string} [language] such as es; by default the page's
   * @returns {(key: string, values?: Record<string, unknown>) => string} English where the language is unknown
   */
  function textsIn(language = document.documentElement.lang) {
    const main = (/** @type {string} */ name) => name.toLowerCase().split('-')[0];
    const { languages } = parts;
    const texts = languages[Object.keys(languages).find((name) => main(name) === main(language)) ?? ENGLISH];
    return (key, values = {}) => {
      const text = key.split('.').reduce((found, name) => found?.[name], texts) ?? key;
      return text.replace(/__(\w+?)__/g, (/** @type {string} */ _, /** @type {string} */ name) => values[name] ?? '');
    };
  }

  parts.textsIn = textsIn;
  if (typeof module !== 'undefined') module.exports = { textsIn };
})();
