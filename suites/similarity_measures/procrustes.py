"""Orthogonal Procrustes distance (Schonemann 1966; Ding et al. 2021) of features float [N, p] and [N, q]."""

from __future__ import annotations

import numpy as np

from suites.similarity_measures.matrices import centred, checked, cross, row_products, squared_norms
from suites.similarity_measures.measure import SIMPLE, Measure, Value


def distance(x: np.ndarray, y: np.ndarray) -> Value:
    """d^2 = 2 - 2 ||X^T Y||_* of centred features of Frobenius norm 1, in [0, 2]; the best rotation between them.

    Features of different widths are compared as if the narrower had further columns of zeros.
    """
    x, y = checked(x, y, 2)
    x, y = _normalised(x), _normalised(y)
    u, sigma, v = np.linalg.svd(cross(x, y), full_matrices=False)
    nuclear = float(sigma.sum())
    value = 2 - 2 * nuclear
    # The nuclear norm of a representation with itself is 1 but for rounding.
    rounding = 1e-12 if x.dtype == np.float64 else 1e-5
    # The norm's derivative is the best rotation itself: each sample's share of it.
    influence = -2 * row_products(x, u @ v, y) + nuclear * (squared_norms(x) + squared_norms(y))
    return Value(0.0 if value < rounding else min(value, 2.0), influence=influence)


def _normalised(x: np.ndarray) -> np.ndarray:
    x = centred(x)
    x /= np.abs(x).max()
    x /= np.sqrt(squared_norms(x).sum()).astype(x.dtype)
    return x


MEASURES = (
    Measure(
        "procrustes", "Procrustes distance", distance, "Schonemann 1966; Ding et al. 2021", (0.0, 2.0), 0.0,
        SIMPLE, SIMPLE, higher_is_better=False,
    ),
)  # fmt: skip
