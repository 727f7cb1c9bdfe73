"""Training pictures as regions see them: cut to one object's box.

MultiDiffusion evaluates each region's prompt on latents of which only the region's box is its own, and
keeps only what is predicted there. While it bootstraps, a plain colour surrounds the box; afterwards
other regions' objects do, of which the prompt says nothing.
"""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from .dataset import from_row
from .render import NOTHING
from .vocabulary import Picture

# Latents in a cell of the label map.
CELL = 2
# Boxes are as large as their object's proportions allow: up to so many latents of margin, and at most so much
# longer in one direction.
MARGIN, STRETCH = 2, 1.6
CENTRED = 0.75


def _around(first: int, last: int, length: int, side: int, rng: random.Random) -> int:
    """Where a stretch of `length` begins that holds [first, last) and lies in [0, side)."""
    return rng.randint(max(0, last - length), min(first, side - length))


def _to_middle(first: int, length: int, side: int) -> int:
    """By how much a stretch is moved, in whole cells, so that it lies about in the middle."""
    by = CELL * round(((side - length) / 2 - first) / CELL)
    return by if 0 <= first + by <= side - length else 0


def choose_box(marks: np.ndarray, what: Picture, rng: random.Random) -> tuple[Picture, tuple[int, int, int, int]] | None:
    """One of the picture's objects, and a box (top, left, height, width) in latents that holds it and no other.

    Args:
        marks: label map [16, 16, 5]
    Returns:
        the picture without the other objects, and the box; None when the object drawn by lot can't be had alone
    """
    if not what.items:
        return None
    item, things = rng.choice(what.items), marks[..., 0]
    rows, columns = np.nonzero(things == item.thing)
    if not len(rows) or sum(other.thing == item.thing for other in what.items) > 1:
        return None
    (top, bottom), (left, right) = ((CELL * int(at.min()), CELL * int(at.max() + 1)) for at in (rows, columns))
    side = CELL * len(marks)
    height, width = (length + rng.randint(0, MARGIN) for length in (bottom - top, right - left))
    stretch = rng.uniform(1, STRETCH)
    if rng.random() < 0.5:
        height = round(height * stretch)
    else:
        width = round(width * stretch)
    height, width = min(height, side), min(width, side)
    top, left = _around(top, bottom, height, side, rng), _around(left, right, width, side, rng)
    inside = things[top // CELL:-(-(top + height) // CELL), left // CELL:-(-(left + width) // CELL)]
    if not np.isin(inside, (item.thing, NOTHING)).all():
        return None
    return replace(what, items=[item]), (top, left, height, width)


def mask_of(box: tuple[int, int, int, int], side: int) -> np.ndarray:
    """Float32 [side, side]: 1 in the box."""
    top, left, height, width = box
    mask = np.zeros((side, side), np.float32)
    mask[top:top + height, left:left + width] = 1
    return mask


def bootstrapped(latents: np.ndarray, marks: np.ndarray, box: tuple[int, int, int, int], colour: np.ndarray,
                 rng: random.Random) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What bootstrapping shows of a box: a plain colour around it, the box mostly in the middle.

    The box is moved by whole cells, so that its object keeps its place in the UNet's patches.

    Args:
        latents: [4, 32, 32]; colour: latents of a plain picture, alike
    Returns:
        latents, label map, and the moved box's mask
    """
    top, left, height, width = box
    side = latents.shape[-1]
    down, right = (_to_middle(top, height, side), _to_middle(left, width, side)) if rng.random() < CENTRED else (0, 0)
    mask = mask_of((top + down, left + right, height, width), side)
    moved = np.where(mask > 0, np.roll(latents, (down, right), (1, 2)), colour)
    shifted = np.roll(marks, (down // CELL, right // CELL), (0, 1))
    kept = mask.reshape(len(marks), CELL, len(marks), CELL).max((1, 3)) > 0
    nothing = np.array([NOTHING, NOTHING, NOTHING, 0, 0], np.uint8)
    return moved, np.where(kept[..., None], shifted, nothing), mask
