"""Trains text encoder and UNet together on latents, captions and label maps; samples from them."""

from __future__ import annotations

import copy
import dataclasses
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from . import boxes
from .autoencoder import LATENT_CHANNELS
from .common import Clock, Optimisers, Workers, autocast, load, pick_device, rate, save
from .dataset import from_row
from .model import SHAPES, Shape, TextEncoder, UNet
from .render import NOTHING
from .tokenizer import MAX_LENGTH, Tokenizer
from .vocabulary import IDLE, OBJECT_NAMES, OBJECTS, Picture, caption

EMPTY_PROMPTS = 0.10
# How often a caption gets a word that means nothing, known or not, so that such words do little harm.
IDLE_WORDS = 0.08
CELLS_WEIGHT = 0.2
# How many times as often as others the pictures are used that show an object which is hard to learn, or
# which flows and examples ask for most.
OFTEN = {"sofa": 4, "plant": 2, "painting": 2, "candle": 2, "flower": 2, "whale": 2, "apple": 2}
# How much of a batch is shown as regions see it: on a plain colour down to a noise level that long bootstrapping
# reaches, and among other objects below the one that short bootstrapping does.
BOOTSTRAPPED, BOOTSTRAPPED_FROM = 0.6, 300
AMONG_OTHERS, AMONG_OTHERS_BELOW = 0.5, 700
# Stable Diffusion's "scaled_linear" betas.
TIMESTEPS, BETA_START, BETA_END = 1000, 0.00085, 0.012


def cumulative_alphas() -> torch.Tensor:
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TIMESTEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


class Pocket(nn.Module):
    """The two networks that are trained here."""

    def __init__(self, tokenizer: Tokenizer, shape: Shape = SHAPES["small"]):
        super().__init__()
        self.text_encoder = TextEncoder(len(tokenizer.vocab), MAX_LENGTH, tokenizer.pad)
        self.unet = UNet(shape)


def tokenize(tokenizer: Tokenizer, texts: list[str], device) -> torch.Tensor:
    """Ids padded to the longest text only: padding makes no difference to the model."""
    rows = [tokenizer.encode(text, None) for text in texts]
    longest = max(map(len, rows))
    return torch.tensor([row + [tokenizer.pad] * (longest - len(row)) for row in rows], device=device)


def training_text(picture: Picture, rng: random.Random) -> str:
    if rng.random() < EMPTY_PROMPTS:
        return ""
    text = caption(picture, rng)
    if rng.random() < IDLE_WORDS:
        letters = (rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 8)))
        idle = rng.choice(IDLE) if rng.random() < 0.5 else "".join(letters)
        at = rng.randint(0, text.count(" ") + 1)
        words = text.split(" ")
        text = " ".join([*words[:at], idle, *words[at:]])
    return text


def shares_up_to(rows: np.ndarray) -> np.ndarray:
    """For each picture the part of all draws, 0 to 1, that fall on it or on one before it."""
    often = np.array([1, *(OFTEN.get(name, 1) for name in OBJECT_NAMES)], float)
    # No object is -1, hence the first place.
    up_to = often[rows[:, 3::3] + 1].max(1).cumsum()
    return up_to / up_to[-1]


def training_timesteps(count: int, rng: np.random.Generator) -> np.ndarray:
    """Mostly where shapes are decided (middle to high noise), a quarter everywhere."""
    middle = 1 / (1 + np.exp(-0.3 - 0.9 * rng.standard_normal(count)))
    part = np.where(rng.random(count) < 0.25, rng.random(count), middle)
    return (part * TIMESTEPS).astype(np.int64).clip(0, TIMESTEPS - 1)


