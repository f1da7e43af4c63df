"""One number from several runs that differ by their seed alone: mean, deviation, interval, and each run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bench.record import Measurement


def mean_of_runs(runs: np.ndarray) -> tuple[float, float, tuple[float, float]]:
    """(mean, standard deviation, 95 % interval of the mean by Student's t) of two or more values in percent."""
    from scipy.special import stdtrit

    mean, sd = float(runs.mean()), float(runs.std(ddof=1))
    half = float(stdtrit(len(runs) - 1, 0.975)) * sd / len(runs) ** 0.5
    return mean, sd, (max(0.0, mean - half), min(100.0, mean + half))


def over_runs(runs: Sequence[Sequence[Measurement]], seeds: Sequence[int], method: str) -> Iterator[Measurement]:
    """The measurements of one run with the values of all: ``runs`` hold the same ones in the same order.

    Their interval says how the mean over runs varies; ``method`` names it. Per-sample outcomes belong to single runs
    and are left out; the details are those of the first run, with the values of all.
    """
    for same in zip(*runs, strict=True):
        values = [measurement.value for measurement in same]
        mean, sd, interval = mean_of_runs(np.array(values))
        yield same[0].model_copy(
            update={
                "value": mean,
                "sd": sd,
                # Runs that chose on test have no interval, and neither has their mean.
                **({"interval": interval, "interval_method": method} if same[0].interval is not None else {}),
                "seeds": list(seeds),
                "details": {**same[0].details, "runs": values},
            }
        )
