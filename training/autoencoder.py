"""The autoencoder: pictures to latents of four channels, a quarter or an eighth of their size, and back.

With factor 8 pictures have twice the side and latents stay as they are: the encoder averages first,
and the decoder has one more stage.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .common import Block, ChannelNorm, Clock, Optimisers, Workers, autocast, conv, load, pick_device, rate, save

LATENT_CHANNELS = 4
FACTORS = (4, 8)
WIDE, NARROW, THIN = 128, 64, 48
# Side of the crops that are trained on, in latents.
CROP = 16
ADVERSARY_WEIGHT, ADVERSARY_FROM = 0.05, 0.4


class Encoder(nn.Module):
    def __init__(self, factor: int = 4):
        super().__init__()
        self.factor = factor
        self.entry = conv(12, NARROW)
        self.halved = Block(NARROW)
        self.down = conv(4 * NARROW, WIDE, 1)
        self.quartered = nn.Sequential(Block(WIDE), Block(WIDE))
        self.norm = ChannelNorm(WIDE)
        self.exit = conv(WIDE, 2 * LATENT_CHANNELS)

    def forward(self, pictures):
        """RGB [N, 3, H, W] in [-1, 1] -> mean and log-variance [N, 8, H/factor, W/factor]."""
        return self.of_averaged(F.avg_pool2d(pictures, 2) if self.factor == 8 else pictures)

    def of_averaged(self, pictures):
        """The same of pictures that are four times as large as their latents, whatever the factor."""
        x = self.halved(self.entry(F.pixel_unshuffle(pictures, 2)))
        x = self.quartered(self.down(F.pixel_unshuffle(x, 2)))
        mean, log_variance = self.exit(self.norm(x)).chunk(2, 1)
        return torch.cat([mean, log_variance.clamp(-12, 4)], 1)


class Decoder(nn.Module):
    def __init__(self, factor: int = 4):
        super().__init__()
        self.factor = factor
        self.entry = conv(LATENT_CHANNELS, WIDE)
        self.quartered = nn.Sequential(Block(WIDE), Block(WIDE), Block(WIDE))
        self.up = conv(WIDE, 4 * NARROW, 1)
        self.halved = Block(NARROW)
        if factor == 4:
            self.norm, self.exit = ChannelNorm(NARROW), conv(NARROW, 12)
        else:
            self.halved_more, self.up_more, self.whole = Block(NARROW), conv(NARROW, 4 * THIN, 1), Block(THIN)
            self.norm_whole, self.exit_whole = ChannelNorm(THIN), conv(THIN, 12)

    def forward(self, latents):
        """Unscaled latents [N, 4, h, w] -> RGB [N, 3, factor * h, factor * w], about [-1, 1]."""
        x = self.halved(F.pixel_shuffle(self.up(self.quartered(self.entry(latents))), 2))
        if self.factor == 4:
            return F.pixel_shuffle(self.exit(self.norm(x)), 2)
        x = self.whole(F.pixel_shuffle(self.up_more(self.halved_more(x)), 2))
        return F.pixel_shuffle(self.exit_whole(self.norm_whole(x)), 2)


class Autoencoder(nn.Module):
    def __init__(self, factor: int = 4):
        super().__init__()
        self.encoder, self.decoder, self.factor = Encoder(factor), Decoder(factor), factor


class Adversary(nn.Module):
    """Says of each patch of 22 pixels whether it looks rendered (more than 0) or decoded: [N, 3, H, W] -> [N, 1, H/4, W/4].

    A patch discriminator after Isola et al., Image-to-Image Translation with Conditional Adversarial
    Networks (2017): what the latents leave open, it wants drawn with edges, where L1 would average.
    """

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 48, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(48, 96, 4, 2, 1),
                                  ChannelNorm(96), nn.LeakyReLU(0.2), conv(96, 96), ChannelNorm(96), nn.LeakyReLU(0.2),
                                  conv(96, 1))

    def forward(self, pictures):
        return self.body(pictures)


def to_tensor(pictures: np.ndarray, device) -> torch.Tensor:
    """Bytes [N, H, W, 3] -> [-1, 1] floats [N, 3, H, W] in channels-last order."""
    return torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def _edges(x):
    return x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :]


def _crops(pictures: np.ndarray, batch: int, factor: int, rng: np.random.Generator) -> np.ndarray:
    """Random square crops; most keep to the latent grid, as the training pictures do."""
    side = CROP * factor
    crops = np.empty((batch, side, side, 3), np.uint8)
    for index in range(batch):
        top, left = rng.integers(0, pictures.shape[1] - side + 1, 2)
        if rng.random() < 0.7:
            top, left = top // factor * factor, left // factor * factor
        crops[index] = pictures[rng.integers(len(pictures)), top:top + side, left:left + side]
    return crops


def losses(model: Autoencoder, target: torch.Tensor, grain: torch.Tensor):
    """The loss of a batch of crops, and two figures: the squared error and the divergence from a unit Gaussian."""
    with autocast(target.device):
        mean, log_variance = model.encoder(target).float().chunk(2, 1)
        output = model.decoder(mean + (0.5 * log_variance).exp() * grain).float()
    difference, squared = _difference(output, target)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return difference + 1e-3 * divergence, (squared, divergence)


def _difference(output, target):
    """How far a picture is from another: the sum of L1, L2 and L1 of neighbours' differences; and L2 alone."""
    error = output - target
    edges = sum((a - b).abs().mean() for a, b in zip(_edges(output), _edges(target)))
    squared = error.square().mean()
    return error.abs().mean() + squared + edges, squared


