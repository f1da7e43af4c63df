"""FeatureSet: what suites read. One split's features, labels and identity, whoever made them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np

from bench.errors import BenchError


class FeatureSet(ABC):
    """Features of one split. Rows of every array are in the order of the data set's samples."""

    dataset: str
    split: str
    fingerprint: str
    labels: np.ndarray
    """int64 [N]; of samples that carry several labels [N, C] of 1 (present), -1 (absent), 0 (not judged: difficult)."""
    ids: Sequence[str]
    classes: dict[int, str]
    """Class name of every label that may occur."""
    widths: dict[str, int]
    """Width of every stored array."""
    validation: np.ndarray | None = None
    """bool [N]: the part of a training split that is published as validation; None where none is."""

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def array(self, name: str) -> np.ndarray:
        """The whole array ``name``, float32 [N, D], read-only."""

    def blocks(self, name: str, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, float32 [<= rows, D]) in order; stores read from disk override it to stay out of core."""
        whole = self.array(name)
        for start in range(0, len(whole), rows):
            yield start, whole[start : start + rows]


class ArrayFeatureSet(FeatureSet):
    """Features held in memory: `features:` files and live modules."""

    def __init__(
        self,
        arrays: dict[str, np.ndarray],
        labels: np.ndarray,
        *,
        dataset: str,
        split: str,
        fingerprint: str,
        ids: Sequence[str] | None = None,
        classes: dict[int, str] | None = None,
    ) -> None:
        self._arrays = arrays
        self.labels = labels
        self.dataset = dataset
        self.split = split
        self.fingerprint = fingerprint
        self.ids = ids if ids is not None else [f"{split}/{i}" for i in range(len(labels))]
        self.classes = classes if classes is not None else _numbered(labels)
        self.widths = {name: array.shape[1] for name, array in arrays.items()}

    def array(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            raise BenchError(
                f"the features of {self.dataset} {self.split} hold no '{name}' (there are: {', '.join(self._arrays)}): "
                f"evaluate the network itself, or bring that output too"
            )
        return self._arrays[name]


def _numbered(labels: np.ndarray) -> dict[int, str]:
    """Class names for labels without any: of [N, C], those of several labels a sample, the columns' numbers."""
    return {int(c): str(c) for c in (np.unique(labels) if labels.ndim == 1 else range(labels.shape[1]))}
