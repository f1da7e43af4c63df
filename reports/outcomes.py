"""How sure a difference between two sets of runs is, from their per-sample outcomes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bench import paired
from bench.errors import BenchError
from bench.record import Measurement, Record
from bench.stats import _z
from reports.baseline import Source
from reports.pairing import CLOSE, OTHER_METRIC, OTHER_SAMPLES, READ, RIGHT, is_summed, summed_difference

SAME_PREDICTIONS = 99.9
"""Percent of predictions that the same weights must share under changed code, before a note says otherwise."""


class Run(NamedTuple):
    """One measurement and the record it is of."""

    record: Record
    measurement: Measurement


Table = Mapping[str, np.ndarray]


def tables_of(runs: Sequence[Run], source: Source) -> list[Table] | str:
    """The outcome table of each run; or why there is none."""
    tables: list[Table] = []
    for run in runs:
        if run.measurement.outcomes is None:
            return "no per-sample outcomes were kept"
        try:
            tables.append(source.ledger.outcomes(run.record, run.measurement.outcomes))
        except BenchError as error:
            return str(error)
    return tables


def identical(metric: str, tables: Sequence[Table]) -> bool:
    """Whether every run has the same outcome of ``metric`` for every sample, whatever else its table holds."""
    first = tables[0]
    names = (READ | {metric}) & set(first)
    decisive = {metric} if metric in first else names & {RIGHT.get(metric, "correct"), "intersection", "hit"}
    return bool(decisive) and all(
        names == (READ | {metric}) & set(other) and all(np.array_equal(first[name], other[name]) for name in names)
        for other in tables[1:]
    )


def the_same(tables: Sequence[Table]) -> bool:
    """Whether all that every run kept of its samples is the same, whatever it means."""
    first = tables[0]
    return any(len(np.atleast_1d(array)) for array in first.values()) and all(
        set(first) == set(other) and all(np.array_equal(first[name], other[name]) for name in first)
        for other in tables[1:]
    )


def repeated(runs: Sequence[Run]) -> bool:
    """Whether the same weights gave the same number, to the last digit, in runs that kept no outcomes."""
    told = {
        (r.record.model.weight_digest, r.measurement.value, r.measurement.interval, r.measurement.outcomes)
        for r in runs
    }
    return len(told) == 1 and runs[0].measurement.outcomes is None


def sampling(metric: str, ours: list[Table], theirs: list[Table], difference: float) -> float | str:
    """Standard error, as a fraction, of the paired difference of the runs' means; or why the tables do not give one.

    ``difference`` is what the records say, as a fraction: tables that say otherwise belong to another metric.
    """
    tables = [*ours, *theirs]
    if metric not in tables[0] and any(map(is_summed, tables)):
        found = summed_difference(metric, ours[-1], theirs[-1])
        if isinstance(found, str):
            return found
        single = len(tables) == 2
        if single and not math.isclose(found.value, difference, rel_tol=1e-4, abs_tol=1e-6):
            return OTHER_METRIC
        return (found.high - found.low) / (2 * _z(0.95))
    name = metric if metric in tables[0] else RIGHT.get(metric, "correct")
    if not all(name in t for t in tables):
        return "the outcomes hold nothing that can be paired"
    right = [t[name].astype(float) for t in tables]
    if len({r.shape for r in right}) > 1 or right[0].ndim != 1:
        return OTHER_SAMPLES
    labels = [t["label"] for t in tables if "label" in t]
    if any(not np.array_equal(labels[0], other) for other in labels[1:]):
        return "the outcomes are of other samples: their labels differ"
    gains = np.mean(right[len(ours) :], axis=0) - np.mean(right[: len(ours)], axis=0)
    if name == metric:
        value, error = float(gains.mean()), float(gains.std(ddof=1)) / math.sqrt(len(gains)) if len(gains) > 1 else 0.0
    elif metric == "mean_per_class" and labels:
        value, error = _per_class(labels[0], gains)
    else:
        value, error = float(gains.mean()), paired.standard_error(gains)
    if not math.isclose(value, difference, rel_tol=1e-4, abs_tol=CLOSE):
        return OTHER_METRIC
    return error


def _per_class(labels: np.ndarray, gains: np.ndarray) -> tuple[float, float]:
    """Mean over classes of the classes' mean gains; its standard error when each class draws its own samples."""
    classes, index = np.unique(labels, return_inverse=True)
    n = np.bincount(index).astype(float)
    mean = np.bincount(index, weights=gains) / n
    variance = np.maximum(np.bincount(index, weights=gains**2) / n - mean**2, 0.0)
    # The same one gain and one loss as in paired.standard_error, so that no flip at all is not certainty.
    floor = 2 / (len(gains) + 2) ** 2
    return float(mean.mean()), math.sqrt(float((variance / n).sum()) / len(classes) ** 2 + floor)


def unpaired(a: Measurement, b: Measurement) -> float | None:
    """Standard error of the difference from the two intervals, as if the samples were others; in the metric's unit."""
    if a.interval is None or b.interval is None:
        return None
    return math.hypot(*((m.interval[1] - m.interval[0]) / (2 * _z(m.confidence)) for m in (a, b) if m.interval))


def churn(first: Table, second: Table) -> list[str]:
    """A note when fewer predictions are the same than the same weights should give."""
    if "prediction" not in first or "prediction" not in second:
        return []
    share = 100 * float((first["prediction"] == second["prediction"]).mean())
    return [f"only {share:.2f} % of the predictions are the same"] if share < SAME_PREDICTIONS else []
