"""Structure of logits, class by class: does the student see the same relations between classes as its teacher?

`class_difference` is what the code behind Figure 2 of DCD computes (mean standardised logits per true class; the
caption's "correlation" is another quantity, which `correlation_difference` offers).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bench.errors import BenchError
from suites.fidelity import same_shape


class LogitDifference(NamedTuple):
    """A matrix of absolute differences between teacher and student, and its summary."""

    matrix: np.ndarray
    """float64 [K, K], zero on the diagonal; K the classes or columns that are defined."""
    kept: np.ndarray
    """int [K]: which classes (columns) the rows are."""
    mean: float
    """For `class_difference` over all K^2 entries, as DCD prints it; for `correlation_difference` off the diagonal."""
    max: float
    frobenius: float
    """Frobenius norm / K."""


def standardised(logits: np.ndarray) -> np.ndarray:
    """Each sample's logits less their mean, over their standard deviation (ddof 1); float64 [N, C].

    A sample whose logits are all equal says nothing of the classes and becomes a row of zeros.
    """
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise BenchError(f"logits of shape {list(logits.shape)} cannot be standardised: two classes or more are needed")
    if not np.isfinite(logits).all():
        raise BenchError("the logits hold NaN or an infinity: their structure cannot be compared")
    centred = logits.astype(np.float64) - logits.mean(axis=1, keepdims=True, dtype=np.float64)
    sd = centred.std(axis=1, ddof=1, keepdims=True)
    flat = sd <= 1e-12 * np.maximum(np.abs(logits).max(axis=1, keepdims=True), 1e-300)
    return np.asarray(np.where(flat, 0.0, centred / np.where(flat, 1.0, sd)))


def class_means(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """M [C, C]: row y is the mean of the standardised logits of the samples of class y; NaN for a class without any."""
    rows = standardised(logits)
    classes = rows.shape[1]
    if len(target) != len(rows) or (len(target) and not (target.min() >= 0 and target.max() < classes)):
        raise BenchError(
            f"labels do not fit logits of shape {list(logits.shape)}: a column number per sample is needed"
        )
    sums = np.zeros((classes, classes))
    np.add.at(sums, target, rows)
    counts = np.bincount(target, minlength=classes)[:, None]
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def class_difference(teacher: np.ndarray, student: np.ndarray, target: np.ndarray) -> LogitDifference:
    """|M_S - M_T| of `class_means`, diagonal zeroed (distillers ``cifar/plot_corr.py``).

    ``teacher``, ``student``: logits float [N, C]; ``target``: int [N] of columns. Classes without samples are left out.
    """
    same_shape(teacher, student)
    difference = np.abs(class_means(student, target) - class_means(teacher, target))
    kept = np.flatnonzero(~np.isnan(difference).any(axis=1))
    if len(kept) < 2:
        raise BenchError(f"a matrix between classes needs samples of two classes or more, not of {len(kept)}")
    matrix = difference[np.ix_(kept, kept)]
    np.fill_diagonal(matrix, 0.0)
    return LogitDifference(matrix, kept, float(matrix.mean()), float(matrix.max()), _frobenius(matrix))


def correlations(logits: np.ndarray) -> np.ndarray:
    """Pearson correlation of the logit columns over the samples, float64 [C, C]; NaN rows for constant columns."""
    if len(logits) < 2:
        raise BenchError("correlations between logits need two samples or more")
    centred = logits.astype(np.float64) - logits.mean(axis=0, dtype=np.float64)
    norm = np.sqrt(np.square(centred).sum(axis=0))
    flat = norm <= 1e-12 * np.maximum(np.abs(logits).max(axis=0) * np.sqrt(len(logits)), 1e-300)
    scaled = centred / np.where(flat, 1.0, norm)
    matrix = np.clip(scaled.T @ scaled, -1.0, 1.0)
    matrix[flat] = np.nan
    matrix[:, flat] = np.nan
    return np.asarray(matrix)


def correlation_difference(teacher: np.ndarray, student: np.ndarray) -> LogitDifference:
    """|R_S - R_T| of `correlations`; columns that are constant in either network are left out."""
    same_shape(teacher, student)
    if not (np.isfinite(teacher).all() and np.isfinite(student).all()):
        raise BenchError("the logits hold NaN or an infinity: their structure cannot be compared")
    difference = np.abs(correlations(student) - correlations(teacher))
    kept = np.flatnonzero(~np.isnan(difference.diagonal()))
    if len(kept) < 2:
        raise BenchError(f"logit correlations need two columns that vary in both networks; there are {len(kept)}")
    matrix = difference[np.ix_(kept, kept)]
    np.fill_diagonal(matrix, 0.0)
    k = len(kept)
    return LogitDifference(matrix, kept, float(matrix.sum() / (k * (k - 1))), float(matrix.max()), _frobenius(matrix))


def _frobenius(matrix: np.ndarray) -> float:
    return float(np.linalg.norm(matrix) / len(matrix))
