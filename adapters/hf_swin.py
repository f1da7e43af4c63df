"""What the ``config.json`` beside a Hugging Face Swin transformer (version 1 or 2) says that its tensors do not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.errors import BenchError

Shapes = Mapping[str, Sequence[int]]

_BLOCK = re.compile(r".*?encoder\.layers\.(\d+)\.blocks\.(\d+)\..*")
_PATCHES = re.compile(r".*?embeddings\.patch_embeddings\.projection\.weight")
_HEADS = {
    1: re.compile(r".*?encoder\.layers\.(\d+)\.blocks\.0\.attention\..*?(relative_position_bias_table)"),
    2: re.compile(r".*?encoder\.layers\.(\d+)\.blocks\.0\.attention\.self\.(logit_scale)"),
}
VERSIONS = {"swin": 1, "swinv2": 2}


def stated(config: Mapping[str, Any], names: Shapes, file: Path) -> dict[int, dict[str, Any]]:
    """timm's arguments for a configuration of Swin, by version; empty for another model.

    ``names``: the names and shapes of the weights. Raises `BenchError` where configuration and weights differ.
    """
    number = VERSIONS.get(str(config.get("model_type")))
    if number is None:
        return {}
    if config.get("use_absolute_embeddings"):
        raise BenchError(f"{file} states absolute position embeddings, which no Swin transformer of timm has")
    _check(config, names, number, file)
    found: dict[str, Any] = {}
    for option, ours, default, most in (("image_size", "img_size", 224, 10_000), ("window_size", "window_size", 7, 64)):
        value = config.get(option, default)
        side = value[0] if isinstance(value, list) and len(set(map(str, value))) == 1 else value
        if type(side) is not int or not 0 < side <= most:
            raise BenchError(f"{file} states the {option} {str(value)[:80]}, which is no length of a square's side")
        found[ours] = side
    depths = _depths(names)
    if "depths" in config and depths is not None:
        found["depths"] = depths
    if number == 2:
        before = config.get("pretrained_window_sizes") or [0] * len(depths or ())
        if not isinstance(before, list) or not all(type(one) is int and one >= 0 for one in before):
            raise BenchError(f"{file} states the pretrained_window_sizes {str(before)[:80]}, which are no sizes")
        stages = len(depths or before)
        if len(before) < stages:
            raise BenchError(f"{file} states {len(before)} pretrained_window_sizes for {stages} stages")
        found["pretrained_window_sizes"] = tuple(before[:stages])
    _check_grid(found["img_size"], _patch(names) or 4, found["window_size"], len(depths or ()), file)
    if isinstance(config.get("layer_norm_eps"), float):
        found["block_norm_eps"] = config["layer_norm_eps"]
    return {number: found}


def _check(config: Mapping[str, Any], names: Shapes, number: int, file: Path) -> None:
    """Refuse a configuration of other weights: what shapes tell must be what it states."""
    widths = [shape[0] for name, shape in names.items() if _PATCHES.fullmatch(name) and len(shape) == 4]
    heads: dict[int, int] = {}
    for name, shape in names.items():
        if (match := _HEADS[number].fullmatch(name)) and shape:
            heads[int(match[1])] = int(shape[-1] if number == 1 else shape[0])
    told = {
        "embed_dim": widths[0] if widths else None,
        "patch_size": _patch(names),
        "depths": _depths(names),
        "num_heads": tuple(heads[stage] for stage in sorted(heads)) or None,
    }
    for option, theirs in told.items():
        value = config.get(option)
        ours = tuple(value) if isinstance(value, list) else value
        if option == "patch_size" and isinstance(ours, tuple) and len(set(ours)) == 1:
            ours = ours[0]
        if theirs is not None and value is not None and ours != theirs:
            shown = list(theirs) if isinstance(theirs, tuple) else theirs
            raise BenchError(
                f"{file} states {option} {str(value)[:80]} and the weights beside it have {shown}: give the folder its "
                f"own config.json"
            )


def _check_grid(size: int, patch: int, window: int, stages: int, file: Path) -> None:
    """Refuse maps that windows do not divide: transformers pads them before it shifts the windows, timm after."""
    for stage in range(stages):
        grid, rest = divmod(size, patch * 2**stage)
        if rest or (grid > window and grid % window):
            raise BenchError(
                f"{file} states windows of {window} for images of {size}, whose stage {stage + 1} they do not divide "
                f"({size / (patch * 2**stage):g} patches): padded maps are computed otherwise in timm's network"
            )


def _patch(names: Shapes) -> int | None:
    sides = [shape[2] for name, shape in names.items() if _PATCHES.fullmatch(name) and len(shape) == 4]
    return sides[0] if sides else None


def _depths(names: Shapes) -> tuple[int, ...] | None:
    numbers: dict[int, set[int]] = {}
    for name in names:
        if match := _BLOCK.fullmatch(name):
            numbers.setdefault(int(match[1]), set()).add(int(match[2]))
    return tuple(len(numbers[stage]) for stage in sorted(numbers)) or None
