"""Exact nearest neighbours by Euclidean distance of features as they are (solo-learn's kNN)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import BenchError
from suites.classification import finite_blocks
from suites.neighbours import ROWS, Neighbours, search

if TYPE_CHECKING:
    from bench.featureset import FeatureSet
    from bench.progress import Stage

INSIDE = 0.8
"""Length of the longest row after scaling: with its half square beside it, it still has a length below 1."""


class Raw:
    """A bank of rows as they are, read block by block. Refused when a value is not finite."""

    def __init__(self, data: FeatureSet, name: str) -> None:
        self._data, self._name = data, name
        self.width = data.widths[name]
        # One pass: the middle, and the check.
        total = np.zeros(self.width)
        for _, block in finite_blocks(data, name, ROWS):
            total += block.sum(axis=0, dtype=np.float64)
        self.centre = total / len(data)
        self.reach = max(
            float(np.linalg.norm(block - self.centre, axis=1).max()) for _, block in data.blocks(name, ROWS)
        )
        if not np.isfinite(self.reach):
            raise BenchError("the features are too large for their distances: divide them by a constant")

    def __len__(self) -> int:
        return len(self._data)

    def blocks(self, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        yield from self._data.blocks(self._name, rows)


class Lifted:
    """The rows b as (b, |b|^2 / 2): of these the inner product with (a, -1) falls with the distance from a.

    Centred and scaled, lengths below 1. The half square stands in two columns, its float32 and what that leaves out.
    """

    def __init__(self, bank: Raw) -> None:
        self._bank = bank
        self.width = bank.width + 2
        self._scale = bank.reach / INSIDE or 1.0

    def __len__(self) -> int:
        return len(self._bank)

    def blocks(self, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        for first, block in self._bank.blocks(rows):
            lifted = np.empty((len(block), self.width), dtype=np.float32)
            lifted[:, :-2] = (block - self._bank.centre) / self._scale
            half = np.square(lifted[:, :-2].astype(np.float64)).sum(axis=1) / 2
            lifted[:, -2] = half
            lifted[:, -1] = half - lifted[:, -2]
            yield first, lifted

    def queries(self, x: np.ndarray) -> np.ndarray:
        """float32 [Q, D + 2] of ``x`` [Q, D]: lengths at most 1, by powers of two."""
        there = (x - self._bank.centre) / self._scale
        length = np.exp2(np.ceil(np.log2(np.sqrt(np.square(there).sum(axis=1) + 2))))[:, None]
        return np.concatenate([there / length, -1 / length, -1 / length], axis=1).astype(np.float32)


def nearest(
    bank: Raw,
    queries: np.ndarray,
    k: int,
    *,
    own: np.ndarray | None = None,
    device: str = "cpu",
    stage: Stage | None = None,
) -> Neighbours:
    """The ``k`` rows of ``bank`` nearest to each query, float32 [Q, D]: ``similarity`` is minus the distance.

    Distances are those of the features in float64; equal ones by lowest row. ``own``, ``k`` and ``stage`` as of
    `suites.neighbours.search`, by which they are found (features alike to seven digits may change places).
    """
    lifted = Lifted(bank)
    found = search(lifted, lifted.queries(queries), k, own=own, device=device, stage=stage)
    distance = np.empty(found.index.shape)
    for first, block in bank.blocks(ROWS):
        query, place = np.nonzero((found.index >= first) & (found.index < first + len(block)))
        for start in range(0, len(query), ROWS):
            q, p = query[start : start + ROWS], place[start : start + ROWS]
            apart = queries[q].astype(np.float64) - block[found.index[q, p] - first]
            distance[q, p] = np.sqrt(np.square(apart).sum(axis=1))
    order = np.lexsort((found.index, distance), axis=1)
    return Neighbours(np.take_along_axis(found.index, order, 1), -np.take_along_axis(distance, order, 1))
