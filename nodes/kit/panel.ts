/** What the editors that are open show of the sampler's jobs: resources/progress-panel.js. */
import type { NodeAPI } from 'node-red';

const TOPIC = 'multidiffusion/job';

/** What happened to a job: as on the progress output, or a `preview` with the picture as a data URI. */
export interface JobNews {
  job: string;
  event: string;
  [fact: string]: unknown;
}

/** Tells all open editors; without any it costs nothing. */
export function tellEditors(RED: NodeAPI, node: string, news: JobNews): void {
  RED.comms.publish(TOPIC, { node, ...news }, false);
}
