/** A client of server-sent events. */
import assert from 'node:assert/strict';

export interface News {
  job: string;
  event: string;
  [fact: string]: unknown;
}

/** The events of a stream as they come, until the server ends it. */
export async function* readEvents(answer: Response): AsyncGenerator<News> {
  assert.equal(answer.status, 200);
  assert.equal(answer.headers.get('content-type'), 'text/event-stream');
  let rest = '';
  for await (const text of answer.body!.pipeThrough(new TextDecoderStream()) as unknown as AsyncIterable<string>) {
    const blocks = (rest + text).split('\n\n');
    rest = blocks.pop()!;
    for (const block of blocks) if (block.startsWith('data: ')) yield JSON.parse(block.slice(6)) as News;
  }
}

/** All events of a stream. */
export async function allEvents(answer: Response): Promise<News[]> {
  const events: News[] = [];
  for await (const news of readEvents(answer)) events.push(news);
  return events;
}

/** How many clients the node "jobs" of a flow says to have listening, from now on. */
export function watchListeners(
  RED: { events: NodeJS.EventEmitter },
  flow: Array<{ id: string; name?: unknown }>,
): () => number {
  const { id } = flow.find(({ name }) => name === 'jobs')!;
  let listening = 0;
  RED.events.on('node-status', (event: { id: string; status?: { text?: string } }) => {
    if (event.id === id) listening = Number(/(\d+) listening/.exec(event.status?.text ?? '')?.[1] ?? 0);
  });
  return () => listening;
}
