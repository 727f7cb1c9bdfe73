// @ts-check
/**
 * The sidebar panel that shows the samplers' last jobs: how far each is, and what its picture begins to
 * look like. The runtime sends what it shows (nodes/kit/panel.ts).
 */
(function () {
  'use strict';
  const TOPIC = 'multidiffusion/job';
  const TEXTS = 'node-red-contrib-multidiffusion/multidiffusion-sampler:multidiffusion-sampler.';
  /** Older jobs leave the panel. */
  const MOST_JOBS = 8;

  /** @typedef {{ node: string, job: string, event: string, index?: number, total?: number, rate?: number, position?: number, error?: string, picture?: string }} JobEvent */

  /** @param {string} key @param {Record<string, unknown>} [values] @returns {string} */
  const say = (key, values) => RED._(TEXTS + key, values);

  /** One job in the panel. */
  class Entry {
    /** @param {string} node id of the sampler */
    constructor(node) {
      this.element = document.createElement('li');
      this.element.className = 'multidiffusion-job';
      const sampler = document.createElement('a');
      sampler.href = '#';
      sampler.textContent = RED.utils.getNodeLabel(RED.nodes.node(node) || {}, say('palette'));
      sampler.addEventListener('click', (event) => {
        event.preventDefault();
        if (RED.nodes.node(node)) RED.view.reveal(node);
      });
      this.state = document.createElement('span');
      this.bar = document.createElement('progress');
      this.bar.value = 0;
      this.picture = document.createElement('img');
      this.picture.alt = say('panel.picture');
      this.picture.hidden = true;
      this.element.append(sampler, this.state, this.bar, this.picture);
    }

    /** @param {JobEvent} event */
    show(event) {
      const { index, total } = event;
      if (index !== undefined && total !== undefined) {
        this.bar.max = total;
        this.bar.value = index;
      }
      switch (event.event) {
        case 'preview':
          if (event.picture?.startsWith('data:image/png;base64,')) {
            this.picture.src = event.picture;
            this.picture.hidden = false;
          }
          return;
        case 'queued':
        case 'step':
          this.state.textContent = say('status.' + event.event, { ...event });
          return;
        case 'failed':
          this.state.textContent = event.error ?? say('status.error.OTHER');
          break;
        case 'started':
          this.state.textContent = '';
          return;
        default:
          this.state.textContent = say('status.' + event.event);
      }
      this.element.classList.add('multidiffusion-job-' + event.event);
      this.bar.hidden = true;
    }
  }

  /** @type {Map<string, Entry>} oldest first */
  const entries = new Map();
  /** @type {HTMLElement | undefined} */
  let panel;

  /** @param {string} _topic @param {JobEvent} event */
  function receive(_topic, event) {
    if (!panel) return;
    const list = /** @type {HTMLElement} */ (panel.querySelector('ul'));
    const key = event.node + ' ' + event.job;
    // A job of the same name is another one.
    if (event.event === 'queued') forget(key);
    let entry = entries.get(key);
    if (!entry) {
      entry = new Entry(event.node);
      entries.set(key, entry);
      list.prepend(entry.element);
      const oldest = entries.keys().next().value;
      if (entries.size > MOST_JOBS && oldest !== undefined) forget(oldest);
    }
    entry.show(event);
    panel.classList.add('multidiffusion-panel-used');
  }

  /** @param {string} key */
  function forget(key) {
    entries.get(key)?.element.remove();
    entries.delete(key);
  }

  function open() {
    if (panel) return;
    panel = document.createElement('div');
    panel.className = 'multidiffusion-panel';
    const hint = document.createElement('p');
    hint.textContent = say('panel.empty');
    panel.append(hint, document.createElement('ul'));
    RED.sidebar.addTab({
      id: 'multidiffusion',
      label: say('panel.label'),
      name: say('panel.name'),
      iconClass: 'fa fa-picture-o',
      content: panel,
      enableOnEdit: true,
      action: 'multidiffusion:show-progress',
    });
    RED.actions.add('multidiffusion:show-progress', () => RED.sidebar.show('multidiffusion'));
    RED.comms.subscribe(TOPIC, receive);
  }

  function close() {
    if (!panel) return;
    RED.comms.unsubscribe(TOPIC, receive);
    RED.actions.remove('multidiffusion:show-progress');
    RED.sidebar.removeTab('multidiffusion');
    panel = undefined;
    entries.clear();
  }

  /** @type {any} */ (globalThis).MultiDiffusionPanel ??= { open, close };
})();
