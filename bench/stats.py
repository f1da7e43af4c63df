"""Intervals and tests (PROTOCOLS: statistics). Pure functions over counts and outcome arrays; percent nowhere."""

from __future__ import annotations

import math

import numpy as np


def _z(confidence: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(0.5 + confidence / 2))


def wilson(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927), in [0, 1]. ``n`` must be positive; counts may be shares of
    samples, where repeated answers of one sample count less than samples do."""
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"wilson needs 0 <= successes <= n and n > 0, got {successes} of {n}")
    z = _z(confidence)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # Rounding must not push the bound past the estimate at the ends, where the formula meets it exactly.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact (Clopper-Pearson 1934) interval of a proportion, in [0, 1]."""
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"clopper_pearson needs 0 <= successes <= n and n > 0, got {successes} of {n}")
    from scipy.stats import beta

    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(beta.ppf(1 - tail, successes + 1, n - successes))
    return low, high


def mean_per_class(successes: np.ndarray, counts: np.ndarray) -> float:
    """(1/C) sum of correct_c / n_c over the classes that have samples, in [0, 1]."""
    present = counts > 0
    return float((successes[present] / counts[present]).mean())


def mean_per_class_interval(successes: np.ndarray, counts: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of mean-per-class accuracy: Wilson intervals of the classes combined by MOVER (Zou & Donner 2008).

    Deterministic, never of zero width at 0 or 1, and equal to Wilson's when there is one class.
    """
    present = counts > 0
    k, n = successes[present].astype(float), counts[present].astype(float)
    p = k / n
    bounds = np.array([wilson(int(a), int(b), confidence) for a, b in zip(k, n, strict=True)])
    below = math.sqrt(float(((p - bounds[:, 0]) ** 2).sum())) / len(n)
    above = math.sqrt(float(((bounds[:, 1] - p) ** 2).sum())) / len(n)
    mean = float(p.mean())
    return max(0.0, mean - below), min(1.0, mean + above)
