/** A hub as the Hugging Face one speaks, on this machine, which can be told to misbehave. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';

export const COMMIT = '0123456789abcdef0123456789abcdef01234567';
export const REPOSITORY = 'some-owner/tiny.sd2';

interface Entry {
  type: 'file' | 'directory';
  path: string;
  size: number;
  oid: string;
  lfs?: { oid: string; size: number; pointerSize: number };
}

export class HubServer {
  url = '';
  readonly files = new Map<string, Buffer>();
  /** Branches and tags. */
  refs: Record<string, string> = { main: COMMIT };
  /** Every request: method, path and whether a token came along. */
  readonly requests: Array<{ url: string; range?: string; token?: string }> = [];
  /** Changes the list of files before it is sent. */
  list: (entries: Entry[]) => Entry[] = (entries) => entries;
  /** Entries of a page of the list. */
  page = 1000;
  /** Answers instead of the hub: true when it has. */
  intercept: (request: http.IncomingMessage, response: http.ServerResponse, file?: string) => boolean = () => false;
  /** The token without which nothing is answered. */
  token?: string;
  private readonly server = http.createServer((request, response) => this.answer(request, response));

  static async start(folder?: string): Promise<HubServer> {
    const hub = new HubServer();
    if (folder) hub.add(folder);
    await new Promise<void>((resolve) => hub.server.listen(0, '127.0.0.1', resolve));
    hub.url = `http://127.0.0.1:${(hub.server.address() as AddressInfo).port}`;
    return hub;
  }

  /** All files of a folder. */
  add(folder: string): void {
    for (const entry of fs.readdirSync(folder, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const file = path.join(entry.parentPath, entry.name);
      this.files.set(path.relative(folder, file).split(path.sep).join('/'), fs.readFileSync(file));
    }
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  /** Requests for files' contents. */
  get downloads(): string[] {
    return this.requests
      .filter(({ url }) => url.includes('/resolve/'))
      .map(({ url }) => url.split(`/resolve/${COMMIT}/`)[1]);
  }

  entries(): Entry[] {
    return [...this.files].map(([file, content]) => {
      const entry: Entry = {
        type: 'file',
        path: file,
        size: content.length,
        oid: createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex'),
      };
      if (content.length < 100_000) return entry;
      return {
        ...entry,
        oid: 'f'.repeat(40),
        lfs: { oid: createHash('sha256').update(content).digest('hex'), size: content.length, pointerSize: 134 },
      };
    });
  }

  /** The content, from where the request wants it. */
  send(request: http.IncomingMessage, response: http.ServerResponse, content: Buffer, end = content.length): void {
    const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
    if (start > 0)
      response.writeHead(206, {
        'content-range': `bytes ${start}-${content.length - 1}/${content.length}`,
        'content-length': content.length - start,
      });
    else response.writeHead(200, { 'content-length': content.length });
    response.write(content.subarray(start, Math.max(start, end)), () => {
      // What was sent must arrive before the connection breaks.
      if (end < content.length) setTimeout(() => response.destroy(), 100);
      else response.end();
    });
  }

  private answer(request: http.IncomingMessage, response: http.ServerResponse): void {
    const url = decodeURIComponent(request.url as string);
    const token = request.headers.authorization;
    this.requests.push({ url, token, range: request.headers.range });
    const file = url.split(`/${REPOSITORY}/resolve/${COMMIT}/`)[1];
    if (this.intercept(request, response, file)) return;
    if (this.token && token !== `Bearer ${this.token}`)
      return refuse(response, 401, token ? 'Invalid' : 'RepoNotFound');
    const revision = url.split(`/api/models/${REPOSITORY}/revision/`)[1];
    if (revision) {
      const commit = this.refs[revision] ?? (revision === COMMIT ? COMMIT : undefined);
      return commit ? json(response, { id: REPOSITORY, sha: commit }) : refuse(response, 404, 'RevisionNotFound');
    }
    if (url.startsWith(`/api/models/${REPOSITORY}/tree/${COMMIT}?`)) return this.sendList(url, response);
    const content = this.files.get(file);
    if (!content) return refuse(response, 404, 'RepoNotFound');
    this.send(request, response, content);
  }

  private sendList(url: string, response: http.ServerResponse): void {
    const all: Entry[] = [
      { type: 'directory', path: 'unet', size: 0, oid: '0'.repeat(40) },
      ...this.list(this.entries()),
    ];
    const from = Number(new URL(url, this.url).searchParams.get('cursor') ?? 0);
    const next = from + this.page;
    if (next < all.length)
      response.setHeader('link', `<${this.url}${url.split('&cursor')[0]}&cursor=${next}>; rel="next"`);
    json(response, all.slice(from, next));
  }
}

export function refuse(response: http.ServerResponse, status: number, code: string): void {
  response.writeHead(status, { 'x-error-code': code, 'x-error-message': 'the server says hf_secret' });
  response.end('{"error": "no"}');
}

function json(response: http.ServerResponse, body: unknown): void {
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(body));
}
