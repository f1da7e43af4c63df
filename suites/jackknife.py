"""Intervals of a metric between 0 and 1 that is no mean over samples, from its values with some samples left out.

Resampling repeats samples, and repeated samples rank together: of average precision that moves the centre. Leaving out
does not repeat.
"""

from __future__ import annotations

import math

import numpy as np

from bench.stats import wilson

GROUPS = 1000
"""Values computed at most: more samples are left out several at a time."""
LARGEST = 2.0
"""Half an interval on the logit scale: beyond, the other scale is taken."""
METHOD = "jackknife over samples, on the logit scale"


def groups_of(n: int, seed: int = 0) -> np.ndarray:
    """int64 [n]: the group that each sample is left out with: alone up to `GROUPS`, then by a seeded draw."""
    if n <= GROUPS:
        return np.arange(n)
    return np.random.default_rng(seed).permutation(n) % GROUPS


def standard_error(value: float, without: np.ndarray, groups: np.ndarray) -> float:
    """Of ``value``, from the values ``without`` [G] each group; groups may differ in size (Busing et al. 1999)."""
    sizes = np.bincount(groups, minlength=len(without)).astype(float)
    n, count = sizes.sum(), len(without)
    if count < 2:
        raise ValueError("a standard error needs two groups or more")
    share = n / sizes
    pseudo = share * value - (share - 1) * without
    centre = count * value - ((1 - 1 / share) * without).sum()
    return math.sqrt(float(((pseudo - centre) ** 2 / (share - 1)).mean()))


def interval(value: float, error: float, groups: int, cases: int, confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval on the logit scale; where nothing varies or ``value`` is 0 or 1, Wilson's over ``cases``.

    Where the error is as large as the way to 0 or 1, the logit scale has no hold, and the arcsine's is taken. ``value``
    and both ends in [0, 1]; ``groups``: how many were left out in turn; ``cases``: samples that carry what is searched
    for. It covers the value expected of other samples of this number: average precision leans upwards on few.
    """
    from scipy.special import stdtrit

    if not 0 < value < 1 or error == 0:
        return wilson(value * cases, cases, confidence)
    half = float(stdtrit(groups - 1, 0.5 + confidence / 2)) * error
    on_logit = half / (value * (1 - value))
    if on_logit <= LARGEST:
        middle = math.log(value / (1 - value))
        low, high = (0.5 * (1 + math.tanh((middle + side) / 2)) for side in (-on_logit, on_logit))
    else:
        middle, on_arcsine = math.asin(math.sqrt(value)), half / (2 * math.sqrt(value * (1 - value)))
        ends = (min(max(middle + side, 0.0), math.pi / 2) for side in (-on_arcsine, on_arcsine))
        low, high = (math.sin(end) ** 2 for end in ends)
    return min(low, value), max(high, value)
