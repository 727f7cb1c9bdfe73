"""Training pictures on disk: `pictures.npy` (bytes), what each shows, and its label map."""

from __future__ import annotations

import multiprocessing
import random
from pathlib import Path

import numpy as np

from .render import CELLS, SIZE, Sprites, random_picture, render
from .vocabulary import Item, Picture

# A picture in numbers: scene, backdrop, effect, then for each of two items thing, style, colour.
FIELDS = 9
_sprites: Sprites | None = None


def to_row(picture: Picture) -> np.ndarray:
    """Int8 [9]; what a picture does not have is -1."""
    row = np.full(FIELDS, -1, np.int8)
    row[:3] = picture.scene, picture.backdrop, picture.effect
    for index, item in enumerate(picture.items):
        row[3 + 3 * index:6 + 3 * index] = item.thing, item.style, item.colour
    return row


def from_row(row: np.ndarray) -> Picture:
    items = [Item(*map(int, row[at:at + 3])) for at in (3, 6) if row[at] >= 0]
    return Picture(int(row[0]), int(row[1]), int(row[2]), items)


def _start(sprite_folder: Path) -> None:
    global _sprites
    _sprites = Sprites(sprite_folder)


def _render_block(job: tuple[Path, int, int, int]) -> None:
    folder, first, count, seed = job
    pictures, labels, rows = (np.load(folder / f"{name}.npy", mmap_mode="r+")
                              for name in ("pictures", "labels", "rows"))
    for index in range(first, first + count):
        what = random_picture(random.Random(f"{seed} {index}"))
        pictures[index], labels[index] = render(what, _sprites, seed * 1_000_003 + index)
        rows[index] = to_row(what)


def make(folder: Path, sprite_folder: Path, count: int, seed: int, processes: int) -> None:
    """Renders `count` pictures into the folder; does nothing when they are there."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, shape, kind in (("pictures", (count, SIZE, SIZE, 3), np.uint8),
                              ("labels", (count, CELLS, CELLS, 5), np.uint8), ("rows", (count, FIELDS), np.int8)):
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, shape).flush()
    block = 500
    jobs = [(folder, first, min(block, count - first), seed) for first in range(0, count, block)]
    with multiprocessing.Pool(processes, _start, (sprite_folder,)) as pool:
        for _ in pool.imap_unordered(_render_block, jobs):
            pass
    (folder / "done").touch()
