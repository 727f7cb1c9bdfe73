"""The UNet and the VAE of Stable Diffusion 2, and of Stable Diffusion XL, as PyTorch modules with random weights.

What a run costs does not depend on the weights, so these measure as well as trained ones. The architecture is
the one that the published configurations describe (UNet2DConditionModel and AutoencoderKL of Stable Diffusion
2.1-base and XL base 1.0); the numbers of parameters are checked against the published ones. Rombach et al. 2022,
section 4; Podell et al. 2023, section 2.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 32


@dataclass(frozen=True)
class Size:
    """Widths of the levels, from the finest to the coarsest."""

    unet: tuple[int, ...]
    heads: tuple[int, ...]
    text: int
    vae: tuple[int, ...]
    unet_parameters: int
    vae_parameters: int
    depths: tuple[int, ...]
    """Transformer blocks of each level; the last is the middle's."""
    pooled: int = 0
    """Width of the pooled text, of a model that is told it and the picture's sizes besides."""
    name: str = "Stable Diffusion 2"


FULL = Size((320, 640, 1280, 1280), (5, 10, 20, 20), 1024, (128, 256, 512, 512), 865_910_724, 83_653_863, (1, 1, 1, 0, 1))
TINY = Size((32, 64, 128, 128), (1, 2, 4, 4), 64, (32, 32, 64, 64), 0, 0, (1, 1, 1, 0, 1))
XL = Size(
    (320, 640, 1280), (5, 10, 20), 2048, (128, 256, 512, 512), 2_567_463_684, 83_653_863, (0, 2, 10, 10), 1280, "Stable Diffusion XL"
)  # fmt: skip
TINY_XL = Size((32, 64, 128), (1, 2, 4), 64, (32, 32, 64, 64), 0, 0, (0, 1, 2, 2), 48)
SIZE_WIDTH = 256
"""Of the embedding of each of six sizes."""


class Residual(nn.Module):
    """Two convolutions, the time in between, and what came in. [N, C, h, w] → [N, C', h, w]"""

    def __init__(self, channels: int, out: int, time: int | None = None, epsilon: float = 1e-5):
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, channels, epsilon)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.time = nn.Linear(time, out) if time else None
        self.norm2 = nn.GroupNorm(GROUPS, out, epsilon)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        if self.time is not None:
            hidden = hidden + self.time(F.silu(time))[:, :, None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(hidden)))


class Attention(nn.Module):
    """Every position of x looks at those of `context`. [N, S, C]"""

    def __init__(self, channels: int, context: int, heads: int, bias: bool = False):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=bias)
        self.to_k = nn.Linear(context, channels, bias=bias)
        self.to_v = nn.Linear(context, channels, bias=bias)
        self.to_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        batch = x.shape[0]
        width = self.to_q.out_features // self.heads
        split = lambda y: y.view(batch, -1, self.heads, width).transpose(1, 2)  # noqa: E731
        seen = F.scaled_dot_product_attention(split(self.to_q(x)), split(self.to_k(context)), split(self.to_v(context)))
        return self.to_out(seen.transpose(1, 2).reshape(batch, -1, self.heads * width))


class TransformerBlock(nn.Module):
    """Attention to itself and to the text, then a gated layer. [N, S, C]"""

    def __init__(self, channels: int, heads: int, text: int):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))
        self.itself = Attention(channels, channels, heads)
        self.text = Attention(channels, text, heads)
        self.gate = nn.Linear(channels, 8 * channels)
        self.out = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        normal = self.norm1(x)
        x = x + self.itself(normal, normal)
        x = x + self.text(self.norm2(x), text)
        value, gate = self.gate(self.norm3(x)).chunk(2, dim=-1)
        return x + self.out(value * F.gelu(gate))


class SpatialTransformer(nn.Module):
    """Transformer blocks over the cells of [N, C, h, w]."""

    def __init__(self, channels: int, heads: int, text: int, depth: int):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels, 1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.blocks = nn.ModuleList(TransformerBlock(channels, heads, text) for _ in range(depth))
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        cells = self.norm(x).permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        cells = self.proj_in(cells)
        for block in self.blocks:
            cells = block(cells, text)
        cells = self.proj_out(cells)
        return x + cells.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


