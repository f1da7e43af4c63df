"""Networks that see the lightness of an image: colorization's trunks, which were trained to tell the colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adapters.network_backbone import NetworkBackbone
from adapters.networks.network import Network
from bench.card import Card

if TYPE_CHECKING:
    from PIL import Image

NOTE = "images enter as the L of 8-bit LAB minus 50 (not standardised RGB), as VISSL's evaluation does"


class LightnessBackbone(NetworkBackbone):
    """`NetworkBackbone` whose images become L, -50 to 50, in the first channel; the others, unread, are zero."""

    def __init__(self, network: Network, card: Card, *, classifier: bool = True) -> None:
        super().__init__(network, card.model_copy(update={"notes": [*card.notes, NOTE]}), classifier=classifier)

    def preprocess(self, image: Image.Image) -> Tensor:
        from bench.transform import apply

        assert self.card.transform is not None
        plain = self.card.transform.model_copy(update={"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)})
        pixels: Tensor = apply(plain, image)
        out = torch.zeros_like(pixels)
        out[0] = lightness(pixels) - 50
        return out


def lightness(pixels: Tensor) -> Tensor:
    """CIE L*, 0 to 100 in steps of 100 / 255 as 8-bit LAB has it, of sRGB float [3, H, W] in [0, 1] (D65)."""
    linear = torch.where(pixels <= 0.04045, pixels / 12.92, ((pixels + 0.055) / 1.055) ** 2.4)
    luminance = (linear * pixels.new_tensor([0.212671, 0.715160, 0.072169])[:, None, None]).sum(0)
    scaled = torch.where(luminance > 0.008856, 116 * luminance ** (1 / 3) - 16, 903.3 * luminance)
    return (scaled * 2.55).round() / 2.55
