"""The judge: a small classifier of renders that says what a picture shows.

It sees renders only, never a generated picture, so its word on generated pictures is independent
of the model that made them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .autoencoder import to_tensor
from .common import Block, ChannelNorm, Clock, Optimisers, Workers, autocast, conv, load, pick_device, rate, save
from .vocabulary import COLOUR_NAMES, EFFECT_NAMES, OBJECT_NAMES, SCENE_NAMES, STYLE_NAMES

# What is judged, and the labels of each output.
QUESTIONS = {"object": OBJECT_NAMES, "style": STYLE_NAMES, "colour": COLOUR_NAMES, "scene": SCENE_NAMES,
             "effect": EFFECT_NAMES}
UNKNOWN = -100
JUDGED_SIZE = 128


class Judge(nn.Module):
    """RGB [N, 3, 128, 128] in [-1, 1] -> logits, one tensor for each question."""

    def __init__(self):
        super().__init__()
        self.entry = conv(48, 64)
        self.body = nn.Sequential(Block(64), nn.Conv2d(64, 96, 2, 2), Block(96), Block(96),
                                  nn.Conv2d(96, 160, 2, 2), Block(160), Block(160), ChannelNorm(160))
        self.answers = nn.ModuleDict({name: nn.Linear(320, len(labels)) for name, labels in QUESTIONS.items()})

    def forward(self, pictures):
        x = self.body(self.entry(F.pixel_unshuffle(pictures, 4)))
        features = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)
        return tuple(self.answers[name](features) for name in QUESTIONS)


def truths(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Right answers for pictures with one object or none; UNKNOWN where a question has no answer."""
    thing, style, colour = rows[:, 3], rows[:, 4], rows[:, 5]
    effect = rows[:, 2]
    sketched = effect == EFFECT_NAMES.index("pencil sketch")
    plain = effect == 0

    def known(values, condition):
        return np.where(condition, values, UNKNOWN).astype(np.int64)

    alone = rows[:, 6] < 0
    return {
        "object": known(thing, (thing >= 0) & alone),
        # Effects hide how an object was rendered, and a sketch has no colours.
        "style": known(style, (style >= 0) & alone & plain),
        "colour": known(colour, (colour >= 0) & alone & ~sketched),
        "scene": known(rows[:, 0], np.ones(len(rows), bool)),
        "effect": known(effect, np.ones(len(rows), bool)),
    }


def train(folder: Path, pictures: np.ndarray, rows: np.ndarray, minutes: float, batch: int, seed: int, log) -> Judge:
    """Trains for the given minutes, going on from the folder's checkpoint, and returns the model."""
    device, checkpoint = pick_device(), folder / "judge.pt"
    torch.manual_seed(seed)
    model = Judge().to(device, memory_format=torch.channels_last)
    optimisers = Optimisers(model, ("entry", "answers"), 0.01, 1e-3, weight_decay=0.1)
    state, step, spent = load(checkpoint), 0, 0.0
    if state:
        model.load_state_dict(state["model"])
        if state["done"]:
            return model.eval()
        optimisers.load_state_dict(state["optimisers"])
        step, spent = state["step"], state["spent"]
    usable = np.flatnonzero(rows[:, 6] < 0)
    answers = truths(rows)
    workers, parameters = Workers(device), list(model.parameters())
    clock, rng, saved = Clock(minutes, spent), np.random.default_rng(seed + step), 0.0
    while True:
        part = clock.part()
        chosen = rng.choice(usable, batch)
        x = to_tensor(np.stack([pictures[index] for index in chosen]), device)
        # A little noise and a little blur: generated pictures are neither as clean nor as crisp as renders.
        x = x + 0.1 * torch.rand(batch, 1, 1, 1, device=device) * torch.randn_like(x)
        soft = torch.rand(batch, 1, 1, 1, device=device)
        x = x + soft * (F.avg_pool2d(x, 3, 1, 1) - x)
        right = {name: torch.from_numpy(values[chosen]).to(device) for name, values in answers.items()}

        def loss_of(where: slice):
            with autocast(device):
                logits = model(x[where])
            errors = [F.cross_entropy(output.float(), right[name][where], ignore_index=UNKNOWN)
                      for name, output in zip(QUESTIONS, logits)]
            return sum(errors), errors

        figures = workers.gradients(parameters, loss_of, batch)
        optimisers.step(rate(part, step), workers)
        step += 1
        if step % 50 == 0:
            log(f"judge step {step} {clock.elapsed():.0f} s: " +
                " ".join(f"{name} {loss:.3f}" for name, loss in zip(QUESTIONS, figures)))
        done = part >= 1
        if done or clock.elapsed() - saved > 150:
            saved = clock.elapsed()
            save(checkpoint, {"model": model.state_dict(), "optimisers": optimisers.state_dict(), "step": step,
                              "spent": saved, "done": done})
        if done:
            return model.eval()


@torch.no_grad()
def judge(model: Judge, pictures: np.ndarray, batch: int = 64) -> dict[str, np.ndarray]:
    """The judge's first choice for each question, for pictures given as bytes [N, H, W, 3] of 128 or 256 a side."""
    device = next(model.parameters()).device
    choices = {name: [] for name in QUESTIONS}
    for first in range(0, len(pictures), batch):
        x = to_tensor(np.ascontiguousarray(pictures[first:first + batch]), device)
        logits = model(F.avg_pool2d(x, x.shape[-1] // JUDGED_SIZE))
        for name, output in zip(QUESTIONS, logits):
            choices[name].append(output.argmax(-1).cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in choices.items()}
