"""Exact nearest neighbours by inner product, with ties decided the same way everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bench.progress import Stage

MARGIN = 8
"""Neighbours asked for beyond k: a tie at rank k is then decided without another search."""
TIE = 1e-6
"""Similarities closer than this may have changed places by float32 rounding: they are computed again in float64."""
QUERIES = 1024
"""Queries searched at once: bounds the memory that the engine takes beside the bank."""


@dataclass
class Neighbours:
    """The k nearest bank rows of every query, nearest first; equal similarities by lowest bank row."""

    index: np.ndarray
    """int64 [Q, k]."""
    similarity: np.ndarray
    """float64 [Q, k]: inner products of normalised rows."""
    _bank: np.ndarray
    _queries: np.ndarray
    _exact: np.ndarray

    def refine(self, rows: np.ndarray) -> None:
        """Compute the similarities of these queries again in float64, row by row alike: equal rows tie exactly."""
        for row in rows[~self._exact[rows]]:
            similarity = _exact_similarity(self._bank[self.index[row]], self._queries[row])
            order = np.lexsort((self.index[row], -similarity))
            self.index[row] = self.index[row][order]
            self.similarity[row] = similarity[order]
            self._exact[row] = True


def normalised(x: np.ndarray) -> np.ndarray:
    """float32 rows of length 1; a zero row stays zero (similarity 0 to everything)."""
    x = np.asarray(x, dtype=np.float32)
    # In float64: float32 squares overflow from 1.8e19 and vanish below 1e-23.
    length = np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64))
    length[length == 0] = 1
    unit: np.ndarray = (x / length[:, None]).astype(np.float32)
    return unit


def search(
    bank: np.ndarray,
    queries: np.ndarray,
    k: int,
    *,
    boundaries: Iterable[int],
    own: np.ndarray | None = None,
    stage: Stage | None = None,
) -> Neighbours:
    """The ``k`` rows of ``bank`` (float32 [N, D], normalised) of largest inner product with each query [Q, D].

    Exact: faiss' flat index, one search. Where rounding could decide who is among the first ``boundaries`` (and k)
    neighbours, similarities are computed again in float64 and ties go to the lowest row. ``own`` int64 [Q]: the bank
    row that is the query's own sample (-1: none), left out by row, wherever it ranks. ``k`` must not exceed N (less one
    with ``own``).
    """
    import faiss

    n = len(bank)
    extra = 0 if own is None else 1
    wanted = min(n, k + MARGIN + extra)
    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(bank)
    ids = np.empty((len(queries), k), dtype=np.int64)
    similarities = np.empty((len(queries), k), dtype=np.float64)
    exact = np.zeros(len(queries), dtype=bool)
    cuts = sorted({b for b in boundaries if b <= k} | {k})
    for start in range(0, len(queries), QUERIES):
        block = queries[start : start + QUERIES]
        found_s, found_i = index.search(block, wanted)
        found_s = found_s.astype(np.float64)
        if own is not None:
            found_s, found_i = _without(found_s, found_i, own[start : start + QUERIES])
        doubtful = np.zeros(len(block), dtype=bool)
        for cut in cuts:
            if cut < found_s.shape[1]:
                doubtful |= found_s[:, cut - 1] - found_s[:, cut] < TIE
        for row in np.flatnonzero(doubtful):
            candidates = found_i[row]
            if wanted < n and found_s[row, k - 1] - found_s[row, -1] < TIE:
                # More rows tie at rank k than were fetched: look at the whole bank.
                candidates = np.arange(n)
                if own is not None:
                    candidates = candidates[candidates != own[start + row]]
            similarity = _exact_similarity(bank[candidates], block[row])
            order = np.lexsort((candidates, -similarity))[: found_s.shape[1]]
            found_i[row], found_s[row] = candidates[order], similarity[order]
        ids[start : start + len(block)] = found_i[:, :k]
        similarities[start : start + len(block)] = found_s[:, :k]
        exact[start : start + len(block)] = doubtful
        if stage is not None:
            stage.advance(len(block))
    return Neighbours(ids, similarities, bank, queries, exact)


def _exact_similarity(rows: np.ndarray, query: np.ndarray) -> np.ndarray:
    # Products and a sum along each row, never a matrix product: equal rows must give equal bits wherever they stand.
    products: np.ndarray = (rows.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
    return products


def _without(similarity: np.ndarray, index: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop each query's own row; where it is not among the found, the last one goes instead."""
    keep = index != own[:, None]
    keep[keep.all(axis=1), -1] = False
    shape = (len(index), index.shape[1] - 1)
    return similarity[keep].reshape(shape), index[keep].reshape(shape)
