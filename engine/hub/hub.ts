/**
 * Checkpoints from a Hugging Face hub: what inference needs of a repository, pinned to a commit, in
 * DIRECTORY/OWNER/NAME/COMMIT. The folder appears when all of it is there and verified; from then on no
 * request is made. Uses the hub's documented addresses: api/models/REPO/revision and …/tree, REPO/resolve.
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, rm, statfs, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { InvalidInputError, MultiDiffusionError } from '../errors';
import { makeFolder } from '../files/make-folder';
import { sizeOf } from '../files/size-of';
import {
  abortedDownload,
  downloadError,
  downloadFile,
  explainFileError,
  HttpError,
  isPassing,
  reasonOf,
  type DownloadOptions,
  type RemoteFile,
} from './download';
import { withLock } from '../files/lock';
import { MANIFEST, readManifest, type HubManifest } from './manifest';
import { excessInText, FILE_BOUNDS } from '../json';
import { readOnnxHeader } from '../onnx/header';
import { COMPONENTS, missingFiles, selectFiles } from './selection';

export const HUB_ENDPOINT = 'https://huggingface.co';

export interface HubProgress {
  /** waiting: another process downloads the same. */
  phase: 'waiting' | 'downloading';
  /** Bytes that are there. */
  received: number;
  total: number;
}

export interface HubRequest {
  /** owner/name */
  repository: string;
  /** A branch, a tag or a commit; default: main. */
  revision?: string;
  /** Sent to the endpoint only. */
  token?: string;
  /** Default: https://huggingface.co */
  endpoint?: string;
  /** Where repositories are kept. */
  directory: string;
  signal?: AbortSignal;
  onProgress?: (progress: HubProgress) => void;
  /** How patient to be with the network. */
  network?: Pick<DownloadOptions, 'patience' | 'pause'>;
}

interface TreeEntry {
  type: string;
  path: string;
  size: number;
  oid: string;
  lfs?: { oid: string; size: number };
}

/** Left free on the disk. */
const SPARE_BYTES = 64 * 2 ** 20;
const COMMIT = /^[0-9a-f]{40}$/;

interface Download {
  promise: Promise<string>;
  controller: AbortController;
  users: number;
  listeners: Set<(progress: HubProgress) => void>;
  last?: HubProgress;
}

const downloads = new Map<string, Download>();

/**
 * The folder of a repository, downloaded if it isn't there yet. Who asks for the same at once shares one
 * download; it is given up when all of them have. What has arrived by then is used the next time.
 * @throws InvalidInputError when the repository's or the revision's name can't be one
 * @throws MultiDiffusionError CHECKPOINT when the hub refuses, can't be reached, or holds no such checkpoint; FILE when there is no room
 * @throws CancelledError or the signal's reason
 */
export async function fetchRepository(request: HubRequest): Promise<string> {
  checkNames(request);
  const { repository, revision = 'main', endpoint = HUB_ENDPOINT, signal, onProgress } = request;
  if (signal?.aborted) throw abortedDownload(signal);
  const there = await findRepository(request);
  if (there) return there;

  const key = JSON.stringify([endpoint, request.directory, repository, revision, request.token]);
  const download = downloads.get(key) ?? startDownload(key, request);
  download.users++;
  if (onProgress) {
    download.listeners.add(onProgress);
    if (download.last) onProgress(download.last);
  }
  let leave = (): void => undefined;
  const aborted = new Promise<never>((_, reject) => {
    leave = () => reject(abortedDownload(signal as AbortSignal));
    signal?.addEventListener('abort', leave, { once: true });
  });
  try {
    return await Promise.race([download.promise, aborted]);
  } finally {
    signal?.removeEventListener('abort', leave);
    if (onProgress) download.listeners.delete(onProgress);
    if (--download.users === 0) {
      // Nobody may join what is being given up.
      if (downloads.get(key) === download) downloads.delete(key);
      download.controller.abort();
    }
  }
}

