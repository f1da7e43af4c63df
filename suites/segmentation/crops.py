"""Training samples of segmentation: scaled, cropped, flipped and recoloured as mmsegmentation's ADE20K recipes do."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from bench.card import Transform
from bench.data.segfolder import VOID
from bench.dataset import DecodeError
from bench.errors import BenchError
from suites.segmentation.colours import distorted

LONG = 4.0
"""The long side may be so many times the short one: 2048 by 512."""
TRIES = 11
FULL = 0.75
"""No class may fill more of a crop than this, if one of ten crops can help it; the eleventh is taken as it is."""


class Crops:
    """``samples[i]``: (image float32 [3, S, S], standardised; labels int64 [S, S], `VOID` where nothing counts)."""

    def __init__(
        self, dataset: Any, transform: Transform, size: int, scale: tuple[float, float], long: float = LONG
    ) -> None:
        self.dataset = dataset
        self.transform = transform
        self.size = size
        self.scale = scale
        self.long = long
        self.recolour = distorted

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = image_of(self.dataset, index), self.dataset.mask(index)
        factor = random.uniform(*self.scale)
        image, labels = self._resized(image, mask, factor)
        top, left = self._corner(labels)
        box = (left, top, left + self.size, top + self.size)
        image = image.crop((box[0], box[1], min(box[2], image.width), min(box[3], image.height)))
        labels = labels[top : top + self.size, left : left + self.size]
        if random.random() < 0.5:
            image, labels = F.hflip(image), labels[:, ::-1]
        pixels = normalised(self.recolour(image), self.transform)
        padding = [0, 0, self.size - pixels.shape[2], self.size - pixels.shape[1]]
        padded = np.full((self.size, self.size), VOID, dtype=np.int64)
        padded[: labels.shape[0], : labels.shape[1]] = labels
        return F.pad(pixels, padding), torch.from_numpy(padded)

    def _resized(self, image: Image.Image, mask: np.ndarray, factor: float) -> tuple[Image.Image, np.ndarray]:
        height, width = fitted((image.height, image.width), round(self.size * factor), self.long)
        labels = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
        return F.resize(image, [height, width], InterpolationMode.BILINEAR), np.asarray(labels)

    def _corner(self, labels: np.ndarray) -> tuple[int, int]:
        most = [max(side - self.size, 0) for side in labels.shape]
        for _ in range(TRIES):
            top, left = (random.randint(0, m) for m in most)
            crop = labels[top : top + self.size, left : left + self.size]
            counts = np.unique(crop[crop >= 0], return_counts=True)[1]
            if len(counts) > 1 and counts.max() / counts.sum() < FULL:
                break
        return top, left


def fitted(size: tuple[int, int], short: int, long: float = LONG) -> tuple[int, int]:
    """(height, width) scaled so that the short side is ``short``, or the long side ``long`` times that where it would
    be longer (0: it may have any length); the proportions are kept."""
    factor = min(short / min(size), (long or math.inf) * short / max(size))
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))


def normalised(image: Image.Image, transform: Transform) -> Tensor:
    """float32 [3, H, W] by the network's own mean and deviation."""
    tensor: Tensor = F.to_tensor(image)
    return F.normalize(tensor, list(transform.mean), list(transform.std), inplace=True)  # type: ignore[no-any-return]


def image_of(dataset: Any, index: int) -> Image.Image:
    """The RGB image; a damaged one is refused: leaving it out would leave its mask without an image."""
    try:
        image: Image.Image = dataset.image(index)
    except DecodeError as error:
        raise BenchError(f"the image {error} cannot be decoded: mend it, or remove it and its annotation") from None
    return image
