"""Position embeddings at other input sizes, resized as each method's own code does it.

timm resizes with antialiasing to the exact size, and so do DINOv2 with registers and open_clip. DINO, iBOT and DINOv2
without registers resize by a scale factor that is slightly too large (0.1 of a patch, against rounding); MAE, MSN,
I-JEPA and Hugging Face's classes by the sizes, without antialiasing; torchvision with the corners in place; the JAX
ViTs so too, and linearly; MaskFeat linearly.
"""

from __future__ import annotations

import math
from types import MethodType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

How = Literal["antialiased", "plain", "scaled", "corners", "linear", "linear corners"]


def resized(grid: Tensor, height: int, width: int, how: How) -> Tensor:
    """Positions [1, h * w, D] of a square grid as [1, height * width, D], bicubic where ``how`` is not linear."""
    side = math.isqrt(grid.shape[1])
    square = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if how == "scaled":
        factors = ((height + 0.1) / side, (width + 0.1) / side)
        out = F.interpolate(square, scale_factor=factors, mode="bicubic")
        if out.shape[2:] != (height, width):
            # The method's own code stops here; such sizes have no published value.
            out = F.interpolate(square, size=(height, width), mode="bicubic")
    elif how == "antialiased":
        out = F.interpolate(square, size=(height, width), mode="bicubic", antialias=True)
    else:
        mode = "bilinear" if how.startswith("linear") else "bicubic"
        out = F.interpolate(square, size=(height, width), mode=mode, align_corners=how.endswith("corners"))
    return out.permute(0, 2, 3, 1).reshape(1, height * width, -1)


def install(network: nn.Module, how: str) -> None:
    """Make a timm VisionTransformer resize its positions the ``how`` way; other networks are left as they are."""
    from timm.models.vision_transformer import VisionTransformer

    if how != "antialiased" and isinstance(network, VisionTransformer) and network.pos_embed is not None:
        network._resizing = how
        network._pos_embed = MethodType(_pos_embed, network)


def _pos_embed(self: Any, tokens: Tensor) -> Tensor:
    """timm's step from patches to tokens with positions (and class and register tokens), with our resizing."""
    batch, height, width, _ = tokens.shape
    tokens = tokens.flatten(1, 2)
    positions = self.pos_embed
    prefix = 0 if self.no_embed_class else self.num_prefix_tokens
    if positions.shape[1] - prefix != height * width or height != width:
        grid = resized(positions[:, prefix:].float(), height, width, self._resizing).to(positions.dtype)
        positions = torch.cat([positions[:, :prefix], grid], 1)
    parts = (self.cls_token, getattr(self, "dist_token", None), self.reg_token)
    special = [part.expand(batch, -1, -1) for part in parts if part is not None]
    if self.no_embed_class:
        tokens = torch.cat([*special, tokens + positions], 1)
    else:
        tokens = torch.cat([*special, tokens], 1) + positions
    out: Tensor = self.pos_drop(tokens)
    return out
