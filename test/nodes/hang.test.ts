/** An inference process that hangs, as the nodes see it: time limits, and messages that end what is stuck. */
import assert from 'node:assert/strict';
import { closeModels, encode, getNode, model, sampler, startFlow, stopFlow, type Flow } from './support/flow';
import { isAlive, until } from '../unit/support/checkpoints';

const nodes = [
  model(),
  encode('encode', 'a sofa', 'sampler'),
  sampler('sampler', 'decode'),
  { id: 'decode', type: 'vae-decode', model: 'model', wires: [['out']] },
  { id: 'picture', type: 'vae-encode', model: 'model', wires: [['out']] },
];

describe('nodes whose inference process hangs', function () {
  this.timeout(60_000);
  let flow: Flow;
  let pid: number;
  let latents: unknown;
  let image: unknown;

  /** A flow that has drawn a picture. */
  const start = async (multidiffusion: object): Promise<void> => {
    flow = await startFlow(nodes, { multidiffusion });
    const drawn = await flow.ok('encode', {});
    ({ latents, image } = drawn);
    pid = (await getNode('model').model.get()).pid;
  };
  afterEach(async () => {
    if (isAlive(pid)) process.kill(pid, 'SIGCONT');
    await stopFlow();
    await closeModels();
  });

  /** What makes each node ask the process. */
  const asks = (id: string) =>
    ({ encode: { prompt: `unheard of ${Math.random()}` }, decode: { latents }, picture: { image } })[id] as object;

  for (const id of ['encode', 'decode', 'picture']) {
    it(`${id}: jobTimeout ends the message, with TIMEOUT`, async () => {
      const settings: { jobTimeout?: number } = {};
      await start(settings);
      // Only now: on a busy machine the first picture takes its time.
      settings.jobTimeout = 1;
      process.kill(pid, 'SIGSTOP');
      const error = await flow.fails(id, asks(id));
      assert.equal(error.code, 'TIMEOUT');
      assert.equal(error.source.id, id);
      assert.match(error.message, /longer than 1 seconds.*jobTimeout/);
    });

    for (const end of [{ reset: true }, { cancel: 'mine' }, { unload: true }]) {
      it(`${id}: ${JSON.stringify(end)} overtakes what waits`, async () => {
        await start({});
        process.kill(pid, 'SIGSTOP');
        for (let i = 0; i < 3; i++) flow.send(id, { ...asks(id), job: 'mine' });
        await new Promise((resolve) => setTimeout(resolve, 50));
        flow.send(id, end);
        for (let i = 0; i < 3; i++) assert.equal((await flow.next('caught')).error.code, 'CANCELLED');
        if (!end.unload) return;
        await until(() => !isAlive(pid), 'the process is ended');
        assert.ok((await flow.ok(id, asks(id)))._msgid);
      });
    }
  }

  it('without a time limit: the process is ended, and the message goes on with the next', async () => {
    await start({});
    process.kill(pid, 'SIGSTOP');
    assert.ok((await flow.ok('encode', asks('encode'))).image);
    assert.ok(!isAlive(pid));
  });

  it('a finished picture goes its way, whatever is reset or unloaded elsewhere', async () => {
    await start({});
    assert.ok((await flow.ok('decode', { latents, reset: true })).image);
  });
});
