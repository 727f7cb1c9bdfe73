// @ts-check
/** The dialog of diffusion-model: repositories that are known, and "check this model". */
(function () {
  'use strict';
  const TEXTS = 'node-red-contrib-multidiffusion/diffusion-model:diffusion-model.';

  /**
   * Gigabytes to download, and licences, as the repositories' pages stated them; the check tells the exact size.
   * Also in docs/checkpoints.md.
   */
  const KNOWN = [
    {
      repository: 'onnx-community/stable-diffusion-v1-5-ONNX',
      family: 'Stable Diffusion 1.5',
      size: '4.3',
      licence: 'CreativeML Open RAIL-M',
    },
    {
      repository: 'aislamov/stable-diffusion-2-1-base-onnx',
      revision: 'cpu',
      family: 'Stable Diffusion 2.1 base',
      size: '2.6–5.2',
      licence: 'CreativeML Open RAIL++-M',
    },
    {
      repository: 'aislamov/stable-diffusion-2-1-base-onnx',
      family: 'Stable Diffusion 2.1 base',
      size: '2.6',
      licence: 'CreativeML Open RAIL++-M',
      cuda: true,
    },
    {
      repository: 'julienkay/stable-diffusion-2-1',
      family: 'Stable Diffusion 2.1',
      size: '5.2',
      licence: 'CreativeML Open RAIL++-M',
    },
    { repository: 'SimianLuo/LCM_Dreamshaper_v7', family: 'LCM Dreamshaper', size: '4.3', licence: 'MIT' },
    {
      repository: 'onnxruntime/sd-turbo',
      family: 'SD-Turbo',
      size: '2.6',
      licence: 'Stability AI Non-Commercial',
      cuda: true,
    },
    {
      repository: 'Cyronius/sdxl-lightning-4step-onnx-web',
      family: 'Stable Diffusion XL Lightning',
      size: '6.5',
      licence: 'CreativeML Open RAIL++-M',
    },
  ];
  const PROPERTIES = [
    'checkpoint',
    'folder',
    'repository',
    'revision',
    'provider',
    'pool',
    'deviceId',
    'threads',
    'batchSize',
    'memoryBudget',
    't5Tokens',
    'token',
    'redis',
  ];
  const INTERVAL = 1000;

  /** The check that runs for the open dialog. @type {{ id?: string, timer?: number, asked?: { abort(): void } } | undefined} */
  let running;

  /** @param {string} key @param {Record<string, unknown>} [values] @returns {string} */
  function say(key, values) {
    return RED._(TEXTS + key, { ...values, interpolation: { escapeValue: false } });
  }

  /** @param {any} form jQuery object @param {any} node */
  function prepare(form, node) {
    stop();
    offerKnown(form);
    const start = form.find('#multidiffusion-check');
    const cancel = form.find('#multidiffusion-check-cancel').hide();
    const result = form.find('#multidiffusion-check-result');
    /** @param {string[]} lines @param {boolean} [going] */
    const show = (lines, going = false) => {
      // As text: a folder's or a repository's own words are no markup.
      result.empty().append(lines.map((line) => $('<div>').text(line)));
      start.prop('disabled', going);
      cancel.toggle(going);
    };
    start.on('click', () => {
      const check = (running = {});
      const values = Object.fromEntries(
        PROPERTIES.map((property) => [property, form.find('#node-config-input-' + property).val()]),
      );
      show([say('check.loading')], true);
      request('POST', 'multidiffusion/checks', { ...values, id: node.id })
        .done((/** @type {{ check: string }} */ answer) => {
          Object.assign(check, { id: answer.check });
          if (running === check) ask(check, show);
          else request('DELETE', 'multidiffusion/checks/' + answer.check);
        })
        .fail((/** @type {any} */ answer) => show([answer.responseJSON?.message || say('check.lost')]));
    });
    cancel.on('click', () => {
      stop();
      show([]);
    });
  }

  /** Lets a known repository fill in the fields. @param {any} form */
  function offerKnown(form) {
    const list = form.find('#multidiffusion-known');
    const repository = form.find('#node-config-input-repository');
    const revision = form.find('#node-config-input-revision');
    KNOWN.forEach((known, i) => {
      const line = say('known.line', { family: known.family, size: known.size, licence: known.licence });
      list.append(
        $('<option>')
          .val(String(i))
          .text(known.cuda ? line + ' · ' + say('known.cuda') : line),
      );
    });
    const choose = () => {
      const i = KNOWN.findIndex(
        (known) => known.repository === repository.val().trim() && (known.revision || '') === revision.val().trim(),
      );
      list.val(i < 0 ? '' : String(i));
    };
    list.on('change', () => {
      const known = KNOWN[Number(list.val() || NaN)];
      if (!known) return;
      revision.val(known.revision || '').trigger('change');
      repository.val(known.repository).trigger('change');
    });
    repository.add(revision).on('input change', choose);
    choose();
  }

  /** @param {NonNullable<typeof running>} check @param {(lines: string[], going?: boolean) => void} show */
  function ask(check, show) {
    check.asked = request('GET', 'multidiffusion/checks/' + check.id)
      .done((/** @type {any} */ now) => {
        if (running !== check) return;
        if (now.state === 'done') return show(describe(now.report));
        if (now.state === 'failed') return show([say('check.failed', { reason: now.message })]);
        const values = {
          received: bytes(now.received),
          total: bytes(now.total),
          percent: Math.floor((100 * now.received) / (now.total || 1)),
        };
        const lines = [say('check.' + now.state, now.state === 'downloading' ? values : {})];
        if (now.needs) lines.push(foresee(now.needs));
        show(lines, true);
        check.timer = window.setTimeout(() => ask(check, show), INTERVAL);
      })
      .fail(() => running === check && show([say('check.lost')]));
  }

  /** What loading takes. @param {any} needs the server's CheckpointNeeds @returns {string} */
  function foresee(needs) {
    return say('check.needs', {
      weights: bytes(needs.weightBytes),
      largest: bytes(needs.largestBytes),
      free: bytes(needs.freeBytes),
      rows: needs.cpuRows,
    });
  }

  /** @param {any} report the server's CheckpointReport @returns {string[]} */
  function describe(report) {
    if (report.pool !== undefined) return describePool(report);
    const lines = [
      say('check.model', { name: report.name, family: report.family }),
      say('check.types', {
        textEncoder: report.types.textEncoder || report.types.textEncoder2,
        denoiser: report.types.unet || report.types.transformer,
        vaeDecoder: report.types.vaeDecoder,
      }),
      say('check.scheduler', {
        scheduler: report.scheduler,
        predictionType: report.predictionType,
        nativeSize: report.nativeSize,
      }),
      say('check.runs', { provider: report.provider, milliseconds: report.unetMilliseconds }),
      report.vocabulary === undefined
        ? say('check.free', { count: report.maxTokens })
        : say('check.words', { count: report.vocabulary }),
      report.memoryBytes === undefined ? '' : say('check.memory', { bytes: bytes(report.memoryBytes) }),
      report.gpuMemoryBytes === undefined ? '' : say('check.gpuMemory', { bytes: bytes(report.gpuMemoryBytes) }),
      say('check.disk', { bytes: bytes(report.diskBytes), folder: report.folder }),
      report.canEncodeImages ? '' : say('check.noEncoder'),
    ];
    return lines.filter((line) => line !== '');
  }

  /** @param {any} report the server's PoolReport @returns {string[]} */
  function describePool(report) {
    return [
      say('check.pool', { name: report.name, pool: report.pool, count: report.workers.length, slots: report.slots }),
      ...report.workers.map((/** @type {any} */ worker) =>
        say(worker.draining ? 'check.leaving' : 'check.worker', worker),
      ),
      say('check.queued', { count: report.waiting }),
      ...report.others.map((/** @type {any} */ other) => say('check.others', other)),
      report.canEncodeImages ? '' : say('check.noEncoder'),
    ].filter((line) => line !== '');
  }

  /** Gives the check of the dialog up. */
  function stop() {
    const check = running;
    running = undefined;
    window.clearTimeout(check?.timer);
    // The answer would be that there is no such check any more.
    check?.asked?.abort();
    if (check?.id) request('DELETE', 'multidiffusion/checks/' + check.id);
  }

  /** @param {string} method @param {string} url @param {object} [body] @returns {any} */
  function request(method, url, body) {
    return $.ajax({
      url,
      method,
      ...(body && { data: JSON.stringify(body), contentType: 'application/json', dataType: 'json' }),
    });
  }

  /** @param {number} count @returns {string} */
  function bytes(count) {
    return count >= 1e9 ? (count / 1e9).toFixed(1) + ' GB' : Math.ceil((count || 0) / 1e6) + ' MB';
  }

  /** @type {any} */ (globalThis).MultiDiffusionModelCheck = { prepare, stop };
})();
