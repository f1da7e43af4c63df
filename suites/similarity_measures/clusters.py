"""Agreement of clusterings: k-means in each representation, then scores of one partition against the other."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from bench.errors import BenchError
from suites.similarity_measures.matrices import centred, checked
from suites.similarity_measures.measure import SIMPLE, Measure, Value


def clusters(x: np.ndarray, k: int, *, restarts: int = 10, seed: int = 0) -> np.ndarray:
    """k-means partition int [N] of features float [N, p]; refused when fewer than k samples differ."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    if k < 2:
        raise BenchError(f"clusterings of {k} cluster cannot be compared: two or more are needed")
    distinct = len(np.unique(x, axis=0))
    if distinct < k:
        raise BenchError(f"{k} clusters cannot be made of {distinct} distinct samples")
    # k-means judges convergence on the features' own scale: bring every input to one.
    x = centred(x.astype(np.float64))
    x /= np.sqrt(np.square(x).sum(axis=1).mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(KMeans(k, n_init=restarts, random_state=seed).fit_predict(x))


def normalised_mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """2 I / (H_a + H_b): the arithmetic mean normalises; 1 for equal partitions, also of one cluster each."""
    from sklearn.metrics import normalized_mutual_info_score

    return float(np.clip(normalized_mutual_info_score(a, b, average_method="arithmetic"), 0.0, 1.0))


def adjusted_rand(a: np.ndarray, b: np.ndarray) -> float:
    """Rand index corrected for chance (Hubert & Arabie 1985), at most 1, about 0 by chance."""
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(a, b))


def fowlkes_mallows(a: np.ndarray, b: np.ndarray) -> float:
    """Geometric mean of pairwise precision and recall, in [0, 1]."""
    from sklearn.metrics import fowlkes_mallows_score

    return float(fowlkes_mallows_score(a, b))


def matched_accuracy(a: np.ndarray, b: np.ndarray) -> float:
    """Share of samples on the best one-to-one matching of clusters (Hungarian), in [0, 1]."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics.cluster import contingency_matrix

    table = contingency_matrix(a, b)
    return float(table[linear_sum_assignment(-table)].sum() / len(a))


def _of_clusterings(score: Callable[[np.ndarray, np.ndarray], float]) -> Callable[..., Value]:
    """The measure that is ``score`` of both networks' clusterings."""

    def measured(x: np.ndarray, y: np.ndarray, *, k: int = 10, restarts: int = 10, seed: int = 0) -> Value:
        x, y = checked(x, y, 2)
        return Value(score(*(clusters(f, k, restarts=restarts, seed=seed) for f in (x, y))))

    return measured


nmi = _of_clusterings(normalised_mutual_information)
ari = _of_clusterings(adjusted_rand)
acc = _of_clusterings(matched_accuracy)
fmi = _of_clusterings(fowlkes_mallows)

_OPTIONS = {"k": 10, "restarts": 10, "seed": 0}

MEASURES = (
    Measure(
        "cluster_nmi", "NMI of k-means clusterings", nmi, "Strehl & Ghosh 2002; arithmetic normaliser", (0.0, 1.0), 1.0,
        SIMPLE, SIMPLE, cap="samples", options=_OPTIONS,
    ),
    Measure(
        "cluster_ari", "ARI of k-means clusterings", ari, "Hubert & Arabie 1985", (-0.5, 1.0), 1.0,
        SIMPLE, SIMPLE, cap="samples", options=_OPTIONS,
    ),
    Measure(
        "cluster_acc", "matched accuracy of k-means clusterings", acc, "Kuhn 1955, as in iBOT's clustering scores",
        (0.0, 1.0), 1.0, SIMPLE, SIMPLE, cap="samples", options=_OPTIONS,
    ),
    Measure(
        "cluster_fmi", "FMI of k-means clusterings", fmi, "Fowlkes & Mallows 1983", (0.0, 1.0), 1.0,
        SIMPLE, SIMPLE, cap="samples", options=_OPTIONS,
    ),
)  # fmt: skip
