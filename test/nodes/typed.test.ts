/** Options that a node takes from the message, the context, the environment or an expression. */
import assert from 'node:assert/strict';
import { closeModels, encode, getNode, model, region, sampler, startFlow, stopFlow, type Flow } from './support/flow';

const steps = (flow: Flow): number => flow.all('progress').filter(({ payload }) => payload.event === 'step').length;

describe('typed options', function () {
  this.timeout(20_000);
  afterEach(stopFlow);
  after(closeModels);

  const drawing = (more: object, encoder: object = {}) =>
    startFlow([model(), encode('encode', 'a sofa', 'sampler', encoder), sampler('sampler', 'out', more)]);

  it('come from the flow and the global context, and are read for every message', async () => {
    const flow = await drawing({
      steps: 'wanted.steps',
      stepsType: 'flow',
      guidanceScale: 'guidance',
      guidanceScaleType: 'global',
    });
    const context = getNode('sampler').context();
    context.flow.set('wanted', { steps: 3 });
    context.global.set('guidance', '4.5');
    const first = await flow.ok('encode', {});
    assert.deepEqual([first.generation.steps, first.generation.guidanceScale, steps(flow)], [3, 4.5, 3]);
    context.flow.set('wanted', { steps: 1 });
    assert.equal((await flow.ok('encode', {})).generation.steps, 1);
  });

  it('come from an expression, also a JSONata one that waits', async () => {
    const flow = await drawing({
      width: 'payload.side * 2',
      widthType: 'jsonata',
      height: 'payload.side',
      heightType: 'msg',
      steps: '$flowContext("steps") + 1',
      stepsType: 'jsonata',
    });
    getNode('sampler').context().flow.set('steps', 1);
    const { latents, generation } = await flow.ok('encode', { payload: { side: 64 } });
    assert.deepEqual(latents.dims, [1, 4, 8, 16]);
    assert.equal(generation.steps, 2);
  });

  it('come from an environment variable', async () => {
    process.env.MULTIDIFFUSION_TEST_SEED = '123';
    try {
      const flow = await drawing({ seed: 'MULTIDIFFUSION_TEST_SEED', seedType: 'env' });
      assert.equal((await flow.ok('encode', {})).generation.seed, 123);
    } finally {
      delete process.env.MULTIDIFFUSION_TEST_SEED;
    }
  });

  it('give way to the property of the message that has the name of the option', async () => {
    const flow = await drawing({ steps: 'wanted', stepsType: 'flow' });
    getNode('sampler').context().flow.set('wanted', 3);
    assert.equal((await flow.ok('encode', { steps: 1 })).generation.steps, 1);
  });

  it('have their default where the source gives nothing, but a seed must be there', async () => {
    const flow = await drawing({
      guidanceScale: 'nowhere',
      guidanceScaleType: 'flow',
      seed: 'nowhere',
      seedType: 'flow',
    });
    const { code, message } = await flow.fails('encode', {});
    assert.equal(code, 'MISSING_INPUT');
    assert.match(message, /seed.*flow/);
    assert.equal((await flow.ok('encode', { seed: 5 })).generation.guidanceScale, 7.5);
  });

  it('are checked like every value, under the name of the option', async () => {
    const flow = await drawing({ steps: 'wanted', stepsType: 'flow', height: '$sum(', heightType: 'jsonata' });
    const broken = await flow.fails('encode', {});
    assert.match(broken.message, /height.*jsonata\.\$sum\(.*can be evaluated/);
    getNode('sampler').context().flow.set('wanted', 5000);
    const { code, message } = await flow.fails('encode', { height: 64 });
    assert.match(broken.code + code, /INVALID_INPUTINVALID_INPUT/);
    assert.match(message + broken.message, /steps.*5000.*from 1 to 1000|height/);
  });

  it('refuse a kind of value that the option does not have', async () => {
    const flow = await drawing({ steps: '[1]', stepsType: 'bin' });
    assert.match(
      (await flow.fails('encode', {})).message,
      /stepsType.*bin.*one of num, msg, flow, global, env, jsonata/,
    );
  });

  it('give prompts of several lines, from the node or from elsewhere', async () => {
    const flow = await drawing({}, { prompt: 'a red\nsofa', negativePrompt: 'unwanted', negativePromptType: 'global' });
    getNode('encode').context().global.set('unwanted', 'a dog\na cat');
    const { generation } = await flow.ok('encode', {});
    assert.deepEqual([generation.prompt, generation.negativePrompt], ['a red\nsofa', 'a dog\na cat']);
  });

  it('give a region its box, guidance scale and seed', async () => {
    const flow = await startFlow([
      model(),
      encode('encode', 'a sofa', 'region'),
      region('region', [0, 0, 1, 1], 'sampler', {
        boxFrom: '[0, 0, $number(payload.share), 1]',
        boxFromType: 'jsonata',
        guidanceScale: 'scale',
        guidanceScaleType: 'flow',
        seed: 'payload.seed',
        seedType: 'msg',
      }),
      sampler('sampler', 'out'),
    ]);
    getNode('region').context().flow.set('scale', 3);
    const ask = async (msg: object) => (await flow.ok('encode', { prompt: 'a sofa', ...msg })).generation.regions[0];
    const made = await ask({ payload: { share: '0.5', seed: 9 } });
    assert.deepEqual([made.box, made.guidanceScale, made.seed], [[0, 0, 0.5, 1], 3, 9]);
    const moved = await ask({ payload: { share: 0.5 }, box: [0.5, 0, 0.5, 1] });
    assert.deepEqual(moved.box, [0.5, 0, 0.5, 1]);
    assert.equal(moved.seed, undefined);
  });
});

describe('configurations of earlier versions', function () {
  this.timeout(20_000);
  afterEach(stopFlow);
  after(closeModels);

  it('are brought up to date where the node is created', async () => {
    const old = (seedMode: string, seed: unknown) =>
      startFlow([model(), sampler('sampler', 'out', { seedMode, seed, seedType: undefined })]);
    let flow = await old('fixed', '12');
    assert.equal((await flow.ok('sampler', {})).generation.seed, 12);
    await stopFlow();
    flow = await old('random', '12');
    assert.notEqual((await flow.ok('sampler', {})).generation.seed, 12);
    await stopFlow();
    flow = await old('msg', '');
    assert.equal((await flow.fails('sampler', {})).code, 'MISSING_INPUT');
    assert.equal((await flow.ok('sampler', { seed: 3 })).generation.seed, 3);
  });
});
