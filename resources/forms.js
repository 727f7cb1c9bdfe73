// @ts-check
/**
 * What the edit dialogs of all nodes share: validators that say what is wrong, prompt fields, and
 * sections that show in one line what is set inside while they are closed.
 * Every node's html loads this file, so it may run several times.
 */
(function () {
  'use strict';
  const NAMESPACE = 'node-red-contrib-multidiffusion/';
  /** Texts that all nodes use live in the configuration node's catalogue. */
  const SHARED = NAMESPACE + 'diffusion-model:multidiffusion.';

  /** @param {string} key @param {Record<string, unknown>} [values] @returns {string} */
  function shared(key, values) {
    return RED._(SHARED + key, values);
  }

  /** @param {string} type @param {string} property @returns {string} what the form calls the property */
  function labelOf(type, property) {
    return RED._(NAMESPACE + type + ':' + type + '.label.' + property);
  }

  /**
   * A value as it may stand in a reason. Node-RED shows reasons as HTML, and an imported flow may come from a stranger.
   * @param {unknown} value @returns {string}
   */
  function plain(value) {
    const text = typeof value === 'string' ? value : JSON.stringify(value) || String(value);
    return shorten(text.replace(/[<>&]/g, '·'), 60);
  }

  /**
   * A validator for a number, as Node-RED 3 and later take it: true, or the reason why not.
   * @param {string} type the node's type
   * @param {string} property
   * @param {{min: number, max: number, integer?: boolean, blank?: boolean}} range blank: may be left empty
   */
  function number(type, property, range) {
    return function (/** @type {unknown} */ value, /** @type {unknown} */ _options) {
      const text = String(value ?? '').trim();
      if (text === '') return range.blank ? true : shared('error.missing', { label: labelOf(type, property) });
      const parsed = Number(text);
      if (Number.isFinite(parsed) && parsed >= range.min && parsed <= range.max && (!range.integer || Number.isInteger(parsed))) return true;
      const values = { label: labelOf(type, property), value: plain(text), min: range.min, max: range.max };
      return shared(range.integer ? 'error.integer' : 'error.number', values);
    };
  }

  // A flow that was made before a property existed has undefined there: the default holds then.

  /**
   * A validator for one of a few words.
   * @param {string} type @param {string} property @param {string[]} choices
   */
  function choice(type, property, choices) {
    return function (/** @type {unknown} */ value, /** @type {unknown} */ _options) {
      if (value === undefined || (typeof value === 'string' && choices.includes(value))) return true;
      return shared('error.choice', { label: labelOf(type, property), value: plain(value), choices: choices.join(', ') });
    };
  }

  /**
   * A validator for a colour as #rrggbb.
   * @param {string} type @param {string} property
   */
  function colour(type, property) {
    return function (/** @type {unknown} */ value, /** @type {unknown} */ _options) {
      if (value === undefined || /^#[0-9a-f]{6}$/i.test(String(value))) return true;
      return shared('error.colour', { label: labelOf(type, property), value: plain(String(value)) });
    };
  }

  /**
   * A validator for a text that must be there, and if it names a message property, must name it well.
   * @param {string} type @param {string} property
   * @param {(node: any) => boolean} [when] whether the text is needed at all
   * @param {string} [typeProperty] where the typedInput's type is kept
   */
  function text(type, property, when, typeProperty) {
    return /** @this {any} */ function (/** @type {unknown} */ value, /** @type {unknown} */ options) {
      if (when && !when(this)) return true;
      if (String(value ?? '').trim() === '') return shared('error.missing', { label: labelOf(type, property) });
      if (typeProperty && current(this, typeProperty) === 'msg') return RED.utils.validateTypedProperty(value, 'msg', options);
      return true;
    };
  }

  /**
   * A property's value: what the open dialog says if it is this node's, else what is stored.
   * Node-RED calls validators for both.
   * @param {any} node @param {string} property @returns {any}
   */
  function current(node, property) {
    const editing = RED.editor && typeof RED.editor.getEditStack === 'function' ? RED.editor.getEditStack() : [];
    const open = editing.length > 0 && editing[editing.length - 1].id === node.id;
    const input = open ? $('#node-input-' + property + ', #node-config-input-' + property).first() : $();
    if (input.length === 0) return node[property];
    return input.is(':checkbox') ? input.prop('checked') : input.val();
  }

  /**
   * The kinds of value of a text field that a message may fill: a fixed text, which opens in a larger
   * editor, or a property of the message.
   * @param {string} label what a fixed text is called
   * @param {string} icon a Font Awesome class
   */
  function textOrMessage(label, icon) {
    const fixed = {
      value: 'str',
      label,
      icon,
      expand: /** @this {any} */ function () {
        const input = this;
        RED.editor.editText({
          mode: 'ace/mode/text',
          value: input.value(),
          complete: (/** @type {string} */ value) => input.value(value.replace(/\s*\n\s*/g, ' ').trim()),
        });
      },
    };
    return [fixed, 'msg'];
  }

  /**
   * Lets the summary line of each `<details class="multidiffusion-section" data-summary="name">` say what is
   * set inside it.
   * @param {any} form jQuery object that holds the sections
   * @param {Record<string, () => string>} summaries by section name
   */
  function sections(form, summaries) {
    const update = () => {
      for (const [name, summary] of Object.entries(summaries)) {
        form.find('details[data-summary="' + name + '"] .multidiffusion-summary').text(summary());
      }
    };
    form.on('change input', 'input, select', update);
    update();
    // Node-RED marks what is invalid after it has prepared the form: that must be seen.
    setTimeout(() => form.find('details').has('.input-error').prop('open', true), 0);
  }

  /**
   * Fills in the defaults of properties that a node from an older flow lacks.
   * @param {any} node
   */
  function complete(node) {
    for (const [property, { value }] of Object.entries(/** @type {Record<string, {value: unknown}>} */ (node._def.defaults))) {
      if (node[property] !== undefined || value === '') continue;
      const input = $('#node-input-' + property + ', #node-config-input-' + property).first();
      if (input.is(':checkbox')) input.prop('checked', value);
      else input.val(value);
    }
  }

  /** @param {string} text @param {number} length @returns {string} */
  function shorten(text, length) {
    const trimmed = text.trim().replace(/\s+/g, ' ');
    return trimmed.length > length ? trimmed.slice(0, length - 1).trimEnd() + '…' : trimmed;
  }

  const forms = { plain, number, choice, colour, text, current, complete, textOrMessage, sections, shorten, shared };
  /** @type {any} */ (globalThis).MultiDiffusionForms = forms;
})();
