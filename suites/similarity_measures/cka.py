"""Centred kernel alignment (Kornblith et al. 2019), its debiased and minibatch estimates (Nguyen et al. 2021).

Features are float [N, p] and [N, q]. Linear kernels are computed as N x N or as p x q matrices, whichever is less
work; both are the same number.
"""

from __future__ import annotations

import math

import numpy as np

from bench.errors import BenchError
from suites.similarity_measures.matrices import (
    centred,
    checked,
    cross,
    row_products,
    squared_distances,
    squared_norms,
)
from suites.similarity_measures.measure import SIMPLE, Measure, Value


def linear(x: np.ndarray, y: np.ndarray) -> Value:
    """||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F) of centred features, in [0, 1].

    Biased: tends to 1 when the features are much wider than the samples are many.
    """
    x, y = _prepared(x, y, 2)
    return _ratio(*_shares(x, y), bounds=(0.0, 1.0))


def debiased(x: np.ndarray, y: np.ndarray) -> Value:
    """Ratio of unbiased HSIC estimates (Song et al. 2012); at most 1, may be negative. Needs 4 samples."""
    x, y = _prepared(x, y, 4)
    terms = _unbiased_by_samples(x, y) if _by_samples(x, y) else _unbiased_by_features(x, y)
    kx, ky = squared_norms(x), squared_norms(y)
    a, b, c = _shares(x, y)
    return _from_terms(*terms, shares=(a - kx * ky, b - kx**2, c - ky**2))


