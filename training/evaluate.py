"""Measures what the model draws, with the judge, and makes the contact sheets to look at."""

from __future__ import annotations

import copy
import random
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image, ImageDraw

from . import dataset
from .autoencoder import LATENT_CHANNELS, Autoencoder, to_tensor
from .common import Workers
from .diffusion import Pocket, sample
from .judge import QUESTIONS, UNKNOWN, Judge, judge, truths
from .render import Sprites, halved, random_picture, render
from .tokenizer import Tokenizer
from .vocabulary import (COLOUR_NAMES, EFFECT_NAMES, OBJECT_NAMES, OBJECTS, PLAIN, SCENE_NAMES, SCENES, SCENES_ALONE,
                         STYLE_NAMES, Item, Picture)


class Painter:
    """The trained parts together: prompts to pictures."""

    def __init__(self, pocket: Pocket, autoencoder: Autoencoder, tokenizer: Tokenizer):
        self.pocket, self.autoencoder, self.tokenizer = pocket.eval(), autoencoder.eval(), tokenizer
        self.workers = Workers(next(pocket.parameters()).device)

    def paint(self, prompts: list[str], seed: int, guidance: float = 4.0, steps: int = 25, batch: int = 16) -> np.ndarray:
        """Bytes [N, side, side, 3]."""
        def part(first: int) -> np.ndarray:
            latents = sample(self.pocket, self.tokenizer, prompts[first:first + batch], seed + first, guidance, steps)
            with torch.no_grad():
                output = self.autoencoder.decoder(latents).float()
            return ((output.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()

        return np.concatenate(self.workers.map(part, range(0, len(prompts), batch)))


# ---------------------------------------------------------------- figures

def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def full_prompt(what: Picture, rng: random.Random) -> str:
    """A prompt that says all that the picture shows: style, colour, object, scene, effect."""
    item = what.items[0]
    words = [STYLE_NAMES[item.style]] if what.effect == 0 else []
    if item.colour >= 0:
        words.append(COLOUR_NAMES[item.colour])
    text = _article(" ".join([*words, rng.choice(OBJECTS[item.thing].names)]))
    preposition, *phrases = SCENES[SCENE_NAMES[what.scene]]
    if what.scene == PLAIN:
        text += f" on {_article(COLOUR_NAMES[what.backdrop])} background"
    else:
        text += f" {preposition} {phrases[0]}"
    form = {"none": "{}", "pixel art": "pixel art of {}", "pencil sketch": "a pencil sketch of {}",
            "oil painting": "an oil painting of {}", "blurry": "a blurry picture of {}"}[EFFECT_NAMES[what.effect]]
    return form.format(text)


def asked_pictures(each: int, seed: int) -> list[Picture]:
    """`each` pictures of every object, in random colours, scenes, styles and effects."""
    rng, asked = random.Random(seed), []
    for thing, spec in enumerate(OBJECTS):
        for _ in range(each):
            scene = rng.randrange(len(SCENE_NAMES))
            backdrop = rng.randrange(len(COLOUR_NAMES)) if scene == PLAIN else -1
            colour = rng.randrange(len(COLOUR_NAMES)) if spec.tintable and rng.random() < 0.6 else -1
            if colour == backdrop:
                colour = -1
            effect = rng.randrange(1, len(EFFECT_NAMES)) if rng.random() < 0.25 else 0
            asked.append(Picture(scene, backdrop, effect, [Item(thing, rng.randrange(2), colour)]))
    return asked


def _shares(answers: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> dict:
    """Share of right answers per question and per word."""
    report = {}
    for question, labels in QUESTIONS.items():
        known = right[question] != UNKNOWN
        hit = answers[question] == right[question]
        words = {label: {"right": round(float(hit[chosen].mean()), 3), "pictures": int(chosen.sum())}
                 for index, label in enumerate(labels) if (chosen := known & (right[question] == index)).any()}
        report[question] = {"right": round(float(hit[known].mean()), 4), "pictures": int(known.sum()), "words": words}
    # "Style" as one figure: the effect where there is one, else how the object is rendered.
    effect, rendered = right["effect"] > 0, right["style"] != UNKNOWN
    hits = np.concatenate([(answers["effect"] == right["effect"])[effect],
                           ((answers["style"] == right["style"]) & (answers["effect"] == 0))[rendered]])
    report["style of any kind"] = {"right": round(float(hits.mean()), 4), "pictures": len(hits)}
    return report


def judge_on_renders(model: Judge, sprites: Sprites, count: int, seed: int) -> dict:
    """How often the judge is right on renders that nothing was trained on."""
    chooser, pictures, rows = random.Random(seed), [], []
    while len(pictures) < count:
        what = random_picture(chooser)
        if len(what.items) == 1:
            pictures.append(halved(render(what, sprites, seed * 7919 + len(pictures))[0]))
            rows.append(dataset.to_row(what))
    return _shares(judge(model, np.stack(pictures)), truths(np.stack(rows)))


def figures(painter: Painter, model: Judge, each: int, seed: int, guidance: float) -> dict:
    """What the judge sees in generated pictures of every object."""
    asked, rng = asked_pictures(each, seed), random.Random(seed)
    pictures = painter.paint([full_prompt(what, rng) for what in asked], seed, guidance)
    return {"pictures": len(asked), "guidance": guidance, "steps": 25,
            **_shares(judge(model, pictures), truths(np.stack([dataset.to_row(what) for what in asked])))}


def autoencoder_error(autoencoder: Autoencoder, sprites: Sprites, count: int, seed: int) -> float:
    """Mean squared error in [-1, 1] of fresh renders, as large as the model draws, that are encoded and decoded."""
    chooser = random.Random(seed)
    pictures = np.stack([render(random_picture(chooser), sprites, seed + index)[0] for index in range(count)])
    if autoencoder.factor == 4:
        pictures = halved(pictures)
    with torch.no_grad():
        x = to_tensor(pictures, next(autoencoder.parameters()).device)
        return float((autoencoder.decoder(autoencoder.encoder(x)[:, :LATENT_CHANNELS]) - x).square().mean())


# ---------------------------------------------------------------- the exported files

def export_check(folder: Path, painter: Painter, seed: int = 5) -> dict:
    """Largest differences between the exported files and PyTorch, and the processor time of one UNet row."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    def session(part):
        return onnxruntime.InferenceSession(str(folder / part / "model.onnx"), options, providers=["CPUExecutionProvider"])
    torch.manual_seed(seed)
    pocket, autoencoder = (copy.deepcopy(part).to("cpu") for part in (painter.pocket, painter.autoencoder))
    factor = autoencoder.factor
    ids = torch.tensor([painter.tokenizer.encode(text) for text in ("a red sofa in a living room", "a cat", "")])
    report = {}

    def compare(name, expected, session, **inputs):
        got = session.run(None, {key: value.numpy() for key, value in inputs.items()})[0]
        report[name] = {"largest difference": float(np.abs(got - expected.numpy()).max()),
                        "largest value": float(np.abs(got).max())}

    with torch.no_grad():
        hidden, _ = pocket.text_encoder(ids)
        compare("text_encoder", hidden, session("text_encoder"), input_ids=ids)
        unet = session("unet")
        for height, width in ((32, 32), (24, 64)):
            x, t = torch.randn(3, LATENT_CHANNELS, height, width), torch.randint(0, 1000, (3,))
            compare(f"unet {height * factor}x{width * factor}", pocket.unet(x, t, hidden), unet, sample=x, timestep=t,
                    encoder_hidden_states=hidden)
        z, image = torch.randn(2, LATENT_CHANNELS, 32, 32), torch.rand(2, 3, 32 * factor, 32 * factor) * 2 - 1
        compare("vae_decoder", autoencoder.decoder(z), session("vae_decoder"), latent_sample=z)
        compare("vae_encoder", autoencoder.encoder(image), session("vae_encoder"), sample=image)
    feeds = {"sample": np.random.default_rng(seed).normal(size=(4, LATENT_CHANNELS, 32, 32)).astype(np.float32),
             "timestep": np.full(4, 500), "encoder_hidden_states": hidden[:1].expand(4, -1, -1).numpy()}
    # Processor time of one thread, which other work on the machine hardly changes; two idle cores take about half.
    options.intra_op_num_threads = 1
    unet, times = session("unet"), []
    for _ in range(20):
        started = time.process_time()
        unet.run(None, feeds)
        times.append((time.process_time() - started) / 4 * 1e3)
    report["unet processor milliseconds a row at batch 4"] = round(float(np.median(times)), 1)
    return report


def report(painter: Painter, model: Judge, sprites: Sprites, folder: Path, each: int, guidance: float) -> dict:
    """All figures together."""
    return {
        "generated": figures(painter, model, each, 101, guidance),
        "judge on fresh renders": judge_on_renders(model, sprites, 1500, 102),
        "autoencoder mean squared error": round(autoencoder_error(painter.autoencoder, sprites, 200, 103), 5),
        "exported files": export_check(folder, painter),
    }


# ---------------------------------------------------------------- contact sheets

def contact_sheet(path: Path, painter: Painter, prompts: list[str], seed: int, columns: int = 8,
                  guidance: float = 4.0) -> None:
    """Pictures in a grid, each above its prompt."""
    pictures = painter.paint(prompts, seed, guidance)
    line, side = 26, pictures.shape[1]
    sheet = Image.new("RGB", (columns * side, -(-len(prompts) // columns) * (side + line)), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (prompt, picture) in enumerate(zip(prompts, pictures)):
        left, top = index % columns * side, index // columns * (side + line)
        sheet.paste(Image.fromarray(picture), (left, top))
        words, lines = prompt.split(), [""]
        for word in words:
            if len(lines[-1]) + len(word) > 21:
                lines.append("")
            lines[-1] += f"{word} "
        pen.text((left + 2, top + side), "\n".join(lines[:2]), fill="black", font_size=10, spacing=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, quality=90)


def sheets(folder: Path, painter: Painter, guidance: float) -> None:
    """The contact sheets that are kept with the model."""
    for style in STYLE_NAMES:
        contact_sheet(folder / f"objects-{style}.jpg", painter,
                      [_article(f"{style} {name}") for name in OBJECT_NAMES], 11, guidance=guidance)
    contact_sheet(folder / "colours.jpg", painter,
                  [f"{_article(colour)} {name}" for name in ("sofa", "car", "butterfly", "horse")
                   for colour in COLOUR_NAMES], 12, columns=11, guidance=guidance)
    alone = [SCENES_ALONE.get(name, SCENES[name][1:])[0].format("green") for name in SCENE_NAMES]
    contact_sheet(folder / "scenes.jpg", painter,
                  alone + [f"a red car, {phrase}" for phrase in alone], 13, columns=13, guidance=guidance)
    contact_sheet(folder / "styles.jpg", painter,
                  [form.format(text) for text in ("a castle on a green meadow", "a boat at sunset", "a cat in a living room",
                                                  "a mountain meadow")
                   for form in ("{}", "3d render, {}", "pixel art of {}", "a pencil sketch of {}", "an oil painting of {}",
                                "{} in the style of van gogh", "blurry {}", "{}, out of focus")], 14, guidance=guidance)
    contact_sheet(folder / "compositions.jpg", painter, [
        "a red sofa in a living room", "a plant in a living room", "a painting on a living room wall",
        "a living room", "a cat and a dog", "a red balloon and a blue star on the beach", "a penguin on the snow",
        "a rocket in the night sky", "a yellow bus on a city street", "an elephant in the desert",
        "a moon, night sky with stars", "a whale under the sea", "brick wall with a guitar", "wooden table, a pizza",
        "a house on a snowy field and a snowman", "a mountain landscape with an airplane"], 15, guidance=guidance)
    for scale in (1, 2, 4, 7, 10):
        contact_sheet(folder / f"guidance-{scale}.jpg", painter, [
            "a red sofa in a living room", "a cartoon dog on a beach", "a 3d rocket in the night sky", "a tree on a meadow",
            "a pencil sketch of a castle", "a blue car on a city street", "a green turtle underwater", "sunset"], 16,
            guidance=scale)