/** The folder of a repository that has been downloaded, by what is on the disk alone; undefined when it isn't complete. */
export async function findRepository({
  directory,
  repository,
  revision = 'main',
}: Pick<HubRequest, 'directory' | 'repository' | 'revision'>): Promise<string | undefined> {
  const root = join(directory, repository);
  const commit = COMMIT.test(revision)
    ? revision
    : (await readFile(refFile(root, revision), 'utf8').catch(() => '')).trim();
  const folder = join(root, commit);
  return COMMIT.test(commit) && (await isComplete(folder)) ? folder : undefined;
}

/** @throws InvalidInputError unless they can be names of a repository and of a revision, and so are safe in paths */
export function checkNames({
  repository,
  revision,
  endpoint,
  token,
}: Pick<HubRequest, 'repository' | 'revision' | 'endpoint' | 'token'>): void {
  if (typeof repository !== 'string' || !/^[\w-][\w.-]{0,95}\/[\w-][\w.-]{0,95}$/.test(repository)) {
    throw new InvalidInputError('repository', repository, 'owner/name, as in the address of its page on the hub');
  }
  const revisionIsName =
    typeof revision === 'string' && /^[\w][\w./+-]{0,199}$/.test(revision) && !revision.includes('..');
  if (revision !== undefined && !revisionIsName)
    throw new InvalidInputError('revision', revision, 'a branch, a tag or a commit of the repository');
  if (endpoint !== undefined && !(/^https?:\/\/[^/]/.test(String(endpoint)) && URL.canParse(endpoint)))
    throw new InvalidInputError('hubEndpoint', withoutPassword(endpoint), 'an address that begins with https://');
  // In a header, anything else would be refused with a message that shows it.
  if (token !== undefined && !/^[\x21-\x7e]+$/.test(token))
    throw new MultiDiffusionError(
      'INVALID_INPUT',
      "The access token holds characters that no token has. Copy it again from the hub's settings.",
    );
}

function startDownload(key: string, request: HubRequest): Download {
  const controller = new AbortController();
  const download: Download = { promise: Promise.resolve(''), controller, users: 0, listeners: new Set() };
  downloads.set(key, download);
  const tell = (progress: HubProgress): void => {
    download.last = progress;
    for (const listener of download.listeners) listener(progress);
  };
  download.promise = new Hub(request, controller.signal, tell).fetch().catch((error: unknown) => {
    throw controller.signal.aborted ? abortedDownload(controller.signal) : explainFileError(error, request.directory);
  });
  const forget = (): void => void (downloads.get(key) === download && downloads.delete(key));
  download.promise.then(forget, forget);
  return download;
}

/** Bytes of an answer, inflated; pages and entries of a list of files. A page lists a thousand files in 300 kB. */
const MOST_ANSWER = 4 * 2 ** 20;
const MOST_PAGES = 200;
const MOST_FILES = 100_000;

/** The address to ask, without a user and password in it: fetch takes them in a header only, and messages show the address. */
function readEndpoint(endpoint: string): { address: string; authorization?: string } {
  const url = new URL(endpoint);
  const { username, password } = url;
  [url.username, url.password] = ['', ''];
  let address = url.origin + url.pathname;
  while (address.endsWith('/')) address = address.slice(0, -1);
  if (!username && !password) return { address };
  const pair = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
  return { address, authorization: `Basic ${Buffer.from(pair).toString('base64')}` };
}

function withoutPassword(endpoint: unknown): unknown {
  return typeof endpoint === 'string' ? endpoint.slice(0, 200).replace(/\/\/[^/]*@/, '//…@') : endpoint;
}

/** One download. */
class Hub {
  private readonly endpoint: string;
  private readonly revision: string;
  private readonly root: string;
  private readonly headers: Record<string, string>;

  constructor(
    private readonly request: HubRequest,
    private readonly signal: AbortSignal,
    private readonly tell: (progress: HubProgress) => void,
  ) {
    const { address, authorization } = readEndpoint(request.endpoint ?? HUB_ENDPOINT);
    this.endpoint = address;
    this.revision = request.revision ?? 'main';
    this.root = join(request.directory, request.repository);
    // fetch takes the authorization off when it follows a redirection to another host.
    this.headers = {
      'user-agent': 'node-red-contrib-multidiffusion',
      ...(authorization && { authorization }),
      ...(request.token && { authorization: `Bearer ${request.token}` }),
    };
  }

