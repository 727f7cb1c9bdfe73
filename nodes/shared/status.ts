/**
 * What a node shows under itself; the words come from its English locale file, `<type>.status.<key>`, whatever the
 * server's language: flows read them. The editor says them in the browser's language (resources/statuses.js).
 */
import type { Node, NodeAPI, NodeStatus } from 'node-red';
import { MultiDiffusionError } from '../../engine/errors';

export type StatusKey =
  | 'loading'
  | 'unreachable'
  | 'unserved'
  | 'warming'
  | 'downloading'
  | 'waiting'
  | 'unloaded'
  | 'loaded'
  | 'ready'
  | 'encoding'
  | 'encoded'
  | 'truncated'
  | 'unknownWords'
  | 'unknownNames'
  | 'regions'
  | 'queued'
  | 'drawing'
  | 'step'
  | 'stepWaiting'
  | 'done'
  | 'findings'
  | 'decoding'
  | 'decoded'
  | 'saving'
  | 'saved'
  | 'encodedImage'
  | 'cancelled';

type Values = Record<string, string | number>;

export class Status {
  private closed = false;
  /** What is shown is work that has not ended. */
  private working = false;

  constructor(
    private readonly RED: NodeAPI,
    private readonly node: Node,
  ) {}

  /** Blue: at work. */
  busy(key: StatusKey, values?: Values): void {
    this.show('blue', 'dot', key, values);
  }

  /** Green: the last message went well. */
  ok(key: StatusKey, values?: Values): void {
    this.show('green', 'dot', key, values);
  }

  /** Yellow: it went on, but the user should look. */
  warn(key: StatusKey, values?: Values): void {
    this.show('yellow', 'ring', key, values);
  }

  /** Grey: nothing to do. */
  idle(key?: StatusKey, values?: Values): void {
    if (key) this.show('grey', 'ring', key, values);
    else this.set({});
  }

  /** Red: a short name of what went wrong; the whole sentence goes to the log and to Catch. */
  failed(error: unknown): void {
    const property = shortName(propertyOf(error));
    this.show('red', 'ring', `error.${error instanceof MultiDiffusionError ? error.code : 'OTHER'}`, { property });
  }

  /** The work that is shown, if any, will not be ended: without this its last step would stay there for good. */
  interrupted(key?: StatusKey): void {
    if (this.working) this.idle(key);
  }

  /**
   * After the node has closed its id may already belong to its successor, so nothing more is shown.
   * @param key what has become of work that is under way; default: nothing is shown
   */
  close(key?: StatusKey): void {
    this.interrupted(key);
    this.closed = true;
  }

  private show(fill: NodeStatus['fill'], shape: NodeStatus['shape'], key: string, values?: Values): void {
    const text = this.RED._(`${this.node.type}.status.${key}`, { ...values, lng: 'en-US' } as never);
    this.set({ fill, shape, text });
    this.working = fill === 'blue';
  }

  private set(status: NodeStatus): void {
    this.working = false;
    if (!this.closed) this.node.status(status);
  }
}

/** `msg.regions[3].box` as `box`: a status has room for about 20 characters. */
function shortName(property: string): string {
  return property.split('.').pop()!.slice(0, 12);
}

/** Which property is wrong or missing; what a pool's worker said has it, too. */
function propertyOf(error: unknown): string {
  const { property } = error as { property?: unknown };
  return error instanceof MultiDiffusionError && typeof property === 'string' ? property : '';
}
