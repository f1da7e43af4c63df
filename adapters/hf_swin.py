"""What the ``config.json`` beside a Hugging Face Swin transformer (version 1 or 2) says that its tensors do not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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


def pad_first(network: nn.Module) -> None:
    """Make timm's Swin (version 1 or 2) compute maps of any size as transformers' classes do; others are left as is.

    Where windows do not divide a map, transformers pads it before it shifts the windows and timm after. And of version
    1 a stage that is larger than one window is shifted, whatever it was at the network's own size.
    """
    from timm.models.swin_transformer import SwinTransformerBlock
    from timm.models.swin_transformer_v2 import SwinTransformerV2Block

    for stage in getattr(network, "layers", ()):
        for number, block in enumerate(getattr(stage, "blocks", ())):
            if isinstance(block, SwinTransformerBlock | SwinTransformerV2Block):
                block._odd = number % 2 == 1
                block._attn = MethodType(_attention, block)


def _attention(self: Any, tokens: Tensor) -> Tensor:
    """timm's step of a block from tokens [B, H, W, C] to what its windows' attention gives, with our padding."""
    from timm.models.swin_transformer import SwinTransformerBlock, window_partition

    batch, height, width, channels = tokens.shape
    side_h, side_w = self.window_size
    shift = self.shift_size
    if isinstance(self, SwinTransformerBlock):
        shift = (side_h // 2, side_w // 2) if self._odd and min(height, width) > side_h else (0, 0)
    padded = F.pad(tokens, (0, 0, 0, -width % side_w, 0, -height % side_h))
    rows, columns = padded.shape[1:3]
    mask = None
    if any(shift):
        padded = torch.roll(padded, (-shift[0], -shift[1]), (1, 2))
        mask = _mask(rows, columns, self.window_size, shift, tokens)
    windows = window_partition(padded, self.window_size).view(-1, side_h * side_w, channels)
    out: Tensor = self.attn(windows, mask=mask)
    whole = out.view(batch, rows // side_h, columns // side_w, side_h, side_w, channels)
    whole = whole.transpose(2, 3).reshape(batch, rows, columns, channels)
    if any(shift):
        whole = torch.roll(whole, shift, (1, 2))
    return whole[:, :height, :width].contiguous()


def _mask(rows: int, columns: int, window: tuple[int, int], shift: tuple[int, int], like: Tensor) -> Tensor:
    """[windows, tokens, tokens]: -100 between patches that only the shift brought into one window, else 0."""
    regions = []
    for length, side, step in ((rows, window[0], shift[0]), (columns, window[1], shift[1])):
        places = torch.arange(length, device=like.device)
        regions.append((places >= length - side).long() + (places >= length - step).long())
    whole = regions[0][:, None] * 3 + regions[1][None]
    cut = whole.view(rows // window[0], window[0], columns // window[1], window[1]).transpose(1, 2)
    flat = cut.reshape(-1, window[0] * window[1])
    apart = flat[:, None] != flat[:, :, None]
    return torch.zeros(apart.shape, dtype=like.dtype, device=like.device).masked_fill(apart, -100.0)
