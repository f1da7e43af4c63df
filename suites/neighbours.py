"""Exact nearest neighbours by inner product, with ties decided the same way everywhere."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.record import Engine
from suites.classification import finite_blocks

if TYPE_CHECKING:
    import torch

    from bench.featureset import FeatureSet
    from bench.progress import Stage
    from suites.candidates import Bank, Candidates, Way

ENGINE = Engine(name="exact-search", version="1")
"""One engine, however the candidates were found: the neighbours are those of float64."""
ROWS = 4096
"""Bank rows at a time while candidates are ranked."""
AT_ONCE = 1024
"""Queries that are compared with every row at a time."""
ROOM = 2 << 30
"""Bytes of a bank up to which it is kept in memory."""


@dataclass
class Neighbours:
    """The k nearest bank rows of every query, nearest first; equal similarities by lowest bank row."""

    index: np.ndarray
    """int64 [Q, k]."""
    similarity: np.ndarray
    """float64 [Q, k]: inner products of float32 rows of length 1, summed in float64; equal rows have equal ones."""


class Rows:
    """A bank in memory: float32 [N, D] of rows that have length 1 already."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.width = array.shape[1]

    def __len__(self) -> int:
        return len(self.array)

    def blocks(self, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, len(self.array), rows):
            yield start, self.array[start : start + rows]


