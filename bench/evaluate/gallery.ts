/** The pictures of one checkpoint: which are still to be drawn, and what the judge sees in those that are there. */
import fs from 'node:fs';
import path from 'node:path';
import type { Checkpoint } from '../../dist/engine';
import { resizeImage } from '../../dist/engine/image/resize';
import { changedPixels, cropForJudge, overlaps, type Picture } from './geometry';
import { type Judge, JUDGED_SIZE } from './judge';
import type { Layout } from './layouts';
import { draw, hashModel, keepPicture, loadPicture, pictureFile, type Settings } from './painter';
import type { Seen, SeenPicture } from './report';
import { SCENE_ALONE, type Strategy } from './strategies';

export type Task = (checkpoint: Checkpoint) => Promise<void>;

export interface Looked {
  /** By the layout's index. */
  pictures: Map<number, Picture>;
  seen: Seen;
}

export class Gallery {
  readonly hash: string;

  /**
   * @param model folder of the checkpoint
   * @param out where pictures are kept
   * @param sampler hash of the code that samples
   */
  constructor(
    readonly model: string,
    private readonly out: string,
    private readonly sampler: string,
    private readonly settings: Settings,
    private readonly signal: AbortSignal,
  ) {
    this.hash = hashModel(model);
  }

  /** The background of a strategy's pictures, drawn with the same guidance. */
  sceneOf({ options: { guidanceScale } }: Strategy): Strategy {
    return guidanceScale === undefined || guidanceScale === this.settings.guidanceScale
      ? SCENE_ALONE
      : { ...SCENE_ALONE, options: { guidanceScale } };
  }

  /** What draws the layouts whose pictures aren't there yet: the backgrounds first, then one strategy after the other. */
  missing(strategies: Strategy[], layouts: Layout[]): Task[] {
    const scenes = new Map(strategies.map((strategy) => [this.sceneOf(strategy).options.guidanceScale, strategy]));
    const backgrounds = [...scenes.values()].map((strategy) => this.sceneOf(strategy));
    return [...backgrounds, ...strategies].flatMap((strategy) =>
      layouts
        .map((layout) => ({ layout, file: this.file(layout, strategy) }))
        .filter(({ file }) => !fs.existsSync(file))
        .map(({ layout, file }) => async (checkpoint: Checkpoint) => {
          const onScene = strategy.options.bootstrappingBackground === 'image';
          const scene = onScene ? await this.background(checkpoint, layout, strategy) : undefined;
          await keepPicture(file, await draw(checkpoint, this.settings, layout, strategy, scene, this.signal));
        }),
    );
  }

  /** The pictures that are there, and what is in their regions. */
  async look(judge: Judge, strategy: Strategy, layouts: Layout[]): Promise<Looked> {
    const pictures = new Map<number, Picture>();
    const seen: Seen = new Map();
    for (const layout of layouts) {
      const picture = await loadPicture(this.file(layout, strategy));
      const scene = await loadPicture(this.file(layout, this.sceneOf(strategy)));
      if (picture) pictures.set(layout.index, picture);
      if (picture && scene) seen.set(layout.index, await lookAt(judge, layout, picture, scene));
    }
    return { pictures, seen };
  }

  private file(layout: Layout, strategy: Strategy): string {
    const state = `${this.hash} ${this.sampler}`;
    return pictureFile(path.join(this.out, 'pictures'), state, this.settings, layout, strategy);
  }

  /** With few layouts, another worker may still be at it: then it is drawn here, too. */
  private async background(checkpoint: Checkpoint, layout: Layout, strategy: Strategy): Promise<Picture> {
    const scene = this.sceneOf(strategy);
    return (await loadPicture(this.file(layout, scene))) ?? (await draw(checkpoint, this.settings, layout, scene));
  }
}

async function lookAt(
  judge: Judge,
  { objects, place }: Layout,
  picture: Picture,
  scene: Picture,
): Promise<SeenPicture> {
  const boxes = objects.map(({ box }) => box);
  const crops = boxes.map((box) => {
    const others = boxes.filter((other) => other !== box);
    return cropForJudge(picture, scene, box, others, JUDGED_SIZE);
  });
  const names = await judge.name('object', crops);
  const [whole] = await judge.name('scene', [resizeImage(picture, JUDGED_SIZE, JUDGED_SIZE)]);
  const fits = overlaps(changedPixels(picture, scene), boxes, picture);
  const regions = objects.map(({ name }, i) => ({ asked: name, seen: names[i], ...fits[i] }));
  return { regions, scene: whole === place };
}