def training_example(latents: np.ndarray, marks: np.ndarray, row: np.ndarray, t: int, colours: np.ndarray,
                     rng: random.Random) -> tuple[np.ndarray, np.ndarray, np.ndarray, Picture]:
    """A picture as a prompt or, for a part of them, as a region sees it (see boxes.py).

    Args:
        latents: [4, 32, 32]; marks: [16, 16, 5]; colours: latents [n, 4, 32, 32] of plain pictures
    Returns:
        latents, label map, the mask [32, 32] of what is learnt, and what the caption is to name
    """
    what, side = from_row(row), latents.shape[-1]
    choice = rng.random()
    bootstrapped = t >= BOOTSTRAPPED_FROM and choice < BOOTSTRAPPED
    if bootstrapped or (t < AMONG_OTHERS_BELOW and len(what.items) > 1 and choice > 1 - AMONG_OTHERS):
        found = boxes.choose_box(marks, what, rng)
        if found and bootstrapped:
            return *boxes.bootstrapped(latents, marks, found[1], rng.choice(colours), rng), found[0]
        if found:
            return latents, marks, boxes.mask_of(found[1], side), found[0]
    return latents, marks, np.ones((side, side), np.float32), what


def cells_loss(cells: torch.Tensor, labels: torch.Tensor, alphas: torch.Tensor) -> torch.Tensor:
    """Cross-entropies of object, style and colour and the distance of the place, for each cell of eight pixels.

    What the renderer knows is told to the middle of the UNet: which object is here, and which part
    of it. Weighted by the square root of alpha-bar, since in pure noise there is nothing to find.
    """
    objects, styles, colours, place = cells.float().split(UNet.CELL_OUTPUTS, 1)
    labels = labels.permute(0, 3, 1, 2).long()
    thing, style, colour = labels[:, 0], labels[:, 1], labels[:, 2]
    there = (thing != NOTHING).float()
    thing = torch.where(thing == NOTHING, len(OBJECTS), thing)
    colour = torch.where(colour == NOTHING, UNet.CELL_OUTPUTS[2] - 1, colour)
    style = torch.where(style == NOTHING, 0, style)
    per_cell = F.cross_entropy(objects, thing, reduction="none")
    inside = F.cross_entropy(styles, style, reduction="none") + F.cross_entropy(colours, colour, reduction="none")
    inside = 0.5 * inside + 4 * (place - labels[:, 3:] / 255).abs().sum(1)
    return ((per_cell + inside * there).mean((1, 2)) * alphas.sqrt()).mean()


def losses(model: Pocket, clean, noise, t, ids, marks, masks, alphas_bar):
    """The loss of a batch, and its two parts: the error of v within the masks [N, 32, 32] and the cells' loss.

    A box counts by the square root of its part of the picture: less than a whole picture, more than its area.
    """
    alphas = alphas_bar[t]
    signal, sigma = alphas.sqrt()[:, None, None, None], (1 - alphas).sqrt()[:, None, None, None]
    with autocast(clean.device):
        hidden, _ = model.text_encoder(ids)
        output, cells = model.unet(signal * clean + sigma * noise, t, hidden, with_cells=True)
    errors = (output.float() - (signal * noise - sigma * clean)).square().mean(1) * masks
    v_loss = (errors.mean((1, 2)) / masks.mean((1, 2)).sqrt()).mean()
    guess = cells_loss(cells, marks, alphas)
    return v_loss + CELLS_WEIGHT * guess, (v_loss, guess)


