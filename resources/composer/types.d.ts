/** What the parts of the composer hand to each other. */

/** x, y, width, height as shares of the canvas. */
type Box = [number, number, number, number];
/** x, y as shares of the canvas. */
type Point = [number, number];
type Shape = 'box' | 'ellipse' | 'polygon' | 'image' | 'rest';

/** A region as it is edited: it has all its parts, whichever its shape needs. */
interface Region {
  /** Names it while it is edited. */
  key: string;
  name: string;
  prompt: string;
  negativePrompt: string;
  shape: Shape;
  box: Box;
  points: Point[];
  /** A data URI, or a file in the mask directory. */
  image: string;
  /** weight, feather and so on: what is set. */
  options: Record<string, unknown>;
  /** Whether its outline has been drawn, or only stands in for one. */
  drawn: boolean;
}

interface Composition {
  prompt: string;
  negativePrompt: string;
  /** Numbers as typed; empty where nothing is set. */
  width: string;
  height: string;
  seed: string;
  regions: Region[];
}

/** The parts of the composer, by the files in this folder. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any, no-var
declare var MultiDiffusionCompose: any;
/** What the panel can do with a picture; see gallery.js. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any, no-var
declare var MultiDiffusionGalleryActions: any;
/** resources/region-scene.js */
// eslint-disable-next-line @typescript-eslint/no-explicit-any, no-var
declare var MultiDiffusionScene: any;
