"""Training pictures on disk: what each shows, its label map, and its bytes.

`pictures.npy` has all of them at 128 pixels a side, which is what latents are made of and what the
judge sees; `large.npy` has the first of them at 256, for the decoder. All of them at 256 would be
some 40 GB.
"""

from __future__ import annotations

import multiprocessing
import random
from pathlib import Path

import numpy as np

from .render import CELLS, SIZE, Sprites, halved, random_picture, render
from .vocabulary import Item, Picture

# A picture in numbers: scene, backdrop, effect, then for each of four items thing, style, colour.
MOST_ITEMS = 4
FIELDS = 3 + 3 * MOST_ITEMS
_sprites: Sprites | None = None


def to_row(picture: Picture) -> np.ndarray:
    """Int8 [15]; what a picture does not have is -1."""
    row = np.full(FIELDS, -1, np.int8)
    row[:3] = picture.scene, picture.backdrop, picture.effect
    for index, item in enumerate(picture.items):
        row[3 + 3 * index:6 + 3 * index] = item.thing, item.style, item.colour
    return row


def from_row(row: np.ndarray) -> Picture:
    items = [Item(*map(int, row[at:at + 3])) for at in range(3, FIELDS, 3) if row[at] >= 0]
    return Picture(int(row[0]), int(row[1]), int(row[2]), items)


def _start(sprite_folder: Path) -> None:
    global _sprites
    _sprites = Sprites(sprite_folder)


def _render_block(job: tuple[Path, int, int, int]) -> None:
    folder, first, count, seed = job
    pictures, large, labels, rows = (np.load(folder / f"{name}.npy", mmap_mode="r+")
                                     for name in ("pictures", "large", "labels", "rows"))
    for index in range(first, first + count):
        what = random_picture(random.Random(f"{seed} {index}"))
        picture, labels[index] = render(what, _sprites, seed * 1_000_003 + index)
        pictures[index], rows[index] = halved(picture), to_row(what)
        if index < len(large):
            large[index] = picture


def make(folder: Path, sprite_folder: Path, count: int, large: int, seed: int, processes: int) -> None:
    """Renders `count` pictures into the folder, the first `large` at both sizes; does nothing when they are there."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    half = SIZE // 2
    for name, shape, kind in (("pictures", (count, half, half, 3), np.uint8),
                              ("large", (min(large, count), SIZE, SIZE, 3), np.uint8),
                              ("labels", (count, CELLS, CELLS, 5), np.uint8), ("rows", (count, FIELDS), np.int8)):
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, shape).flush()
    block = 500
    jobs = [(folder, first, min(block, count - first), seed) for first in range(0, count, block)]
    with multiprocessing.Pool(processes, _start, (sprite_folder,)) as pool:
        for _ in pool.imap_unordered(_render_block, jobs):
            pass
    (folder / "done").touch()
