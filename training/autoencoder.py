"""The autoencoder: pictures to latents a quarter of their size, four channels, and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .common import Block, ChannelNorm, Clock, Optimisers, Workers, autocast, conv, load, pick_device, rate, save

LATENT_CHANNELS = 4
FACTOR = 4
WIDE, NARROW = 128, 64


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.entry = conv(12, NARROW)
        self.halved = Block(NARROW)
        self.down = conv(4 * NARROW, WIDE, 1)
        self.quartered = nn.Sequential(Block(WIDE), Block(WIDE))
        self.norm = ChannelNorm(WIDE)
        self.exit = conv(WIDE, 2 * LATENT_CHANNELS)

    def forward(self, pictures):
        """RGB [N, 3, H, W] in [-1, 1] -> mean and log-variance [N, 8, H/4, W/4]."""
        x = self.halved(self.entry(F.pixel_unshuffle(pictures, 2)))
        x = self.quartered(self.down(F.pixel_unshuffle(x, 2)))
        mean, log_variance = self.exit(self.norm(x)).chunk(2, 1)
        return torch.cat([mean, log_variance.clamp(-12, 4)], 1)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.entry = conv(LATENT_CHANNELS, WIDE)
        self.quartered = nn.Sequential(Block(WIDE), Block(WIDE), Block(WIDE))
        self.up = conv(WIDE, 4 * NARROW, 1)
        self.halved = Block(NARROW)
        self.norm = ChannelNorm(NARROW)
        self.exit = conv(NARROW, 12)

    def forward(self, latents):
        """Unscaled latents [N, 4, h, w] -> RGB [N, 3, 4h, 4w], about [-1, 1]."""
        x = F.pixel_shuffle(self.up(self.quartered(self.entry(latents))), 2)
        return F.pixel_shuffle(self.exit(self.norm(self.halved(x))), 2)


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()


def to_tensor(pictures: np.ndarray, device) -> torch.Tensor:
    """Bytes [N, H, W, 3] -> [-1, 1] floats [N, 3, H, W] in channels-last order."""
    return torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def _edges(x):
    return x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :]


def _crops(pictures: np.ndarray, batch: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """Random square crops; most keep to the latent grid, as the training pictures do."""
    crops = np.empty((batch, side, side, 3), np.uint8)
    for index in range(batch):
        top, left = rng.integers(0, pictures.shape[1] - side + 1, 2)
        if rng.random() < 0.7:
            top, left = top // FACTOR * FACTOR, left // FACTOR * FACTOR
        crops[index] = pictures[rng.integers(len(pictures)), top:top + side, left:left + side]
    return crops


def losses(model: Autoencoder, target: torch.Tensor, grain: torch.Tensor):
    """The loss of a batch of crops, and two figures: the squared error and the divergence from a unit Gaussian."""
    with autocast(target.device):
        mean, log_variance = model.encoder(target).float().chunk(2, 1)
        output = model.decoder(mean + (0.5 * log_variance).exp() * grain).float()
    error = output - target
    edges = sum((a - b).abs().mean() for a, b in zip(_edges(output), _edges(target)))
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    squared = error.square().mean()
    return error.abs().mean() + squared + edges + 1e-3 * divergence, (squared, divergence)


def train(folder: Path, pictures: np.ndarray, minutes: float, batch: int, seed: int, log) -> Autoencoder:
    """Trains for the given minutes, going on from the folder's checkpoint, and returns the model."""
    device, checkpoint = pick_device(), folder / "autoencoder.pt"
    torch.manual_seed(seed)
    model = Autoencoder().to(device, memory_format=torch.channels_last)
    optimisers = Optimisers(model, ("encoder.entry", "encoder.exit", "decoder.entry", "decoder.exit"), 0.01, 1e-3)
    state, step, spent = load(checkpoint), 0, 0.0
    if state:
        model.load_state_dict(state["model"])
        if state["done"]:
            return model
        optimisers.load_state_dict(state["optimisers"])
        step, spent = state["step"], state["spent"]
    clock, rng = Clock(minutes, spent), np.random.default_rng(seed + step)
    workers, parameters = Workers(device), list(model.parameters())
    running, saved = None, clock.elapsed()
    while True:
        part = clock.part()
        target = to_tensor(_crops(pictures, batch, 64, rng), device)
        grain = torch.randn(batch, LATENT_CHANNELS, 64 // FACTOR, 64 // FACTOR, device=device)

        def loss_of(where: slice):
            return losses(model, target[where], grain[where])

        squared, divergence = workers.gradients(parameters, loss_of, batch)
        optimisers.step(rate(part, step), workers)
        step += 1
        running = squared if running is None else 0.98 * running + 0.02 * squared
        if step % 50 == 0:
            log(f"autoencoder step {step} {clock.elapsed():.0f} s: mse {running:.5f} kl {divergence:.3f}")
        done = part >= 1
        if done:
            standardise(model, pictures[:4000])
        if done or clock.elapsed() - saved > 150:
            saved = clock.elapsed()
            save(checkpoint, {"model": model.state_dict(), "optimisers": optimisers.state_dict(), "step": step,
                              "spent": saved, "mse": running, "done": done})
        if done:
            return model


@torch.no_grad()
def standardise(model: Autoencoder, pictures: np.ndarray) -> None:
    """Shifts and scales each latent channel to mean 0 and deviation 1, inside the layers at the latents' two sides."""
    device = next(model.parameters()).device
    latents = torch.cat([model.encoder(to_tensor(np.array(pictures[first:first + 50]), device))[:, :LATENT_CHANNELS]
                         for first in range(0, len(pictures), 50)])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    into, out_of = model.encoder.exit, model.decoder.entry
    out_of.bias += (out_of.weight * mean[:, None, None]).sum((1, 2, 3))
    out_of.weight *= deviation[:, None, None]
    into.weight[:LATENT_CHANNELS] /= deviation[:, None, None, None]
    into.bias[:LATENT_CHANNELS] = (into.bias[:LATENT_CHANNELS] - mean) / deviation
    into.bias[LATENT_CHANNELS:] -= 2 * deviation.log()


@torch.no_grad()
def encode(model: Autoencoder, pictures: np.ndarray, out: Path, batch: int = 64) -> np.ndarray:
    """Latent means of all pictures as float16 [N, 4, 32, 32], kept in a file."""
    if not out.exists():
        device = pick_device()
        latents = np.empty((len(pictures), LATENT_CHANNELS, *(side // FACTOR for side in pictures.shape[1:3])), np.float16)
        for first in range(0, len(pictures), batch):
            with autocast(device):
                moments = model.encoder(to_tensor(np.array(pictures[first:first + batch]), device))
            latents[first:first + batch] = moments[:, :LATENT_CHANNELS].float().cpu().numpy()
        np.save(out, latents)
    return np.load(out)