class StoredRows:
    """A bank that is read from a feature set, and normalised, block by block each time: it need not fit into memory."""

    def __init__(self, data: FeatureSet, name: str) -> None:
        self._data, self._name = data, name
        self.width = data.widths[name]

    def __len__(self) -> int:
        return len(self._data)

    def blocks(self, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        for start, block in self._data.blocks(self._name, rows):
            yield start, normalised(block)


def bank_of(data: FeatureSet, name: str) -> tuple[Bank, int]:
    """The normalised rows of ``data`` and how many of them are zero: in memory up to `ROOM` bytes, else block by block.

    Refused when a value is not finite.
    """
    n, width = len(data), data.widths[name]
    held = np.empty((n, width), dtype=np.float32) if 4 * n * width <= ROOM else None
    zero = 0
    for start, block in finite_blocks(data, name, ROWS):
        zero += int((~block.any(axis=1)).sum())
        if held is not None:
            held[start : start + len(block)] = normalised(block)
    return (StoredRows(data, name) if held is None else Rows(held)), zero


def normalised(x: np.ndarray) -> np.ndarray:
    """float32 rows of length 1; a zero row stays zero (similarity 0 to everything)."""
    x = np.asarray(x, dtype=np.float32)
    unit = np.empty_like(x)
    for start in range(0, len(x), ROWS):
        # In float64: float32 squares overflow from 1.8e19 and vanish below 1e-23.
        rows = x[start : start + ROWS].astype(np.float64)
        length = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        length[length == 0] = 1
        unit[start : start + ROWS] = rows / length[:, None]
    return unit


def search(
    bank: Bank,
    queries: np.ndarray,
    k: int,
    *,
    own: np.ndarray | None = None,
    way: Way | None = None,
    device: str = "cpu",
    stage: Stage | None = None,
) -> Neighbours:
    """The ``k`` rows of ``bank`` of largest inner product with each query, float32 [Q, D]; all rows of length 1.

    Exact however the candidates are found (``way``; None: the fastest here): they are ranked by similarities in
    float64, ties by lowest row. ``own`` int64 [Q]: the bank row that is the query's own sample (-1: none), left out by
    row, wherever it ranks. ``k`` must not exceed N (less one with ``own``). ``stage`` counts bank rows, `passes` times.
    """
    from suites.candidates import fastest

    index = np.empty((len(queries), k), dtype=np.int64)
    similarity = np.empty((len(queries), k))
    chosen, step = way or fastest(device), _at_once(k)
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        mine = None if own is None else own[part]
        found = _found(bank, queries[part], k, mine, chosen, device, stage)
        index[part], similarity[part] = found.index, found.similarity
    return Neighbours(index, similarity)


def passes(queries: int, k: int) -> int:
    """How often `search` reads the bank for so many queries."""
    return -(-queries // _at_once(k))


def _at_once(k: int) -> int:
    """Queries whose candidates are held together, 256 MB of them."""
    from suites.candidates import room

    return max((1 << 28) // (8 * room(k)), AT_ONCE)


def _found(
    bank: Bank, queries: np.ndarray, k: int, own: np.ndarray | None, way: Way, device: str, stage: Stage | None
) -> Neighbours:
    from suites.candidates import candidates

    found = candidates(bank, queries, k, way=way, own=own, device=device, stage=stage)
    if found.rows.shape[1] < k:
        # Only where all queries overflowed are there fewer; the lines below are then all replaced.
        found.rows = np.pad(found.rows, ((0, 0), (0, k - found.rows.shape[1])))
    neighbours = _ranked(bank, queries, k, found)
    again = np.union1d(found.overflow, np.flatnonzero(found.counts < k))
    # More near-ties than the candidates' room: features (nearly) alike for many samples.
    for start in range(0, len(again), AT_ONCE):
        at = again[start : start + AT_ONCE]
        mine = None if own is None else own[at]
        if way == "faiss":
            # Centred products have room for more near-ties than a list of fixed length.
            rest = _found(bank, queries[at], k, mine, "fp32", device, None)
        else:
            rest = _all_rows(bank, queries[at], k, mine)
        neighbours.index[at], neighbours.similarity[at] = rest.index, rest.similarity
    return neighbours


def _ranked(bank: Bank, queries: np.ndarray, k: int, found: Candidates) -> Neighbours:
    """The best k of the candidates by their similarities in float64."""
    import torch

    n, most = found.rows.shape
    used = np.arange(most) < found.counts[:, None]
    rows = found.rows[used]
    query = np.repeat(np.arange(n), found.counts)
    # Small integers are sorted by radix: the pairs of each block of the bank, in one go.
    block_of = (rows // ROWS).astype(np.uint16 if len(bank) < ROWS << 16 else np.int64)
    order = np.argsort(block_of, kind="stable")
    ends = np.searchsorted(block_of[order], np.arange(-(-len(bank) // ROWS)), side="right")
    similarity = np.empty(len(rows))
    doubled = torch.from_numpy(queries).double()
    begin = 0
    for number, (first, block) in enumerate(bank.blocks(ROWS)):
        pairs = order[begin : ends[number]]
        begin = int(ends[number])
        similarity[pairs] = exact(doubled, torch.from_numpy(block).double(), query[pairs], rows[pairs] - first)
    table = np.full((n, most), -np.inf)
    table[used] = similarity
    # Candidates stand by ascending row, and the sort is stable: ties go to the lowest row.
    best = np.argsort(-table, axis=1, kind="stable")[:, :k]
    return Neighbours(np.take_along_axis(found.rows, best, 1), np.take_along_axis(table, best, 1))


def exact(queries: torch.Tensor, rows: torch.Tensor, query: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Inner products float64 [P] of the named pairs of float64 rows; ``query`` int64 [P] ascending.

    One sum for each pair, never a tile of a matrix product: equal rows give equal bits wherever they stand.
    """
    import torch

    starts = np.zeros(len(queries) + 1, dtype=np.int64)
    np.cumsum(np.bincount(query, minlength=len(queries)), out=starts[1:])
    zeros = torch.zeros(len(row), dtype=torch.float64)
    with warnings.catch_warnings():
        # torch calls its compressed rows a beta.
        warnings.simplefilter("ignore")
        pattern = torch.sparse_csr_tensor(
            torch.from_numpy(starts), torch.from_numpy(row), zeros, (len(queries), len(rows)), check_invariants=False
        )
        products = torch.sparse.sampled_addmm(pattern, queries, rows.T, beta=0.0)
    values: np.ndarray = products.values().numpy()
    return values


def _all_rows(bank: Bank, queries: np.ndarray, k: int, own: np.ndarray | None) -> Neighbours:
    """The best k kept from block to block, by similarities in float64 of every row that may be one of them."""
    import torch

    n = len(queries)
    index, similarity = np.empty((n, 0), dtype=np.int64), np.empty((n, 0))
    doubled = torch.from_numpy(queries).double()
    for first, block in bank.blocks(ROWS):
        rows = torch.from_numpy(block).double()
        # A matrix product may differ from the exact sums in its last bits: it only says which of those are needed.
        keep = np.ones((n, len(block)), dtype=bool)
        if similarity.shape[1] == k:
            floor = similarity[:, -1:] - (bank.width + 8) * 2.0**-51
            keep = (doubled @ rows.T).numpy() >= floor
        if own is not None:
            inside = np.flatnonzero((own >= first) & (own < first + len(block)))
            keep[inside, own[inside] - first] = False
        query, row = np.nonzero(keep)
        new = np.full(keep.shape, -np.inf)
        new[query, row] = exact(doubled, rows, query, row)
        similarity = np.concatenate([similarity, new], axis=1)
        index = np.concatenate([index, np.broadcast_to(np.arange(first, first + len(block)), new.shape)], axis=1)
        # Held rows are lower than new ones: a stable sort leaves ties to the lowest row.
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        similarity, index = np.take_along_axis(similarity, order, 1), np.take_along_axis(index, order, 1)
    return Neighbours(index, similarity)