def train(folder: Path, latents: np.ndarray, labels: np.ndarray, rows: np.ndarray, colours: np.ndarray,
          tokenizer: Tokenizer, minutes: float, batch: int, seed: int, log, start_from: Pocket, height: float = 1.0,
          decay_from: float = 0.7) -> Pocket:
    """Trains for the given minutes, going on from the folder's checkpoint; returns the averaged weights.

    `colours` are latents [n, 4, 32, 32] of plain pictures, which bootstrapping puts around boxes.

    A training that is done goes on when it is given more minutes in all than it has had.
    `start_from` has the first weights where there is no checkpoint. `height` scales the learning rates,
    which fall from the part `decay_from` of the time on: a short training from good weights wants
    lower ones that fall sooner.
    """
    device, checkpoint = pick_device(), folder / "diffusion.pt"
    torch.manual_seed(seed)
    model = start_from.to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False)
    optimisers = Optimisers(model, ("text_encoder.tokens", "text_encoder.places", "unet.entry", "unet.exit",
                                    "unet.cells"), muon_lr=0.01, adam_lr=1e-3, weight_decay=0.01)
    state, step, spent = load(checkpoint), 0, 0.0
    if state:
        average.load_state_dict(state["average"])
        if state["done"] and state["spent"] >= minutes * 60:
            return average.eval()
        model.load_state_dict(state["model"])
        optimisers.load_state_dict(state["optimisers"])
        step, spent = state["step"], state["spent"]
    torch.manual_seed(seed + step)
    clock, rng, words = Clock(minutes, spent), np.random.default_rng(seed + step), random.Random(seed + step)
    alphas_bar, workers, parameters = cumulative_alphas().to(device), Workers(device), list(model.parameters())
    up_to = shares_up_to(rows)
    running, running_cells, saved = None, 0.0, clock.elapsed()

    def chosen_pictures():
        chosen, t = np.searchsorted(up_to, rng.random(batch), "right"), training_timesteps(batch, rng)
        clean, marks, masks, pictures = zip(*(
            training_example(latents[index], labels[index], rows[index], int(level), colours, words)
            for index, level in zip(chosen, t)))
        return (torch.from_numpy(np.stack(clean).astype(np.float32)), torch.from_numpy(np.stack(marks)),
                torch.from_numpy(np.stack(masks)), torch.from_numpy(t),
                tokenize(tokenizer, [training_text(picture, words) for picture in pictures], "cpu"))

    # Captions are made in Python, one batch ahead: a GPU would wait for them as long as it computes.
    ahead = ThreadPoolExecutor(1)
    following = ahead.submit(chosen_pictures)
    while True:
        part = clock.part()
        clean, marks, masks, t, ids = (tensor.to(device) for tensor in following.result())
        clean = clean.contiguous(memory_format=torch.channels_last)
        following = ahead.submit(chosen_pictures)
        noise = torch.randn_like(clean)

        def loss_of(where: slice):
            return losses(model, clean[where], noise[where], t[where], ids[where], marks[where], masks[where], alphas_bar)

        v_loss, guess = workers.gradients(parameters, loss_of, batch)
        optimisers.step(height * rate(part, step, decay_from=decay_from), workers)
        step += 1
        decay = min(0.9995, (1 + step) / (20 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        running = v_loss if running is None else 0.99 * running + 0.01 * v_loss
        running_cells = 0.99 * running_cells + 0.01 * guess
        if step % 100 == 0:
            log(f"diffusion step {step} {clock.elapsed():.0f} s: v {running:.4f} cells {running_cells:.3f}")
        done = part >= 1
        if done or clock.elapsed() - saved > 180:
            saved = clock.elapsed()
            save(checkpoint, {"model": model.state_dict(), "average": average.state_dict(), "step": step,
                              "optimisers": optimisers.state_dict(), "spent": saved, "batch": batch,
                              "loss": running, "done": done, "shape": dataclasses.asdict(model.unet.shape)})
        if done:
            return average.eval()


@torch.no_grad()
def sample(model: Pocket, tokenizer: Tokenizer, prompts: list[str], seed: int, guidance: float = 4.0,
           steps: int = 25, side: int = 32) -> torch.Tensor:
    """Latents [N, 4, side, side] for prompts, by DDIM with guidance, as the exported scheduler's configuration says."""
    device = next(model.parameters()).device
    alphas = cumulative_alphas().to(device)
    ids = tokenize(tokenizer, [*prompts, *[""] * len(prompts)], device)
    x = torch.randn(len(prompts), LATENT_CHANNELS, side, side, generator=torch.Generator().manual_seed(seed)).to(device)
    stride = TIMESTEPS // steps
    timesteps = [index * stride + 1 for index in reversed(range(steps))]
    with autocast(device):
        hidden, _ = model.text_encoder(ids)
    for t in timesteps:
        with autocast(device):
            both = model.unet(torch.cat([x, x]), torch.full((2 * len(x),), t, device=device), hidden)
        wanted, free = both.float().chunk(2)
        v = free + guidance * (wanted - free)
        now, after = alphas[t], alphas[max(t - stride, 0)]
        clean, noise = now.sqrt() * x - (1 - now).sqrt() * v, now.sqrt() * v + (1 - now).sqrt() * x
        x = after.sqrt() * clean + (1 - after).sqrt() * noise
    return x
