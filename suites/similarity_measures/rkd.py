"""Relations between samples as relational knowledge distillation sees them (Park et al. 2019): distances and angles.

Measures, not training losses: means over distinct pairs and triples, which the training loss dilutes by the trivial
ones on the diagonal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from bench.errors import BenchError
from suites.similarity_measures.matrices import checked, gram_matrix, squared_distances
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
    x, y = _few(x, y, samples)
    # Every triple stands twice in the symmetric matrices of cosines.
    total = sum(float(smooth_l1(a - b).sum()) for a, b in _angles(x, y)) / 2
    return Value(total / _triples(len(x)))


def angle_correlation(x: np.ndarray, y: np.ndarray, *, samples: int = 256) -> Value:
    """Pearson correlation of those cosines over the same triples."""
    x, y = _few(x, y, samples)
    sums = np.zeros(5)
    for a, b in _angles(x, y):
        sums += (a.sum(), b.sum(), np.vdot(a, b), np.vdot(a, a), np.vdot(b, b))
    sums /= 2 * _triples(len(x))
    ma, mb = sums[:2]
    return Value(_pearson(sums[2] - ma * mb, sums[3] - ma * ma, sums[4] - mb * mb, "angles"))


def _triples(n: int) -> int:
    return n * (n - 1) * (n - 2) // 2


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
    """For every vertex j: the cosines [N, N] of i-j-k in both networks, 0 where i = k, i = j or k = j.

    A duplicate of the vertex has cosine 0. From inner products: (z_i - z_j)(z_k - z_j) = G_ik - G_ij - G_kj + G_jj.
    """
    grams = [gram_matrix(f / np.abs(f).max()) for f in (x, y)]
    for j in range(len(x)):
        cosines = []
        for gram in grams:
            inner = gram - gram[:, j, None] - gram[None, j, :] + gram[j, j]
            squared = inner.diagonal()
            scale = np.where(squared > 1e-14 * (gram.diagonal() + gram[j, j]), squared, np.inf)
            scale[j] = np.inf
            cosine = inner / np.sqrt(scale[:, None] * scale[None, :])
            np.fill_diagonal(cosine, 0.0)
            cosines.append(np.clip(cosine, -1.0, 1.0))
        yield cosines[0], cosines[1]


MEASURES = (
    Measure(
        "rkd_distance", "RKD distance loss", distance_loss, "Park et al. 2019", (0.0, math.inf), 0.0,
        SIMPLE, SIMPLE, higher_is_better=False, cap="samples",
    ),
    Measure(
        "rkd_distance_corr", "RKD distance correlation", distance_correlation_of_pairs, "after Park et al. 2019",
        (-1.0, 1.0), 1.0, SIMPLE, SIMPLE, cap="samples",
    ),
    Measure(
        "rkd_angle", "RKD angle loss", angle_loss, "Park et al. 2019", (0.0, 1.5), 0.0,
        SIMPLE, SIMPLE, higher_is_better=False, cap="samples", options={"samples": 256},
    ),
    Measure(
        "rkd_angle_corr", "RKD angle correlation", angle_correlation, "after Park et al. 2019", (-1.0, 1.0), 1.0,
        SIMPLE, SIMPLE, cap="samples", options={"samples": 256},
    ),
)  # fmt: skip
