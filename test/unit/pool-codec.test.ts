/** Requests and results on their way through a pool's Redis: what comes back is what was sent, and nothing strange gets in. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { checkBytes, pack, referencesOf, unpack, type Reference } from '../../dist/engine/pool/codec';
import { identityOf, repositoryIdentity } from '../../dist/engine/pool/identity';
import { findWorker } from '../../dist/engine/pool/model';
import { readCallParams, readCallResult, readHeld, readSampleResult, readSteps } from '../../dist/engine/pool/results';
import { Names, PROTOCOL, readFacts, readJobData, readWorker, type WorkerInfo } from '../../dist/engine/pool/schema';
import { checkAddress, describeAddress } from '../../dist/engine/pool/connection';
import { Tensor } from '../../dist/engine/tensor';
import type { ModelFacts } from '../../dist/engine/model';
import { checkpointFolder, copyCheckpoint } from './support/checkpoints';

const FACTS: ModelFacts = {
  name: 'm',
  latentChannels: 4,
  latentFactor: 8,
  scalingFactor: 1,
  nativeSize: 64,
  schedulerConfig: {} as ModelFacts['schedulerConfig'],
  guidanceEmbedded: false,
  maxTokens: 77,
  canEncodeImages: true,
  provider: 'cpu',
};

/** Through JSON and a store of bytes, as through Redis. */
async function through(value: unknown): Promise<unknown> {
  const { body, blobs } = pack(value);
  return unpack(JSON.parse(JSON.stringify(body)), async (references) => {
    const found = new Map<string, ArrayBuffer>();
    for (const reference of references) {
      const bytes = blobs.get(reference.hash)!;
      checkBytes(reference, bytes);
      found.set(reference.hash, bytes.slice().buffer as ArrayBuffer);
    }
    return found;
  });
}

describe('what crosses a pool', () => {
  it('comes out as it went in', async () => {
    const tensor = Tensor.float32(Float32Array.of(1, NaN, -0, Infinity), [1, 4]);
    const value = {
      text: 'ä "quoted" \u0000',
      numbers: [0, -0, 1e300, NaN, Infinity, -Infinity],
      nested: { list: [[], {}, null, true, undefined], $: 'our own mark', deep: { $: { $: 1 } } },
      tensor,
      half: new Tensor('float16', [2], Uint16Array.of(1, 65535).buffer),
      bytes: Uint8Array.of(1, 2, 3),
      window: new Float32Array([1, 2, 3, 4]).subarray(1, 3),
      empty: new Int32Array(0),
    };
    const back = (await through(value)) as typeof value;
    assert.deepEqual(back, { ...value, window: Float32Array.of(2, 3) });
    assert.ok(back.tensor instanceof Tensor);
  });

  it('has a tensor that occurs twice once, as one and the same', async () => {
    const data = Float32Array.from({ length: 100 }, (_, i) => i);
    const [one, equal] = [Tensor.float32(data, [100]), Tensor.float32(data.slice(), [100])];
    assert.equal(pack([one, one, equal]).blobs.size, 1);
    const [a, b, c] = (await through([one, one, equal])) as Tensor[];
    assert.ok(a === b && b === c);
  });

  it('takes what a clone has left of a tensor, and no names from a prototype', async () => {
    const { kind, dtype, dims, buffer } = Tensor.uint8(Uint8Array.of(1, 2), [2]);
    assert.ok((await through({ kind, dtype, dims, buffer })) instanceof Tensor);
    const hostile = JSON.parse('{"__proto__": {"polluted": true}, "a": 1}') as object;
    const back = (await through(hostile)) as Record<string, unknown>;
    assert.equal(back.polluted, undefined);
    assert.equal(({} as Record<string, unknown>).polluted, undefined);
  });

  it('names what can not be sent', () => {
    assert.throws(() => pack({ stepNoise: () => 0 }, 'sample'), /sample\.stepNoise is a function/);
    assert.throws(() => pack({ a: [1n] }), /request\.a\[0\]/);
    assert.throws(() => pack({ a: new Float64Array(2) }), /request\.a/);
    let deep: unknown = 1;
    for (let i = 0; i < 100; i++) deep = [deep];
    assert.throws(() => pack(deep), /nested/);
  });

  it('refuses what nobody here has packed, before any bytes are asked for', async () => {
    const hash = 'a'.repeat(64);
    const hostile: unknown[] = [
      { $: 'tensor', hash: '../../etc', dtype: 'float32', dims: [1] },
      { $: 'tensor', hash, dtype: 'float64', dims: [1] },
      { $: 'tensor', hash, dtype: 'constructor', dims: [1] },
      { $: 'tensor', hash, dtype: 'float32', dims: [-1] },
      { $: 'tensor', hash, dtype: 'float32', dims: [1e9, 1e9] },
      { $: 'tensor', hash, dtype: 'float32', dims: 'many' },
      { $: 'array', hash, kind: 'f64', length: 1 },
      { $: 'array', hash, kind: 'f32', length: 1.5 },
      { $: 'object', entries: [[1, 2]] },
      { $: 'number', text: 'process.exit()' },
      { $: 'anything' },
      [
        { $: 'array', hash, kind: 'f32', length: 1 },
        { $: 'array', hash, kind: 'f32', length: 2 },
      ],
      Array.from({ length: 5000 }, (_, i) => ({
        ...{ $: 'array', kind: 'u8', length: 1 },
        hash: i.toString(16).padStart(64, '0'),
      })),
    ];
    const never = (): Promise<never> => assert.fail('bytes were asked for');
    for (const body of hostile)
      await assert.rejects(unpack(body, never), { code: 'INFERENCE' }, JSON.stringify(body).slice(0, 80));
    let deep: unknown = 1;
    for (let i = 0; i < 10_000; i++) deep = { a: deep };
    await assert.rejects(unpack(deep, never), { code: 'INFERENCE' });
  });

  it('notices other bytes, and more or fewer of them', () => {
    const bytes = Uint8Array.of(1, 2, 3);
    const reference: Reference = { hash: createHash('sha256').update(bytes).digest('hex'), bytes: 3 };
    checkBytes(reference, bytes);
    for (const wrong of [
      [1, 2, 4],
      [1, 2],
      [1, 2, 3, 4],
    ])
      assert.throws(() => checkBytes(reference, Uint8Array.from(wrong)), { code: 'INFERENCE' });
    assert.deepEqual(referencesOf(pack({ a: [bytes, bytes] }).body), [reference]);
  });
});

