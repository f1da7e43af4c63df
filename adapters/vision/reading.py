"""What a network of transformers gives, found by running it once on noise: tokens or maps, their norm, the pyramid."""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from adapters.vision.config import frames_of, native_size, patch_of, reason
from adapters.vision.model import INPUTS, Model, quiet
from bench.errors import BenchError

_CLASS = re.compile(r"(?:.*\.)?(?:cls_token|class_embedding|class_token|cls_embedding)")
_REGISTERS = re.compile(r"(?:.*\.)?(?:register_tokens?|storage_tokens?)")
_DISTILLED = re.compile(r"(?:.*\.)?(?:distillation_token|dist_token)")
_NEAR = 3e-5
_TOKENS = 1 << 15
"""Of images that a network is tried on: attention takes memory for the square of their number."""


@dataclass
class Raw:
    """One forward: the tower's own output, what each of its blocks gave, and the classifier's scores."""

    out: Any
    blocks: list[Tensor]
    logits: Tensor | None


@dataclass
class Reading:
    """How features are taken from a `Raw`."""

    size: tuple[int, int]
    """Native input size (height, width)."""
    frames: tuple[int, int] | None
    """(frames of a clip, frames in a token) of a video network."""
    blue_first: bool = False
    """Whether images, red first as everywhere, are given to the network blue first."""
    clip: int = 0
    """Frames that it was run on to find this: the fewest that it takes."""
    kind: Literal["tokens", "maps", "vector"] = "vector"
    patch: tuple[int, int] | None = None
    """Of plain transformers, whose tokens lie on a grid; None where they do not."""
    prefix: int = 0
    """Tokens before those of the patches."""
    class_token: bool = False
    channels_last: bool = False
    norm: str | None = None
    """Name in the tower of the norm between its last block and its features; empty: there is none."""
    norm_applied: bool = False
    """Whether ``last_hidden_state`` has gone through it already."""
    blocks: str = ""
    """Name of the list of blocks that all give tokens of one shape."""
    pooled: str = "avg"
    levels: list[tuple[int, bool]] = field(default_factory=list)
    """Of each map of the pyramid its place among the hidden states, and whether its channels are last."""
    strides: list[int] = field(default_factory=list)
    channels: list[int] = field(default_factory=list)


