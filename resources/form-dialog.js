// @ts-check
/**
 * The open edit dialog: defaults that an older node lacks, typed inputs, texts of several lines, environment variables,
 * rows that depend on others, and folded sections that say what in them is not as usual.
 */
(function () {
  'use strict';
  const globals = /** @type {any} */ (globalThis);
  /** Filled by three files, in whatever order they are loaded. @type {any} */
  const forms = (globals.MultiDiffusionForms = globals.MultiDiffusionForms || {});

  const ICONS = /** @type {Record<string, string>} */ ({
    num: 'red/images/typedInput/09.svg',
    str: 'red/images/typedInput/az.svg',
    random: 'fa fa-random',
    drawn: 'fa fa-object-group',
    file: 'fa fa-file-image-o',
  });
  /**
   * Brings the rows of the open dialog to life.
   * @param {EditedNode} node
   */
  function prepare(node) {
    const form = $('.multidiffusion-form').last();
    complete(node);
    for (const [name, spec] of Object.entries(/** @type {Record<string, Spec>} */ (forms.optionsOf(node.type)))) {
      const input = forms.field(name);
      if (input.length === 0) continue;
      if (spec.form && spec.form.lines) prepareLines(node, name, spec, input);
      else if (forms.kindsOf(spec).length > 0) prepareTyped(node, name, spec, input);
      else if (forms.isVariable(node[name])) showVariable(input, node[name]);
    }
    nameBundled(forms.field('model'));
    prepareConditions(form);
    prepareSections(form, node);
  }

  /** Without a configuration node the bundled model draws; the editor would offer "none" or "Add new…". @param {any} select */
  function nameBundled(select) {
    const name = () => select.children('option[value="_ADD_"]').text(forms.bundled());
    select.on('change', name);
    name();
  }

  /**
   * Fills in the defaults of properties that a node from an older flow lacks.
   * @param {EditedNode} node
   */
  function complete(node) {
    const all = /** @type {Record<string, {value: unknown}>} */ (node._def.defaults);
    for (const [property, { value }] of Object.entries(all)) {
      if (node[property] !== undefined || value === '' || value === undefined) continue;
      const input = forms.field(property);
      if (input.is(':checkbox')) input.prop('checked', value);
      else input.val(value);
    }
  }

  /** A field that cannot show the name of a variable becomes one that can. @param {any} input @param {string} value */
  function showVariable(input, value) {
    if (input.is('select')) input.append($('<option>').val(value).text(value));
    else if (input.is(':checkbox, [type=color]')) input.attr('type', 'text').addClass('multidiffusion-variable');
    input.val(value).attr('title', forms.shared('variable'));
  }

  /** @param {EditedNode} node @param {string} name @param {Spec} spec @param {any} input */
  function prepareTyped(node, name, spec, input) {
    input.typedInput({
      default: forms.kindsOf(spec)[0],
      typeField: forms.field(name + 'Type'),
      types: forms.kindsOf(spec).map((/** @type {string} */ kind) => {
        if (forms.SOURCES.includes(kind)) return kind;
        const validate = (/** @type {unknown} */ value, /** @type {unknown} */ options) =>
          node._def.defaults[name].validate.call(node, value, options);
        return {
          value: kind,
          label: kindName(kind),
          icon: ICONS[kind],
          hasValue: !forms.PLAIN_KINDS.includes(kind),
          validate,
        };
      }),
    });
    nameTyped(input, node.type, name);
  }

  /**
   * A text of several lines beside the kinds of value that a line is enough for. The text area is the property's
   * field; it holds what the chosen source names while it is hidden.
   * @param {EditedNode} node @param {string} name @param {Spec} spec @param {any} area
   */
  function prepareLines(node, name, spec, area) {
    const kinds = forms.kindsOf(spec);
    const kind = forms.field(name + 'Type');
    const source = forms.field(name + '-source');
    const isText = () => !forms.SOURCES.includes(kind.val());
    let text = isText() ? area.val() : '';
    source.val(isText() ? '' : area.val());
    source.typedInput({
      default: kinds[0],
      typeField: kind,
      types: kinds.map((/** @type {string} */ value) =>
        forms.SOURCES.includes(value) ? value : { value, label: kindName(value), icon: ICONS[value], hasValue: false },
      ),
    });
    nameTyped(source, node.type, name);
    const container = source.next('.red-ui-typedInput-container');
    let before = isText();
    const update = () => {
      if (before && !isText()) text = area.val();
      if (isText()) {
        if (!before) area.val(text);
      } else area.val(source.typedInput('value'));
      before = isText();
      area.toggle(isText());
      container.toggleClass('multidiffusion-kind', isText());
    };
    source.on('change', () => {
      update();
      area.trigger('change');
    });
    update();
    // Whatever sets the field, as an editor extension may, sets the text.
    area.attr('aria-label', forms.labelOf(node.type, name));
    container.closest('.form-row').children('label').attr('for', area.attr('id'));
  }

  /** @param {string} kind @returns {string} */
  const kindName = (kind) => forms.shared('kind.' + kind);

  /**
   * Gives a typed input's field and menu names that a screen reader can say.
   * @param {any} input @param {string} type @param {string} name
   */
  function nameTyped(input, type, name) {
    const container = input.next('.red-ui-typedInput-container');
    const label = forms.labelOf(type, name);
    const id = input.attr('id') + '-value';
    container.find('.red-ui-typedInput-input').attr({
      id,
      'aria-label': label,
      'aria-describedby': input.attr('aria-describedby'),
      inputmode: input.attr('inputmode'),
    });
    container
      .closest('.form-row')
      .children('label[for="' + input.attr('id') + '"]')
      .attr('for', id);
    const trigger = container.find('.red-ui-typedInput-type-select').attr('aria-haspopup', 'menu');
    const update = () =>
      trigger.attr('aria-label', label + ': ' + (trigger.attr('title') || forms.shared('kind.label')));
    input.on('change', update);
    update();
  }

  /** Shows rows only where other options have the values that they need. @param {any} form */
  function prepareConditions(form) {
    const update = () => {
      form.find('[data-when]').each(
        /** @this {any} */ function () {
          const conditions = Object.entries($(this).data('when'));
          const met = conditions.every(([other, values]) => {
            const input = forms.field(other);
            const value = input.is(':checkbox') ? input.prop('checked') : input.val();
            return values.includes(value) || forms.isVariable(value);
          });
          $(this).toggle(met);
        },
      );
    };
    form.on('change', 'select, input', update);
    update();
  }

  /**
   * Lets the title of a closed section say what in it is not as usual, and opens one that holds a mistake.
   * @param {any} form @param {EditedNode} node
   */
  function prepareSections(form, node) {
    const options = Object.entries(/** @type {Record<string, Spec>} */ (forms.optionsOf(node.type)));
    const update = () => {
      form.find('details[data-section]').each(
        /** @this {any} */ function () {
          const section = $(this);
          const changed = options.filter(([name, spec]) => {
            const input = forms.field(name);
            return input.closest('details[data-section]').is(section) && differs(input, name, spec);
          });
          const texts = changed.map(([name, spec]) => summaryOf(node.type, name, spec));
          section.find('> summary > .multidiffusion-summary').text(texts.join(', '));
        },
      );
    };
    form.on('change input', 'input, select', update);
    update();
    // Node-RED marks what is invalid after it has prepared the form: that must be seen.
    setTimeout(() => form.find('details').has('.input-error').prop('open', true), 0);
  }

  /** @param {any} input @param {string} name @param {Spec} spec @returns {boolean} whether it is not as by default */
  function differs(input, name, spec) {
    const kind = forms.field(name + 'Type').val();
    if (kind && kind !== forms.kindsOf(spec)[0]) return true;
    if (input.is(':checkbox')) return input.prop('checked') !== spec.default;
    const value = String(input.val() ?? '').trim();
    return value !== '' && value !== String(spec.default ?? '');
  }

  /** @param {string} type @param {string} name @param {Spec} spec @returns {string} */
  function summaryOf(type, name, spec) {
    const input = forms.field(name);
    const label = forms.labelOf(type, name);
    if (input.is(':checkbox')) return (input.prop('checked') ? '' : '✗ ') + label;
    const kind = forms.field(name + 'Type').val();
    const value = input.is('select') ? input.find('option:selected').text() : input.val();
    const from = forms.SOURCES.includes(kind) ? kind + '.' : '';
    return label + ' ' + from + forms.shorten(String(value), 32) + (spec.form && spec.form.unit === 'px' ? ' px' : '');
  }

  Object.assign(forms, { prepare });
})();
