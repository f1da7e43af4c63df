"""The configuration of a Hugging Face folder as transformers' own object, within bounds and without anybody's code."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapters.jsonfile import read_json
from bench.errors import BenchError, brief

# What is about code, precision or somebody's files, and not about the network.
_LEFT_OUT = frozenset((
    "auto_map", "custom_pipelines", "torch_dtype", "dtype", "quantization_config", "compression_config",
    "attn_implementation", "experts_implementation", "fusion_config", "kernel_config", "distributed_config",
    "transformers_version", "output_hidden_states", "output_attentions", "return_dict", "use_return_dict",
    "torchscript", "gradient_checkpointing", "checkpoint_path", "device", "device_map",
))  # fmt: skip
_PRETRAINED = ("use_pretrained_backbone", "pretrained_backbone", "pretrained")
# Words of a field's name, and the largest number that any network has there; the first that fits counts.
_MOST = (
    (re.compile(r"vocab_size|.*_token_id"), 1 << 24),
    # A name is made for each of the labels.
    (re.compile(r"num_(?:labels|classes|queries)"), 1 << 17),
    (re.compile(r".*(?:image|crop|input|window|patch|kernel)_(?:size|height|width|resolution)s?|.*strides?"), 2048),
    (re.compile(r".*(?:frames|tubelet).*"), 512),
    (re.compile(r".*(?:channels?|dims?|width|sizes?)|.*heads.*"), 1 << 17),
    (re.compile(r".*(?:layer|depth|block|stage|iter).*"), 1024),
)
_LARGEST = 1 << 24
_DEPTH = 16
_LONGEST = 1024
"""Entries of a list: networks have fewer stages."""
_POSITIONS = 1 << 25
"""Numbers of a table of positions: some classes compute theirs one by one."""


def stated_by(folder: Path) -> dict[str, Any]:
    """The content of ``config.json``; empty where there is none."""
    path = folder / "config.json"
    return read_json(path, dict) if path.is_file() else {}


def library(folder: Path, kind: str) -> Any:
    """transformers. Raises `BenchError` where it is not installed."""
    try:
        import transformers
    except ImportError as error:
        raise BenchError(
            f"{folder} is a '{brief(kind)}' network, which is read through transformers: pip install "
            f"'bench-representations[huggingface]' ({error})"
        ) from None
    return transformers


def known(transformers: Any, kind: str) -> bool:
    """Whether the installed transformers has the model type ``kind``."""
    return kind in transformers.CONFIG_MAPPING


def configuration(folder: Path, stated: dict[str, Any]) -> Any:
    """transformers' configuration object for ``stated``, the content of the folder's ``config.json``.

    Raises `BenchError` for a model type that transformers does not have, and for values that no network has.
    """
    kind, file = str(stated.get("model_type")), folder / "config.json"
    transformers = library(folder, kind)
    if not known(transformers, kind):
        code = " and brings code of its own for it, which is never run" if "auto_map" in stated else ""
        raise BenchError(
            f"{file} names the model type '{brief(kind)}', which transformers {transformers.__version__} does not "
            f"know{code}: give the weight file alone with --arch, or the checkpoint that it was converted from"
        )
    fields = _plain(stated, file)
    for name, value in _numbers(fields):
        most = next((limit for pattern, limit in _MOST if pattern.fullmatch(name)), _LARGEST)
        if abs(value) > most:
            raise BenchError(
                f"{file} states {brief(name)} = {brief(str(value))}, which no network has: give its own config.json"
            )
    fields.pop("model_type", None)
    try:
        config = transformers.CONFIG_MAPPING[kind].from_dict(fields)
    except Exception as error:  # a configuration may hold anything
        raise BenchError(f"{file} describes no {brief(kind)} network ({reason(error)})") from error
    return config


def vision_of(config: Any) -> Any:
    """The image tower's part of a configuration of several towers; None where there is one network."""
    for name in ("vision_config", "image_config"):
        inner = getattr(config, name, None)
        if hasattr(inner, "to_dict"):
            return inner
    return None


