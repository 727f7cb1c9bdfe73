import assert from 'node:assert/strict';
import { applySettings, exampleLayout, findStart, parseSetting, type FlowNode } from '../../scripts/lib/flow.js';

const flow: FlowNode[] = [
  { id: 'a', type: 'inject', name: 'clock', wires: [['b']] },
  { id: 'b', type: 'debug', wires: [] },
  { id: 'c', type: 'http in', name: '', wires: [['d']] },
  { id: 'd', type: 'text-encode', name: 'red sofa', prompt: 'a red sofa', wires: [['e']] },
  { id: 'e', type: 'save-image', name: '', wires: [[]] },
];

describe('flow files', () => {
  it('start at the node whose messages come to save-image', () => {
    assert.equal(findStart(flow).id, 'c');
    assert.equal(findStart([...flow, { id: 'f', type: 'inject', wires: [['d']] }]).id, 'f');
    assert.throws(
      () => findStart(flow.slice(0, 2)),
      /no inject, http in, mqtt in node whose messages come to a save-image/,
    );
  });

  it('follow links', () => {
    const linked = [
      { id: 'a', type: 'inject', wires: [['b']] },
      { id: 'b', type: 'link out', links: ['c'], wires: [] },
      { id: 'c', type: 'link in', wires: [['d']] },
      { id: 'd', type: 'save-image', wires: [] },
    ];
    assert.equal(findStart(linked).id, 'a');
  });

  it('take settings for nodes by name, id and type, and for the message', () => {
    const changed = applySettings(flow, { 'red sofa.prompt': 'a blue sofa', seed: 7, 'generation.note': 'x' });
    assert.equal(changed.flow[3].prompt, 'a blue sofa');
    assert.deepEqual(changed.message, { seed: 7, 'generation.note': 'x' });
    assert.deepEqual(changed.notes, [
      '--set generation.note: no node is called "generation", so that it is set in the message.',
    ]);
    assert.equal(flow[3].prompt, 'a red sofa');
    assert.equal(applySettings(flow, { 'text-encode.prompt': 'x' }).flow[3].prompt, 'x');
    assert.equal(
      applySettings([{ id: 'r', type: 'region-mask', regionName: 'sofa', weight: 1 }], { 'sofa.weight': 2 }).flow[0]
        .weight,
      2,
    );
    assert.equal(applySettings(flow, { 'd.prompt': 'y' }).flow[3].prompt, 'y');
    assert.throws(() => applySettings(flow, { 'red sofa.promt': 'x' }), /has no property promt/);
  });

  it('read values as JSON where they are JSON', () => {
    assert.deepEqual(parseSetting('seed=7'), ['seed', 7]);
    assert.deepEqual(parseSetting('prompt=a = b'), ['prompt', 'a = b']);
    assert.deepEqual(parseSetting('payload={"prompt":"x"}'), ['payload', { prompt: 'x' }]);
    assert.deepEqual(parseSetting('prompt='), ['prompt', '']);
    assert.throws(() => parseSetting('seed'), /should be key=value/);
  });

  it('show their layout in a comment', () => {
    assert.deepEqual(exampleLayout([{ id: 'a', type: 'comment', info: 'So:\n\n```json\n{"prompt": "x"}\n```\n' }]), {
      prompt: 'x',
    });
    assert.equal(exampleLayout(flow), undefined);
  });
});
