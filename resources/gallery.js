// @ts-check
/**
 * The sidebar panel: jobs that run, with what they begin to look like, and the last pictures with what made them.
 * The runtime announces what happens (nodes/shared/gallery.ts); pictures are fetched only while somebody looks.
 */
(function () {
  'use strict';
  const JOBS = 'multidiffusion/job';
  const PICTURES = 'multidiffusion/picture';
  const TEXTS = 'node-red-contrib-multidiffusion/multidiffusion-sampler:multidiffusion-sampler.';
  /** Older pictures leave the panel. */
  const MOST_PICTURES = 40;
  /** Jobs that failed or were cancelled stay for a while, so that the reason can be read. */
  const MOST_ENDED = 5;
  /** Milliseconds between two looks at a running job. */
  const LOOK_INTERVAL = 400;

  /** @typedef {{ node: string, alias?: string }} Place */
  /**
   * @typedef {Place & { job: string, event: string, index?: number, total?: number, rate?: number, position?:
   * number, error?: string }} JobNews
   */
  /**
   * @typedef {Place & { id: string, job?: string, sampler?: Place, width: number, height: number, time: number,
   * gone?: boolean }} PictureFacts
   */
  /**
   * @typedef {{ prompt?: string, negativePrompt?: string, seed?: number, steps?: number, model?: string,
   * scheduler?: string, width?: number, height?: number, regions?: Array<{ name?: string, prompt?: string }> }}
   * Recipe
   */

  /** @param {string} key @param {Record<string, unknown>} [values] @returns {string} */
  const say = (key, values) => RED._(TEXTS + key, values);

  /**
   * @param {string} name of the element
   * @param {Record<string, unknown>} [properties]
   * @param {...(Node | string)} children
   * @returns {any}
   */
  function make(name, properties = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key.startsWith('aria-')) element.setAttribute(key, String(value));
      else Object.assign(element, { [key]: value });
    }
    element.append(...children);
    return element;
  }

  /** @param {string} icon @param {string} label @param {() => void} onclick */
  function makeButton(icon, label, onclick) {
    const button = make('button', { type: 'button', className: 'red-ui-button red-ui-button-small', onclick });
    button.append(make('i', { className: `fa fa-${icon}` }), ` ${label}`);
    return button;
  }

  /** A picture of the admin API; an img element could not send the editor's token. @param {string} url @returns {Promise<Blob>} */
  const fetchBlob = (url) => Promise.resolve($.ajax({ url, cache: false, xhrFields: { responseType: 'blob' } }));

  /** @param {string} part @returns {string} */
  const encode = (part) => encodeURIComponent(part);

  /** The node of the workspace that stands for one of the runtime. @param {Place | undefined} place */
  const nodeOf = (place) => place && (RED.nodes.node(place.node) || (place.alias && RED.nodes.node(place.alias)));

  /** @param {Place} place */
  function labelOf(place) {
    const node = nodeOf(place);
    return node ? RED.utils.getNodeLabel(node, say('palette')) : say('palette');
  }

  /** @param {Place} place */
  function reveal(place) {
    const node = nodeOf(place);
    if (node) RED.view.reveal(node.id);
  }

  /** What an img shows; the picture before it is given back. @param {HTMLImageElement} image @param {Blob} blob */
  function showBlob(image, blob) {
    const before = image.src;
    image.src = URL.createObjectURL(blob);
    image.hidden = false;
    if (before.startsWith('blob:')) URL.revokeObjectURL(before);
  }

  /** @param {HTMLElement} element */
  function removeElement(element) {
    for (const image of element.querySelectorAll('img'))
      if (image.src.startsWith('blob:')) URL.revokeObjectURL(image.src);
    element.remove();
  }

  /** A job that runs, or has failed. */
  class Job {
    /** @param {JobNews} news */
    constructor(news) {
      this.news = news;
      this.ended = false;
      this.lookedAt = 0;
      this.looking = false;
      this.title = make('a', { href: '#', textContent: labelOf(news) });
      this.title.addEventListener('click', (/** @type {Event} */ event) => {
        event.preventDefault();
        reveal(this.news);
      });
      this.state = make('span', { className: 'multidiffusion-job-state' });
      this.bar = make('progress', { value: 0, 'aria-label': say('panel.progress') });
      this.cancel = makeButton('times', say('panel.cancel'), () => this.stop());
      this.picture = make('img', { alt: say('panel.preview'), hidden: true });
      this.element = make(
        'li',
        { className: 'multidiffusion-job' },
        this.title,
        this.state,
        this.bar,
        this.cancel,
        this.picture,
      );
    }

    stop() {
      this.cancel.disabled = true;
      $.ajax({ url: `multidiffusion/jobs/${encode(this.news.node)}/${encode(this.news.job)}`, type: 'DELETE' }).fail(
        (/** @type {{ status: number }} */ { status }) => {
          this.cancel.disabled = false;
          if (status !== 404) RED.notify(say('panel.mayNot'), 'error');
        },
      );
    }

    /** @param {JobNews} news */
    show(news) {
      this.news = news;
      const { event, index, total } = news;
      if (index !== undefined && total !== undefined) {
        this.bar.max = total;
        this.bar.value = index;
      }
      if (event === 'failed') this.end(news.error ?? say('status.error.OTHER'));
      else if (event === 'cancelled') this.end(say('status.cancelled'));
      else this.state.textContent = event === 'started' ? '' : say('status.' + event, { ...news });
    }

    /** @param {string} reason */
    end(reason) {
      this.ended = true;
      this.state.textContent = reason;
      this.element.classList.add('multidiffusion-job-' + this.news.event);
      this.bar.remove();
      this.cancel.remove();
      if (this.picture.src) URL.revokeObjectURL(this.picture.src);
      this.picture.remove();
    }

    /** Fetches what it looks like now, if somebody can see it. @param {boolean} inPanel */
    async look(inPanel) {
      const onWorkspace = workspace().wants(this.news);
      if (this.looking || (!inPanel && !onWorkspace) || Date.now() - this.lookedAt < LOOK_INTERVAL) return;
      this.looking = true;
      this.lookedAt = Date.now();
      try {
        const blob = await fetchBlob(`multidiffusion/jobs/${encode(this.news.node)}/${encode(this.news.job)}/look`);
        if (this.ended || !blob) return;
        showBlob(this.picture, blob);
        if (onWorkspace) workspace().show(this.news, blob, { live: true });
      } catch {
        // It has ended meanwhile, or its model can't say.
      } finally {
        this.looking = false;
      }
    }
  }

  /** A finished picture. */
  class Picture {
    /** @param {PictureFacts} facts */
    constructor(facts) {
      this.facts = facts;
      /** @type {Promise<Blob> | undefined} */
      this.loading = undefined;
      this.shown = false;
      this.image = make('img', { alt: say('panel.pictureOf', { name: labelOf(facts) }), width: 96, height: 96 });
      const time = new Date(facts.time).toLocaleTimeString();
      this.button = make('button', { type: 'button', title: time, onclick: () => this.enlarge() }, this.image);
      this.element = make('li', { className: 'multidiffusion-thumbnail' }, this.button);
    }

    /** @returns {Promise<Blob>} a JPEG of a few kilobytes */
    small() {
      this.loading ??= fetchBlob(`multidiffusion/pictures/${this.facts.id}?small`);
      return this.loading;
    }

    /** @returns {Promise<Blob>} the file as it was made */
    full() {
      return fetchBlob(`multidiffusion/pictures/${this.facts.id}`);
    }

    /** @returns {Promise<Recipe>} what made it; empty when nothing is known */
    recipe() {
      return Promise.resolve($.getJSON(`multidiffusion/pictures/${this.facts.id}/recipe`)).catch(() => ({}));
    }

    /** Shows the thumbnail, once it can be seen. */
    async reveal() {
      if (this.shown) return;
      this.shown = true;
      try {
        showBlob(this.image, await this.small());
      } catch {
        this.shown = false;
      }
    }

    enlarge() {
      void openPicture(this);
    }
  }

  /** The picture in full, with what made it and what can be done with it. @param {Picture} picture */
  async function openPicture(picture) {
    const { facts } = picture;
    const image = make('img', { alt: '', width: facts.width, height: facts.height });
    const list = make('dl');
    const actions = make('div', { className: 'multidiffusion-actions' });
    const close = makeButton('times', say('panel.close'), () => dialog.close());
    const title = make('h3', { textContent: labelOf(facts), id: 'multidiffusion-picture-title' });
    const head = make('header', {}, title, close);
    const dialog = make(
      'dialog',
      { className: 'multidiffusion-picture', 'aria-labelledby': title.id },
      head,
      image,
      list,
      actions,
    );
    dialog.addEventListener('close', () => removeElement(dialog));
    dialog.addEventListener('click', (/** @type {Event} */ event) => event.target === dialog && dialog.close());
    // Keys that are meant for the dialog are none of the workspace's.
    dialog.addEventListener('keydown', (/** @type {Event} */ event) => event.stopPropagation());
    document.body.append(dialog);
    dialog.showModal();

    const [blob, recipe] = await Promise.all([picture.full().catch(() => undefined), picture.recipe()]);
    if (!dialog.open) return;
    if (!blob) {
      image.replaceWith(make('p', { textContent: say('panel.forgotten') }));
      return;
    }
    showBlob(image, blob);
    image.alt = recipe.prompt || say('panel.pictureOf', { name: labelOf(facts) });
    for (const [key, value] of describe(recipe, facts))
      list.append(make('dt', { textContent: say('panel.' + key) }), make('dd', { textContent: value }));
    actions.append(
      makeButton('download', say('panel.download'), () => download(blob, facts)),
      makeButton('crosshairs', say('panel.reveal'), () => (dialog.close(), reveal(facts))),
    );
    if (recipe.seed !== undefined && nodeOf(facts.sampler)) {
      actions.append(
        makeButton('random', say('panel.useSeed'), () => (dialog.close(), useSeed(nodeOf(facts.sampler), recipe.seed))),
      );
    }
    for (const { icon, label, run } of furtherActions) {
      actions.append(makeButton(icon, label(), () => (dialog.close(), run({ facts, recipe, blob }))));
    }
  }

  /** @param {Recipe} recipe @param {PictureFacts} facts @returns {Array<[string, string]>} */
  function describe({ prompt, negativePrompt, regions = [], seed, steps, scheduler, model }, { width, height, time }) {
    const parts = regions.map((region) => region.prompt || region.name || '').filter(Boolean);
    /** @type {Array<[string, unknown]>} */
    const rows = [
      ['prompt', prompt],
      ['negativePrompt', negativePrompt],
      ['regions', parts.join(' · ')],
      ['size', `${width} × ${height}`],
      ['seed', seed],
      ['steps', steps],
      ['scheduler', scheduler],
      ['model', model],
      ['made', new Date(time).toLocaleString()],
    ];
    return rows.filter(([, value]) => value !== undefined && value !== '').map(([key, value]) => [key, String(value)]);
  }

  /** @param {Blob} blob @param {PictureFacts} facts */
  function download(blob, { time }) {
    const extension = blob.type.replace('image/', '').replace('jpeg', 'jpg');
    const name = new Date(time).toISOString().slice(0, 19).replace(/[:T]/g, '-');
    const link = make('a', { href: URL.createObjectURL(blob), download: `${name}.${extension}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  /** Fixes a sampler's seed, as its dialog would. @param {any} node @param {number | undefined} seed */
  function useSeed(node, seed) {
    const changes = { seed: node.seed, seedType: node.seedType };
    RED.history.push({ t: 'edit', node, changes, changed: node.changed, dirty: RED.nodes.dirty() });
    Object.assign(node, { seed: String(seed), seedType: 'num', changed: true, dirty: true });
    RED.nodes.dirty(true);
    RED.view.redraw();
    RED.notify(say('panel.seedSet', { seed, name: RED.utils.getNodeLabel(node, say('palette')) }), 'success');
  }

  /**
   * @typedef {{ icon: string, label: () => string, run: (picture: { facts: PictureFacts, recipe: Recipe, blob:
   * Blob }) => void }} Action
   */
  /** What others do with a picture, such as opening its layout. @type {Action[]} */
  const furtherActions = /** @type {any} */ ((globalThis.MultiDiffusionGalleryActions ??= []));

  /** Jobs by node and id; finished pictures, those of one job once. @type {Map<string, Job>} */
  const jobs = new Map();
  /** @type {Map<string, Picture>} oldest first */
  const finished = new Map();
  /** By the nodes that they are shown under. @type {Map<string, Picture>} */
  const underNodes = new Map();
  /** @type {any} */
  let panel;
  /**
   * It shows itself at the first job after the editor was loaded; not before, since the end of loading selects a tab.
   * @type {'loading' | 'due' | 'done'}
   */
  let introduction = 'loading';
  /** Scripts are loaded in any order. */
  const workspace = () => /** @type {any} */ (globalThis).MultiDiffusionPictures;

  const isVisible = () => panel?.root.offsetParent !== null && document.visibilityState === 'visible';

  /** @param {string} _topic @param {JobNews} news */
  function receiveJob(_topic, news) {
    if (!panel) return;
    const key = `${news.node} ${news.job}`;
    // A job of the same name is another one.
    if (news.event === 'queued') forgetJob(key);
    if (news.event === 'done') {
      forgetJob(key);
      workspace().clear(news);
    } else {
      let job = jobs.get(key);
      if (!job) {
        job = new Job(news);
        jobs.set(key, job);
        panel.jobs.prepend(job.element);
      }
      job.show(news);
      if (job.ended) workspace().clear(news);
      else if (news.event === 'step') void job.look(isVisible());
      const ended = [...jobs].filter(([, other]) => other.ended);
      for (const [old] of ended.slice(0, -MOST_ENDED)) forgetJob(old);
    }
    update();
    if (introduction !== 'due') return;
    introduction = 'done';
    RED.sidebar.show('multidiffusion');
  }

  /** @param {string} _topic @param {PictureFacts} facts */
  function receivePicture(_topic, facts) {
    if (!panel) return;
    if (facts.gone) {
      for (const id of [facts.node, facts.alias]) if (id) underNodes.delete(id);
      workspace().clear(facts);
      for (const [key, { news }] of jobs) if (news.node === facts.node) forgetJob(key);
    } else {
      const picture = add(facts);
      for (const id of [facts.node, facts.alias]) if (id) underNodes.set(id, picture);
      showUnder(facts);
    }
    update();
  }

  /** Shows a node's last picture under it, if that can be seen. @param {Place} place */
  async function showUnder(place) {
    const picture = underNodes.get(place.node);
    if (!picture || !workspace().wants(place)) return;
    try {
      const blob = await picture.small();
      if (underNodes.get(place.node) === picture) workspace().show(place, blob, { open: () => picture.enlarge() });
    } catch {
      // It is forgotten, or the runtime can't be reached.
    }
  }

  /** @param {PictureFacts} facts @returns {Picture} */
  function add(facts) {
    const same =
      facts.job === undefined ? undefined : [...finished.values()].find(({ facts: { job } }) => job === facts.job);
    if (same) forgetPicture(same);
    const picture = new Picture(facts);
    finished.set(facts.id, picture);
    panel.pictures.prepend(picture.element);
    panel.observer.observe(picture.element);
    const [oldest] = finished.values();
    if (finished.size > MOST_PICTURES) forgetPicture(oldest);
    return picture;
  }

  /** @param {Picture} picture */
  function forgetPicture(picture) {
    finished.delete(picture.facts.id);
    panel.observer.unobserve(picture.element);
    removeElement(picture.element);
  }

  /** @param {string} key */
  function forgetJob(key) {
    const job = jobs.get(key);
    if (!job) return;
    job.ended = true;
    removeElement(job.element);
    jobs.delete(key);
  }

  function update() {
    panel.hint.hidden = jobs.size + finished.size > 0;
    panel.heading.hidden = finished.size === 0;
  }

  /** What has happened before the editor was loaded, or while it was cut off. */
  async function catchUp() {
    const before = introduction;
    introduction = 'loading'; // what has run already is no reason to push forward
    try {
      const { jobs: now, pictures: made } = await $.getJSON('multidiffusion/gallery');
      if (!panel) return;
      [...jobs.keys()].forEach(forgetJob);
      [...finished.values()].forEach(forgetPicture);
      underNodes.clear();
      for (const news of now) receiveJob(JOBS, news);
      for (const facts of made) receivePicture(PICTURES, facts);
    } catch {
      // Nobody who may see flows is logged in.
    } finally {
      introduction = before === 'done' ? 'done' : 'due';
    }
  }

  function open() {
    if (panel) return;
    const hint = make('p', { textContent: say('panel.empty') });
    const heading = make('h4', { textContent: say('panel.pictures'), hidden: true });
    const [list, grid] = [make('ul'), make('ul', { className: 'multidiffusion-thumbnails' })];
    const root = make('div', { className: 'multidiffusion-panel' }, hint, list, heading, grid);
    const observer = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        if (isIntersecting)
          for (const picture of finished.values()) if (picture.element === target) void picture.reveal();
      }
    });
    panel = { root, hint, heading, jobs: list, pictures: grid, observer };
    RED.sidebar.addTab({
      id: 'multidiffusion',
      label: say('panel.label'),
      name: say('panel.name'),
      iconClass: 'fa fa-picture-o',
      content: root,
      enableOnEdit: true,
      action: 'multidiffusion:show-progress',
    });
    RED.actions.add('multidiffusion:show-progress', () => RED.sidebar.show('multidiffusion'));
    // In the dialogs.
    $(document).on('click.multidiffusion', '.multidiffusion-show-gallery', () => RED.sidebar.show('multidiffusion'));
    RED.comms.subscribe(JOBS, receiveJob);
    RED.comms.subscribe(PICTURES, receivePicture);
    workspace().start((/** @type {{ id: string }} */ { id }) => void showUnder({ node: id }));
    // The nodes must be there before their pictures are.
    RED.events.on('flows:loaded', catchUp);
    if (RED.nodes.getWorkspaceOrder().length > 0) void catchUp();
  }

  function close() {
    if (!panel) return;
    RED.comms.unsubscribe(JOBS, receiveJob);
    RED.comms.unsubscribe(PICTURES, receivePicture);
    RED.events.off('flows:loaded', catchUp);
    RED.actions.remove('multidiffusion:show-progress');
    $(document).off('click.multidiffusion');
    RED.sidebar.removeTab('multidiffusion');
    workspace().stop();
    panel.observer.disconnect();
    removeElement(panel.root);
    panel = undefined;
    jobs.clear();
    finished.clear();
    underNodes.clear();
  }

  /** @type {any} */ (globalThis).MultiDiffusionGallery ??= {
    open,
    close,
    show: () => RED.actions.invoke('multidiffusion:show-progress'),
    /** The newest picture that a sampler has drawn. @param {string} sampler @returns {Promise<Blob> | undefined} */
    latest: (sampler) =>
      [...finished.values()]
        .reverse()
        .find(({ facts }) => sampler === facts.sampler?.node || sampler === facts.sampler?.alias)
        ?.full(),
  };
})();
