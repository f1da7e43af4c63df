"""Representational similarity analysis (Kriegeskorte et al. 2008) of features float [N, p] and [N, q]."""

from __future__ import annotations

import math

import numpy as np

from bench.errors import BenchError
from suites.similarity_measures.matrices import checked
from suites.similarity_measures.measure import Measure, Value


def dissimilarities(x: np.ndarray, which: str) -> np.ndarray:
    """1 - Pearson correlation between samples, float64 [N(N-1)/2], the upper triangle row by row.

    Raises `BenchError` for a sample whose features are all equal: its correlation is not defined.
    """
    rows = x.astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    flat = largest[:, 0] <= 1e-12 * np.maximum(np.abs(x).max(axis=1), 1e-300)
    if flat.any():
        raise BenchError(
            f"RSA correlates samples over their features, and {int(flat.sum())} of the {which} network's samples have "
            f"equal features throughout (first: sample {int(flat.argmax())})"
        )
    rows /= largest
    rows /= np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    upper = np.triu_indices(len(rows), k=1)
    return 1.0 - np.clip((rows @ rows.T)[upper], -1.0, 1.0)


def rsa(x: np.ndarray, y: np.ndarray) -> Value:
    """Spearman correlation of the two networks' dissimilarities, ties at their mean rank; in [-1, 1]."""
    from scipy.stats import rankdata

    x, y = checked(x, y, 3)
    ranks = []
    for features, which in ((x, "first"), (y, "second")):
        # Ties that rounding tears apart (duplicate samples) are put together again.
        rank = rankdata(np.round(dissimilarities(features, which), 12))
        rank -= rank.mean()
        if not rank.any():
            raise BenchError(f"all of the {which} network's samples are equally dissimilar: RSA has nothing to rank")
        ranks.append(rank)
    a, b = ranks
    return Value(float(np.clip((a @ b) / math.sqrt((a @ a) * (b @ b)), -1.0, 1.0)))


MEASURES = (
    Measure(
        "rsa", "RSA (1 - Pearson, Spearman)", rsa, "Kriegeskorte et al. 2008", (-1.0, 1.0), 1.0,
        frozenset({"permutation", "scale"}), frozenset({"permutation", "scale"}), cap="samples",
    ),
)  # fmt: skip
