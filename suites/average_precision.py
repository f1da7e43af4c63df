"""Average precision of scores: VOC's 11-point form, the area under the monotone curve, and their intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from suites import jackknife

CHUNK = 2_000_000
"""Weights held at a time."""


class Ranking:
    """Samples in order of score, best first; equal scores are one threshold, so their order means nothing.

    ``scores`` float [N], ``positive`` bool [N].
    """

    def __init__(self, scores: np.ndarray, positive: np.ndarray) -> None:
        self.order = np.argsort(-scores, kind="stable")
        ranked = scores[self.order]
        self.positive = positive[self.order]
        self.last = np.append(ranked[1:] != ranked[:-1], True) if len(ranked) else np.zeros(0, dtype=bool)

    def average_precision(self, weights: np.ndarray, points: int = 0) -> np.ndarray:
        """float64 [R]: of every row of sample counts ``weights`` [R, N]; NaN where a row has no positive.

        With ``points`` (11: VOC 2007) the mean over recalls 0 .. 1 of the highest precision at that recall or beyond,
        else the area under the curve made monotone (VOC since 2010, VISSL).
        """
        if not len(self.order):
            return np.full(len(weights), np.nan)
        w = weights[:, self.order].astype(np.float64)
        hits = np.cumsum(w * self.positive, axis=1)
        seen = np.cumsum(w, axis=1)
        total = hits[:, -1:]
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.where(seen > 0, hits / seen, 0.0)[:, self.last]
        # The highest precision at this threshold or a lower one.
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        found = hits[:, self.last]
        if points:
            # Recalls as counts: t P may not be missed by a rounding.
            wanted = np.linspace(0, 1, points)[None, :] * total - 1e-9
            first = np.stack([np.searchsorted(row, at) for row, at in zip(found, wanted, strict=True)])
            reached = np.take_along_axis(envelope, first.clip(max=found.shape[1] - 1), axis=1)
            value = np.where(first < found.shape[1], reached, 0.0).mean(axis=1)
        else:
            gained = np.diff(found, axis=1, prepend=0.0)
            with np.errstate(divide="ignore", invalid="ignore"):
                value = (gained * envelope).sum(axis=1) / total[:, 0]
        return np.where(total[:, 0] > 0, value, np.nan)


def average_precision(scores: np.ndarray, positive: np.ndarray, points: int = 0) -> float:
    """One class' average precision in [0, 1]; NaN without a positive. See `Ranking.average_precision`."""
    return float(Ranking(scores, positive).average_precision(np.ones((1, len(scores))), points)[0])


def mean_average_precision(
    scores: np.ndarray, targets: np.ndarray, points: int = 0, *, around: bool = True, seed: int = 0
) -> tuple[float, list[float | None], tuple[float, float] | None]:
    """(mean over classes, each class', 95 % interval), in [0, 1], of ``scores`` [N, C] and ``targets`` [N, C].

    Targets are 1 (present), -1 (absent) and 0 (difficult: not counted for that class). Classes without a positive have
    no average precision and are left out. The interval (`suites.jackknife`) leaves the same samples out of every class;
    None where there are fewer than two samples, or where it is not asked for.
    """
    counted = [np.flatnonzero(targets[:, c] != 0) for c in range(targets.shape[1])]
    rankings = [Ranking(scores[rows, c], targets[rows, c] == 1) for c, rows in enumerate(counted)]
    each = [
        float(r.average_precision(np.ones((1, len(rows))), points)[0])
        for r, rows in zip(rankings, counted, strict=True)
    ]
    known = [value for value in each if np.isfinite(value)]
    value = float(np.mean(known)) if known else float("nan")
    interval = None
    if around and known and len(scores) > 1:
        groups = jackknife.groups_of(len(scores), seed)
        count = int(groups.max()) + 1
        step = max(1, CHUNK // len(scores))
        without = np.concatenate(
            [
                _means(rankings, counted, (groups != np.arange(at, min(at + step, count))[:, None]), points)
                for at in range(0, count, step)
            ]
        )
        # Without the only positives there is no value at all: such a group says nothing.
        without = np.where(np.isfinite(without), without, value)
        error = jackknife.standard_error(value, without, groups)
        interval = jackknife.interval(value, error, count, int((targets == 1).any(axis=1).sum()))
    return value, [v if np.isfinite(v) else None for v in each], interval


def _means(rankings: Sequence[Ranking], counted: Sequence[np.ndarray], weights: np.ndarray, points: int) -> np.ndarray:
    """float64 [R]: the mean over classes for every row of sample counts ``weights`` [R, N]; NaN without any."""
    total, known = np.zeros(len(weights)), np.zeros(len(weights))
    for ranking, rows in zip(rankings, counted, strict=True):
        value = ranking.average_precision(weights[:, rows], points)
        there = np.isfinite(value)
        total += np.where(there, value, 0.0)
        known += there
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known > 0, total / np.maximum(known, 1), np.nan))


def along_ranks(relevant: np.ndarray, total: Sequence[int] | np.ndarray) -> np.ndarray:
    """float64 [Q]: mean precision at the ranks of the relevant ones (retrieval's AP, not interpolated).

    ``relevant`` bool [Q, K] in order of rank, ``total`` [Q]: how many relevant ones there are; those beyond rank K
    count as never found.
    """
    hits = np.cumsum(relevant, axis=1)
    precision = hits / np.arange(1, relevant.shape[1] + 1)
    wanted = np.asarray(total, dtype=np.float64)
    return np.asarray((precision * relevant).sum(axis=1) / np.maximum(wanted, 1))
