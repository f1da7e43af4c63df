"""Alignment and uniformity on the sphere (Wang & Isola 2020) of features float [N, p]."""

from __future__ import annotations

import numpy as np

from bench.errors import BenchError
from suites.similarity_measures.matrices import checked, unit_rows


def alignment(x: np.ndarray, y: np.ndarray, *, alpha: float = 2.0) -> float:
    """Mean of ||x_i - y_i||^alpha over positive pairs of unit rows; both [N, p]. 0 is perfect alignment."""
    if x.shape != y.shape:
        raise BenchError(f"alignment needs pairs of one width, not shapes {list(x.shape)} and {list(y.shape)}")
    x, y = checked(x, y, 1)
    difference = unit_rows(x.astype(np.float64)) - unit_rows(y.astype(np.float64))
    return float((np.square(difference).sum(axis=1) ** (alpha / 2)).mean())


def uniformity(x: np.ndarray, *, t: float = 2.0) -> float:
    """log of the mean of exp(-t ||x_i - x_j||^2) over pairs i < j of unit rows; at most 0, lower is more uniform."""
    from scipy.spatial.distance import pdist

    x, _ = checked(x, x, 2)
    return float(np.log(np.exp(-t * pdist(unit_rows(x.astype(np.float64)), "sqeuclidean")).mean()))
