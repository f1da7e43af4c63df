"""Colours of training images, distorted as mmsegmentation's ``PhotoMetricDistortion`` does."""

from __future__ import annotations

import random

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import functional as F

BRIGHTNESS = 32
CONTRAST = SATURATION = (0.5, 1.5)
HUE = 18
"""Of 180 steps around the circle."""


def distorted(image: Image.Image) -> Image.Image:
    """``image`` (RGB) with each of these or without, by a coin: brightness (up to 32 levels added), contrast (all
    levels times 0.5 to 1.5, before the two that follow or after them), saturation (times as much) and hue (turned by up
    to a tenth of the circle). Random numbers are those of `random`."""
    pixels = np.asarray(image)
    if _heads():
        pixels = _levels(pixels + random.uniform(-BRIGHTNESS, BRIGHTNESS))
    early = _heads()
    if early:
        pixels = _contrasted(pixels)
    if _heads():
        pixels = saturated(pixels, random.uniform(*SATURATION))
    if _heads():
        pixels = turned(pixels, random.randint(-HUE, HUE - 1))
    if not early:
        pixels = _contrasted(pixels)
    return Image.fromarray(pixels)


def saturated(pixels: np.ndarray, factor: float) -> np.ndarray:
    """uint8 [H, W, 3]: HSV's saturation times ``factor``, at most 1; its hue and value stay."""
    colours = pixels.astype(np.float64)
    value = colours.max(axis=2, keepdims=True)
    spread = value - colours.min(axis=2, keepdims=True)
    most = np.divide(value, spread, out=np.ones_like(value), where=spread > 0)
    return _levels(np.rint(value - (value - colours) * np.minimum(factor, most)))


def turned(pixels: np.ndarray, steps: int) -> np.ndarray:
    """uint8 [H, W, 3]: the hue turned by so many of 180 steps."""
    moved: torch.Tensor = F.adjust_hue(torch.from_numpy(pixels.copy()).permute(2, 0, 1), steps / 180)
    found: np.ndarray = moved.permute(1, 2, 0).numpy()
    return found


def _contrasted(pixels: np.ndarray) -> np.ndarray:
    return _levels(pixels * random.uniform(*CONTRAST)) if _heads() else pixels


def _levels(values: np.ndarray) -> np.ndarray:
    levels: np.ndarray = np.clip(values, 0, 255).astype(np.uint8)
    return levels


def _heads() -> bool:
    return random.random() < 0.5
