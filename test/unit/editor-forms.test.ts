import assert from 'node:assert/strict';
import { BOOTSTRAP_OPTIONS, DECODE_OPTIONS, ENCODE_OPTIONS, FUSE_OPTIONS, IMAGE_OPTIONS, LOOP_OPTIONS, MODEL_OPTIONS, REGION_OPTIONS, SAMPLER_OPTIONS, SAVE_OPTIONS, type OptionSpec } from '../../dist/engine/options';
import { loadDefinition, newNode, readHtml, TYPES, validate } from './support/editor';

/** Which options each node's form shows. */
const OPTIONS: Record<string, Record<string, OptionSpec>> = {
  'diffusion-model': MODEL_OPTIONS,
  'text-encode': {},
  'region-mask': REGION_OPTIONS,
  'multidiffusion-sampler': { ...SAMPLER_OPTIONS, ...LOOP_OPTIONS },
  'multidiffusion-bootstrap': BOOTSTRAP_OPTIONS,
  'multidiffusion-denoise': {},
  'multidiffusion-fuse': FUSE_OPTIONS,
  'vae-encode': ENCODE_OPTIONS,
  'vae-decode': DECODE_OPTIONS,
  'save-image': { ...IMAGE_OPTIONS, ...SAVE_OPTIONS },
};

/** Some defaults are shown as a placeholder, so that the field is empty. */
const SHOWN_AS_PLACEHOLDER = ['deviceId'];

