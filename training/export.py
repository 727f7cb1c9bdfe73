"""Writes the model folder: ONNX files in the shape of a Stable Diffusion repository, and reads weights back.

Weights are stored as float16 and cast to float32 in the graph, which a runtime folds away when it
loads the model; or, to halve a large UNet once more, as bytes, of which every few are also multiplied
by a factor of their own. Every stored weight keeps its PyTorch name (with `.T` where the exporter transposed
it), so that training can go on from the exported folder alone.
"""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from .autoencoder import LATENT_CHANNELS, Autoencoder
from .diffusion import BETA_END, BETA_START, TIMESTEPS, Pocket
from .judge import QUESTIONS, Judge
from .model import TEXT_LAYERS, TEXT_WIDTH, Shape
from .tokenizer import END, MAX_LENGTH, START, Tokenizer
from .vocabulary import vocabulary

OPSET = 17


def _store_small(graph: onnx.GraphProto, parameters: dict[str, torch.Tensor], in_bytes: bool) -> None:
    """Turns float32 initialisers that are parameters into named float16 ones behind a Cast.

    With `in_bytes` those of two dimensions or more become int8 ones behind a Cast, a Mul and a Reshape.
    The factors, `<name>.factor`, bring the largest of each group of up to 64 inputs of an output to 127.
    """
    by_value = {}
    for name, value in parameters.items():
        array = value.detach().cpu().float().numpy()
        by_value.setdefault((array.shape, array.tobytes()), name)
        if array.ndim == 2:
            by_value.setdefault((array.T.shape, array.T.tobytes()), f"{name}.T")
    kept, casts, renamed = [], [], {}
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        name = by_value.get((array.shape, array.tobytes()))
        if array.dtype != np.float32 or name is None:
            kept.append(tensor)
            continue
        renamed[tensor.name] = f"{name}:{len(casts)}"
        as_bytes, known = in_bytes and array.ndim > 1, any(name == other.name for other in kept)
        if as_bytes and not known:
            grouped, axis = _grouped(array, name.endswith(".T"))
            factor = np.maximum(np.abs(grouped).max(axis, keepdims=True) / 127, 1e-7).astype(np.float16)
            values = np.rint(grouped / factor.astype(np.float32)).clip(-127, 127).astype(np.int8)
            kept.extend((numpy_helper.from_array(values, name), numpy_helper.from_array(factor, f"{name}.factor"),
                         numpy_helper.from_array(np.array(array.shape), f"{name}.shape")))
        elif not known:
            kept.append(numpy_helper.from_array(array.astype(np.float16), name))
        whole = renamed[tensor.name]
        if as_bytes:
            casts.extend((
                helper.make_node("Cast", [name], [f"{whole}:bytes"], to=TensorProto.FLOAT),
                helper.make_node("Cast", [f"{name}.factor"], [f"{whole}:factor"], to=TensorProto.FLOAT),
                helper.make_node("Mul", [f"{whole}:bytes", f"{whole}:factor"], [f"{whole}:grouped"]),
                helper.make_node("Reshape", [f"{whole}:grouped", f"{name}.shape"], [whole])))
        else:
            casts.append(helper.make_node("Cast", [name], [whole], to=TensorProto.FLOAT))
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    nodes = [*casts, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)


def _grouped(array: np.ndarray, transposed: bool) -> tuple[np.ndarray, int]:
    """A weight in three dimensions, and which of them goes over the inputs of one group."""
    inputs, outputs = (array.shape if transposed else (array[0].size, len(array)))
    side = max(size for size in range(1, 65) if inputs % size == 0)
    return (array.reshape(-1, side, outputs), 1) if transposed else (array.reshape(outputs, -1, side), 2)


def export_onnx(module: nn.Module, inputs: dict[str, torch.Tensor], outputs: dict[str, dict[int, str]],
                axes: dict[str, dict[int, str]], path: Path, in_bytes: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A copy: what is exported goes on to be evaluated where it was trained.
    module = copy.deepcopy(module).eval().to("cpu", memory_format=torch.contiguous_format)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, tuple(inputs.values()), str(path), input_names=list(inputs),
                          output_names=list(outputs), dynamic_axes={**axes, **outputs}, opset_version=OPSET,
                          dynamo=False)
    model = onnx.load(path)
    _store_small(model.graph, dict(module.named_parameters()), in_bytes)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def load_exported(module: nn.Module, path: Path) -> nn.Module:
    """Puts the weights of an exported file back; parts that are not exported keep their values."""
    parameters = dict(module.named_parameters())
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    with torch.no_grad():
        for name, array in stored.items():
            parameter, transposed = parameters.get(name.removesuffix(".T")), name.endswith(".T")
            if parameter is not None:
                whole = array.astype(np.float32)
                if f"{name}.factor" in stored:
                    whole = (whole * stored[f"{name}.factor"].astype(np.float32)).reshape(stored[f"{name}.shape"])
                parameter.copy_(torch.from_numpy(whole.T if transposed else whole))
    return module


