/** The families of models that are understood, and what each has of its own. */

export type FamilyName = 'stable-diffusion' | 'sdxl' | 'sd3' | 'flux';

export interface Family {
  name: FamilyName;
  /** As users know it. */
  title: string;
  /** Of the VAE, where no config.json states them. */
  scalingFactor: number;
  shiftFactor: number;
  latentChannels: number;
  /** Side in latent cells of the pictures that it was trained on, where no config.json states it. */
  latentSize: number;
  /** Text encoders, in the order of their folders: what is taken from each. */
  encoders: EncoderRole[];
  /** What an absent negative prompt is: an empty text, zeros, or no row at all. */
  absentNegative: 'empty' | 'zeros' | 'none';
}

export interface EncoderRole {
  kind: 'clip' | 't5';
  states?: 'last' | 'penultimate';
  pooled?: 'projected' | 'pooled';
  /** Whether the checkpoint works without it: zeros stand in its place. */
  optional?: boolean;
}

const PENULTIMATE = { kind: 'clip', states: 'penultimate' } as const;

export const FAMILIES: Record<FamilyName, Family> = {
  'stable-diffusion': {
    name: 'stable-diffusion',
    title: 'Stable Diffusion',
    scalingFactor: 0.18215,
    shiftFactor: 0,
    latentChannels: 4,
    latentSize: 64,
    encoders: [{ kind: 'clip', states: 'last' }],
    absentNegative: 'empty',
  },
  sdxl: {
    name: 'sdxl',
    title: 'Stable Diffusion XL',
    scalingFactor: 0.13025,
    shiftFactor: 0,
    latentChannels: 4,
    latentSize: 128,
    encoders: [PENULTIMATE, { ...PENULTIMATE, pooled: 'projected' }],
    absentNegative: 'zeros',
  },
  sd3: {
    name: 'sd3',
    title: 'Stable Diffusion 3',
    scalingFactor: 1.5305,
    shiftFactor: 0.0609,
    latentChannels: 16,
    latentSize: 128,
    encoders: [
      { ...PENULTIMATE, pooled: 'projected' },
      { ...PENULTIMATE, pooled: 'projected' },
      { kind: 't5', states: 'last', optional: true },
    ],
    absentNegative: 'empty',
  },
  flux: {
    name: 'flux',
    title: 'FLUX.1',
    scalingFactor: 0.3611,
    shiftFactor: 0.1159,
    latentChannels: 16,
    latentSize: 128,
    encoders: [
      { kind: 'clip', pooled: 'pooled' },
      { kind: 't5', states: 'last' },
    ],
    absentNegative: 'none',
  },
};

/** Tokens of a T5 encoder, unless somebody says otherwise: what diffusers' pipelines and FLUX.1's program take. */
export const T5_TOKENS = { sd3: 256, dev: 512, schnell: 256 };