  async fetch(): Promise<string> {
    const commit = await this.resolveCommit();
    const folder = join(this.root, commit);
    await makeFolder(join(this.root, 'refs'));
    const options = { signal: this.signal, onWait: () => this.tell({ phase: 'waiting', received: 0, total: 0 }) };
    await withLock(`${folder}.lock`, options, async () => {
      // Another process may have done it meanwhile.
      if (!(await isComplete(folder))) await this.fill(commit, folder);
    });
    if (this.revision !== commit) await writeWhole(refFile(this.root, this.revision), commit);
    return folder;
  }

  private async fill(commit: string, folder: string): Promise<void> {
    const tree = await this.listFiles(commit);
    const wanted = selectFiles(tree.map(({ path }) => path));
    const missing = missingFiles(
      wanted,
      tree.map(({ path }) => path),
    );
    if (missing) throw downloadError(`The repository ${this.what} ${missing}`);

    const incoming = `${folder}.download`;
    // Complete once, but files are missing now.
    if ((await sizeOf(folder)) !== undefined) await rename(folder, incoming).catch(() => undefined);
    await mkdir(incoming, { recursive: true });
    const files = new Map<string, RemoteFile>();
    const want = (paths: string[]): void => {
      for (const entry of tree) if (paths.includes(entry.path)) files.set(entry.path, this.remoteFile(commit, entry));
    };
    want(wanted);
    await this.download(files, incoming);
    // Weights may lie in files of any name; the models name them.
    want(await findMoreWeights(incoming, [...files.keys()]));
    await this.download(files, incoming);

    const manifest: HubManifest = {
      repository: this.request.repository,
      revision: this.revision,
      commit,
      files: [...files].map(([path, { size, hash }]) => ({ path, size, hash })),
    };
    await writeWhole(join(incoming, MANIFEST), `${JSON.stringify(manifest, null, 2)}\n`);
    await rename(incoming, folder);
  }

  /** Downloads what isn't there yet. */
  private async download(files: Map<string, RemoteFile>, folder: string): Promise<void> {
    let received = 0;
    const missing: Array<[string, RemoteFile]> = [];
    for (const [path, file] of files) {
      // Under its own name there are only verified files.
      if ((await sizeOf(join(folder, path))) === file.size) received += file.size;
      else missing.push([path, file]);
    }
    const total = [...files.values()].reduce((sum, { size }) => sum + size, 0);
    const parts = await Promise.all(missing.map(async ([path]) => (await sizeOf(join(folder, `${path}.part`))) ?? 0));
    await this.checkSpace(folder, total - received - parts.reduce((sum, size) => sum + size, 0), total);
    for (const [path, file] of missing) {
      await mkdir(dirname(join(folder, path)), { recursive: true });
      const onProgress = (bytes: number): void =>
        this.tell({ phase: 'downloading', received: received + bytes, total });
      try {
        await downloadFile(file, join(folder, path), {
          ...this.request.network,
          headers: this.headers,
          signal: this.signal,
          onProgress,
        });
      } catch (error) {
        throw error instanceof HttpError ? this.explain(error.response, path) : error;
      }
      received += file.size;
    }
  }

  private async checkSpace(folder: string, needed: number, total: number): Promise<void> {
    const { bavail, bsize } = await statfs(folder);
    const free = bavail * bsize;
    if (needed <= 0 || needed + SPARE_BYTES <= free) return;
    throw new MultiDiffusionError(
      'FILE',
      `The repository ${this.what} needs ${gigabytes(total)}, of which ${gigabytes(needed)} are still ` +
        `to come, and the disk of ${this.request.directory} has ${gigabytes(free)} free. ` +
        'Make room, or set multidiffusion.modelDirectory in settings.js to another disk.',
    );
  }

  private async resolveCommit(): Promise<string> {
    const { body } = await this.get(
      `/api/models/${this.request.repository}/revision/${encodeURIComponent(this.revision)}`,
    );
    const commit = (body as { sha?: unknown } | null)?.sha;
    if (
      typeof commit !== 'string' ||
      !COMMIT.test(commit) ||
      (COMMIT.test(this.revision) && commit !== this.revision)
    ) {
      throw this.notUnderstood('it states no commit');
    }
    return commit;
  }

