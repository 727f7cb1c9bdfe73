/** multidiffusion-sampler: a background and regions → msg.latents. */
import { randomInt } from 'node:crypto';
import type { Node, NodeAPI, NodeDef } from 'node-red';
import { MissingInputError } from '../../engine/errors';
import type { Progress } from '../../engine/multidiffusion/plan';
import type { Conditioning } from '../../engine/types';
import {
  DECODE_OPTIONS,
  IMAGE_OPTIONS,
  LOOP_OPTIONS,
  RANDOM_SEED,
  resolveOptions,
  SAMPLER_OPTIONS,
} from '../../engine/options';
import { previews } from './previews';
import { recipeOf } from '../shared/write-recipe';
import { cancelJobs, JobReport } from './job-report';
import { configured } from '../shared/configured';
import { announceJob, clearWorkspace } from '../shared/gallery';
import { offerGallery } from '../shared/gallery-routes';
import { checkFileName } from '../shared/files';
import { inOrder } from '../shared/in-order';
import { sampleInLoop } from '../shared/loop';
import { addToRecipe, findingsIn, own, pick, type Message } from '../shared/message';
import { isModelCommand, isUnload, NodeModel } from '../shared/model';
import { initialLatents, pictureIn } from '../shared/pictures';
import { registerNode } from '../shared/register';
import { addMasks, readRegions } from '../shared/regions';
import { checkLimit, readSettings } from '../shared/settings';
import { isStep, takeBack } from '../shared/steps';
import { handleMessages, isCancellation, type Task, within } from '../shared/tasks';

interface SamplerDef extends NodeDef {
  model?: string;
  seedType?: string;
  [option: string]: unknown;
}

/** text-encode has told about these already. */
const TOLD = ['TRUNCATED_PROMPT', 'UNKNOWN_WORDS'];

