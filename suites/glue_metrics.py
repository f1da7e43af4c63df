"""GLUE's metrics with bootstrap intervals over samples: accuracy, F1 of the positive class, Matthews', correlations.

All as shares or correlations (-1 to 1); the suite shows them times 100, as GLUE's tables do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bench.bootstrap import percentile, resampled_sums
from bench.errors import BenchError

REPLICATES = 1000


class Score(NamedTuple):
    """A metric's value, and what it is in every replicate of the bootstrap."""

    value: float
    drawn: np.ndarray

    def interval(self) -> tuple[float, float] | None:
        return percentile(self.drawn, self.value)


def mean_of(scores: list[Score]) -> Score:
    """The unweighted mean of metrics of the same samples; the replicates stay paired."""
    return Score(float(np.mean([s.value for s in scores])), np.mean([s.drawn for s in scores], axis=0))


def accuracy(counts: np.ndarray) -> np.ndarray:
    """[...] from the 2 x 2 counts [..., 4]: true and false positives, false and true negatives."""
    tp, fp, fn, tn = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    share: np.ndarray = (tp + tn) / (tp + fp + fn + tn)
    return share


def f1(counts: np.ndarray) -> np.ndarray:
    """F1 of the positive class; 0 where nothing positive is there or predicted, as scikit-learn has it."""
    tp, fp, fn, _ = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    below = 2 * tp + fp + fn
    value: np.ndarray = np.divide(2 * tp, below, out=np.zeros_like(tp), where=below > 0)
    return value


def matthews(counts: np.ndarray) -> np.ndarray:
    """Matthews' correlation; 0 where one class alone is there or predicted, as scikit-learn (and so GLUE) has it."""
    tp, fp, fn, tn = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    below = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    value: np.ndarray = np.divide(tp * tn - fp * fn, below, out=np.zeros_like(tp), where=below > 0)
    return value


BINARY: dict[str, Callable[[np.ndarray], np.ndarray]] = {"top1": accuracy, "f1": f1, "matthews": matthews}


def binary(names: tuple[str, ...], truth: np.ndarray, prediction: np.ndarray, seed: int) -> dict[str, Score]:
    """The metrics ``names`` of 0/1 answers ``prediction`` [N] to ``truth`` [N], positive being 1."""
    cells = np.stack(
        [truth & prediction, (1 - truth) & prediction, truth & (1 - prediction), (1 - truth) & (1 - prediction)], axis=1
    ).astype(np.float64)
    (drawn,) = resampled_sums([cells], replicates=REPLICATES, seed=seed)
    whole = cells.sum(axis=0)
    return {name: Score(float(BINARY[name](whole)), BINARY[name](drawn)) for name in names}


def correlations(truth: np.ndarray, prediction: np.ndarray, seed: int) -> dict[str, Score]:
    """Pearson's and Spearman's correlation (ties share their mean rank) of float [N] with float [N].

    Raises `BenchError` where one of the two is constant, for which neither is defined.
    """
    for what, values in (("scores of the data", truth), ("predictions", prediction)):
        if not np.isfinite(values).all() or np.ptp(values) == 0:
            raise BenchError(
                f"a correlation is not defined: all {what} are {values[0]:.4g}; train longer or at a lower lr"
            )
    from scipy.stats import rankdata

    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(truth), (REPLICATES, len(truth)))
    x, y = truth[rows], prediction[rows]
    ranks = (rankdata(truth), rankdata(prediction))
    return {
        "pearson": Score(float(_pearson(truth, prediction)), _pearson(x, y)),
        "spearman": Score(float(_pearson(*ranks)), _pearson(rankdata(x, axis=1), rankdata(y, axis=1))),
    }


def _pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Along the last axis; NaN where one is constant."""
    a, b = (v - v.mean(axis=-1, keepdims=True) for v in (x, y))
    below = np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
    above = (a * b).sum(axis=-1)
    value: np.ndarray = np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
    return value
