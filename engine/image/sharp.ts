import type sharp from 'sharp';

let loaded: typeof sharp | undefined;

/** The image library, loaded when the first picture needs it: Node-RED starts the quicker. */
export function loadSharp(): typeof sharp {
  // eslint-disable-next-line @typescript-eslint/no-require-imports
  loaded ??= require('sharp') as typeof sharp;
  // Its cache would keep the last pictures' memory, and no picture is decoded twice. Said each time, because it is the
  // whole process's, and another package that loads the library sets it back.
  loaded.cache(false);
  return loaded;
}
