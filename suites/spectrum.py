"""Quality read from the spectrum of a representation, without labels. Features float [N, p]."""

from __future__ import annotations

import numpy as np

from bench.errors import BenchError


def rankme(x: np.ndarray, *, epsilon: float = 1e-7) -> float:
    """Effective rank exp(-sum p log p), p_k = sigma_k / sum sigma + epsilon of the uncentred features.

    Garrido et al. 2023. At most min(N, p); compare only at equal N and p.
    """
    return rankme_of(np.linalg.svd(_matrix(x), compute_uv=False), epsilon)


def rankme_of(sigma: np.ndarray, epsilon: float = 1e-7) -> float:
    """RankMe from the min(N, p) singular values of the uncentred features: of every further zero, ``epsilon`` would
    count."""
    if not sigma.any():
        raise BenchError("the features are zero throughout: their spectrum says nothing")
    p = sigma / sigma.sum() + epsilon
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def nesum(x: np.ndarray) -> float:
    """Sum of the covariance's eigenvalues over the largest (He & Ozay 2022); from 1 to p."""
    centred = _matrix(x) - x.mean(axis=0, dtype=np.float64)
    return nesum_of(np.square(np.linalg.svd(centred, compute_uv=False)))


def nesum_of(eigenvalues: np.ndarray) -> float:
    """NESum from the covariance's eigenvalues [p], largest first."""
    if not eigenvalues[0] > 0:
        raise BenchError("NESum is undefined: the features are the same for every sample")
    return float(eigenvalues.sum() / eigenvalues[0])


def alpha_req(eigenvalues: np.ndarray, first: int, last: int) -> tuple[float, int] | None:
    """(alpha, the last rank used) of lambda_i ~ i^-alpha over ranks ``first``..``last`` (Agrawal et al. 2022).

    Least squares on (log i, log lambda_i) of the covariance's eigenvalues [p], largest first, each squared residual
    with the weight 1 / i, as their code (fastssl, ``stringer_get_powerlaw``) fits it: on a logarithmic axis the high
    ranks lie close. Ranks whose eigenvalue is within rounding of zero are left out; None when fewer than three are
    left.
    """
    floor = eigenvalues[0] * len(eigenvalues) * np.finfo(np.float64).eps
    last = min(last, int((eigenvalues > floor).sum()))
    if last - first < 2:
        return None
    ranks = np.arange(first, last + 1)
    # polyfit's weights are of the residuals, not of their squares.
    slope = np.polyfit(np.log(ranks), np.log(eigenvalues[first - 1 : last]), 1, w=ranks**-0.5)[0]
    return float(-slope), last


def _matrix(x: np.ndarray) -> np.ndarray:
    if x.ndim != 2 or 0 in x.shape:
        raise BenchError(f"features of shape {list(x.shape)}: one row of numbers per sample is needed")
    if not np.isfinite(x).all():
        raise BenchError("the features hold NaN or an infinity")
    if not x.any():
        raise BenchError("the features are zero throughout: their spectrum says nothing")
    return x.astype(np.float64)
