"""Data sets whose samples are image files under one folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from bench.data.decoding import decode
from bench.data.digests import file_digests
from bench.data.labelled import Labelled, fingerprint_from
from bench.errors import BenchError

if TYPE_CHECKING:
    from PIL import Image


class FileDataset(Labelled):
    """``paths`` relative to ``root``, with forward slashes, in order; they are the ids."""

    def __init__(
        self,
        name: str,
        split: str,
        root: Path,
        paths: Sequence[str],
        labels: Sequence[int] | np.ndarray,
        classes: Sequence[str],
        class_ids: Sequence[int] | None = None,
    ) -> None:
        super().__init__(name, split, labels, classes, class_ids)
        self.root = root
        self._paths = list(paths)
        for path in self._paths:
            # Lists of files come with the data: none may lead to files that are not the data's.
            if path.startswith("/") or (".." in path and ".." in PurePosixPath(path).parts):
                raise BenchError(f"{name}: a list names '{path[:200]}', which leads out of {root}: mend the list")

    @property
    def ids(self) -> Sequence[str]:
        return self._paths

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_from(file_digests(self.root, self._paths), self.labels)

    def _take(self, indices: np.ndarray) -> None:
        self._paths = [self._paths[i] for i in indices]

    def image(self, index: int) -> Image.Image:
        """RGB; raises `DecodeError` for a damaged file, and OSError for one that cannot be read."""
        path = self.root / self._paths[index]
        return decode(path, str(path))
