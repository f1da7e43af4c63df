"""Data sets that are arrays of pixels in memory: IDX files and the bundled images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from PIL import Image

from bench.dataset import fingerprint_of


class ArrayDataset:
    """``pixels`` uint8 [N, H, W] (gray) or [N, H, W, 3], ``labels`` int64 [N]."""

    def __init__(self, name: str, split: str, pixels: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> None:
        self.name = name
        self.split = split
        self.classes = tuple(classes)
        self.class_ids = tuple(range(len(classes)))
        self.labels = labels.astype(np.int64)
        self._pixels = pixels

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def ids(self) -> Sequence[str]:
        return [f"{self.split}/{index}" for index in range(len(self))]

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_of(
            (hashlib.sha256(image.tobytes()).digest(), int(label))
            for image, label in zip(self._pixels, self.labels, strict=True)
        )

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self._pixels[index]).convert("RGB")