describe('what a worker believes', () => {
  const latents = new Float32Array(4 * 4);
  const good = { latents, dims: [1, 4, 2, 2], timestep: 1, embeddings: ['key'] };

  it('takes the calls that clients make', () => {
    assert.equal(readCallParams('predict', good, FACTS), good);
    readCallParams('predict', { ...good, inputOf: [0, 0], embeddings: ['a', 'b'], guidanceScales: [1, 2] }, FACTS);
    readCallParams('decode', { latents, dims: [1, 4, 2, 2], tileSize: 8, overlap: 0, circular: true }, FACTS);
    readCallParams('encodeImages', { pixels: new Uint8Array(12), dims: [1, 2, 2, 3] }, FACTS);
    readCallParams('encodePrompts', { prompts: ['a'] }, FACTS);
  });

  it('refuses sizes that lie, and what has another kind', () => {
    const wrong: Array<[Parameters<typeof readCallParams>[0], unknown]> = [
      ['predict', undefined],
      ['predict', { ...good, dims: [1, 4, 2, 3] }],
      ['predict', { ...good, dims: [1, 3, 2, 2], latents: new Float32Array(12) }],
      ['predict', { ...good, latents: [0] }],
      ['predict', { ...good, inputOf: [1] }],
      ['predict', { ...good, inputOf: Array(5000).fill(0) }],
      ['predict', { ...good, embeddings: [] }],
      ['predict', { ...good, embeddings: [{}] }],
      ['predict', { ...good, timestep: 'now' }],
      ['predict', { ...good, guidanceScales: [] }],
      ['decode', { latents, dims: [2, 4, 2, 1] }],
      ['decode', { latents, dims: [1, 4, 2, 2], tileSize: 1 }],
      ['encodeImages', { pixels: new Uint8Array(12), dims: [1, 2, 2, 4] }],
      ['encodePrompts', { prompts: 'text' }],
      ['encodePrompts', { prompts: [1] }],
      ['encodePrompts', { prompts: ['x'.repeat(200_000)] }],
      ['open', {}],
    ];
    for (const [name, params] of wrong)
      assert.throws(
        () => readCallParams(name, params, FACTS),
        { code: 'INVALID_INPUT' },
        `${name} ${JSON.stringify(params)}`.slice(0, 100),
      );
    assert.throws(() => readHeld([{}]), { code: 'INVALID_INPUT' });
    assert.throws(() => readHeld([{ ...Tensor.float32([1], [1]), dims: [2] }]), { code: 'INVALID_INPUT' });
  });

  it('refuses jobs of another protocol, and damaged ones', () => {
    const job = { protocol: PROTOCOL, client: 'c', body: {} };
    assert.deepEqual(readJobData(job), job);
    assert.throws(() => readJobData({ ...job, protocol: PROTOCOL + 1 }), { code: 'VERSION_MISMATCH' });
    for (const wrong of [
      { ...job, client: 'a:b' },
      { ...job, body: undefined },
    ])
      assert.throws(() => readJobData(wrong), { code: 'INFERENCE' });
    assert.throws(() => readJobData(null), { code: 'VERSION_MISMATCH' });
  });
});

