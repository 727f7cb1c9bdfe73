/** One inference process a device; each request goes to the one with the least to do. */
import type { Tensor } from '../tensor';
import type { CallName, Calls, ProcessSetup } from './protocol';
import { InferenceClient, type ClientOptions, type ProcessState, type ProcessStatus } from './client';

/** What a group's status says: the first of these states that one of its processes is in. */
const LOUDEST: ProcessState[] = [
  'failed',
  'unreachable',
  'unserved',
  'restarting',
  'loading',
  'warming',
  'starting',
  'ready',
  'stopped',
  'closed',
];

/** Keeps embeddings where a request is worked on. */
export interface Holder {
  /** @returns the key by which requests name them */
  hold(tensor: Tensor): string;
}

/** What runs a checkpoint's models: processes on this machine, or a pool's workers. */
export interface Processes {
  /** How many pictures can be drawn at a time. */
  readonly size: number;
  readonly status: ProcessStatus;
  readonly busy: boolean;
  readonly pids: number[];
  load(signal?: AbortSignal): Promise<void>;
  /** @param build makes the parameters, and may be called again */
  call<N extends CallName>(
    name: N,
    build: (holder: Holder) => Calls[N]['params'],
    signal?: AbortSignal,
  ): Promise<Calls[N]['result']>;
  unload(): Promise<void>;
  close(): Promise<void>;
}

export class InferenceGroup implements Processes {
  private readonly clients: InferenceClient[];
  private current: ProcessStatus = { state: 'stopped' };

  constructor(setups: ProcessSetup[], options: ClientOptions = {}) {
    const onStatus = (): void => {
      const status = this.status;
      if (status.state === this.current.state && status.detail === this.current.detail) return;
      this.current = status;
      options.onStatus?.(status);
    };
    this.clients = setups.map((setup) => new InferenceClient(setup, { ...options, onStatus }));
  }

  /** How many processes there are. */
  get size(): number {
    return this.clients.length;
  }

  get status(): ProcessStatus {
    const statuses = this.clients.map((client) => client.status);
    const state = LOUDEST.find((loud) => statuses.some((status) => status.state === loud));
    return statuses.find((status) => status.state === state) as ProcessStatus;
  }

  /** Whether a request is under way. */
  get busy(): boolean {
    return this.clients.some((client) => client.busy);
  }

  /** Ids of the processes that run. */
  get pids(): number[] {
    return this.clients.flatMap(({ pid }) => pid ?? []);
  }

  /** @returns where they run; throws as InferenceClient.open does */
  async open(signal?: AbortSignal): Promise<string> {
    const providers = await Promise.all(this.clients.map((client) => client.open(signal)));
    return [...new Set(providers)].join(', ');
  }

  /** Every process loads all that a picture needs. */
  async load(signal?: AbortSignal): Promise<void> {
    await Promise.all(this.clients.map((client) => client.call('load', () => ({}), signal)));
  }

  /** @param build makes the parameters for the process that was chosen; otherwise as InferenceClient.call */
  call<N extends CallName>(
    name: N,
    build: (holder: Holder) => Calls[N]['params'],
    signal?: AbortSignal,
  ): Promise<Calls[N]['result']> {
    const client = this.clients.reduce((best, other) => (other.waiting < best.waiting ? other : best));
    return client.call(name, () => build(client), signal);
  }

  async unload(): Promise<void> {
    await Promise.all(this.clients.map((client) => client.unload()));
  }

  async close(): Promise<void> {
    await Promise.all(this.clients.map((client) => client.close()));
  }
}
