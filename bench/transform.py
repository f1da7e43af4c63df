"""An image through a network's evaluation transform, with PIL's resizing (antialiased, as the papers' code did it)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.card import Transform


def apply(transform: Transform, image: Image.Image) -> torch.Tensor:
    """``image`` as the network wants it: float32 [3, H, W].

    The sizes are those of torchvision's Resize and CenterCrop (an image smaller than the crop is padded with black),
    so a transform written with them gives the same numbers.
    """
    image = rgb(image)
    if transform.resize is not None:
        size = [transform.resize] if isinstance(transform.resize, int) else list(transform.resize)
        image = F.resize(image, size, InterpolationMode(transform.interpolation))
    if transform.crop is not None:
        size = [transform.crop] * 2 if isinstance(transform.crop, int) else list(transform.crop)
        image = F.center_crop(image, size)
    tensor: torch.Tensor = F.to_tensor(image)
    return F.normalize(tensor, list(transform.mean), list(transform.std), inplace=True)  # type: ignore[no-any-return]


def rgb(image: Image.Image) -> Image.Image:
    """``image`` in mode RGB.

    Alpha is dropped, not composited, as in every official evaluation loader (``convert("RGB")``). Sixteen-bit gray
    is scaled to eight bits, where PIL alone would clip it to white.
    """
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8))
    elif image.mode in {"RGBa", "La"}:  # premultiplied: PIL converts these only by way of their plain form
        image = image.convert(image.mode.replace("a", "A"))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def resized(transform: Transform, size: int) -> Transform:
    """The same transform at input size ``size``: the crop becomes ``size`` and the ratio of resize to crop is kept.

    Raises `BenchError` for a size below 1.
    """
    if size < 1:
        raise BenchError(f"an input size of {size} pixels is impossible: give a positive number")
    if transform.crop is None:
        resize: int | tuple[int, int] | None = transform.resize
        if isinstance(resize, int):
            # Without a crop the shorter side alone is fixed.
            return transform.model_copy(update={"resize": size})
        return transform.model_copy(update={"resize": (size, size)})
    shorter = transform.crop if isinstance(transform.crop, int) else min(transform.crop)
    scale = size / shorter
    if transform.resize is None:
        resize = None
    elif isinstance(transform.resize, int):
        resize = round(transform.resize * scale)
    else:
        resize = (round(transform.resize[0] * scale), round(transform.resize[1] * scale))
    return transform.model_copy(update={"resize": resize, "crop": size})
