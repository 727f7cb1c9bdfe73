/** All schedulers, made from a checkpoint's scheduler_config.json. */
import { InvalidInputError, MissingInputError, MultiDiffusionError } from '../errors';
import { FLOW_SCHEDULER_NAMES, SCHEDULER_NAMES } from '../options';
import type { RunOptions, SchedulerFactory } from './common';
import { flag, integer, number, readFields } from './config';
import { ddim } from './ddim';
import { ddpm } from './ddpm';
import { dpmSolver } from './dpm-solver';
import { euler } from './euler';
import { eulerAncestral } from './euler-ancestral';
import { dynamicShift, FLOW_MATCH_FIELDS, FLOW_RUN_FIELDS } from './flow';
import { flowMatchEuler } from './flow-match-euler';
import { flowMatchHeun } from './flow-match-heun';
import { heun } from './heun';
import { lcm } from './lcm';
import { pndm } from './pndm';
import type { Scheduler, SchedulerConfig } from './scheduler';
import { unipc } from './unipc';

export { parsePythonJson } from './config';
export type { RunOptions } from './common';
export type { PredictionType, Scheduler, SchedulerConfig, StepNoise } from './scheduler';

export type SchedulerName = (typeof SCHEDULER_NAMES)[number] | (typeof FLOW_SCHEDULER_NAMES)[number];

const FACTORIES: Record<SchedulerName, SchedulerFactory> = {
  DDIMScheduler: ddim,
  DPMSolverMultistepScheduler: dpmSolver,
  EulerDiscreteScheduler: euler,
  EulerAncestralDiscreteScheduler: eulerAncestral,
  HeunDiscreteScheduler: heun,
  UniPCMultistepScheduler: unipc,
  PNDMScheduler: pndm,
  DDPMScheduler: ddpm,
  LCMScheduler: lcm,
  FlowMatchEulerDiscreteScheduler: flowMatchEuler,
  FlowMatchHeunDiscreteScheduler: flowMatchHeun,
};

/** Schedulers of models whose outputs mean something else: none of ours can stand in for them. */
const OTHER_MODELS = /EDM|CMStochastic|ConsistencyDecoder|ScoreSdeVe|KarrasVe|VQDiffusion|Amused/i;

/** What samples flow matching. */
const FLOW_SCHEDULERS: readonly string[] = [
  ...FLOW_SCHEDULER_NAMES,
  'DPMSolverMultistepScheduler',
  'UniPCMultistepScheduler',
] satisfies SchedulerName[];

/** Whether a configuration is that of a flow-matching model. */
export function isFlowMatching(config: SchedulerConfig): boolean {
  return String(config._class_name).startsWith('FlowMatch') || config.use_flow_sigmas === true;
}

/**
 * The µ that a configuration with use_dynamic_shifting needs, for a picture of so many tokens.
 * @returns undefined where the configuration shifts by a fixed amount
 */
export function dynamicShiftOf(config: SchedulerConfig, tokens: number): number | undefined {
  const { use_dynamic_shifting } = readFields('', { use_dynamic_shifting: flag(false) }, config);
  return use_dynamic_shifting ? dynamicShift(readFields('', FLOW_MATCH_FIELDS, config), tokens) : undefined;
}

/**
 * The scheduler of a scheduler_config.json, for one run.
 * @param config as diffusers writes it, with `_class_name`; fields that are missing get that class' defaults
 * @param steps inference steps, from 1 to num_train_timesteps; some methods evaluate the model more often
 * @throws InvalidInputError naming the field, its value and what is supported
 * @throws MissingInputError when there is no `_class_name`
 */
export function createScheduler(config: SchedulerConfig, steps: number, options: RunOptions = {}): Scheduler {
  const factory = FACTORIES[checkName(config)];
  const { num_train_timesteps: train } = readFields(
    config._class_name!,
    { num_train_timesteps: integer(1000, 1, 100_000) },
    config,
  );
  if (!Number.isInteger(steps) || steps < 1 || steps > train)
    throw new InvalidInputError('steps', steps, `a whole number from 1 to ${train}`);
  const fields = { eta: number(0, 0, 1), startStep: integer(0, 0, steps - 1), ...FLOW_RUN_FIELDS };
  const run = readFields('run', fields, { ...options });
  return factory(config, steps, run);
}

/**
 * The checkpoint's configuration for a sampler of the user's choice, as diffusers' `from_config`: what the
 * model was trained with (betas, kind of prediction, …) stays, fields of the other sampler go unread, and
 * what the file doesn't say gets the new class' own defaults.
 * @throws InvalidInputError when the checkpoint's model is of another kind, or the name is unknown
 */
export function withScheduler(checkpointConfig: SchedulerConfig, name: SchedulerName): SchedulerConfig {
  const original = checkpointConfig._class_name;
  if (original !== undefined && OTHER_MODELS.test(original)) checkName(checkpointConfig);
  const config = { ...checkpointConfig, _class_name: name };
  checkName(config);
  const flow = isFlowMatching(checkpointConfig);
  if (flow && !FLOW_SCHEDULERS.includes(name))
    throw new InvalidInputError(
      'scheduler',
      name,
      `${FLOW_SCHEDULERS.join(', ')}: this model was trained by flow matching`,
    );
  if (!flow && name.startsWith('FlowMatch'))
    throw new InvalidInputError(
      'scheduler',
      name,
      `${SCHEDULER_NAMES.join(', ')}: this model was not trained by flow matching`,
    );
  return flow ? { ...config, ...flowFields(checkpointConfig, name) } : config;
}

/** One class calls shift what the other calls flow_shift. */
function flowFields(config: SchedulerConfig, name: SchedulerName): SchedulerConfig {
  const shift = config.shift ?? config.flow_shift;
  if (name.startsWith('FlowMatch')) return { shift, use_flow_sigmas: undefined, prediction_type: undefined };
  return { flow_shift: config.flow_shift ?? shift, use_flow_sigmas: true, prediction_type: 'flow_prediction' };
}

function checkName(config: SchedulerConfig): SchedulerName {
  if (typeof config !== 'object' || config === null)
    throw new InvalidInputError('schedulerConfig', config, 'the object in a scheduler_config.json');
  const name = config._class_name;
  const known = Object.keys(FACTORIES).join(', ');
  if (name === undefined)
    throw new MissingInputError('_class_name', `The scheduler's configuration must name one of ${known}.`);
  if (Object.hasOwn(FACTORIES, name)) return name as SchedulerName;
  if (OTHER_MODELS.test(name)) {
    throw new MultiDiffusionError(
      'CHECKPOINT',
      `_class_name is "${name}": this checkpoint is of a kind that is not supported, and none of the ` +
        'schedulers here can sample it. Choose another checkpoint.',
    );
  }
  throw new InvalidInputError(
    '_class_name',
    name,
    `${known}; choose one of these as the scheduler of the sampler instead of the checkpoint's own`,
  );
}
