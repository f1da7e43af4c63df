"""Scores of belonging to the training data (larger: more inside), and how well they part inside from outside."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

Blocks = Callable[[], Iterable[tuple[int, np.ndarray]]]
"""Gives (first row, float32 [n, D]) in order, each time it is called."""


class Gaussians:
    """One Gaussian a class with a shared covariance (Lee et al. 2018), fitted in float64 by two passes."""

    def __init__(self, blocks: Blocks, y: np.ndarray, classes: int, width: int) -> None:
        """``y`` int64 [N] in 0..classes-1, each of them present."""
        means = np.zeros((classes, width))
        for start, block in blocks():
            np.add.at(means, y[start : start + len(block)], block.astype(np.float64))
        means /= np.bincount(y, minlength=classes)[:, None]
        covariance = np.zeros((width, width))
        for start, block in blocks():
            centred = block.astype(np.float64) - means[y[start : start + len(block)]]
            covariance += centred.T @ centred
        covariance /= len(y)
        values, vectors = np.linalg.eigh(covariance)
        # Directions without variance say nothing of a distance: the pseudo-inverse leaves them out.
        kept = values > values.max(initial=0.0) * width * np.finfo(np.float64).eps
        self.rank = int(kept.sum())
        self._whiten = vectors[:, kept] / np.sqrt(values[kept])
        # Measured from the overall mean: squares of large features would swallow the differences.
        self._centre = means.mean(axis=0)
        self._means = (means - self._centre) @ self._whiten

    def score(self, x: np.ndarray) -> np.ndarray:
        """float64 [N]: minus the squared Mahalanobis distance to the nearest class mean."""
        z = (x.astype(np.float64) - self._centre) @ self._whiten
        squared = (z**2).sum(axis=1)[:, None] - 2 * z @ self._means.T + (self._means**2).sum(axis=1)
        return -np.asarray(np.maximum(squared, 0).min(axis=1))


def energy(logits: np.ndarray, temperature: float) -> np.ndarray:
    """T log sum exp(l / T) of logits [N, C] (Liu et al. 2020): minus the energy."""
    from scipy.special import logsumexp

    return np.asarray(temperature * logsumexp(logits.astype(np.float64) / temperature, axis=1))


def largest_probability(logits: np.ndarray) -> np.ndarray:
    """Largest softmax probability of logits [N, C], as its logarithm (Hendrycks & Gimpel 2017): the same order."""
    from scipy.special import logsumexp

    wide = logits.astype(np.float64)
    return np.asarray(wide.max(axis=1) - logsumexp(wide, axis=1))


def auroc(inside: np.ndarray, outside: np.ndarray) -> tuple[float, float]:
    """(area, its variance): the share of pairs in which inside scores higher, ties half, and DeLong et al. 1988."""
    from scipy.stats import rankdata

    m, n = len(inside), len(outside)
    ranks = rankdata(np.concatenate([inside, outside]))
    # Placements: the share of the other side that each sample lies above, or below.
    above = (ranks[:m] - rankdata(inside)) / n
    below = 1 - (ranks[m:] - rankdata(outside)) / m
    variance = float(above.var(ddof=1)) / m + float(below.var(ddof=1)) / n
    return float(above.mean()), variance


def auroc_interval(area: float, variance: float, z: float) -> tuple[float, float] | None:
    """DeLong's interval on the logit scale, inside (0, 1); None where the variance vanishes."""
    if variance <= 0 or not 0 < area < 1:
        return None
    middle, half = math.log(area / (1 - area)), z * math.sqrt(variance) / (area * (1 - area))
    low, high = (1 / (1 + math.exp(-max(-700.0, min(700.0, middle + side * half)))) for side in (-1, 1))
    return low, high


def threshold(inside: np.ndarray) -> float:
    """The largest score that at least 95 % of ``inside`` reach."""
    m = len(inside)
    kept = -(-95 * m // 100)
    return float(np.partition(inside, m - kept)[m - kept])


def fpr95(inside: np.ndarray, outside: np.ndarray) -> float:
    """Share of ``outside`` taken for inside where 95 % of ``inside`` are."""
    return float((outside >= threshold(inside)).mean())


def fpr95_draws(inside: np.ndarray, outside: np.ndarray, replicates: int, seed: int) -> Iterator[float]:
    """`fpr95` of resamples of both sides, each drawn on its own."""
    rng = np.random.default_rng(seed)
    ordered = np.sort(outside)
    for _ in range(replicates):
        drawn = threshold(inside[rng.integers(0, len(inside), len(inside))])
        # Given the threshold, a resample of the outside passes it as often as a binomial draw says.
        share = 1 - np.searchsorted(ordered, drawn, side="left") / len(ordered)
        yield float(rng.binomial(len(ordered), share)) / len(ordered)
