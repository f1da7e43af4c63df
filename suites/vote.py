"""The weighted vote of nearest neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.errors import BenchError
from bench.options import spell

if TYPE_CHECKING:
    from suites.classification import Labels
    from suites.neighbours import Neighbours

QUERIES = 1024
"""Queries that vote at a time."""

TIE = 1e-5
"""Relative difference below which float32 may have put two classes in the wrong order."""
FAINT = 1e-30
"""A score below which float32 does not tell two classes apart: at low temperatures most votes are."""


class Votes(NamedTuple):
    """What the neighbours say of each query."""

    top: np.ndarray
    """int64 [Q, m]: the m classes of highest score, best first."""
    share: np.ndarray
    """float64 [Q]: the share of all votes that the class asked about got."""
    confidence: np.ndarray
    """float64 [Q]: the share that the best class got."""


def vote(
    similarity: np.ndarray, labels: np.ndarray, log_weights: np.ndarray, classes: int, m: int, asked: np.ndarray
) -> Votes:
    """Add up exp(``log_weights``) [Q, k] by class ``labels`` int [Q, k] in 0..classes-1; ``similarity`` breaks ties.

    ``asked`` int [Q]: the class of each query whose share is wanted; one that is not below ``classes`` has none.

    Order of classes: higher score, then higher single best similarity, then lowest class. Classes that no neighbour
    votes for come last, in the order in which PyTorch's sort leaves equal scores, as in DINO's own function.
    """
    import torch

    q = len(labels)
    flat = (np.arange(q)[:, None] * classes + labels).ravel()
    # Relative to the heaviest vote: the same order, and no overflow at any temperature.
    weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    score = np.bincount(flat, weights=weights.ravel(), minlength=q * classes).reshape(q, classes)
    single = score.astype(np.float32)
    order = torch.from_numpy(single).sort(dim=1, descending=True).indices.numpy()
    top = order[:, : m + 1].copy()
    values = np.take_along_axis(score, top, axis=1)
    # Scores that float32 cannot tell apart, or that ended in the wrong order for it: rank those rows in full.
    unsure = ((values[:, :-1] - values[:, 1:] <= TIE * values[:, :-1]) & (values[:, :-1] > 0)).any(axis=1)
    voted = np.zeros((q, classes), dtype=bool)
    voted.ravel()[flat] = True
    unsure |= (voted & (single < FAINT)).any(axis=1)
    rows = np.flatnonzero(unsure)
    if len(rows):
        top[rows] = _ranked(similarity[rows], labels[rows], log_weights[rows], order[rows])[:, : m + 1]
    known = asked < classes
    got = np.where(known, score[np.arange(q), np.where(known, asked, 0)], 0.0)
    total = score.sum(axis=1)
    return Votes(top[:, :m], got / total, score[np.arange(q), top[:, 0]] / total)


def _ranked(similarity: np.ndarray, labels: np.ndarray, log_weights: np.ndarray, order: np.ndarray) -> np.ndarray:
    """All classes, best first, int64 [Q, C], by the logarithm of their scores: no vote is too small to count.

    ``order`` int64 [Q, C]: the order of classes without votes.
    """
    row = np.arange(len(labels))[:, None]
    peak = np.full(order.shape, -np.inf)
    np.maximum.at(peak, (row, labels), log_weights)
    total = np.zeros(order.shape)
    np.add.at(total, (row, labels), np.exp(log_weights - peak[row, labels]))
    score = np.full(order.shape, -np.inf)
    voted = total > 0
    score[voted] = peak[voted] + np.log(total[voted])
    best = np.full(order.shape, -np.inf)
    np.maximum.at(best, (row, labels), similarity)
    last = np.broadcast_to(np.arange(order.shape[1]), order.shape).copy()
    unvoted = np.empty_like(last)
    np.put_along_axis(unvoted, order, last, axis=1)
    last[~voted] = unvoted[~voted]
    return np.lexsort((last, -best, -score), axis=-1)


def decide(found: Neighbours, labels: Labels, k: int, weight: str, temperature: float) -> Votes:
    """The vote of the first ``k`` neighbours of every query."""
    blocks = []
    for start in range(0, len(found.index), QUERIES):
        rows = slice(start, start + QUERIES)
        similarity = found.similarity[rows, :k]
        logs = log_weights(similarity, weight, temperature)
        neighbours = labels.train[found.index[rows, :k]]
        blocks.append(vote(similarity, neighbours, logs, labels.trained, min(5, labels.trained), labels.test[rows]))
    return Votes(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))


def log_weights(similarity: np.ndarray, weight: str, temperature: float) -> np.ndarray:
    """The logarithm of what each neighbour's vote counts, float64 [Q, k].

    ``exp`` and ``softmax`` exp(s / T), ``one`` 1, ``l2`` 1 / (distance + 1e-5) of rows of length 1; ``inverse`` the
    same where ``similarity`` is minus the distance.
    """
    if weight in ("exp", "softmax"):
        logs: np.ndarray = (similarity - similarity[:, :1]) / temperature
        return logs
    if weight == "l2":
        # Of normalised rows: |a - b|^2 = 2 - 2 s.
        inverse: np.ndarray = -np.log(np.sqrt(np.maximum(2 - 2 * similarity, 0)) + 1e-5)
        return inverse
    if weight == "inverse":
        return np.asarray(-np.log(1e-5 - similarity))
    if weight == "one":
        return np.zeros_like(similarity)
    raise BenchError(f"knn.weight is exp, softmax, l2, inverse or one, not '{weight}'")


def headline_of(settings: dict[str, Any], option: str) -> Any:
    """The headline's k or temperature: the card's; where a single other one is asked for, that. Refuses to choose."""
    asked, headline = settings[option], settings[f"headline_{option}"]
    if headline in asked:
        return headline
    if len(asked) == 1:
        return asked[0]
    raise BenchError(
        f"knn.headline_{option}={spell(headline)} is not among knn.{option}={spell(asked)}: "
        f"set knn.headline_{option} to one of them"
    )
