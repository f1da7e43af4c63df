"""``ood:IN,OUT``: a data set whose test images are joined by those of another, which no class of it covers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.data.opening import open_data
from bench.dataset import Dataset, Splits
from bench.errors import BenchError
from bench.modality import modality_of

OUTSIDE = "out of distribution"


def open_outside(rest: str) -> Splits:
    """``ood:imagenet,dtd``: train as of the first set; test is the first set's, then the second's under one new class.

    The new class is the one above the first set's largest; ids are ``in/...`` and ``out/...``. Raises `BenchError`
    unless two SPECs are given and both have one label an image.
    """
    specs = rest.split(",")
    if len(specs) != 2 or not all(specs):
        raise BenchError(
            f"ood takes two data sets, as in ood:imagenet,dtd (a path in it holds no comma), not '{rest[:80]}'"
        )
    if any(spec.partition(":")[0] == "ood" for spec in specs):
        raise BenchError(f"ood:{rest[:80]} joins joined sets: give two plain ones")
    inside, outside = (open_data(spec) for spec in specs)
    for split in (inside.train, inside.test):
        if split.labels.ndim != 1:
            raise BenchError(f"ood: {split.name} gives an image several labels: what lies outside of it is not defined")
    if modality_of(inside.test) != modality_of(outside.test):
        raise BenchError(f"ood:{rest[:80]} joins images and texts: no network reads both")
    if inside.test.fingerprint == outside.test.fingerprint:
        raise BenchError(f"ood:{rest[:80]} sets the images of {inside.test.name} against themselves: give another set")
    return Splits(inside.train, Joined(inside.test, outside.test))


class Joined:
    """The samples of ``inside`` with their labels, then those of ``outside`` as one class of their own."""

    def __init__(self, inside: Dataset, outside: Dataset) -> None:
        self._parts = (inside, outside)
        self.name = f"{inside.name}-vs-{outside.name}"
        self.split = inside.split
        self.modality = modality_of(inside)
        label = max(inside.class_ids) + 1
        self.classes = (*inside.classes, OUTSIDE)
        self.class_ids = (*inside.class_ids, label)
        self.labels: np.ndarray = np.concatenate([inside.labels, np.full(len(outside), label, dtype=np.int64)])

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def ids(self) -> Sequence[str]:
        inside, outside = self._parts
        return [*(f"in/{name}" for name in inside.ids), *(f"out/{name}" for name in outside.ids)]

    @property
    def fingerprint(self) -> str:
        both = "|".join(part.fingerprint for part in self._parts)
        return f"sha256:{hashlib.sha256(f'joined|{both}'.encode()).hexdigest()}"

    def image(self, index: int) -> Any:
        inside, outside = self._parts
        return inside.image(index) if index < len(inside) else outside.image(index - len(inside))
