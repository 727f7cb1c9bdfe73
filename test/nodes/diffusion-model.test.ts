/** diffusion-model: repositories, the check in its dialog, unloading, several processes. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { isAlive, until } from '../unit/support/checkpoints';
import { lookUp, readCatalogue, ROOT, translator } from '../unit/support/editor';
import { HubServer, REPOSITORY } from '../unit/support/hub-server';
import {
  closeModels,
  deploy,
  encode,
  getNode,
  helper,
  model,
  region,
  sampler,
  startFlow,
  stopFlow,
  temporaryDirectory,
  TINY,
  TINY_LCM,
  type Any,
  type Flow,
  type FlowNode,
} from './support/flow';

describe('diffusion-model', function () {
  this.timeout(60_000);
  let flow: Flow;
  let hub: HubServer | undefined;
  let userDir: string;

  beforeEach(() => {
    userDir = temporaryDirectory();
  });
  afterEach(async () => {
    await stopFlow();
    await closeModels();
    await hub?.stop();
    hub = undefined;
  });

  const repository = (more = {}): FlowNode => ({
    id: 'model',
    type: 'diffusion-model',
    checkpoint: 'hub',
    repository: REPOSITORY,
    provider: 'cpu',
    threads: '1',
    ...more,
  });
  const start = async (nodes: FlowNode[], multidiffusion: Any = {}, credentials = {}): Promise<void> => {
    flow = await startFlow(
      nodes,
      { userDir, multidiffusion: { hubEndpoint: hub?.url, ...multidiffusion } },
      credentials,
    );
  };
  const statusesOf = (id: string): string[] =>
    flow.statuses.filter((status) => status.id === id).map(({ text }) => text ?? '');

  describe('with a repository', () => {
    beforeEach(async () => {
      hub = await HubServer.start(TINY);
    });

    it('downloads it when the first message comes, shows how far it is, and works offline from then on', async () => {
      await start([repository(), encode('encode', 'a sofa', 'out')]);
      assert.deepEqual(hub!.requests, [], 'nothing is downloaded before');
      const { generation } = await flow.ok('encode', {});
      assert.equal(generation.model, `${REPOSITORY}@0123456`);
      assert.ok(
        statusesOf('encode').some((text) => /^downloading \d+ %$/.test(text)),
        statusesOf('encode').join(),
      );
      assert.ok(fs.existsSync(path.join(userDir, 'multidiffusion/models', REPOSITORY)));

      await stopFlow();
      await closeModels();
      const asked = hub!.requests.length;
      await start([repository(), encode('encode', 'a sofa', 'out')]);
      await flow.ok('encode', {});
      assert.equal(hub!.requests.length, asked);
    });

    it('keeps the token as a credential, and out of errors, messages and logs', async () => {
      hub!.token = 'hf_right';
      await start([repository(), encode('encode', 'a sofa', 'out')], {}, { model: { token: 'hf_wrong' } });
      const error = await flow.fails('encode', {});
      assert.equal(error.code, 'CHECKPOINT');
      assert.match(error.message, /does not accept the access token/);
      assert.doesNotMatch(JSON.stringify([error, flow.statuses, flow.warnings]), /hf_/);
      await stopFlow();
      await start([repository(), encode('encode', 'a sofa', 'out')], {}, { model: { token: 'hf_right' } });
      assert.doesNotMatch(JSON.stringify(await flow.ok('encode', {})), /hf_/);
    });

    it('says what is wrong with what it was given', async () => {
      await start([repository({ repository: '' }), encode('encode', 'a', 'out')]);
      assert.match((await flow.fails('encode', {})).message, /repository is missing\. .*owner\/name/);
      await stopFlow();
      await start([repository({ repository: 'one/two/three' }), encode('encode', 'a', 'out')]);
      assert.equal((await flow.fails('encode', {})).code, 'INVALID_INPUT');
      assert.deepEqual(hub!.requests, []);
    });

    it('gives a download up when it is closed', async () => {
      hub!.intercept = (_, response, file) => {
        if (!file) return false;
        response.writeHead(200, { 'content-length': 1e6 }).write('x');
        return true;
      };
      await start([repository(), encode('encode', 'a sofa', 'out')]);
      flow.send('encode', {});
      await until(() => hub!.downloads.length > 0, 'the download starts');
      const began = Date.now();
      await stopFlow();
      assert.ok(Date.now() - began < 4000, 'closing waits for nothing');
    });
  });

  it('is unloaded by a message, and loaded again by the next', async () => {
    await start([model(), encode('encode', 'a sofa', 'sampler'), sampler('sampler', 'out')]);
    await flow.ok('encode', {});
    const { pid } = await getNode('model').model.get();
    for (const id of ['encode', 'sampler']) flow.send(id, { unload: true });
    await until(() => !isAlive(pid), 'its process ends');
    await until(() => statusesOf('sampler').includes('model unloaded'), 'its status says so');
    await flow.ok('encode', {});
    assert.notEqual((await getNode('model').model.get()).pid, pid);
  });

  it('is unloaded when it has had no work for a while', async () => {
    await start([{ ...model(), idleTimeout: '0.1' }, encode('encode', 'a sofa', 'out')]);
    await flow.ok('encode', {});
    const checkpoint = await getNode('model').model.get();
    await until(() => checkpoint.pid === undefined, 'its process ends');
    await flow.ok('encode', { payload: 'another' });
    assert.equal(statusesOf('model').includes('unloaded'), true);
    assert.equal(statusesOf('model').includes('runs on cpu'), true);
  });

  it('is loaded while the sampler says so', async () => {
    await start([model(), encode('encode', 'a sofa', 'sampler'), sampler('sampler', 'out')]);
    await flow.ok('encode', {});
    await flow.ok('encode', {});
    const said = statusesOf('sampler')
      .map((text) => text.replace(/^\d.*/, 'step'))
      .filter((text, i, all) => text !== all[i - 1]);
    assert.deepEqual(said, ['drawing', 'loading model', 'drawing', 'step', 'done', 'drawing', 'step', 'done']);
    const before = flow.statuses.length;
    for (const seed of [1, 2]) flow.send('encode', { seed });
    for (const _ of [1, 2]) await flow.next();
    const then = statusesOf('sampler')
      .slice(-(flow.statuses.length - before))
      .map((text) => text.replace(/^\d.*/, 'step'));
    assert.equal(then[then.indexOf('done') + 1], 'drawing', 'the second one, whose first step is still to come');
  });

  describe('loaded before the first message', () => {
    const picture = [
      encode('encode', 'a sofa', 'sampler'),
      sampler('sampler', 'decode'),
      { id: 'decode', type: 'vae-decode', model: 'model', wires: [['out']] },
    ];
    const users = ['encode', 'sampler', 'decode'];
    const atDeploy = { ...model(), loadAtDeploy: true };
    const timesLoading = (): number => statusesOf('model').filter((text) => text === 'loading model').length;
    const loaded = (id: string) => until(() => statusesOf(id).includes('model loaded'), `${id} says that it is loaded`);

    it('at the deploy: every node that uses it says so, and the first picture loads nothing any more', async () => {
      await start([atDeploy, ...picture]);
      await Promise.all(users.map(loaded));
      assert.ok(users.every((id) => statusesOf(id)[0] === 'loading model'));
      const before = timesLoading();
      assert.ok(before >= 4, 'text encoder, UNet, decoder and encoder');
      await flow.ok('encode', {});
      assert.equal(timesLoading(), before);
      // Its bootstrapping encodes plain colours.
      flow.send('encode', {
        payload: { prompt: 'a room', bootstrapping: 1, regions: [{ prompt: 'a sofa', box: [0, 0, 0.5, 0.5] }] },
      });
      await flow.next();
      assert.equal(timesLoading(), before);
    });

    it('not unless it is told to', async () => {
      await start([model(), ...picture]);
      await new Promise((resolve) => setTimeout(resolve, 200));
      assert.deepEqual(flow.statuses, []);
    });

    it('works on what comes meanwhile, whose status is the one that is shown', async () => {
      await start([atDeploy, ...picture]);
      await flow.ok('encode', {});
      await getNode('model').model.load();
      assert.deepEqual([...new Set(statusesOf('encode'))], ['loading model', 'encoding', 'encoded']);
    });

    it('is deployed anew meanwhile, and closed, without a word', async () => {
      await start([atDeploy, ...picture]);
      await deploy(flow, [{ ...atDeploy, name: 'again' }, ...picture]);
      await loaded('sampler');
      await deploy(flow, [{ ...atDeploy, name: 'and again' }, ...picture], 'nodes');
      await stopFlow();
      // The test helper tells of a call a moment later.
      await new Promise(setImmediate);
      const said = flow.statuses.length;
      await new Promise((resolve) => setTimeout(resolve, 100));
      assert.equal(flow.statuses.length, said);
      assert.deepEqual(flow.errors, []);
    });

    it('shows what is wrong, once in the log, and the first message fails with the same', async () => {
      await start([{ ...atDeploy, folder: '/nowhere' }, ...picture]);
      await until(() => users.every((id) => statusesOf(id).includes('model not usable')), 'they say that it fails');
      assert.equal(statusesOf('model').at(-1), 'not usable');
      assert.equal(flow.errors.length, 1);
      assert.match(flow.errors[0], /\/nowhere does not exist/);
      assert.match((await flow.fails('encode', {})).message, /\/nowhere does not exist/);
    });

    it('has parts that cannot be loaded', async () => {
      const folder = path.join(userDir, 'damaged');
      fs.cpSync(TINY, folder, { recursive: true });
      await start([{ ...atDeploy, folder }, ...picture]);
      fs.writeFileSync(path.join(folder, 'vae_decoder/model.onnx'), 'changed after it was opened');
      await until(() => flow.errors.length > 0, 'it fails');
      assert.match(flow.errors[0], /vae_decoder/);
      assert.equal(statusesOf('model').at(-1), 'not usable');
    });

    it('is unloaded all the same when it has no work', async () => {
      await start([{ ...atDeploy, idleTimeout: '0.1' }, ...picture]);
      await loaded('sampler');
      const checkpoint = await getNode('model').model.get();
      await until(() => checkpoint.pid === undefined, 'its process ends');
    });

    it('by a message, which goes no further', async () => {
      await start([model(), ...picture]);
      flow.send('sampler', { load: true });
      await loaded('sampler');
      const { pid } = await getNode('model').model.get();
      assert.equal(isAlive(pid), true);
      flow.send('encode', { load: 'true' });
      await loaded('encode');
      const before = timesLoading();
      assert.equal((await flow.ok('encode', { load: 0.5 })).load, 0.5, "a load of somebody else's");
      assert.equal(timesLoading(), before);
      assert.deepEqual(flow.all('out'), []);
    });

    it('by a message, which fails as others do', async () => {
      await start([{ ...encode('encode', 'a', 'out'), model: 'missing' }]);
      const error = await flow.fails('encode', { load: true });
      assert.equal(error.code, 'MISSING_INPUT');
    });

    it('by a message, until another unloads it', async () => {
      await start([model(), ...picture]);
      flow.send('encode', { load: true });
      flow.send('encode', { unload: true });
      assert.equal((await flow.next('caught')).error.code, 'CANCELLED');
      await flow.ok('encode', {});
    });
  });

  it('says in its status where it runs, and in a few words why not on a GPU', async () => {
    await start([{ ...model(), provider: 'auto' }, encode('encode', 'a sofa', 'out')]);
    await flow.ok('encode', {});
    const { provider } = (await getNode('model').model.get()).facts;
    const [, why = ''] = /^cpu \(no CUDA: ([^:(]+)/.exec(provider) ?? [];
    assert.deepEqual(
      statusesOf('model').filter((text) => text.startsWith('runs on')),
      [why ? `runs on cpu (${why.trim()})` : 'runs on cuda:0'],
    );
  });

  it('spreads jobs over a process a device', async () => {
    const nodes = [
      { ...model(), deviceId: '0, 1' },
      encode('encode', 'a sofa', 'region'),
      region('region', [0, 0, 0.5, 1], 'sampler'),
      sampler('sampler', 'out', { steps: 4 }),
    ];
    await start(nodes);
    const checkpoint = await getNode('model').model.get();
    assert.equal(checkpoint.pids.length, 2);
    let most = 0;
    checkpoint.queue.on(
      'started',
      () => (most = Math.max(most, checkpoint.queue.jobs.filter((job: Any) => job.state === 'running').length)),
    );
    flow.send('encode', { seed: 1 });
    flow.send('encode', { seed: 1 });
    const [one, two] = [await flow.next(), await flow.next()];
    assert.deepEqual(one.latents.data, two.latents.data, 'it does not matter where a job runs');
    assert.equal(most, 2, 'both at a time');
  });

  it('takes no device that is none', async () => {
    await start([{ ...model(), deviceId: 'first' }, encode('encode', 'a', 'out')]);
    const error = await flow.fails('encode', {});
    assert.equal(error.code, 'INVALID_INPUT');
    assert.match(error.message, /deviceId is "first"; allowed: a number from 0, or several separated by commas/);
  });

  describe('the check in its dialog', () => {
    const check = async (body: object): Promise<Any> => {
      const answer = await helper.request().post('/multidiffusion/checks').send(body).expect(200);
      const states: Any[] = [];
      for (;;) {
        const { body: now } = await helper.request().get(`/multidiffusion/checks/${answer.body.check}`).expect(200);
        states.push(now.state);
        if (now.state === 'done' || now.state === 'failed') return { ...now, states, id: answer.body.check };
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    };

    it('tells what the model is', async () => {
      await start([]);
      const { report, id } = await check({ checkpoint: 'folder', folder: TINY_LCM, provider: 'cpu', threads: '1' });
      const { unetMilliseconds, memoryBytes, diskBytes, bytes, ...facts } = report;
      assert.deepEqual(Object.keys(bytes), ['textEncoder', 'vaeEncoder', 'unet', 'vaeDecoder']);
      assert.deepEqual(facts, {
        name: 'tiny-lcm',
        folder: TINY_LCM,
        family: 'latent diffusion, text width 32, latent consistency',
        provider: 'cpu',
        scheduler: 'LCMScheduler',
        predictionType: 'epsilon',
        types: { textEncoder: 'float32', unet: 'float32', vaeDecoder: 'float32', vaeEncoder: 'float32' },
        nativeSize: 128,
        canEncodeImages: true,
        maxTokens: 77,
      });
      assert.ok(unetMilliseconds > 0 && diskBytes > 1e6);
      assert.deepEqual(Object.keys(bytes).sort(), ['textEncoder', 'unet', 'vaeDecoder', 'vaeEncoder']);
      const sum = Object.values<number>(bytes).reduce((a, b) => a + b);
      assert.ok(sum > 1e6 && sum <= diskBytes, `${sum} of ${diskBytes}`);
      assert.ok(process.platform !== 'linux' || memoryBytes > 1e7);
      await helper.request().delete(`/multidiffusion/checks/${id}`).expect(204);
      await helper.request().get(`/multidiffusion/checks/${id}`).expect(404);
    });

    it('downloads a repository with the token in the dialog, or else the stored one', async () => {
      hub = await HubServer.start(TINY_LCM);
      hub.token = 'hf_right';
      await start([repository()], {}, { model: { token: 'hf_right' } });
      const body = { ...repository(), revision: '', deviceId: '' };
      assert.match((await check({ ...body, token: 'hf_wrong' })).message, /does not accept the access token/);
      const { states, report } = await check({ ...body, token: '__PWRD__' });
      assert.equal(report?.name, `${REPOSITORY}@0123456`);
      assert.ok(states.every((state: string) => ['downloading', 'loading', 'done'].includes(state)));
    });

    it('tells what is wrong', async () => {
      await start([]);
      assert.match((await check({ checkpoint: 'folder', folder: '/nowhere' })).message, /\/nowhere does not exist/);
      assert.match((await check({ checkpoint: 'folder', folder: TINY, provider: 'tpu' })).message, /provider/);
      assert.match((await check({ checkpoint: 'hub' })).message, /repository is missing/);
    });

    it('can be cancelled', async () => {
      hub = await HubServer.start(TINY);
      hub.intercept = (_, response, file) => {
        if (!file) return false;
        response.writeHead(200, { 'content-length': 1e6 }).write('x');
        return true;
      };
      await start([]);
      const answer = await helper.request().post('/multidiffusion/checks').send(repository()).expect(200);
      await until(() => hub!.downloads.length > 0, 'the download starts');
      await helper.request().delete(`/multidiffusion/checks/${answer.body.check}`).expect(204);
      const asked = hub.requests.length;
      await new Promise((resolve) => setTimeout(resolve, 50));
      assert.equal(hub.requests.length, asked);
    });

    it('has a text for everything that it says, in every language', () => {
      const source = fs.readFileSync(path.join(ROOT, 'resources/model-check.js'), 'utf8');
      const keys = [...source.matchAll(/\bsay\('([\w.]+[^.'])'/g)].map((match) => match[1]);
      assert.ok(keys.length > 10);
      for (const key of [...keys, 'check.waiting', 'check.downloading', 'check.loading']) {
        for (const language of ['en-US', 'es-ES'])
          assert.equal(
            typeof lookUp(readCatalogue(language, 'diffusion-model'), `diffusion-model.${key}`),
            'string',
            key,
          );
      }
      assert.equal(translator('diffusion-model')('diffusion-model.check.failed', { reason: 'x' }), 'x');
    });
  });

  it('unloads a deployed model for whoever may deploy', async () => {
    await start([model(), encode('encode', 'a sofa', 'out')]);
    await flow.ok('encode', {});
    const { pid } = await getNode('model').model.get();
    await helper.request().post('/multidiffusion/models/model/unload').send({}).expect(204);
    assert.equal(isAlive(pid), false);
    await helper.request().post('/multidiffusion/models/encode/unload').send({}).expect(404);
  });
});
