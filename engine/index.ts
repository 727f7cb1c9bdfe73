/** The engine without Node-RED: require('node-red-contrib-multidiffusion/engine'). */
export * from './errors';
export * from './tensor';
export * from './options';
export * from './model';
export * from './queue/queue';
export * from './types';
export { addressedNoise, torchNoise } from './noise';
export { createScheduler, withScheduler } from './schedulers';
export type { Scheduler, SchedulerConfig, PredictionType, StepNoise } from './schedulers/scheduler';
export { Checkpoint, openCheckpoint } from './checkpoint/checkpoint';
export type {
  CheckpointOptions,
  DecodeOptions,
  EncodedPrompt,
  ProcessState,
  ProcessStatus,
} from './checkpoint/checkpoint';
export { fetchRepository, findRepository } from './hub/hub';
export type { HubProgress, HubRequest } from './hub/hub';
export { reportCheckpoint } from './checkpoint/report';
export type { CheckpointReport } from './checkpoint/report';
export { acquireCheckpoint, closeUnusedCheckpoints } from './checkpoint/pool';
export type { CheckpointEvents, CheckpointSource, CheckpointUse, UseOptions } from './checkpoint/pool';
export { begin, sample, takeStep } from './multidiffusion/sample';
export type { SampleResult } from './multidiffusion/sample';
export type { Plan, Progress, SampleRequest } from './multidiffusion/plan';
export type { State, Timings } from './multidiffusion/state';
export { withBootstrapping, withFusion } from './multidiffusion/strategy';
export type { Bootstrapping, Fusion, Strategy } from './multidiffusion/strategy';
export { prepareBackgrounds, prepareInputs } from './multidiffusion/bootstrap';
export type { StepInput } from './multidiffusion/bootstrap';
export { predictNoise } from './multidiffusion/guidance';
export { fuse } from './multidiffusion/fusion';
export type { Prediction } from './multidiffusion/fusion';
export { checkShape, findShape, restMask, shapeMask } from './regions/shapes';
export type { Box, Point, Shape } from './regions/shapes';
export { latentColours, previewImage } from './multidiffusion/colours';
export type { LatentColours } from './multidiffusion/colours';
export { readPicture } from './image/picture';
export { encodeImage } from './image/encode';
export type { EncodeOptions, ImageFormat } from './image/encode';
export { readRecipe } from './image/metadata';
/** What readRecipe was called in 0.1.0. */
export { readRecipe as readGeneration } from './image/metadata';
export type { Recipe, RecipeRegion } from './image/recipe';