  private async listFiles(commit: string): Promise<TreeEntry[]> {
    const entries: TreeEntry[] = [];
    let next: string | undefined = `/api/models/${this.request.repository}/tree/${commit}?recursive=true`;
    for (let pages = 0; next; pages++) {
      if (pages >= MOST_PAGES) throw this.notUnderstood(`its list of files has more than ${MOST_PAGES} pages`);
      const { body, link } = await this.get(next);
      if (!Array.isArray(body) || entries.length > MOST_FILES) throw this.notUnderstood('its list of files is none');
      for (const entry of body as unknown[]) if (this.isFile(entry)) entries.push(entry);
      next = this.nextPage(link);
    }
    return entries;
  }

  /** @throws MultiDiffusionError CHECKPOINT when the entry is none */
  private isFile(entry: unknown): entry is TreeEntry {
    const { type, path } = (entry ?? {}) as Partial<TreeEntry>;
    if (typeof type !== 'string' || typeof path !== 'string' || path === '' || path.length > 1024)
      throw this.notUnderstood('its list of files has an entry without a path');
    return type === 'file';
  }

  private nextPage(link: string | null): string | undefined {
    const found = /<([^<>]+)>;\s?rel="next"/.exec(link ?? '')?.[1];
    if (!found) return undefined;
    const url = new URL(found, this.endpoint);
    // The token goes to nobody else.
    if (url.origin !== new URL(this.endpoint).origin) throw this.notUnderstood('its list of files goes on elsewhere');
    return url.pathname + url.search;
  }

  private remoteFile(commit: string, { path, size, oid, lfs }: TreeEntry): RemoteFile {
    const stated = lfs?.size ?? size;
    const hash = lfs ? { sha256: String(lfs.oid).replace(/^sha256:/, '') } : { git: String(oid) };
    if (!Number.isSafeInteger(stated) || stated < 0) throw this.notUnderstood(`the size of ${path} is ${stated}`);
    return {
      name: `${path} of ${this.what}`,
      url: `${this.endpoint}/${this.request.repository}/resolve/${commit}/${path.split('/').map(encodeURIComponent).join('/')}`,
      size: stated,
      hash,
    };
  }

  private async get(path: string): Promise<{ body: unknown; link: string | null }> {
    const patience = this.request.network?.patience ?? 60_000;
    for (let attempt = 1; ; attempt++) {
      try {
        const response = await fetch(`${this.endpoint}${path}`, {
          headers: this.headers,
          signal: AbortSignal.any([this.signal, AbortSignal.timeout(patience)]),
        });
        if (response.ok) return { body: await this.readBody(response), link: response.headers.get('link') };
        await response.body?.cancel();
        if (response.status < 500 && response.status !== 429) throw this.explain(response);
        if (attempt === 3)
          throw downloadError(
            `${this.endpoint} answered HTTP ${response.status} three times when it was asked for ${this.what}. Try again later`,
          );
      } catch (error) {
        if (this.signal.aborted || error instanceof MultiDiffusionError) throw error;
        if (error instanceof SyntaxError) throw this.notUnderstood('it is not JSON');
        const late = (error as Error).name === 'TimeoutError';
        if (!late && !isPassing(error)) throw error;
        if (attempt === 3) {
          throw downloadError(
            `${this.endpoint} can't be reached (${late ? 'no answer' : reasonOf(error)}), and ${this.what} ` +
              'has not been downloaded completely. Check the network, or copy a checkpoint into a folder and ' +
              'choose that',
            error,
          );
        }
      }
      await new Promise((resolve) => setTimeout(resolve, (this.request.network?.pause ?? 1000) * attempt));
    }
  }

