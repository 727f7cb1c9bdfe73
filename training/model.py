"""The text encoder and the UNet, with Stable Diffusion's inputs and outputs.

Padding never matters: the text encoder attends to real tokens only, zeroes the rest, and sets the
first channel of its output to 1 for a real token, so that the UNet can tell them apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from .autoencoder import LATENT_CHANNELS
from .common import ChannelNorm, conv, sinusoid, zeroed
from .vocabulary import COLOURS, OBJECTS, STYLES

TEXT_WIDTH, TEXT_LAYERS = 192, 3
EMBEDDING = 256
HEAD = 32


@dataclass(frozen=True)
class Shape:
    """Channels of the UNet at 16x16 and at 8x8."""

    fine: int = 128
    coarse: int = 320


# "small" is the landed one, 11 million parameters; "large" has 24 million, and takes 1.7 times as long.
SHAPES = {"small": Shape(), "large": Shape(coarse=512)}


def attend(query, key, value, bias=None):
    """Multi-head attention of [batch, tokens, channels]; bias is added to the logits.

    Written out: with so few tokens this is several times as fast on a CPU as the fused function.
    """
    def split(x):
        return x.reshape(x.shape[0], -1, x.shape[-1] // HEAD, HEAD).transpose(1, 2)
    logits = split(query * HEAD**-0.5) @ split(key).transpose(-1, -2)
    shares = (logits if bias is None else logits + bias).softmax(-1).to(value.dtype)
    return (shares @ split(value)).transpose(1, 2).reshape(query.shape)


def only_valid(valid: torch.Tensor, dtype) -> torch.Tensor:
    """Attention bias [batch, 1, 1, tokens]: nothing for real tokens, far down for padding."""
    return ((valid - 1) * 1e4)[:, None, None, :].to(dtype)


class TextLayer(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), zeroed(nn.Linear(width, width))
        self.widen, self.narrow = nn.Linear(width, 4 * width), zeroed(nn.Linear(4 * width, width))

    def forward(self, x, bias):
        query, key, value = self.qkv(self.norm_attention(x)).chunk(3, -1)
        x = x + self.out(attend(query, key, value, bias.to(query.dtype)))
        return x + self.narrow(F.silu(self.widen(self.norm_mlp(x))))


class TextEncoder(nn.Module):
    def __init__(self, tokens: int, max_length: int = 77, pad: int = 0):
        super().__init__()
        self.pad = pad
        self.tokens = nn.Embedding(tokens, TEXT_WIDTH)
        self.places = nn.Parameter(0.1 * torch.randn(max_length, TEXT_WIDTH))
        nn.init.normal_(self.tokens.weight, std=0.5)
        self.layers = nn.ModuleList(TextLayer(TEXT_WIDTH) for _ in range(TEXT_LAYERS))
        self.norm = nn.LayerNorm(TEXT_WIDTH)

    def forward(self, input_ids):
        """Ids [N, S] -> last_hidden_state [N, S, 192] and pooler_output [N, 192], the mean of real tokens."""
        valid = (input_ids != self.pad).float()
        x = self.tokens(input_ids) + self.places[:input_ids.shape[1]]
        bias = only_valid(valid, x.dtype)
        for layer in self.layers:
            x = layer(x, bias)
        x = self.norm(x).float()
        hidden = torch.cat([torch.ones_like(x[..., :1]), x[..., 1:]], -1) * valid[..., None]
        return hidden, mean_of_valid(hidden)


def mean_of_valid(hidden):
    return hidden.sum(1) / hidden[..., :1].sum(1).clamp(min=1.0)


class ResidualBlock(nn.Module):
    """Two convolutions; between them the embedding of time and text scales and shifts every channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.first = conv(channels, channels)
        self.inner = ChannelNorm(channels, affine=False)
        self.film = zeroed(nn.Linear(EMBEDDING, 2 * channels))
        self.second = zeroed(conv(channels, channels))

    def forward(self, x, embedding):
        h = self.inner(self.first(F.silu(self.norm(x))))
        scale, shift = self.film(embedding)[:, :, None, None].chunk(2, 1)
        return x + self.second(F.silu(h * (1 + scale) + shift))


class CrossAttention(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.query, self.out = nn.Linear(channels, channels), zeroed(nn.Linear(channels, channels))
        self.key_value = nn.Linear(TEXT_WIDTH, 2 * channels)

    def forward(self, x, text, bias):
        key, value = self.key_value(text).chunk(2, -1)
        query = self.query(self.norm(x))
        return x + self.out(attend(query, key, value, bias.to(query.dtype)))


class Transformer(nn.Module):
    """Self-attention, attention to the words, and a two-layer network on each place."""

    def __init__(self, channels: int):
        super().__init__()
        self.place = nn.Linear(len(PLACE_WAVES) * 4, channels)
        self.norm_self = nn.LayerNorm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), zeroed(nn.Linear(channels, channels))
        self.cross = CrossAttention(channels)
        self.norm_mlp = nn.LayerNorm(channels, elementwise_affine=False)
        self.film = zeroed(nn.Linear(EMBEDDING, 2 * channels))
        self.widen, self.narrow = nn.Linear(channels, 4 * channels), zeroed(nn.Linear(4 * channels, channels))

    def forward(self, x, places, embedding, text, bias):
        query, key, value = self.qkv(self.norm_self(x) + self.place(places)).chunk(3, -1)
        x = self.cross(x + self.out(attend(query, key, value)), text, bias)
        scale, shift = self.film(embedding)[:, None, :].chunk(2, -1)
        return x + self.narrow(F.silu(self.widen(self.norm_mlp(x) * (1 + scale) + shift)))


