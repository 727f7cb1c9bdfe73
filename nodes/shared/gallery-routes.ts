/** The editor's way to running jobs and to the last pictures. */
import type { Request, Response } from 'express';
import type { NodeAPI } from 'node-red';
import { cancelJob, fullPicture, listGallery, lookAt, recipeOf, smallPicture } from './gallery';

/** Adds the routes. To see asks for what seeing flows asks for, to cancel for what pressing an inject's button does. */
export function offerGallery(RED: NodeAPI): void {
  if (typeof RED.httpAdmin?.get !== 'function') return; // there is no editor
  const maySee = RED.auth.needsPermission('flows.read');
  const mayAct = RED.auth.needsPermission('inject.write');

  RED.httpAdmin.get('/multidiffusion/gallery', maySee, (_, response) => void response.json(listGallery()));

  RED.httpAdmin.get('/multidiffusion/pictures/:id', maySee, (request, response) =>
    answer(response, async () => {
      const id = text(request.params.id);
      if (request.query.small !== undefined) return { bytes: await smallPicture(id), type: 'image/jpeg' };
      return fullPicture(id);
    }),
  );

  RED.httpAdmin.get('/multidiffusion/pictures/:id/recipe', maySee, (request, response) => {
    const recipe = recipeOf(text(request.params.id));
    if (recipe) response.json(recipe);
    else response.status(404).end();
  });

  RED.httpAdmin.get('/multidiffusion/jobs/:node/:job/look', maySee, (request, response) =>
    // A job that has just ended, or whose model can't tell colours, is no mistake of the editor's.
    answer(response, async () => ({ bytes: await lookAt(...jobIn(request)), type: 'image/png' }), 204),
  );

  RED.httpAdmin.delete('/multidiffusion/jobs/:node/:job', mayAct, (request, response) => {
    if (!cancelJob(RED, ...jobIn(request))) return void response.status(404).end();
    response.status(202).end();
  });
}

const text = (value: unknown): string => (typeof value === 'string' ? value : '');

function jobIn({ params }: Request): [node: string, job: string] {
  return [text(params.node), text(params.job)];
}

/** Sends bytes that somebody may see now and nobody need keep. */
async function answer(
  response: Response,
  load: () => Promise<{ bytes?: Buffer; type: string } | undefined>,
  nothing = 404,
): Promise<void> {
  try {
    const found = await load();
    if (!found?.bytes) return void response.status(nothing).end();
    response.set({ 'cache-control': 'private, no-store', 'x-content-type-options': 'nosniff' });
    response.type(found.type).send(found.bytes);
  } catch (error) {
    // Such as a job that was cancelled while its picture was drawn.
    response.status(500).json({ message: (error as Error).message });
  }
}
