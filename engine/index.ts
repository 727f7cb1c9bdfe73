/** The engine without Node-RED: require('node-red-contrib-multidiffusion/engine'). */
export * from './errors';
export * from './tensor';
export * from './options';
export * from './model';
export * from './jobs';
export * from './multidiffusion/types';
export type { Scheduler, SchedulerConfig, PredictionType, StepNoise } from './schedulers/scheduler';
export { Checkpoint, openCheckpoint } from './checkpoint/checkpoint';
export type { CheckpointOptions, DecodeOptions, EncodedPrompt, ProcessState, ProcessStatus } from './checkpoint/checkpoint';
export { acquireCheckpoint, closeUnusedCheckpoints } from './checkpoint/pool';
export type { CheckpointLease, LeaseOptions } from './checkpoint/pool';
