"""Writes a folder in the layout of a Stable Diffusion repository: UNet and VAE of true size with random weights.

python export.py FOLDER [--half] [--tiny]
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

from stable_diffusion import FULL, TINY, make

OPSET = 17
TOKENS = 77
TEST_CHECKPOINT = Path(__file__).parents[2] / "test/fixtures/golden/checkpoints/tiny-sd2"


class Words(nn.Module):
    """input_ids [N, L] → [N, L, D]"""

    def __init__(self, width: int, count: int):
        super().__init__()
        self.words, self.places = nn.Embedding(count, width), nn.Embedding(TOKENS, width)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.words(input_ids) + self.places.weight[None]


def export(module: nn.Module, inputs: dict[str, Tensor], output: str, dynamic: dict[str, dict[int, str]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # The exporter by tracing is deprecated; the fusions expect its graphs.
        draft = Path(folder) / "model.onnx"
        torch.onnx.export(
            module, tuple(inputs.values()), str(draft), input_names=list(inputs), output_names=[output],
            dynamic_axes=dynamic, opset_version=OPSET, dynamo=False,
        )  # fmt: skip
        model = onnx.load(draft)
    # One file can't hold more than 2 GB, and the tracer scatters large weights over many.
    large = sum(tensor.ByteSize() for tensor in model.graph.initializer) > 1 << 30
    onnx.save(model, path, save_as_external_data=large, all_tensors_to_one_file=True, location="weights.pb")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--half", action="store_true", help="float16 throughout; needs no optimiser")
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the scripts")
    arguments = parser.parse_args()
    size = TINY if arguments.tiny else FULL
    dtype = torch.float16 if arguments.half else torch.float32
    folder: Path = arguments.folder

    unet, encoder, decoder = (module.to(dtype) for module in make(size))
    latents = {0: "batch", 2: "height", 3: "width"}
    hidden = torch.randn(2, TOKENS, size.text, dtype=dtype)
    sample = torch.randn(2, 4, 16, 16, dtype=dtype)
    export(
        unet, {"sample": sample, "timestep": torch.tensor([1]), "encoder_hidden_states": hidden}, "out_sample",
        {"sample": latents, "timestep": {0: "steps"}, "encoder_hidden_states": {0: "batch", 1: "sequence"}, "out_sample": latents},
        folder / "unet/model.onnx",
    )  # fmt: skip
    export(decoder, {"latent_sample": sample[:1]}, "sample", {"latent_sample": latents, "sample": latents}, folder / "vae_decoder/model.onnx")
    picture = torch.randn(1, 3, 64, 64, dtype=dtype)
    export(encoder, {"sample": picture}, "latent_parameters", {"sample": latents, "latent_parameters": latents}, folder / "vae_encoder/model.onnx")
    vocabulary = json.loads((TEST_CHECKPOINT / "tokenizer/vocab.json").read_text())
    torch.manual_seed(1)
    words = Words(size.text, max(vocabulary.values()) + 1).to(dtype)
    ids = torch.zeros(1, TOKENS, dtype=torch.int64)
    export(words, {"input_ids": ids}, "last_hidden_state", {"input_ids": {0: "batch"}, "last_hidden_state": {0: "batch"}}, folder / "text_encoder/model.onnx")

    for part in ("tokenizer", "scheduler"):
        shutil.copytree(TEST_CHECKPOINT / part, folder / part, dirs_exist_ok=True)
    configs = {
        "model_index.json": {"_class_name": "OnnxStableDiffusionPipeline"},
        "unet/config.json": {"in_channels": 4, "block_out_channels": size.unet, "sample_size": 64},
        "vae_decoder/config.json": {"block_out_channels": size.vae, "scaling_factor": 0.18215},
        "vae_encoder/config.json": {"block_out_channels": size.vae, "scaling_factor": 0.18215},
    }
    for name, config in configs.items():
        (folder / name).write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