PLACE_WAVES = (0.5, 1.0, 2.0, 4.0)


def place_features(x: torch.Tensor) -> torch.Tensor:
    """Where each pixel of x [N, C, H, W] lies in the picture, as waves: [1, 16, H, W]."""
    across = ((torch.cumsum(torch.ones_like(x[:1, :1]), 3) - 0.5) / x.shape[3]).float()
    down = ((torch.cumsum(torch.ones_like(x[:1, :1]), 2) - 0.5) / x.shape[2]).float()
    angles = torch.cat([place * (wave * 3.14159265) for wave in PLACE_WAVES for place in (across, down)], 1)
    return torch.cat([angles.sin(), angles.cos()], 1)


def to_tokens(x):
    return x.flatten(2).transpose(1, 2)


def to_map(tokens, like):
    return tokens.transpose(1, 2).reshape(like.shape)


class UNet(nn.Module):
    """Predicts v from noisy latents. Works on 2x2 patches of latents, at two levels."""

    # What the dense labels say of each cell: the object (or none), its style, its colour (or its
    # own), and where in the sprite the cell lies.
    CELL_OUTPUTS = (len(OBJECTS) + 1, len(STYLES), len(COLOURS) + 1, 2)

    def __init__(self, shape: Shape = SHAPES["small"]):
        super().__init__()
        self.shape, fine, coarse = shape, shape.fine, shape.coarse
        self.time = nn.Sequential(nn.Linear(EMBEDDING, EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING))
        self.pooled = nn.Sequential(nn.Linear(TEXT_WIDTH, EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING))
        self.entry = conv(4 * LATENT_CHANNELS + 4 * len(PLACE_WAVES), fine)
        self.fine_in = ResidualBlock(fine)
        self.down = conv(4 * fine, coarse, 1)
        self.blocks = nn.ModuleList(ResidualBlock(coarse) for _ in range(2))
        self.transformers = nn.ModuleList(Transformer(coarse) for _ in range(3))
        self.cells = nn.Conv2d(coarse, 4 * sum(self.CELL_OUTPUTS), 1)
        self.up = conv(coarse, 4 * fine, 1)
        self.join = conv(2 * fine, fine, 1)
        self.fine_cross = CrossAttention(fine)
        self.fine_out = nn.ModuleList(ResidualBlock(fine) for _ in range(2))
        self.norm = ChannelNorm(fine)
        self.exit = zeroed(conv(fine, 4 * LATENT_CHANNELS))

    def forward(self, sample, timestep, encoder_hidden_states, with_cells: bool = False):
        """Latents [N, 4, h, w] (sides even multiples of 4), timesteps [N] or [1], text [N, S, 192] -> v like sample.

        With `with_cells` also the guesses about each cell of 2x2 latents, [N, outputs, h/2, w/2].
        """
        text = encoder_hidden_states
        bias = only_valid(text[..., 0], text.dtype)
        pooled = self.pooled(mean_of_valid(text))
        embedding = F.silu(self.time(sinusoid(timestep.reshape(-1), EMBEDDING)) + pooled)
        x = F.pixel_unshuffle(sample, 2)
        places = place_features(x).to(x.dtype)
        x = self.entry(torch.cat([x, places.expand(x.shape[0], -1, -1, -1)], 1))
        skip = self.fine_in(x, embedding)
        x = self.down(F.pixel_unshuffle(skip, 2))
        coarse_places = to_tokens(place_features(x).to(x.dtype))

        def transform(layer, x):
            return to_map(layer(to_tokens(x), coarse_places, embedding, text, bias), x)

        x = transform(self.transformers[0], self.blocks[0](x, embedding))
        x = transform(self.transformers[1], x)
        cells = F.pixel_shuffle(self.cells(x), 2) if with_cells else None
        x = transform(self.transformers[2], self.blocks[1](x, embedding))
        x = self.join(torch.cat([F.pixel_shuffle(self.up(x), 2), skip], 1))
        x = self.fine_out[0](x, embedding)
        x = to_map(self.fine_cross(to_tokens(x), text, bias), x)
        x = self.fine_out[1](x, embedding)
        output = F.pixel_shuffle(self.exit(self.norm(x)), 2)
        return (output, cells) if with_cells else output
