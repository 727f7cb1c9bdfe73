/**
 * What open editors show: running jobs, and the last pictures under their nodes and in the panel
 * (resources/gallery.js, resources/node-pictures.js). The runtime announces facts; an editor fetches the pictures
 * that somebody looks at, so without an editor nothing is encoded.
 */
import { randomUUID } from 'node:crypto';
import type { Node, NodeAPI } from 'node-red';
import { toRecipe, type Recipe } from '../../engine/image/recipe';
import { asPng, thumbnail } from '../../engine/image/thumbnail';
import type { Tensor } from '../../engine/tensor';
import { own, type Message } from './message';

const JOB_TOPIC = 'multidiffusion/job';
const PICTURE_TOPIC = 'multidiffusion/picture';

/** The last pictures stay in memory, as many as these allow. */
const MOST_PICTURES = 100;
const MOST_BYTES = 64 * 2 ** 20;
const MOST_RUNNING = 1000;
/** Longer side of a small picture, in pixels. */
const SMALL = 320;

/** What happened to a job: as on the progress output. */
export interface JobNews {
  job: string;
  event: string;
  [fact: string]: unknown;
}

/** Draws what a running job looks like, as a PNG; undefined where the model can't tell colours. */
export type Look = () => Promise<Buffer | undefined>;

/** The bytes of a file with its type, or the pixels, uint8 [H, W, 3]. */
export type Content = { bytes: Buffer; type: string } | { pixels: Tensor };

/** A node as the editor knows it: in an instance of a subflow also as the node in the subflow. */
interface Place {
  node: string;
  alias?: string;
}

/** What an editor is told of a picture. */
export interface PictureFacts extends Place {
  id: string;
  job?: string;
  /** The sampler that drew it. */
  sampler?: Place;
  width: number;
  height: number;
  /** Milliseconds since 1970. */
  time: number;
}

interface Picture {
  facts: PictureFacts;
  content: Content;
  recipe?: Recipe;
  small?: Promise<Buffer>;
}

interface Running {
  place: Place;
  news: JobNews;
  look?: Look;
  cancel?: () => void;
}

/** Oldest first; jobs by their node and id, since two samplers may be given the same id. */
const running = new Map<string, Running>();
const pictures = new Map<string, Picture>();
/** The samplers of the latest jobs that are done, by job. */
const samplers = new Map<string, Place>();

const keyOf = (node: string, job: string): string => `${node} ${job}`;

/** Tells all open editors what happened to a job. */
export function announceJob(RED: NodeAPI, node: Node, news: JobNews): void {
  const key = keyOf(node.id, news.job);
  const place = placeOf(node);
  if (['done', 'failed', 'cancelled'].includes(news.event)) running.delete(key);
  else running.set(key, { ...running.get(key), place, news });
  if (news.event === 'done') samplers.set(news.job, place);
  dropOldest(running, MOST_RUNNING);
  dropOldest(samplers, MOST_PICTURES);
  RED.comms.publish(JOB_TOPIC, { ...place, ...news }, false);
}

/** Says how to see what a running job looks like. */
export function offerLook(node: Node, job: string, look: Look): void {
  const entry = running.get(keyOf(node.id, job));
  if (entry) entry.look = look;
}

/** Says how to cancel a running job whose node may not be deployed; any other is cancelled by a message to its node. */
export function offerCancel(node: Node, job: string, cancel: () => void): void {
  const entry = running.get(keyOf(node.id, job));
  if (entry) entry.cancel = cancel;
}

/** @returns whether the job was running */
export function cancelJob(RED: NodeAPI, node: string, job: string): boolean {
  const entry = running.get(keyOf(node, job));
  const deployed = RED.nodes.getNode(node);
  if (entry?.cancel) entry.cancel();
  else if (entry && deployed) deployed.receive({ cancel: job });
  else return false;
  return true;
}

/**
 * What a node calls with each of its finished pictures: it is kept, and all open editors are told of it.
 * @returns takes the picture, its [H, W] in pixels, and the message that carries it, with its job and its recipe
 */
export function picturesOf(
  RED: NodeAPI,
  node: Node,
): (content: Content, size: readonly number[], msg: Message) => void {
  node.on('close', () => clearWorkspace(RED, node));
  return (content, size, msg) => keepPicture(RED, node, content, size, msg);
}

/** Keeps one picture of a node and tells all open editors of it; the rest as for picturesOf. */
export function keepPicture(
  RED: NodeAPI,
  node: Node,
  content: Content,
  [height, width]: readonly number[],
  msg: Message,
): void {
  const job = own(msg, 'job');
  const facts: PictureFacts = {
    id: randomUUID(),
    ...placeOf(node),
    ...(typeof job === 'string' && { job, sampler: samplers.get(job) }),
    width,
    height,
    time: Date.now(),
  };
  pictures.set(facts.id, { facts, content, recipe: toRecipe(own(msg, 'generation')) });
  let bytes = 0;
  [...pictures.values()].reverse().forEach((picture, i) => {
    bytes += bytesOf(picture.content);
    if (i > 0 && (i >= MOST_PICTURES || bytes > MOST_BYTES)) pictures.delete(picture.facts.id);
  });
  RED.comms.publish(PICTURE_TOPIC, facts, false);
}

/** A node that goes leaves nothing on the workspace; its pictures stay in the panel. */
export function clearWorkspace(RED: NodeAPI, node: Node): void {
  for (const [key, { place }] of running) if (place.node === node.id) running.delete(key);
  for (const { facts } of pictures.values()) if (facts.node === node.id) facts.node = '';
  RED.comms.publish(PICTURE_TOPIC, { ...placeOf(node), gone: true }, false);
}

/** Running jobs, as they were told of last, and pictures; oldest first. */
export function listGallery(): { jobs: object[]; pictures: PictureFacts[] } {
  return {
    jobs: [...running.values()].map(({ place, news }) => ({ ...place, ...news })),
    pictures: [...pictures.values()].map(({ facts }) => facts),
  };
}

/** @returns undefined when it is forgotten */
export async function fullPicture(id: string): Promise<{ bytes: Buffer; type: string } | undefined> {
  const content = pictures.get(id)?.content;
  if (!content) return undefined;
  return 'pixels' in content ? { bytes: await asPng(content.pixels), type: 'image/png' } : content;
}

/** A JPEG of a few kilobytes. @returns undefined when the picture is forgotten */
export async function smallPicture(id: string): Promise<Buffer | undefined> {
  const picture = pictures.get(id);
  if (!picture) return undefined;
  const { content } = picture;
  picture.small ??= thumbnail('pixels' in content ? content.pixels : content.bytes, SMALL);
  return picture.small;
}

/** @returns undefined when the picture is forgotten, or nothing is known of how it was made */
export function recipeOf(id: string): Recipe | undefined {
  return pictures.get(id)?.recipe;
}

/** What a running job looks like. @returns undefined when it has ended, or has nothing to show yet */
export async function lookAt(node: string, job: string): Promise<Buffer | undefined> {
  return running.get(keyOf(node, job))?.look?.();
}

function dropOldest(map: Map<string, unknown>, most: number): void {
  for (const key of map.keys()) {
    if (map.size <= most) return;
    map.delete(key);
  }
}

function placeOf(node: Node): Place {
  const alias = (node as Node & { _alias?: string })._alias;
  return { node: node.id, ...(alias && { alias }) };
}

function bytesOf(content: Content): number {
  return 'pixels' in content ? content.pixels.buffer.byteLength : content.bytes.length;
}
