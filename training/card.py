"""Writes the model card, models/pocket/README.md, from the word list and the evaluation's figures."""

from __future__ import annotations

from pathlib import Path

from .vocabulary import (COLOUR_NAMES, COLOUR_SYNONYMS, EFFECTS, OBJECTS, SCENE_NAMES, SCENES, SCENES_ALONE, STYLES)

TEXT = """# Pocket: the model that ships with the package

A small latent diffusion model in the shape of a Stable Diffusion ONNX repository. It draws composed
scenes of emoji-like objects at {size}×{size} ({smallest} to {largest} pixels a side also work) on a CPU, with no
download. The Python code in [`training/`](../../training/README.md) trains it; all other code treats it
like any other checkpoint.

## What it can draw

Prompts combine these words in any order: *a red sofa in a living room*, *a cartoon dog on a
beach*, *night sky with a rocket*, *a pencil sketch of a castle*, *a blurry mountain meadow*.

**Objects** (synonyms in brackets; those with a star are never recoloured):
{objects}

**Colours**: {colours}

**Scenes**, with an object or alone:

{scenes}

**Styles** of objects: {styles}. Styles of the whole picture: {effects}.

[`vocabulary.json`](vocabulary.json) has the same list for programs. Any other word is spelled in
letters, to which the model pays little attention.

The empty prompt is the unconditional model. Guidance scales of 2 to 5 work well, and so do negative prompts.
Use 20 to 25 DDIM steps, or any scheduler that understands `v_prediction`.

## How well

Figures of {pictures} generated pictures of one object each, at guidance {guidance}, 25 steps, judged by a classifier that has
seen renders only (`training/judge/`). The second column is its score on fresh renders. They show up to four
objects, some as small as a fifth of the canvas, and are therefore harder to judge.

| | generated | renders |
|---|---|---|
{figures}

Weakest objects: {weakest}. Every word's figure is in
[`training/figures/evaluation.json`](../../training/figures/evaluation.json), contact sheets beside it.

The exported files agree with PyTorch to {agreement} (largest difference on fresh random inputs;
weights are stored in half precision). The autoencoder's mean squared error on fresh renders is
{autoencoder} (values in [−1, 1]).

## What it is made of

| part | | parameters |
|---|---|---|
{parts}

The UNet predicts *v* on Stable Diffusion's `scaled_linear` betas and works on 2×2 patches of 32×32
latents at two levels (16×16 and 8×8) with attention to the words at both. Text encoder and UNet were trained
together for {steps} steps of {batch} pictures ({seen} pictures, {minutes} minutes on {device}{start};
mean squared error of *v* at the end {loss}).

## Data and licences

Training pictures are rendered by `training/render.py`: procedural scenes with emoji artwork on
them. No photographs, no scraped pictures.

- [Fluent Emoji](https://github.com/microsoft/fluentui-emoji) by Microsoft, MIT licence: the 3d
  objects (Color) and the cartoon objects (Flat).
- [Noto Emoji](https://github.com/googlefonts/noto-emoji) by Google, Apache License 2.0: the cartoon
  dog and cat.

Both come from the npm packages `@iconify-json/fluent-emoji`, `-flat` and `@iconify-json/noto`. The
weights are released under the licence of this package.

## Limits

- It knows the words above and nothing else; no people, no text, no photographs.
- Up to four objects a prompt. In one plain prompt they may merge or swap colours: that is what
  regions are for.
- Objects look like the emoji of the training pictures and mostly face one way.
- It was trained at {size}×{size}; larger canvases repeat or stretch what they show.
- Fine parts (faces, wheels, strings) are often smeared: more training would sharpen them.
- Objects are drawn at a fifth of the canvas or larger; it was not trained on smaller ones.
"""


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def write(folder: Path, report: dict, parts: dict[str, int], size: int) -> None:
    """Writes the card of a model that draws pictures of `size` pixels a side."""
    objects = ", ".join(thing.names[0] + (f" ({', '.join(thing.names[1:])})" if thing.names[1:] else "") +
                        ("" if thing.tintable else "\\*") for thing in OBJECTS) + "."
    scenes = "\n".join(f"- {name}: " + ", ".join(phrase.replace("{}", "red") for phrase in
                                                 (*SCENES[name][1:], *SCENES_ALONE.get(name, ()))) for name in SCENE_NAMES)
    generated, renders, training = report["generated"], report["judge on fresh renders"], report["training"]
    rows = [f"| {label} | {_percent(generated[key]['right'])} | {_percent(renders[key]['right'])} |"
            for label, key in (("object", "object"), ("colour", "colour"), ("scene", "scene"),
                               ("style (of any kind)", "style of any kind"), ("cartoon or 3d", "style"),
                               ("style of the whole picture, or none", "effect"))]
    words = sorted(generated["object"]["words"].items(), key=lambda entry: entry[1]["right"])[:6]
    agreement = max(entry["largest difference"] for entry in report["exported files"].values() if isinstance(entry, dict))
    (folder / "README.md").write_text(TEXT.format(
        objects=objects, scenes=scenes, size=size, smallest=size * 3 // 4, largest=size * 2, device=training["device"],
        colours=", ".join("/".join(COLOUR_SYNONYMS.get(name, (name,))) for name in COLOUR_NAMES) + ".",
        styles="; ".join(f"{name} ({', '.join(words[1:])})" for name, words in STYLES.items()),
        effects="; ".join(f"{name} ({', '.join(words[1:])})" for name, words in EFFECTS.items() if words),
        pictures=generated["pictures"], guidance=f"{generated['guidance']:g}", figures="\n".join(rows),
        weakest=", ".join(f"{name} ({_percent(entry['right'])})" for name, entry in words),
        agreement=f"{agreement:.4f}", autoencoder=report["autoencoder mean squared error"],
        parts="\n".join(f"| {name} | `{name}/model.onnx` | {count / 1e6:.1f} M |" for name, count in parts.items()),
        steps=f"{training['steps']:,}", batch=training["batch"], seen=f"{training['pictures seen']:,}",
        minutes=f"{training['minutes']:.0f}",
        start=", starting from earlier weights" if training["started from weights"] else "", loss=training["loss of v"]), "utf8")
