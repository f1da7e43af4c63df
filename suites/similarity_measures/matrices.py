"""What every measure does first: check a pair of feature matrices, centre them, and run through them in row blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bench.errors import BenchError

EXACT = 20_000_000
"""Matrices of up to this many numbers (160 MB as float64) are worked on in float64 throughout."""
ROWS = 4096
"""Rows per block: products of larger inputs are float32 within a block and float64 across blocks."""


def checked(x: np.ndarray, y: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """The pair in working precision (float64, or float32 when either is large), [N, p] and [N, q].

    Raises `BenchError` for other shapes, different or fewer than ``least`` rows, values that are not finite, and
    features that are the same for every sample: no similarity between representations is defined for those.
    """
    for which, features in (("first", x), ("second", y)):
        if features.ndim != 2 or features.shape[1] == 0:
            raise BenchError(
                f"the {which} network's features have shape {list(features.shape)}: a row per sample is needed"
            )
    if len(x) != len(y):
        raise BenchError(
            f"features of {len(x)} and {len(y)} samples cannot be compared: the same samples in one order are needed"
        )
    if len(x) < least:
        raise BenchError(f"this similarity needs {least} samples or more; there are {len(x)}")
    wide = max(x.size, y.size) > EXACT
    dtype = np.float32 if wide else np.float64
    for which, features in (("first", x), ("second", y)):
        for start, block in blocks(features):
            bad = ~np.isfinite(block).all(axis=1)
            if bad.any():
                raise BenchError(
                    f"the {which} network's features hold NaN or an infinity "
                    f"(first: sample {start + int(bad.argmax())})"
                )
        if all((block == features[0]).all() for _, block in blocks(features)):
            raise BenchError(
                f"the {which} network's features are the same for every sample: no similarity is defined for a "
                f"constant representation"
            )
    return np.asarray(x, dtype=dtype), np.asarray(y, dtype=dtype)


def blocks(x: np.ndarray, rows: int = ROWS) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, rows) in order."""
    for start in range(0, len(x), rows):
        yield start, x[start : start + rows]


def centred(x: np.ndarray) -> np.ndarray:
    """Columns less their means (taken in float64), in the dtype of ``x``."""
    out: np.ndarray = x - x.mean(axis=0, dtype=np.float64).astype(x.dtype)
    # A second pass removes what rounding of the first mean left: large offsets then cost no precision.
    out -= out.mean(axis=0, dtype=np.float64).astype(x.dtype)
    return out


def cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x^T y as float64 [p, q], summed over row blocks."""
    if x.dtype == np.float64:
        return np.asarray(x.T @ y)
    total = np.zeros((x.shape[1], y.shape[1]))
    for start, block in blocks(x):
        total += block.T @ y[start : start + len(block)]
    return total


def row_products(x: np.ndarray, middle: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x_i^T M y_i for every row i, float64 [N]; M [p, q]."""
    m = middle.astype(x.dtype)
    out = np.empty(len(x))
    for start, block in blocks(x):
        mapped = block @ m
        out[start : start + len(block)] = np.einsum(
            "ij,ij->i", mapped, y[start : start + len(block)], dtype=np.float64, casting="same_kind"
        )
    return out


def squared_norms(x: np.ndarray) -> np.ndarray:
    """||x_i||^2, float64 [N]."""
    return np.asarray(np.einsum("ij,ij->i", x, x, dtype=np.float64))


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Rows over their L2 norm; a row of zeros stays one (its similarity to every row is then 0)."""
    scale = np.abs(x).max(axis=1, keepdims=True)  # First by the largest entry, so that no square over- or underflows.
    out: np.ndarray = x / np.where(scale > 0, scale, 1)
    norm = np.sqrt(squared_norms(out))[:, None].astype(x.dtype)
    out /= np.where(norm > 0, norm, 1)
    return out


def squared_distances(x: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances between rows, float64 [N, N], exactly symmetric with a zero diagonal."""
    gram = gram_matrix(x)
    norms = gram.diagonal()
    sums = norms[:, None] + norms[None, :]
    squared = sums - 2 * gram
    # What is left of equal rows is rounding of their norms.
    squared[squared <= 1e-14 * sums] = 0.0
    np.fill_diagonal(squared, 0.0)
    return np.asarray(squared)


def gram_matrix(x: np.ndarray) -> np.ndarray:
    """Inner products of the centred rows, float64 [N, N], exactly symmetric. All pairs: N is capped by the caller."""
    rows = centred(np.asarray(x, dtype=np.float64))
    gram = rows @ rows.T
    return np.asarray((gram + gram.T) / 2)
