/**
 * The inference process: a child of Node-RED's process that alone loads ONNX Runtime and the tokenizer.
 * A run blocks its thread, may crash, and keeps memory until its process ends; here none of that touches
 * Node-RED. Started by client.ts; speaks protocol.ts.
 */
import os from 'node:os';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { CancelledError, MultiDiffusionError, type ErrorCode } from '../../errors';
import { isOutOfMemory } from '../memory';
import { cutPixels, Pieces } from '../pieces';
import { PROVIDERS } from '../providers';
import { BatchMemory } from './batching';
import { predict } from './denoiser';
import { chooseProviders, type ChosenProvider } from './choose-provider';
import type { CallName, Calls, FromProcess, ProcessSetup, ToProcess, WireTensor } from '../protocol';
import { Sessions, type Request } from './sessions';
import { arrange, encodeTokens, type EncoderResult } from './text';
import { sessionOptions } from './probe';
import { loadTokenizer, type PromptTokenizer } from './tokenizer';
import { judge, type Verdict } from './trust';
import { decode, encodeImages, fromVae, toVae, type TileMemory } from './vae';

/** Node-RED answers first: inference yields to it on a busy machine. */
const NICENESS = 5;
/** Exit code. */
const DEVICE_LOST = 70;
/** Least overlap of decoder tiles, in latent cells. */
const TILE_OVERLAP = 16;

/** A timestep at which a denoiser's output depends on all of its inputs. */
const MIDDLE = 500;
/** Side in latent cells of the latents by which a provider is judged. */
const COMPARED_SIDE = 32;
const CPU = { name: 'cpu', description: 'cpu', key: 'cpu' } as const;

type Encoded = Calls['encodePrompts']['result'][number];
type Answers = { [N in CallName]: (params: Calls[N]['params'], request: Request) => Promise<Calls[N]['result']> };

/** What the process knows after `open`; it answers all other calls by methods of their names. */
class Model implements Omit<Answers, 'open'> {
  private readonly sessions: Sessions;
  private readonly batches: BatchMemory;
  private readonly tiles: TileMemory = {};
  private readonly tokenizers = new Map<string, PromptTokenizer>();
  private readonly denoiser: 'unet' | 'transformer';

  constructor(
    private readonly setup: ProcessSetup,
    readonly provider: ChosenProvider,
  ) {
    this.denoiser = setup.denoiser ?? 'unet';
    this.sessions = new Sessions(
      setup,
      provider.sessionOptions,
      (component, done) => send({ type: 'loading', component, done }),
      provider.memory,
      reportProgress,
    );
    this.batches = new BatchMemory({
      gpu: provider.name !== 'cpu',
      unetBytes: setup.unetBytes,
      batchSize: setup.batchSize,
      budget: provider.memory,
      onWarming: (done) => send({ type: 'warming', component: this.denoiser, done }),
    });
  }

  /**
   * Loads the tokenizers and all models. On a GPU the denoiser and the decoder are run once at the native size, because it looks
   * for its fastest algorithms meanwhile; a CPU gains nothing by it.
   */
  async load(_: unknown, request: Request): Promise<void> {
    const [conditioning] = await this.encodePrompts({ prompts: [''] }, request);
    for (const component of ['vaeEncoder', 'vaeDecoder', this.denoiser] as const) {
      if (!this.setup.components[component]) continue;
      if (request.cancelled) throw new CancelledError();
      await this.sessions.get(component);
    }
    if (this.provider.name === 'cpu') return;
    const { latentChannels, nativeSize } = this.setup;
    await this.predictOne(request, nativeSize, conditioning);
    const latents = new Float32Array(latentChannels * nativeSize * nativeSize);
    await this.decode({ latents, dims: [1, latentChannels, nativeSize, nativeSize] }, request);
  }

  /** One row of the denoiser, for latents that are the same on every machine. @param side in latent cells */
  private async predictOne(request: Request, side: number, { embeddings, pooled }: Encoded): Promise<Float32Array> {
    const { latentChannels, latentFactor } = this.setup;
    const pixels = side * latentFactor;
    return predict(
      await this.sessions.get(this.denoiser),
      request,
      {
        latents: Float32Array.from({ length: latentChannels * side * side }, (_, i) => 1.5 * Math.sin(1.7 * i)),
        dims: [1, latentChannels, side, side],
        timestep: MIDDLE,
        embeddings: [embeddings],
        ...(pooled && { pooled: [pooled] }),
        timeIds: [[pixels, pixels, 0, 0, pixels, pixels]],
      },
      this.batches,
    );
  }

