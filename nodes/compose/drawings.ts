/** Draw in compose's dialog: what stands in it is drawn before it is deployed, with the flow's model and queue. */
import { randomInt, randomUUID } from 'node:crypto';
import type { Node, NodeAPI } from 'node-red';
import type { Checkpoint } from '../../engine/checkpoint/checkpoint';
import { CancelledError, InvalidInputError, MissingInputError, MultiDiffusionError } from '../../engine/errors';
import type { Recipe } from '../../engine/image/recipe';
import { encodeImage } from '../../engine/image/encode';
import { latentColours, previewImage } from '../../engine/multidiffusion/colours';
import type { SampleRequest } from '../../engine/multidiffusion/plan';
import { RANDOM_SEED, resolveOptions, SAMPLER_OPTIONS } from '../../engine/options';
import type { Tensor } from '../../engine/tensor';
import { modelSource } from '../shared/checkpoints';
import { announceJob, keepPicture, offerCancel } from '../shared/gallery';
import { conditioningFindings } from '../shared/node-findings';
import { encodeRegions, readMessageLayout, type Layout } from '../shared/message-layout';
import { isObject, own, pick } from '../shared/message';
import { CheckpointUse } from '../../engine/checkpoint/pool';
import type { ModelNode } from '../shared/model';
import { recipeOf } from '../shared/write-recipe';
import { addMasks } from '../shared/regions';
import { onlyJson } from '../shared/admin';
import { checkLimit, readSettings, type Settings } from '../shared/settings';

/** What the dialog is told when it asks. */
interface News {
  state: 'loading' | 'queued' | 'drawing' | 'done' | 'failed' | 'cancelled';
  /** Jobs before it. */
  position?: number;
  /** Model evaluations done, of how many, and how many of them in a second. */
  index?: number;
  total?: number;
  rate?: number;
  /** What the picture begins to look like, or the picture, as a data URI; left out where the dialog has it already. */
  picture?: string;
  /** Counts the pictures. */
  version: number;
  seed?: number;
  findings?: string[];
  message?: string;
}

interface Drawing {
  now: News;
  cancel: AbortController;
  /** Ends it when its dialog asks no longer. */
  watchdog: NodeJS.Timeout;
}

const drawings = new Map<string, Drawing>();

/** A dialog asks several times a second. */
const FORGOTTEN = 30_000;
const MOST_DRAWINGS = 32;
/** Milliseconds between two previews. */
const PREVIEW_INTERVAL = 150;

/** Adds the routes; whoever may press an inject's button may draw, for a flow would do the same. */
export function offerDrawings(RED: NodeAPI): void {
  if (typeof RED.httpAdmin?.post !== 'function') return; // there is no editor
  const mayInject = RED.auth.needsPermission('inject.write');

  RED.httpAdmin.post('/multidiffusion/drawings', mayInject, onlyJson, (request, response) => {
    if (drawings.size >= MOST_DRAWINGS)
      return void response.status(429).json({ message: `${MOST_DRAWINGS} pictures are being drawn already.` });
    const id = randomUUID();
    const drawing: Drawing = {
      now: { state: 'loading', version: 0 },
      cancel: new AbortController(),
      watchdog: setTimeout(() => forget(id), FORGOTTEN).unref(),
    };
    drawings.set(id, drawing);
    const body: unknown = request.body;
    void run(RED, id, drawing, isObject(body) ? body : {}, `editor ${request.ip ?? ''}`);
    response.json({ drawing: id });
  });

  RED.httpAdmin.get('/multidiffusion/drawings/:id', mayInject, (request, response) => {
    const drawing = drawings.get(request.params.id as string);
    if (!drawing) return void response.status(404).end();
    drawing.watchdog.refresh();
    const seen = Number(request.query.seen) === drawing.now.version;
    response.json(seen ? { ...drawing.now, picture: undefined } : drawing.now);
  });

  RED.httpAdmin.delete('/multidiffusion/drawings/:id', mayInject, (request, response) => {
    forget(request.params.id as string);
    response.status(204).end();
  });
}

function forget(id: string): void {
  const drawing = drawings.get(id);
  drawings.delete(id);
  clearTimeout(drawing?.watchdog);
  drawing?.cancel.abort(new CancelledError('The drawing was cancelled in the dialog.'));
}

async function run(
  RED: NodeAPI,
  id: string,
  drawing: Drawing,
  body: Record<string, unknown>,
  client: string,
): Promise<void> {
  const { signal } = drawing.cancel;
  // The node may not be deployed yet: the editor knows it by its id.
  const place = { id: typeof body.node === 'string' ? body.node.slice(0, 100) : '' } as Node;
  const show = (news: Partial<News>): void => {
    const version = drawing.now.version + (news.picture === undefined ? 0 : 1);
    drawing.now = { ...drawing.now, ...news, version };
  };
  const tell = (event: string, facts: Record<string, unknown> = {}): void => {
    announceJob(RED, place, { job: id, event, ...facts });
    offerCancel(place, id, () => drawing.cancel.abort(new CancelledError('The drawing was cancelled in the panel.')));
  };
  let release = (): void => {};
  try {
    const settings = readSettings(RED);
    const layout = await readMessageLayout(body.layout, settings);
    if (!layout) throw new InvalidInputError('layout', body.layout, 'a layout {prompt, regions}');
    const { use, done } = findModel(RED, body);
    release = done;
    const checkpoint = await use.get();
    signal.throwIfAborted();
    await draw(checkpoint, layout, body.sampler, settings, {
      id,
      client,
      signal,
      show,
      tell,
      keep: (image, recipe) => {
        keepPicture(RED, place, { pixels: image }, image.dims, { job: id, generation: recipe } as never);
      },
    });
  } catch (error) {
    const cancelled = signal.aborted || error instanceof CancelledError;
    const known = error instanceof MultiDiffusionError;
    const message = known ? error.message : `The picture could not be drawn: ${(error as Error).message}`;
    show(cancelled ? { state: 'cancelled' } : { state: 'failed', message });
    tell(cancelled ? 'cancelled' : 'failed', cancelled ? {} : { error: message, code: known ? error.code : undefined });
  } finally {
    release();
  }
}

