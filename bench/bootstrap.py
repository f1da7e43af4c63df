"""Bootstrap over samples: sums of per-sample columns over resampled samples, and percentile intervals.

Every metric that is a function of sums over samples (means, ratios, calibration error from its bins, kappa from its
marginals) is computed again from each replicate's sums, never averaged from parts. Columns drawn together stay paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

REPLICATES = 10_000
CHUNK = 4_000_000
"""Weights drawn at a time."""


def resampled_sums(tables: Sequence[Any], *, replicates: int = REPLICATES, seed: int = 0) -> list[np.ndarray]:
    """For every table [N, m] (numpy, or scipy sparse for indicators) the sums [replicates, m] over resampled rows.

    Each replicate draws N of the N rows with replacement, the same ones in every table; weights are multinomial counts.
    """
    n = tables[0].shape[0]
    if n < 1 or any(table.shape[0] != n for table in tables):
        raise ValueError(f"tables of {[table.shape[0] for table in tables]} rows cannot be resampled together")
    rng = np.random.default_rng(seed)
    sums = [np.empty((replicates, table.shape[1])) for table in tables]
    step = max(1, min(replicates, CHUNK // n))
    for start in range(0, replicates, step):
        count = min(step, replicates - start)
        drawn = rng.integers(0, n, size=(count, n), dtype=np.int64)
        drawn += np.arange(count)[:, None] * n
        weights = np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n).astype(np.float64)
        for table, out in zip(tables, sums, strict=True):
            out[start : start + count] = (table.T @ weights.T).T
    return sums


def percentile(drawn: np.ndarray, value: float, confidence: float = 0.95) -> tuple[float, float] | None:
    """Percentile interval of ``drawn`` [replicates], widened to hold ``value``.

    Replicates in which the metric is undefined (NaN) are left out; None when they are more than one in twenty.
    """
    defined = drawn[np.isfinite(drawn)]
    if len(defined) < 0.95 * len(drawn):
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return min(float(low), value), max(float(high), value)
