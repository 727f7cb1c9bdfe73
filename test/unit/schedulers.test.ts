import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { InvalidInputError, MissingInputError, MultiDiffusionError } from '../../dist/engine/errors';
import { TorchGenerator, torchNoise } from '../../dist/engine/noise';
import { FLOW_SCHEDULER_NAMES, SCHEDULER_NAMES } from '../../dist/engine/options';
import {
  createScheduler,
  dynamicShiftOf,
  parsePythonJson,
  withScheduler,
  type PredictionType,
  type Scheduler,
  type SchedulerConfig,
  type SchedulerName,
} from '../../dist/engine/schedulers';
import { Tensor } from '../../dist/engine/tensor';

type Latents = Tensor<'float32'>;

const fixtures = path.join(__dirname, '../fixtures');
const readJson = (file: string) => JSON.parse(fs.readFileSync(path.join(fixtures, file), 'utf8'));

/** Stable Diffusion's betas. */
const BETAS = { beta_start: 0.00085, beta_end: 0.012, beta_schedule: 'scaled_linear' };
/** What most repositories of Stable Diffusion 1 and 2 say. */
const SD_CONFIG = { ...BETAS, set_alpha_to_one: false, skip_prk_steps: true, steps_offset: 1, clip_sample: false };

const noNoise = () => assert.fail('a deterministic scheduler asked for noise');