describe('edit forms', () => {
  for (const type of TYPES) {
    const definition = loadDefinition(type);

    describe(type, () => {
      it('accepts a new node', () => {
        const node = newNode(type, definition);
        for (const property of Object.keys(definition.defaults)) assert.equal(validate(definition, node, property), true, property);
      });

      it('has a label, in italics when named', () => {
        const node = newNode(type, definition);
        assert.notEqual(definition.label.call(node), '');
        assert.equal(definition.labelStyle.call(node), '');
        const named = { ...node, name: 'mine' };
        assert.equal(definition.label.call(named), 'mine');
        assert.equal(definition.labelStyle.call(named), 'node_label_italic');
      });

      it('accepts a node from before some property existed', () => {
        for (const property of Object.keys(definition.defaults)) {
          if (property in OPTIONS[type]) assert.equal(validate(definition, newNode(type, definition, { [property]: undefined }), property), true, property);
        }
      });

      it('has an input for every property', () => {
        const html = readHtml(type);
        const drawn = type === 'region-mask' ? ['box', 'points'] : [];
        for (const property of Object.keys(definition.defaults)) {
          if (!drawn.includes(property)) assert.match(html, new RegExp(`id="node-(config-)?input-${property}"`), property);
        }
        assert.doesNotMatch(html, /<input(?![^>]*\btype=)/, 'an input without a type is not themed');
      });

      for (const [name, spec] of Object.entries(OPTIONS[type])) {
        it(`agrees with the engine about ${name}`, () => {
          assert.ok(name in definition.defaults, `${name} is missing from the form`);
          const standard = SHOWN_AS_PLACEHOLDER.includes(name) ? '' : (spec.default ?? '');
          assert.equal(definition.defaults[name].value, standard);
          const says = (value: unknown) => validate(definition, newNode(type, definition, { ...neighbours(name), [name]: value }), name);
          if (spec.type === 'boolean') return;
          if (spec.type === 'choice') {
            for (const choice of spec.choices) assert.equal(says(choice), true, choice);
            assertRefused(says('nonsense'), 'nonsense');
            const offered = [...readHtml(type).matchAll(/<option value="([^"]*)"/g)].map((match) => match[1]);
            for (const choice of spec.choices) assert.ok(offered.includes(choice), `${choice} is not offered`);
            return;
          }
          if (spec.type === 'colour') {
            assert.equal(says('#00FF7f'), true);
            for (const wrong of ['', 'red', '#fff', '#12345g', '#1234567']) assertRefused(says(wrong), wrong);
            return;
          }
          const { min, max } = spec;
          const shown = new RegExp(`id="node-(?:config-)?input-${name}"[^>]* placeholder="([^"]*)"`).exec(readHtml(type))?.[1];
          if (shown !== undefined && spec.default !== undefined) assert.equal(shown, String(spec.default), 'the placeholder');
          const low = name === 'end' ? 0.001 : min;
          assert.equal(says(low), true, `${low}`);
          assert.equal(says(String(max)), true, `${max}`);
          for (const wrong of [min - 1, max + max * 0.5, 'many', '1,5', 'NaN', 'Infinity']) assertRefused(says(wrong), wrong);
          if (spec.type === 'integer') assertRefused(says(min + 0.5), min + 0.5);
        });
      }
    });
  }

  it('never puts markup from a flow into a reason, which Node-RED shows as HTML', () => {
    for (const type of TYPES) {
      const definition = loadDefinition(type);
      for (const [property, { value }] of Object.entries(definition.defaults)) {
        const nasty = '{<img src=x onerror=alert(1)>}';
        const node = newNode(type, definition, { shape: property === 'points' ? 'polygon' : 'box', seedMode: 'fixed', [property]: Array.isArray(value) ? [nasty] : nasty });
        assert.doesNotMatch(String(validate(definition, node, property)), /[<>]/, `${type}.${property}`);
      }
    }
  });

  it('asks for a folder only where one is needed', () => {
    const definition = loadDefinition('diffusion-model');
    assertRefused(validate(definition, newNode('diffusion-model', definition, { checkpoint: 'folder' }), 'folder'), '');
    assert.equal(validate(definition, newNode('diffusion-model', definition, { checkpoint: 'folder', folder: '/models/sd' }), 'folder'), true);
  });

  it('asks for a fixed seed', () => {
    const definition = loadDefinition('multidiffusion-sampler');
    const says = (values: object) => validate(definition, newNode('multidiffusion-sampler', definition, { ...values }), 'seed');
    assert.equal(says({ seedMode: 'random', seed: 'x' }), true);
    assertRefused(says({ seedMode: 'fixed', seed: '' }), '');
  });

  it('takes bootstrapping as a share or as a whole number of steps', () => {
    const definition = loadDefinition('multidiffusion-sampler');
    const says = (bootstrapping: unknown, bootstrappingUnit: string) =>
      validate(definition, newNode('multidiffusion-sampler', definition, { bootstrapping, bootstrappingUnit }), 'bootstrapping');
    assert.equal(says(1, 'fraction'), true);
    assertRefused(says(5, 'fraction'), 5);
    assert.equal(says('', 'fraction'), true);
    assert.equal(says(5, 'steps'), true);
    assertRefused(says(0.5, 'steps'), 0.5);
    assertRefused(says('', 'steps'), 'nothing, because the default is a share');
  });

  it('refuses a region that has no area, leaves the canvas, or ends before it starts', () => {
    const definition = loadDefinition('region-mask');
    const says = (property: string, values: object) => validate(definition, newNode('region-mask', definition, { ...values }), property);
    assertRefused(says('box', { box: [0.1, 0.1, 0, 0.5] }), '');
    assertRefused(says('box', { box: [0.6, 0.1, 0.5, 0.5] }), '');
    assertRefused(says('box', { box: 'everywhere' }), '');
    assert.equal(says('box', { box: [0, 0, 1, 1] }), true);
    assertRefused(says('points', { shape: 'polygon', points: [[0, 0], [1, 1]] }), '');
    assert.equal(says('points', { shape: 'polygon', points: [[0, 0], [1, 1], [0, 1]] }), true);
    assertRefused(says('end', { start: 0.5, end: 0.5 }), '');
    assertRefused(says('image', { shape: 'image', image: '' }), '');
  });

  it('refuses unknown fields in a file name', () => {
    const definition = loadDefinition('save-image');
    const says = (filename: string) => validate(definition, newNode('save-image', definition, { filename }), 'filename');
    assert.equal(says('{seed}/{counter}'), true);
    assert.match(String(says('{date}-{sed}')), /\{sed\}/);
  });
});

/** Other properties that a value's range depends on. */
function neighbours(name: string): Record<string, unknown> {
  if (name === 'seed') return { seedMode: 'fixed' };
  if (name === 'bootstrapping') return { bootstrappingUnit: 'steps' };
  return {};
}

function assertRefused(answer: boolean | string, value: unknown): void {
  assert.equal(typeof answer, 'string', `${String(value)} is refused with a reason`);
  assert.doesNotMatch(answer as string, /undefined|__/, 'the reason is complete');
}