def native_size(config: Any) -> tuple[int, int]:
    """(height, width) in pixels that the network was made for; 224 where its configuration states none."""
    for name in ("image_size", "crop_size", "input_size", "img_size"):
        own = getattr(config, name, None)
        if isinstance(own, dict):
            own = (own.get("height"), own.get("width"))
        if isinstance(own, list | tuple):
            own = tuple(own[-2:]) if len(own) > 1 else own[0] if own else None
        if isinstance(own, int) and not isinstance(own, bool) and own > 0:
            return own, own
        if isinstance(own, tuple) and all(isinstance(side, int) and side > 0 for side in own):
            return own[0], own[1]
    patches, patch = getattr(config, "num_patches", None), patch_of(config)
    if isinstance(patches, int) and patches > 0 and patch is not None:
        return math.isqrt(patches) * patch[0], math.isqrt(patches) * patch[1]
    return 224, 224


def frames_of(config: Any) -> tuple[int, int] | None:
    """(frames of a clip, frames that become one token) of a video network, None for others."""
    for name in ("num_frames", "frames_per_clip"):
        own = getattr(config, name, None)
        if isinstance(own, int) and own > 0:
            tubelet = getattr(config, "tubelet_size", 1)
            if isinstance(tubelet, list | tuple):
                tubelet = tubelet[0] if tubelet else 1
            return own, tubelet if isinstance(tubelet, int) and tubelet > 0 else 1
    return None


def patch_of(config: Any) -> tuple[int, int] | None:
    """(height, width) of a patch of a plain transformer; None where the configuration states no single one."""
    own = getattr(config, "patch_size", None)
    if own is None and isinstance(tubelet := getattr(config, "tubelet_size", None), list | tuple) and len(tubelet) == 3:
        own = tubelet[1:]
    if isinstance(own, int) and own > 0:
        return own, own
    if isinstance(own, list | tuple) and len(own) == 2 and all(isinstance(side, int) and side > 0 for side in own):
        return int(own[0]), int(own[1])
    return None


def check_positions(config: Any, file: Path) -> None:
    """Raises `BenchError` for a table of positions larger than any network's."""
    height, width = native_size(config)
    patch, hidden = patch_of(config), getattr(config, "hidden_size", 1)
    frames, tubelet = frames_of(config) or (1, 1)
    if not isinstance(hidden, int) or patch is None:
        return
    tokens = (height // patch[0]) * (width // patch[1]) * max(frames // tubelet, 1)
    if tokens * hidden > _POSITIONS:
        raise BenchError(f"{file} describes {tokens:,} tokens of {hidden:,} numbers, which no network has")


def reason(error: Exception) -> str:
    """What a library's error says, on one line of readable length."""
    text = " ".join(str(error).split())
    return "".join(char if char.isprintable() else "?" for char in text)[:200] or type(error).__name__


def _plain(stated: Any, file: Path, depth: int = 0) -> Any:
    """``stated`` without the fields that say nothing of the network's arithmetic, at any depth."""
    if depth > _DEPTH:
        raise BenchError(f"{file} is nested over {_DEPTH} deep, as no configuration is: give its own config.json")
    if isinstance(stated, list):
        if len(stated) > _LONGEST:
            raise BenchError(f"{file} has a list of {len(stated):,} entries, as no configuration has: give its own")
        return [_plain(one, file, depth + 1) for one in stated]
    if not isinstance(stated, dict):
        return stated
    kept = {
        name: _plain(value, file, depth + 1)
        for name, value in stated.items()
        if name not in _LEFT_OUT and not name.startswith("_")
    }
    # Weights of a part would be fetched by its name: they are in the folder.
    return {name: False if name in _PRETRAINED else value for name, value in kept.items()}


def _numbers(fields: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(fields, dict):
        for inner, value in fields.items():
            if inner not in ("id2label", "label2id"):
                yield from _numbers(value, str(inner))
    elif isinstance(fields, list):
        for value in fields:
            yield from _numbers(value, name)
    elif isinstance(fields, int | float) and not isinstance(fields, bool):
        yield name, fields
