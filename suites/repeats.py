"""One number from several runs on the same test samples: mean, deviation, each run, and an interval of both causes.

Runs that differ by a draw of training samples, a hold-out or a start vary by that, and all of them by the test samples
that happened to be there. An interval over runs alone would be of no width where they agree, and would promise what
other test samples do not hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bench.stats import wilson

if TYPE_CHECKING:
    from bench.record import Measurement


def mean_of_runs(runs: np.ndarray, below: float = 0.0, above: float = 0.0) -> tuple[float, float, tuple[float, float]]:
    """(mean, standard deviation, 95 % interval) of two or more values in percent.

    Student's t over the runs and the reach ``below`` and ``above`` of the test samples, independent causes, combined by
    MOVER (Zou & Donner 2008).
    """
    from scipy.special import stdtrit

    mean, sd = float(runs.mean()), float(runs.std(ddof=1))
    half = float(stdtrit(len(runs) - 1, 0.975)) * sd / len(runs) ** 0.5
    return mean, sd, (max(0.0, mean - math.hypot(half, below)), min(100.0, mean + math.hypot(half, above)))


def reach_of_samples(hits: np.ndarray) -> tuple[float, float]:
    """How far below and above, in percent, the mean accuracy reaches for the test samples' sake.

    ``hits`` bool [R, n]: whether run r is right on sample i. Wilson's interval, with as many samples as tell of the
    mean over runs what independent ones would: n when the runs answer alike, at most R n when they have nothing in
    common.
    """
    count, n = hits.shape
    p = float(hits.mean())
    spread = float(hits.mean(axis=0).var())
    worth = float(n)
    if 0 < p < 1:
        worth = n * min(count, p * (1 - p) / spread) if spread > 0 else n * count
    low, high = wilson(p * worth, worth)
    return 100 * (p - low), 100 * (high - p)


def method_of(varied: str, samples: str | None) -> str:
    """What an interval of several runs covers, for a record: ``varied`` (draws, seeds) and the test samples."""
    return f"{varied} (t) and test samples ({samples}), mover" if samples else f"{varied} (t)"


def over_runs(runs: Sequence[Sequence[Measurement]], seeds: Sequence[int], varied: str) -> Iterator[Measurement]:
    """The measurements of one run with the values of all: ``runs`` hold the same ones in the same order.

    Their interval says how the mean varies with what the runs ``varied`` and with the test samples; for the latter
    every run's own interval is taken, which is a little wide, for runs that err on different samples tell more
    together. Per-sample outcomes belong to single runs and are left out; the details are those of the first run, with
    the values of all.
    """
    for same in zip(*runs, strict=True):
        values = [measurement.value for measurement in same]
        spans = [(m.value - m.interval[0], m.interval[1] - m.value) for m in same if m.interval is not None]
        below, above = np.sqrt(np.square(spans).mean(axis=0)) if spans else (0.0, 0.0)
        mean, sd, interval = mean_of_runs(np.array(values), float(below), float(above))
        method = method_of(varied, same[0].interval_method)
        yield same[0].model_copy(
            update={
                "value": mean,
                "sd": sd,
                # Runs that chose on test have no interval, and neither has their mean.
                **({"interval": interval, "interval_method": method} if spans else {}),
                "seeds": list(seeds),
                "details": {**same[0].details, "runs": values},
            }
        )
