"""Which bank rows can be among a query's k nearest: a quick scoring whose error is bounded, so that nothing is missed.

Scores come from products in bfloat16 (where the processor has units for it), in float32, or from faiss. Whatever their
rounding did, a row stays a candidate as long as the bounds allow it a place among the first k; `suites.neighbours`
then ranks the candidates by exact similarities. The bank is read in blocks, never as a whole.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from bench.progress import Stage

Way = Literal["bf16", "fp32", "faiss"]

ROWS = 4096
"""Bank rows of a tile on a CPU: with `QUERIES` of bfloat16 scores, 8 MB that stay in cache from product to test."""
QUERIES = 1024
FAISS_BYTES = 1 << 28
"""Bank rows that a faiss index holds at a time, in bytes."""
MARGIN = 32
"""Neighbours asked of faiss beyond k: a near-tie at rank k is then seen."""


class Bank(Protocol):
    """Rows of length 1 (or 0), read in order and in blocks."""

    width: int

    def __len__(self) -> int: ...
    def blocks(self, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, float32 [<= rows, D])."""


@dataclass
class Candidates:
    """Rows that may be among the k nearest, ascending for each query; every true neighbour is there."""

    rows: np.ndarray
    """int64 [Q, M], the first ``counts`` of each line are used."""
    counts: np.ndarray
    """int64 [Q]."""
    overflow: np.ndarray
    """int64: queries with more near-ties than there was room for; their candidates are not complete."""


def fastest(device: str) -> Way:
    """bfloat16 where the hardware multiplies it natively, else faiss."""
    return "bf16" if torch.device(device).type == "cuda" or _bf16_units() else "faiss"


def candidates(
    bank: Bank,
    queries: np.ndarray,
    k: int,
    *,
    way: Way,
    own: np.ndarray | None = None,
    device: str = "cpu",
    stage: Stage | None = None,
) -> Candidates:
    """Candidates for the ``k`` rows of largest inner product with each of ``queries`` float32 [Q, D], of length 1.

    ``own`` int64 [Q]: a row that is no candidate for its query (-1: none). ``k`` must not exceed N, less one with own.
    """
    if way == "faiss":
        return _by_faiss(bank, queries, k, own, stage)
    with _sums_in_float32():
        return _Reservoir(queries, k, own, half=way == "bf16", device=device).fill(bank, stage)


def room(k: int) -> int:
    """Candidates that a query can have before it counts as overflowing."""
    return 4 * k + 256


