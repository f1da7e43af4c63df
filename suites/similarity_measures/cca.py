"""Canonical correlations: mean CCA, SVCCA (Raghu et al. 2017), PWCCA (Morcos et al. 2018). Features [N, p], [N, q]."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bench.errors import BenchError
from suites.similarity_measures.matrices import centred, checked
from suites.similarity_measures.measure import SIMPLE, Invariance, Measure, Value

LINEAR: frozenset[Invariance] = SIMPLE | {"linear"}
MARGIN = 10
"""Samples per feature below which canonical correlations are inflated; stated beside the value."""


class Canonical(NamedTuple):
    """Canonical correlations and directions."""

    correlations: np.ndarray
    """float64 [min(rank x, rank y)], descending, in [0, 1]."""
    directions: np.ndarray
    """float64 [N, same]: the canonical variates of the first network, orthonormal."""


def canonical(x: np.ndarray, y: np.ndarray) -> Canonical:
    """CCA of centred features by orthonormal bases of their column spaces; directions without variance are dropped.

    Raises `BenchError` when the samples are not more than both ranks together: every correlation could then be 1.
    """
    u, v = _basis(x), _basis(y)
    if len(x) <= u.shape[1] + v.shape[1]:
        raise BenchError(
            f"canonical correlations need more samples than both networks' features together: there are {len(x)} "
            f"samples for ranks {u.shape[1]} and {v.shape[1]}"
        )
    left, rho, _ = np.linalg.svd(u.T @ v, full_matrices=False)
    # Cosines of angles below 1e-7 cannot be told from 1 in float64; identical subspaces then give exactly 1.
    rho = np.where(rho > 1 - 1e-14 * len(rho) - 1e-13, 1.0, rho)
    return Canonical(np.clip(rho, 0.0, 1.0), u @ left)


def mean_correlation(x: np.ndarray, y: np.ndarray) -> Value:
    """Mean canonical correlation over min(rank x, rank y)."""
    x, y = _prepared(x, y)
    return Value(float(canonical(x, y).correlations.mean()))


def mean_squared_correlation(x: np.ndarray, y: np.ndarray) -> Value:
    """Mean squared canonical correlation (R^2_CCA of Kornblith et al. 2019) over min(rank x, rank y)."""
    x, y = _prepared(x, y)
    return Value(float(np.square(canonical(x, y).correlations).mean()))


def svcca(x: np.ndarray, y: np.ndarray, *, variance: float = 0.99) -> Value:
    """Mean CCA of the leading principal components that hold ``variance`` of each network's variance."""
    if not 0 < variance <= 1:
        raise BenchError(f"SVCCA keeps a share of the variance in (0, 1], not {variance}")
    x, y = _prepared(x, y)
    return Value(float(canonical(_leading(x, variance), _leading(y, variance)).correlations.mean()))


def pwcca(x: np.ndarray, y: np.ndarray) -> Value:
    """CCA weighted by how much each canonical direction of the *first* network accounts for its features."""
    x, y = _prepared(x, y)
    found = canonical(x, y)
    weights = np.abs(found.directions.T @ x).sum(axis=1)
    # Not w @ rho / sum(w): the sum of normalised weights may miss 1 in the last bit, and identity must give 1.
    return Value(1.0 - float(weights @ (1.0 - found.correlations) / weights.sum()))


def _prepared(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = checked(x, y, 3)
    return centred(x.astype(np.float64)), centred(y.astype(np.float64))


def _basis(x: np.ndarray) -> np.ndarray:
    from scipy.linalg import qr

    # Pivoted: the diagonal of R then tells the rank, at a fraction of an SVD's cost.
    q, r, _ = qr(x, mode="economic", pivoting=True, check_finite=False)
    size = np.abs(r.diagonal())
    return np.asarray(q[:, size > size[0] * max(x.shape) * np.finfo(np.float64).eps])


def _leading(x: np.ndarray, variance: float) -> np.ndarray:
    q, r = np.linalg.qr(x)
    u, s, _ = np.linalg.svd(r, full_matrices=False)
    share = np.cumsum(s**2) / np.sum(s**2)
    kept = min(int(np.searchsorted(share, variance - 1e-12)) + 1, len(s))
    return np.asarray(q @ (u[:, :kept] * s[:kept]))


MEASURES = (
    Measure(
        "cca", "mean CCA", mean_correlation, "Hotelling 1936; Raghu et al. 2017", (0.0, 1.0), 1.0, LINEAR, LINEAR,
        cap="cca_samples",
    ),
    Measure(
        "cca_r2", "mean squared CCA", mean_squared_correlation, "Kornblith et al. 2019, table 1", (0.0, 1.0), 1.0,
        LINEAR, LINEAR, cap="cca_samples",
    ),
    Measure(
        "svcca", "SVCCA", svcca, "Raghu et al. 2017", (0.0, 1.0), 1.0, SIMPLE, SIMPLE, cap="cca_samples",
        options={"variance": 0.99},
    ),
    Measure(
        "pwcca", "PWCCA, weighted by the first network", pwcca, "Morcos et al. 2018", (0.0, 1.0), 1.0,
        frozenset({"permutation", "scale", "shift"}), LINEAR, symmetric=False, cap="cca_samples",
    ),
)  # fmt: skip