class Level(nn.Module):
    """Residual blocks of one resolution, each followed by a transformer where the level has them."""

    def __init__(self, widths: list[tuple[int, int]], time: int, heads: int, text: int, depth: int):
        super().__init__()
        self.residuals = nn.ModuleList(Residual(channels, out, time) for channels, out in widths)
        self.transformers = nn.ModuleList(SpatialTransformer(out, heads, text, depth) for _, out in widths if depth)

    def step(self, i: int, x: Tensor, time: Tensor, text: Tensor) -> Tensor:
        x = self.residuals[i](x, time)
        return self.transformers[i](x, text) if self.transformers else x


class UNet(nn.Module):
    """sample [N, 4, h, w], timestep, encoder_hidden_states [N, L, D] (, text_embeds [N, P], time_ids [N, 6]) → [N, 4, h, w]"""

    def __init__(self, size: Size):
        super().__init__()
        first, last = size.unet[0], size.unet[-1]
        time, levels = 4 * first, len(size.unet)
        self.conv_in = nn.Conv2d(4, first, 3, padding=1)
        self.time1, self.time2 = nn.Linear(first, time), nn.Linear(time, time)
        if size.pooled:
            self.add1, self.add2 = nn.Linear(size.pooled + 6 * SIZE_WIDTH, time), nn.Linear(time, time)
        self.down, self.reduce = nn.ModuleList(), nn.ModuleList()
        skips, channels = [first], first
        for i, out in enumerate(size.unet):
            coarsest = i == levels - 1
            self.down.append(Level([(channels, out), (out, out)], time, size.heads[i], size.text, size.depths[i]))
            skips += [out, out]
            if not coarsest:
                self.reduce.append(nn.Conv2d(out, out, 3, stride=2, padding=1))
                skips.append(out)
            channels = out
        self.mid1, self.mid2 = Residual(last, last, time), Residual(last, last, time)
        self.mid = SpatialTransformer(last, size.heads[-1], size.text, size.depths[-1])
        self.up, self.enlarge = nn.ModuleList(), nn.ModuleList()
        for i in reversed(range(levels)):
            out = size.unet[i]
            widths = []
            for _ in range(3):
                widths.append((channels + skips.pop(), out))
                channels = out
            self.up.append(Level(widths, time, size.heads[i], size.text, size.depths[i]))
            if i > 0:
                self.enlarge.append(nn.Conv2d(out, out, 3, padding=1))
        self.norm = nn.GroupNorm(GROUPS, first, 1e-5)
        self.conv_out = nn.Conv2d(first, 4, 3, padding=1)

    def forward(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, text_embeds: Tensor | None = None, time_ids: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        embedding = waves(timestep.reshape(1), self.conv_in.out_channels).to(sample.dtype).expand(sample.shape[0], -1)
        time = self.time2(F.silu(self.time1(embedding)))
        if text_embeds is not None:
            sizes = waves(time_ids.reshape(-1), SIZE_WIDTH).to(sample.dtype).reshape(sample.shape[0], -1)
            time = time + self.add2(F.silu(self.add1(torch.cat([text_embeds, sizes], dim=-1))))

        x = self.conv_in(sample)
        skips = [x]
        for i, level in enumerate(self.down):
            for block in range(len(level.residuals)):
                x = level.step(block, x, time, encoder_hidden_states)
                skips.append(x)
            if i < len(self.reduce):
                x = self.reduce[i](x)
                skips.append(x)
        x = self.mid2(self.mid(self.mid1(x, time), encoder_hidden_states), time)
        for i, level in enumerate(self.up):
            for block in range(len(level.residuals)):
                x = level.step(block, torch.cat([x, skips.pop()], dim=1), time, encoder_hidden_states)
            if i < len(self.enlarge):
                x = self.enlarge[i](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv_out(F.silu(self.norm(x)))


def waves(values: Tensor, width: int) -> Tensor:
    """Numbers [n] as cosines and sines of falling frequencies, [n, width]."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=values.device, dtype=torch.float32) * (-math.log(10000) / half))
    angles = values.float()[:, None] * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class Middle(nn.Module):
    """The VAE's coarsest level: attention with one head between two residual blocks."""

    def __init__(self, channels: int):
        super().__init__()
        self.before, self.after = (Residual(channels, channels, epsilon=1e-6) for _ in range(2))
        self.norm = nn.GroupNorm(GROUPS, channels, 1e-6)
        self.attention = Attention(channels, channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        batch, channels, height, width = x.shape
        cells = self.norm(x).reshape(batch, channels, height * width).transpose(1, 2)
        seen = self.attention(cells, cells).transpose(1, 2).reshape(batch, channels, height, width)
        return self.after(x + seen)


class Encoder(nn.Module):
    """Pictures [N, 3, H, W] in [−1, 1] → means and log-variances [N, 8, H/8, W/8]"""

    def __init__(self, size: Size):
        super().__init__()
        first, last = size.vae[0], size.vae[-1]
        self.conv_in = nn.Conv2d(3, first, 3, padding=1)
        self.levels, self.reduce = nn.ModuleList(), nn.ModuleList()
        for i, out in enumerate(size.vae):
            channels = size.vae[max(0, i - 1)]
            self.levels.append(nn.Sequential(Residual(channels, out, epsilon=1e-6), Residual(out, out, epsilon=1e-6)))
            if i < len(size.vae) - 1:
                self.reduce.append(nn.Conv2d(out, out, 3, stride=2))
        self.mid = Middle(last)
        self.norm = nn.GroupNorm(GROUPS, last, 1e-6)
        self.conv_out = nn.Conv2d(last, 8, 3, padding=1)
        self.quant = nn.Conv2d(8, 8, 1)

    def forward(self, sample: Tensor) -> Tensor:
        x = self.conv_in(sample)
        for i, level in enumerate(self.levels):
            x = level(x)
            if i < len(self.reduce):
                x = self.reduce[i](F.pad(x, (0, 1, 0, 1)))
        return self.quant(self.conv_out(F.silu(self.norm(self.mid(x)))))


class Decoder(nn.Module):
    """Latents [N, 4, h, w], divided by the scaling factor → pictures [N, 3, 8h, 8w]"""

    def __init__(self, size: Size):
        super().__init__()
        widths = size.vae[::-1]
        self.post_quant = nn.Conv2d(4, 4, 1)
        self.conv_in = nn.Conv2d(4, widths[0], 3, padding=1)
        self.mid = Middle(widths[0])
        self.levels, self.enlarge = nn.ModuleList(), nn.ModuleList()
        for i, out in enumerate(widths):
            channels = widths[max(0, i - 1)]
            self.levels.append(nn.Sequential(*(Residual(channels if n == 0 else out, out, epsilon=1e-6) for n in range(3))))
            if i < len(widths) - 1:
                self.enlarge.append(nn.Conv2d(out, out, 3, padding=1))
        self.norm = nn.GroupNorm(GROUPS, widths[-1], 1e-6)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, latent_sample: Tensor) -> Tensor:
        x = self.mid(self.conv_in(self.post_quant(latent_sample)))
        for i, level in enumerate(self.levels):
            x = level(x)
            if i < len(self.enlarge):
                x = self.enlarge[i](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv_out(F.silu(self.norm(x)))


def count_parameters(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def make(size: Size, seed: int = 0) -> tuple[UNet, Encoder, Decoder]:
    """The three networks, with the same random weights for the same seed."""
    torch.manual_seed(seed)
    unet, encoder, decoder = UNet(size).eval(), Encoder(size).eval(), Decoder(size).eval()
    for expected, counted in ((size.unet_parameters, count_parameters(unet)), (size.vae_parameters, count_parameters(encoder, decoder))):
        if expected and counted != expected:
            raise RuntimeError(f"{counted} parameters, and {size.name} has {expected}")
    return unet, encoder, decoder
