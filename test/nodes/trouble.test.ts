import assert from 'node:assert/strict';
import fs from 'node:fs';
import fsPromises from 'node:fs/promises';
import path from 'node:path';
import { acquireCheckpoint, openCheckpoint, type Checkpoint, Tensor, torchNoise } from '../../dist/engine';
import {
  closeModels,
  deploy,
  encode,
  getNode,
  model,
  sampler,
  startFlow,
  stopFlow,
  temporaryDirectory,
  TINY,
  TINY_LCM,
  type Any,
  type FlowNode,
} from './support/flow';

const small = { width: 64, height: 64, steps: 1 };
const nodes = (folder = TINY): FlowNode[] => [
  model('model', folder),
  encode('encode', 'a sofa', 'sampler'),
  sampler('sampler', 'decode', small),
  { id: 'decode', type: 'vae-decode', model: 'model', wires: [['save']] },
  { id: 'save', type: 'save-image', save: false, wires: [['out']] },
];

const sleep = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** The checkpoint that nodes use. */
async function checkpointOf(folder = TINY): Promise<Checkpoint> {
  const lease = acquireCheckpoint(folder, { provider: 'cpu', threads: 1 });
  const checkpoint = await lease.get();
  lease.release();
  return checkpoint;
}

/** Runs the work while starting a process runs something else. */
async function startingInstead<T>(program: string, work: () => Promise<T>): Promise<T> {
  const { execPath } = process;
  process.execPath = program;
  try {
    return await work();
  } finally {
    process.execPath = execPath;
  }
}

