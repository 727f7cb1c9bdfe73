// @ts-check
/**
 * One picture that is drawn from a dialog, before the flow is deployed. The run time is asked how far it is; when it
 * is asked no longer, as when the editor is closed, it cancels.
 * @typedef {{
 *   state: string, version: number, position?: number, index?: number, total?: number, rate?: number, picture?: string,
 *   seed?: number, findings?: string[], message?: string,
 * }} News
 */
(function () {
  'use strict';
  const parts = (globalThis.MultiDiffusionCompose ??= {});

  const PAUSE = 120;
  const ENDED = ['done', 'failed', 'cancelled'];

  class Drawing {
    /** @param {object} request what to draw, see nodes/compose/drawings.ts @param {(news: News) => void} onnews */
    constructor(request, onnews) {
      this.onnews = onnews;
      this.ended = false;
      /** @type {string | undefined} */
      this.id = undefined;
      /** The latest question. @type {{ abort(): void } | undefined} */
      this.asked = undefined;
      /** Settles when it has ended. @type {Promise<News>} */
      this.result = new Promise((resolve) => (this.resolve = resolve));
      void this.run(request);
    }

    /** @param {object} request */
    async run(request) {
      try {
        const { drawing } = await ask('POST', 'multidiffusion/drawings', request);
        this.id = drawing;
        if (this.ended) return void this.forget();
        let seen = 0;
        while (!this.ended) {
          const question = ask('GET', `multidiffusion/drawings/${drawing}?seen=${seen}`);
          this.asked = question;
          const news = await question;
          seen = news.version;
          this.tell(news);
          if (!this.ended) await new Promise((resolve) => setTimeout(resolve, PAUSE));
        }
      } catch (error) {
        const { status, responseJSON } = /** @type {any} */ (error);
        const known = { 401: 'forbidden', 403: 'forbidden', 404: 'lost' };
        this.tell({
          state: 'failed',
          version: 0,
          message: responseJSON?.message || parts.dialogText(`draw.${known[/** @type {404} */ (status)] ?? 'lost'}`),
        });
      }
      this.forget();
    }

    /** @param {News} news */
    tell(news) {
      if (this.ended) return;
      this.ended = ENDED.includes(news.state);
      this.onnews(news);
      if (this.ended) this.resolve?.(news);
    }

    cancel() {
      this.tell({ state: 'cancelled', version: 0 });
      this.forget();
    }

    forget() {
      // The answer would be that there is no such drawing any more.
      this.asked?.abort();
      if (this.id) ask('DELETE', `multidiffusion/drawings/${this.id}`).catch(() => undefined);
      this.id = undefined;
    }
  }

  /**
   * @param {string} method
   * @param {string} url
   * @param {object} [body]
   * @returns {any} a promise of the answer, which can be aborted; it is rejected with the failed request
   */
  function ask(method, url, body) {
    return $.ajax({
      method,
      url,
      cache: false,
      ...(body && { data: JSON.stringify(body), contentType: 'application/json' }),
    });
  }

  parts.Drawing = Drawing;
})();
