/** What a node shows under itself; the words come from its locale file, `<type>.status.<key>`. */
import type { Node, NodeAPI, NodeStatus } from 'node-red';
import { InvalidInputError, MissingInputError, MultiDiffusionError } from '../../engine/errors';

export type StatusKey =
  | 'loading'
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
    const property = error instanceof InvalidInputError || error instanceof MissingInputError ? shortName(error.property) : '';
    this.show('red', 'ring', `error.${error instanceof MultiDiffusionError ? error.code : 'OTHER'}`, { property });
  }

  /** After the node has closed its id may already belong to its successor, so nothing more is shown. */
  close(): void {
    this.closed = true;
  }

  private show(fill: NodeStatus['fill'], shape: NodeStatus['shape'], key: string, values?: Values): void {
    this.set({ fill, shape, text: this.RED._(`${this.node.type}.status.${key}`, values as never) });
  }

  private set(status: NodeStatus): void {
    if (!this.closed) this.node.status(status);
  }
}

/** `msg.regions[3].box` as `box`: a status has room for about 20 characters. */
function shortName(property: string): string {
  return property.split('.').pop()!.slice(0, 12);
}
