/** From what a request says (prompts and masks of any size) to what the method needs (prompts and latent masks). */
import { MAX_REGIONS } from '../limits';
import { InvalidInputError, MissingInputError } from '../errors';
import { REGION_OPTIONS, resolveOptions, type Values } from '../options';
import { Tensor } from '../tensor';
import { inTurns, type Steps } from '../turns';
import { blurMask, featherMask, type LatentMask, maskPlane, reduceMask } from './masks';
import { type Conditioning, CONDITIONING_KIND, type Region } from '../types';
import type { Grid } from '../types';

/** A prompt of the method: index 0 is the background, the others are the regions in their order. */
export interface Prompt {
  name: string;
  conditioning: Conditioning;
  /** The one Tensor for these numbers in this job, so that equal prompts share their UNet rows. */
  embeddings: Tensor;
  negativeEmbeddings: Tensor;
  /** [1, P], of models that take them. */
  pooled?: Tensor;
  negativePooled?: Tensor;
  guidanceScale: number;
}

/** A prompt with its place on the latent grid. */
export interface LatentRegion extends Prompt, Edges {
  /** The mask before its edge was made soft. */
  outline: LatentMask;
  /** Width of the soft edge in cells. */
  feather: number;
  weight: number;
  /** Whether it has its own input while the job bootstraps. */
  bootstrap: boolean;
  /** The model evaluations at which it acts: from first up to, not including, last. */
  first: number;
  last: number;
  /** For the initial noise inside the mask. */
  seed?: number;
}

/** Where regions come to lie. */
export interface Canvas {
  grid: Grid;
  /** Whether the left and right edge touch. */
  circular: boolean;
  /** Whether masks grow: then they are blurred by half their feather, at least by one cell. */
  growingMasks: boolean;
}

/** What a region weighs at and near its edge. */
export interface Edges {
  mask: LatentMask;
  /** For a mask that grows as the noise falls. */
  blurred?: Float32Array;
}

/** @param feather in cells */
export function* softEdges(
  outline: LatentMask,
  feather: number,
  { grid: { height, width }, circular, growingMasks }: Canvas,
): Steps<Edges> {
  return {
    mask: yield* featherMask(outline, height, width, feather, circular),
    ...(growingMasks && { blurred: yield* blurMask(outline, height, width, Math.max(1, feather / 2), circular) }),
  };
}

/** Gives, for equal embeddings, one and the same Tensor. */
export type ShareTensor = (tensor: Tensor) => Tensor;

export function tensorSharer(): ShareTensor {
  const known: Tensor[] = [];
  return (tensor) => {
    const equal = known.find((other) => other === tensor || sameTensor(other, tensor));
    if (!equal) known.push(tensor);
    return equal ?? tensor;
  };
}

/**
 * @param value a Conditioning
 * @param name how to call it in errors
 * @param share see tensorSharer
 * @throws MissingInputError when there is none, InvalidInputError when it is no conditioning
 */
export function preparePrompt(value: unknown, name: string, guidanceScale: number, share: ShareTensor): Prompt {
  if (value === undefined || value === null) {
    throw new MissingInputError(name, 'Encode its prompt with a text-encode node first.');
  }
  const conditioning = value as Conditioning;
  if (conditioning.kind !== CONDITIONING_KIND)
    throw new InvalidInputError(name, value, 'a conditioning as text-encode makes it');
  return {
    name,
    conditioning,
    embeddings: share(checkEmbeddings(conditioning.embeddings, `${name}.embeddings`)),
    negativeEmbeddings: share(checkEmbeddings(conditioning.negativeEmbeddings, `${name}.negativeEmbeddings`)),
    ...sharedPooled(conditioning, name, share),
    guidanceScale,
  };
}

/**
 * Checks the regions and brings their masks to the latent grid, in turns with the event loop.
 * @param background for the shape that all embeddings must have
 * @param evaluations how often the scheduler asks for the model in the whole run
 * @throws InvalidInputError, MissingInputError naming the region and the property
 */
export async function prepareRegions(
  value: unknown,
  background: Prompt,
  canvas: Canvas,
  evaluations: number,
  share: ShareTensor,
): Promise<LatentRegion[]> {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw new InvalidInputError('regions', value, 'an array of regions');
  if (value.length > MAX_REGIONS)
    throw new InvalidInputError('regions', `${value.length} regions`, `up to ${MAX_REGIONS}`);
  return inTurns(prepareEach(value, background, canvas, evaluations, share));
}

function* prepareEach(
  values: unknown[],
  background: Prompt,
  canvas: Canvas,
  evaluations: number,
  share: ShareTensor,
): Steps<LatentRegion[]> {
  const regions: LatentRegion[] = [];
  for (const [index, region] of values.entries())
    regions.push(yield* prepareRegion(region, `regions[${index}]`, index, background, canvas, evaluations, share));
  return regions;
}

