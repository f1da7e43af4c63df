"""Agreement of neighbourhoods: mutual kNN and CKNNA (Huh et al. 2024, "The Platonic Representation Hypothesis").

Rows are L2-normalised; neighbours are by dot product, the sample itself left out.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from bench.errors import BenchError
from suites.similarity_measures.matrices import checked, unit_rows
from suites.similarity_measures.measure import Invariance, Measure, Value

ANGLES: frozenset[Invariance] = frozenset({"permutation", "rotation", "scale"})
BLOCK = 64_000_000
"""Similarities held at a time (256 MB as float32)."""
TILE = 4096
"""Rows and columns of a tile where all similarities are more than that."""


class Neighbours(NamedTuple):
    """The k nearest of every sample."""

    ids: np.ndarray
    """int64 [N, k], ascending within a row."""
    similarity: np.ndarray
    """float64 [N, k], cosine."""


def nearest(x: np.ndarray, k: int) -> Neighbours:
    """Exact search. Where similarities tie at rank k (duplicates), the lowest row index is taken.

    Float32 similarities that are too near at rank k to be told apart are computed again in float64; there, what differs
    by rounding alone (1e-12) counts as tied.
    """
    n = len(x)
    if not 1 <= k <= n - 1:
        raise BenchError(f"each of {n} samples has {n - 1} neighbours: {k} cannot be compared")
    rows = unit_rows(x)
    if n * n <= BLOCK or k >= min(TILE, n - 1):
        return Neighbours(*_against_all(x, rows, np.arange(n), k))
    best = _Best(n, k + 1)
    for first in range(0, n, TILE):
        for second in range(first, n, TILE):
            # A tile serves its rows and, the matrix being symmetric, its columns: half of the products suffice.
            tile = rows[first : first + TILE] @ rows[second : second + TILE].T
            if first == second:
                np.fill_diagonal(tile, -np.inf)
            else:
                best.take(tile.T, second, first)
            best.take(tile, first, second)
    index, similarity = _ascending(best.index[:, :k], best.similarity[:, :k])
    # A row whose next neighbour is as near as its k-th: all of its similarities say which of them come first.
    near = np.flatnonzero(best.similarity[:, k - 1] - best.similarity[:, k] <= _slack(rows))
    index[near], similarity[near] = _against_all(x, rows, near, k)
    return Neighbours(index, similarity)


def _against_all(x: np.ndarray, rows: np.ndarray, which: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(ids, similarities) of the k nearest of the rows ``which`` [M], in blocks of rows against all."""
    import torch

    n, slack = len(rows), _slack(rows)
    index, similarity = np.empty((len(which), k), dtype=np.int64), np.empty((len(which), k))
    step = max(1, min(n, BLOCK // n))
    for start in range(0, len(which), step):
        own = which[start : start + step]
        block = rows[own] @ rows.T
        block[np.arange(len(own)), own] = -np.inf
        values, found = (t.numpy() for t in torch.topk(torch.from_numpy(block), min(k + 1, n - 1), dim=1))
        if k < n - 1:
            for row in np.flatnonzero(values[:, k - 1] - values[:, k] <= slack):
                found[row, :k] = _settle(x, int(own[row]), block[row], float(values[row, k - 1]), k, slack)
        chosen = found[:, :k]
        part = slice(start, start + len(own))
        index[part], similarity[part] = _ascending(chosen, np.take_along_axis(block, chosen, axis=1))
    return index, similarity


def _ascending(index: np.ndarray, similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(index, axis=1)
    return np.take_along_axis(index, order, axis=1), np.take_along_axis(similarity, order, axis=1).astype(np.float64)


def _slack(rows: np.ndarray) -> float:
    """Below what difference two similarities are not told apart."""
    return 1e-12 if rows.dtype == np.float64 else 4e-6


class _Best:
    """The ``most`` largest similarities of every row so far, largest first."""

    def __init__(self, n: int, most: int) -> None:
        self.similarity = np.full((n, most), -np.inf)
        self.index = np.zeros((n, most), dtype=np.int64)

    def take(self, tile: np.ndarray, row: int, column: int) -> None:
        """``tile`` [R, C]: similarities of the rows from ``row`` to those from ``column``."""
        import torch

        part = slice(row, row + len(tile))
        held, most = self.similarity[part], self.similarity.shape[1]
        # Compared as it lies in memory, whichever way round that is.
        upright = bool(tile.flags.c_contiguous)
        plain = tile if upright else tile.T
        least = held[:, -1].astype(plain.dtype)
        hits = plain > (least[:, None] if upright else least)
        if np.count_nonzero(hits) > most * len(tile):
            # As at first, when everything is better than nothing.
            kept = torch.topk(torch.from_numpy(tile), min(most, tile.shape[1]), dim=1)
            new, where = kept.values.numpy(), kept.indices.numpy()
        else:
            flat = np.flatnonzero(hits)
            query, other = np.divmod(flat, plain.shape[1])
            values = plain.ravel()[flat]
            if not upright:
                order = np.argsort(other, kind="stable")
                query, other, values = other[order], query[order], values[order]
            counts = np.bincount(query, minlength=len(tile))
            new = np.full((len(tile), int(counts.max())), -np.inf)
            where = np.zeros(new.shape, dtype=np.int64)
            place = np.arange(len(query)) - (np.cumsum(counts) - counts)[query]
            new[query, place], where[query, place] = values, other
        similarity = np.concatenate([held, new], axis=1)
        index = np.concatenate([self.index[part], where + column], axis=1)
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :most]
        self.similarity[part] = np.take_along_axis(similarity, order, axis=1)
        self.index[part] = np.take_along_axis(index, order, axis=1)


def _settle(x: np.ndarray, row: int, similarities: np.ndarray, edge: float, k: int, slack: float) -> np.ndarray:
    """The k nearest of ``row`` where several candidates stand at rank k."""
    sure = np.flatnonzero(similarities > edge + slack)
    near = np.flatnonzero(np.abs(similarities - edge) <= slack)
    exact = unit_rows(x[near].astype(np.float64)) @ unit_rows(x[row : row + 1].astype(np.float64))[0]
    order = np.lexsort((near, -np.round(exact, 12)))
    return np.concatenate([sure, near[order]])[:k]


def mutual_knn(x: np.ndarray, y: np.ndarray, *, k: int = 10) -> Value:
    """Mean share of the k nearest neighbours that both networks agree on; k / (N - 1) by chance."""
    x, y = checked(x, y, 2)
    a, b = nearest(x, k).ids, nearest(y, k).ids
    return _overlap(a, b, k)


def _overlap(a: np.ndarray, b: np.ndarray, k: int) -> Value:
    both = np.sort(np.concatenate([a, b], axis=1), axis=1)
    shared = (both[:, 1:] == both[:, :-1]).sum(axis=1)
    return Value(int(shared.sum()) / (len(shared) * k), per_sample=shared / k)


def cknna(x: np.ndarray, y: np.ndarray, *, k: int = 10) -> Value:
    """Debiased CKA of linear kernels in which only the neighbours that both networks share count (paper's code).

    Refused when a network's own term is not positive: too few mutual neighbours.
    """
    from scipy.sparse import csr_array

    x, y = checked(x, y, 4)
    n = len(x)
    masked = []
    for found in (nearest(x, k), nearest(y, k)):
        pointers = np.arange(0, n * k + 1, k)
        kernel = csr_array((found.similarity.ravel(), found.ids.ravel(), pointers), shape=(n, n))
        mask = csr_array((np.ones(n * k), found.ids.ravel(), pointers), shape=(n, n))
        masked.append((kernel, mask))
    (kx, mx), (ky, my) = masked
    both = mx.multiply(my)
    xy = _hsic(kx.multiply(both), ky.multiply(both), n)
    xx, yy = _hsic(kx, kx, n), _hsic(ky, ky, n)
    if xx <= 0 or yy <= 0:
        raise BenchError(
            f"CKNNA is undefined here: with {n} samples and k={k} a network's own neighbourhoods carry no dependence; "
            f"take more samples or another k"
        )
    return Value(min(1.0, xy / math.sqrt(xx * yy)))


def _hsic(k: Any, m: Any, n: int) -> float:
    # The masks are not symmetric: rows and columns of the kernels are told apart as the paper's code does.
    product = float(k.multiply(m.T).sum())
    rows = float(k.sum(axis=0) @ m.sum(axis=1))
    total = product + float(k.sum()) * float(m.sum()) / ((n - 1) * (n - 2)) - 2 * rows / (n - 2)
    return total / (n * (n - 3))


MEASURES = (
    Measure(
        "mutual_knn", "mutual kNN", mutual_knn, "Huh et al. 2024", (0.0, 1.0), 1.0, ANGLES, ANGLES,
        options={"k": 10},
    ),
    Measure(
        "cknna", "CKNNA", cknna, "Huh et al. 2024", (-1.0, 1.0), 1.0, ANGLES, ANGLES, symmetric=False,
        options={"k": 10},
    ),
)  # fmt: skip
