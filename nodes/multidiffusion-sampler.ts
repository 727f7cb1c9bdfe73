/** multidiffusion-sampler: a background and regions → msg.latents. */
import { randomInt } from 'node:crypto';
import type { Node, NodeAPI, NodeDef } from 'node-red';
import { MissingInputError } from '../engine/errors';
import type { Progress } from '../engine/multidiffusion/job';
import { sample } from '../engine/multidiffusion/sample';
import type { Conditioning } from '../engine/multidiffusion/types';
import { LOOP_OPTIONS, resolveOptions, SAMPLER_OPTIONS } from '../engine/options';
import { describe } from './kit/generation';
import { cancelJobs, SamplerJob } from './kit/jobs';
import { inOrder } from './kit/line';
import { sampleInLoop } from './kit/loop';
import { addToGeneration, findingsIn, own, pick, type Message } from './kit/message';
import { isOrder, NodeModel } from './kit/model';
import { tellEditors } from './kit/panel';
import { initialLatents, pictureIn, previews } from './kit/pictures';
import { addMasks, readRegions } from './kit/regions';
import { checkLimit, readSettings } from './kit/settings';
import { isStep, takeBack } from './kit/steps';
import { handleMessages, isCancellation, type Task } from './kit/tasks';

interface SamplerDef extends NodeDef {
  model?: string;
  seedMode?: 'fixed' | 'random' | 'msg';
  [option: string]: unknown;
}

/** text-encode has told about these already. */
const TOLD = ['TRUNCATED_PROMPT', 'UNKNOWN_WORDS'];

export = function (RED: NodeAPI): void {
  RED.nodes.registerType('multidiffusion-sampler', function (this: Node, config: SamplerDef) {
    RED.nodes.createNode(this, config);
    const model = new NodeModel(RED, config.model, this);
    const jobs = new Set<SamplerJob>();
    handleMessages(RED, this, (task) => receive(task, this), () => model.release());

    function receive(task: Task, node: Node): Promise<void> | void {
      if (isCancellation(task.msg)) return cancelJobs(jobs, task.msg, node);
      if (isOrder(task.msg)) return model.obey(task);
      if (isStep(task.msg, node)) return takeBack(node, task.msg);
      return start(task, node);
    }

    async function start(task: Task, node: Node): Promise<void> {
      const job = new SamplerJob(task, (news) => tellEditors(RED, node.id, news));
      jobs.add(job);
      try {
        await draw(task, job, node);
      } catch (error) {
        job.failed(error);
        throw error;
      } finally {
        jobs.delete(job);
        // The next one has begun already, and its first step may take a while.
        jobs.forEach((other) => other.waits(false));
      }
    }

    /** In line until the job has its place in the queue. */
    const draw = inOrder(RED, async (task, next, job: SamplerJob, node: Node) => {
      const { msg, status, signal, send } = task;
      const settings = readSettings(RED);
      const options = { ...resolveOptions(SAMPLER_OPTIONS, pick(msg, OPTIONS), pick(config, OPTIONS)), seed: readSeed(msg, config) };
      checkLimit(settings, 'maxSteps', options.steps, `steps is ${options.steps}`);
      const regions = await addMasks(readRegions(own(msg, 'regions'), settings), settings);
      const bootstrappingImage = await pictureIn(msg, 'bootstrappingImage', settings);

      const checkpoint = await model.get(status, signal);
      const { width = checkpoint.facts.nativeSize, height = checkpoint.facts.nativeSize } = options;
      checkLimit(settings, 'maxCanvasPixels', width * height, `The canvas of ${width}x${height} has ${width * height} pixels`);
      const initialImage = await initialLatents(checkpoint, msg, settings, { width, height }, signal);
      const background = (own(msg, 'background') ?? own(msg, 'conditioning') ?? (await checkpoint.encodeConditioning('', '', { signal }))) as Conditioning;

      const { stepMode, loopTimeout } = resolveOptions(LOOP_OPTIONS, pick(config, Object.keys(LOOP_OPTIONS)));
      const loop = { owner: node, task, id: job.id, model: checkpoint, timeout: loopTimeout };
      const take = stepMode === 'wired' ? sampleInLoop.bind(undefined, RED, loop) : sample.bind(undefined, checkpoint);
      const preview = previews(checkpoint, options.previewEvery, job, signal);
      const onStep = (progress: Progress): Promise<void> => {
        job.step(progress.index, progress.total);
        return preview(progress);
      };
      const sampling = job.run(checkpoint.queue, (stop) =>
        take({ background, regions, options, initialImage, bootstrappingImage, signal: stop, onStep }),
        settings.jobTimeout,
      );
      next();
      const stopWatching = model.watch((loading) => job.waits(loading));
      const result = await sampling.finally(stopWatching);

      msg.latents = result.latents;
      msg.job = job.id;
      if (options.circular) msg.circular = true; // for vae-decode
      delete msg.initialImage;
      delete msg.bootstrappingImage;
      msg.findings = [...findingsIn(msg).filter((finding) => own(finding, 'code') === 'UNKNOWN_PROPERTY'), ...result.findings];
      addToGeneration(msg, await describe(checkpoint.facts, background, regions, options, result, { stepMode, startedFromImage: initialImage !== undefined }));
      addToGeneration(msg, { timings: { queue: job.waited } });
      for (const finding of result.findings) if (!TOLD.includes(finding.code)) node.warn(finding.message);
      if (result.findings.length > 0) status.warn('findings');
      else status.ok('done');
      job.done({ seed: result.seed, timings: { ...result.timings, queue: job.waited } });
      send([msg, null, null]);
    });
  });
};

const OPTIONS = Object.keys(SAMPLER_OPTIONS);

/** The message's seed; else the node's, or one drawn at random. */
function readSeed(msg: Message, config: SamplerDef): number {
  const mode = config.seedMode ?? 'random';
  const { seed } = resolveOptions({ seed: SAMPLER_OPTIONS.seed }, pick(msg, ['seed']), mode === 'fixed' ? pick(config, ['seed']) : {});
  if (seed === undefined && mode !== 'random') {
    throw new MissingInputError('seed', mode === 'fixed' ? 'Set one in the sampler.' : 'Send msg.seed, or choose another seed in the sampler.');
  }
  return seed ?? randomInt(2 ** 32);
}