describe('schedulers', () => {
  describe('golden trajectories', () => {
    interface Golden {
      scheduler: string;
      config: SchedulerConfig;
      steps: number;
      step_options: { eta?: number };
      /** Of flow matching: what the pipeline passes besides the number of steps. */
      set_timesteps?: { sigmas?: number[]; mu?: number };
      timesteps: number[];
      sigmas?: number[];
      init_noise_sigma: number;
      shape: number[];
      initial_sample: number[];
      noises: number[][];
      samples: number[][];
    }
    for (const golden of [
      ...readJson('golden/schedulers.json'),
      ...readJson('golden/schedulers-flow.json'),
    ] as Golden[]) {
      const run = { ...golden.step_options, ...golden.set_timesteps };
      it(`${golden.scheduler} ${describeConfig(golden.config)}, ${golden.steps} steps ${describeConfig(run)}`, () => {
        const scheduler = createScheduler({ _class_name: golden.scheduler, ...golden.config }, golden.steps, run);
        assert.deepEqual(single(scheduler.timesteps), single(golden.timesteps));
        if (golden.sigmas) relative(scheduler.sigmas!, golden.sigmas, 1e-6);
        assert.ok(Math.abs(scheduler.initNoiseSigma / golden.init_noise_sigma - 1) < 1e-6);

        let asked = 0;
        const noise = (index: number) => {
          asked++;
          return Tensor.float32(golden.noises[index], golden.shape);
        };
        let sample = Tensor.float32(golden.initial_sample, golden.shape);
        for (let index = 0; index < scheduler.timesteps.length; index++) {
          sample = scheduler.step(analyticModel(scheduler, sample, index), index, sample, noise);
          relative(sample.data, golden.samples[index], 1e-4);
        }
        assert.equal(scheduler.timesteps.length, golden.samples.length);
        assert.equal(asked, golden.noises.length);
      });
    }
  });

  describe('more configurations, as diffusers computes them', () => {
    interface Case {
      scheduler: SchedulerName;
      config: SchedulerConfig;
      steps: number;
      options: { eta?: number; startStep?: number };
      timesteps: number[];
      initNoiseSigma: number;
      final: number[];
    }
    const shape = [1, 2, 2, 3];
    const cases: Case[] = readJson('schedulers.json').cases;
    for (const name of SCHEDULER_NAMES) {
      const own = cases.filter((each) => each.scheduler === name);
      it(`${name}: ${own.length} of them`, () => {
        assert.ok(own.length >= 10);
        for (const { config, steps, options, timesteps, initNoiseSigma, final } of own) {
          const what = `${describeConfig(config)}, ${steps} steps ${describeConfig(options)}`;
          const scheduler = createScheduler({ _class_name: name, ...config }, steps, options);
          // Timesteps found for a spread-out σ are logarithms in single precision: the last bit is not ours.
          relative(scheduler.timesteps, timesteps, 1e-6, what);
          assert.ok(Math.abs(scheduler.initNoiseSigma / initNoiseSigma - 1) < 1e-6, what);

          const generator = new TorchGenerator(2);
          const noises: Latents[] = [];
          const noise = (index: number) => (noises[index] ??= generator.randn(shape));
          let sample = scale(torchNoise(1, shape), scheduler.initNoiseSigma);
          scheduler.timesteps.forEach((_, index) => {
            sample = scheduler.step(analyticModel(scheduler, sample, index), index, sample, noise);
          });
          relative(sample.data, final, 1e-4, what);
        }
      });
    }
  });

  describe('with a model that knows the picture', () => {
    const shape = [1, 4, 3, 5];
    const picture = torchNoise(11, shape);
    const noise = torchNoise(12, shape);

    for (const name of SCHEDULER_NAMES) {
      it(`${name} ends at the picture, whatever is predicted and however the timesteps are spaced`, () => {
        for (const prediction_type of ['epsilon', 'v_prediction', 'sample'] as PredictionType[]) {
          for (const timestep_spacing of ['leading', 'trailing', 'linspace']) {
            if (name === 'PNDMScheduler' && prediction_type !== 'epsilon') continue; // it adds up predictions of several levels
            const config = {
              ...SD_CONFIG,
              _class_name: name,
              prediction_type,
              timestep_spacing,
              set_alpha_to_one: true,
            };
            for (const steps of [1, 2, 5, 20]) {
              if (name === 'PNDMScheduler' && (timestep_spacing !== 'leading' || steps === 1)) continue; // it steps by a fixed stride
              const scheduler = createScheduler(config, steps);
              let sample = scale(noise, scheduler.initNoiseSigma);
              if (name === 'PNDMScheduler') sample = scheduler.addNoise(picture, noise, 0);
              scheduler.timesteps.forEach((_, index) => {
                const output = knowingModel(scheduler, picture, sample, index);
                sample = scheduler.step(output, index, sample, (i) => torchNoise(100 + i, shape));
              });
              // Consistency models keep a trace of the sample, less the later the timestep.
              const tolerance = name === 'LCMScheduler' ? 1e-2 : name === 'PNDMScheduler' ? 1e-4 : 1e-5;
              near(sample.data, picture.data, tolerance, `${prediction_type}, ${timestep_spacing}, ${steps} steps`);
            }
          }
        }
      });
    }

    // On the straight way from this noise to this picture every level is where addNoise says.
    const straight: [SchedulerName, SchedulerConfig][] = [
      ['DDIMScheduler', {}],
      ['DDIMScheduler', { prediction_type: 'v_prediction' }],
      ['DDIMScheduler', { prediction_type: 'sample', timestep_spacing: 'trailing' }],
      ['PNDMScheduler', {}],
      ['EulerDiscreteScheduler', {}],
      ['EulerDiscreteScheduler', { prediction_type: 'v_prediction', use_karras_sigmas: true }],
      ['EulerDiscreteScheduler', { prediction_type: 'sample', rescale_betas_zero_snr: true }],
      ['HeunDiscreteScheduler', {}],
      ['HeunDiscreteScheduler', { prediction_type: 'v_prediction', use_exponential_sigmas: true }],
      ...[1, 2, 3].flatMap((solver_order): [SchedulerName, SchedulerConfig][] => [
        ['DPMSolverMultistepScheduler', { solver_order }],
        [
          'DPMSolverMultistepScheduler',
          { solver_order, solver_type: 'heun', use_karras_sigmas: true, prediction_type: 'v_prediction' },
        ],
        [
          'DPMSolverMultistepScheduler',
          { solver_order, algorithm_type: 'dpmsolver', final_sigmas_type: 'sigma_min', prediction_type: 'sample' },
        ],
        ['UniPCMultistepScheduler', { solver_order }],
        ['UniPCMultistepScheduler', { solver_order, solver_type: 'bh1', prediction_type: 'v_prediction' }],
        ['UniPCMultistepScheduler', { solver_order, predict_x0: false, final_sigmas_type: 'sigma_min' }],
      ]),
    ];
    for (const [name, config] of straight) {
      it(`${name} ${describeConfig(config)} goes straight`, () => {
        const scheduler = createScheduler(
          { ...SD_CONFIG, _class_name: name, timestep_spacing: 'leading', ...config },
          10,
        );
        let sample = scheduler.addNoise(picture, noise, 0);
        for (let index = 0; index < scheduler.timesteps.length - 1; index++) {
          sample = scheduler.step(knowingModel(scheduler, picture, sample, index), index, sample, noNoise);
          const expected = scheduler.addNoise(picture, noise, index + 1).data;
          near(sample.data, expected, 2e-5 * Math.max(...expected.map(Math.abs)), `after step ${index}`);
        }
      });
    }
  });

  it('higher orders are nearer the exact solution', () => {
    // Latents that are Gaussian of variance s²: the best prediction and its whole trajectory are known.
    const variance = 0.25;
    const start = torchNoise(5, [1, 1, 4, 4]);
    const error = (name: string, config: SchedulerConfig, steps: number): number => {
      const exact = { final_sigmas_type: 'sigma_min', lower_order_final: false, use_exponential_sigmas: true };
      const scheduler = createScheduler({ ...BETAS, ...exact, ...config, _class_name: name }, steps);
      const spread = ({ alpha, sigma }: Level) => Math.sqrt(alpha ** 2 * variance + sigma ** 2);
      const first = levelAt(scheduler, 0);
      let sample = scale(start, spread(first));
      let last = first;
      // The last step of these configurations has no length, or ends without noise: compare before it.
      for (let index = 0; index < scheduler.timesteps.length - 1; index++) {
        const level = levelAt(scheduler, index);
        const epsilon = scale(sample, (level.sigma / spread(level) ** 2) * 1);
        sample = scheduler.step(epsilon, index, sample, noNoise);
        last = levelAt(scheduler, index + 1);
      }
      const ends = scale(start, spread(last)).data;
      return Math.max(...sample.data.map((x, i) => Math.abs(x - ends[i]))) / spread(last);
    };

    const first = error('DPMSolverMultistepScheduler', { solver_order: 1 }, 20);
    for (const solver_type of ['midpoint', 'heun']) {
      const second = error('DPMSolverMultistepScheduler', { solver_order: 2, solver_type }, 20);
      assert.ok(second < first / 3, `order 2 ${solver_type}: ${second}, order 1: ${first}`);
      const third = error('DPMSolverMultistepScheduler', { solver_order: 3, solver_type }, 20);
      assert.ok(third < second, `order 3 ${solver_type}: ${third}, order 2: ${second}`);
    }
    for (const solver_type of ['bh1', 'bh2']) {
      const errors = [1, 2, 3].map((solver_order) =>
        error('UniPCMultistepScheduler', { solver_order, solver_type }, 20),
      );
      assert.ok(errors[0] < first / 3, `the corrector raises the order: ${errors[0]}`);
      assert.ok(errors[1] < errors[0] && errors[2] < errors[0], `UniPC ${solver_type}: ${errors}`);
    }
    assert.ok(
      Math.abs(error('DPMSolverMultistepScheduler', { solver_order: 1 }, 40) / first - 1 / 2) < 0.1,
      'order 1 halves with the step',
    );
    assert.ok(
      error('HeunDiscreteScheduler', {}, 40) < error('HeunDiscreteScheduler', {}, 20) / 3.5,
      'Heun is of order 2',
    );
    assert.ok(error('HeunDiscreteScheduler', {}, 20) < error('EulerDiscreteScheduler', {}, 20) / 3);
  });

  describe('every scheduler', () => {
    const shape = [1, 4, 2, 3];

    for (const name of SCHEDULER_NAMES) {
      describe(name, () => {
        const make = (steps = 6, config: SchedulerConfig = {}, options = {}) =>
          createScheduler({ ...SD_CONFIG, ...config, _class_name: name }, steps, options);

        it('takes steps in order only, each once', () => {
          const scheduler = make();
          const sample = torchNoise(1, shape);
          const step = (index: number) => scheduler.step(sample, index, sample, () => sample);
          assert.throws(() => step(1), /step 1 when step 0/);
          step(0);
          assert.throws(() => step(0), MultiDiffusionError);
          assert.throws(() => step(2), MultiDiffusionError);
          step(1);
        });

        it('runs the same twice, and leaves its inputs alone', () => {
          const run = () => {
            const scheduler = make();
            let sample = scale(torchNoise(1, shape), scheduler.initNoiseSigma);
            scheduler.timesteps.forEach((_, index) => {
              const before = sample.data.slice();
              const output = analyticModel(scheduler, sample, index);
              const next = scheduler.step(output, index, sample, (i) => torchNoise(10 + i, shape));
              assert.deepEqual(sample.data, before);
              assert.deepEqual(next.dims, shape);
              sample = next;
            });
            return sample;
          };
          assert.deepEqual(run().data, run().data);
        });

        it('takes the mean of two outputs to the mean of two samples', () => {
          // Fusing predictions before the step is then the same as fusing samples after it.
          fc.assert(
            fc.property(fc.nat(1e6), fc.double({ min: 0, max: 1, noNaN: true }), (seed, weight) => {
              const sample = torchNoise(seed, shape);
              const [a, b, noise] = [1, 2, 3].map((i) => torchNoise(seed + i, shape));
              const mix = (x: Latents, y: Latents) =>
                Tensor.float32(
                  x.data.map((v, i) => weight * v + (1 - weight) * y.data[i]),
                  shape,
                );
              const step = (output: Latents) => make().step(output, 0, sample, () => noise);
              near(step(mix(a, b)).data, mix(step(a), step(b)).data, 1e-3 * Math.max(1, ...step(a).data.map(Math.abs)));
            }),
            { numRuns: 20 },
          );
        });

        it('adds noise in its own scale', () => {
          for (const config of [
            {},
            { timestep_spacing: 'leading' },
            { timestep_spacing: 'trailing' },
            { timestep_spacing: 'linspace' },
          ]) {
            const scheduler = make(6, config);
            const levels = scheduler.timesteps.map((_, index) => levelAt(scheduler, index));
            const exploding = levels[0].alpha === 1;
            assert.equal(exploding, /Euler|Heun/.test(name));
            const scaled = levels.map((level, index) => {
              const unit = Tensor.float32([1], [1]);
              assert.ok(index === 0 || level.sigma / level.alpha <= levels[index - 1].sigma / levels[index - 1].alpha);
              return scheduler.scaleModelInput(unit, index).data[0] * Math.hypot(level.alpha, level.sigma);
            });
            near(
              scaled,
              scaled.map(() => 1),
              1e-6,
              'model inputs have unit variance',
            );
            if (exploding)
              near(
                levels.map(({ sigma }) => sigma),
                scheduler.sigmas!.slice(0, -1),
                1e-6,
              );
            const first =
              exploding && scheduler.initNoiseSigma !== levels[0].sigma
                ? Math.hypot(1, levels[0].sigma)
                : Math.hypot(exploding ? 0 : levels[0].alpha, levels[0].sigma);
            near([scheduler.initNoiseSigma], [first], 1e-6, 'the initial noise');
          }
          if (!/Euler|Heun/.test(name)) {
            const sample = torchNoise(1, shape);
            assert.equal(make().scaleModelInput(sample, 0), sample, 'nothing to scale, nothing copied');
          }
        });

        it('starts later for a picture to begin with', () => {
          const whole = make(8);
          const late = make(8, {}, { startStep: 5 });
          const count = name === 'HeunDiscreteScheduler' ? 5 : name === 'PNDMScheduler' ? 4 : 3;
          assert.equal(late.timesteps.length, count);
          assert.deepEqual([...new Set(late.timesteps)], [...new Set(whole.timesteps)].slice(5));
          const [picture, noise] = [torchNoise(1, shape), torchNoise(2, shape)];
          assert.deepEqual(
            late.addNoise(picture, noise, 0).data,
            whole.addNoise(picture, noise, whole.timesteps.lastIndexOf(late.timesteps[0])).data,
          );
          let sample = late.addNoise(picture, noise, 0);
          late.timesteps.forEach((_, index) => {
            sample = late.step(knowingModel(late, picture, sample, index), index, sample, (i) =>
              torchNoise(10 + i, shape),
            );
          });
          near(sample.data, picture.data, 0.1);
        });

        it('refuses an output of another shape', () => {
          const scheduler = make();
          assert.throws(
            () => scheduler.step(torchNoise(1, [1, 4, 2, 2]), 0, torchNoise(1, shape), () => torchNoise(1, shape)),
            InvalidInputError,
          );
        });

        it('asks for noise only if it is stochastic, by the index of its step', () => {
          const stochastic = ['EulerAncestralDiscreteScheduler', 'DDPMScheduler', 'LCMScheduler'].includes(name);
          const scheduler = make();
          const asked: number[] = [];
          let sample = torchNoise(1, shape);
          scheduler.timesteps.forEach((_, index) => {
            sample = scheduler.step(analyticModel(scheduler, sample, index), index, sample, (i) => {
              asked.push(i);
              return torchNoise(i, shape);
            });
          });
          const all = scheduler.timesteps.map((_, index) => index);
          assert.deepEqual(asked, !stochastic ? [] : name === 'LCMScheduler' ? all.slice(0, -1) : all);
        });
      });
    }
  });

  describe('flow matching', () => {
    const shape = [1, 4, 3, 5];
    const [picture, noise] = [torchNoise(11, shape), torchNoise(12, shape)];
    const solvers = { use_flow_sigmas: true, prediction_type: 'flow_prediction' };
    const flows: [SchedulerName, SchedulerConfig][] = [
      ['FlowMatchEulerDiscreteScheduler', { shift: 3 }],
      ['FlowMatchEulerDiscreteScheduler', { shift: 3, use_exponential_sigmas: true }],
      ['FlowMatchHeunDiscreteScheduler', { shift: 3 }],
      ...[1, 2, 3].flatMap((solver_order): [SchedulerName, SchedulerConfig][] => [
        ['DPMSolverMultistepScheduler', { ...solvers, flow_shift: 3, solver_order }],
        ['DPMSolverMultistepScheduler', { ...solvers, solver_order, solver_type: 'heun' }],
        [
          'DPMSolverMultistepScheduler',
          { ...solvers, solver_order, algorithm_type: 'dpmsolver', final_sigmas_type: 'sigma_min' },
        ],
        ['UniPCMultistepScheduler', { ...solvers, flow_shift: 3, solver_order }],
        ['UniPCMultistepScheduler', { ...solvers, solver_order, use_karras_sigmas: true }],
      ]),
    ];
    for (const [name, config] of flows) {
      it(`${name} ${describeConfig(config)} goes straight, along (1 − σ)·picture + σ·noise`, () => {
        const scheduler = createScheduler({ _class_name: name, ...config }, 10);
        let sample = scheduler.addNoise(picture, noise, 0);
        const velocity = Tensor.float32(
          noise.data.map((x, i) => x - picture.data[i]),
          shape,
        );
        scheduler.timesteps.forEach((_, index) => {
          const sigma = scheduler.sigmas![index];
          const { alpha, sigma: level } = levelAt(scheduler, index);
          near([alpha, level], [1 - sigma, sigma], 1e-6);
          assert.equal(scheduler.scaleModelInput(sample, index), sample);
          // Of second-order methods, the sample of the second evaluation is that of the step's end.
          near(sample.data, scheduler.addNoise(picture, noise, index).data, 2e-5);
          sample = scheduler.step(velocity, index, sample, noNoise);
        });
        const end = scheduler.sigmas!.at(-1)!;
        near(
          sample.data,
          picture.data.map((x, i) => (1 - end) * x + end * noise.data[i]),
          2e-5,
        );
      });
    }

    it('draws noise for each step but not into the picture, where sampling is stochastic', () => {
      const config = { _class_name: 'FlowMatchEulerDiscreteScheduler', stochastic_sampling: true, shift: 2 };
      const scheduler = createScheduler(config, 4);
      const fresh = torchNoise(20, shape);
      const velocity = Tensor.float32(
        noise.data.map((x, i) => x - picture.data[i]),
        shape,
      );
      const sample = scheduler.step(velocity, 0, noise, () => fresh);
      near(sample.data, scheduler.addNoise(picture, fresh, 1).data, 1e-6);
    });

    it('starts later for a picture to begin with', () => {
      for (const [name, config] of flows) {
        const whole = createScheduler({ _class_name: name, ...config }, 8);
        const late = createScheduler({ _class_name: name, ...config }, 8, { startStep: 5 });
        assert.deepEqual([...new Set(late.timesteps)], [...new Set(whole.timesteps)].slice(5));
        assert.equal(late.timesteps.length, name === 'FlowMatchHeunDiscreteScheduler' ? 5 : 3);
      }
    });

    it('higher orders are nearer the exact solution', () => {
      // Latents that are Gaussian of variance s²: the best prediction and its whole trajectory are known.
      const variance = 0.25;
      const spread = ({ alpha, sigma }: Level) => Math.sqrt(alpha ** 2 * variance + sigma ** 2);
      const error = (name: SchedulerName, config: SchedulerConfig, steps: number): number => {
        const scheduler = createScheduler({ _class_name: name, ...config, lower_order_final: false }, steps);
        let sample = scale(noise, spread(levelAt(scheduler, 0)));
        const last = scheduler.timesteps.length - 1;
        for (let index = 0; index < last; index++) {
          const { alpha, sigma } = levelAt(scheduler, index);
          const slope = (sigma - alpha * variance) / spread({ alpha, sigma }) ** 2;
          sample = scheduler.step(scale(sample, slope), index, sample, noNoise);
        }
        const ends = scale(noise, spread(levelAt(scheduler, last))).data;
        return Math.max(...sample.data.map((x, i) => Math.abs(x - ends[i])));
      };
      const euler = error('FlowMatchEulerDiscreteScheduler', {}, 21);
      assert.ok(error('FlowMatchHeunDiscreteScheduler', {}, 21) < euler / 5);
      for (const name of ['DPMSolverMultistepScheduler', 'UniPCMultistepScheduler'] as const) {
        const [first, second] = [1, 2].map((solver_order) => error(name, { ...solvers, solver_order }, 21));
        assert.ok(second < first / 1.5, `${name}: order 2 ${second}, order 1 ${first}`);
      }
    });
  });

  describe('configurations', () => {
    const refused = (config: SchedulerConfig, steps: number, ...mentioned: string[]) =>
      assert.throws(
        () => createScheduler(config, steps),
        (error: unknown) => {
          assert.ok(error instanceof MultiDiffusionError, String(error));
          for (const part of mentioned)
            assert.ok(error.message.includes(part), `“${error.message}” doesn't mention ${part}`);
          return true;
        },
      );

    it('names the field, the value and what is supported', () => {
      const ddim = { _class_name: 'DDIMScheduler' };
      const dpm = { _class_name: 'DPMSolverMultistepScheduler' };
      const unipc = { _class_name: 'UniPCMultistepScheduler' };
      refused({ ...ddim, beta_schedule: 'cubic' }, 5, 'beta_schedule', '"cubic"', 'scaled_linear', 'DDIMScheduler');
      refused(
        { ...ddim, prediction_type: 'flow_prediction' },
        5,
        'prediction_type',
        '"flow_prediction"',
        'v_prediction',
      );
      refused(
        { ...ddim, timestep_spacing: 'karras' },
        5,
        'timestep_spacing',
        '"karras"',
        'leading, trailing, linspace',
      );
      refused({ ...ddim, steps_offset: 0.5 }, 5, 'steps_offset', '0.5');
      refused({ ...ddim, clip_sample: 'no' }, 5, 'clip_sample', '"no"', 'true or false');
      refused({ ...ddim, trained_betas: [0.1, 0.2] }, 5, 'trained_betas', '1000');
      refused({ ...ddim, trained_betas: 'file.npy' }, 5, 'trained_betas', 'file.npy');
      refused({ ...ddim, num_train_timesteps: 0 }, 1, 'num_train_timesteps', '0');
      refused(
        { ...ddim, rescale_betas_zero_snr: true, timestep_spacing: 'trailing', clip_sample: false },
        5,
        'prediction_type',
        'rescale_betas_zero_snr',
      );
      refused({ ...dpm, prediction_type: 'flow_prediction' }, 5, 'use_flow_sigmas', 'false', 'flow_prediction');
      for (const spread of ['use_karras_sigmas', 'use_exponential_sigmas', 'use_beta_sigmas', 'use_lu_lambdas'])
        refused({ ...dpm, use_flow_sigmas: true, [spread]: true }, 5, spread, 'use_flow_sigmas');
      refused(
        { ...unipc, use_flow_sigmas: true, predict_x0: false, final_sigmas_type: 'sigma_min' },
        5,
        'predict_x0',
        'use_flow_sigmas',
      );
      refused({ ...unipc, use_flow_sigmas: true, use_beta_sigmas: true }, 5, 'use_beta_sigmas', 'use_flow_sigmas');
      for (const _class_name of FLOW_SCHEDULER_NAMES) {
        refused({ _class_name, shift: 0 }, 5, 'shift', '0');
        refused({ _class_name, invert_sigmas: true }, 5, 'invert_sigmas', 'video');
        refused({ _class_name, use_dynamic_shifting: true }, 5, 'mu', 'use_dynamic_shifting');
        refused({ _class_name, time_shift_type: 'cubic' }, 5, 'time_shift_type', 'exponential, linear');
      }
      for (const sigmas of [
        [1, 0.5],
        [1, 0.5, 0.6],
        [1.1, 0.5, 0.2],
        [1, 0.5, 0],
        ['a', 1, 1],
      ]) {
        assert.throws(
          () => createScheduler({ _class_name: FLOW_SCHEDULER_NAMES[0] }, 3, { sigmas: sigmas as number[] }),
          /^sigmas is/,
        );
      }
      refused({ ...dpm, use_karras_sigmas: true, use_beta_sigmas: true }, 5, 'use_beta_sigmas', 'use_karras_sigmas');
      refused({ ...unipc, shift_terminal: 0.02 }, 5, 'shift_terminal', '0.02');
      refused({ ...dpm, use_karras_sigmas: true, use_exponential_sigmas: true }, 5, 'use_exponential_sigmas');
      refused({ ...dpm, solver_order: 4 }, 5, 'solver_order', '4', '1 to 3');
      refused({ ...dpm, algorithm_type: 'dpmsolver+++' }, 5, 'algorithm_type', 'dpmsolver++');
      refused({ ...dpm, algorithm_type: 'dpmsolver' }, 5, 'final_sigmas_type', 'sigma_min');
      refused(
        { ...dpm, algorithm_type: 'sde-dpmsolver', solver_order: 3, final_sigmas_type: 'sigma_min' },
        5,
        'solver_order',
        '3',
      );
      refused({ ...dpm, variance_type: 'learned_range' }, 5, 'variance_type', 'learned_range');
      refused({ ...unipc, solver_p: { _class_name: 'DDIMScheduler' } }, 5, 'solver_p');
      refused({ ...unipc, predict_x0: false }, 5, 'final_sigmas_type', 'predict_x0');
      refused(
        { _class_name: 'DDPMScheduler', variance_type: 'learned' },
        5,
        'variance_type',
        '"learned"',
        'fixed_small',
      );
      refused(
        { _class_name: 'EulerDiscreteScheduler', interpolation_type: 'cubic' },
        5,
        'interpolation_type',
        '"cubic"',
      );
      refused({ _class_name: 'LCMScheduler', original_inference_steps: 2000 }, 5, 'original_inference_steps', '2000');
    });

    it('names the class, and what to do about it', () => {
      refused({}, 5, '_class_name', 'DDIMScheduler');
      assert.throws(() => createScheduler({}, 5), MissingInputError);
      for (const name of [
        'LMSDiscreteScheduler',
        'KDPM2DiscreteScheduler',
        'DEISMultistepScheduler',
        'DPMSolverSinglestepScheduler',
        'TCDScheduler',
        'constructor',
      ]) {
        refused({ _class_name: name }, 5, '_class_name', name, 'DPMSolverMultistepScheduler', 'sampler');
      }
      for (const name of ['EDMEulerScheduler', 'EDMDPMSolverMultistepScheduler', 'CMStochasticIterativeScheduler']) {
        refused({ _class_name: name }, 5, name, 'another checkpoint');
      }
      refused(null as unknown as SchedulerConfig, 5, 'scheduler_config.json');
    });

    it('says how many steps there may be', () => {
      for (const name of SCHEDULER_NAMES) {
        for (const steps of [0, -1, 1.5, NaN, 1001, '10' as unknown as number])
          refused({ _class_name: name }, steps, 'steps', '1000');
      }
      refused({ _class_name: 'DDIMScheduler', steps_offset: 1 }, 1000, 'steps', 'steps_offset');
      refused({ _class_name: 'LCMScheduler' }, 51, 'steps', '50');
      refused({ _class_name: 'PNDMScheduler' }, 3, 'steps', '4', 'skip_prk_steps');
      refused({ _class_name: 'DPMSolverMultistepScheduler' }, 1000, 'steps', '1000');
      assert.equal(createScheduler({ _class_name: 'DDIMScheduler' }, 1000).timesteps.length, 1000);
      assert.throws(
        () => createScheduler({ _class_name: 'DDIMScheduler' }, 5, { eta: 2 }),
        /eta is 2; allowed: a number from 0 to 1/,
      );
      assert.throws(
        () => createScheduler({ _class_name: 'DDIMScheduler' }, 5, { startStep: 5 }),
        /startStep is 5; allowed: a whole number from 0 to 4/,
      );
    });

    it('has as many trailing timesteps as steps', () => {
      // 1000 / (1000 / 61) is a little more than 61 in floating point.
      for (const steps of [61, 103, 121, 769]) {
        for (const name of ['DDIMScheduler', 'EulerDiscreteScheduler', 'DPMSolverMultistepScheduler']) {
          const { timesteps } = createScheduler({ _class_name: name, timestep_spacing: 'trailing' }, steps);
          assert.equal(timesteps.length, steps);
          assert.ok(timesteps.every((t) => t >= 0));
        }
      }
    });

    it('goes by the defaults of the class for what is missing, null or only a default of another version', () => {
      const own = createScheduler({ _class_name: 'DPMSolverMultistepScheduler', ...BETAS }, 10).timesteps;
      assert.deepEqual(own.slice(0, 2), [999, 899]); // linspace
      const nulls = { trained_betas: null, timestep_spacing: null, variance_type: null, lambda_min_clipped: null };
      assert.deepEqual(
        createScheduler({ _class_name: 'DPMSolverMultistepScheduler', ...BETAS, ...nulls }, 10).timesteps,
        own,
      );
      const saved = { timestep_spacing: 'leading', _use_default_values: ['timestep_spacing'] };
      assert.deepEqual(
        createScheduler({ _class_name: 'DPMSolverMultistepScheduler', ...BETAS, ...saved }, 10).timesteps,
        own,
      );
      assert.notDeepEqual(
        createScheduler({ _class_name: 'DPMSolverMultistepScheduler', ...BETAS, timestep_spacing: 'leading' }, 10)
          .timesteps,
        own,
      );
    });

    it('leaves fields of other schedulers alone', () => {
      const config = {
        _class_name: 'EulerDiscreteScheduler',
        ...SD_CONFIG,
        _diffusers_version: '0.8.0',
        solver_order: 7,
        sample_max_value: 'x',
        future: {},
      };
      assert.equal(createScheduler(config, 5).config, config);
    });

    it('keeps what the model was trained with under another sampler', () => {
      const checkpoint = {
        _class_name: 'PNDMScheduler',
        ...SD_CONFIG,
        prediction_type: 'v_prediction',
        solver_type: 'logrho',
      };
      for (const name of SCHEDULER_NAMES) {
        const config = withScheduler(checkpoint, name);
        const scheduler = createScheduler(config, 4);
        assert.equal(scheduler.name, name);
        assert.equal(scheduler.predictionType, 'v_prediction');
        const { alpha, sigma } = levelAt(scheduler, 0);
        const expected = levelAt(
          createScheduler({ ...BETAS, _class_name: 'EulerDiscreteScheduler', timestep_spacing: 'trailing' }, 4),
          0,
        ).sigma;
        if (scheduler.timesteps[0] === 999) near([sigma / alpha], [expected], 1e-4);
      }
      assert.equal(checkpoint._class_name, 'PNDMScheduler');
      assert.equal(
        withScheduler({ ...BETAS, _class_name: 'LMSDiscreteScheduler' }, 'DDIMScheduler')._class_name,
        'DDIMScheduler',
      );
      assert.throws(() => withScheduler(checkpoint, 'LMSDiscreteScheduler' as SchedulerName), InvalidInputError);
      assert.throws(
        () => withScheduler({ _class_name: 'EDMEulerScheduler' }, 'EulerDiscreteScheduler'),
        /another checkpoint/,
      );
    });

    it('keeps a flow a flow under another sampler, and a diffusion one', () => {
      const checkpoint = { _class_name: 'FlowMatchEulerDiscreteScheduler', shift: 3 };
      assert.equal(
        withScheduler({ ...BETAS, _class_name: 'DDIMScheduler' }, 'UniPCMultistepScheduler').use_flow_sigmas,
        undefined,
      );
      for (const name of [...FLOW_SCHEDULER_NAMES, 'DPMSolverMultistepScheduler', 'UniPCMultistepScheduler'] as const) {
        const config = withScheduler(checkpoint, name);
        const scheduler = createScheduler(config, 6);
        assert.equal(scheduler.predictionType, 'flow_prediction');
        // Half of the steps are taken above σ = shift/(1 + shift), whatever the class calls its shift.
        assert.equal(scheduler.sigmas!.filter((sigma) => sigma > 0.7).length >= 3, true);
        const back = createScheduler(withScheduler(config, 'FlowMatchEulerDiscreteScheduler'), 6);
        assert.deepEqual(back.sigmas, createScheduler(checkpoint, 6).sigmas);
      }
      for (const name of SCHEDULER_NAMES.filter((each) => !/DPMSolver|UniPC/.test(each)))
        assert.throws(() => withScheduler(checkpoint, name), /scheduler is ".*trained by flow matching/);
      for (const name of FLOW_SCHEDULER_NAMES)
        assert.throws(
          () => withScheduler({ ...BETAS, _class_name: 'DDIMScheduler' }, name),
          /not trained by flow matching/,
        );
    });

    it('shifts by the size of the picture where the configuration says so', () => {
      const config = { _class_name: 'FlowMatchEulerDiscreteScheduler', shift: 3, use_dynamic_shifting: true };
      assert.equal(dynamicShiftOf({ ...config, use_dynamic_shifting: false }, 256), undefined);
      near([dynamicShiftOf(config, 256)!, dynamicShiftOf(config, 4096)!], [0.5, 1.15], 1e-12);
      const other = { ...config, base_image_seq_len: 100, max_image_seq_len: 300, base_shift: 1, max_shift: 3 };
      near([dynamicShiftOf(other, 200)!], [2], 1e-12);
      for (const [name, mu] of [...FLOW_SCHEDULER_NAMES, 'DPMSolverMultistepScheduler', 'UniPCMultistepScheduler'].map(
        (each, i) => [each, 0.5 + i / 10] as const,
      )) {
        const dynamic = createScheduler(withScheduler(config, name as SchedulerName), 5, { mu });
        const still = createScheduler(
          withScheduler({ ...config, shift: Math.exp(mu), use_dynamic_shifting: false }, name as SchedulerName),
          5,
          { sigmas: FLOW_SCHEDULER_NAMES.includes(name as never) ? [1, 0.75025, 0.5005, 0.25075, 0.001] : undefined },
        );
        near(dynamic.sigmas!, still.sigmas!, 1e-6, name);
      }
    });

    it('takes sigmas of its own', () => {
      const sigmas = [0.9, 0.5, 0.2];
      for (const name of [...FLOW_SCHEDULER_NAMES, 'DPMSolverMultistepScheduler', 'UniPCMultistepScheduler'] as const) {
        const config = withScheduler({ _class_name: 'FlowMatchEulerDiscreteScheduler' }, name);
        const all = [...new Set(createScheduler(config, 3, { sigmas }).sigmas)];
        near(all, [...sigmas, 0], 1e-7);
      }
      const config = { _class_name: 'FlowMatchEulerDiscreteScheduler', shift: 2, shift_terminal: 0.1 };
      near([createScheduler(config, 3, { sigmas }).sigmas![2]], [0.1], 1e-6);
    });

    it('reads the infinite numbers that Python writes', () => {
      const text =
        '{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity, "x": ' +
        '[NaN, Infinity], "note": "-Infinity \\" NaN"}';
      const config = parsePythonJson(text) as SchedulerConfig;
      assert.equal(config.lambda_min_clipped, -Infinity);
      assert.deepEqual(config.x, [null, Infinity]);
      assert.equal(config.note, '-Infinity " NaN');
      assert.equal(createScheduler(config, 3).timesteps.length, 3);
      for (const damaged of ['', '{"a": 1', '{"a": nan}']) assert.throws(() => parsePythonJson(damaged), SyntaxError);
    });

    it('reads the files of real repositories', () => {
      for (const folder of ['tiny-sd2', 'tiny-sd15-fp16', 'tiny-lcm']) {
        const text = fs.readFileSync(
          path.join(fixtures, 'golden/checkpoints', folder, 'scheduler/scheduler_config.json'),
          'utf8',
        );
        const config = parsePythonJson(text) as SchedulerConfig;
        assert.equal(createScheduler(config, 4).name, config._class_name);
        for (const name of SCHEDULER_NAMES) createScheduler(withScheduler(config, name), 4);
      }
    });
  });
});

interface Level {
  alpha: number;
  sigma: number;
}

/** How much picture and how much noise there is in a sample before step `index`. */
function levelAt(scheduler: Scheduler, index: number): Level {
  const [zero, one] = [Tensor.float32([0], [1]), Tensor.float32([1], [1])];
  return { alpha: scheduler.addNoise(one, zero, index).data[0], sigma: scheduler.addNoise(zero, one, index).data[0] };
}

/** What a perfect model predicts for a sample of this picture, from the definitions of ε, v and x0. */
function knowingModel(scheduler: Scheduler, picture: Latents, sample: Latents, index: number): Latents {
  const { alpha, sigma } = levelAt(scheduler, index);
  const size = Math.hypot(alpha, sigma);
  return Tensor.float32(
    sample.data.map((x, i) => {
      const epsilon = (x - alpha * picture.data[i]) / sigma;
      if (scheduler.predictionType === 'epsilon') return epsilon;
      return scheduler.predictionType === 'sample'
        ? picture.data[i]
        : (alpha * epsilon - sigma * picture.data[i]) / size;
    }),
    sample.dims,
  );
}

/** The formula that stands for a UNet in the golden files. */
function analyticModel(scheduler: Scheduler, sample: Latents, index: number): Latents {
  const t = scheduler.timesteps[index];
  const input = scheduler.scaleModelInput(sample, index);
  return Tensor.float32(
    input.data.map((x) => 0.8 * Math.sin(1.3 * x + 0.01 * t) + 0.1 * x),
    input.dims,
  );
}

function scale(tensor: Latents, factor: number): Latents {
  return Tensor.float32(
    tensor.data.map((x) => x * factor),
    tensor.dims,
  );
}

function single(values: readonly number[]): number[] {
  return values.map(Math.fround);
}

/** Equal within `tolerance` times the largest magnitude expected. */
function relative(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number, what = ''): void {
  near(actual, expected, tolerance * Math.max(...Array.from(expected, Math.abs)), what);
}

function near(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number, what = ''): void {
  assert.equal(actual.length, expected.length, what);
  for (let i = 0; i < expected.length; i++) {
    assert.ok(
      Math.abs(actual[i] - expected[i]) <= tolerance,
      `${what}: value ${i} is ${actual[i]}, expected ${expected[i]}`,
    );
  }
}

function describeConfig(config: object): string {
  const known = ['num_train_timesteps', 'beta_start', 'beta_end'];
  return Object.entries(config)
    .filter(([key]) => !known.includes(key))
    .map(([key, value]) => `${key} ${value}`)
    .join(', ');
}
