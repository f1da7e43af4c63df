"""What a Hugging Face folder says beside its weights: ``config.json`` and ``preprocessor_config.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adapters import hf_swin, processor
from adapters.jsonfile import read_json
from adapters.layout import Layout
from adapters.windowed import version
from bench.errors import BenchError

# Activations by transformers' names and timm's; GELU is every transformer's own.
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
}
_PLAIN_PERCEPTRONS = {
    "Hugging Face ViT", "Hugging Face MAE", "Hugging Face I-JEPA", "Hugging Face SigLIP", "Hugging Face DINOv2",
    "Hugging Face DINOv2 with registers", "Hugging Face Swin", "Hugging Face SimMIM Swin",
}  # fmt: skip
# Model types whose tensors are those of another method's class.
METHODS = {"data2vec-vision": "data2vec", "vit_msn": "msn", "ijepa": "ijepa", "vit_mae": "mae"}


def refined(layout: Layout, folder: Path, names: Mapping[str, Sequence[int]]) -> Layout:
    """``layout`` with the epsilon, heads, windows and transform that the folder's configuration states.

    A file that is no folder, or a folder without configuration, keeps the class's defaults. ``names``: those of the
    weights, with their shapes. Raises `BenchError` for a configuration of other weights.
    """
    if not folder.is_dir():
        return layout
    config = _json(folder / "config.json")
    if isinstance(vision := config.get("vision_config"), dict):
        config = vision
    stated: dict[str, Any] = {}
    if isinstance(config.get("layer_norm_eps"), float):
        head = "convnext" in str(config.get("model_type"))
        stated["head_norm_eps" if head else "norm_eps"] = config["layer_norm_eps"]
    stated |= _attention(config, layout, folder / "config.json")
    windowed = hf_swin.stated(config, names, folder / "config.json")
    own = layout.arguments

    def arguments(architecture: str) -> dict[str, Any]:
        # Networks that are not timm's transformers have these in their definition.
        if architecture.startswith(("vit", "beit", "deit")):
            return {**own(architecture), **stated}
        if architecture.startswith("convnext"):
            return {**own(architecture), **{n: value for n, value in stated.items() if n.endswith("norm_eps")}}
        if (number := version(architecture)) is not None and number in windowed:
            activation = {n: value for n, value in stated.items() if n == "act_layer"}
            return {**own(architecture), **windowed[number], **activation}
        return {}

    refinement: dict[str, Any] = {"arguments": arguments}
    if "norm_eps" in stated and layout.name == "Hugging Face ViT":
        refinement["note"] = None
    if (method := METHODS.get(str(config.get("model_type")))) is not None:
        refinement["method"] = method
        if method == "msn":
            refinement["feature"] = "cls before norm"
    stating = folder / "preprocessor_config.json"
    try:
        said = processor.stated(stating)
        transform = processor.transform_of(said)
    except (ValueError, TypeError, OverflowError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise BenchError(f"{stating} states an input transform that cannot be: {first}") from None
    if transform is not None:
        refinement |= {"transform": transform, "at_native_size": False}
    if processor.swaps(said):
        raise BenchError(
            f"{stating} asks for blue before red, which no named architecture takes: leave --arch out, or take "
            f"do_flip_channel_order out of it"
        )
    if layout.name == "Hugging Face CLIP" and isinstance(config.get("hidden_act"), str):
        plain, quick = r"vit_.*_clip_\d+", r"vit_.*_clip_quickgelu_\d+"
        refinement |= {"architectures": quick if config["hidden_act"] == "quick_gelu" else plain, "note": None}
    if undone := [f"its own processor {what}, which is not done here" for what in processor.beyond(said)]:
        note = refinement.get("note", layout.note)
        refinement["note"] = "; ".join([*([note] if note else []), *undone])
    return replace(layout, **refinement)


def _attention(config: dict[str, Any], layout: Layout, file: Path) -> dict[str, Any]:
    """What no tensor's shape tells of a transformer: heads and activation. Refuses a configuration of other weights."""
    kind, registers = config.get("model_type"), layout.name == "Hugging Face DINOv2 with registers"
    if kind == "dinov2" and registers:
        raise BenchError(
            f"{file} describes DINOv2 without registers and the weights beside it have registers: give the folder its "
            f"own config.json (model_type dinov2_with_registers)"
        )
    if kind == "dinov2_with_registers" and layout.name == "Hugging Face DINOv2":
        raise BenchError(
            f"{file} describes DINOv2 with registers and the weights beside it have none: give the folder its own "
            f"config.json (model_type dinov2)"
        )
    found: dict[str, Any] = {}
    heads, width = config.get("num_attention_heads"), config.get("hidden_size")
    if isinstance(heads, int) and isinstance(width, int):
        if heads < 1 or width % heads:
            raise BenchError(f"{file} states {heads} attention heads for a width of {width}, which they do not divide")
        found["num_heads"] = heads
    activation, clip = config.get("hidden_act"), layout.name == "Hugging Face CLIP"
    # CLIP's two usual ones are two architectures; SigLIP's layout has another than GELU.
    usual = ("gelu", "quick_gelu") if clip else () if layout.name == "Hugging Face SigLIP" else ("gelu",)
    if isinstance(activation, str) and (clip or layout.name in _PLAIN_PERCEPTRONS) and activation not in usual:
        if activation not in _ACTIVATIONS:
            known = ", ".join(_ACTIVATIONS)
            raise BenchError(
                f"{file} states the activation '{activation[:80]}', which is none of {known}: name the architecture "
                f"with --arch and give the weight file alone"
            )
        found["act_layer"] = _ACTIVATIONS[activation]
    return found


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = read_json(path)
    return content if isinstance(content, dict) else {}