describe('what a client believes', () => {
  it('takes only what answers its call', () => {
    const params = { latents: new Float32Array(16), dims: [1, 4, 2, 2] };
    const picture = { pixels: new Uint8Array(16 * 16 * 3), dims: [16, 16, 3] };
    assert.equal(readCallResult('decode', picture, params, FACTS), picture);
    for (const wrong of [undefined, {}, { ...picture, dims: [16, 17, 3] }, { ...picture, pixels: new Uint8Array(3) }])
      assert.throws(() => readCallResult('decode', wrong, params, FACTS), { code: 'INFERENCE' });
    const rows = { ...params, timestep: 1, embeddings: ['a', 'b'], inputOf: [0, 0] };
    const outputs = { outputs: new Float32Array(32), runMilliseconds: 1 };
    assert.equal(readCallResult('predict', outputs, rows, FACTS), outputs);
    assert.throws(() => readCallResult('predict', { ...outputs, outputs: new Float32Array(16) }, rows, FACTS), {
      code: 'INFERENCE',
    });
    assert.throws(() => readCallResult('encodePrompts', [], { prompts: ['a'] }, FACTS), { code: 'INFERENCE' });
    const embeddings = { dtype: 'float16', dims: [1, 1, 2], data: new Float32Array(2) };
    const lying = [{ embeddings, tokenIds: [1] }];
    assert.throws(() => readCallResult('encodePrompts', lying, { prompts: ['a'] }, FACTS), { code: 'INFERENCE' });
  });

  it('takes no latents of another shape, or that are no numbers', () => {
    const result = {
      latents: Tensor.float32(new Float32Array(4 * 8 * 8), [1, 4, 8, 8]),
      ...{ width: 64, height: 64, seed: 1, steps: 1, scheduler: 's', findings: [] },
      timings: { unet: 1, encode: 1, total: 1 },
      ...{ unetRows: 1, referenceRows: 1, bootstrapEvaluations: 0, evaluations: 1, views: 1 },
    };
    assert.equal(readSampleResult(result, FACTS), result);
    const wrong = [
      { ...result, width: 128 },
      { ...result, latents: Tensor.float32(new Float32Array(256).fill(NaN), [1, 4, 8, 8]) },
      { ...result, findings: [{ code: 1 }] },
      { ...result, timings: {} },
      null,
    ];
    for (const value of wrong) assert.throws(() => readSampleResult(value, FACTS), { code: 'INFERENCE' });
    assert.deepEqual(readSteps([[1, 2, 999]]), [[1, 2, 999]]);
    assert.deepEqual([readSteps([[0, 2, 1]]), readSteps('x'), readSteps([['1', 2, 3]])], [[], [], []]);
  });

  it('believes no worker and no facts that can not be', () => {
    const worker = {
      ...{ id: 'i', name: 'n\nm', protocol: 1, version: '1', identity: 'a'.repeat(32), model: 'm', provider: 'cpu' },
      ...{ slots: 2, busy: 0, draining: false, pictures: 0, since: 1 },
    };
    assert.equal(readWorker(JSON.stringify(worker))?.name, 'n m');
    for (const wrong of [{ slots: 0 }, { slots: 1e9 }, { identity: 'x' }, { id: 7 }])
      assert.equal(readWorker(JSON.stringify({ ...worker, ...wrong })), undefined);
    for (const json of [null, '', '[]', 'x', '{']) assert.equal(readWorker(json), undefined);
    assert.ok(readFacts(JSON.stringify(FACTS)));
    for (const wrong of [
      { latentChannels: 0 },
      { nativeSize: 1e9 },
      { schedulerConfig: [] },
      { scalingFactor: null },
      { vocabulary: [1] },
    ])
      assert.equal(readFacts(JSON.stringify({ ...FACTS, ...wrong })), undefined, JSON.stringify(wrong));
  });
});

