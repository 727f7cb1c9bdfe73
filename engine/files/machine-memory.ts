/**
 * What was found out about this machine, so that it need not be found out again: small facts under keys, in a file of the
 * user's cache directory. Where there is none, or it can't be written, nothing is kept.
 */
import { readFileSync } from 'node:fs';
import { rename, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { makeFolder } from './make-folder';

interface Entry {
  /** Milliseconds since 1970. */
  time: number;
  fact: unknown;
}

/** Older entries are dropped beyond this many. */
const MOST_ENTRIES = 200;

/** The file; MULTIDIFFUSION_CACHE names another folder than the user's cache directory. */
function memoryFile(): string {
  const folder = process.env.MULTIDIFFUSION_CACHE || path.join(cacheDirectory(), 'node-red-contrib-multidiffusion');
  return path.join(folder, 'providers.json');
}

function cacheDirectory(): string {
  if (process.platform === 'win32' && process.env.LOCALAPPDATA) return process.env.LOCALAPPDATA;
  if (process.platform === 'darwin') return path.join(os.homedir(), 'Library', 'Caches');
  return process.env.XDG_CACHE_HOME || path.join(os.homedir(), '.cache');
}

function read(): Record<string, Entry> {
  try {
    const entries: unknown = JSON.parse(readFileSync(memoryFile(), 'utf8'));
    return typeof entries === 'object' && entries !== null ? (entries as Record<string, Entry>) : {};
  } catch {
    return {};
  }
}

/** @param age milliseconds after which a fact is forgotten */
export function recall<T>(key: string, age: number): T | undefined {
  const entries = read();
  const entry = Object.hasOwn(entries, key) ? entries[key] : undefined;
  return entry && Date.now() - entry.time < age ? (entry.fact as T) : undefined;
}

export async function remember(key: string, fact: unknown): Promise<void> {
  const entries = Object.entries({ ...read(), [key]: { time: Date.now(), fact } });
  const kept = entries.sort(([, a], [, b]) => b.time - a.time).slice(0, MOST_ENTRIES);
  const file = memoryFile();
  const draft = `${file}.${process.pid}`;
  try {
    await makeFolder(path.dirname(file));
    await writeFile(draft, JSON.stringify(Object.fromEntries(kept)));
    await rename(draft, file);
  } catch {
    // Read-only, full, or without a home: it is found out again the next time.
  }
}
