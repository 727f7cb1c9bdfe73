// @ts-check
/**
 * Statuses in the browser's language. The runtime sends them in English, so that flows see the same text everywhere;
 * here that text is found among the English ones of its node's type and said in the editor's language.
 */
(function () {
  'use strict';
  const MODULE = 'node-red-contrib-multidiffusion';
  const STATUSES = 'status/#';
  const ENGLISH = 'en-US';

  /** @typedef {{ key: string, pattern: RegExp, names: string[] }} Template */
  /** By node type. @type {Map<string, Template[]>} */
  const templates = new Map();

  /** @param {string} text */
  const literal = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');

  /**
   * The English statuses of a node type, those without values first. What holds no words needs no translation.
   * @param {string} type @returns {Template[]}
   */
  function templatesOf(type) {
    const known = templates.get(type);
    if (known) return known;
    /** @type {Template[]} */
    const found = [];
    /** @param {Record<string, any>} texts @param {string} path */
    const collect = (texts, path) => {
      for (const [name, text] of Object.entries(texts)) {
        if (typeof text === 'object') collect(text, `${path}.${name}`);
        else if (/[a-z]/i.test(text.replace(/__\w+?__/g, ''))) {
          const names = [...text.matchAll(/__(\w+?)__/g)].map(([, value]) => value);
          const pattern = text
            .split(/__\w+?__/)
            .map(literal)
            .join('(.*)');
          found.push({ key: `${path}.${name}`, pattern: new RegExp(`^${pattern}$`), names });
        }
      }
    };
    const { i18next } = /** @type {any} */ (globalThis);
    collect(i18next.getResource(ENGLISH, `${MODULE}/${type}`, `${type}.status`) ?? {}, `${type}.status`);
    found.sort((one, other) => one.names.length - other.names.length);
    templates.set(type, found);
    return found;
  }

  /** @param {string} type of the node @param {string} text in English @returns {string} in the editor's language */
  function translate(type, text) {
    for (const { key, pattern, names } of templatesOf(type)) {
      const match = pattern.exec(text);
      if (!match) continue;
      const values = Object.fromEntries(names.map((name, i) => [name, match[i + 1]]));
      return RED._(`${MODULE}/${type}:${key}`, values);
    }
    return text;
  }

  /** @param {string} topic @param {{ text?: string }} status */
  function receive(topic, status) {
    const node = RED.nodes.node(topic.split('/')[1]);
    if (!node?._def || node._def.set?.module !== MODULE || typeof status.text !== 'string') return;
    status.text = translate(node.type, status.text);
    if (node.status !== status) return; // the editor takes it next
    node.dirtyStatus = true;
    /** @type {any} */ (RED.view).redrawStatus(node);
  }

  function open() {
    RED.comms.unsubscribe(STATUSES, receive);
    RED.comms.subscribe(STATUSES, receive);
  }

  /** @type {any} */ (globalThis).MultiDiffusionStatuses ??= {
    open,
    close: () => RED.comms.unsubscribe(STATUSES, receive),
  };
})();