function* prepareRegion(
  value: unknown,
  where: string,
  index: number,
  background: Prompt,
  canvas: Canvas,
  evaluations: number,
  share: ShareTensor,
): Steps<LatentRegion> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new InvalidInputError(where, value, 'a region {name, conditioning, mask}');
  }
  const region = value as Region;
  const options = regionOptions(where, region as unknown as Record<string, unknown>);
  if (region.mask === undefined || region.mask === null) {
    throw new MissingInputError(`${where}.mask`, 'Give the region its place with a region-mask node.');
  }
  const prompt = preparePrompt(
    region.conditioning,
    `${where}.conditioning`,
    options.guidanceScale ?? background.guidanceScale,
    share,
  );
  const expected = background.embeddings;
  if (prompt.embeddings.dims.join() !== expected.dims.join()) {
    throw new InvalidInputError(
      `${where}.conditioning.embeddings`,
      `[${prompt.embeddings.dims.join(', ')}]`,
      `[${expected.dims.join(', ')}] as the background has it (encode all prompts with the same model)`,
    );
  }
  if (prompt.pooled?.dims.join() !== background.pooled?.dims.join()) {
    const shown = ({ pooled }: Prompt): string => (pooled ? `[${pooled.dims.join(', ')}]` : 'none');
    throw new InvalidInputError(
      `${where}.conditioning.pooled`,
      shown(prompt),
      `${shown(background)} as the background has it (encode all prompts with the same model)`,
    );
  }
  const { height, width } = canvas.grid;
  const plane = yield* maskPlane(region.mask, `${where}.mask`);
  const outline = yield* reduceMask(plane, height, width);
  const feather = options.feather * Math.min(height, width);
  const first = Math.min(evaluations - 1, Math.round(options.start * evaluations));
  return {
    ...prompt,
    name: typeof region.name === 'string' && region.name.trim() ? region.name : `region ${index + 1}`,
    outline,
    feather,
    ...(yield* softEdges(outline, feather, canvas)),
    weight: options.weight,
    bootstrap: options.bootstrap,
    first,
    last: Math.max(first + 1, Math.round(options.end * evaluations)),
    ...(options.seed === undefined ? {} : { seed: options.seed }),
  };
}

/**
 * A region's options.
 * @param where how to call the region in errors
 * @param sources in order of precedence
 * @throws InvalidInputError naming the region and the property
 */
export function regionOptions(
  where: string,
  ...sources: Array<Record<string, unknown>>
): Values<typeof REGION_OPTIONS> {
  try {
    const options = resolveOptions(REGION_OPTIONS, ...sources);
    if (options.end <= options.start)
      throw new InvalidInputError('end', options.end, `more than start, which is ${options.start}`);
    return options;
  } catch (error) {
    if (error instanceof InvalidInputError)
      throw new InvalidInputError(`${where}.${error.property}`, error.value, error.allowed);
    throw error;
  }
}

function sharedPooled(
  { pooled, negativePooled }: Conditioning,
  name: string,
  share: ShareTensor,
): Pick<Prompt, 'pooled' | 'negativePooled'> {
  if (pooled === undefined || pooled === null) return {};
  return {
    pooled: share(checkPooled(pooled, `${name}.pooled`)),
    negativePooled: share(checkPooled(negativePooled, `${name}.negativePooled`)),
  };
}

function checkPooled(value: unknown, name: string): Tensor {
  if (value === undefined || value === null)
    throw new MissingInputError(name, 'Encode the prompt with a text-encode node.');
  const tensor = Tensor.from(value, name);
  if (tensor.dims.length !== 2 || tensor.dims[0] !== 1 || tensor.size === 0)
    throw new InvalidInputError(name, `[${tensor.dims.join(', ')}]`, '[1, width]');
  return value instanceof Tensor ? value : tensor;
}

function checkEmbeddings(value: unknown, name: string): Tensor {
  if (value === undefined || value === null)
    throw new MissingInputError(name, 'Encode the prompt with a text-encode node.');
  const tensor = Tensor.from(value, name);
  if (tensor.dims.length !== 3 || tensor.dims[0] !== 1 || tensor.size === 0) {
    throw new InvalidInputError(name, `[${tensor.dims.join(', ')}]`, '[1, tokens, width]');
  }
  // The caller's own object where possible: it may have crossed to the inference process before.
  return value instanceof Tensor ? value : tensor;
}

function sameTensor(a: Tensor, b: Tensor): boolean {
  return (
    a.dtype === b.dtype &&
    a.dims.join() === b.dims.join() &&
    Buffer.compare(Buffer.from(a.buffer), Buffer.from(b.buffer)) === 0
  );
}
