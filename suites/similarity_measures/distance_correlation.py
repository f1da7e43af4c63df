"""Distance correlation (Szekely, Rizzo & Bakirov 2007) of features float [N, p] and [N, q]."""

from __future__ import annotations

import math

import numpy as np

from bench.errors import BenchError
from suites.similarity_measures.matrices import checked, squared_distances
from suites.similarity_measures.measure import SIMPLE, Measure, Value


def distance_correlation(x: np.ndarray, y: np.ndarray) -> Value:
    """sqrt(dCov^2 / sqrt(dVar^2_X dVar^2_Y)) of doubly-centred Euclidean distance matrices, in [0, 1]."""
    x, y = checked(x, y, 2)
    a, b = _distances(x), _distances(y)
    ab, aa, bb = ((p * q).sum(axis=1) for p, q in ((a, b), (a, a), (b, b)))
    scale = math.sqrt(aa.sum() * bb.sum())
    if not scale > 0:
        raise BenchError("a representation whose samples do not differ has no distance correlation")
    squared = float(np.clip(ab.sum() / scale, 0.0, 1.0))
    value = math.sqrt(squared)
    influence = 2 * ab / scale - squared * (aa / aa.sum() + bb / bb.sum())
    return Value(value, influence=influence / (2 * value) if value > 0 else None)


def _distances(x: np.ndarray) -> np.ndarray:
    d = np.sqrt(squared_distances(x / np.abs(x).max()))
    rows = d.mean(axis=0)
    return np.asarray(d - rows[:, None] - rows[None, :] + rows.mean())


MEASURES = (
    Measure(
        "distance_correlation", "distance correlation", distance_correlation, "Szekely, Rizzo & Bakirov 2007",
        (0.0, 1.0), 1.0, SIMPLE, SIMPLE, cap="samples",
    ),
)  # fmt: skip
