/** Bounds that hold however something comes in: through a message, a layout, a recipe or the engine's own interface. */

/** Regions of one picture, whatever an administrator allows. */
export const MAX_REGIONS = 256;
/** Corners of a polygon. */
export const MAX_POINTS = 1000;
/** Characters of a region's name. */
export const MAX_NAME_LENGTH = 200;