def grid(reading: Reading, height: int, width: int, frames: int = 1) -> tuple[int, int, int]:
    """(frames, rows, columns) of the tokens of images of this size."""
    patch = reading.patch or (1, 1)
    deep = max(frames // reading.frames[1], 1) if reading.frames else 1
    return deep, height // patch[0], width // patch[1]


def run(model: Model, reading: Reading, images: Tensor, *, hidden: bool = False) -> Raw:
    """``images`` [B, 3, H, W] or [B, 3, T, H, W] through the network."""
    tower = model.tower
    kept: list[Any] = []
    blocks: list[Tensor] = []
    fed = images.flip(1) if reading.blue_first else images
    fed = fed.transpose(1, 2) if reading.frames else fed
    accepted = inspect.signature(model.whole.forward).parameters
    name = next((name for name in INPUTS if name in accepted), INPUTS[0])
    arguments: dict[str, Any] = {name: fed}
    if "spatial_shapes" in accepted and (patch := patch_of(model.config)) is not None and fed.ndim == 4:
        arguments = {name: _cut(fed, patch), **_sizes(fed, patch)}
    if model.classifier is False and "skip_predictor" in accepted:
        arguments["skip_predictor"] = True
    if "interpolate_pos_encoding" in accepted and tuple(images.shape[-2:]) != reading.size:
        arguments["interpolate_pos_encoding"] = True
    if hidden:
        arguments["output_hidden_states"] = True
    _restore_windows(tower)
    hooks = []
    if model.classifier:
        hooks.append(tower.register_forward_hook(lambda module, given, out: kept.append(out)))
    if reading.blocks:
        for block in tower.get_submodule(reading.blocks):
            hooks.append(block.register_forward_hook(lambda module, given, out: blocks.append(first(out))))
    try:
        out = model.whole(**arguments)
    finally:
        for hook in hooks:
            hook.remove()
    own = kept[-1] if model.classifier else out
    if not hasattr(own, "keys"):
        raise BenchError(f"transformers' {model.name} gives a {type(own).__name__} where named outputs are expected")
    return Raw(own, blocks, out.get("logits") if model.classifier else None)


def _restore_windows(tower: nn.Module) -> None:
    """Give windows the sizes they were made with: such classes shrink theirs at a small map and leave them so."""
    for part in tower.modules():
        if hasattr(part, "set_shift_and_window_size"):
            own = part.__dict__.setdefault("_own_windows", (part.window_size, part.shift_size))
            part.window_size, part.shift_size = own


def _cut(images: Tensor, patch: tuple[int, int]) -> Tensor:
    """[B, N, h * w * 3]: images as the patches that networks for any aspect take, row by row, colours last."""
    batch, colours, height, width = images.shape
    rows, columns = height // patch[0], width // patch[1]
    whole = images[:, :, : rows * patch[0], : columns * patch[1]]
    cut = whole.reshape(batch, colours, rows, patch[0], columns, patch[1]).permute(0, 2, 4, 3, 5, 1)
    return cut.reshape(batch, rows * columns, -1)


def _sizes(images: Tensor, patch: tuple[int, int]) -> dict[str, Tensor]:
    """What such networks are told beside the patches: all of them count, and how many rows and columns they fill."""
    rows, columns = images.shape[2] // patch[0], images.shape[3] // patch[1]
    count = torch.ones(len(images), rows * columns, dtype=torch.long, device=images.device)
    sides = torch.tensor([[rows, columns]] * len(images), device=images.device)
    return {"pixel_attention_mask": count, "spatial_shapes": sides}


def first(out: Any) -> Any:
    """The hidden state of what a block returns."""
    return out[0] if isinstance(out, tuple | list) and out else out


def last_of(out: Any) -> Tensor:
    """The tower's last tokens or map."""
    last: Tensor = out["last_hidden_state"]
    return last


def hidden_of(out: Any) -> list[Tensor]:
    """The maps or tokens that the tower shows of its way, first ones first."""
    for name in ("reshaped_hidden_states", "feature_maps", "hidden_states"):
        found = out.get(name)
        if found is not None:
            return [one for one in found if isinstance(one, Tensor)]
    return []


def read(model: Model, what: str) -> Reading:
    """How ``model`` is read.

    Raises `BenchError`, naming ``what``, for a network that cannot be run on images alone, or not twice the same.
    """
    reading = Reading(native_size(model.config), frames_of(model.config))
    images, found = _probe(model, reading, what)
    last = found.out.get("last_hidden_state")
    if not isinstance(last, Tensor) or last.ndim not in (2, 3, 4) or len(last) != len(images):
        raise BenchError(f"{what}: transformers' {model.name} gives no tokens or map for each image")
    again = last_of(run(model, reading, images[:1]).out)
    if not close(again, last[:1], 1e-3):
        raise BenchError(
            f"{what}: transformers' {model.name} gives another feature when an image is computed again alone: it is "
            f"random, or mixes the images of a batch"
        )
    if last.ndim == 4:
        reading.kind = "maps"
        reading.channels_last = _channels_last(last, images)
    elif last.ndim == 3:
        reading.kind = "tokens"
        _tokens(model, reading, images, found)
    pooler = found.out.get("pooler_output")
    if isinstance(pooler, Tensor) and pooler.ndim >= 2 and pooler.flatten(1).shape[1] == pooler.shape[1]:
        reading.pooled = "pooler_output"
    elif reading.class_token:
        reading.pooled = "cls"
    if not reading.patch:
        _pyramid(reading, images, hidden_of(found.out))
    return reading


def _probe(model: Model, reading: Reading, what: str) -> tuple[Tensor, Raw]:
    noise = torch.Generator().manual_seed(0)
    height, width = reading.size
    clips: list[int | None] = [None]
    if reading.frames:
        full, tubelet = reading.frames
        # Few frames where the network takes any number; a clip of all of them costs minutes.
        clips = [min(full, 2 * tubelet), full, None]
    frames = reading.frames
    error: Exception | None = None
    patch = patch_of(model.config) or (16, 16)
    for clip in dict.fromkeys(clips):
        tokens = (height // patch[0]) * (width // patch[1]) * ((clip or 1) // (frames[1] if frames and clip else 1))
        if tokens > _TOKENS:
            raise BenchError(f"{what}: its config.json describes {tokens:,} tokens of an image, which is too many")
        reading.frames = None if clip is None else frames
        shape = (2, 3, height, width) if clip is None else (2, 3, clip, height, width)
        images = torch.randn(shape, generator=noise)
        try:
            with torch.no_grad(), quiet():
                found = run(model, reading, images, hidden=True)
        except BenchError:
            raise
        except Exception as failed:  # whatever its layers say of an input that they are not for
            error = failed
        else:
            reading.clip = clip or 0
            return images, found
    assert error is not None
    raise BenchError(
        f"{what}: transformers' {model.name} cannot be run on images of {height}x{width} pixels alone ({reason(error)})"
    ) from error


def _tokens(model: Model, reading: Reading, images: Tensor, found: Raw) -> None:
    """Settle grid, class token, blocks and norm of a transformer whose tokens all have one width."""
    last, tower = last_of(found.out), model.tower
    state = {**dict(tower.named_parameters()), **dict(tower.named_buffers())}
    reading.patch = patch_of(model.config)
    class_token = any(_CLASS.fullmatch(name) for name in state)
    prefix = sum(_DISTILLED.fullmatch(name) is not None for name in state)
    prefix += sum(t.shape[-2] for n, t in state.items() if _REGISTERS.fullmatch(n) and t.ndim > 1)
    frames, rows, columns = grid(reading, images.shape[-2], images.shape[-1], images.shape[2] if reading.frames else 1)
    count = frames * rows * columns
    extra = last.shape[1] - count - prefix
    behind = next((t.shape[-2] for n, t in state.items() if n.endswith("detection_tokens")), 0)
    # A token that asks in a pooling by attention is none among those of the patches.
    class_token = class_token and extra in (1, 1 + behind)
    if reading.patch is None or extra - int(class_token) not in (0, behind):
        reading.patch = None
        return
    reading.prefix, reading.class_token = prefix + int(class_token), class_token
    reading.strides, reading.channels = [reading.patch[0]], [last.shape[2]]
    pooler = found.out.get("pooler_output")
    for name, part in tower.named_modules():
        if (
            isinstance(part, nn.ModuleList)
            and len(part)
            and len(part) == getattr(model.config, "num_hidden_layers", -1)
        ):
            reading.blocks = name
            break
    with torch.no_grad(), quiet():
        raw = run(model, reading, images).blocks if reading.blocks else []
        sound = bool(raw) and all(isinstance(one, Tensor) and one.shape == last.shape for one in raw)
        before = raw[-1] if sound else None
        if not sound or len(raw) != len(tower.get_submodule(reading.blocks)):
            reading.blocks = ""
        outside = {
            name: part
            for name, part in tower.named_modules()
            if "norm" in type(part).__name__.lower() and not (reading.blocks and name.startswith(f"{reading.blocks}."))
        }
        for name, part in outside.items():
            if _width(part) != last.shape[2]:
                continue
            if before is not None and close(part(before), last):
                reading.norm, reading.norm_applied = name, True
                return
            # The norm comes after the class token is taken: CLIP and its kin.
            after = class_token and isinstance(pooler, Tensor) and close(part(last[:, 0]), pooler)
            if after and (before is None or close(before, last)):
                reading.norm = name
                return
        if before is not None and close(before, last):
            reading.norm, reading.norm_applied = "", True
        elif before is not None:
            reading.blocks = ""


def _width(norm: nn.Module) -> int:
    weight = getattr(norm, "weight", None)
    return len(weight) if isinstance(weight, Tensor) and weight.ndim == 1 else 0


def _channels_last(maps: Tensor, images: Tensor) -> bool:
    """Whether maps are [B, H, W, C]: then those sides are in the images' proportion, and the last two are not."""
    height, width = images.shape[-2:]
    first_, second, third = (int(length) for length in maps.shape[1:])
    return abs(first_ * width - second * height) < abs(second * width - third * height)


def as_map(hidden: Tensor, images: Tensor, channels_last: bool) -> Tensor | None:
    """[B, C, h, w] of a map in either order or of tokens that fill a grid; None where it is neither."""
    if hidden.ndim == 4:
        return hidden.permute(0, 3, 1, 2) if channels_last else hidden
    if hidden.ndim != 3:
        return None
    height, width = images.shape[-2:]
    rows = round(math.sqrt(hidden.shape[1] * height / width))
    if not rows or hidden.shape[1] % rows:
        return None
    return hidden.transpose(1, 2).reshape(len(hidden), hidden.shape[2], rows, hidden.shape[1] // rows)


def _pyramid(reading: Reading, images: Tensor, hidden: list[Tensor]) -> None:
    """The last map of each stride, where strides grow along the network."""
    if reading.frames:
        return
    height = images.shape[-2]
    found: dict[int, tuple[int, bool, int]] = {}
    for index, one in enumerate(hidden):
        turned = one.ndim == 4 and _channels_last(one, images)
        level = as_map(one, images, turned)
        stride = _stride(height, level.shape[2]) if level is not None else 0
        if level is not None and stride:
            found[stride] = (index, turned, int(level.shape[1]))
    coarse = {stride: level for stride, level in found.items() if stride >= 4} or found
    reading.strides = sorted(coarse)
    reading.levels = [coarse[stride][:2] for stride in reading.strides]
    reading.channels = [coarse[stride][2] for stride in reading.strides]


def _stride(size: int, side: int) -> int:
    """The stride of a map of ``side`` from an image of ``size`` pixels, 0 where there is none.

    A power of two where one fits: convolutions without padding lose a pixel or two.
    """
    if not 1 <= side <= size:
        return 0
    for stride in (2 ** round(math.log2(size / side)), round(size / side)):
        if abs(size / stride - side) <= max(1.0, 0.15 * size / stride):
            return stride
    return 0


def close(ours: Any, theirs: Tensor, tolerance: float = _NEAR) -> bool:
    """Whether two outputs are equal to float32's noise, relative to the largest value."""
    if not isinstance(ours, Tensor) or ours.shape != theirs.shape:
        return False
    return float((ours - theirs).abs().max()) <= tolerance * max(float(theirs.abs().max()), 1e-12)
