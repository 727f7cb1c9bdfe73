/** Tensors that went through JSON, a Function node or a context store on disk. */
import assert from 'node:assert/strict';
import {
  closeModels,
  encode,
  model,
  region,
  sampler,
  startFlow,
  stopFlow,
  TINY_LCM,
  type Any,
  type Flow,
} from './support/flow';

const plain = (tensor: Any): Any => ({ kind: tensor.kind, dtype: tensor.dtype, dims: tensor.dims });
const throughJson = (value: unknown): Any => JSON.parse(JSON.stringify(value));
const FORMS: Record<string, (tensor: Any) => Any> = {
  'a plain list in data': (tensor) => throughJson({ ...plain(tensor), data: [...tensor.data] }),
  'a plain list in buffer': (tensor) => throughJson({ ...plain(tensor), buffer: [...tensor.data] }),
  'a typed array in data': (tensor) => ({ ...plain(tensor), data: tensor.data }),
  'a typed array by its indices': (tensor) => throughJson({ ...plain(tensor), data: tensor.data }),
  'a typed array by its indices, beside the {} of a buffer': (tensor) =>
    throughJson({ ...plain(tensor), data: tensor.data, buffer: tensor.buffer }),
  'a Buffer of its bytes': (tensor) => ({ ...plain(tensor), buffer: Buffer.from(tensor.buffer) }),
  'a Buffer of its bytes as JSON': (tensor) => throughJson({ ...plain(tensor), buffer: Buffer.from(tensor.buffer) }),
};

describe('tensors that went through something', function () {
  this.timeout(30_000);
  let flow: Flow;
  let drawn: Any;
  let photo: Any;
  /** What has each tensor and where it goes: node, message, and what must be the same in the end. */
  const places: Record<string, [string, (form: (tensor: Any) => Any) => Any, (msg: Any) => Any]> = {
    'latents of vae-decode': ['decode', (form) => ({ latents: form(drawn.latents) }), ({ image }) => image.data],
    'image of save-image': ['save', (form) => ({ image: form(photo.image) }), ({ payload }) => payload.length],
    'image of vae-encode': [
      'picture',
      (form) => ({ image: form(photo.image) }),
      ({ initialImage }) => initialImage.data,
    ],
    'initialImage of the sampler': [
      'sampler',
      (form) => ({ background: drawn.background, initialImage: form(drawn.latents), strength: 1 }),
      ({ latents }) => latents.data,
    ],
    'a mask of the sampler': [
      'sampler',
      (form) => ({
        background: drawn.background,
        regions: drawn.regions.map((one: Any) => ({ ...one, mask: form(one.mask) })),
      }),
      ({ latents }) => latents.data,
    ],
    'embeddings of the sampler': [
      'sampler',
      (form) => ({ background: { ...drawn.background, embeddings: form(drawn.background.embeddings) } }),
      ({ latents }) => latents.data,
    ],
  };
  const propertyOf: Record<string, RegExp> = {
    'latents of vae-decode': /^latents\.data/,
    'image of save-image': /^image\.data/,
    'image of vae-encode': /^image\.data/,
    'initialImage of the sampler': /initialImage\.data/,
    'a mask of the sampler': /^regions\[0\]\.mask\.data/,
    'embeddings of the sampler': /^background\.embeddings\.data|embeddings\.data/,
  };

  before(async () => {
    flow = await startFlow([
      model('model', TINY_LCM),
      encode('room', 'a room', 'sofa'),
      encode('sofa', 'a sofa', 'region'),
      region('region', [0, 0, 0.5, 0.5], 'sampler'),
      sampler('sampler', 'out'),
      { id: 'decode', type: 'vae-decode', model: 'model', wires: [['out']] },
      { id: 'picture', type: 'vae-encode', model: 'model', wires: [['out']] },
      { id: 'save', type: 'save-image', save: false, wires: [['out']] },
    ]);
    drawn = await flow.ok('room', {});
    photo = await flow.ok('decode', { latents: drawn.latents });
  });
  after(stopFlow);
  after(closeModels);

  for (const [place, [node, messageOf, resultOf]] of Object.entries(places))
    describe(place, () => {
      for (const [what, form] of Object.entries(FORMS))
        it(`${what} is taken`, async () => {
          const expected = resultOf(
            await flow.ok(
              node,
              messageOf((tensor) => tensor),
            ),
          );
          assert.deepEqual(resultOf(await flow.ok(node, messageOf(form))), expected);
        });

      it('its summary, as a store on disk keeps it, is refused by its name', async () => {
        const error = await flow.fails(node, messageOf(throughJson));
        assert.match(error.message, propertyOf[place]);
        assert.match(error.message, /keep it in memory/);
        assert.equal(error.code, 'INVALID_INPUT');
      });

      it('too few numbers, and what are no numbers, are refused by their names', async () => {
        const few = (tensor: Any): Any => ({ ...plain(tensor), data: [...tensor.data].slice(1) });
        const odd = (tensor: Any): Any => ({
          ...plain(tensor),
          data: [...tensor.data].map((x, i) => (i === 3 ? null : x)),
        });
        assert.match((await flow.fails(node, messageOf(few))).message, propertyOf[place]);
        assert.match((await flow.fails(node, messageOf(odd))).message, /data\[3\] is null/);
      });
    });
});
