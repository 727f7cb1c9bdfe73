"""What the training stages share: layers, the optimiser, schedules by time, checkpoints."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn


def pick_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device):
    """bfloat16 for the products; weights stay float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16)


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel: the same at every picture size."""

    def __init__(self, channels: int, affine: bool = True):
        super().__init__()
        self.channels = channels
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), (self.channels,), self.weight, None, 1e-5)
        return x.permute(0, 3, 1, 2)


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)


def zeroed(layer):
    """A layer that starts by giving nothing, so that the block around it starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


@torch.no_grad()
def orthogonalise(gradient: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Newton-Schulz iteration towards the nearest orthogonal matrix (Jordan et al., Muon, 2024)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = gradient.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(gradient.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum whose step is orthogonalised, for matrices; convolutions count as matrices [out, rest]."""

    def __init__(self, parameters, lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(state["momentum"], group["momentum"])
                flat = orthogonalise(ahead.reshape(len(ahead), -1))
                scale = max(1.0, flat.shape[0] / flat.shape[1]) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(flat.view_as(weight), alpha=-group["lr"] * scale)


class Optimisers:
    """Muon on the inner matrices, AdamW on everything else; one learning-rate factor for both."""

    def __init__(self, model: nn.Module, outer: tuple[str, ...], muon_lr: float, adam_lr: float,
                 weight_decay: float = 0.0):
        inner, rest = [], []
        for name, weight in model.named_parameters():
            is_matrix = weight.ndim >= 2 and not any(name.startswith(prefix) for prefix in outer)
            (inner if is_matrix else rest).append(weight)
        self.all = (Muon(inner, muon_lr, weight_decay=weight_decay),
                    torch.optim.AdamW(rest, adam_lr, betas=(0.9, 0.98), weight_decay=0.0))
        self.base = (muon_lr, adam_lr)

    def step(self, factor: float) -> None:
        for optimiser, base in zip(self.all, self.base):
            for group in optimiser.param_groups:
                group["lr"] = base * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def state_dict(self):
        return [optimiser.state_dict() for optimiser in self.all]

    def load_state_dict(self, states):
        for optimiser, state in zip(self.all, states):
            optimiser.load_state_dict(state)


class Clock:
    """Time spent on a stage, over all its runs, as a part of what it may take."""

    def __init__(self, minutes: float, spent: float = 0.0):
        self.seconds, self.spent, self.started = minutes * 60, spent, time.monotonic()

    def elapsed(self) -> float:
        return self.spent + time.monotonic() - self.started

    def part(self) -> float:
        return min(1.0, self.elapsed() / self.seconds)


def rate(part: float, step: int, warmup: int = 50, decay_from: float = 0.7) -> float:
    """Learning-rate factor: a short warm-up, constant, then a line down to nearly nothing."""
    down = 1.0 if part < decay_from else max(0.0, (1 - part) / (1 - decay_from))
    return min(1.0, (step + 1) / warmup) * (0.01 + 0.99 * down)


def save(path: Path, state: dict) -> None:
    """Writes a checkpoint in one move, so that a killed run leaves the previous one whole."""
    temporary = path.with_suffix(".part")
    torch.save(state, temporary)
    os.replace(temporary, path)


def load(path: Path) -> dict | None:
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None


def sinusoid(t: torch.Tensor, width: int) -> torch.Tensor:
    """Sine and cosine features [batch, width] of timesteps [batch]."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)
