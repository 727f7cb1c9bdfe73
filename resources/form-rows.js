// @ts-check
/**
 * Writes the rows of edit dialogs from the options: `<div data-options="name …"></div>` in a template says where.
 * Node-RED fills in texts and values.
 */
(function () {
  'use strict';
  const globals = /** @type {any} */ (globalThis);
  /** Filled by three files, in whatever order they are loaded. @type {any} */
  const forms = (globals.MultiDiffusionForms = globals.MultiDiffusionForms || {});
  /** @param {string} type @returns {Record<string, Spec>} */
  const optionsOf = (type) => forms.optionsOf(type);

  /**
   * Puts a type's rows into its template, in place of each `<div data-options="name …"></div>`; `*` stands for all
   * options that the template does not name.
   * @param {string} type
   */
  function template(type) {
    const script = $('script[data-template-name="' + type + '"]');
    if (script.length > 0) script.html(expand(type, script.html()));
  }

  /** @param {string} type @param {string} html of the template @returns {string} */
  function expand(type, html) {
    const place = /<div data-options="([^"]*)"><\/div>/g;
    const named = [...html.matchAll(place)].flatMap((match) => match[1].split(' '));
    const prefix = type === 'diffusion-model' ? 'node-config-input-' : 'node-input-';
    return html.replace(place, (_, /** @type {string} */ names) => {
      const rest = Object.keys(optionsOf(type)).filter((name) => optionsOf(type)[name].form && !named.includes(name));
      const wanted = names.split(' ').flatMap((name) => (name === '*' ? rest : [name]));
      return rows(new Row(type, prefix), wanted);
    });
  }

  /** @param {Row} row @param {string[]} names @returns {string} rows, those of a section in it */
  function rows(row, names) {
    /** @type {Map<string, {always: string[], more: string[]}>} by section; '' for none */
    const sections = new Map([['', { always: [], more: [] }]]);
    for (const group of inRows(row, names)) {
      const { section = '', more } = row.form(group[0]);
      const rowsOf = sections.get(section) || { always: [], more: [] };
      sections.set(section, rowsOf);
      rowsOf[more ? 'more' : 'always'].push(row.html(group));
    }
    return [...sections]
      .map(([section, { always, more }]) => {
        const folded = more.length > 0 ? fold('more', forms.SHARED + 'section.more', more.join('')) : '';
        const body = always.join('') + folded;
        return section === '' ? body : fold(section, row.key('section.' + section), body);
      })
      .join('');
  }

  /** @param {Row} row @param {string[]} names @returns {string[][]} the names that stand in one row */
  function inRows(row, names) {
    /** @type {string[][]} */
    const groups = [];
    for (const name of names) {
      if (groups.length > 0 && row.form(name).beside !== undefined) groups[groups.length - 1].push(name);
      else groups.push([name]);
    }
    return groups;
  }

  /** @param {string} name @param {string} title a key @param {string} body */
  function fold(name, title, body) {
    return (
      `<details class="multidiffusion-section" data-section="${name}"><summary>` +
      `<span class="multidiffusion-title" data-i18n="${title}"></span><span class="multidiffusion-summary"></span>` +
      `</summary><div class="multidiffusion-body">${body}</div></details>`
    );
  }

  /** Writes rows as the template of an edit dialog; Node-RED fills in texts and values. */
  class Row {
    /** @param {string} type @param {string} prefix of ids */
    constructor(type, prefix) {
      this.type = type;
      this.prefix = prefix;
    }

    /** @param {string} key @returns {string} */
    key(key) {
      return this.type + '.' + key;
    }

    /** @param {string} name @returns {Spec} */
    spec(name) {
      const standard = /** @type {Record<string, any>} */ ({
        name: { type: 'text', form: { icon: 'tag', placeholder: true } },
        model: { type: 'text', form: { icon: 'cubes' } },
      });
      const spec = optionsOf(this.type)[name] || standard[name];
      if (!spec) throw new Error(this.type + ' has no option ' + name);
      return spec;
    }

    /** @param {string} name @returns {import('../engine/options').OptionForm} */
    form(name) {
      return this.spec(name).form || {};
    }

    /** @param {string[]} names of the options in the row @returns {string} */
    html(names) {
      const { when, icon = 'sliders', row: rowName } = this.form(names[0]);
      const attribute = when ? ` data-when="${escape(JSON.stringify(when))}"` : '';
      const only = this.spec(names[0]).type === 'boolean' && names.length === 1;
      const head = only
        ? '<label></label>'
        : `<label for="${this.prefix}${names[0]}"${this.title(names[0])}><i class="fa fa-${icon}"></i> ` +
          `<span data-i18n="${this.key('label.' + (rowName || names[0]))}"></span></label>`;
      const fields = names.map((name) => this.field(name, names.length > 1)).join('');
      const hints = names.map((name) => this.hint(name)).join('');
      return `<div class="form-row multidiffusion-row"${attribute}>${head}${fields}</div>${hints}`;
    }

    /** @param {string} name @param {boolean} shares whether it shares its row @returns {string} */
    field(name, shares) {
      const spec = this.spec(name);
      const { beside, unit } = this.form(name);
      const before = beside ? `<span class="multidiffusion-between">${escape(beside)}</span>` : '';
      let after = '';
      if (unit === true) after = `<span class="multidiffusion-after" data-i18n="${this.key('unit.' + name)}"></span>`;
      else if (unit) after = `<span class="multidiffusion-after">${escape(unit)}</span>`;
      return before + this.input(name, spec, shares) + after;
    }

    /** @param {string} name @param {Spec} spec @param {boolean} shares @returns {string} */
    input(name, spec, shares) {
      const id = `id="${this.prefix}${name}"`;
      const described = this.hint(name) && ` aria-describedby="${this.prefix}${name}-hint"`;
      const translated = [];
      if (shares) translated.push('[aria-label]' + this.key('label.' + name));
      const { placeholder, lines, kinds } = this.form(name);
      if (placeholder === true) translated.push('[placeholder]' + this.key('placeholder.' + name));
      const texts = translated.length > 0 ? ` data-i18n="${translated.join(';')}"` : '';
      const attributes = id + described + texts;
      switch (spec.type) {
        case 'boolean':
          return (
            `<label class="multidiffusion-check"${this.title(name)}><input type="checkbox" ${attributes}>` +
            `<span data-i18n="${this.key('label.' + name)}"></span></label>`
          );
        case 'choice':
          return `<select ${attributes}${shares ? ' class="multidiffusion-unit"' : ''}>${this.choices(name, spec)}</select>`;
        case 'colour':
          return `<input type="color" ${attributes} class="multidiffusion-short">`;
      }
      const empty = placeholder === undefined ? spec.default : placeholder;
      const shownEmpty = typeof empty === 'boolean' || empty === undefined || empty === '' ? '' : String(empty);
      const standing = shownEmpty && ` placeholder="${escape(shownEmpty)}"`;
      const typed = kinds ? `<input type="hidden" id="${this.prefix}${name}Type">` : '';
      if (lines) {
        const source = `<input type="text" id="${this.prefix}${name}-source" style="width: 100%">`;
        return `${source}<textarea ${attributes}${standing} rows="${lines}"></textarea>${typed}`;
      }
      if (spec.type === 'text') return `<input type="text" ${attributes}${standing} style="width: 100%">${typed}`;
      const mode = spec.type === 'integer' ? 'numeric' : 'decimal';
      const size = kinds ? 'style="width: 100%"' : 'class="multidiffusion-short"';
      return `<input type="text" ${attributes}${standing} inputmode="${mode}" ${size}>${typed}`;
    }

    /** @param {string} name @param {any} spec @returns {string} */
    choices(name, spec) {
      return spec.choices
        .map((/** @type {string} */ choice) => {
          const text = spec.names && spec.names[choice];
          if (text) return `<option value="${choice}">${escape(text)}</option>`;
          return `<option value="${choice}" data-i18n="${this.key(name + '.' + choice)}"></option>`;
        })
        .join('');
    }

    /** @param {string} name @returns {string} the attribute that shows the option's sentence on demand */
    title(name) {
      return this.hint(name) && ` data-i18n="[title]${this.key('hint.' + name)}"`;
    }

    /** The option's sentence, below the row or for screen readers alone. @param {string} name @returns {string} */
    hint(name) {
      if (!optionsOf(this.type)[name]) return '';
      const { hint, when } = this.form(name);
      const look = hint ? 'multidiffusion-hint' : 'multidiffusion-announcement';
      const attribute = hint && when ? ` data-when="${escape(JSON.stringify(when))}"` : '';
      const id = this.prefix + name + '-hint';
      return `<div class="${look}" id="${id}"${attribute} data-i18n="${this.key('hint.' + name)}"></div>`;
    }
  }

  /** @param {string} text @returns {string} */
  function escape(text) {
    return text.replace(/&/g, '&amp;').replace(/"/g, '&quot;').replace(/</g, '&lt;');
  }

  Object.assign(forms, { template, expand });
})();
