"""Renders training pictures: procedural scenes, emoji sprites on them, effects over the whole.

A picture is painted at 256 pixels a side. Everything that painters count in pixels, sizes of sprites
too, is in units of a 128th of the side, so that `SCALE` alone decides the size; averaged down to
128, a picture is what SCALE 1 paints, but smoother.

Sprites stand on a grid of eight units, in sizes that are multiples of eight, so that one sprite
gives nearly the same latents wherever it stands (a cell of the grid is 2x2 latents, which is what
the UNet works on): there is much less to learn.
"""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from . import vocabulary as words
from .vocabulary import COLOUR_NAMES, COLOURS, EFFECT_NAMES, OBJECTS, PLAIN, SCENE_NAMES, Item, Picture

UNITS, SCALE = 128, 2
SIZE = UNITS * SCALE
GRID = 8
CELLS = UNITS // GRID
# Longer sides that sprites are drawn with, by how many there are: from a fifth of the canvas up.
SIZES = {1: tuple(range(24, 120, 8)), 2: tuple(range(24, 80, 8)), 3: tuple(range(24, 64, 8)), 4: tuple(range(24, 56, 8))}
NOTHING = 255
PALETTE = np.array([COLOURS[name] for name in COLOUR_NAMES], np.float32) / 255
# Ramps for scene generators: each pixel's row and column, 0 to 1.
ROWS, COLUMNS = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE


# ---------------------------------------------------------------- scenes

def _rgb(*value: int) -> np.ndarray:
    return np.array(value, np.float32) / 255


def _vary(colour: np.ndarray, rng: np.random.Generator, amount: float = 0.04) -> np.ndarray:
    return np.clip(colour + rng.normal(0, amount, 3).astype(np.float32), 0, 1)