class _Reservoir:
    """Per query, the rows seen so far that its k-th best score, less the error bounds, has not ruled out.

    Scores are of centred rows, q . (x - c): the same ranks, and smaller numbers to round. What a bfloat16 product may
    be off by is bounded with the rounding errors that were really made: |q.x - q'.x'| <= |q| |x - x'| + |q - q'| |x'|.
    The threshold is subtracted inside the product, as two more columns, so that its sign is the test and the output's
    rounding cannot change it.
    """

    def __init__(self, queries: np.ndarray, k: int, own: np.ndarray | None, *, half: bool, device: str) -> None:
        self.k = k
        self.device = torch.device(device)
        on_cpu = self.device.type == "cpu"
        self.tile = (QUERIES, ROWS) if on_cpu else (1 << 13, 1 << 15)
        exact = torch.from_numpy(queries).to(self.device)
        self.n, self.width = exact.shape
        self.dtype = torch.bfloat16 if half else torch.float32
        self.centre = exact.mean(dim=0)
        rounded = exact.to(self.dtype)
        self.error = (exact - rounded.float()).norm(dim=1)
        self.queries = torch.cat([rounded, torch.zeros(self.n, 2, dtype=self.dtype, device=self.device)], dim=1)
        self.own = None if own is None else torch.from_numpy(own).to(self.device)
        self.capacity = room(k)
        self.rows = torch.empty(self.n, self.capacity, dtype=torch.int32, device=self.device)
        # Scores less what the output's rounding may have added.
        self.scores = torch.full((self.n, self.capacity), -torch.inf, device=self.device)
        self.counts = torch.zeros(self.n, dtype=torch.int64, device=self.device)
        # A lower bound of every query's true k-th best score; the threshold lies one margin below it.
        self.bound = torch.full((self.n,), -torch.inf, device=self.device)
        self.threshold = self.bound.clone()
        self.lowest = torch.full((self.n,), torch.inf, device=self.device)
        self.overflow = torch.zeros(self.n, dtype=torch.bool, device=self.device)
        # Relative rounding of a stored score, twice over.
        self.ulp = 2.0**-7 if half else 2.0**-22
        self.row_error, self.row_length = 0.0, 0.0

    def fill(self, bank: Bank, stage: Stage | None) -> Candidates:
        step = self.tile[0]
        # A first tile wide enough for k rows and the own one gives every query its first threshold.
        width = max(self.tile[1], -(-(self.k + 1) // 8) * 8)
        tightened = 0
        for first, block in bank.blocks(width):
            tile = self._tile(block)
            # The thresholds are worth their tightening each time that half as many rows again were seen.
            tighten = first >= 1.5 * tightened
            tightened = first if tighten else tightened
            for start in range(0, self.n, step):
                part = slice(start, min(start + step, self.n))
                if first == 0:
                    self._begin(tile, part)
                elif tighten:
                    self._compact(part)
                self._append(tile, first, part)
            if stage is not None:
                stage.advance(len(block))
        for start in range(0, self.n, step):
            self._compact(slice(start, min(start + step, self.n)))
        used = max(int(self.counts.max()), 1)
        return Candidates(
            self.rows[:, :used].cpu().numpy().astype(np.int64),
            self.counts.cpu().numpy(),
            _where(self.overflow).cpu().numpy(),
        )

    def _tile(self, block: np.ndarray) -> Tensor:
        centred = torch.from_numpy(block).to(self.device) - self.centre
        tile = torch.ones(len(block), self.width + 2, dtype=self.dtype, device=self.device)
        tile[:, : self.width] = centred
        rounded = tile[:, : self.width].float()
        worst = float((centred - rounded).norm(dim=1).max()), float(rounded.norm(dim=1).max())
        if worst[0] > self.row_error or worst[1] > self.row_length:
            self.row_error, self.row_length = max(self.row_error, worst[0]), max(self.row_length, worst[1])
            if math.isfinite(float(self.bound[0])):
                # Rows with a wider margin than any before: the thresholds step back by what it grew.
                self._set_threshold(slice(0, self.n))
        return tile

    def _margin(self, part: slice) -> Tensor:
        """What a score may be off by: the rounding of both factors, and float32's in summing D + 2 products."""
        # Lengths were themselves summed in float32.
        length = self.row_length * 1.001
        # Of the products, and of the threshold, which is no larger than they can get.
        summing = (self.width + 8) * 2.0**-24 * 2 * length
        margin: Tensor = self.row_error * 1.001 + self.error[part] * 1.001 * length + summing + 1e-7
        return margin

    def _begin(self, tile: Tensor, part: slice) -> None:
        if len(tile) <= self.k:
            return
        scores = (self.queries[part] @ tile.T).float()
        best = _kth_largest(scores, self.k + (self.own is not None))
        self._raise(part, best - self.ulp * best.abs())

    def _raise(self, part: slice, best: Tensor) -> None:
        """``best``: lower bounds of the k-th largest of the scores, in their own rounding."""
        self.bound[part] = torch.maximum(self.bound[part], best - self._margin(part))
        self._set_threshold(part)

    def _set_threshold(self, part: slice) -> None:
        threshold = self.bound[part] - self._margin(part)
        # Two columns hold it to 2^-18: lowered by more than that, what is subtracted is never above it.
        self.threshold[part] = threshold - 2.0**-16 * threshold.abs().nan_to_num(0, posinf=0)
        self.lowest[part] = torch.minimum(self.lowest[part], self.threshold[part])
        high = self.threshold[part].to(self.dtype)
        low = (self.threshold[part] - high.float()).to(self.dtype)
        self.queries[part, self.width] = -high
        self.queries[part, self.width + 1] = -low

    def _append(self, tile: Tensor, first: int, part: slice) -> None:
        scores = (self.queries[part] @ tile.T).view(-1)
        started = math.isfinite(float(self.bound[part.start]))
        hits = _where(_not_negative(scores)) if started else torch.arange(len(scores), device=self.device)
        query, row = self._divided(hits, len(tile))
        score = scores.index_select(0, hits).float()
        if self.own is not None:
            keep = _where(row + first != self.own[part].index_select(0, query))
            query, row, score = (x.index_select(0, keep) for x in (query, row, score))
        row += first
        if started:
            base = -self.queries[part, self.width :].float().sum(dim=1)
            score = base.index_select(0, query) + score - self.ulp / 2 * score
        new = torch.bincount(query, minlength=part.stop - part.start)
        if bool((self.counts[part] + new > self.capacity).any()):
            self._compact(part)
            query, row, score, new = self._still_possible(part, query, row, score)
            if bool((self.counts[part] + new > self.capacity).any()):
                # Even after tightening: a tile of better and better rows, or more near-ties than there is room for.
                query, row, score, new = self._squeeze(part, query, row, score, new)
        starts = self.counts[part] - (new.cumsum(0) - new)
        place = torch.arange(len(query), device=self.device) + starts.index_select(0, query)
        place += (query + part.start) * self.capacity
        self.rows.view(-1).scatter_(0, place, row.to(torch.int32))
        self.scores.view(-1).scatter_(0, place, score)
        self.counts[part] += new

    def _divided(self, hits: Tensor, width: int) -> tuple[Tensor, Tensor]:
        if width & (width - 1) == 0:
            return hits >> (width.bit_length() - 1), hits & (width - 1)
        query = torch.div(hits, width, rounding_mode="floor")
        return query, hits - query * width

    def _squeeze(
        self, part: slice, query: Tensor, row: Tensor, score: Tensor, new: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Raise the thresholds of overfull queries with the new scores themselves; give up on those still overfull."""
        for number in _where(self.counts[part] + new > self.capacity).tolist():
            at = part.start + number
            held = self.scores[at, : int(self.counts[at])]
            best = torch.cat([held, score[query == number]]).topk(self.k).values[-1]
            self._raise(slice(at, at + 1), best[None])
        self._drop(part)
        query, row, score, new = self._still_possible(part, query, row, score)
        lost = self.counts[part] + new > self.capacity
        self.overflow[part] |= lost
        # No score reaches 4: nothing more is kept for them.
        self.bound[part] = torch.where(lost, 4.0, self.bound[part])
        self._set_threshold(part)
        return self._still_possible(part, query, row, score)

    def _still_possible(
        self, part: slice, query: Tensor, row: Tensor, score: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        keep = _where(score >= self._limit(part).index_select(0, query))
        query, row, score = (x.index_select(0, keep) for x in (query, row, score))
        return query, row, score, torch.bincount(query, minlength=part.stop - part.start)

    def _limit(self, part: slice) -> Tensor:
        """The threshold, less what a score stored at the lowest one may have been lowered by."""
        threshold = self.threshold[part]
        return threshold - self.ulp * (threshold - self.lowest[part]).nan_to_num(0)

    def _compact(self, part: slice) -> None:
        used = int(self.counts[part].max())
        if used >= self.k:
            # A query with fewer than k so far has -inf at rank k, and keeps all.
            self._raise(part, _kth_largest(self.scores[part, :used], self.k))
        self._drop(part)

    def _drop(self, part: slice) -> None:
        """Take out the rows that the thresholds now rule out; the others keep their order."""
        used = int(self.counts[part].max())
        if not used:
            return
        scores, rows = self.scores[part, :used].reshape(-1), self.rows[part, :used].reshape(-1)
        keep = (scores.view(-1, used) >= self._limit(part)[:, None].clamp_min(-8)).view(-1)
        kept = _where(keep)
        counts = keep.view(-1, used).sum(dim=1)
        query = torch.repeat_interleave(torch.arange(len(counts), device=self.device), counts)
        place = torch.arange(len(kept), device=self.device) - (counts.cumsum(0) - counts).index_select(0, query)
        place += (query + part.start) * self.capacity
        # Copies, before what they are taken from (which may be the same memory) is cleared.
        scores, rows = scores.index_select(0, kept), rows.index_select(0, kept)
        self.scores[part, :used] = -torch.inf
        self.scores.view(-1).scatter_(0, place, scores)
        self.rows.view(-1).scatter_(0, place, rows)
        self.counts[part] = counts


def _not_negative(scores: Tensor) -> Tensor:
    """bool, where the entries of a flat tensor are not below zero."""
    if scores.device.type != "cpu":
        return scores >= 0
    # The sign bit as an integer's: numpy compares those ten times as fast.
    whole = scores.view(torch.int16 if scores.dtype == torch.bfloat16 else torch.int32)
    return torch.from_numpy(whole.numpy() >= 0)


def _where(mask: Tensor) -> Tensor:
    """Positions at which a flat mask holds, ascending."""
    if mask.device.type != "cpu":
        return mask.nonzero()[:, 0]
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def _kth_largest(scores: Tensor, k: int) -> Tensor:
    if scores.device.type != "cpu":
        return scores.topk(k, dim=1).values[:, -1]
    place = scores.shape[1] - k
    return torch.from_numpy(np.partition(scores.numpy(), place, axis=1)[:, place].copy())


def _by_faiss(bank: Bank, queries: np.ndarray, k: int, own: np.ndarray | None, stage: Stage | None) -> Candidates:
    import faiss

    extra = 0 if own is None else 1
    # Twice what float32 may be off by in summing D products of rows of length 1.
    tie = (bank.width + 8) * 2.0**-23
    n = len(queries)
    faiss.omp_set_num_threads(torch.get_num_threads())
    scores, rows = np.empty((n, 0), dtype=np.float32), np.empty((n, 0), dtype=np.int64)
    full = np.zeros(n, dtype=bool)
    for first, block in bank.blocks(max(FAISS_BYTES // (4 * bank.width), 1)):
        index = faiss.IndexFlatIP(bank.width)
        index.add(block)
        wanted = min(len(block), k + MARGIN + extra)
        found, at = index.search(queries, wanted)
        if wanted < len(block):
            # Rows that were not fetched may tie with the k-th.
            full |= found[:, k - 1 + extra] - found[:, -1] <= tie
        if own is not None:
            found[at + first == own[:, None]] = -np.inf
        scores, rows = np.concatenate([scores, found], axis=1), np.concatenate([rows, at + first], axis=1)
        if scores.shape[1] > k:
            best = np.partition(scores, scores.shape[1] - k, axis=1)[:, -k]
            keep = scores >= (best - tie)[:, None]
            keep &= np.isfinite(scores)
            scores, rows = _packed(scores, keep, -np.inf), _packed(rows, keep, -1)
        if stage is not None:
            stage.advance(len(block))
    keep = np.isfinite(scores)
    counts = keep.sum(axis=1)
    rows = np.sort(np.where(keep, rows, np.iinfo(np.int64).max), axis=1)[:, : max(int(counts.max()), 1)]
    return Candidates(rows, counts, np.flatnonzero(full))


def _packed(values: np.ndarray, keep: np.ndarray, filler: float) -> np.ndarray:
    """The kept entries of every line, moved to its left."""
    counts = keep.sum(axis=1)
    packed = np.full((len(values), int(counts.max())), filler, dtype=values.dtype)
    line = np.nonzero(keep)[0]
    packed[line, np.arange(len(line)) - (np.cumsum(counts) - counts)[line]] = values[keep]
    return packed


@contextlib.contextmanager
def _sums_in_float32() -> Iterator[None]:
    """No shortcuts, whatever the surrounding process allows itself: the error bounds are those of float32 sums."""
    from bench.device import float32_products

    matmul = torch.backends.cuda.matmul
    reduced = matmul.allow_bf16_reduced_precision_reduction
    matmul.allow_bf16_reduced_precision_reduction = False
    try:
        with float32_products():
            yield
    finally:
        matmul.allow_bf16_reduced_precision_reduction = reduced


@functools.cache
def _bf16_units() -> bool:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return bool({"avx512_bf16", "amx_bf16"} & set(flags.split()))
