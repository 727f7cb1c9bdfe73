/** Messages that Node-RED can't clone: the error reaches Catch all the same, with what the answer needs. */
import assert from 'node:assert/strict';
import { closeModels, encode, model, region, sampler, startFlow, stopFlow, type Flow } from './support/flow';

const deep = (levels: number): unknown => {
  let value: unknown = 'the bottom';
  for (let i = 0; i < levels; i++) value = [value];
  return value;
};
const failing = {
  get secret(): never {
    throw new Error('not to be read');
  },
};
Object.defineProperty(failing, 'secret', { enumerable: true });

describe('messages that cannot be cloned', function () {
  this.timeout(60_000);
  let flow: Flow;
  before(async () => {
    flow = await startFlow([
      model(),
      encode('encode', '', 'out'),
      region('region', [0, 0, 0.5, 0.5], 'out'),
      sampler('sampler', 'out'),
      { id: 'decode', type: 'vae-decode', model: 'model', wires: [['out']] },
      { id: 'picture', type: 'vae-encode', model: 'model', wires: [['out']] },
      { id: 'save', type: 'save-image', wires: [['out']] },
      { id: 'denoise', type: 'multidiffusion-denoise', wires: [['out']] },
    ]);
  });
  after(stopFlow);
  after(closeModels);

  const mistakes: Record<string, object> = {
    encode: { prompt: 5 },
    region: { conditioning: 'none' },
    sampler: { steps: -1 },
    decode: { latents: 'none' },
    picture: { image: 'none' },
    save: { image: 'none' },
    denoise: {},
  };
  for (const [id, mistake] of Object.entries(mistakes)) {
    for (const [what, nasty] of Object.entries({ '20,000 levels': deep(20_000), 'a getter that throws': failing })) {
      it(`${id}: a mistake beside ${what}`, async () => {
        const res = { answer: 'the way back' };
        const answer = await flow.ask(id, { ...mistake, job: 'mine', nasty, req: { body: nasty }, res });
        assert.match(answer.error.code, /INPUT/);
        assert.equal(answer.error.source.id, id);
        assert.equal(answer.job, 'mine');
        assert.equal(answer.res, res);
      });
    }
  }

  it('a property of the message itself that fails when it is read', async () => {
    const message = Object.defineProperty({ prompt: 5, job: 'mine' }, 'payload', {
      enumerable: true,
      get: () => {
        throw new Error('not to be read');
      },
    });
    const answer = await flow.ask('encode', message);
    assert.match(answer.error.code, /INPUT/);
    assert.equal(answer.job, 'mine');
  });

  for (const levels of [100, 3000, 20_000]) {
    it(`a layout nested ${levels} deep is refused, as an object and as text`, async () => {
      const layout = { prompt: 'a sofa', regions: [], more: deep(levels) };
      for (const payload of [layout, ...(levels < 5000 ? [JSON.stringify(layout)] : [])]) {
        const error = await flow.fails('encode', { payload });
        assert.equal(error.code, 'INVALID_INPUT');
        assert.match(error.message, /payload.*64 levels/);
      }
    });
  }

  it('a layout of more text, values or corners than an administrator allows is refused', async () => {
    const star = Array.from({ length: 1000 }, (_, i) => [i / 1000, i % 2]);
    const regions = Array.from({ length: 11 }, () => ({ prompt: 'a', polygon: star }));
    const long = { prompt: 'a', more: 'x'.repeat(6 * 2 ** 20) };
    const [corners, text, values] = [
      await flow.fails('encode', { payload: { prompt: 'a', regions } }),
      await flow.fails('encode', { payload: JSON.stringify(long) }),
      await flow.fails('encode', { payload: { prompt: 'a', more: Array.from({ length: 600_000 }, () => 1) } }),
    ];
    assert.equal(corners.code, 'LIMIT');
    assert.match(corners.message, /11000 corners.*maxCorners/);
    assert.equal(text.code, 'LIMIT');
    assert.match(text.message, /maxLayoutLength/);
    assert.equal(values.code, 'INVALID_INPUT');
  });
});
