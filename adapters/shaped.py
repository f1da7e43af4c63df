"""Plain vision transformers that have no name: their arguments from the shapes of a checkpoint's tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.architecture import Architecture
from bench.errors import BenchError

Shapes = Mapping[str, Sequence[int]]

# Depth and heads of the widths that papers use. A file of such a width with another depth is more likely incomplete
# than a design of its own; --arch vit_base_patch16_224(depth=...) says otherwise.
_KNOWN = {
    192: (12, 3),
    384: (12, 6),
    768: (12, 12),
    1024: (24, 16),
    1152: (27, 16),
    1280: (32, 16),
    1408: (40, 16),
    1536: (40, 24),
}
_HEAD_WIDTH = 64


def transformer(shapes: Shapes, prefix: str) -> Architecture | None:
    """A timm transformer with the patch, width, depth and kind of perceptron that ``shapes`` under ``prefix`` have.

    None for anything else, and for depths that speak of missing blocks. The number of heads shows in no shape: it is
    the papers' for their widths, otherwise heads are 64 wide (`assumes_heads`).
    """
    inside = {key[len(prefix) :]: tuple(shape) for key, shape in shapes.items() if key.startswith(prefix)}
    patch, joined = inside.get("patch_embed.proj.weight", ()), inside.get("blocks.0.attn.qkv.weight", ())
    first, second = inside.get("blocks.0.mlp.fc1.weight", ()), inside.get("blocks.0.mlp.fc2.weight", ())
    if len(patch) != 4 or not (len(joined) == len(first) == len(second) == 2) or joined != (3 * patch[0], patch[0]):
        return None
    width, numbers = patch[0], {int(m[1]) for name in inside if (m := re.match(r"blocks\.(\d+)\.", name))}
    depth, heads = _KNOWN.get(width, (len(numbers), width // _HEAD_WIDTH))
    if numbers != set(range(depth)) or not heads or width % heads or patch[2] != patch[3]:
        return None
    arguments: dict[str, Any] = {
        "patch_size": patch[2],
        "embed_dim": width,
        "depth": depth,
        "num_heads": heads,
        "mlp_ratio": first[0] / width,
    }
    gated = first[0] == 2 * second[1]
    if "blocks.0.attn.qkv.bias" not in inside and "blocks.0.attn.q_bias" not in inside:
        arguments["qkv_bias"] = False
    if (registers := inside.get("reg_token")) is not None and len(registers) == 3:
        arguments["reg_tokens"] = registers[1]
    found = Architecture(_base(inside, gated)).with_arguments(**arguments)
    try:
        found.outline()
    except BenchError:
        return None
    return found


def assumes_heads(architecture: Architecture) -> bool:
    """Whether the number of heads is a guess."""
    arguments = dict(architecture.arguments)
    return "embed_dim" in arguments and arguments["embed_dim"] not in _KNOWN


def _base(inside: Shapes, gated: bool) -> str:
    """The named transformer of the same kind, whatever its size."""
    if any(name.endswith("relative_position_bias_table") for name in inside):
        return "beit_base_patch16_224"
    registers = "_reg4" if "reg_token" in inside else ""
    if gated:
        return f"vit_giant_patch14{registers}_dinov2"
    if "blocks.0.ls1.gamma" in inside or registers:
        return f"vit_base_patch14{registers}_dinov2"
    return "vit_base_patch16_clip_224" if "norm_pre.weight" in inside else "vit_base_patch16_224"
