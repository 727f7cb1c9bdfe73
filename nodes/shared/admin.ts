/** What the editor's routes ask of a request before they do anything. */
import type { NextFunction, Request, Response } from 'express';

/**
 * Takes JSON only. A page from elsewhere that an administrator visits could send a form or plain text without asking;
 * for JSON the browser asks this server first, which says no.
 */
export function onlyJson(request: Request, response: Response, next: NextFunction): void {
  const type = String(request.headers['content-type'] ?? '')
    .split(';')[0]!
    .trim()
    .toLowerCase();
  if (type === 'application/json') next();
  else response.status(415).json({ message: 'Send a header "Content-Type: application/json".' });
}