def _gradient(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return top + (bottom - top) * ROWS[..., None]


def _noise(rng: np.random.Generator, cell_rows: int, cell_columns: int) -> np.ndarray:
    """Smooth noise in [-1, 1] with cells of the given size in units."""
    shape = (UNITS // cell_rows + 2, UNITS // cell_columns + 2)
    small = Image.fromarray(rng.uniform(-1, 1, shape).astype(np.float32))
    return np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def _hill(rng: np.random.Generator, height: float, swing: float, waves: float) -> np.ndarray:
    """A wavy horizon: for each column the row (0 to 1) where the ground begins."""
    x = COLUMNS[0] * waves * 2 * np.pi
    return height + swing * (np.sin(x + rng.uniform(0, 6.3)) + 0.5 * np.sin(2.1 * x + rng.uniform(0, 6.3))) / 1.5


def _below(picture: np.ndarray, horizon: np.ndarray | float, ground: np.ndarray) -> np.ndarray:
    """Paints the ground under the horizon, with a soft edge of a pixel."""
    cover = np.clip((ROWS - horizon) * SIZE + 0.5, 0, 1)[..., None]
    return picture * (1 - cover) + ground * cover


def _living_room(rng):
    wall = _vary(_rgb(*rng.choice([(226, 214, 190), (205, 216, 205), (214, 206, 222), (228, 220, 212)])), rng, 0.02)
    boards = _vary(_rgb(128, 84, 52), rng, 0.02) * (0.95 + 0.06 * _noise(rng, 64, 8))[..., None]
    seam = (np.floor(COLUMNS * 8) != np.floor((COLUMNS + 1 / UNITS) * 8))[..., None]
    boards = np.where(seam, boards * 0.75, boards)
    floor = rng.uniform(0.72, 0.82)
    picture = _below(np.broadcast_to(wall, (SIZE, SIZE, 3)) * (1.03 - 0.08 * ROWS[..., None]), floor - 0.035, _rgb(248, 246, 240))
    return _below(picture, floor, boards)


def _meadow(rng):
    sky = _gradient(_vary(_rgb(70, 150, 240), rng, 0.02), _rgb(190, 225, 250))
    grass = _gradient(_rgb(120, 195, 70), _vary(_rgb(55, 140, 40), rng, 0.02)) + 0.03 * _noise(rng, 4, 3)[..., None]
    return _below(sky, _hill(rng, rng.uniform(0.5, 0.7), 0.04, rng.uniform(0.5, 1.2)), grass)


def _mountains(rng):
    picture = _gradient(_vary(_rgb(130, 180, 230), rng, 0.02), _rgb(225, 235, 245))
    peaks = np.full(SIZE, 1.0, np.float32)
    for centre in (rng.uniform(0.0, 0.3), rng.uniform(0.35, 0.65), rng.uniform(0.7, 1.0)):
        peaks = np.minimum(peaks, rng.uniform(0.15, 0.35) + 1.1 * np.abs(COLUMNS[0] - centre))
    rock = _gradient(_rgb(120, 125, 145), _rgb(85, 95, 120))
    snow_line = peaks + 0.09 + 0.02 * np.sin(COLUMNS[0] * 60)
    picture = _below(picture, peaks, _rgb(245, 248, 252) * np.ones_like(rock))
    picture = _below(picture, snow_line, rock)
    grass = _gradient(_rgb(110, 170, 70), _rgb(60, 125, 45)) + 0.03 * _noise(rng, 4, 3)[..., None]
    return _below(picture, _hill(rng, rng.uniform(0.66, 0.76), 0.03, 0.8), grass)


def _beach(rng):
    sky = _gradient(_rgb(110, 200, 240), _rgb(205, 238, 250))
    sea = _gradient(_rgb(30, 150, 185), _rgb(40, 165, 195)) + 0.02 * _noise(rng, 3, 24)[..., None]
    sand = _vary(_rgb(235, 208, 150), rng, 0.015) + 0.03 * _noise(rng, 3, 3)[..., None]
    horizon = rng.uniform(0.38, 0.5)
    shore = _hill(rng, rng.uniform(0.64, 0.72), 0.02, 0.7)
    picture = _below(_below(sky, horizon, sea), shore - 0.02, np.ones_like(sea) * 0.97)
    return _below(picture, shore, sand)


def _night_sky(rng):
    picture = _gradient(_vary(_rgb(8, 10, 42), rng, 0.01), _vary(_rgb(28, 26, 78), rng, 0.015))
    picture = np.ascontiguousarray(picture)
    for _ in range(rng.integers(35, 60)):
        y, x = SCALE * rng.integers(0, UNITS - 1, 2)
        side, light = (2 * SCALE, 0.95) if rng.random() < 0.4 else (SCALE, 1)
        picture[y:y + side, x:x + side] = light
    return picture


def _sunset(rng):
    horizon = rng.uniform(0.52, 0.66)
    depth = np.clip(ROWS / horizon, 0, 1)[..., None]
    top, middle, low = _rgb(85, 50, 120), _rgb(235, 100, 80), _vary(_rgb(255, 190, 80), rng, 0.02)
    sky = np.where(depth < 0.6, top + (middle - top) * depth / 0.6, middle + (low - middle) * (depth - 0.6) / 0.4)
    sea = _gradient(_rgb(255, 150, 90), _rgb(45, 30, 85)) + 0.08 * _noise(rng, 3, 16)[..., None]
    return _below(sky, horizon, sea)


def _snow(rng):
    sky = _gradient(_vary(_rgb(155, 175, 215), rng, 0.02), _rgb(215, 225, 242))
    field = _gradient(_rgb(255, 255, 255), _rgb(205, 220, 242)) + 0.012 * _noise(rng, 16, 24)[..., None]
    return _below(sky, _hill(rng, rng.uniform(0.5, 0.68), 0.035, rng.uniform(0.5, 1.2)), field)


def _brick_wall(rng):
    row = np.floor(ROWS * 10)
    shifted = COLUMNS * 5 + 0.5 * (row % 2)
    tone = rng.uniform(-1, 1, (10, 7)).astype(np.float32)[row.astype(int), np.floor(shifted).astype(int)]
    bricks = _vary(_rgb(165, 70, 58), rng, 0.02) * (1 + 0.10 * tone)[..., None] + 0.02 * _noise(rng, 3, 3)[..., None]
    mortar = ((ROWS * 10) % 1 < 0.13) | (shifted % 1 < 0.07)
    return np.where(mortar[..., None], _rgb(205, 195, 185), bricks)


def _wooden_table(rng):
    grain = np.sin(ROWS * rng.uniform(90, 120) + 4 * _noise(rng, 24, 64))
    wood = _vary(_rgb(190, 130, 72), rng, 0.02) * (1 + 0.09 * grain + 0.04 * _noise(rng, 8, 48))[..., None]
    seam = (ROWS * 4) % 1 < 0.03
    return np.where(seam[..., None], wood * 0.6, wood)


def _underwater(rng):
    picture = _gradient(_vary(_rgb(70, 190, 220), rng, 0.02), _rgb(8, 60, 125))
    slant = COLUMNS + 0.35 * ROWS
    rays = np.clip(np.sin(slant * rng.uniform(16, 22) + rng.uniform(0, 6.3)), 0, 1) * (1 - ROWS)
    picture = picture + 0.10 * rays[..., None]
    sand = _rgb(150, 165, 140) * (1 + 0.05 * _noise(rng, 4, 8))[..., None]
    return _below(picture, _hill(rng, rng.uniform(0.84, 0.9), 0.02, 0.9), sand)


def _desert(rng):
    picture = _gradient(_vary(_rgb(140, 190, 225), rng, 0.015), _rgb(250, 230, 190))
    far = _gradient(_rgb(235, 190, 115), _rgb(215, 150, 80))
    near = _gradient(_rgb(240, 180, 95), _rgb(195, 120, 50))
    height = rng.uniform(0.48, 0.6)
    picture = _below(picture, _hill(rng, height, 0.05, 1.1), far)
    return _below(picture, _hill(rng, height + 0.2, 0.05, 0.7), near)


def _city_street(rng):
    picture = np.ascontiguousarray(_gradient(_rgb(150, 195, 220), _rgb(220, 230, 235)))
    ground = 104 * SCALE
    left = 0
    while left < UNITS:
        width = int(rng.integers(18, 30))
        top = int(rng.integers(16, 60))
        wall = _vary(_rgb(*rng.choice([(110, 125, 145), (140, 110, 125), (95, 135, 125), (150, 140, 120)])), rng, 0.02)
        picture[top * SCALE:ground, left * SCALE:(left + width - 1) * SCALE] = wall
        lit = _rgb(250, 232, 150)
        for y in range(top + 4, 98, 9):
            for x in range(left + 3, min(left + width - 5, UNITS - 4), 7):
                window = lit if rng.random() < 0.75 else wall * 0.7
                picture[y * SCALE:(y + 5) * SCALE, x * SCALE:(x + 4) * SCALE] = window
        left += width
    picture[ground:] = _rgb(82, 84, 90)
    picture[ground:ground + 3 * SCALE] = _rgb(170, 170, 168)
    dashes = (np.arange(SIZE) // SCALE + int(rng.integers(0, 24))) % 24 < 14
    picture[116 * SCALE:119 * SCALE, dashes] = _rgb(240, 240, 235)
    return picture


def _plain(rng, backdrop: int):
    colour = np.clip(PALETTE[backdrop] + rng.normal(0, 0.03, 3), 0, 1).astype(np.float32)
    return np.broadcast_to(colour, (SIZE, SIZE, 3)) * (1 + rng.uniform(-0.06, 0.06) * (ROWS[..., None] - 0.5))


PAINTERS = {
    "living room": _living_room, "meadow": _meadow, "mountains": _mountains, "beach": _beach,
    "night sky": _night_sky, "sunset": _sunset, "snow": _snow, "brick wall": _brick_wall,
    "wooden table": _wooden_table, "underwater": _underwater, "desert": _desert, "city street": _city_street,
}


def paint_scene(scene: int, backdrop: int, rng: np.random.Generator) -> np.ndarray:
    """A scene as float32 RGB [256, 256, 3] in [0, 1]."""
    picture = _plain(rng, backdrop) if scene == PLAIN else PAINTERS[SCENE_NAMES[scene]](rng)
    return np.clip(picture, 0, 1).astype(np.float32)


# ---------------------------------------------------------------- objects

def _luminance(rgb: np.ndarray) -> np.ndarray:
    """Of RGB [..., 3]. Not a matrix product, which would start threads in each of the processes that render."""
    return 0.3 * rgb[..., 0] + 0.59 * rgb[..., 1] + 0.11 * rgb[..., 2]


def tint(rgb: np.ndarray, alpha: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Recolours a sprite: its mean luminance becomes the colour, darker parts darken, lighter ones whiten."""
    luminance = _luminance(rgb)
    mean = float((luminance * alpha).sum() / max(alpha.sum(), 1e-6))
    dark = colour * np.clip(luminance / mean, 0, 1)[..., None] ** 0.8
    light = np.clip((luminance - mean) / max(1 - mean, 1e-3), 0, 1)[..., None] * 0.75
    return dark + (1 - dark) * np.where((luminance > mean)[..., None], light, 0)


class Sprites:
    """The rendered artwork, cut to its contents: sprite(thing, style, height) -> RGBA of whole cells."""

    def __init__(self, folder: Path):
        self.originals = {}
        self.sprite = lru_cache(maxsize=1500)(self._sprite)
        for thing, spec in enumerate(OBJECTS):
            for style, name in enumerate(words.STYLE_NAMES):
                picture = Image.open(folder / f"{spec.names[0]}.{name}.png").convert("RGBA")
                left, top, right, bottom = spec.crop
                width, height = picture.size
                picture = picture.crop((int(left * width), int(top * height), int(right * width), int(bottom * height)))
                self.originals[thing, style] = picture.crop(picture.getchannel("A").getbbox())

    def _sprite(self, thing: int, style: int, colour: int, longest: int) -> np.ndarray:
        """Float32 RGBA whose longer side is `longest` units, standing in the middle of a box of whole cells."""
        picture, cell = self.originals[thing, style], GRID * SCALE
        scale = longest * SCALE / max(picture.size)
        width, height = (max(1, round(side * scale)) for side in picture.size)
        box = [-(-side // cell) * cell for side in (width, height)]
        # Resize with premultiplied alpha, so that no dark fringe appears.
        kind = Image.Resampling.BOX if scale < 0.5 else Image.Resampling.LANCZOS
        pixels = np.asarray(picture.convert("RGBa").resize((width, height), kind).convert("RGBA"), np.float32) / 255
        if colour >= 0:
            pixels = np.concatenate([tint(pixels[..., :3], pixels[..., 3], PALETTE[colour]), pixels[..., 3:]], -1)
        framed = np.zeros((box[1], box[0], 4), np.float32)
        left, top = (box[0] - width) // 2, box[1] - height
        framed[top:top + height, left:left + width] = pixels
        return framed


def draw(picture: np.ndarray, sprite: np.ndarray, left: int, top: int) -> None:
    height, width = sprite.shape[:2]
    target = picture[top:top + height, left:left + width]
    alpha = sprite[..., 3:]
    target[:] = target * (1 - alpha) + sprite[..., :3] * alpha


# ---------------------------------------------------------------- effects

def _pixel_art(picture: np.ndarray, rng) -> np.ndarray:
    side = 4 * SCALE
    blocks = picture.reshape(SIZE // side, side, SIZE // side, side, 3).mean((1, 3))
    return (np.round(blocks * 8) / 8).repeat(side, 0).repeat(side, 1)


def _pencil_sketch(picture: np.ndarray, rng) -> np.ndarray:
    grey = _luminance(picture)
    padded = np.pad(grey, SCALE, mode="edge")
    across = padded[SCALE:-SCALE, 2 * SCALE:] - padded[SCALE:-SCALE, :-2 * SCALE]
    down = padded[2 * SCALE:, SCALE:-SCALE] - padded[:-2 * SCALE, SCALE:-SCALE]
    line = np.clip(3.0 * np.hypot(across, down), 0, 1)
    hatch = 0.5 + 0.5 * np.sin((ROWS + COLUMNS) * UNITS * 1.6)
    shade = 0.22 * np.clip(0.75 - grey, 0, 1) * (0.6 + 0.8 * hatch)
    paper = np.clip(0.96 - 0.85 * line - shade, 0, 1)
    return paper[..., None] * np.array([1.0, 0.99, 0.96], np.float32)


def _oil_painting(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    swirl_y, swirl_x = 2.5 * _noise(rng, 12, 12), 2.5 * _noise(rng, 12, 12)
    y = np.clip(ROWS * SIZE + swirl_y * SCALE, 0, SIZE - 1).astype(int)
    x = np.clip(COLUMNS * SIZE + swirl_x * SCALE, 0, SIZE - 1).astype(int)
    moved = picture[y, x]
    stroke = np.sin(1.1 * (swirl_y * 5 + swirl_x * 3) + ROWS * 60) * 0.07
    saturated = moved.mean(-1, keepdims=True) + 1.25 * (moved - moved.mean(-1, keepdims=True))
    return saturated + stroke[..., None]


def _blurry(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = Image.fromarray((picture * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(float(rng.uniform(3, 4)) * SCALE)), np.float32) / 255


FILTERS = {"pixel art": _pixel_art, "pencil sketch": _pencil_sketch, "oil painting": _oil_painting, "blurry": _blurry}


# ---------------------------------------------------------------- whole pictures

def _random_item(chooser: random.Random) -> Item:
    thing = chooser.randrange(len(OBJECTS))
    tinted = OBJECTS[thing].tintable and chooser.random() < 0.6
    return Item(thing, chooser.randrange(len(words.STYLE_NAMES)), chooser.randrange(len(COLOURS)) if tinted else -1)


def random_picture(chooser: random.Random) -> Picture:
    """Draws by lot what a training picture shows."""
    scene = PLAIN if chooser.random() < 0.16 else chooser.randrange(len(SCENE_NAMES))
    backdrop = chooser.randrange(len(COLOURS)) if scene == PLAIN else -1
    effect = chooser.randrange(1, len(EFFECT_NAMES)) if chooser.random() < 0.25 else 0
    count = chooser.choices((0, 1, 2, 3, 4), (0.11, 0.50, 0.20, 0.11, 0.08))[0]
    items = [_random_item(chooser) for _ in range(count)]
    for item in items:
        while item.colour >= 0 and item.colour == backdrop:
            item.colour = chooser.randrange(len(COLOURS))
    return Picture(scene, backdrop, effect, items)


def _apart(boxes: list[tuple[int, int, int, int]]) -> bool:
    """Whether no two boxes (left, top, width, height) overlap."""
    return all(ax + aw <= bx or bx + bw <= ax or ay + ah <= by or by + bh <= ay
               for index, (ax, ay, aw, ah) in enumerate(boxes) for bx, by, bw, bh in boxes[:index])


def _place(sizes: list[tuple[int, int]], chooser: random.Random) -> list[tuple[int, int]]:
    """Random places (left, top) for boxes (width, height), in cells, which do not overlap if that can be had."""
    spots = []
    for _ in range(60):
        spots = [(chooser.randint(0, CELLS - w), chooser.randint(0, CELLS - h)) for w, h in sizes]
        if _apart([(*spot, *size) for spot, size in zip(spots, sizes)]):
            break
    return spots


def render(what: Picture, sprites: Sprites, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Paints a picture.

    Returns RGB bytes [256, 256, 3] and a label map [16, 16, 5] of bytes: for each cell of eight
    units the object, its style, its colour (or NOTHING), and where in the sprite the cell lies
    (across and down, 0 to 255).
    """
    rng, chooser = np.random.default_rng(seed), random.Random(seed)
    picture = paint_scene(what.scene, what.backdrop, rng)
    labels = np.full((CELLS, CELLS, 5), NOTHING, np.uint8)
    labels[..., 3:] = 0
    drawn = [sprites.sprite(item.thing, item.style, item.colour, chooser.choice(SIZES[len(what.items)]))
             for item in what.items]
    side = GRID * SCALE
    boxes = [(pixels.shape[1] // side, pixels.shape[0] // side) for pixels in drawn]
    for item, pixels, (width, height), (left, top) in zip(what.items, drawn, boxes, _place(boxes, chooser)):
        draw(picture, pixels, left * side, top * side)
        cover = pixels[..., 3].reshape(height, side, width, side).mean((1, 3)) > 0.15
        cells = labels[top:top + height, left:left + width]
        across, down = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
        colour = item.colour if item.colour >= 0 else NOTHING
        values = np.stack([np.full_like(across, item.thing), np.full_like(across, item.style),
                           np.full_like(across, colour), across * 255, down * 255], -1).astype(np.uint8)
        cells[cover] = values[cover]
    name = EFFECT_NAMES[what.effect]
    if name in FILTERS:
        picture = FILTERS[name](picture, rng)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8), labels


def halved(picture: np.ndarray) -> np.ndarray:
    """Bytes [..., H, W, 3] averaged to half their sides."""
    *rest, height, width, channels = picture.shape
    blocks = picture.reshape(*rest, height // 2, 2, width // 2, 2, channels)
    return (blocks.astype(np.uint16).sum((-4, -2)) + 2 >> 2).astype(np.uint8)
