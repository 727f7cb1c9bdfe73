// @ts-check
/* global MultiDiffusionMigrations */
/**
 * What the definitions of all nodes share: defaults and validators, from the options that the run time exports
 * (engine/options.ts), labels, and nodes of older flows brought up to date. form-rows.js writes the rows of a dialog,
 * form-dialog.js brings them to life; all three add to MultiDiffusionForms, in whatever order they are loaded.
 * Every node's html loads them, so each may run several times.
 */
(function () {
  'use strict';
  const globals = /** @type {any} */ (globalThis);
  /** Filled by three files, in whatever order they are loaded. @type {any} */
  const forms = (globals.MultiDiffusionForms = globals.MultiDiffusionForms || {});
  const NAMESPACE = 'node-red-contrib-multidiffusion/';
  /** Texts that all nodes use live in the configuration node's catalogue. */
  const SHARED = NAMESPACE + 'diffusion-model:multidiffusion.';
  const SOURCES = ['msg', 'flow', 'global', 'env', 'jsonata'];
  /** Kinds of value that need no value beside them. */
  const PLAIN_KINDS = ['random', 'drawn'];

  /** @param {string} key @param {Record<string, unknown>} [values] @returns {string} */
  function shared(key, values) {
    return RED._(SHARED + key, values);
  }

  /** What draws where no configuration node is chosen. @returns {string} */
  const bundled = () => RED._(NAMESPACE + 'diffusion-model:diffusion-model.pocket');

  /** @param {string} type @param {string} key @returns {string} a text of the node's own catalogue */
  function own(type, key) {
    return RED._(NAMESPACE + type + ':' + type + '.' + key);
  }

  /** @param {string} type @param {string} property @returns {string} what the form calls the property */
  const labelOf = (type, property) => own(type, 'label.' + property);

  /** @param {string} type @returns {Record<string, Spec>} the options of a node type, in the form's order */
  function optionsOf(type) {
    const name = type.replace(/-(.)/g, (_, letter) => letter.toUpperCase()) + 'Options';
    return RED.settings[name] || {};
  }

  /** @param {Spec} spec @returns {readonly string[]} */
  const kindsOf = (spec) => (spec.form && spec.form.kinds) || [];

  /**
   * A value as it may stand in a reason. Node-RED shows reasons as HTML, and an imported flow may come from a stranger.
   * @param {unknown} value @returns {string}
   */
  function plain(value) {
    const text = typeof value === 'string' ? value : JSON.stringify(value) || String(value);
    return shorten(text.replace(/[<>&]/g, '·'), 60);
  }

  /** Whether Node-RED puts the value of an environment variable in its place. @param {unknown} value */
  const isVariable = (value) => typeof value === 'string' && /^\$\{[^}]+\}$/.test(value);

  /**
   * A property's value: what the open dialog says if it is this node's, else what is stored.
   * Node-RED calls validators for both.
   * @param {EditedNode} node @param {string} property @returns {any}
   */
  function current(node, property) {
    const editing = RED.editor && typeof RED.editor.getEditStack === 'function' ? RED.editor.getEditStack() : [];
    const open = editing.length > 0 && editing[editing.length - 1].id === node.id;
    const input = open ? field(property) : $();
    if (input.length === 0) return node[property];
    return input.is(':checkbox') ? input.prop('checked') : input.val();
  }

  /** @param {string} property @returns {any} the input of the open dialog */
  const field = (property) => $('#node-input-' + property + ', #node-config-input-' + property).first();

  /** Whether a form shows an option now. @param {EditedNode} node @param {Spec} spec */
  function isShown(node, spec) {
    const conditions = Object.entries((spec.form && spec.form.when) || {});
    return conditions.every(([other, values]) => values.includes(current(node, other)));
  }

  /**
   * The defaults of a node's options: each with the run time's default and a validator, as Node-RED 3 and later take
   * it: true, or the reason why not.
   * @param {string} type
   * @returns {Record<string, {value: unknown, validate?: Function}>}
   */
  function defaults(type) {
    /** @type {Record<string, {value: unknown, validate?: Function}>} */
    const all = {};
    for (const [name, spec] of Object.entries(optionsOf(type))) {
      all[name] = { value: spec.default === undefined ? '' : spec.default, validate: validator(type, name, spec) };
      const kinds = kindsOf(spec);
      if (kinds.length > 0) all[name + 'Type'] = { value: kinds[0], validate: kindValidator(type, name, kinds) };
    }
    // An imported node keeps only properties that are named here; migrations need the old ones.
    for (const name of MultiDiffusionMigrations.retired(type)) all[name] = { value: undefined };
    return all;
  }

  /** @param {string} type @param {string} name @param {Spec} spec */
  function validator(type, name, spec) {
    return /** @this {EditedNode} */ function (/** @type {unknown} */ value, /** @type {any} */ options) {
      if (isVariable(value)) return true;
      const kind = kindsOf(spec).length > 0 ? current(this, name + 'Type') || kindsOf(spec)[0] : undefined;
      if (PLAIN_KINDS.includes(kind)) return true;
      const label = labelOf(type, name);
      if (SOURCES.includes(kind)) {
        if (!isShown(this, spec)) return true;
        if (String(value ?? '').trim() === '') return shared('error.missing', { label });
        const valid = RED.utils.validateTypedProperty(value, kind, options && { ...options, label });
        return typeof valid === 'string' ? plain(valid) : valid;
      }
      return CHECKS[spec.type](/** @type {any} */ (spec), value, label, this);
    };
  }

  /** @param {string} type @param {string} name @param {readonly string[]} kinds */
  function kindValidator(type, name, kinds) {
    return function (/** @type {unknown} */ value, /** @type {unknown} */ _options) {
      // A flow from before the property existed has nothing there, as a dialog without its field.
      if (value === undefined || value === '' || kinds.includes(String(value))) return true;
      const values = { label: labelOf(type, name), value: plain(value), choices: kinds.join(', ') };
      return shared('error.choice', values);
    };
  }

  /** @typedef {(spec: any, value: any, label: string, node: EditedNode) => true | string} Check */

  /** By an option's type. What a flow from before the option existed lacks is right: the default holds then. */
  const CHECKS = /** @type {Record<string, Check>} */ ({
    number: checkNumber,
    integer: checkNumber,
    choice: (spec, value, label) =>
      value === undefined ||
      spec.choices.includes(value) ||
      shared('error.choice', { label, value: plain(value), choices: spec.choices.join(', ') }),
    boolean: (_spec, value, label) =>
      [undefined, true, false, 'true', 'false', ''].includes(value) ||
      shared('error.choice', { label, value: plain(value), choices: 'true, false' }),
    colour: (_spec, value, label) =>
      value === undefined ||
      /^#[0-9a-f]{6}$/i.test(String(value)) ||
      shared('error.colour', { label, value: plain(String(value)) }),
    text: checkText,
  });

  /** @type {Check} */
  function checkNumber(spec, value, label, node) {
    const inSteps = spec.unitOption && current(node, spec.unitOption) === 'steps';
    const max = spec.unitOption && !inSteps ? 1 : spec.max;
    const integer = spec.type === 'integer' || inSteps;
    const text = String(value ?? '').trim();
    if (text === '') {
      // Where the default is a share, it is none in steps.
      const blank = !spec.required && !(inSteps && spec.default !== undefined);
      return blank || shared('error.missing', { label });
    }
    const number = Number(text);
    if (!Number.isFinite(number) || number < spec.min || number > max || (integer && !Number.isInteger(number)))
      return shared(integer ? 'error.integer' : 'error.number', { label, value: plain(text), min: spec.min, max });
    const other = spec.above === undefined ? NaN : Number(current(node, spec.above) || 0);
    if (number <= other)
      return shared('error.above', { label, value: plain(text), other: labelOf(node.type, spec.above) });
    return true;
  }

  /** @type {Check} */
  function checkText(spec, value, label, node) {
    const text = String(value ?? '');
    if (spec.required && text.trim() === '') return !isShown(node, spec) || shared('error.missing', { label });
    if (spec.pattern && !new RegExp(spec.pattern.source).test(text))
      return shared('error.' + spec.pattern.refusal, { label, value: plain(text) });
    const unknown = spec.fields && [...text.matchAll(/\{([^{}]*)\}/g)].find(([, name]) => !spec.fields.includes(name));
    if (!unknown) return true;
    const known = spec.fields.map((/** @type {string} */ name) => '{' + name + '}').join(' ');
    return shared('error.field', { label, field: plain(unknown[0]), known });
  }

  /**
   * What all definitions have in common.
   * @param {string} type
   */
  function common(type) {
    return {
      paletteLabel: /** @this {any} */ function () {
        return this._(type + '.palette');
      },
      label: /** @this {any} */ function () {
        return this.name || this._(type + '.palette');
      },
      labelStyle: /** @this {any} */ function () {
        return this.name ? 'node_label_italic' : '';
      },
      inputLabels: /** @this {any} */ function () {
        return this._(type + '.port.input');
      },
      outputLabels: /** @this {any} */ function () {
        return this._(type + '.port.output');
      },
      oneditprepare: /** @this {any} */ function () {
        forms.prepare(this);
      },
    };
  }

  /**
   * What a label says of a value that may come from elsewhere: the value, `msg.…`, or a variable's name.
   * @param {EditedNode} node @param {string} property @returns {string}
   */
  function shown(node, property) {
    const kind = node[property + 'Type'];
    const value = shorten(String(node[property] ?? ''), 32);
    if (kind === 'env') return '${' + value + '}';
    return ['msg', 'flow', 'global'].includes(kind) ? kind + '.' + value : value;
  }

  /** @param {string} text @param {number} length @returns {string} */
  function shorten(text, length) {
    const trimmed = text.trim().replace(/\s+/g, ' ');
    return trimmed.length > length ? trimmed.slice(0, length - 1).trimEnd() + '…' : trimmed;
  }

  // Nodes from older flows, as soon as they are in the editor: the file may run again, the listener may not.
  if (RED.events && !forms.defaults)
    RED.events.on('nodes:add', (/** @type {any} */ node) => MultiDiffusionMigrations.migrate(node.type, node));

  Object.assign(forms, {
    SHARED,
    SOURCES,
    PLAIN_KINDS,
    optionsOf,
    kindsOf,
    labelOf,
    field,
    isVariable,
    plain,
    current,
    defaults,
    common,
    shorten,
    shown,
    shared,
    bundled,
  });
})();
