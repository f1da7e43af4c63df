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
    """Interval of mean-per-class accuracy: Wilson's at the effective sample size (Korn & Graubard 1998; Dean & Pagano
    2015), the size of a simple sample whose mean varies as much as the mean over classes does.

    Deterministic, never of zero width at 0 or 1, and equal to Wilson's when there is one class. Bounds of the classes
    that are added in quadrature (MOVER) would lean one way together: at 100 classes of 10 samples, 90 % right, they
    hold the truth 85 % of the time.
    """
    present = counts > 0
    k, n = successes[present].astype(float), counts[present].astype(float)
    classes, mean = len(n), float((k / n).mean())
    if mean in (0.0, 1.0):
        effective = classes**2 / float((1 / n).sum())
    else:
        # A class of few samples says little of its own spread, one of a single sample nothing: each gets one more that
        # is right as often as the mean, and what that takes off the spread of equal classes is given back.
        rate = (k + mean) / (n + 1)
        given_back = 1 - (1 - 1 / classes) * n / (n + 1) ** 2
        variance = float((rate * (1 - rate) / (given_back * n)).sum()) / classes**2
        effective = mean * (1 - mean) / variance
    return wilson(mean * effective, effective, confidence)
