"""mIoU, mAcc and aAcc from sums over the whole set, and their bootstrap intervals over images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bench.bootstrap import percentile, resampled_sums
from bench.errors import BenchError

REPLICATES = 1_000


class Overlap:
    """Adds up images. ``classes``: how many there are; labels below 0 count nowhere."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self._rows: list[np.ndarray] = []

    def add(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """One image: two int arrays [H, W], predicted in 0..classes-1, truth in -1..classes-1.

        Raises `BenchError` for another shape, and for a label beyond the classes.
        """
        if predicted.shape != truth.shape:
            raise BenchError(
                f"a prediction of {predicted.shape} pixels cannot be compared with a mask of {truth.shape}"
            )
        counted = truth >= 0
        ours, theirs = predicted[counted].astype(np.int64), truth[counted].astype(np.int64)
        if max(ours.max(initial=0), theirs.max(initial=0)) >= self.classes or ours.min(initial=0) < 0:
            raise BenchError(f"a label lies beyond the {self.classes} classes")
        row = np.zeros((3, self.classes), dtype=np.int64)
        row[0] = np.bincount(theirs[ours == theirs], minlength=self.classes)
        row[1] = np.bincount(ours, minlength=self.classes)
        row[2] = np.bincount(theirs, minlength=self.classes)
        self._rows.append(row)

    def add_areas(self, right: np.ndarray, predicted: np.ndarray, labelled: np.ndarray) -> None:
        """One image that is counted already: pixels of every class, [C] each."""
        self._rows.append(np.stack([right, predicted, labelled]).astype(np.int64))

    def table(self) -> np.ndarray:
        """int64 [N, 3, C]: pixels right, predicted and labelled, of every image and class."""
        return np.stack(self._rows) if self._rows else np.zeros((0, 3, self.classes), dtype=np.int64)

    def values(self) -> dict[str, float]:
        """``miou``, ``macc`` and ``pixel_acc``, percent. Raises `BenchError` when no pixel counts."""
        found = figures(self.table().sum(axis=0, dtype=np.float64)[None])
        if not np.isfinite(found["miou"][0]):
            raise BenchError("no pixel of the masks counts: every label is the ignored one")
        return {name: 100 * float(value[0]) for name, value in found.items()}

    def per_class(self) -> list[float | None]:
        """IoU of each class, percent; None where it neither occurs nor is predicted."""
        right, predicted, labelled = self.table().sum(axis=0, dtype=np.float64)
        union = predicted + labelled - right
        return [100 * float(r / u) if u > 0 else None for r, u in zip(right, union, strict=True)]

    def intervals(self, values: Mapping[str, float], seed: int = 0) -> dict[str, tuple[float, float] | None]:
        """95 % percentile intervals of ``values``, the sums taken again over resampled images."""
        table = self.table().astype(np.float64)
        (sums,) = resampled_sums([table.reshape(len(table), -1)], replicates=REPLICATES, seed=seed)
        drawn = figures(sums.reshape(-1, 3, self.classes))
        found = {name: percentile(drawn[name], value / 100) for name, value in values.items()}
        return {name: None if i is None else (100 * i[0], 100 * i[1]) for name, i in found.items()}


def figures(sums: np.ndarray) -> dict[str, np.ndarray]:
    """``miou``, ``macc``, ``pixel_acc``, float64 [B] in [0, 1], of sums [B, 3, C] (right, predicted, labelled).

    A class that is neither labelled nor predicted has no IoU, one that is not labelled no accuracy: they are left out
    of the means, as in mmsegmentation's IoUMetric.
    """
    right, predicted, labelled = sums[:, 0], sums[:, 1], sums[:, 2]
    union = predicted + labelled - right
    total = labelled.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "miou": _mean(right / union, union > 0),
            "macc": _mean(right / labelled, labelled > 0),
            "pixel_acc": np.where(total > 0, right.sum(axis=1) / total, np.nan),
        }


def _mean(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    count = there.sum(axis=1)
    mean: np.ndarray = np.where(there, values, 0.0).sum(axis=1) / np.maximum(count, 1)
    return np.where(count > 0, mean, np.nan)
