import type sharp from 'sharp';

let loaded: typeof sharp | undefined;

/** The image library, loaded when the first picture needs it: Node-RED starts the quicker. */
export function loadSharp(): typeof sharp {
  // eslint-disable-next-line @typescript-eslint/no-require-imports
  loaded ??= require('sharp') as typeof sharp;
  return loaded;
}