def shape_of(path: Path) -> Shape:
    """The shape of the UNet in an exported model folder."""
    return Shape(*json.loads((path / "unet/config.json").read_text("utf8"))["block_out_channels"])


def factor_of(path: Path) -> int:
    """How many times as large as its latents an exported model folder's pictures are."""
    return 2 ** (len(json.loads((path / "vae_decoder/config.json").read_text("utf8"))["block_out_channels"]) - 1)


def _json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf8")


def export(folder: Path, pocket: Pocket, autoencoder: Autoencoder, tokenizer: Tokenizer, in_bytes: bool = False) -> None:
    """Writes the whole model folder; `in_bytes` stores the UNet's weights as bytes."""
    size = 32 * autoencoder.factor
    tokenizer.write(folder / "tokenizer")
    _json(folder / "vocabulary.json", vocabulary())
    text = torch.tensor([tokenizer.encode("a red sofa in a living room"), tokenizer.encode("")])
    latents, image = torch.randn(2, LATENT_CHANNELS, 32, 32), torch.randn(2, 3, size, size)
    plane = {0: "batch", 2: "height", 3: "width"}
    with torch.no_grad():
        hidden, _ = copy.deepcopy(pocket.text_encoder).to("cpu")(text)
    export_onnx(pocket.text_encoder, {"input_ids": text},
                {"last_hidden_state": {0: "batch", 1: "sequence"}, "pooler_output": {0: "batch"}},
                {"input_ids": {0: "batch", 1: "sequence"}}, folder / "text_encoder/model.onnx")
    export_onnx(pocket.unet, {"sample": latents, "timestep": torch.tensor([1, 500]), "encoder_hidden_states": hidden},
                {"out_sample": plane},
                {"sample": plane, "timestep": {0: "batch"}, "encoder_hidden_states": {0: "batch", 1: "sequence"}},
                folder / "unet/model.onnx", in_bytes)
    export_onnx(autoencoder.decoder, {"latent_sample": latents}, {"sample": plane}, {"latent_sample": plane},
                folder / "vae_decoder/model.onnx")
    export_onnx(autoencoder.encoder, {"sample": image}, {"latent_parameters": plane}, {"sample": plane},
                folder / "vae_encoder/model.onnx")
    vae = {"_class_name": "AutoencoderKL", "in_channels": 3, "out_channels": 3, "latent_channels": LATENT_CHANNELS,
           "block_out_channels": [64, 64, 128] if autoencoder.factor == 4 else [48, 64, 64, 128], "sample_size": size,
           "scaling_factor": 1.0}
    _json(folder / "vae_encoder/config.json", vae)
    _json(folder / "vae_decoder/config.json", vae)
    _json(folder / "unet/config.json", {
        "_class_name": "UNet2DConditionModel", "in_channels": LATENT_CHANNELS, "out_channels": LATENT_CHANNELS,
        "sample_size": 32, "patch_size": 2, "block_out_channels": [pocket.unet.shape.fine, pocket.unet.shape.coarse],
        "cross_attention_dim": TEXT_WIDTH, "time_cond_proj_dim": None})
    _json(folder / "text_encoder/config.json", {
        "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "hidden_size": TEXT_WIDTH,
        "num_hidden_layers": TEXT_LAYERS, "max_position_embeddings": MAX_LENGTH, "vocab_size": len(tokenizer.vocab),
        "bos_token_id": tokenizer.vocab[START], "eos_token_id": tokenizer.vocab[END], "pad_token_id": tokenizer.pad})
    _json(folder / "scheduler/scheduler_config.json", {
        "_class_name": "DDIMScheduler", "beta_start": BETA_START, "beta_end": BETA_END,
        "beta_schedule": "scaled_linear", "trained_betas": None, "num_train_timesteps": TIMESTEPS,
        "prediction_type": "v_prediction", "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1,
        "thresholding": False, "rescale_betas_zero_snr": False, "timestep_spacing": "leading"})
    _json(folder / "model_index.json", {
        "_class_name": "OnnxStableDiffusionPipeline", "feature_extractor": [None, None], "requires_safety_checker": False,
        "safety_checker": [None, None], "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["diffusers", "OnnxRuntimeModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "OnnxRuntimeModel"], "vae_decoder": ["diffusers", "OnnxRuntimeModel"],
        "vae_encoder": ["diffusers", "OnnxRuntimeModel"]})


def export_judge(folder: Path, judge: Judge) -> None:
    export_onnx(judge, {"pixels": torch.randn(2, 3, 128, 128)}, {name: {0: "batch"} for name in QUESTIONS},
                {"pixels": {0: "batch"}}, folder / "judge.onnx")
    _json(folder / "labels.json", {name: list(labels) for name, labels in QUESTIONS.items()})