describe('which checkpoint a pool is asked for', () => {
  it('is the same for the same files, wherever they lie and whatever is said beside them', async () => {
    const folder = checkpointFolder('tiny-sd2');
    const copy = copyCheckpoint('tiny-sd2');
    try {
      const identity = await identityOf(folder);
      assert.match(identity, /^[0-9a-f]{32}$/);
      fs.writeFileSync(path.join(copy, 'README.md'), 'words');
      fs.writeFileSync(path.join(copy, '.hidden'), 'words');
      assert.equal(await identityOf(copy), identity);
      const file = path.join(copy, 'scheduler', 'scheduler_config.json');
      fs.appendFileSync(file, ' ');
      assert.notEqual(await identityOf(copy), identity);
      fs.writeFileSync(
        path.join(copy, 'repository.json'),
        JSON.stringify({ repository: 'a/b', commit: 'c', files: [] }),
      );
      assert.equal(await identityOf(copy), repositoryIdentity('a/b', 'c'));
    } finally {
      fs.rmSync(copy, { recursive: true });
    }
    assert.notEqual(await identityOf(folder), await identityOf(checkpointFolder('tiny-lcm')));
    await assert.rejects(identityOf('/no/such/folder'), { code: 'CHECKPOINT' });
  });

  it('is, of a branch that means two commits, the one with more workers', () => {
    const worker = (id: string, slots: number, commit: string, more: object = {}): WorkerInfo => ({
      ...{ id, name: id, protocol: PROTOCOL, version: '1', identity: repositoryIdentity('a/b', commit), model: 'm' },
      ...{ provider: 'cpu', slots, busy: 0, draining: false, pictures: 0, since: 0 },
      ...{ repository: 'a/b', revision: 'main', commit },
      ...more,
    });
    const workers = [worker('1', 1, 'old'), worker('2', 2, 'new'), worker('3', 8, 'next', { protocol: PROTOCOL + 1 })];
    assert.equal(findWorker(workers, { repository: 'a/b', revision: 'main' })?.id, '2');
    assert.equal(findWorker(workers, { repository: 'a/b', revision: 'old' })?.id, '1');
    assert.equal(findWorker(workers, { repository: 'a/b', revision: 'next' })?.id, '3');
    assert.equal(findWorker(workers, { repository: 'a/c', revision: 'main' }), undefined);
    assert.equal(findWorker(workers, { identity: repositoryIdentity('a/b', 'new') })?.id, '2');
  });

  it('is asked at an address that is one, which no error shows', () => {
    assert.equal(describeAddress({ url: 'rediss://me:secret@host:1234/2' }), 'host:1234');
    assert.equal(describeAddress({ url: 'redis://[::1]' }), '[::1]:6379');
    for (const url of ['', 'host', 'http://me:secret@host', 'redis://', 'redis://me:secret@host/x'])
      assert.throws(
        () => checkAddress({ url }),
        (error: Error & { code: string }) => error.code === 'INVALID_INPUT' && !error.message.includes('secret'),
        url,
      );
    for (const pool of ['', 'a:b', 'a b', '*', 'x'.repeat(65)])
      assert.throws(() => new Names(pool), { code: 'INVALID_INPUT' });
  });
});