export = function (RED: NodeAPI): void {
  offerGallery(RED);
  registerNode<Node, SamplerDef>(RED, 'multidiffusion-sampler', (node, config) => {
    const model = new NodeModel(RED, config.model, node);
    const jobs = new Set<JobReport>();
    node.on('close', () => clearWorkspace(RED, node));
    handleMessages(RED, node, receive, () => model.release());

    function receive(task: Task): Promise<void> | void {
      if (isCancellation(task.msg)) return cancelJobs(jobs, task.msg, node);
      if (isUnload(task.msg)) jobs.forEach((job) => job.cancel('The model was unloaded.'));
      if (isModelCommand(task.msg)) return model.loadOrUnload(task);
      if (isStep(task.msg, node)) return takeBack(node, task.msg);
      return start(task);
    }

    async function start(task: Task): Promise<void> {
      const job = new JobReport(task, (news) => announceJob(RED, node, news));
      jobs.add(job);
      try {
        await draw(task, job);
      } catch (error) {
        job.failed(error);
        throw error;
      } finally {
        jobs.delete(job);
        // The next one has begun already, and its first step may take a while.
        jobs.forEach((other) => other.waits());
      }
    }

    /** In line until the job has its place in the queue. */
    const draw = inOrder(RED, async (task, next, job: JobReport) => {
      const { msg, status, signal, send } = task;
      const settings = readSettings(RED);
      const values = await configured(RED, node, msg, config, OPTIONS);
      const options = {
        ...resolveOptions(SAMPLER_OPTIONS, pick(msg, OPTIONS), values),
        seed: readSeed(msg, values, config.seedType),
      };
      // What a node further on would refuse is refused before anything is drawn.
      resolveOptions(LATER, pick(msg, Object.keys(LATER)));
      checkFileName(own(msg, 'filename'), settings.imageDirectory);
      checkLimit(settings, 'maxSteps', options.steps, `steps is ${options.steps}`);
      const regions = await addMasks(readRegions(own(msg, 'regions'), settings), settings);
      const bootstrappingImage = await pictureIn(msg, 'bootstrappingImage', settings, 'bounded');

      const checkpoint = await model.get(status, signal);
      const { width = checkpoint.facts.nativeSize, height = checkpoint.facts.nativeSize } = options;
      checkLimit(
        settings,
        'maxCanvasPixels',
        width * height,
        `The canvas of ${width}x${height} has ${width * height} pixels`,
      );
      checkLimit(
        settings,
        'maxRegionPixels',
        width * height * regions.length,
        `${regions.length} regions of a canvas of ${width}x${height} have ${width * height * regions.length} pixels`,
      );
      const { initialImage, background } = await within(task, settings.jobTimeout, async (stop) => ({
        initialImage: await initialLatents(checkpoint, msg, settings, { width, height }, stop),
        background: (own(msg, 'background') ??
          own(msg, 'conditioning') ??
          (await checkpoint.encodeConditioning('', undefined, { signal: stop }))) as Conditioning,
      }));

      const { stepMode, loopTimeout } = resolveOptions(LOOP_OPTIONS, pick(config, Object.keys(LOOP_OPTIONS)));
      const loop = { owner: node, task, id: job.id, model: checkpoint, timeout: loopTimeout };
      const { sample } = await import('../../engine/multidiffusion/sample');
      const take = stepMode === 'wired' ? sampleInLoop.bind(undefined, RED, loop) : sample.bind(undefined, checkpoint);
      const preview = previews(checkpoint, options.previewEvery, job, node, signal);
      const onStep = (progress: Progress): Promise<void> => {
        job.step(progress.index, progress.total);
        return preview(progress);
      };
      const sampling = job.run(
        checkpoint.queue,
        (stop) => take({ background, regions, options, initialImage, bootstrappingImage, signal: stop, onStep }),
        settings.jobTimeout,
      );
      next();
      const stopWatching = model.watch((hindrance) => job.waits(hindrance));
      const result = await sampling.finally(stopWatching);

      msg.latents = result.latents;
      msg.job = job.id;
      if (options.circular) msg.circular = true; // for vae-decode
      delete msg.initialImage;
      delete msg.bootstrappingImage;
      msg.findings = [
        ...findingsIn(msg).filter((finding) => own(finding, 'code') === 'UNKNOWN_PROPERTY'),
        ...result.findings,
      ];
      addToRecipe(
        msg,
        await recipeOf(checkpoint.facts, background, regions, options, result, {
          stepMode,
          startedFromImage: initialImage !== undefined,
        }),
      );
      addToRecipe(msg, { timings: { queue: job.waited } });
      for (const finding of result.findings) if (!TOLD.includes(finding.code)) node.warn(finding.message);
      if (result.findings.length > 0) status.warn('findings');
      else status.ok('done');
      job.done({ seed: result.seed, timings: { ...result.timings, queue: job.waited } });
      send([msg, null, null]);
    });
  });
};

const OPTIONS = Object.keys(SAMPLER_OPTIONS);
/** Options of vae-decode and save-image that a message may hold. */
const LATER = { ...DECODE_OPTIONS, ...IMAGE_OPTIONS };

/**
 * The message's seed; else the node's; or, where the first of them is -1 or there is none, one drawn at random.
 * @param configured the node's own values
 * @param kind where the node has its seed: 'random', 'num', or a source
 * @throws MissingInputError when the node names a seed that is not there
 */
function readSeed(msg: Message, configured: Record<string, unknown>, kind = 'random'): number {
  const sources = [pick(msg, ['seed']), kind === 'random' ? {} : pick(configured, ['seed'])];
  const said = sources.map((source) => source.seed).find((seed) => seed !== undefined && seed !== null && seed !== '');
  if (Number(said) === RANDOM_SEED) return randomInt(2 ** 32);
  const { seed } = resolveOptions({ seed: SAMPLER_OPTIONS.seed }, ...sources);
  if (seed === undefined && kind !== 'random') {
    const advice =
      kind === 'num' ? 'Set one in the sampler.' : `The sampler takes it from ${kind}, where there is none.`;
    throw new MissingInputError('seed', advice);
  }
  return seed ?? randomInt(2 ** 32);
}
