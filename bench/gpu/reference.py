"""The same picture by the reference algorithm in PyTorch, to hold the sampler's time against.

python reference.py [--size 512] [--steps 50] [--runs 5] [--tiny] [--xl] [--json]
MultiDiffusion as Bar-Tal et al. 2023 describe it for regions (section 4.2 and appendix): every window and step
evaluates a conditional and an unconditional row for the background and for each region in one batch, regions are
bootstrapped on random colours for the first 20 % of the steps, every prompt takes its own DDIM step, and their
results are averaged by their masks. float16 on a GPU, float32 on a CPU. UNet and VAE are the ones that export.py
writes.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time

import torch
from torch import Tensor

from stable_diffusion import FULL, TINY, TINY_XL, XL, Size, UNet, make

FACTOR, STRIDE = 8, 8
WINDOWS = {False: 64, True: 128}
SCALES = {False: 0.18215, True: 0.13025}
"""Of Stable Diffusion 2, and of XL."""
GUIDANCE = 7.5
BOOTSTRAPPED = 0.2
# Left, top, width and height, as in bench.ts.
BOXES = ((0.05, 0.5, 0.3, 0.45), (0.35, 0.5, 0.3, 0.45), (0.65, 0.5, 0.3, 0.45))


def cumulative_alphas() -> Tensor:
    """ᾱ of Stable Diffusion's scaled linear schedule."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0)


def windows(height: int, width: int, window: int) -> list[tuple[slice, slice]]:
    starts = lambda length: range(0, max(1, length - window + STRIDE), STRIDE)  # noqa: E731
    return [(slice(y, y + window), slice(x, x + window)) for y in starts(height) for x in starts(width)]


def make_masks(regions: int, cells: int, like: Tensor) -> Tensor:
    """[prompts, 1, h, w]; the background is what no region has."""
    masks = torch.zeros(regions + 1, 1, cells, cells, device=like.device, dtype=like.dtype)
    for i, (left, top, width, height) in enumerate(BOXES[:regions], 1):
        masks[i, :, round(top * cells) : round((top + height) * cells), round(left * cells) : round((left + width) * cells)] = 1
    masks[0] = (1 - masks[1:].sum(0)).clamp(0, 1)
    return masks


@torch.no_grad()
def sample(unet: UNet, encoder: torch.nn.Module, size: Size, text: Tensor, cells: int, steps: int) -> tuple[Tensor, int]:
    """
    text: [2 · prompts, L, D], the negative prompts first.
    Returns the latents [1, 4, h, w] and how many rows the UNet evaluated.
    """
    device, dtype = text.device, text.dtype
    alphas = cumulative_alphas()
    step_size = 1000 // steps
    timesteps = [i * step_size + 1 for i in reversed(range(steps))]
    bootstrapped = round(BOOTSTRAPPED * steps)
    noise = torch.randn(1, 4, cells, cells, device=device, dtype=dtype)
    masks = make_masks(len(text) // 2 - 1, cells, noise)
    colours = torch.rand(max(1, bootstrapped), 3, 1, 1, device=device, dtype=dtype) * 2 - 1
    means = [encoder(colour[None].expand(1, 3, cells * FACTOR, cells * FACTOR))[:, :4] for colour in colours]
    backgrounds = torch.cat(means) * SCALES[size.pooled > 0]
    more = further(size, len(text), cells * FACTOR, text)
    latents, rows = noise.clone(), 0
    for i, timestep in enumerate(timesteps):
        now = float(alphas[timestep])
        before = float(alphas[timestep - step_size]) if timestep >= step_size else float(alphas[0])
        value, count = torch.zeros_like(latents), torch.zeros_like(latents)
        for part in windows(cells, cells, WINDOWS[size.pooled > 0]):
            mask = masks[:, :, part[0], part[1]]
            view = latents[:, :, part[0], part[1]].repeat(len(masks), 1, 1, 1)
            if i < bootstrapped:
                picked = backgrounds[torch.randint(len(backgrounds), (len(masks) - 1,))][:, :, part[0], part[1]]
                noised = now**0.5 * picked + (1 - now) ** 0.5 * noise[:, :, part[0], part[1]]
                view[1:] = view[1:] * mask[1:] + noised * (1 - mask[1:])
            output = unet(torch.cat([view, view]), torch.tensor([timestep], device=device), text, *more)
            rows += len(output)
            unconditional, conditional = output.chunk(2)
            epsilon = unconditional + GUIDANCE * (conditional - unconditional)
            original = (view - (1 - now) ** 0.5 * epsilon) / now**0.5
            stepped = before**0.5 * original + (1 - before) ** 0.5 * epsilon
            value[:, :, part[0], part[1]] += (stepped * mask).sum(0, keepdim=True)
            count[:, :, part[0], part[1]] += mask.sum(0, keepdim=True)
        latents = torch.where(count > 0, value / count.clamp(min=1e-6), value)
    return latents, rows


def further(size: Size, rows: int, pixels: int, like: Tensor) -> tuple[Tensor, ...]:
    """Pooled texts and sizes, of a model that takes them."""
    if not size.pooled:
        return ()
    ids = torch.tensor([pixels, pixels, 0, 0, pixels, pixels], device=like.device, dtype=like.dtype)
    return torch.randn(rows, size.pooled, device=like.device, dtype=like.dtype), ids.expand(rows, 6)


def timed(device: torch.device, work) -> float:
    """Milliseconds."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--batches", type=lambda text: [int(part) for part in text.split(",")], default=[1, 2, 4, 8])
    parser.add_argument("--regions", type=int, default=len(BOXES), choices=range(1, len(BOXES) + 1))
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the script")
    parser.add_argument("--xl", action="store_true", help="of Stable Diffusion XL's size")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    size = (TINY_XL if arguments.tiny else XL) if arguments.xl else (TINY if arguments.tiny else FULL)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    torch.backends.cudnn.benchmark = True
    unet, encoder, _ = (module.to(device, dtype) for module in make(size))
    cells = arguments.size // FACTOR
    result: dict = {
        "hardware": torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "torch": torch.__version__, "dtype": str(dtype).removeprefix("torch."), "size": arguments.size, "steps": arguments.steps, "rows": [],
    }  # fmt: skip
    for batch in arguments.batches:
        row, text = torch.randn(batch, 4, cells, cells, device=device, dtype=dtype), torch.randn(batch, 77, size.text, device=device, dtype=dtype)

        more = further(size, batch, arguments.size, row)

        def run() -> None:
            with torch.no_grad():
                unet(row, torch.tensor([500], device=device), text, *more)

        run()
        result["rows"].append({"batch": batch, "millisecondsPerRow": round(statistics.median(timed(device, run) for _ in range(max(1, arguments.runs))) / batch, 2)})
    text = torch.randn(2 * (arguments.regions + 1), 77, size.text, device=device, dtype=dtype)
    made: list[int] = []

    def picture() -> None:
        made.append(sample(unet, encoder, size, text, cells, arguments.steps)[1])

    # The first one warms up, unless it is the only one.
    first = timed(device, picture)
    result["milliseconds"] = round(statistics.median([timed(device, picture) for _ in range(arguments.runs)] or [first]))
    result["unetRows"] = made[-1]
    if device.type == "cuda":
        result["memoryMegabytes"] = torch.cuda.max_memory_reserved() >> 20
    else:
        result["memoryMegabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps(result, indent=2) if arguments.json else "\n".join(f"{name}: {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