/** What a drawing's work needs besides its layout. */
interface Surroundings {
  id: string;
  client: string;
  signal: AbortSignal;
  show: (news: Partial<News>) => void;
  tell: (event: string, facts?: Record<string, unknown>) => void;
  /** Puts the picture into the panel. */
  keep: (image: Tensor, recipe: Recipe) => void;
}

async function draw(
  checkpoint: Checkpoint,
  layout: Layout,
  sampler: unknown,
  settings: Settings,
  { id, client, signal, show, tell, keep }: Surroundings,
): Promise<void> {
  const { sample } = await import('../../engine/multidiffusion/sample');
  const options = readOptions(checkpoint, layout, sampler, settings);
  const background = await checkpoint.encodeConditioning(layout.prompt, layout.negativePrompt, { signal });
  const regions = await addMasks(await encodeRegions(checkpoint, layout, signal), settings);
  const { queue } = checkpoint;
  const showPlace = (): void => {
    const position = queue.position(id);
    if (position > 0) show({ state: 'queued', position });
  };
  let started = 0;
  const job = queue.add(
    async ({ signal: stop }) => {
      started = performance.now();
      show({ state: 'drawing', index: 0 });
      tell('started');
      const onStep = stepper(checkpoint, started, stop, show, tell);
      return sample(checkpoint, { background, regions, options, signal: stop, onStep });
    },
    { id, client, signal, timeout: settings.jobTimeout },
  );
  tell('queued', { position: Math.max(0, queue.position(id)), depth: queue.depth });
  showPlace();
  queue.on('depth', showPlace);
  const result = await job.result.finally(() => queue.off('depth', showPlace));
  const image = await checkpoint.decode(result.latents, { circular: options.circular, signal });
  const recipe = await recipeOf(checkpoint.facts, background, regions, options, result, {
    stepMode: 'built-in',
    startedFromImage: false,
  });
  const png = await encodeImage(image, { format: 'png', quality: 90, recipe });
  const findings = [
    ...[background, ...regions.map(({ conditioning }) => conditioning)].flatMap(conditioningFindings),
    ...result.findings.filter(({ code }) => code !== 'TRUNCATED_PROMPT' && code !== 'UNKNOWN_WORDS'),
  ].map(({ message }) => message);
  const picture = `data:image/png;base64,${png.toString('base64')}`;
  show({ state: 'done', picture, seed: result.seed, findings });
  keep(image, recipe);
  tell('done', { seed: result.seed, timings: result.timings });
}

/** What a step shows, and now and then the picture as the model predictedOriginals it. */
function stepper(
  checkpoint: Checkpoint,
  started: number,
  signal: AbortSignal,
  show: Surroundings['show'],
  tell: Surroundings['tell'],
): NonNullable<SampleRequest['onStep']> {
  let shown = 0;
  return async ({ index, total, predictedOriginal }) => {
    const now = performance.now();
    const rate = Number(((index * 1000) / Math.max(1, now - started)).toPrecision(2));
    show({ index, total, rate });
    if (index < total && now - shown < PREVIEW_INTERVAL) return;
    shown = now;
    tell('step', { index, total, rate });
    const colours = await latentColours(checkpoint, { signal });
    if (!colours || index === total) return;
    const png = await encodeImage(previewImage(colours, predictedOriginal()), { format: 'png', quality: 90 });
    show({ picture: `data:image/png;base64,${png.toString('base64')}` });
  };
}

/** The layout's options, else the sampler's in the flow; a seed that neither has is drawn at random. */
function readOptions(checkpoint: Checkpoint, layout: Layout, sampler: unknown, settings: Settings) {
  const names = Object.keys(SAMPLER_OPTIONS);
  const resolved = resolveOptions(SAMPLER_OPTIONS, pick(layout.options, names), pick(sampler, names));
  const random = Number(own(layout.options, 'seed')) === RANDOM_SEED;
  const seed = (random ? undefined : resolved.seed) ?? randomInt(2 ** 32);
  const options = { ...resolved, previewEvery: 0, seed };
  checkLimit(settings, 'maxSteps', options.steps, `steps is ${options.steps}`);
  const { width = checkpoint.facts.nativeSize, height = checkpoint.facts.nativeSize } = options;
  const pixels = width * height;
  checkLimit(settings, 'maxCanvasPixels', pixels, `The canvas of ${width}x${height} has ${pixels} pixels`);
  return options;
}

/** The flow's model; the bundled one where the flow names none, or one that is the bundled model and isn't deployed yet. */
function findModel(RED: NodeAPI, body: Record<string, unknown>): { use: CheckpointUse; done: () => void } {
  const id = own(body, 'model');
  if (typeof id === 'string' && id !== '') {
    const deployed = (RED.nodes.getNode(id) as ModelNode | null)?.model;
    if (deployed instanceof CheckpointUse) return { use: deployed, done: () => {} };
    if (body.bundled !== true)
      throw new MissingInputError('model', 'Deploy the flow once, so that its diffusion-model is there.');
  }
  const use = new CheckpointUse(modelSource({}, () => readSettings(RED)));
  return { use, done: () => use.release() };
}
