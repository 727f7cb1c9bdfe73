"""Writes a folder in the layout of a Stable Diffusion repository: UNet and VAE of true size with random weights.

python export.py FOLDER [--half] [--tiny] [--xl]
The text encoder only looks words up, because prompts are encoded once and cost next to nothing. The tokenizer
and the scheduler are those of the smallest test checkpoint.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from stable_diffusion import FULL, TINY, TINY_XL, XL, make

OPSET = 17
TOKENS = 77
WEIGHTS, PAGE = "weights.pb", 4096
TEST_CHECKPOINT = Path(__file__).parents[2] / "test/fixtures/golden/checkpoints/tiny-sd2"


class Words(nn.Module):
    """input_ids [N, L] → [N, L, D]"""

    def __init__(self, width: int, count: int):
        super().__init__()
        self.words, self.places = nn.Embedding(count, width), nn.Embedding(TOKENS, width)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.words(input_ids) + self.places.weight[None]


class PooledWords(nn.Module):
    """input_ids [N, L] → text_embeds [N, P], and the hidden states of two layers, [N, L, D] each"""

    def __init__(self, width: int, pooled: int, count: int):
        super().__init__()
        self.words, self.projection = Words(width, count), nn.Linear(width, pooled, bias=False)

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        states = self.words(input_ids)
        return self.projection(states[:, -1]), states, states + 1


def export(module: nn.Module, inputs: dict[str, Tensor], outputs: str | list[str], dynamic: dict[str, dict[int, str]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # The exporter by tracing is deprecated; the fusions expect its graphs.
        draft = Path(folder) / "model.onnx"
        torch.onnx.export(
            module, tuple(inputs.values()), str(draft), input_names=list(inputs),
            output_names=[outputs] if isinstance(outputs, str) else outputs,
            dynamic_axes=dynamic, opset_version=OPSET, dynamo=False,
        )  # fmt: skip
        join(draft, path)


def join(draft: Path, path: Path) -> None:
    """Moves a model to `path`, with its large weights in one file: the tracer scatters them over many.

    Weight by weight, since a large model is still in memory when this is done.
    """
    model = onnx.load(draft, load_external_data=False)
    with open(path.parent / WEIGHTS, "wb") as weights:
        for tensor in model.graph.initializer:
            if tensor.data_location != onnx.TensorProto.EXTERNAL:
                continue
            entries = {entry.key: entry.value for entry in tensor.external_data}
            with open(draft.parent / entries["location"], "rb") as file:
                file.seek(int(entries.get("offset", 0)))
                data = file.read(int(entries["length"])) if "length" in entries else file.read()
            at = weights.tell()
            weights.write(data)
            weights.write(bytes(-len(data) % PAGE))
            del tensor.external_data[:]
            for key, value in (("location", WEIGHTS), ("offset", at), ("length", len(data))):
                tensor.external_data.add(key=key, value=str(value))
        scattered = weights.tell() > 0
    if scattered:
        onnx.save(model, path)
    else:
        (path.parent / WEIGHTS).unlink()
        # One file can't hold more than 2 GB.
        large = sum(tensor.ByteSize() for tensor in model.graph.initializer) > 1 << 30
        onnx.save(model, path, save_as_external_data=large, all_tensors_to_one_file=True, location=WEIGHTS)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--half", action="store_true", help="float16 throughout; needs no optimiser")
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the scripts")
    parser.add_argument("--xl", action="store_true", help="of Stable Diffusion XL's size")
    arguments = parser.parse_args()
    size = (TINY_XL if arguments.xl else TINY) if arguments.tiny else (XL if arguments.xl else FULL)
    dtype = torch.float16 if arguments.half else torch.float32
    folder: Path = arguments.folder

    unet, encoder, decoder = (module.to(dtype) for module in make(size))
    latents = {0: "batch", 2: "height", 3: "width"}
    hidden = torch.randn(2, TOKENS, size.text, dtype=dtype)
    sample = torch.randn(2, 4, 16, 16, dtype=dtype)
    inputs = {"sample": sample, "timestep": torch.tensor([1]), "encoder_hidden_states": hidden}
    dynamic = {"sample": latents, "timestep": {0: "steps"}, "encoder_hidden_states": {0: "batch", 1: "sequence"}, "out_sample": latents}
    if size.pooled:
        inputs |= {"text_embeds": torch.randn(2, size.pooled, dtype=dtype), "time_ids": torch.full((2, 6), 1024, dtype=dtype)}
        dynamic |= {"text_embeds": {0: "batch"}, "time_ids": {0: "batch"}}
    export(unet, inputs, "out_sample", dynamic, folder / "unet/model.onnx")
    del unet
    export(decoder, {"latent_sample": sample[:1]}, "sample", {"latent_sample": latents, "sample": latents}, folder / "vae_decoder/model.onnx")
    picture = torch.randn(1, 3, 64, 64, dtype=dtype)
    export(encoder, {"sample": picture}, "latent_parameters", {"sample": latents, "latent_parameters": latents}, folder / "vae_encoder/model.onnx")
    vocabulary = json.loads((TEST_CHECKPOINT / "tokenizer/vocab.json").read_text())
    torch.manual_seed(1)
    count = max(vocabulary.values()) + 1
    ids = torch.zeros(1, TOKENS, dtype=torch.int64)
    if size.pooled:
        states = ["hidden_states.0", "hidden_states.1"]
        # Both encoders' states side by side are what the UNet takes, 768 and 1280 of 2048.
        for folder_name, width in (("text_encoder", size.text * 3 // 8), ("text_encoder_2", size.text * 5 // 8)):
            names = ["text_embeds", *states]
            encoder = PooledWords(width, size.pooled, count).to(dtype)
            export(encoder, {"input_ids": ids}, names, {name: {0: "batch"} for name in ["input_ids", *names]}, folder / folder_name / "model.onnx")
        shutil.copytree(TEST_CHECKPOINT / "tokenizer", folder / "tokenizer_2", dirs_exist_ok=True)
    else:
        words = Words(size.text, count).to(dtype)
        export(words, {"input_ids": ids}, "last_hidden_state", {"input_ids": {0: "batch"}, "last_hidden_state": {0: "batch"}}, folder / "text_encoder/model.onnx")

    for part in ("tokenizer", "scheduler"):
        shutil.copytree(TEST_CHECKPOINT / part, folder / part, dirs_exist_ok=True)
    scale = 0.13025 if size.pooled else 0.18215
    configs = {
        "model_index.json": {"_class_name": "OnnxStableDiffusionPipeline"},
        "unet/config.json": {"in_channels": 4, "block_out_channels": size.unet, "sample_size": 128 if size.pooled else 64},
        "vae_decoder/config.json": {"block_out_channels": size.vae, "scaling_factor": scale},
        "vae_encoder/config.json": {"block_out_channels": size.vae, "scaling_factor": scale},
    }
    for name, config in configs.items():
        (folder / name).write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
