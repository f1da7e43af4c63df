"""Inference at an image's own size: sliding windows, several scales, and the class of every pixel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as T

from bench.card import Transform
from suites.segmentation.crops import LONG, fitted, normalised

Logits = Callable[[Tensor], Tensor]
"""[B, 3, H, W] -> [B, C, H, W]."""
AT_ONCE = 16
"""Classes whose maps are held at an image's own size at a time."""


def slide(logits: Logits, image: Tensor, window: int, stride: int) -> Tensor:
    """Logits [1, C, H, W] of one image [1, 3, H, W]: the mean over all windows that cover a pixel.

    Windows of ``window`` pixels every ``stride``, the last ones flush with the border; an image that fits into one
    window is seen whole (mmsegmentation's ``slide_inference``).
    """
    height, width = image.shape[2:]
    total: Tensor | None = None
    count = torch.zeros((1, 1, height, width), device=image.device)
    for top in _starts(height, window, stride):
        for left in _starts(width, window, stride):
            part = (..., slice(top, top + window), slice(left, left + window))
            found = logits(image[part]).float()
            if total is None:
                total = torch.zeros((1, found.shape[1], height, width), device=image.device)
            total[part] += found
            count[part] += 1
    assert total is not None
    return total / count


def _starts(side: int, window: int, stride: int) -> list[int]:
    steps = max(side - window + stride - 1, 0) // stride + 1
    return sorted({max(min(step * stride, side - window), 0) for step in range(steps)})


def predict(
    logits: Logits,
    image: Image.Image,
    transform: Transform,
    *,
    size: int,
    stride: int,
    ratios: Sequence[float] = (1.0,),
    flip: bool = False,
    long: float = LONG,
    device: torch.device,
) -> np.ndarray:
    """int32 [H, W]: the class of every pixel of ``image``.

    The image is scaled to a short side of ``size`` times each of ``ratios``, its long side at most ``long`` times that
    (and mirrored where ``flip``), seen through windows of ``size``, and the result scaled back. One view is decided by
    its logits, several by the mean of their softmax.
    """
    own = (image.height, image.width)
    views = []
    for ratio in ratios:
        scaled = T.resize(image, list(fitted(own, round(size * ratio), long)), InterpolationMode.BILINEAR)
        pixels = normalised(scaled, transform)[None].to(device)
        views.append(slide(logits, pixels, size, stride))
        if flip:
            views.append(slide(logits, pixels.flip(3), size, stride).flip(3))
    if len(views) > 1:
        views = [view.softmax(dim=1) for view in views]
    best = torch.full(own, -torch.inf, device=device)
    labels = torch.zeros(own, dtype=torch.int32, device=device)
    for start in range(0, views[0].shape[1], AT_ONCE):
        parts = [
            F.interpolate(v[:, start : start + AT_ONCE], own, mode="bilinear", align_corners=False)[0] for v in views
        ]
        highest, where = torch.stack(parts).mean(dim=0).max(dim=0)
        better = highest > best
        best = torch.where(better, highest, best)
        labels = torch.where(better, (where + start).int(), labels)
    found: np.ndarray = labels.cpu().numpy()
    return found
