"""Data sets whose samples are image files under one folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.data.decoding import decode
from bench.data.digests import file_digests
from bench.dataset import fingerprint_of

if TYPE_CHECKING:
    from PIL import Image


class FileDataset:
    """``paths`` relative to ``root``, in order; ``labels`` index ``classes``."""

    def __init__(
        self, name: str, split: str, root: Path, paths: Sequence[str], labels: Sequence[int], classes: Sequence[str]
    ) -> None:
        self.name = name
        self.split = split
        self.root = root
        self.classes = tuple(classes)
        self.class_ids = tuple(range(len(classes)))
        self.labels = np.asarray(labels, dtype=np.int64)
        self._paths = list(paths)

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def ids(self) -> Sequence[str]:
        return self._paths

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_of(zip(file_digests(self.root, self._paths), self.labels, strict=True))

    def image(self, index: int) -> Image.Image:
        path = self.root / self._paths[index]
        return decode(path, str(path))
