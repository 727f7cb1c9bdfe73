// @ts-check
/* global module */
/** What can be undone: states in order, and where in them we are. Changes of the same kind in a row are one. */
(function () {
  'use strict';
  const MOST = 200;
  /** Milliseconds after which typing goes on as a new change. */
  const PAUSE = 1500;

  /** @template State */
  class History {
    /** @param {State} state @param {() => number} [clock] */
    constructor(state, clock = () => Date.now()) {
      /** @type {State[]} */
      this.states = [state];
      this.at = 0;
      this.clock = clock;
      /** @type {string | undefined} */
      this.kind = undefined;
      this.time = 0;
    }

    /** @param {State} state after the change @param {string} [kind] what was changed, if the next change may be part of it */
    push(state, kind) {
      const now = this.clock();
      const same = kind !== undefined && kind === this.kind && now - this.time < PAUSE && this.at > 0;
      this.kind = kind;
      this.time = now;
      if (!same) this.at++;
      this.states.splice(this.at, Infinity, state);
      if (this.states.length > MOST) {
        this.states.shift();
        this.at--;
      }
    }

    get canUndo() {
      return this.at > 0;
    }

    get canRedo() {
      return this.at < this.states.length - 1;
    }

    /** @returns {State | undefined} */
    undo() {
      this.kind = undefined;
      return this.canUndo ? this.states[--this.at] : undefined;
    }

    /** @returns {State | undefined} */
    redo() {
      this.kind = undefined;
      return this.canRedo ? this.states[++this.at] : undefined;
    }
  }

  const parts = (globalThis.MultiDiffusionCompose ??= {});
  parts.History = History;
  if (typeof module !== 'undefined') module.exports = { History };
})();