  /** Whether this model's numbers on the provider are the CPU's; see trust.ts. */
  async judge(request: Request): Promise<Verdict> {
    const { stamps, unetBytes, nativeSize } = this.setup;
    const side = Math.min(nativeSize, COMPARED_SIDE);
    const encoded = (): Promise<Encoded> =>
      (first ??= this.encodePrompts({ prompts: [''] }, request).then(([each]) => each));
    let first: Promise<Encoded> | undefined;
    const options = sessionOptions('cpu', 0, this.setup.threads);
    return judge({
      key: [this.provider.key, stamps ?? Math.random(), this.setup.components],
      bytes: unetBytes,
      onDevice: async () => this.predictOne(request, side, await encoded()),
      onCpu: async () => {
        const cpu = new Model(this.setup, { ...CPU, sessionOptions: options });
        try {
          return await cpu.predictOne(request, side, await encoded());
        } finally {
          await (await cpu.sessions.get(cpu.denoiser)).giveBack();
        }
      },
    });
  }

  async encodePrompts(
    { prompts }: Calls['encodePrompts']['params'],
    request: Request,
  ): Promise<Calls['encodePrompts']['result']> {
    const { textEncoders } = this.setup;
    const results: EncoderResult[][] = prompts.map(() => []);
    let read: ReturnType<PromptTokenizer['tokenize']>[] = [];
    // One encoder after the other, so that a small memory need hold only one of them.
    for (const encoder of textEncoders) {
      const tokenizer = this.tokenizers.get(encoder.tokenizerFolder) ?? loadTokenizer(encoder);
      this.tokenizers.set(encoder.tokenizerFolder, tokenizer);
      const tokens = prompts.map((prompt) => tokenizer.tokenize(prompt));
      const session = await this.sessions.get(encoder.component);
      const ids = tokens.map((each) => each.ids);
      (await encodeTokens(session, request, encoder, ids)).forEach((result, i) => results[i].push(result));
      if (read.length === 0 || ids[0]?.length > read[0]?.ids.length) read = tokens;
    }
    return read.map(({ ids, truncated }, i) => ({
      ...arrange(results[i], { ...this.setup, encoders: textEncoders }),
      tokenIds: ids,
      truncated,
    }));
  }

  async predict(params: Calls['predict']['params'], request: Request): Promise<Calls['predict']['result']> {
    const { pooled, ...rest } = params;
    const outputs = await predict(
      await this.sessions.get(this.denoiser),
      request,
      {
        ...rest,
        ...expand(params),
        embeddings: params.embeddings.map(heldTensor),
        ...(pooled && { pooled: pooled.map(heldTensor) }),
      },
      this.batches,
    );
    return { outputs, runMilliseconds: request.runMilliseconds };
  }

  async decode(params: Calls['decode']['params'], request: Request): Promise<Calls['decode']['result']> {
    const { defaultTileSize } = this.setup;
    const latents = toVae(params.latents, params.dims[1], this.setup);
    const { data, dims } = await decode(
      await this.sessions.get('vaeDecoder'),
      request,
      latents,
      params.dims,
      {
        tileSize: params.tileSize ?? defaultTileSize,
        overlap: params.overlap ?? TILE_OVERLAP,
        circular: params.circular,
      },
      this.tiles,
    );
    return { pixels: data, dims };
  }

  async encodeImages(
    params: Calls['encodeImages']['params'],
    request: Request,
  ): Promise<Calls['encodeImages']['result']> {
    const { latentChannels } = this.setup;
    const { data, dims } = await encodeImages(
      await this.sessions.get('vaeEncoder'),
      request,
      params.pixels,
      params.dims,
      latentChannels,
    );
    return { latents: fromVae(data, dims, this.setup), dims };
  }
}

/** Inputs, repeated for all the rows that see them. */
function expand({ latents, dims, inputOf }: Calls['predict']['params']): { latents: Float32Array; dims: number[] } {
  if (!inputOf) return { latents, dims };
  const size = latents.length / dims[0];
  const rows = new Float32Array(inputOf.length * size);
  inputOf.forEach((input, row) => rows.set(latents.subarray(input * size, (input + 1) * size), row * size));
  return { latents: rows, dims: [inputOf.length, ...dims.slice(1)] };
}

