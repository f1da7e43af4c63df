"""Data sets that are arrays of pixels in memory: IDX files, CIFAR's batches and the bundled images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from PIL import Image

from bench.data.labelled import Labelled, fingerprint_from


class ArrayDataset(Labelled):
    """``pixels`` uint8 [N, H, W] (gray) or [N, H, W, 3], ``labels`` int64 [N]."""

    def __init__(
        self,
        name: str,
        split: str,
        pixels: np.ndarray,
        labels: np.ndarray,
        classes: Sequence[str],
        class_ids: Sequence[int] | None = None,
    ) -> None:
        super().__init__(name, split, labels, classes, class_ids)
        self._pixels = pixels

    @cached_property
    def ids(self) -> Sequence[str]:
        return [f"{self.split}/{index}" for index in range(len(self))]

    @cached_property
    def fingerprint(self) -> str:
        # The size belongs to the content: the same bytes in another shape are another picture.
        shape = repr(self._pixels.shape[1:]).encode()
        return fingerprint_from(
            (hashlib.sha256(shape + image.tobytes()).digest() for image in self._pixels), self.labels
        )

    def _take(self, indices: np.ndarray) -> None:
        self._pixels = self._pixels[indices]

    def image(self, index: int) -> Image.Image:
        """RGB; a gray image is repeated in the three channels."""
        return Image.fromarray(self._pixels[index]).convert("RGB")
