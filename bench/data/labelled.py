"""What every data set of ours has in common: its name, split, classes and labels."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np

from bench.dataset import fingerprint_of
from bench.text import printable


class Labelled:
    """``labels`` int64 [N], or [N, C] of 1 (present), -1 (absent), 0 (not judged) for a multi-label set.

    ``class_ids``: the labels that may occur, in the order of ``classes``; by default 0 to C - 1.
    """

    def __init__(
        self,
        name: str,
        split: str,
        labels: Sequence[int] | np.ndarray,
        classes: Sequence[str],
        class_ids: Sequence[int] | None = None,
    ) -> None:
        # Names of folders and files may hold what no record can.
        self.name = printable(name)
        self.split = split
        self.classes = tuple(printable(name) for name in classes)
        self.class_ids = tuple(range(len(classes)) if class_ids is None else class_ids)
        self.labels: np.ndarray = np.asarray(labels, dtype=np.int64)
        self.validation: np.ndarray | None = None
        """bool [N]: the part of a training split that is published as validation."""

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, split: str, indices: np.ndarray) -> Self:
        """The samples at ``indices``, under the name of a split of its own."""
        part = copy.copy(self)
        for cached in ("ids", "fingerprint"):
            part.__dict__.pop(cached, None)
        part.split = split
        part.labels = self.labels[indices]
        part.validation = None if self.validation is None else self.validation[indices]
        part._take(indices)
        return part

    def _take(self, indices: np.ndarray) -> None:
        """Leave only the samples at ``indices``."""
        raise NotImplementedError


def numbered(*labels: np.ndarray) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Class names and labels of a set that gives numbers alone: all that occur in any split, ascending."""
    found = np.unique(np.concatenate(labels)).tolist()
    return tuple(str(label) for label in found), tuple(found)


def fingerprint_from(digests: Iterable[bytes], labels: np.ndarray) -> str:
    """The fingerprint of samples with these content digests and ``labels`` (of one or of many classes each)."""
    if labels.ndim == 1:
        return fingerprint_of(zip(digests, labels.tolist(), strict=True))
    rows = labels.astype("<i8")
    return fingerprint_of(
        (hashlib.sha256(digest + row.tobytes()).digest(), -1) for digest, row in zip(digests, rows, strict=True)
    )
