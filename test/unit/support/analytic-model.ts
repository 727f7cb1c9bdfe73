/** A model by formula, as the golden cases have it: see fixtures/golden/README.md. */
import type { DiffusionModel, ModelFacts, UNetRow } from '../../../dist/engine/model';
import type { Conditioning, Region } from '../../../dist/engine/types';
import { Tensor } from '../../../dist/engine/tensor';

export class AnalyticModel implements DiffusionModel {
  readonly facts: ModelFacts;
  /** What predict was asked, call by call. */
  calls: Array<{ rows: number; timestep: number }> = [];
  images = 0;

  constructor(facts: Partial<ModelFacts> = {}) {
    this.facts = {
      name: 'analytic',
      latentChannels: 4,
      latentFactor: 8,
      scalingFactor: 1,
      nativeSize: 512,
      sizeMultiple: 8,
      schedulerConfig: {
        _class_name: 'DDIMScheduler',
        num_train_timesteps: 1000,
        beta_schedule: 'scaled_linear',
        beta_start: 0.00085,
        beta_end: 0.012,
        steps_offset: 1,
        set_alpha_to_one: false,
        clip_sample: false,
        prediction_type: 'epsilon',
        timestep_spacing: 'leading',
      },
      guidanceEmbedded: false,
      maxTokens: 77,
      canEncodeImages: true,
      provider: 'formula',
      ...facts,
    };
  }

  async predict(rows: UNetRow[], timestep: number): Promise<Tensor<'float32'>[]> {
    this.calls.push({ rows: rows.length, timestep });
    return rows.map((row) => this.evaluate(row, timestep));
  }

  /** ε(x, t, c) = 0.8·x + 0.1·sin(1.1·x + 0.3·roll(x) + 0.002·t + c) */
  protected evaluate({ latents, embeddings }: UNetRow, timestep: number): Tensor<'float32'> {
    const width = latents.dims[3];
    const c = (embeddings.data as Float32Array)[0];
    const x = latents.data;
    const noise = new Float32Array(x.length);
    for (let i = 0; i < x.length; i++) {
      const rolled = x[i % width === 0 ? i + width - 1 : i - 1];
      noise[i] = 0.8 * x[i] + 0.1 * Math.sin(1.1 * x[i] + 0.3 * rolled + 0.002 * timestep + c);
    }
    return Tensor.float32(noise, latents.dims);
  }

  async encodeImages(images: Tensor<'uint8'>[]): Promise<Tensor<'float32'>[]> {
    this.images += images.length;
    return images.map((image) => {
      const [height, width] = image.dims;
      const rgb = [...image.data.subarray(0, 3)].map((byte) => byte / 255);
      return constantLatents(rgb, height / this.facts.latentFactor, width / this.facts.latentFactor);
    });
  }
}

/** What the golden cases' encoder makes of a plain image. */
export function constantLatents(rgb: number[], height: number, width: number): Tensor<'float32'> {
  const [r, g, b] = rgb.map((value) => 2 * value - 1);
  const values = [r + 0.5 * g, g - 0.25 * b, b + 0.1 * r, (r + g + b) / 3];
  const data = new Float32Array(4 * height * width);
  values.forEach((value, c) => data.fill(value, c * height * width, (c + 1) * height * width));
  return Tensor.float32(data, [1, 4, height, width]);
}

/** A prompt that the model knows by one number. */
export function conditioning(prompt: number, negative = 0): Conditioning {
  return {
    kind: 'multidiffusion/conditioning',
    prompt: `prompt ${prompt}`,
    negativePrompt: `prompt ${negative}`,
    embeddings: Tensor.float32([prompt], [1, 1, 1]),
    negativeEmbeddings: Tensor.float32([negative], [1, 1, 1]),
  };
}

/** A mask [1, height, width] by formula. */
export function mask(height: number, width: number, at: (y: number, x: number) => number): Tensor<'float32'> {
  return Tensor.float32(
    Float32Array.from({ length: height * width }, (_, i) => at(Math.floor(i / width), i % width)),
    [1, height, width],
  );
}

export function region(prompt: number, place: Tensor, more: Partial<Region> = {}): Region {
  return { name: `region ${prompt}`, conditioning: conditioning(prompt), mask: place, ...more };
}
