// @ts-check
/* global module */
/**
 * A field for words: it completes them from the model's vocabulary and underlines those that the model doesn't know.
 * @typedef {(key: string, values?: Record<string, unknown>) => string} Say
 */
(function () {
  'use strict';

  /** As engine/checkpoint/vocabulary.ts reads a prompt. */
  const WORDS = /\p{L}+|\p{N}+|\p{Extended_Pictographic}/gu;
  const MOST_SUGGESTIONS = 6;
  /** A phrase of the vocabulary has up to so many words. */
  const LONGEST_PHRASE = 3;

  /** A model's vocabulary; one that is open (undefined) knows every word and suggests none. */
  class Vocabulary {
    /** @param {string[]} [entries] words and phrases */
    constructor(entries) {
      this.entries = entries?.map((entry) => entry.toLowerCase());
      this.known = entries && new Set(this.entries?.flatMap((entry) => entry.match(WORDS) ?? []));
    }

    /**
     * Where the words stand that the model doesn't know. The one that is being typed is not among them as long as it
     * may become one that is known.
     * @param {string} text @param {number} [caret] where the user is typing
     * @returns {Array<{from: number, to: number, word: string}>}
     */
    unknown(text, caret) {
      const { known } = this;
      if (!known) return [];
      const found = [];
      for (const match of text.matchAll(WORDS)) {
        const word = match[0].normalize('NFC').toLowerCase();
        const to = match.index + match[0].length;
        if (known.has(word)) continue;
        if (caret === to && [...known].some((other) => other.startsWith(word))) continue;
        found.push({ from: match.index, to, word });
      }
      return found;
    }

    /**
     * What the text before the caret may be completed to.
     * @param {string} text @param {number} caret
     * @returns {Array<{entry: string, from: number}>} from: where what it replaces begins
     */
    suggestions(text, caret) {
      if (!this.entries) return [];
      const before = text.slice(0, caret);
      if (/^[\p{L}\p{N}]/u.test(text.slice(caret))) return [];
      const starts = [...before.matchAll(/[\p{L}\p{N}]+/gu)].map((match) => match.index).slice(-LONGEST_PHRASE);
      /** @type {Map<string, number>} */
      const found = new Map();
      for (const from of starts) {
        const typed = before.slice(from).toLowerCase();
        if (typed.trim().length < 2 || /[^\p{L}\p{N} -]/u.test(typed)) continue;
        for (const entry of this.entries)
          if (entry.startsWith(typed) && entry !== typed && !found.has(entry)) found.set(entry, from);
      }
      return [...found].slice(0, MOST_SUGGESTIONS).map(([entry, from]) => ({ entry, from }));
    }
  }

  let count = 0;

  class WordsField {
    /**
     * @param {HTMLElement} container
     * @param {{
     *   label: string, placeholder?: string, value: string, say: Say, vocabulary: () => Vocabulary,
     *   onchange: (value: string) => void, onfocus?: () => void,
     * }} options
     */
    constructor(container, options) {
      this.options = options;
      this.id = `multidiffusion-words-${++count}`;
      /** @type {Array<{entry: string, from: number}>} */
      this.offered = [];
      this.active = -1;

      const box = document.createElement('div');
      box.className = 'multidiffusion-words';
      this.mirror = document.createElement('div');
      this.mirror.className = 'multidiffusion-words-mirror';
      this.mirror.setAttribute('aria-hidden', 'true');
      this.input = document.createElement('textarea');
      this.input.rows = 1;
      this.input.value = options.value;
      this.input.placeholder = options.placeholder ?? '';
      this.input.spellcheck = false;
      for (const [name, value] of Object.entries({
        role: 'combobox',
        'aria-label': options.label,
        'aria-autocomplete': 'list',
        'aria-expanded': 'false',
        'aria-controls': `${this.id}-list`,
        'aria-describedby': `${this.id}-unknown`,
      }))
        this.input.setAttribute(name, value);
      this.list = document.createElement('ul');
      this.list.id = `${this.id}-list`;
      this.list.className = 'multidiffusion-suggestions';
      this.list.setAttribute('role', 'listbox');
      this.list.setAttribute('aria-label', options.say('words.suggestions'));
      this.list.hidden = true;
      this.told = document.createElement('p');
      this.told.id = `${this.id}-unknown`;
      this.told.className = 'multidiffusion-unknown';
      this.told.setAttribute('aria-live', 'polite');
      box.append(this.mirror, this.input, this.list);
      container.append(box, this.told);

      this.input.addEventListener('input', () => {
        options.onchange(this.input.value);
        this.show(true);
        this.offer();
      });
      this.input.addEventListener('keydown', (event) => this.key(event));
      this.input.addEventListener('focus', () => options.onfocus?.());
      this.input.addEventListener('blur', () => {
        this.close();
        this.show();
      });
      // The list is part of the field: a press on it must not take the focus away.
      this.list.addEventListener('pointerdown', (event) => {
        event.preventDefault();
        const item = /** @type {HTMLElement} */ (event.target).closest('li');
        if (item) this.accept(Number(item.dataset.index));
      });
      this.show();
    }

    /** @param {string} value @param {string} [label] */
    set(value, label) {
      if (label) this.input.setAttribute('aria-label', label);
      if (this.input.value !== value) this.input.value = value;
      this.show(document.activeElement === this.input);
    }

    /** Underlines and names what the model doesn't know. @param {boolean} [typing] */
    show(typing) {
      const { value } = this.input;
      const unknown = this.options.vocabulary().unknown(value, typing ? this.input.selectionEnd : undefined);
      const pieces = [];
      let at = 0;
      for (const { from, to } of unknown) {
        const mark = document.createElement('mark');
        mark.textContent = value.slice(from, to);
        pieces.push(value.slice(at, from), mark);
        at = to;
      }
      // The last line counts even while it is empty.
      this.mirror.replaceChildren(...pieces, `${value.slice(at)}\u200b`);
      const words = [...new Set(unknown.map(({ word }) => word))];
      const said = words.length > 0 ? this.options.say('words.unknown', { words: words.join(', ') }) : '';
      if (this.told.textContent !== said) this.told.textContent = said;
      this.input.toggleAttribute('data-unknown', words.length > 0);
    }

    offer() {
      this.offered = this.options.vocabulary().suggestions(this.input.value, this.input.selectionEnd ?? 0);
      this.active = -1;
      this.list.replaceChildren(
        ...this.offered.map(({ entry }, index) => {
          const item = document.createElement('li');
          item.id = `${this.id}-${index}`;
          item.setAttribute('role', 'option');
          item.setAttribute('aria-selected', 'false');
          item.dataset.index = String(index);
          item.textContent = entry;
          return item;
        }),
      );
      this.list.hidden = this.offered.length === 0;
      this.input.setAttribute('aria-expanded', String(!this.list.hidden));
      this.input.removeAttribute('aria-activedescendant');
    }

    close() {
      this.offered = [];
      this.list.hidden = true;
      this.input.setAttribute('aria-expanded', 'false');
      this.input.removeAttribute('aria-activedescendant');
    }

    /** @param {number} index */
    accept(index) {
      const chosen = this.offered[index];
      if (!chosen) return;
      const { value, selectionEnd } = this.input;
      const end = chosen.from + chosen.entry.length;
      this.input.value = value.slice(0, chosen.from) + chosen.entry + value.slice(selectionEnd ?? value.length);
      this.input.setSelectionRange(end, end);
      this.options.onchange(this.input.value);
      this.close();
      this.show(true);
    }

    /** @param {KeyboardEvent} event */
    key(event) {
      if (this.list.hidden) return;
      const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (move) {
        this.active =
          (this.active + move + this.offered.length + (this.active < 0 && move < 0 ? 1 : 0)) % this.offered.length;
        [...this.list.children].forEach((item, index) =>
          item.setAttribute('aria-selected', String(index === this.active)),
        );
        this.input.setAttribute('aria-activedescendant', `${this.id}-${this.active}`);
      } else if ((event.key === 'Enter' || event.key === 'Tab') && this.active >= 0) {
        this.accept(this.active);
      } else if (event.key === 'Escape') {
        this.close();
      } else return;
      event.preventDefault();
      event.stopPropagation();
    }
  }

  const parts = (globalThis.MultiDiffusionCompose ??= {});
  parts.words = { Vocabulary, WordsField };
  if (typeof module !== 'undefined') module.exports = parts.words;
})();
