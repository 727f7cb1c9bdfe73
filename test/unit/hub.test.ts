/** Downloads from a local server that speaks the hub's protocol, well and badly. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { fetchRepository, findRepository, type HubProgress, type HubRequest } from '../../dist/engine/hub/hub';
import { readLayout } from '../../dist/engine/checkpoint/layout';
import { checkpointFolder, until } from './support/checkpoints';
import { COMMIT, HubServer, refuse, REPOSITORY } from './support/hub-server';

const SOURCE = checkpointFolder('tiny-sd2');
const LARGE = 'unet/weights.pb';
/** For a process of its own. */
const FETCH = `require(${JSON.stringify(require.resolve('../../dist/engine/hub/hub'))}).fetchRepository`;
const FILES = [
  'model_index.json',
  'scheduler/scheduler_config.json',
  'text_encoder/model.onnx',
  'tokenizer/merges.txt',
  'tokenizer/special_tokens_map.json',
  'tokenizer/tokenizer_config.json',
  'tokenizer/vocab.json',
  'unet/model.onnx',
  'unet/weights.pb',
  'vae_decoder/model.onnx',
  'vae_encoder/model.onnx',
];

describe('hub', function () {
  this.timeout(60_000);
  let hub: HubServer;
  let directory: string;

  beforeEach(async () => {
    hub = await HubServer.start(SOURCE);
    directory = fs.mkdtempSync(path.join(os.tmpdir(), 'hub-'));
  });
  afterEach(async () => {
    await hub.stop();
    fs.rmSync(directory, { recursive: true });
  });

  const folder = (): string => path.join(directory, REPOSITORY, COMMIT);
  const request = (more: Partial<HubRequest> = {}): HubRequest => ({
    repository: REPOSITORY,
    endpoint: hub.url,
    directory,
    network: { pause: 1, patience: 2000 },
    ...more,
  });
  const fetchIt = (more: Partial<HubRequest> = {}): Promise<string> => fetchRepository(request(more));
  const refused = async (more: Partial<HubRequest>, code: string, ...patterns: RegExp[]): Promise<void> => {
    const error = await fetchIt(more).then(
      () => assert.fail('it was accepted'),
      (reason: Error & { code: string }) => reason,
    );
    assert.equal(error.code, code, error.message);
    for (const pattern of patterns) assert.match(error.message, pattern);
    assert.doesNotMatch(`${error.message} ${error.stack}`, /hf_secret/);
    assert.equal(await findRepository(request(more)).catch(() => undefined), undefined);
  };
  const assertComplete = (): void => {
    for (const file of FILES) assert.deepEqual(fs.readFileSync(path.join(folder(), file)), hub.files.get(file), file);
  };
  /** Interferes with the first request for a file. */
  const once = (file: string, act: (request: http.IncomingMessage, response: http.ServerResponse) => void): void => {
    let done = false;
    hub.intercept = (incoming, response, asked) => {
      if (done || asked !== file) return false;
      done = true;
      act(incoming, response);
      return true;
    };
  };

  it('downloads what inference needs, pinned to the commit, and makes no request afterwards', async () => {
    for (const other of [
      'README.md',
      'unet/diffusion_pytorch_model.safetensors',
      'unet/model_fp16.onnx',
      'safety_checker/model.onnx',
      'unet/deep/config.json',
      'v1.ckpt',
    ]) {
      hub.files.set(other, Buffer.from(other));
    }
    const seen: HubProgress[] = [];
    assert.equal(await fetchIt({ onProgress: (progress) => seen.push(progress) }), folder());
    assertComplete();
    assert.deepEqual(
      fs.readdirSync(folder(), { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile()).length,
      FILES.length + 1,
      'nothing else',
    );
    assert.deepEqual(
      fs.readdirSync(path.dirname(folder())).sort(),
      [COMMIT, 'refs'],
      'neither a lock nor a part is left',
    );
    const total = FILES.reduce((sum, file) => sum + hub.files.get(file)!.length, 0);
    assert.deepEqual(seen.at(-1), { phase: 'downloading', received: total, total });
    assert.ok(
      seen.every(({ received }, i) => i === 0 || received >= seen[i - 1].received),
      'progress goes forward',
    );
    assert.equal((await readLayout(folder())).name, `${REPOSITORY}@0123456`);

    const asked = hub.requests.length;
    await hub.stop();
    assert.equal(await fetchIt(), folder());
    assert.equal(await fetchIt({ revision: COMMIT }), folder());
    assert.equal(hub.requests.length, asked);
    hub = await HubServer.start();
  });

  it('reads a list of many pages, and a revision with a slash', async () => {
    hub.page = 3;
    hub.refs['refs/pr/1'] = COMMIT;
    assert.equal(await fetchIt({ revision: 'refs/pr/1' }), folder());
    assertComplete();
    assert.ok(hub.requests.filter(({ url }) => url.includes('/tree/')).length > 3);
  });

  it('does not follow its list to another server', async () => {
    hub.intercept = (incoming, response) => {
      if (incoming.url?.includes('/tree/')) response.setHeader('link', '<http://127.0.0.1:9/x>; rel="next"');
      return false;
    };
    await refused({ token: 'hf_secret' }, 'CHECKPOINT', /not understood/);
  });

  it('finds weights in files of any name', async () => {
    const model = Buffer.from(hub.files.get('unet/model.onnx')!);
    for (let i = model.indexOf('weights.pb'); i >= 0; i = model.indexOf('weights.pb', i + 1))
      model.write('onnx__Conv', i);
    hub.files.set('unet/model.onnx', model);
    hub.files.set('unet/onnx__Conv', hub.files.get(LARGE)!);
    hub.files.delete(LARGE);
    await fetchIt();
    assert.equal((await readLayout(folder())).denoiser.externalData.has('onnx__Conv'), true);
  });

  describe('a server that lies at length', () => {
    const json = (
      response: http.ServerResponse,
      body: string | Buffer,
      headers: http.OutgoingHttpHeaders = {},
    ): true => {
      response.writeHead(200, { 'content-type': 'application/json', ...headers }).end(body);
      return true;
    };
    const isList = (incoming: http.IncomingMessage): boolean => incoming.url!.includes('/tree/');

    it('answers without end, compressed or not: given up after some megabytes', async () => {
      let sent = 0;
      hub.intercept = (_, response) => {
        response.writeHead(200, { 'content-type': 'application/json' });
        const more = (): void => {
          if (response.destroyed) return;
          sent += 1e6;
          response.write(Buffer.alloc(1e6, 32), () => setImmediate(more));
        };
        more();
        return true;
      };
      await refused({}, 'CHECKPOINT', /not understood: it is longer than 4194304 bytes/);
      assert.ok(sent < 50e6, `${sent} bytes were read`);
      const bomb = gzipSync(Buffer.alloc(200e6, 32));
      hub.intercept = (_, response) => json(response, bomb, { 'content-encoding': 'gzip' });
      const before = process.memoryUsage.rss();
      await refused({}, 'CHECKPOINT', /longer than 4194304 bytes/);
      assert.ok(process.memoryUsage.rss() - before < 100e6);
    });

    it('nests its answer deep: not even parsed', async () => {
      for (const body of [
        `${'['.repeat(1e6)}${']'.repeat(1e6)}`,
        `{"sha":${'{"a":'.repeat(100)}1${'}'.repeat(100)}}`,
      ]) {
        hub.intercept = (_, response) => json(response, body);
        await refused({}, 'CHECKPOINT', /nested deeper/);
      }
    });

    it('has a next page for ever: given up', async () => {
      let pages = 0;
      hub.intercept = (incoming, response) =>
        isList(incoming) && json(response, '[]', { link: `<${hub.url}/api/x/tree/?p=${pages++}>; rel="next"` });
      await refused({}, 'CHECKPOINT', /more than 200 pages/);
      assert.ok(pages <= 201);
    });

    it('lists what is no file: one sentence, and no error of ours', async () => {
      for (const entry of [
        null,
        5,
        'x',
        {},
        { type: 'file' },
        { type: 'file', path: 7 },
        { type: 'file', path: 'x'.repeat(5000) },
      ]) {
        hub.intercept = (incoming, response) => isList(incoming) && json(response, JSON.stringify([entry]));
        await refused({}, 'CHECKPOINT', /not understood: its list of files has an entry without a path/);
      }
    });

    it('a long revision is kept under a name that fits', async () => {
      const revision = `${'a/'.repeat(99)}a`;
      hub.refs[revision] = COMMIT;
      assert.equal(await fetchIt({ revision }), folder());
      hub.requests.length = 0;
      assert.equal(await findRepository({ directory, repository: REPOSITORY, revision }), folder());
    });

    it('a password in the address goes into a header, and into no message', async () => {
      const endpoint = hub.url.replace('http://', 'http://user:hunter2@');
      let given: string | undefined;
      hub.intercept = (incoming, response) => {
        given = incoming.headers.authorization;
        response.writeHead(404).end();
        return true;
      };
      const error = (await fetchIt({ endpoint }).catch((reason: unknown) => reason)) as Error & { cause?: Error };
      assert.equal(given, `Basic ${Buffer.from('user:hunter2').toString('base64')}`);
      assert.ok(!`${error.message} ${String(error.cause)} ${error.stack}`.includes('hunter2'), error.message);
      for (const wrong of ['ftp://user:hunter2@host', 'http://user:hunter2@[']) {
        const refusal = (await fetchIt({ endpoint: wrong }).catch((reason: unknown) => reason)) as Error;
        assert.ok(!refusal.message.includes('hunter2'), refusal.message);
      }
    });
  });

  describe('a connection that breaks', () => {
    it('goes on where it stopped', async () => {
      const content = hub.files.get(LARGE)!;
      once(LARGE, (incoming, response) => hub.send(incoming, response, content, 1000));
      await fetchIt();
      assertComplete();
      const ranges = hub.requests.filter(({ url }) => url.endsWith(LARGE)).map(({ range }) => range);
      assert.deepEqual(ranges, [undefined, 'bytes=1000-']);
    });

    it('goes on from the start where the server knows no ranges', async () => {
      const content = hub.files.get(LARGE)!;
      let times = 0;
      hub.intercept = (incoming, response, file) => {
        if (file !== LARGE) return false;
        delete incoming.headers.range;
        hub.send(incoming, response, content, times++ === 0 ? 1000 : undefined);
        return true;
      };
      await fetchIt();
      assertComplete();
    });

    it('is made anew when nothing comes any more', async () => {
      once(
        LARGE,
        (_, response) => void response.writeHead(200, { 'content-length': hub.files.get(LARGE)!.length }).write('x'),
      );
      await fetchIt({ network: { pause: 1, patience: 200 } });
      assertComplete();
    });

    it('is made anew after a busy server’s answer, or a storage server’s refusal', async () => {
      const statuses = [503, 429, 500];
      hub.intercept = (_, response, file) => {
        if (file !== LARGE || statuses.length === 0) return false;
        refuse(response, statuses.pop() as number, '');
        return true;
      };
      await fetchIt();
      assertComplete();
      assert.equal(statuses.length, 0);
    });

    it('is given up after some attempts, and what has come is kept for the next time', async () => {
      const content = hub.files.get(LARGE)!;
      let broken = true;
      hub.intercept = (incoming, response, file) => {
        if (!broken || file !== LARGE) return false;
        hub.send(incoming, response, content, 1000);
        return true;
      };
      await refused(
        {},
        'CHECKPOINT',
        /unet\/weights\.pb of some-owner\/tiny\.sd2 \(main\) could not be downloaded in 5 attempts/,
      );
      broken = false;
      const before = hub.requests.length;
      await fetchIt();
      assertComplete();
      assert.equal(hub.requests.slice(before).find(({ url }) => url.endsWith(LARGE))?.range, 'bytes=1000-');
      assert.deepEqual(
        hub.downloads.filter((file) => file === 'text_encoder/model.onnx'),
        ['text_encoder/model.onnx'],
        'a complete file is not downloaded again',
      );
    });

    it('goes on after its process was killed', async () => {
      const content = hub.files.get(LARGE)!;
      let stuck = true;
      hub.intercept = (_, response, file) => {
        if (!stuck || file !== LARGE) return false;
        response.writeHead(200, { 'content-length': content.length }).write(content.subarray(0, 2000));
        return true;
      };
      const part = path.join(`${folder()}.download`, `${LARGE}.part`);
      const script = `${FETCH}(${JSON.stringify(request({ network: {} }))})`;
      const child = spawn(process.execPath, ['-e', script]);
      await until(() => fs.existsSync(part) && fs.statSync(part).size === 2000, 'some of it has come', 30);
      child.kill('SIGKILL');
      await new Promise((resolve) => child.once('close', resolve));
      stuck = false;
      assert.ok(fs.existsSync(`${folder()}.lock`), 'its lock is left');
      await fetchIt();
      assertComplete();
      assert.equal(hub.requests.at(-1)?.range ?? hub.requests.find(({ range }) => range)?.range, 'bytes=2000-');
    });
  });

  describe('a server that is wrong', () => {
    it('about sizes, too short', async () => {
      hub.list = (entries) =>
        entries.map((entry) => (entry.path === LARGE ? { ...entry, size: entry.size + 1, lfs: undefined } : entry));
      await refused(
        {},
        'CHECKPOINT',
        /unet\/weights\.pb.* should have \d+ bytes by its repository's list, and its server offers \d+/,
      );
    });

    it('about sizes, without saying so', async () => {
      const content = hub.files.get(LARGE)!;
      hub.intercept = (_, response, file) => {
        if (file !== LARGE) return false;
        response.end(Buffer.concat([content, content]));
        return true;
      };
      await refused({}, 'CHECKPOINT', /its server offers|its server sends more/);
      hub.intercept = (_, response, file) => {
        if (file !== LARGE) return false;
        response.writeHead(200, { 'transfer-encoding': 'chunked' });
        response.end(Buffer.concat([content, content]));
        return true;
      };
      await refused({}, 'CHECKPOINT', /its server sends more/);
    });

    it('about bytes', async () => {
      for (const file of [LARGE, 'tokenizer/merges.txt']) {
        const right = hub.files.get(file)!;
        const entries = hub.entries();
        hub.list = () => entries;
        hub.files.set(file, Buffer.alloc(right.length, 7));
        await refused({}, 'CHECKPOINT', new RegExp(`${file}.* came with the wrong content twice`));
        hub.files.set(file, right);
        fs.rmSync(`${folder()}.download`, { recursive: true });
      }
      await fetchIt();
      assertComplete();
    });

    it('about bytes once: they are fetched again', async () => {
      once(LARGE, (incoming, response) => hub.send(incoming, response, Buffer.alloc(hub.files.get(LARGE)!.length)));
      await fetchIt();
      assertComplete();
    });

    it('about everything', async () => {
      hub.intercept = (_, response) => {
        response.end('<!DOCTYPE html>');
        return true;
      };
      await refused({}, 'CHECKPOINT', /not understood: it is not JSON/);
      hub.intercept = (_, response) => {
        response.end('null');
        return true;
      };
      await refused({}, 'CHECKPOINT', /not understood: it states no commit/);
    });

    it('about paths', async () => {
      hub.list = (entries) => [
        ...entries,
        { ...entries[0], path: '../../escaped/config.json' },
        { ...entries[0], path: 'unet/../../escaped.json' },
      ];
      await fetchIt();
      assert.equal(
        hub.requests.some(({ url }) => url.includes('escaped')),
        false,
      );
    });
  });

  describe('a token', () => {
    it('is sent to the hub, and not to the storage server that it redirects to', async () => {
      const storage = await HubServer.start();
      hub.token = 'hf_secret';
      storage.intercept = (incoming, response) => {
        storage.send(incoming, response, hub.files.get(LARGE)!);
        return true;
      };
      hub.intercept = (_, response, file) => {
        if (file !== LARGE) return false;
        response.writeHead(302, { location: `${storage.url}/blob?signature=abc` }).end();
        return true;
      };
      await fetchIt({ token: 'hf_secret' });
      assertComplete();
      assert.ok(hub.requests.every(({ token }) => token === 'Bearer hf_secret'));
      assert.deepEqual(
        storage.requests.map(({ token }) => token),
        [undefined],
      );
      for (const file of fs.readdirSync(directory, { recursive: true, withFileTypes: true })) {
        if (file.isFile())
          assert.equal(fs.readFileSync(path.join(file.parentPath, file.name)).includes('hf_secret'), false, file.name);
      }
      await storage.stop();
    });

    it('that is missing, wrong, or without rights is asked for', async () => {
      hub.token = 'hf_right';
      await refused(
        {},
        'CHECKPOINT',
        /does not exist, or is private.*enter an access token in the diffusion-model node/,
      );
      await refused({ token: 'hf_secret' }, 'CHECKPOINT', /does not accept the access token/);
      hub.intercept = (_, response, file) => {
        if (!file) return false;
        refuse(response, 403, 'GatedRepo');
        return true;
      };
      await refused(
        { token: 'hf_right' },
        'CHECKPOINT',
        /gated, and the access token gives no right to it.*Accept its conditions on http/,
      );
      hub.token = undefined;
      await refused({}, 'CHECKPOINT', /gated\. Accept its conditions on http.*enter an access token/);
    });

    it('that can’t be one is not shown', async () => {
      await refused({ token: 'hf_secret\n' }, 'INVALID_INPUT', /token/);
    });
  });

  it('says that a repository or a revision does not exist', async () => {
    await refused({ repository: 'some-owner/other' }, 'CHECKPOINT', /some-owner\/other was not found/);
    await refused({ revision: 'nowhere' }, 'CHECKPOINT', /no revision nowhere/);
    for (const repository of ['other', '../..', 'a/../b', 'a/b/c', 'a/b?x', '/a', 7])
      await refused({ repository: repository as string }, 'INVALID_INPUT', /repository/);
    for (const revision of ['..', 'a/../b', '-x', '', 'a b']) await refused({ revision }, 'INVALID_INPUT', /revision/);
    assert.deepEqual(
      fs.readdirSync(directory).filter((name) => name !== 'some-owner'),
      [],
    );
  });

  it('says before it downloads what a repository lacks', async () => {
    hub.files.delete('unet/model.onnx');
    await refused({}, 'CHECKPOINT', /has no unet\/model\.onnx\. .*another revision/);
    for (const file of [...hub.files.keys()]) if (file.endsWith('.onnx')) hub.files.delete(file);
    hub.files.set('unet/diffusion_pytorch_model.safetensors', Buffer.from('x'));
    await refused({}, 'CHECKPOINT', /PyTorch.*optimum-cli export onnx/);
    hub.files.set('text_encoder_2/model.onnx', Buffer.from('x'));
    hub.files.set('tokenizer_2/spiece.model', Buffer.from('x'));
    await refused({}, 'CHECKPOINT', /has no .*tokenizer_2\/tokenizer\.json/);
    hub.files.set('transformer.opt/bf16/model.onnx', Buffer.from('x'));
    await refused({}, 'CHECKPOINT', /TensorRT/);
    assert.deepEqual(hub.downloads, []);
  });

  it('looks first whether the disk has room', async () => {
    hub.list = (entries) =>
      entries.map((entry) =>
        entry.path === LARGE ? { ...entry, lfs: { oid: '0'.repeat(64), size: 1e15, pointerSize: 1 } } : entry,
      );
    await refused({}, 'FILE', /needs 1000000\.0 GB.*the disk of .* has [\d.]+ (GB|MB) free.*modelDirectory/);
    assert.deepEqual(hub.downloads, []);
  });

  it('says that the hub can’t be reached', async () => {
    const { url } = hub;
    await hub.stop();
    await refused(
      { endpoint: url },
      'CHECKPOINT',
      /can't be reached \(ECONNREFUSED\).*has not been downloaded completely/,
    );
    hub = await HubServer.start(SOURCE);
    hub.intercept = () => true;
    await refused({ network: { pause: 1, patience: 50 } }, 'CHECKPOINT', /can't be reached \(no answer\)/);
  });

  it('fetches what was deleted from a complete folder, and nothing else', async () => {
    await fetchIt();
    fs.rmSync(path.join(folder(), LARGE));
    const before = hub.downloads.length;
    await fetchIt();
    assertComplete();
    assert.deepEqual(hub.downloads.slice(before), [LARGE]);
  });

  it('is asked once by two at the same time, in one process or in two', async () => {
    assert.deepEqual(await Promise.all([fetchIt(), fetchIt(), fetchIt({ revision: COMMIT })]), [
      folder(),
      folder(),
      folder(),
    ]);
    assert.equal(new Set(hub.downloads).size, hub.downloads.length, 'no file is downloaded twice');

    fs.rmSync(folder(), { recursive: true });
    const before = hub.downloads.length;
    const script = `${FETCH}(${JSON.stringify(request())}).catch(() => process.exit(1))`;
    const codes = await Promise.all(
      [1, 2].map(() => new Promise((resolve) => spawn(process.execPath, ['-e', script]).once('close', resolve))),
    );
    assert.deepEqual(codes, [0, 0]);
    assert.equal(hub.downloads.length - before, FILES.length);
    assertComplete();
  });

  it('is given up when all who asked have given up', async () => {
    let open: http.ServerResponse | undefined;
    once(LARGE, (_, response) => {
      open = response;
      response.writeHead(200, { 'content-length': hub.files.get(LARGE)!.length }).write('x');
    });
    const aborts = [new AbortController(), new AbortController()];
    const [first, second] = aborts.map(({ signal }) => fetchIt({ signal, network: { pause: 1 } }));
    await until(() => open !== undefined, 'it is downloaded');
    aborts[0].abort();
    await assert.rejects(first, { code: 'CANCELLED' });
    assert.equal(open?.destroyed, false, 'the other still waits');
    aborts[1].abort();
    await assert.rejects(second, { code: 'CANCELLED' });
    await until(() => open?.destroyed === true, 'the connection ends');
    await assert.rejects(fetchIt({ signal: aborts[0].signal }), { code: 'CANCELLED' });
    await fetchIt();
    assertComplete();
  });
});