describe('trouble', function () {
  this.timeout(180_000);
  afterEach(stopFlow);
  afterEach(closeModels);

  it('the inference process killed at random during 200 jobs: every one ends once, and the process is back', async () => {
    const flow = await startFlow(nodes(), { multidiffusion: { queueLimit: 1000 } });
    await flow.ok('encode', {});
    const names = Array.from({ length: 200 }, (_, i) => `job ${i}`);
    const ends = new Map<string, string[]>();
    const told = new Map<string, string[]>();
    const note = (ends: Map<string, string[]>, job: string, end: string): void =>
      void ends.set(job, [...(ends.get(job) ?? []), end]);
    getNode('out').on('input', (msg: Any) => note(ends, msg.job, 'done'));
    getNode('caught').on('input', (msg: Any) => note(ends, msg.job, msg.error.code));
    getNode('progress').on(
      'input',
      ({ payload }: Any) => /done|failed|cancelled/.test(payload.event) && note(told, payload.job, payload.event),
    );
    for (const job of names) flow.send('encode', { job, steps: 8 });
    const checkpoint = await checkpointOf();
    const killed = new Set<number>();
    const kill = async (): Promise<void> => {
      while (!checkpoint.pid || killed.has(checkpoint.pid)) await sleep(2);
      await sleep(Math.random() * 100);
      const { pid } = checkpoint;
      if (!pid) return;
      killed.add(pid);
      process.kill(pid, 'SIGKILL');
    };
    for (let next = 5; ends.size < names.length; await sleep(2)) {
      if (ends.size < next || next > 190) continue;
      next = ends.size + 5 + Math.random() * 15;
      await kill();
      if (Math.random() < 0.3) await kill(); // hardly begun
    }
    for (const id of ['out', 'caught']) flow.all(id).length = 0;
    const last = await flow.ok('encode', { job: 'last' });
    assert.equal(last.job, 'last');
    assert.ok(checkpoint.pid && !killed.has(checkpoint.pid));
    assert.ok(killed.size > 5, `${killed.size} kills`);
    for (const job of names) {
      const [end, ...more] = ends.get(job)!;
      assert.deepEqual(more, [], job);
      assert.match(end, /^(done|PROCESS_DIED)$/);
      assert.ok(told.get(job)!.length === 1, `${job}: ${told.get(job)!.join()}`);
    }
    const done = [...ends.values()].filter(([end]) => end === 'done').length;
    assert.ok(done > 150, `${done} done, ${killed.size} kills`);
  });

  it('the inference process dies whenever it is started: an error that says so; once it starts, all is well', async () => {
    const flow = await startFlow(nodes());
    await startingInstead('/bin/false', async () => {
      const error = await flow.fails('encode', {});
      assert.equal(error.code, 'PROCESS_DIED');
      assert.match(error.message, /ended twice while it started \(exit code 1\)/);
    });
    await startingInstead('/no/such/program', async () => {
      const error = await flow.fails('encode', {});
      assert.equal(error.code, 'PROCESS_DIED');
      assert.match(error.message, /could not be started.*ENOENT/);
    });
    await flow.ok('encode', {});
  });

  it('work that never ends: its node closes all the same, before Node-RED gives up on it', async () => {
    const flow = await startFlow(nodes());
    await flow.ok('encode', {});
    const checkpoint = (await checkpointOf()) as Any;
    const { decode } = checkpoint;
    const errors: string[] = [];
    try {
      const stuck = new Promise((resolve) => (checkpoint.decode = () => new Promise(() => resolve(undefined))));
      flow.send('encode', {});
      await stuck;
      getNode('decode').on('call:error', (call: Any) => errors.push(String(call.firstArg)));
      await deploy(flow, nodes());
    } finally {
      checkpoint.decode = decode;
    }
    // Catch hears of it, so that whoever asked is answered; nothing else is wrong.
    assert.ok(
      errors.every((error) => error === 'The node was removed or redeployed.'),
      errors.join(),
    );
    await flow.ok('encode', {});
  });

  it('numbers that are none, into the model or out of it: an error with a code', async () => {
    const flow = await startFlow(nodes());
    const { conditioning, latents } = await flow.ok('encode', {});
    const nan = (tensor: Any): Any => Tensor.float32(new Float32Array(tensor.size).fill(NaN), [...tensor.dims]);
    const unet = await flow.fails('sampler', {
      conditioning: { ...conditioning, embeddings: nan(conditioning.embeddings) },
    });
    assert.equal(unet.code, 'INFERENCE');
    assert.match(unet.message, /step 1 of 1 is not finite/);
    const decoder = await flow.fails('decode', { latents: nan(latents) });
    assert.equal(decoder.code, 'INFERENCE');
    assert.match(decoder.message, /vaeDecoder gave values that are no numbers/);
    const narrow = Tensor.float32(new Float32Array(77 * 3), [1, 77, 3]);
    const wrong = await flow.fails('sampler', {
      conditioning: { ...conditioning, embeddings: narrow, negativeEmbeddings: narrow },
    });
    assert.match(wrong.code, /^(INFERENCE|INVALID_INPUT)$/, wrong.message);
    await flow.ok('encode', {});
  });

  it('a model file changed underneath: an error that names it, or the new model', async () => {
    const folder = path.join(temporaryDirectory(), 'model');
    fs.cpSync(TINY, folder, { recursive: true });
    const flow = await startFlow(nodes(folder));
    await flow.ok('encode', {});
    const before = await checkpointOf(folder);
    fs.writeFileSync(path.join(folder, 'vae_decoder/model.onnx'), 'half a copy');
    const error = await flow.fails('encode', {});
    assert.equal(error.code, 'CHECKPOINT');
    assert.match(error.message, /vae_decoder/);
    fs.rmSync(folder, { recursive: true });
    fs.cpSync(TINY_LCM, folder, { recursive: true });
    await flow.ok('encode', {});
    assert.notEqual(await checkpointOf(folder), before);
  });

  it('a model file changed between opening and loading: an error that names it', async () => {
    const folder = path.join(temporaryDirectory(), 'model');
    fs.cpSync(TINY, folder, { recursive: true });
    const checkpoint = await openCheckpoint(folder, { provider: 'cpu', threads: 1 });
    try {
      const [{ embeddings }] = await checkpoint.encodePrompts(['a sofa']);
      assert.equal(await checkpoint.hasChanged(), false);
      fs.appendFileSync(path.join(folder, 'unet/model.onnx'), 'more');
      assert.equal(await checkpoint.hasChanged(), true);
      await assert.rejects(checkpoint.predict([{ latents: torchNoise(1, [1, 4, 8, 8]), embeddings }], 500), {
        code: 'CHECKPOINT',
        message: /unet.*has been changed/,
      });
    } finally {
      await checkpoint.close();
    }
  });

  describe('a file that cannot be written', () => {
    const image = Tensor.uint8(new Uint8Array(8 * 6 * 3), [6, 8, 3]);
    const failure = (code: string): Error => Object.assign(new Error(`${code}: secret /server/path`), { code });
    const original = { ...fsPromises };
    afterEach(() => void Object.assign(fsPromises, original));

    const broken: Array<[string, string, () => void, RegExp]> = [
      ['a full disk', 'ENOSPC', () => (fsPromises.writeFile = halfWritten('ENOSPC')), /the disk is full/],
      ['a used-up quota', 'EDQUOT', () => (fsPromises.writeFile = halfWritten('EDQUOT')), /quota/],
      ['a file too large for its system', 'EFBIG', () => (fsPromises.writeFile = halfWritten('EFBIG')), /too large/],
      [
        'a read-only folder',
        'EROFS',
        () => (fsPromises.writeFile = () => Promise.reject(failure('EROFS'))),
        /read-only/,
      ],
      [
        'a folder without permission',
        'EACCES',
        () => (fsPromises.mkdir = () => Promise.reject<undefined>(failure('EACCES'))),
        /no permission/,
      ],
      ['a broken disk', 'EIO', () => (fsPromises.link = () => Promise.reject(failure('EIO'))), /EIO/],
      [
        'too many open files',
        'EMFILE',
        () => (fsPromises.writeFile = () => Promise.reject(failure('EMFILE'))),
        /EMFILE/,
      ],
    ];
    for (const [what, code, breakIt, says] of broken) {
      it(`${what}: code FILE, no path of the server, nothing half-written, and the next message works`, async () => {
        const imageDirectory = path.join(temporaryDirectory(), 'images');
        const flow = await startFlow(
          [{ id: 'save', type: 'save-image', filename: 'a/picture', save: true, wires: [['out']] }],
          { multidiffusion: { imageDirectory } },
        );
        breakIt();
        const error = await flow.fails('save', { image });
        Object.assign(fsPromises, original);
        assert.equal(error.code, 'FILE', code);
        assert.match(error.message, says);
        assert.ok(!error.message.includes(imageDirectory) && !error.message.includes('/server/path'), error.message);
        assert.deepEqual(filesBelow(imageDirectory), []);
        await flow.ok('save', { image });
        assert.deepEqual(filesBelow(imageDirectory), ['picture.png']);
      });
    }

    // Node's own mkdir with `recursive` would try without end.
    if (process.platform === 'linux')
      it('an image directory that the system lets nobody make: code FILE, at once', async () => {
        const flow = await startFlow(
          [{ id: 'save', type: 'save-image', filename: 'picture', save: true, wires: [['out']] }],
          { multidiffusion: { imageDirectory: '/proc/nope/at/all' } },
        );
        const error = await flow.fails('save', { image });
        assert.equal(error.code, 'FILE');
        assert.match(error.message, /can't be used: it is not there, and the system does not let it be made\.$/);
      });

    /** Writes some of it, as a disk does that fills up. */
    function halfWritten(code: string): typeof fsPromises.writeFile {
      return async (file, data) => {
        await original.writeFile(file, (data as Buffer).subarray(0, 20));
        throw failure(code);
      };
    }
  });
});

function filesBelow(folder: string): string[] {
  if (!fs.existsSync(folder)) return [];
  return fs
    .readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map(({ name }) => name);
}
