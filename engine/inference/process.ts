/**
 * The inference process: a child of Node-RED's process that alone loads ONNX Runtime and the tokenizer.
 * A run blocks its thread, may crash, and keeps memory until its process ends; here none of that touches
 * Node-RED. Started by client.ts; speaks protocol.ts.
 */
import os from 'node:os';
import { CancelledError, MultiDiffusionError, type ErrorCode } from '../errors';
import { PromptTokenizer } from '../checkpoint/tokenizer';
import { isOutOfMemory } from './batching';
import { BatchMemory, decode, encodeImages, encodeText, predict, type TileMemory } from './components';
import { chooseProvider, type ChosenProvider } from './providers';
import type { CallName, Calls, FromProcess, ProcessSetup, ToProcess, WireTensor } from './protocol';
import { Sessions, type Request } from './sessions';

/** Node-RED answers first: inference yields to it on a busy machine. */
const NICENESS = 5;
/** Least overlap of decoder tiles, in latent cells. */
const TILE_OVERLAP = 16;

type Handlers = { [N in CallName]: (params: Calls[N]['params'], request: Request) => Promise<Calls[N]['result']> };

/** What the process knows after `open`. */
class Model {
  private readonly sessions: Sessions;
  private readonly batches: BatchMemory;
  private readonly tiles: TileMemory = {};
  private tokenizer?: PromptTokenizer;

  constructor(
    private readonly setup: ProcessSetup,
    readonly provider: ChosenProvider,
  ) {
    this.sessions = new Sessions(setup, provider.sessionOptions, (component, done) => send({ type: 'loading', component, done }));
    this.batches = new BatchMemory({
      gpu: provider.name === 'cuda',
      unetBytes: setup.unetBytes,
      batchSize: setup.batchSize,
      budget: provider.memory,
      onWarming: (done) => send({ type: 'warming', component: 'unet', done }),
    });
  }

  /**
   * Loads the tokenizer and all models. On a GPU the UNet and the decoder are run once at the native size, because it looks
   * for its fastest algorithms meanwhile; a CPU gains nothing by it.
   */
  async load(request: Request): Promise<void> {
    const [{ embeddings }] = await this.encodePrompts(request, ['']);
    for (const component of ['unet', 'vaeDecoder', 'vaeEncoder'] as const) {
      if (!this.setup.components[component]) continue;
      if (request.cancelled) throw new CancelledError();
      await this.sessions.get(component);
    }
    if (this.provider.name !== 'cuda') return;
    const { latentChannels, nativeSize } = this.setup;
    const dims = [1, latentChannels, nativeSize, nativeSize];
    const latents = new Float32Array(latentChannels * nativeSize * nativeSize);
    await predict(await this.sessions.get('unet'), request, { latents, dims, timestep: 1, embeddings: [embeddings] }, this.batches);
    await this.decode(request, { latents, dims });
  }

  async encodePrompts(request: Request, prompts: string[]): Promise<Calls['encodePrompts']['result']> {
    this.tokenizer ??= new PromptTokenizer(this.setup.tokenizerFolder, this.setup.maxTokens);
    const tokens = prompts.map((prompt) => (this.tokenizer as PromptTokenizer).tokenize(prompt));
    const session = await this.sessions.get('textEncoder');
    const embeddings = await encodeText(session, request, tokens.map(({ ids }) => ids));
    return tokens.map(({ ids, truncated }, i) => ({ embeddings: embeddings[i], tokenIds: ids, truncated }));
  }

  async predict(request: Request, params: Calls['predict']['params']): Promise<Float32Array> {
    const embeddings = params.embeddings.map((key) => {
      const tensor = held.get(key);
      if (!tensor) throw new MultiDiffusionError('INFERENCE', `The inference process does not hold the embeddings ${key}.`);
      return tensor;
    });
    return predict(await this.sessions.get('unet'), request, { ...params, ...expand(params), embeddings }, this.batches);
  }

  async decode(request: Request, params: Calls['decode']['params']): Promise<Calls['decode']['result']> {
    const { scalingFactor, shiftFactor, defaultTileSize } = this.setup;
    const latents = params.latents.map((value) => value / scalingFactor + shiftFactor);
    const { data, dims } = await decode(await this.sessions.get('vaeDecoder'), request, latents, params.dims, {
      tileSize: params.tileSize ?? defaultTileSize,
      overlap: params.overlap ?? TILE_OVERLAP,
      circular: params.circular,
    }, this.tiles);
    return { pixels: data, dims };
  }

  async encodeImages(request: Request, params: Calls['encodeImages']['params']): Promise<Calls['encodeImages']['result']> {
    const { scalingFactor, shiftFactor, latentChannels } = this.setup;
    const { data, dims } = await encodeImages(await this.sessions.get('vaeEncoder'), request, params.pixels, params.dims, latentChannels);
    return { latents: data.map((value) => (value - shiftFactor) * scalingFactor), dims };
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
const requests = new Map<number, Request>();
let model: Model | undefined;

const handlers: Handlers = {
  async open({ setup }) {
    model ??= new Model(setup, await chooseProvider(setup));
    return { provider: model.provider.description };
  },
  load: (_, request) => opened().load(request),
  encodePrompts: ({ prompts }, request) => opened().encodePrompts(request, prompts),
  predict: async (params, request) => ({ outputs: await opened().predict(request, params), runMilliseconds: request.runMilliseconds }),
  decode: (params, request) => opened().decode(request, params),
  encodeImages: (params, request) => opened().encodeImages(request, params),
};

function opened(): Model {
  if (!model) throw new MultiDiffusionError('INFERENCE', 'The inference process has not been given a checkpoint yet.');
  return model;
}

async function answer(message: { type: CallName; id: number }): Promise<void> {
  const request: Request = { cancelled: false, runMilliseconds: 0 };
  requests.set(message.id, request);
  try {
    const handler = handlers[message.type] as (params: unknown, request: Request) => Promise<unknown>;
    send({ type: 'result', id: message.id, result: await handler(message, request) });
  } catch (error) {
    const code: ErrorCode = error instanceof MultiDiffusionError ? error.code : 'INFERENCE';
    const { message: reason } = error as Error;
    const text = error instanceof MultiDiffusionError || !isOutOfMemory(error) ? reason : `Memory does not suffice (${reason}). Use smaller pictures, or a smaller model.`;
    send({ type: 'error', id: message.id, code, message: text });
  } finally {
    requests.delete(message.id);
  }
}

function send(message: FromProcess): void {
  if (process.connected) process.send?.(message);
}

function receive(message: ToProcess): void {
  switch (message.type) {
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