const held = new Map<string, WireTensor>();

function heldTensor(key: string): WireTensor {
  const tensor = held.get(key);
  if (!tensor) throw new MultiDiffusionError('INFERENCE', `The inference process does not hold the embeddings ${key}.`);
  return tensor;
}

const requests = new Map<number, Request>();
const pieces = new Pieces();
let model: Model | undefined;

/** The model on the best provider that gives right numbers for it. */
async function openModel(setup: ProcessSetup): Promise<Model> {
  const providers = chooseProviders(setup);
  for (let fault: string | undefined; ; ) {
    const { value: provider, done } = await providers.next(fault);
    const candidate = new Model(setup, provider);
    if (done) return candidate;
    const verdict = await candidate.judge({ cancelled: false, runMilliseconds: 0 }).catch((error: Error): Verdict => {
      // A model that can't be loaded says so when it is needed, whatever it runs on.
      if (setup.provider !== 'auto') throw error;
      return { fault: error.message };
    });
    if (!verdict.fault) {
      if (verdict.skipped) provider.description += ` (${verdict.skipped})`;
      return candidate;
    }
    ({ fault } = verdict);
  }
}

async function open({ setup }: Calls['open']['params']): Promise<Calls['open']['result']> {
  model ??= await openModel(setup);
  return { provider: model.provider.description };
}

function opened(): Model {
  if (!model) throw new MultiDiffusionError('INFERENCE', 'The inference process has not been given a checkpoint yet.');
  return model;
}

async function answer(message: { type: CallName; id: number }): Promise<void> {
  const request: Request = { cancelled: false, runMilliseconds: 0 };
  requests.set(message.id, request);
  try {
    const target = message.type === 'open' ? undefined : opened();
    const act = (target ? target[message.type as keyof Model] : open) as (params: unknown, request: Request) => unknown;
    sendResult(message.id, await act.call(target, pieces.join(message.id, message), request));
  } catch (error) {
    const code: ErrorCode = error instanceof MultiDiffusionError ? error.code : 'INFERENCE';
    const { message: reason } = error as Error;
    endIfLost(reason);
    const text =
      error instanceof MultiDiffusionError || !isOutOfMemory(error)
        ? reason
        : `Not enough memory (${reason}). Use smaller pictures, or a smaller model.`;
    send({ type: 'error', id: message.id, code, message: text });
  } finally {
    requests.delete(message.id);
  }
}

/** A request may take many runs: the client hears of them, though not of each. */
const PROGRESS_INTERVAL = 1000;
let reported = 0;

function reportProgress(): void {
  const now = performance.now();
  if (now - reported < PROGRESS_INTERVAL) return;
  reported = now;
  send({ type: 'progress' });
}

/** After this, only a new process can use the device, or finds another one; the client asks it again. */
function endIfLost(reason: string): void {
  const { label = '', lost } = model ? PROVIDERS[model.provider.name] : {};
  if (!lost?.test(reason)) return;
  process.stderr.write(`The ${label} device was lost: ${reason}\n`, () => process.exit(DEVICE_LOST));
}

function sendResult(id: number, result: unknown): void {
  const cut = typeof result === 'object' && result !== null ? cutPixels(id, result) : { pieces: [], rest: result };
  cut.pieces.forEach(send);
  send({ type: 'result', id, result: cut.rest });
}

function send(message: FromProcess): void {
  if (process.connected) process.send?.(message);
}

function receive(message: ToProcess): void {
  switch (message.type) {
    case 'piece':
      pieces.take(message);
      break;
    case 'hold':
      held.set(message.key, message.tensor);
      break;
    case 'drop':
      held.delete(message.key);
      break;
    case 'cancel': {
      const request = requests.get(message.id);
      if (request) request.cancelled = true;
      break;
    }
    default:
      void answer(message);
  }
}

// Set before any thread is made, so that ONNX Runtime's threads inherit it.
try {
  os.setPriority(NICENESS);
} catch {
  // Not allowed on this system: it runs at normal priority.
}
// Ctrl-C and a service manager's stop reach the whole process group. The parent decides when inference
// ends; if it is gone, so is the channel, even when it was killed.
process.on('SIGINT', () => undefined);
process.on('SIGTERM', () => undefined);
process.on('disconnect', () => process.exit());
process.on('message', receive);
new Worker(path.join(__dirname, 'pulse.js'));