def train(folder: Path, pictures: np.ndarray, factor: int, minutes: float, batch: int, seed: int, log) -> Autoencoder:
    """Trains for the given minutes, going on from the folder's checkpoint, and returns the model."""
    device, checkpoint = pick_device(), folder / "autoencoder.pt"
    torch.manual_seed(seed)
    model = Autoencoder(factor).to(device, memory_format=torch.channels_last)
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
        target = to_tensor(_crops(pictures, batch, factor, rng), device)
        grain = torch.randn(batch, LATENT_CHANNELS, CROP, CROP, device=device)

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


def grown(coder: Autoencoder) -> Autoencoder:
    """An autoencoder of factor 8 with the weights of one of factor 4; its last stage is new."""
    large = Autoencoder(8)
    large.load_state_dict(coder.state_dict(), strict=False)
    return large


def sharpen(folder: Path, coder: Autoencoder, pictures: np.ndarray, minutes: float, batch: int, seed: int, log) -> Autoencoder:
    """Trains the decoder alone, on the encoder's clean latents, from `ADVERSARY_FROM` of the time on against an adversary.

    Goes on from the folder's checkpoint. The encoder, and so all latents, stay as they are. The judge
    is no part of the loss: it has to stay a stranger to what it judges.
    """
    device, checkpoint = pick_device(), folder / "decoder.pt"
    torch.manual_seed(seed)
    model = coder.to(device, memory_format=torch.channels_last)
    decoder, adversary = model.decoder, Adversary().to(device, memory_format=torch.channels_last)
    ours = Optimisers(decoder, ("entry", "exit", "exit_whole"), 0.005, 5e-4)
    theirs = torch.optim.AdamW(adversary.parameters(), 2e-4, betas=(0.5, 0.9))
    state, step, spent = load(checkpoint), 0, 0.0
    if state:
        decoder.load_state_dict(state["decoder"])
        if state["done"] and state["spent"] >= minutes * 60:
            return model
        adversary.load_state_dict(state["adversary"])
        ours.load_state_dict(state["optimisers"])
        theirs.load_state_dict(state["theirs"])
        step, spent = state["step"], state["spent"]
    clock, rng = Clock(minutes, spent), np.random.default_rng(seed + step)
    workers, known, doubts = Workers(device), list(decoder.parameters()), list(adversary.parameters())
    running, saved = None, clock.elapsed()
    while True:
        part = clock.part()
        against = part >= ADVERSARY_FROM
        target = to_tensor(_crops(pictures, batch, model.factor, rng), device)

        def loss_of(where: slice):
            with torch.no_grad(), autocast(device):
                latents = model.encoder(target[where])[:, :LATENT_CHANNELS]
            with autocast(device):
                output = decoder(latents)
                doubt = -adversary(output).float().mean() if against else torch.zeros((), device=device)
            difference, squared = _difference(output.float(), target[where])
            drawn[where.start] = output.detach()
            return difference + ADVERSARY_WEIGHT * doubt, (squared, doubt)

        def verdict_of(where: slice):
            with autocast(device):
                real, fake = adversary(target[where]).float(), adversary(drawn[where.start]).float()
            # The hinge loss: nothing is gained by being surer than 1.
            loss = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
            return loss, (loss,)

        drawn: dict[int, torch.Tensor] = {}
        squared, doubt = workers.gradients(known, loss_of, batch)
        ours.step(rate(part, step), workers)
        verdict = 2.0
        # The adversary starts a little before it is listened to.
        if part >= ADVERSARY_FROM - 0.05:
            verdict, = workers.gradients(doubts, verdict_of, batch)
            theirs.step()
        step += 1
        running = squared if running is None else 0.98 * running + 0.02 * squared
        if step % 50 == 0:
            log(f"decoder step {step} {clock.elapsed():.0f} s: mse {running:.5f} doubt {doubt:.3f} verdict {verdict:.3f}")
        done = part >= 1
        if done or clock.elapsed() - saved > 150:
            saved = clock.elapsed()
            save(checkpoint, {"decoder": decoder.state_dict(), "adversary": adversary.state_dict(), "step": step,
                              "optimisers": ours.state_dict(), "theirs": theirs.state_dict(), "spent": saved,
                              "mse": running, "done": done})
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
def latent_means(model: Autoencoder, pictures: np.ndarray, batch: int = 64) -> np.ndarray:
    """Latent means of pictures [N, 128, 128, 3] as float16 [N, 4, 32, 32]."""
    device = pick_device()
    latents = np.empty((len(pictures), LATENT_CHANNELS, *(side // 4 for side in pictures.shape[1:3])), np.float16)
    for first in range(0, len(pictures), batch):
        with autocast(device):
            moments = model.encoder.of_averaged(to_tensor(np.array(pictures[first:first + batch]), device))
        latents[first:first + batch] = moments[:, :LATENT_CHANNELS].float().cpu().numpy()
    return latents


def encode(model: Autoencoder, pictures: np.ndarray, out: Path) -> np.ndarray:
    """Latent means of all pictures [N, 128, 128, 3] as float16 [N, 4, 32, 32], kept in a file."""
    if not out.exists():
        np.save(out, latent_means(model, pictures))
    return np.load(out)


def plain_latents(model: Autoencoder, count: int, seed: int) -> np.ndarray:
    """Latent means [count, 4, 32, 32], float16, of pictures of one random colour each."""
    colours = np.random.default_rng(seed).integers(0, 256, (count, 1, 1, 3), np.uint8)
    return latent_means(model, np.broadcast_to(colours, (count, 128, 128, 3)))
