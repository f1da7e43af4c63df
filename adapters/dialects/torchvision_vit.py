"""torchvision's VisionTransformer under timm's names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_RULES = (
    (r"class_token", "cls_token"),
    (r"conv_proj\.(.*)", r"patch_embed.proj.\1"),
    (r"encoder\.pos_embedding", "pos_embed"),
    (r"encoder\.ln\.(.*)", r"norm.\1"),
    (r"heads\.head\.(.*)", r"head.\1"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.ln_([12])\.(.*)", r"blocks.\1.norm\2.\3"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_(.*)", r"blocks.\1.attn.qkv.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.(.*)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.(.*)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.(.*)", r"blocks.\1.mlp.fc2.\2"),
)


def translate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` under timm's names; a name without a rule stays."""
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, ours in _RULES:
            if match := re.fullmatch(pattern, name):
                name = match.expand(ours)
                break
        renamed[name] = tensor
    return renamed
