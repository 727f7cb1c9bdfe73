"""Makes the bundled model from nothing: python -m training.make

Every stage keeps its result in the work folder and is skipped when that is there; the trainings
write checkpoints and go on from them after an interruption. A GPU is used when there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import torch

from . import autoencoder, card, dataset, diffusion, evaluate, export, judge
from .common import load
from .model import SHAPES, Shape
from .render import SIZE, Sprites
from .tokenizer import Tokenizer
from .vocabulary import sprite_list

HERE = Path(__file__).resolve().parent
STAGES = ("sprites", "render", "autoencoder", "encode", "decoder", "diffusion", "export", "judge", "evaluate")
GPU = torch.cuda.is_available()
# How many different ones are put around boxes.
PLAIN_COLOURS = 500


def log(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


def make_sprites(work: Path) -> Path:
    """Renders the emoji artwork with Node.js, once."""
    folder, wanted = work / "sprites", sprite_list()
    if not all((folder / f"{name}.png").exists() for name in wanted):
        if not (HERE / "node_modules").exists():
            subprocess.run([shutil.which("npm") or "npm", "install", "--no-package-lock"], cwd=HERE, check=True)
        (work / "sprites.json").write_text(json.dumps(wanted), "utf8")
        subprocess.run(["node", str(HERE / "sprites.mjs"), str(work / "sprites.json"), str(folder)], check=True)
    return folder


def start_weights(folder: Path | None, unet: str | None, tokenizer: Tokenizer) -> diffusion.Pocket:
    """The networks before their training, with the weights of an exported model folder if one is given.

    A UNet of another shape than the folder's starts from nothing; the text encoder is kept.
    """
    landed = export.shape_of(folder) if folder else None
    shape = SHAPES[unet] if unet else landed or SHAPES["small"]
    pocket = diffusion.Pocket(tokenizer, shape)
    if folder:
        export.load_exported(pocket.text_encoder, folder / "text_encoder/model.onnx")
    if shape == landed:
        export.load_exported(pocket.unet, folder / "unet/model.onnx")
    return pocket


def landed_autoencoder(folder: Path) -> autoencoder.Autoencoder:
    """The autoencoder of an exported model folder."""
    model = autoencoder.Autoencoder(export.factor_of(folder))
    export.load_exported(model.encoder, folder / "vae_encoder/model.onnx")
    export.load_exported(model.decoder, folder / "vae_decoder/model.onnx")
    return model


def landed_judge(folder: Path) -> judge.Judge:
    return export.load_exported(judge.Judge(), folder / "judge.onnx").eval()


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE / "work", help="where intermediate results are kept")
    parser.add_argument("--out", type=Path, default=HERE.parent / "models/pocket", help="the model folder to write")
    parser.add_argument("--results", type=Path, default=HERE, help="where judge/ and figures/ are written")
    parser.add_argument("--size", type=int, choices=[32 * factor for factor in autoencoder.FACTORS], default=128,
                        help="side of the pictures that the model draws (default: 128)")
    parser.add_argument("--unet", choices=SHAPES, help="how large the UNet is (default: small, or that of --init-from)")
    parser.add_argument("--bytes", action="store_true", help="store the UNet's weights as bytes instead of float16")
    parser.add_argument("--pictures", type=int, default=120000 if GPU else 60000, help="training pictures to render")
    parser.add_argument("--large-pictures", type=int, default=20000 if GPU else 6000, help="how many to keep at 256, too")
    parser.add_argument("--autoencoder-minutes", type=float, default=3 if GPU else 9)
    parser.add_argument("--decoder-minutes", type=float, default=0,
                        help="more training of the decoder on clean latents, against an adversary")
    parser.add_argument("--minutes", type=float, default=20 if GPU else 110, help="for text encoder and UNet, over all runs")
    parser.add_argument("--rate", type=float, default=1, help="height of the UNet's learning rates (default: 1)")
    parser.add_argument("--judge-minutes", type=float, default=0,
                        help="train a new judge (default: use the one in judge/, so that figures compare)")
    parser.add_argument("--batch", type=int, default=256 if GPU else 48, help="of the diffusion training")
    parser.add_argument("--guidance", type=float, default=3.0, help="of the evaluation")
    parser.add_argument("--each", type=int, default=11, help="generated pictures of every object in the evaluation")
    parser.add_argument("--init-from", type=Path, metavar="FOLDER",
                        help="go on from the weights of a model folder; its encoder is kept as it is")
    parser.add_argument("--until", choices=STAGES, default="evaluate", help="stop after this stage")
    parser.add_argument("--from-checkpoint", action="store_true",
                        help="export and evaluate the averaged weights of an unfinished training")
    return parser.parse_args()


def main() -> None:
    choice = options()
    work, last = choice.work, STAGES.index(choice.until)
    work.mkdir(parents=True, exist_ok=True)
    threads = os.cpu_count() or 2
    tokenizer = Tokenizer.make()

    sprites = make_sprites(work)
    if last < 1:
        return
    dataset.make(work / "train", sprites, choice.pictures, choice.large_pictures, 1, threads)
    pictures, large = (np.load(work / f"train/{name}.npy", mmap_mode="r") for name in ("pictures", "large"))
    to_draw = large if choice.size == SIZE else pictures
    labels, rows = np.load(work / "train/labels.npy"), np.load(work / "train/rows.npy")
    log(f"{len(pictures)} pictures")
    if last < 2:
        return
    if choice.init_from:
        coder = landed_autoencoder(choice.init_from)
        if 32 * coder.factor < choice.size:
            coder = autoencoder.grown(coder)
        coder.to(autoencoder.pick_device(), memory_format=torch.channels_last)
    else:
        coder = autoencoder.train(work, to_draw, choice.size // 32, choice.autoencoder_minutes, 32, 1, log)
    coder.eval()
    if last < 3:
        return
    latents = autoencoder.encode(coder, pictures, work / "train/latents.npy")
    if last < 4:
        return
    if choice.decoder_minutes and not choice.from_checkpoint:
        coder = autoencoder.sharpen(work, coder, to_draw, choice.decoder_minutes, 32, 4, log).eval()
    elif (sharpened := load(work / "decoder.pt")):
        coder.decoder.load_state_dict(sharpened["decoder"])
    if last < 5:
        return
    if choice.from_checkpoint:
        state = load(work / "diffusion.pt")
        pocket = diffusion.Pocket(tokenizer, Shape(**state["shape"]))
        pocket.load_state_dict(state["average"])
    else:
        start = start_weights(choice.init_from, choice.unet, tokenizer)
        colours = autoencoder.plain_latents(coder, PLAIN_COLOURS, 5)
        pocket = diffusion.train(work, latents, labels[:len(latents)], rows[:len(latents)], colours, tokenizer,
                                 choice.minutes, choice.batch, 2, log, start, choice.rate)
    if last < 6:
        return
    export.export(choice.out, pocket, coder, tokenizer, choice.bytes)
    log(f"exported to {choice.out}")
    if last < 7:
        return
    if choice.judge_minutes:
        arbiter = judge.train(work, pictures, rows, choice.judge_minutes, 64, 3, log)
        export.export_judge(choice.results / "judge", arbiter)
    else:
        arbiter = landed_judge(HERE / "judge").to(autoencoder.pick_device())
    if last < 8:
        return
    state = load(work / "diffusion.pt")
    painter = evaluate.Painter(pocket, coder, tokenizer)
    report = evaluate.report(painter, arbiter, Sprites(sprites), choice.out, choice.each, choice.guidance)
    report["training"] = {"steps": state["step"], "batch": state["batch"], "pictures seen": state["step"] * state["batch"],
                          "minutes": round(state["spent"] / 60, 1),
                          "started from weights": bool(choice.init_from), "loss of v": round(state["loss"], 4),
                          "device": torch.cuda.get_device_name() if GPU else f"{threads} CPU cores"}
    evaluate.sheets(choice.results / "figures", painter, choice.guidance)
    (choice.results / "figures/evaluation.json").write_text(json.dumps(report, indent=1) + "\n", "utf8")
    parts = {"text_encoder": pocket.text_encoder, "unet": pocket.unet, "vae_decoder": coder.decoder,
             "vae_encoder": coder.encoder}
    card.write(choice.out, report, {name: sum(weight.numel() for weight in part.parameters())
                                    for name, part in parts.items()}, choice.size)
    log(f"evaluated; see {choice.results / 'figures'}")


if __name__ == "__main__":
    main()
