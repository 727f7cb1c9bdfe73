import assert from 'node:assert/strict';
import { NODE_OPTIONS, SOURCES } from '../../dist/engine/options';
import { dialogOf, loadDefinition, loadForms, newNode, readHtml, TYPES, validate } from './support/editor';

/** As Node-RED puts the value of an environment variable in its place. */
const A_VARIABLE = '$' + '{A_VARIABLE}';
/** What the canvas and its list are for. */
const DRAWN: Record<string, string[]> = {
  compose: ['prompt', 'negativePrompt', 'width', 'height', 'seed', 'regions'],
  'region-mask': ['box', 'points'],
};

describe('edit forms', () => {
  for (const type of TYPES) {
    const definition = loadDefinition(type);

    describe(type, () => {
      it('accepts a new node', () => {
        const node = newNode(type, definition);
        for (const property of Object.keys(definition.defaults))
          assert.equal(validate(definition, node, property), true, property);
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
          if (property in NODE_OPTIONS[type])
            assert.equal(
              validate(definition, newNode(type, definition, { [property]: undefined }), property),
              true,
              property,
            );
        }
      });

      it('has an input for every property', () => {
        const html = dialogOf(type);
        const drawn = DRAWN[type] ?? [];
        for (const [property, { value }] of Object.entries(definition.defaults)) {
          const retired = value === undefined;
          if (!drawn.includes(property) && !retired)
            assert.match(html, new RegExp(`id="node-(config-)?input-${property}"`), property);
        }
        assert.doesNotMatch(html, /<input(?![^>]*\btype=)/, 'an input without a type is not themed');
      });

      for (const [name, spec] of Object.entries(NODE_OPTIONS[type])) {
        it(`agrees with the engine about ${name}`, () => {
          assert.ok(name in definition.defaults, `${name} is missing from the form`);
          assert.equal(definition.defaults[name].value, spec.default ?? '');
          const says = (value: unknown) =>
            validate(definition, newNode(type, definition, { ...neighbours(name), [name]: value }), name);
          assert.equal(says(A_VARIABLE), true, 'an environment variable');
          if (spec.type === 'boolean') return assertRefused(says('perhaps'), 'perhaps');
          if (spec.type === 'text') return;
          if (spec.type === 'choice') {
            for (const choice of spec.choices) assert.equal(says(choice), true, choice);
            assertRefused(says('nonsense'), 'nonsense');
            const offered = [...dialogOf(type).matchAll(/<option value="([^"]*)"/g)].map((match) => match[1]);
            if (spec.form)
              for (const choice of spec.choices) assert.ok(offered.includes(choice), `${choice} is not offered`);
            return;
          }
          if (spec.type === 'colour') {
            assert.equal(says('#00FF7f'), true);
            for (const wrong of ['', 'red', '#fff', '#12345g', '#1234567']) assertRefused(says(wrong), wrong);
            return;
          }
          const { min, max } = spec;
          const shown = new RegExp(`id="node-(?:config-)?input-${name}"[^>]* placeholder="([^"]*)"`).exec(
            dialogOf(type),
          )?.[1];
          if (spec.default !== undefined) assert.equal(shown, String(spec.default), 'the placeholder');
          const low = name === 'end' ? 0.001 : min;
          assert.equal(says(low), true, `${low}`);
          assert.equal(says(String(max)), true, `${max}`);
          for (const wrong of [min - 1, max + max * 0.5, 'many', '1,5', 'NaN', 'Infinity'])
            assertRefused(says(wrong), wrong);
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
        const node = newNode(type, definition, {
          shape: property === 'points' ? 'polygon' : 'box',
          seedType: 'num',
          [property]: Array.isArray(value) ? [nasty] : nasty,
        });
        assert.doesNotMatch(String(validate(definition, node, property)), /[<>]/, `${type}.${property}`);
      }
    }
  });

  it('asks for a folder only where one is needed', () => {
    const definition = loadDefinition('diffusion-model');
    assertRefused(validate(definition, newNode('diffusion-model', definition, { checkpoint: 'folder' }), 'folder'), '');
    assert.equal(
      validate(
        definition,
        newNode('diffusion-model', definition, { checkpoint: 'folder', folder: '/models/sd' }),
        'folder',
      ),
      true,
    );
  });

  it('asks for a fixed seed', () => {
    const definition = loadDefinition('multidiffusion-sampler');
    const says = (values: object) =>
      validate(definition, newNode('multidiffusion-sampler', definition, { ...values }), 'seed');
    assert.equal(says({ seedType: 'random', seed: 'x' }), true);
    assertRefused(says({ seedType: 'num', seed: '' }), '');
  });

  it('takes bootstrapping as a share or as a whole number of steps', () => {
    const definition = loadDefinition('multidiffusion-sampler');
    const says = (bootstrapping: unknown, bootstrappingUnit: string) =>
      validate(
        definition,
        newNode('multidiffusion-sampler', definition, { bootstrapping, bootstrappingUnit }),
        'bootstrapping',
      );
    assert.equal(says(1, 'fraction'), true);
    assertRefused(says(5, 'fraction'), 5);
    assert.equal(says('', 'fraction'), true);
    assert.equal(says(5, 'steps'), true);
    assertRefused(says(0.5, 'steps'), 0.5);
    assertRefused(says('', 'steps'), 'nothing, because the default is a share');
  });

  it('refuses a region that has no area, lies off the canvas, or ends before it starts', () => {
    const definition = loadDefinition('region-mask');
    const says = (property: string, values: object) =>
      validate(definition, newNode('region-mask', definition, { ...values }), property);
    assertRefused(says('box', { box: [0.1, 0.1, 0, 0.5] }), '');
    assertRefused(says('box', { box: [1, 0.1, 0.5, 0.5] }), '');
    // As in a message: what reaches over the edge is cut off, with a finding.
    assert.equal(says('box', { box: [0.6, 0.1, 0.5, 0.5] }), true);
    assertRefused(says('box', { box: 'everywhere' }), '');
    assert.equal(says('box', { box: [0, 0, 1, 1] }), true);
    assertRefused(
      says('points', {
        shape: 'polygon',
        points: [
          [0, 0],
          [1, 1],
        ],
      }),
      '',
    );
    assert.equal(
      says('points', {
        shape: 'polygon',
        points: [
          [0, 0],
          [1, 1],
          [0, 1],
        ],
      }),
      true,
    );
    assertRefused(says('end', { start: 0.5, end: 0.5 }), '');
    assertRefused(says('image', { shape: 'image', image: '' }), '');
  });

  it('takes what a typed input names from a message, the context, the environment or an expression', () => {
    const definition = loadDefinition('multidiffusion-sampler');
    const says = (steps: unknown, stepsType: string) =>
      validate(definition, newNode('multidiffusion-sampler', definition, { steps, stepsType }), 'steps');
    for (const source of SOURCES) {
      assert.equal(says('wanted', source), true, source);
      assertRefused(says('', source), source);
    }
    assertRefused(says('wanted', 'num'), 'wanted');
    const kind = validate(definition, newNode('multidiffusion-sampler', definition, { stepsType: 'bin' }), 'stepsType');
    assertRefused(kind, 'bin');
  });

  it('shows the kinds of value that an option takes, the first by default', () => {
    const definition = loadDefinition('multidiffusion-sampler');
    assert.equal(definition.defaults.seedType.value, 'random');
    assert.equal(definition.defaults.stepsType.value, 'num');
    for (const [type, names] of Object.entries({
      'multidiffusion-sampler': ['width', 'height', 'steps', 'guidanceScale', 'seed'],
      'text-encode': ['prompt', 'negativePrompt'],
      'region-mask': ['boxFrom', 'guidanceScale', 'seed'],
      'vae-encode': ['width', 'height'],
      'save-image': ['filename'],
    }))
      for (const name of names)
        for (const source of SOURCES)
          assert.ok(NODE_OPTIONS[type][name].form!.kinds!.includes(source), `${type}.${name}`);
  });

  it('writes by hand only what is no option: a test that the dialogs stay short', () => {
    const byHand = Object.fromEntries(
      TYPES.map((type) => [
        type,
        [...readHtml(type).matchAll(/ id="node-(?:config-)?input-(\w+)"/g)].map(([, id]) => id),
      ]),
    );
    assert.deepEqual(
      Object.entries(byHand).filter(([, ids]) => ids.length > 0),
      [
        ['diffusion-model', ['token', 'redis']], // a credential
        ['region-mask', ['shape']], // chosen by buttons
      ],
    );
    const own = TYPES.map((type) => [type, [...readHtml(type).matchAll(/^ {12}(\w+): \{/gm)].map(([, name]) => name)]);
    for (const [type, names] of own as Array<[string, string[]]>) {
      const kept = ['name', 'model', ...(DRAWN[type] ?? [])];
      assert.deepEqual(
        names.filter((name) => !kept.includes(name)),
        [],
        `${type} declares options of its own`,
      );
    }
    const lines = TYPES.map((type) => readHtml(type).split('\n').length).reduce((sum, count) => sum + count);
    assert.ok(lines <= 700, `${lines} lines of html`);
  });

  it('takes a new option from the settings alone: row, default, validator', () => {
    const type = 'multidiffusion-sampler';
    const rescale = { type: 'number', min: 0, max: 1, default: 0, form: { icon: 'compress', kinds: ['num', 'msg'] } };
    const options = { ...NODE_OPTIONS[type], guidanceRescale: rescale };
    const texts = { 'label.guidanceRescale': 'Guidance rescale' };
    const { MultiDiffusionForms } = loadForms({
      settings: { multidiffusionSamplerOptions: options },
      _: (key: string, values: Record<string, unknown> = {}) =>
        Object.entries(texts).find(([name]) => key.endsWith(name))?.[1] ?? JSON.stringify(values),
      editor: { getEditStack: () => [] },
    });
    const { guidanceRescale, guidanceRescaleType } = MultiDiffusionForms.defaults(type);
    assert.deepEqual([guidanceRescale.value, guidanceRescaleType.value], [0, 'num']);
    assert.equal(guidanceRescale.validate!.call({ type }, 0.5, {}), true);
    assert.match(String(guidanceRescale.validate!.call({ type }, 7, {})), /Guidance rescale.*"max":1/);
    const dialog = MultiDiffusionForms.expand(type, readHtml(type));
    assert.match(dialog, /id="node-input-guidanceRescale"[^>]* placeholder="0" inputmode="decimal"/);
    assert.match(dialog, /data-i18n="multidiffusion-sampler.label.guidanceRescale"/);
  });

  it('loads in every html what its script needs: Node-RED loads scripts in any order', () => {
    for (const type of TYPES) {
      const loaded = [...readHtml(type).matchAll(/<script src="[^"]*\/([\w-]+\.js)">/g)].map(([, file]) => file);
      for (const file of ['migrations.js', 'forms.js', 'form-rows.js', 'form-dialog.js'])
        assert.ok(loaded.includes(file), `${type}.html does not load ${file}`);
    }
  });

  it('refuses unknown fields in a file name', () => {
    const definition = loadDefinition('save-image');
    const says = (filename: string) =>
      validate(definition, newNode('save-image', definition, { filename }), 'filename');
    assert.equal(says('{seed}/{counter}'), true);
    assert.match(String(says('{date}-{sed}')), /\{sed\}/);
  });
});

/** Other properties that a value's range depends on. */
function neighbours(name: string): Record<string, unknown> {
  if (name === 'seed') return { seedType: 'num' };
  if (name === 'duration') return { durationUnit: 'steps' };
  if (name === 'bootstrapping') return { bootstrappingUnit: 'steps' };
  return {};
}

function assertRefused(answer: boolean | string, value: unknown): void {
  assert.equal(typeof answer, 'string', `${String(value)} is refused with a reason`);
  assert.doesNotMatch(answer as string, /undefined|__/, 'the reason is complete');
}
