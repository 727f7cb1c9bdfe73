/** The judge of training/: a classifier that has seen renders only, never a generated picture. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { InferenceSession } from 'onnxruntime-node';
import type { Picture } from './geometry';

/** Side of the judge's pictures in pixels. */
export const JUDGED_SIZE = 128;
const BATCH = 32;

/** What the judge can be asked. */
export type Question = 'object' | 'scene';

export interface Judge {
  /** The name of the object or scene that each picture [128, 128, 3] most likely shows. */
  name(question: Question, pictures: Picture[]): Promise<string[]>;
}

/**
 * @param folder with judge.onnx, from "pixels" [N, 3, 128, 128] in [-1, 1] to logits for each question, and labels.json
 * @throws Error when a file is missing or the judge doesn't name objects and scenes
 */
export async function openJudge(folder: string, threads: number): Promise<Judge> {
  const { InferenceSession: Session, Tensor: OrtTensor } = await import('onnxruntime-node');
  const labels = JSON.parse(readFileSync(path.join(folder, 'labels.json'), 'utf8')) as Record<Question, string[]>;
  const session: InferenceSession = await Session.create(path.join(folder, 'judge.onnx'), {
    intraOpNumThreads: threads,
  });
  for (const question of ['object', 'scene'] as const) {
    if (!labels[question] || !session.outputNames.includes(question))
      throw new Error(`The judge in ${folder} doesn't name ${question}s.`);
  }

  return {
    async name(question, pictures) {
      const names: string[] = [];
      for (let first = 0; first < pictures.length; first += BATCH) {
        const batch = pictures.slice(first, first + BATCH);
        const pixels = new OrtTensor('float32', toPlanes(batch), [batch.length, 3, JUDGED_SIZE, JUDGED_SIZE]);
        const { [question]: answer } = await session.run({ pixels }, [question]);
        const logits = answer.data as Float32Array;
        const classes = labels[question].length;
        batch.forEach((_, i) =>
          names.push(labels[question][indexOfLargest(logits.subarray(i * classes, (i + 1) * classes))]),
        );
      }
      return names;
    },
  };
}

function toPlanes(pictures: Picture[]): Float32Array {
  const cells = JUDGED_SIZE * JUDGED_SIZE;
  const planes = new Float32Array(pictures.length * 3 * cells);
  pictures.forEach((picture, n) => {
    const { data } = picture;
    if (data.length !== 3 * cells)
      throw new Error(`The judge needs pictures of ${JUDGED_SIZE}x${JUDGED_SIZE}, not ${picture}.`);
    for (let i = 0; i < data.length; i++) planes[(3 * n + (i % 3)) * cells + Math.floor(i / 3)] = data[i] / 127.5 - 1;
  });
  return planes;
}

function indexOfLargest(values: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}
