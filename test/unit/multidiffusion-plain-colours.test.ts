import assert from 'node:assert/strict';
import { CancelledError, MultiDiffusionError } from '../../dist/engine/errors';
import { encodeColours } from '../../dist/engine/multidiffusion/plain-colours';
import { Tensor } from '../../dist/engine/tensor';
import { AnalyticModel, constantLatents } from './support/analytic-model';

const RED = [200, 10, 0];
const BLUE = [0, 60, 210];
const GREY = [90, 90, 90];

/** An encoder that sees `radius` cells around each one, so that the picture's border shows, and maybe the whole picture's size. */
class Encoder extends AnalyticModel {
  sizes: string[] = [];

  constructor(
    private readonly radius: number,
    private readonly global = 0,
    private readonly onlySize?: string,
  ) {
    super();
  }

  override async encodeImages(images: Tensor<'uint8'>[]): Promise<Tensor<'float32'>[]> {
    const [height, width] = images[0].dims.map((side) => side / 8);
    const size = `${images[0].dims[0]}x${images[0].dims[1]}`;
    this.sizes.push(...images.map(() => size));
    if (this.onlySize && size !== this.onlySize)
      throw new MultiDiffusionError('INFERENCE', 'Got invalid dimensions for input: sample');
    return (await super.encodeImages(images)).map(({ data, dims }) => {
      const latents = data.map((value, i) => {
        const [x, y] = [i % width, Math.floor(i / width) % height];
        const border = [x, y, width - 1 - x, height - 1 - y].reduce(
          (sum, d, side) => sum + (d < this.radius ? (side + 1) / (d + 1) : 0),
          0,
        );
        return value * (1 + 0.1 * border) + this.global / (height * width);
      });
      return Tensor.float32(latents, dims);
    });
  }
}

const encodeWhole = async (model: Encoder, colours: number[][], height: number, width: number) =>
  (
    await Promise.all(
      colours.map((colour) =>
        model.encodeImages([
          Tensor.uint8(
            Uint8Array.from({ length: height * width * 3 }, (_, i) => colour[i % 3]),
            [height, width, 3],
          ),
        ]),
      ),
    )
  ).flat();

describe('plain colours as latents', () => {
  it('are what the encoder makes of a picture of the size, border and all', async () => {
    for (const radius of [0, 2, 3]) {
      const colours = [RED, BLUE, GREY, RED];
      const latents = await encodeColours(new Encoder(radius), colours, [128, 160]);
      const expected = await encodeWhole(new Encoder(radius), colours, 128, 160);
      latents.forEach((tensor, i) => {
        assert.deepEqual(tensor.dims, [1, 4, 16, 20]);
        assert.deepEqual(tensor.data, expected[i].data, `radius ${radius}, colour ${i}`);
      });
    }
  });

  it('are made from small pictures once one has been seen to be enough', async () => {
    const model = new Encoder(3);
    await encodeColours(model, [RED, BLUE], [128, 160]);
    assert.deepEqual(model.sizes, ['128x160', '64x80', '64x80']);
    await encodeColours(model, [GREY], [128, 160]);
    assert.deepEqual(model.sizes.slice(3), ['64x80']);
  });

  it('are made from whole pictures where the encoder looks far, or at all of the picture, or takes one size only', async () => {
    for (const model of [new Encoder(6), new Encoder(1, 5), new Encoder(1, 0, '128x160')]) {
      const latents = await encodeColours(model, [RED, BLUE], [128, 160]);
      await encodeColours(model, [GREY], [128, 160]);
      assert.deepEqual(model.sizes, ['128x160', '64x80', '128x160', '128x160']);
      const expected = await encodeWhole(model, [RED, BLUE], 128, 160);
      latents.forEach((tensor, i) => assert.deepEqual(tensor.data, expected[i].data));
    }
  });

  it('are remembered by colour and size', async () => {
    const model = new AnalyticModel();
    const [first] = await encodeColours(model, [RED], [64, 64]);
    const encoded = model.images;
    const [again, other] = await encodeColours(model, [RED, BLUE], [64, 64]);
    assert.equal(again, first);
    assert.deepEqual(
      other.data,
      constantLatents(
        BLUE.map((c) => c / 255),
        8,
        8,
      ).data,
    );
    assert.equal(model.images, encoded + 1);
    const [wide] = await encodeColours(model, [RED], [64, 128]);
    assert.deepEqual(wide.dims, [1, 4, 8, 16]);
  });

  it('are remembered within bounds', async () => {
    const model = new AnalyticModel();
    const size = [1024, 1024] as const; // 256 KB each
    const many = Array.from({ length: 70 }, (_, i) => [i, i, i]);
    await encodeColours(model, many, size);
    const encoded = model.images;
    await encodeColours(model, many.slice(-50), size);
    assert.equal(model.images, encoded, 'the latest are there');
    await encodeColours(model, many.slice(0, 1), size);
    assert.equal(model.images, encoded + 1, 'the oldest had to go');
  });

  it('can be cancelled while the encoder is tried out', async () => {
    const model = new (class extends AnalyticModel {
      override async encodeImages(images: Tensor<'uint8'>[]) {
        if (images[0].dims[0] < 128) throw new CancelledError();
        return super.encodeImages(images);
      }
    })();
    await assert.rejects(encodeColours(model, [RED], [128, 128]), { code: 'CANCELLED' });
  });
});
