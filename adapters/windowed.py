"""Swin transformers: their windows, and those without a name, from the shapes of a checkpoint's tensors.

Of version 1 every argument but the input size shows in a shape. Of version 2 the windows do not: they come from the
configuration beside the weights, or from the coordinates that official files keep (``relative_coords_table``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from adapters.architecture import Architecture
from adapters.layout import Arguments
from bench.errors import BenchError

Shapes = Mapping[str, Sequence[int]]

_FIRST = "layers.0.blocks.0.attn."
_BLOCK = re.compile(r"layers\.(\d+)\.blocks\.(\d+)\.")
_NAMED = re.compile(r"swin(?:v2)?_[a-z]+(?:_patch4)?_window(?:\d+to)?(\d+)_(?:\d+to)?(\d+)")
# Depths of the widths that papers use. A file of such a width with another depth is more likely incomplete than a
# design of its own, unless its configuration says so.
_KNOWN = dict.fromkeys((96, 128, 192), ((2, 2, 6, 2), (2, 2, 18, 2)))
# Larger windows than any paper's; a block's table of positions takes 8 bytes for every pair in a window.
_LARGEST = 64
_MOST_BLOCKS = 100
_BASES = {1: "swin_tiny_patch4_window7_224", 2: "swinv2_tiny_window8_256"}


def version(architecture: str) -> int | None:
    """1 or 2 for timm's Swin transformers, None for others (``swinv2_cr`` is another network)."""
    match = re.match(r"swin(v2(?!_cr))?_(?!cr)", architecture)
    return None if match is None else 2 if match[1] else 1


def transformer(shapes: Shapes, prefix: str, arguments: Arguments) -> Architecture | None:
    """The Swin transformer that ``shapes`` under ``prefix`` are, with what the layout's ``arguments`` know of it.

    None for anything else, for windows that nothing tells, and for depths that speak of missing blocks.
    """
    inside = {key[len(prefix) :]: tuple(shape) for key, shape in shapes.items() if key.startswith(prefix)}
    patch, first = inside.get("patch_embed.proj.weight", ()), inside.get("layers.0.blocks.0.mlp.fc1.weight", ())
    number = 2 if f"{_FIRST}cpb_mlp.0.weight" in inside else 1
    depths, heads = depths_of(inside), _heads(inside, number)
    if len(patch) != 4 or patch[2] != patch[3] or len(first) != 2 or depths is None or heads is None:
        return None
    if not all((*patch, *heads)) or len(depths) > 8 or sum(depths) > _MOST_BLOCKS:
        return None
    base, width = _BASES[number], patch[0]
    known = arguments(base)
    window = known.get("window_size") or window_of(inside)
    if window is None or (depths not in _KNOWN.get(width, (depths,)) and "depths" not in known):
        return None
    found: dict[str, Any] = {
        "patch_size": patch[2],
        "embed_dim": width,
        "depths": depths,
        "num_heads": heads,
        "mlp_ratio": first[0] / width,
        "window_size": window,
        # As in official configurations, whose last stage is one window.
        "img_size": patch[2] * 2 ** (len(depths) - 1) * (window_of(inside, len(depths) - 1) or window),
        **known,
    }
    if f"{_FIRST}qkv.bias" not in inside and f"{_FIRST}q_bias" not in inside:
        found["qkv_bias"] = False
    try:
        own = said(base, Architecture(base).outline().needed)
        whole = Architecture(base).with_arguments(**{n: value for n, value in found.items() if own.get(n) != value})
        whole.outline()
    except BenchError:
        return None
    return whole


def depths_of(names: Shapes) -> tuple[int, ...] | None:
    """Blocks of every stage, None where stages or blocks are not numbered from 0 on."""
    numbers: dict[int, set[int]] = {}
    for name in names:
        if match := _BLOCK.match(name):
            numbers.setdefault(int(match[1]), set()).add(int(match[2]))
    whole = set(numbers) == set(range(len(numbers))) and all(n == set(range(len(n))) for n in numbers.values())
    return tuple(len(numbers[stage]) for stage in range(len(numbers))) if numbers and whole else None


def _heads(inside: Shapes, number: int) -> tuple[int, ...] | None:
    last, axis = ("relative_position_bias_table", 1) if number == 1 else ("logit_scale", 0)
    found = []
    for stage in range(len(depths_of(inside) or ())):
        shape = inside.get(f"layers.{stage}.blocks.0.attn.{last}", ())
        if len(shape) <= axis:
            return None
        found.append(int(shape[axis]))
    return tuple(found)


def window_of(inside: Shapes, stage: int = 0) -> int | None:
    """Side of a stage's windows in patches, where a shape tells it."""
    start = f"layers.{stage}.blocks.0.attn."
    table, grid = inside.get(f"{start}relative_position_bias_table"), inside.get(f"{start}relative_coords_table")
    window = 0
    if table is not None and len(table) == 2:
        window = (math.isqrt(int(table[0])) + 1) // 2
    elif grid is not None and len(grid) == 4:
        window = (int(grid[1]) + 1) // 2
    return window if 0 < window <= _LARGEST else None


def windows(name: str, needed: Shapes, inside: Shapes) -> dict[str, Any]:
    """Window and input size of the Swin transformer ``name``, where the file's are not its own."""
    number, window = version(name), window_of(inside)
    table = f"{_FIRST}relative_position_bias_table"
    if number is None or window is None or (number == 1 and inside.get(table) == tuple(needed.get(table, ()))):
        return {}
    # Official configurations have a last stage of one window: 7 at 224 pixels, 6 at 192, 12 at 384.
    stages = depths_of(inside) or (1,)
    return {"window_size": window, "img_size": 32 * (window_of(inside, len(stages) - 1) or window)}


def pretrained_windows(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    """The windows of version 2's pretraining, by stage, from the coordinates of a file that keeps them.

    The largest coordinate is log2(1 + 8 (w - 1) / (p - 1)) / 3 for windows of w patches and of p in pretraining
    (Liu et al., "Swin Transformer V2", 2022, section 3.3); 0 stands for windows that are as in pretraining.
    """
    found: list[int] = []
    while (grid := tensors.get(f"{prefix}layers.{len(found)}.blocks.0.attn.relative_coords_table")) is not None:
        if grid.ndim != 4 or grid.is_meta or not grid.numel() or not grid.is_floating_point():
            return {}
        window, largest = (grid.shape[1] + 1) // 2, float(grid.max())
        # A window of one patch has the coordinate 0 alone.
        before = 1 + 8 * (window - 1) / (2 ** (3 * largest) - 1) if 0.1 < largest < 10 else window
        found.append(0 if abs(before - window) < 0.01 else round(before))
    # Those of some stages alone say nothing of the others.
    stages = depths_of({name[len(prefix) :]: () for name in tensors if name.startswith(prefix)})
    return {"pretrained_window_sizes": tuple(found)} if stages is not None and len(found) == len(stages) else {}


def said(name: str, needed: Shapes) -> dict[str, Any]:
    """What the architecture's name says already, and needs no argument."""
    match = _NAMED.fullmatch(name)
    own: dict[str, Any] = {"window_size": int(match[1]), "img_size": int(match[2])} if match is not None else {}
    if match is not None and "to" not in name:
        own["pretrained_window_sizes"] = (0, 0, 0, 0)
    if version(name) is not None:
        own |= {"depths": depths_of(needed), "block_norm_eps": 1e-5, "patch_size": 4, "mlp_ratio": 4.0}
    return own
