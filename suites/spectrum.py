"""Quality read from the spectrum of a representation, without labels. Features float [N, p]."""

from __future__ import annotations

import numpy as np

from bench.errors import BenchError


def rankme(x: np.ndarray, *, epsilon: float = 1e-7) -> float:
    """Effective rank exp(-sum p log p), p_k = sigma_k / sum sigma + epsilon of the uncentred features.

    Garrido et al. 2023. At most min(N, p); compare only at equal N and p.
    """
    sigma = np.linalg.svd(_matrix(x), compute_uv=False)
    p = sigma / sigma.sum() + epsilon
    return float(np.exp(-(p * np.log(p)).sum()))


def nesum(x: np.ndarray) -> float:
    """Sum of the covariance's eigenvalues over the largest (He & Ozay 2022); from 1 to p."""
    centred = _matrix(x) - x.mean(axis=0, dtype=np.float64)
    eigenvalues = np.square(np.linalg.svd(centred, compute_uv=False))
    if not eigenvalues[0] > 0:
        raise BenchError("NESum is undefined: the features are the same for every sample")
    return float(eigenvalues.sum() / eigenvalues[0])


def _matrix(x: np.ndarray) -> np.ndarray:
    if x.ndim != 2 or 0 in x.shape:
        raise BenchError(f"features of shape {list(x.shape)}: one row of numbers per sample is needed")
    if not np.isfinite(x).all():
        raise BenchError("the features hold NaN or an infinity")
    if not x.any():
        raise BenchError("the features are zero throughout: their spectrum says nothing")
    return x.astype(np.float64)