  /** @throws SyntaxError when it is no JSON, MultiDiffusionError CHECKPOINT when it is longer than any answer */
  private async readBody(response: Response): Promise<unknown> {
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    // Counted as they are inflated.
    for await (const chunk of (response.body ?? []) as unknown as AsyncIterable<Uint8Array>) {
      bytes += chunk.length;
      if (bytes > MOST_ANSWER) throw this.notUnderstood(`it is longer than ${MOST_ANSWER} bytes`);
      chunks.push(chunk);
    }
    const text = Buffer.concat(chunks).toString('utf8');
    const excess = excessInText(text, FILE_BOUNDS);
    if (excess) throw this.notUnderstood(`it is ${excess.found} than any answer (${excess.allowed})`);
    return JSON.parse(text) as unknown;
  }

  /** What the hub's refusal means, and what to do; without its own words, which may hold more than should be shown. */
  private explain(response: Response, path?: string): MultiDiffusionError {
    const { repository } = this.request;
    const code = response.headers.get('x-error-code') ?? '';
    const page = `${this.endpoint}/${repository}`;
    const withToken = this.request.token !== undefined;
    if (code === 'RevisionNotFound')
      return downloadError(
        `The repository ${repository} has no revision ${this.revision}. Choose a branch, tag or commit that ${page} shows`,
      );
    if (path && response.status === 404)
      return downloadError(`${path} has gone from the repository ${this.what}. Try again`);
    if (code === 'GatedRepo' || response.status === 403) {
      const accept = `Accept its conditions on ${page} with your account`;
      return downloadError(
        withToken
          ? `The repository ${repository} is gated, and the access token gives no right to it. ` +
              `${accept}, and use a token of that account that may read it`
          : `The repository ${repository} is gated. ` +
              `${accept}, and enter an access token of that account in the diffusion-model node`,
      );
    }
    if (response.status === 401 && withToken)
      return downloadError(
        `The hub does not accept the access token for ${repository}, or there is no such repository. ` +
          'Check the name, and the token in the diffusion-model node',
      );
    if (response.status === 401)
      return downloadError(
        `The repository ${repository} does not exist, or is private. Check its name; ` +
          'if it is private, enter an access token in the diffusion-model node',
      );
    if (response.status === 404)
      return downloadError(
        `The repository ${repository} was not found at ${this.endpoint}. Check its name (owner/name) and the revision ${this.revision}`,
      );
    return downloadError(
      `${this.endpoint} answered HTTP ${response.status} when it was asked for ${path ? `${path} of ` : ''}${this.what}`,
    );
  }

  private notUnderstood(why: string): MultiDiffusionError {
    return downloadError(`The answer of ${this.endpoint} about ${this.what} is not understood: ${why}`);
  }

  private get what(): string {
    return `${this.request.repository} (${this.revision})`;
  }
}

/** Files with weights beside the downloaded models that have not been downloaded. */
async function findMoreWeights(folder: string, have: string[]): Promise<string[]> {
  const more: string[] = [];
  for (const component of COMPONENTS) {
    const path = `${component}/model.onnx`;
    if (!have.includes(path)) continue;
    // What is wrong with a file is said when it is loaded.
    const header = await readOnnxHeader(join(folder, path)).catch(() => undefined);
    for (const location of header?.externalData.keys() ?? []) {
      if (/^[\w-][\w.-]*$/.test(location) && !have.includes(`${component}/${location}`))
        more.push(`${component}/${location}`);
    }
  }
  return more;
}

async function isComplete(folder: string): Promise<boolean> {
  const manifest = await readManifest(folder);
  if (!manifest) return false;
  const sizes = await Promise.all(manifest.files.map(({ path }) => sizeOf(join(folder, path))));
  return manifest.files.every(({ size }, i) => sizes[i] === size);
}

function refFile(root: string, revision: string): string {
  const name = encodeURIComponent(revision);
  // A file's name has 255 bytes at most.
  return join(root, 'refs', name.length > 150 ? createHash('sha256').update(revision).digest('hex') : name);
}

async function writeWhole(file: string, text: string): Promise<void> {
  const temporary = `${file}.${process.pid}.part`;
  await writeFile(temporary, text, { flush: true });
  await rename(temporary, file).catch(async (error: unknown) => {
    await rm(temporary, { force: true });
    throw error;
  });
}

function gigabytes(bytes: number): string {
  return bytes >= 1e8 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.ceil(bytes / 1e6)} MB`;
}
