/** The composer for pages that a flow serves, such as example 14's: one script with its texts, and one style sheet. */
import fs from 'node:fs';
import path from 'node:path';
import type { Request, Response } from 'express';
import type { NodeAPI } from 'node-red';

const SOURCES = path.join(__dirname, '..', '..', '..', 'resources', 'composer');
const LOCALES = path.join(__dirname, 'locales');
/** In the order in which they build on each other. */
const SCRIPTS = ['geometry', 'layout', 'history', 'words', 'mask', 'canvas', 'list', 'composer', 'page'];

/**
 * Adds the routes beside those of http in nodes, so that a page's own path, host and password hold for them. They serve
 * nothing but files of this package, read when they are first asked for.
 */
export function offerComposer(RED: NodeAPI): void {
  if (typeof RED.httpNode?.get !== 'function') return;
  serve(RED, 'composer.js', 'text/javascript', script);
  serve(RED, 'composer.css', 'text/css', () => read('composer.css'));
}

function serve(RED: NodeAPI, name: string, type: string, make: () => string): void {
  let content: string | undefined;
  RED.httpNode.get(`/multidiffusion/${name}`, (_: Request, response: Response) => {
    content ??= make();
    response.set({ 'cache-control': 'no-cache', 'x-content-type-options': 'nosniff' });
    response.type(type).send(content);
  });
}

function script(): string {
  const languages = fs.readdirSync(LOCALES).map((language) => {
    const { compose } = JSON.parse(fs.readFileSync(path.join(LOCALES, language, 'compose.json'), 'utf8')) as {
      compose: { composer: object };
    };
    return [language, compose.composer] as const;
  });
  const texts = `(globalThis.MultiDiffusionCompose ??= {}).languages = ${JSON.stringify(Object.fromEntries(languages))};`;
  return [texts, ...SCRIPTS.map((name) => read(`${name}.js`))].join('\n');
}

const read = (name: string): string => fs.readFileSync(path.join(SOURCES, name), 'utf8');
