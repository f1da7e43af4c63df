"""Relations between samples as relational knowledge distillation sees them (Park et al. 2019): distances and angles.

Measures, not training losses: means over distinct pairs and triples, which the training loss dilutes by the trivial
ones on the diagonal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from bench.errors import BenchError
from suites.similarity_measures.matrices import checked, squared_distances
from suites.similarity_measures.measure import SIMPLE, Measure, Value


def distance_loss(x: np.ndarray, y: np.ndarray) -> Value:
    """Smooth L1 (beta 1) between distances over their mean positive one, averaged over pairs i < j; at least 0."""
    a, b = _pair_distances(x, y)
    return Value(float(smooth_l1(a - b).mean()))


def distance_correlation_of_pairs(x: np.ndarray, y: np.ndarray) -> Value:
    """Pearson correlation of the pairs' distances, i < j."""
    a, b = (d - d.mean() for d in _pair_distances(x, y))
    return Value(_pearson((a * b).sum(), (a * a).sum(), (b * b).sum(), "distances"))


def angle_loss(x: np.ndarray, y: np.ndarray, *, samples: int = 256) -> Value:
    """Smooth L1 between the cosines of angles i-j-k, averaged over distinct triples (i < k, j the vertex).

    Over the first ``samples`` samples: there are N (N-1) (N-2) / 2 triples.
    """
    total, triples = 0.0, 0
    for a, b in _angles(*_few(x, y, samples)):
        total += float(smooth_l1(a - b).sum())
        triples += len(a)
    return Value(total / triples)


def angle_correlation(x: np.ndarray, y: np.ndarray, *, samples: int = 256) -> Value:
    """Pearson correlation of those cosines over the same triples."""
    sums = np.zeros(5)
    triples = 0
    for a, b in _angles(*_few(x, y, samples)):
        sums += (a.sum(), b.sum(), (a * b).sum(), (a * a).sum(), (b * b).sum())
        triples += len(a)
    ma, mb = sums[0] / triples, sums[1] / triples
    ab, aa, bb = sums[2] - triples * ma * mb, sums[3] - triples * ma * ma, sums[4] - triples * mb * mb
    return Value(_pearson(ab, aa, bb, "angles"))


def smooth_l1(difference: np.ndarray) -> np.ndarray:
    """Huber's loss with beta 1: d^2 / 2 below 1, |d| - 1/2 above."""
    d = np.abs(difference)
    return np.asarray(np.where(d < 1, 0.5 * d * d, d - 0.5))


def _pearson(ab: float, aa: float, bb: float, what: str) -> float:
    if not (aa > 1e-20 and bb > 1e-20):
        raise BenchError(f"all {what} between one network's samples are equal: their correlation is not defined")
    return float(np.clip(ab / math.sqrt(aa * bb), -1.0, 1.0))


def _pair_distances(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = checked(x, y, 3)
    upper = np.triu_indices(len(x), k=1)
    a, b = (np.sqrt(squared_distances(f / np.abs(f).max()))[upper] for f in (x, y))
    return a / a[a > 0].mean(), b / b[b > 0].mean()


def _few(x: np.ndarray, y: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray]:
    if samples < 3:
        raise BenchError(f"angles need 3 samples or more, not {samples}")
    x, y = checked(x[:samples], y[:samples], 3)
    return x.astype(np.float64), y.astype(np.float64)


def _angles(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For every vertex j: the cosines [triples] of both networks. A duplicate of the vertex has cosine 0."""
    n = len(x)
    upper = np.triu_indices(n - 1, k=1)
    for j in range(n):
        cosines = []
        for f in (x, y):
            edges = np.delete(f, j, axis=0) - f[j]
            norm = np.sqrt(np.square(edges).sum(axis=1, keepdims=True))
            edges /= np.where(norm > 0, norm, 1.0)
            cosines.append((edges @ edges.T)[upper])
        yield cosines[0], cosines[1]


MEASURES = (
    Measure(
        "rkd_distance", "RKD distance loss", distance_loss, "Park et al. 2019", (0.0, math.inf), 0.0,
        SIMPLE, SIMPLE, higher_is_better=False, pairwise=True,
    ),
    Measure(
        "rkd_distance_corr", "RKD distance correlation", distance_correlation_of_pairs, "after Park et al. 2019",
        (-1.0, 1.0), 1.0, SIMPLE, SIMPLE, pairwise=True,
    ),
    Measure(
        "rkd_angle", "RKD angle loss", angle_loss, "Park et al. 2019", (0.0, 1.5), 0.0,
        SIMPLE, SIMPLE, higher_is_better=False, pairwise=True, options={"samples": 256},
    ),
    Measure(
        "rkd_angle_corr", "RKD angle correlation", angle_correlation, "after Park et al. 2019", (-1.0, 1.0), 1.0,
        SIMPLE, SIMPLE, pairwise=True, options={"samples": 256},
    ),
)  # fmt: skip
