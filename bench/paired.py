"""Two networks on the same samples, or apart: differences, their intervals and tests. Fractions in, fractions out.

Sources: McNemar 1947, exact and mid-p as in Fagerland, Lydersen & Laake 2013; Bonett & Price 2012 for the interval of a
paired difference of proportions; Newcombe 1998 (method 10) for the unpaired one; Efron & Tibshirani 1993 for the
bootstrap; Holm 1979 and Benjamini & Hochberg 1995 for several tests at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from bench.matched import figures, unpacked
from bench.stats import _z

REPLICATES = 10_000
PRECISION_WORK = 200_000_000
"""Detections times resamples of a difference of average precisions, which is never of fewer than 1 000 resamples."""


class Difference(NamedTuple):
    """A difference with its interval and the two-sided p-value of no difference."""

    value: float
    low: float
    high: float
    p: float


def mcnemar(gained: int, lost: int) -> tuple[float, float]:
    """Exact and mid-p two-sided p-values of McNemar's test; no discordant pair gives 1.

    ``gained``: samples that only the second network has right; ``lost``: those that only the first has right.
    """
    if gained < 0 or lost < 0:
        raise ValueError(f"counts cannot be negative, got {gained} and {lost}")
    from scipy.stats import binom

    total, fewer = gained + lost, min(gained, lost)
    if total == 0:
        return 1.0, 1.0
    exact = min(1.0, 2 * float(binom.cdf(fewer, total, 0.5)))
    observed = float(binom.pmf(fewer, total, 0.5))
    # Half of what was observed is taken off either tail; in the middle both tails share it, so half of it goes once.
    return exact, 1.0 - observed / 2 if gained == lost else exact - observed


def standard_error(differences: np.ndarray) -> float:
    """Standard error of the mean of paired ``differences`` [N], each in [-1, 1], with one gain and one loss added.

    For single runs this is Bonett & Price's: sqrt(b + c - (b - c)^2 / n) / n after b, c + 1 and n + 2. It is never
    zero, so that few samples without a flip do not pass for certainty.
    """
    n = len(differences)
    if n == 0:
        raise ValueError("no samples")
    total, squares = float(differences.sum()), float((differences**2).sum())
    return math.sqrt(max(squares + 2 - total**2 / (n + 2), 0.0)) / (n + 2)


def accuracy_difference(first: np.ndarray, second: np.ndarray, confidence: float = 0.95) -> Difference:
    """Accuracy of ``second`` minus that of ``first``; both bool [N] over the same samples.

    Bonett & Price's interval, which always holds the difference itself, and McNemar's exact p-value.
    """
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"paired outcomes need one shape [N], got {a.shape} and {b.shape}")
    n = len(a)
    gained, lost = int((~a & b).sum()), int((a & ~b).sum())
    value = (gained - lost) / n
    half = _z(confidence) * standard_error(b.astype(float) - a.astype(float))
    centre = (gained - lost) / (n + 2)
    low, high = max(-1.0, centre - half), min(1.0, centre + half)
    return Difference(value, min(low, value), max(high, value), mcnemar(gained, lost)[0])


def mean_difference(first: np.ndarray, second: np.ndarray, confidence: float = 0.95) -> Difference:
    """Mean of ``second`` minus ``first``, float [N] over the same samples: Student's paired interval and test.

    One sample has no spread to judge by, and gives an interval without end.
    """
    from scipy.stats import t

    gains = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    n, value = len(gains), float(gains.mean())
    if n < 2:
        return Difference(value, -math.inf, math.inf, 1.0)
    error = float(gains.std(ddof=1)) / math.sqrt(n)
    reach = float(t.ppf(0.5 + confidence / 2, n - 1)) * error
    p = (1.0 if value == 0 else 0.0) if error == 0 else 2 * float(t.sf(abs(value) / error, n - 1))
    return Difference(value, value - reach, value + reach, p)


def mean_per_class_difference(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    confidence: float = 0.95,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Difference:
    """Mean-per-class accuracy of ``second`` minus ``first`` by a bootstrap of the samples within each class.

    A resample of a class changes its difference only through how many gains and losses it draws, so those two counts
    are drawn instead of samples: the same distribution, a thousandth of the work. Where nothing flipped resamples are
    all alike, which is no certainty: the interval is never narrower than that of accuracies then is.
    """
    classes, index = np.unique(labels, return_inverse=True)
    counts = np.bincount(index).astype(float)
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    gained = np.bincount(index, weights=~a & b, minlength=len(classes))
    lost = np.bincount(index, weights=a & ~b, minlength=len(classes))
    value = float(((gained - lost) / counts).mean())
    rng = np.random.default_rng(seed)
    drawn = np.zeros(replicates)
    for n, up, down in zip(counts, gained, lost, strict=True):
        if up or down:
            draws = rng.multinomial(int(n), [up / n, down / n, max(0.0, 1 - (up + down) / n)], size=replicates)
            drawn += (draws[:, 0] - draws[:, 1]) / n
    found = _from_bootstrap(value, drawn / len(classes), confidence)
    least = _z(confidence) * standard_error(np.zeros(len(index)))
    return found._replace(low=min(found.low, value - least), high=max(found.high, value + least))


def ratio_difference(
    first: tuple[np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray],
    *,
    confidence: float = 0.95,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Difference:
    """Mean over classes of sum(numerator) / sum(denominator), second minus first, images resampled and re-accumulated.

    Each pair is (intersection, union), both [N images, C classes]: mean IoU. Classes without a denominator are left
    out of the mean, as the metric itself does; averaging per-image ratios would be another metric.
    """

    def metric(pair: tuple[np.ndarray, np.ndarray], weights: np.ndarray) -> np.ndarray:
        numerator, denominator = weights @ pair[0], weights @ pair[1]
        there = denominator > 0
        ratios = np.divide(numerator, denominator, out=np.zeros_like(denominator), where=there)
        count = there.sum(axis=-1)
        mean: np.ndarray = np.where(count > 0, ratios.sum(axis=-1) / np.maximum(count, 1), np.nan)
        return mean

    n = len(first[0])
    first, second = (first[0].astype(float), first[1].astype(float)), (second[0].astype(float), second[1].astype(float))
    whole = np.ones((1, n))
    value = float((metric(second, whole) - metric(first, whole))[0])
    rng = np.random.default_rng(seed)
    parts = []
    for start in range(0, replicates, 100):
        weights = rng.multinomial(n, np.full(n, 1 / n), size=min(100, replicates - start)).astype(float)
        parts.append(metric(second, weights) - metric(first, weights))
    drawn = np.concatenate(parts)
    return _from_bootstrap(value, drawn[np.isfinite(drawn)], confidence)


def precision_difference(
    first: Mapping[str, np.ndarray],
    second: Mapping[str, np.ndarray],
    figure: str,
    *,
    confidence: float = 0.95,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Difference:
    """Average precision of ``second`` minus that of ``first``, images resampled and detections ranked again.

    Both are tables of `bench.matched.packed` over the same images; ``figure``: ``ap``, ``ap50`` or ``ap75``. Resamples
    in which no object is left say nothing and are left out. Raises `ValueError` for tables of other objects.
    """
    (ours, recalls), (theirs, other) = unpacked(first), unpacked(second)
    alike = len(ours) == len(theirs) and len(recalls) == len(other)
    if not alike or any(not np.array_equal(a.objects, b.objects) for a, b in zip(ours, theirs, strict=True)):
        raise ValueError("the matches are of other objects")
    images = len(ours[0].objects)

    def change(weights: np.ndarray) -> np.ndarray:
        after, before = (figures(own, weights, recalls)[figure] for own in (theirs, ours))
        difference: np.ndarray = after - before
        return difference

    value = float(change(np.ones((1, images)))[0])
    work = max(1, sum(len(own.image) for own in (*ours, *theirs)))
    replicates = max(min(replicates, PRECISION_WORK // work), min(replicates, 1_000))
    rng = np.random.default_rng(seed)
    step = max(1, min(replicates, 4_000_000 // images))
    drawn = np.concatenate(
        [
            change(rng.multinomial(images, np.full(images, 1 / images), size=min(step, replicates - at)).astype(float))
            for at in range(0, replicates, step)
        ]
    )
    return _from_bootstrap(value, drawn[np.isfinite(drawn)], confidence)


def _from_bootstrap(value: float, drawn: np.ndarray, confidence: float) -> Difference:
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    smaller = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    # The floor: with B replicates no p-value below 1 / (B + 1) can be seen.
    p = min(1.0, max(2 * smaller / len(drawn), 1 / (len(drawn) + 1)))
    return Difference(value, min(float(low), value), max(float(high), value), p)


def unpaired_difference(
    first: tuple[float, float, float], second: tuple[float, float, float], confidence: float = 0.95
) -> Difference:
    """Second minus first from (value, low, high) of each, as if the samples were others (Newcombe 1998, method 10).

    Wider than the paired interval whenever the two networks err on the same samples, so it never claims too much
    there. The p-value is the normal one at the interval's width.
    """
    (a, a_low, a_high), (b, b_low, b_high) = first, second
    value = b - a
    below = math.hypot(b - b_low, a_high - a)
    above = math.hypot(b_high - b, a - a_low)
    reach = above if value < 0 else below
    if reach == 0:
        return Difference(value, value, value, 1.0 if value == 0 else 0.0)
    p = math.erfc(abs(value) / (reach / _z(confidence)) / math.sqrt(2))
    return Difference(value, value - below, value + above, p)


def holm(p_values: list[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: at most ``q`` of them below means family-wise error below q."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return [float(p) for p in adjusted]


def benjamini_hochberg(p_values: list[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p-values (false discovery rate), in the order given."""
    m = len(p_values)
    order = np.argsort(p_values, kind="stable")[::-1]
    adjusted = np.empty(m)
    running = 1.0
    for step, index in enumerate(order):
        running = min(running, p_values[index] * m / (m - step))
        adjusted[index] = running
    return [float(p) for p in adjusted]