def minibatch(x: np.ndarray, y: np.ndarray, *, batch: int = 256, seed: int = 0) -> Value:
    """Unbiased HSIC summed over minibatches of shuffled samples for each of the three terms, then the ratio."""
    x, y = _prepared(x, y, 4)
    if batch < 4:
        raise BenchError(f"minibatch CKA needs batches of 4 samples or more, not {batch}")
    order = np.random.default_rng(seed).permutation(len(x))
    # Nearly equal batches: a short last one would carry the noisiest estimate at full weight.
    parts = np.array_split(order, max(1, len(x) // batch))
    totals = np.zeros(3)
    for part in parts:
        px, py = centred(x[part].astype(np.float64)), centred(y[part].astype(np.float64))
        totals += _unbiased_by_samples(px, py)
    return _from_terms(*totals)


def rbf(x: np.ndarray, y: np.ndarray, *, threshold: float = 0.5) -> Value:
    """CKA of Gaussian kernels of width ``threshold`` x median distance, the median over all N^2 pairs."""
    x, y = checked(x, y, 2)
    if not threshold > 0:
        raise BenchError(f"the kernel's width must be positive, not {threshold}")
    k, m = (_double_centred(_gaussian(f, threshold, which)) for f, which in ((x, "first"), (y, "second")))
    return _ratio((k * m).sum(axis=1), (k * k).sum(axis=1), (m * m).sum(axis=1), bounds=(0.0, 1.0))


def _gaussian(x: np.ndarray, threshold: float, which: str) -> np.ndarray:
    squared = squared_distances(x)
    median = float(np.median(squared))
    if median <= 0:
        raise BenchError(
            f"the median distance between the {which} network's samples is 0 (most are duplicates): a Gaussian kernel "
            f"has no width; leave rbf_cka out or the duplicates"
        )
    return np.asarray(np.exp(-squared / (2 * threshold**2 * median)))


def _double_centred(k: np.ndarray) -> np.ndarray:
    rows = k.mean(axis=0)
    return np.asarray(k - rows[:, None] - rows[None, :] + rows.mean())


def _prepared(x: np.ndarray, y: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = checked(x, y, least)
    return _scaled(centred(x)), _scaled(centred(y))


def _scaled(x: np.ndarray) -> np.ndarray:
    # CKA does not see the scale; fourth powers of it would over- or underflow.
    x /= np.sqrt(squared_norms(x / (largest := np.abs(x).max())).mean()).astype(x.dtype) * largest
    return x


def _by_samples(x: np.ndarray, y: np.ndarray) -> bool:
    n, p, q = len(x), x.shape[1], y.shape[1]
    return bool(n * (p + q) < p * p + q * q + p * q)


def _shares(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each sample's share [N] of tr(KL), tr(KK), tr(LL) for centred linear kernels."""
    if _by_samples(x, y):
        k, m = x @ x.T, y @ y.T
        return tuple(np.einsum("ij,ij->i", a, b, dtype=np.float64) for a, b in ((k, m), (k, k), (m, m)))
    return (
        row_products(x, cross(x, y), y),
        row_products(x, cross(x, x), x),
        row_products(y, cross(y, y), y),
    )


def _unbiased_by_samples(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    k, m = (np.asarray(f @ f.T, dtype=np.float64) for f in (x, y))
    np.fill_diagonal(k, 0.0)
    np.fill_diagonal(m, 0.0)
    n = len(k)

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        ra, rb = a.sum(axis=1), b.sum(axis=1)
        return _hsic(n, float(np.vdot(a, b)), float(ra.sum()), float(rb.sum()), float(ra @ rb))

    return hsic(k, m), hsic(k, k), hsic(m, m)


def _unbiased_by_features(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """The same from p x q matrices: for linear kernels every term is a moment of the features."""
    n = len(x)

    def kernel(f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        diagonal = squared_norms(f)
        rows = f @ f.sum(axis=0, dtype=np.float64).astype(f.dtype) - diagonal
        return diagonal, rows

    (dx, rx), (dy, ry) = kernel(x), kernel(y)

    def hsic(a: np.ndarray, b: np.ndarray, da: np.ndarray, db: np.ndarray, ra: np.ndarray, rb: np.ndarray) -> float:
        product = float(np.square(cross(a, b)).sum() - da @ db)
        return _hsic(n, product, float(ra.sum()), float(rb.sum()), float(ra @ rb))

    return hsic(x, y, dx, dy, rx, ry), hsic(x, x, dx, dx, rx, rx), hsic(y, y, dy, dy, ry, ry)


def _hsic(n: int, product: float, sum_k: float, sum_l: float, rows: float) -> float:
    """Unbiased HSIC from tr(KL), 1'K1, 1'L1 and 1'KL1 of kernels with zero diagonals."""
    return (product + sum_k * sum_l / ((n - 1) * (n - 2)) - 2 * rows / (n - 2)) / (n * (n - 3))


def _from_terms(
    xy: float, xx: float, yy: float, shares: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
) -> Value:
    if xx <= 0 or yy <= 0:
        raise BenchError(
            "debiased CKA is undefined here: the estimate of a representation's own dependence is not positive; more "
            "samples are needed"
        )
    value = min(1.0, xy / math.sqrt(xx * yy))
    if shares is None:
        return Value(value)
    a, b, c = shares
    scale = math.sqrt(max(b.sum(), 0.0) * max(c.sum(), 0.0))
    if not scale > 0:
        return Value(value)
    influence = 2 * a / scale - value * (b / b.sum() + c / c.sum())
    return Value(value, influence=influence - influence.mean())


def _ratio(a: np.ndarray, b: np.ndarray, c: np.ndarray, bounds: tuple[float, float]) -> Value:
    """sum a / sqrt(sum b sum c), with each sample's influence on it (infinitesimal jackknife)."""
    sa, sb, sc = float(a.sum()), float(b.sum()), float(c.sum())
    if not (sb > 0 and sc > 0):
        raise BenchError("a representation whose samples do not differ has no alignment with another")
    value = float(np.clip(sa / math.sqrt(sb * sc), *bounds))
    return Value(value, influence=2 * a / math.sqrt(sb * sc) - value * (b / sb + c / sc))


MEASURES = (
    Measure(
        "cka", "linear CKA", linear, "Kornblith et al. 2019, section 3", (0.0, 1.0), 1.0, SIMPLE, SIMPLE
    ),
    Measure(
        "cka_debiased", "debiased linear CKA", debiased, "Song et al. 2012; Nguyen et al. 2021", (-1.0, 1.0), 1.0,
        SIMPLE, SIMPLE,
    ),
    Measure(
        "cka_minibatch", "minibatch CKA", minibatch, "Nguyen et al. 2021, section 3.2", (-1.0, 1.0), 1.0,
        SIMPLE, SIMPLE, options={"batch": 256, "seed": 0},
    ),
    Measure(
        "cka_rbf", "RBF CKA", rbf, "Kornblith et al. 2019 and its demo", (0.0, 1.0), 1.0,
        SIMPLE, SIMPLE, cap="samples", options={"threshold": 0.5},
    ),
)  # fmt: skip
