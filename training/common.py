"""What the training stages share: layers, the optimiser, schedules by time, checkpoints."""

from __future__ import annotations

import functools
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn


def pick_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@functools.cache
def bfloat16_pays(kind: str) -> bool:
    """Whether products in bfloat16 are faster than in float32 on this machine.

    They are on GPUs, and on CPUs with AMX; without it they can take half as long again (AVX-512), or ten times
    as long. Both are tried on a convolution of the UNet's kind, forth and back.
    """
    if kind == "cuda":
        return True
    # No random numbers: they would be missing from those that the seeds stand for.
    weights = torch.full((128, 128, 3, 3), 0.01, requires_grad=True)
    images = torch.ones(24, 128, 16, 16).contiguous(memory_format=torch.channels_last)

    def duration(enabled: bool) -> float:
        times = []
        for _ in range(5):
            began = time.perf_counter()
            with torch.enable_grad(), torch.autocast(kind, dtype=torch.bfloat16, enabled=enabled):
                F.conv2d(images, weights, padding=1).square().mean().backward()
            times.append(time.perf_counter() - began)
        return min(times)

    return duration(True) < duration(False)


def autocast(device: torch.device):
    """bfloat16 for the products where that is faster; weights stay float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16_pays(device.type))


class Workers:
    """Threads that share a step's work, one for each core, none of which splits its own operations.

    They meet once a step. Operations that are each split over all cores meet hundreds of times a
    step, which costs a multiple as soon as anything else runs on the machine. On a GPU there is one.
    """

    def __init__(self, device: torch.device):
        self.count = 1 if device.type == "cuda" else max(1, os.cpu_count() or 1)
        torch.set_num_threads(1)
        bfloat16_pays(device.type)  # now, while no thread is at work
        self.pool = ThreadPoolExecutor(self.count, initializer=torch.set_num_threads, initargs=(1,))

    def map(self, function, jobs) -> list:
        return list(self.pool.map(function, jobs))

    def gradients(self, parameters: list[torch.Tensor], loss_of, batch: int) -> list[torch.Tensor]:
        """Sets the gradients of the mean loss; loss_of(slice) gives (loss, figures) of a part of the batch.

        Returns the figures, averaged over the parts.
        """
        side = -(-batch // self.count)
        parts = [slice(first, min(first + side, batch)) for first in range(0, batch, side)]

        def part(where: slice):
            loss, figures = loss_of(where)
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            return gradients, torch.stack([figure.detach() for figure in figures])

        results = self.map(part, parts)
        shares = [(where.stop - where.start) / batch for where in parts]
        for parameter, *gradients in zip(parameters, *(gradients for gradients, _ in results)):
            known = [gradient * share for gradient, share in zip(gradients, shares) if gradient is not None]
            parameter.grad = sum(known) if known else None
        return sum(figures * share for (_, figures), share in zip(results, shares)).tolist()


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


class Block(nn.Module):
    """Two convolutions around a SiLU, added to what came in, which is all that it gives at first."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.first = conv(channels, channels)
        self.second = zeroed(conv(channels, channels))

    def forward(self, x):
        return x + self.second(F.silu(self.first(self.norm(x))))


@torch.no_grad()
def orthogonalise(gradients: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Newton-Schulz iteration of matrices [n, rows, columns] towards the nearest orthogonal ones.

    After Jordan et al., Muon (2024): a quintic polynomial, in bfloat16.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = gradients.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT.contiguous() if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(gradients.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum whose step is orthogonalised, for matrices; convolutions count as matrices [out, rest]."""

    def __init__(self, parameters, lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, workers: Workers):
        for group in self.param_groups:
            alike = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                    alike.setdefault((len(weight), weight.numel()), []).append(weight)
            workers.map(lambda weights: self._step(group, weights),
                        sorted(alike.values(), key=lambda weights: -sum(weight.numel() for weight in weights)))

    @torch.no_grad()
    def _step(self, group: dict, weights: list[torch.Tensor]) -> None:
        """One step of matrices of the same shape."""
        gradients = [weight.grad for weight in weights]
        momenta = [self.state[weight]["momentum"] for weight in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
        flat = orthogonalise(torch.stack([matrix.reshape(len(matrix), -1) for matrix in ahead]))
        scale = max(1.0, flat.shape[1] / flat.shape[2]) ** 0.5
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        steps = [step.reshape(weight.shape) for step, weight in zip(flat, weights)]
        torch._foreach_add_(weights, steps, alpha=-group["lr"] * scale)


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

    def step(self, factor: float, workers: Workers) -> None:
        for optimiser, base in zip(self.all, self.base):
            for group in optimiser.param_groups:
                group["lr"] = base * factor
        muon, adam = self.all
        muon.step(workers)
        adam.step()

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
