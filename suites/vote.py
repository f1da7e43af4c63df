"""The weighted vote of nearest neighbours."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

TIE = 1e-5
"""Relative difference below which float32 may have put two classes in the wrong order."""


class Votes(NamedTuple):
    """What the neighbours say of each query."""

    top: np.ndarray
    """int64 [Q, m]: the m classes of highest score, best first."""
    share: np.ndarray
    """float64 [Q]: the share of all votes that the class asked about got."""


def vote(
    similarity: np.ndarray, labels: np.ndarray, weights: np.ndarray, classes: int, m: int, asked: np.ndarray
) -> Votes:
    """Add up ``weights`` [Q, k] by class ``labels`` int [Q, k] in 0..classes-1; ``similarity`` [Q, k] breaks ties.

    ``asked`` int [Q]: the class of each query whose share is wanted; one that is not below ``classes`` has none.

    Order of classes: higher score, then higher single best similarity, then lowest class. Classes that no neighbour
    votes for come last, in the order in which PyTorch's sort leaves equal scores, as in DINO's own function.
    """
    import torch

    q = len(labels)
    flat = (np.arange(q)[:, None] * classes + labels).ravel()
    score = np.bincount(flat, weights=weights.ravel(), minlength=q * classes).reshape(q, classes)
    ordered = torch.from_numpy(score.astype(np.float32)).sort(dim=1, descending=True)
    top = ordered.indices[:, : m + 1].numpy()
    values = np.take_along_axis(score, top, axis=1)
    # Scores that float32 cannot tell apart, or that ended in the wrong order for it: rank those rows in full.
    close = (values[:, :-1] - values[:, 1:] <= TIE * np.abs(values[:, :-1])) & (values[:, :-1] > 0)
    rows = np.flatnonzero(close.any(axis=1))
    if len(rows):
        best = np.full((len(rows), classes), -np.inf)
        np.maximum.at(best, (np.arange(len(rows))[:, None], labels[rows]), similarity[rows])
        tie_break = np.broadcast_to(np.arange(classes), best.shape)
        top[rows] = np.lexsort((tie_break, -best, -score[rows]), axis=-1)[:, : m + 1]
    known = asked < classes
    got = np.where(known, score[np.arange(q), np.where(known, asked, 0)], 0.0)
    return Votes(top[:, :m], got / score.sum(axis=1))
