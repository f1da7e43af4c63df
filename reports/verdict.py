"""The gate's rule: one number, one interval, one tolerance, one verdict. Pure functions; no record is read here.

A loss is *regressed* when the interval of the difference lies below zero and the difference below minus the tolerance;
it *passes* when the interval lies above minus the tolerance; else nobody can say, and it is *inconclusive*. More noise
widens the interval, so it can turn a pass into an inconclusive and never the reverse.

Several numbers are judged together. An alarm needs Holm's adjusted one-sided p-value within (1 - confidence) / 2, which
for one number is the interval rule itself; so a run of equal models raises any alarm with at most that probability. To
pass, every number must pass by itself, which needs no adjustment (Berger 1982).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from bench.paired import holm

Outcome = Literal["pass", "improved", "regressed", "inconclusive", "missing", "incomparable"]


class Evidence(NamedTuple):
    """A gain (positive: better) with its standard error; all in the metric's unit."""

    gain: float
    error: float
    n: int
    """Samples behind ``sampling``."""
    sampling: float
    """The part of ``error`` that more samples would shrink."""
    degrees: float = math.inf
    """Degrees of freedom of ``error``; infinite when the deviation between trainings is known or not needed."""
    identical: bool = False
    """Every sample has the same outcome in both: nothing is left to estimate."""


class Judgement(NamedTuple):
    outcome: Outcome
    low: float
    high: float
    p: float
    p_adjusted: float
    needed: int | None
    """Samples at which this evidence would decide; None when decided, or when no number would do."""


def judge(evidence: Sequence[Evidence], tolerances: Sequence[float], confidence: float = 0.95) -> list[Judgement]:
    """Judge the numbers of one gate together; ``tolerances`` in the same order and units, zero or more."""
    from scipy.stats import t

    tail = (1 - confidence) / 2
    p_values = [_p(e) for e in evidence]
    judged = []
    for e, tolerance, p, adjusted in zip(evidence, tolerances, p_values, holm(p_values), strict=True):
        reach = 0.0 if e.identical else float(t.ppf(1 - tail, e.degrees)) * e.error
        low, high = e.gain - reach, e.gain + reach
        outcome: Outcome
        if e.identical:
            outcome = "pass"
        elif adjusted <= tail and e.gain < -tolerance:
            outcome = "regressed"
        elif low > 0:
            outcome = "improved"
        elif low > -tolerance:
            outcome = "pass"
        else:
            outcome = "inconclusive"
        needed = None
        if outcome == "inconclusive":
            # What separates the estimate from the bound it has to clear, and the quantile it has to clear it by.
            clears_loss = e.gain < -tolerance
            gap = -e.gain if clears_loss else e.gain + tolerance
            needed = _needed(e, gap, tail / max(len(evidence), 1) if clears_loss else tail)
        judged.append(Judgement(outcome, low, high, p, adjusted, needed))
    return judged


def _p(e: Evidence) -> float:
    """One-sided p-value of "no loss"."""
    from scipy.stats import t

    if e.identical or (e.error == 0 and e.gain >= 0):
        return 1.0
    return 0.0 if e.error == 0 else float(t.cdf(e.gain / e.error, e.degrees))


def _needed(e: Evidence, gap: float, tail: float) -> int | None:
    """Samples at which ``gap`` would be ``quantile`` standard errors wide, the noise per sample staying as it is."""
    from scipy.stats import t

    quantile = float(t.ppf(1 - tail, e.degrees))
    room = (gap / quantile) ** 2 - max(e.error**2 - e.sampling**2, 0.0)
    if gap <= 0 or room <= 0 or e.sampling == 0:
        return None
    needed = math.ceil(e.n * e.sampling**2 / room)
    return max(needed, e.n + 1)


def between_trainings(
    sampling: float, reference: Sequence[float], candidates: int, declared: float | None
) -> tuple[float, float]:
    """(standard error, degrees of freedom) of a retrained encoder's difference from its baseline runs.

    SE^2 = sampling^2 + s^2 (1 / candidates + 1 / references); s declared, or the sample deviation of ``reference``.
    An estimated s sets the quantile by its own few degrees of freedom: Welch's and Satterthwaite's larger number would
    itself be estimated from those runs, and where they happen to lie close, a family of twelve alarms too often.
    """
    factor = 1 / candidates + 1 / len(reference)
    if declared is not None:
        return math.sqrt(sampling**2 + declared**2 * factor), math.inf
    variance = float(np.var(reference, ddof=1))
    return math.sqrt(sampling**2 + variance * factor), float(len(reference) - 1)


def power(
    n: int, drop: float, discordance: float, tolerance: float, together: int = 1, confidence: float = 0.95
) -> float:
    """Probability that a true ``drop`` in points is called a regression, on ``n`` paired samples.

    ``discordance``: share of samples that one of the two networks alone has right. ``together``: numbers gated at once,
    the others unchanged. Normal approximation; the gate's own, by simulation, is in its tests.
    """
    from scipy.stats import norm

    error = 100 * math.sqrt(max(discordance - (drop / 100) ** 2, 0.0) / n)
    reach = max(float(norm.ppf(1 - (1 - confidence) / 2 / together)) * error, tolerance)
    return float(norm.cdf((drop - reach) / error)) if error else float(drop > tolerance)
