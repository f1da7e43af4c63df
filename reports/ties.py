"""Which values of a column are best, which cannot be told from the best, and between which ranks each lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench import paired
from bench.stats import _z
from reports.pairing import difference_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bench.record import Measurement
    from reports.board import Cell, Model

    Outcomes = Callable[[str, Measurement], Mapping[str, np.ndarray] | None]

PAIRED_AT_MOST = 40
"""Paired tests per column; a column with more candidates for a tie keeps the unpaired answer for the rest."""

REPLICATES = 1_000
"""Resamples of a bootstrap behind a tie: a bound at 95 % needs no more, and a board has many columns."""


class Place(NamedTuple):
    """Where a value stands in its column."""

    bold: bool
    """Best, or not significantly worse than the best."""
    tied: bool
    """Bold without being the best."""
    first: int
    last: int
    """Rank lies between these: 1 plus the surely better ones, and the number of those not surely worse."""


def places(
    column: Mapping[Model, Cell], higher_is_better: bool, outcomes: Outcomes | None = None
) -> dict[Model, Place]:
    """The place of every model of one column.

    Differences are tested at 95 %: unpaired from the intervals, and against the best once more paired on the samples
    where ``outcomes`` (run, measurement) -> table gives them. Values without an interval tie with nothing but their
    equals.
    """
    models = list(column)
    sign = 1.0 if higher_is_better else -1.0
    values = sign * np.array([column[m].value for m in models])
    errors = np.array([_error(column[m]) for m in models])
    best = int(values.argmax())
    order = np.argsort(-values, kind="stable")
    tied = {best}
    tests = 0
    for index in order:
        gap = values[best] - values[index]
        if gap == 0:
            tied.add(int(index))
        elif gap <= _z(0.95) * np.hypot(errors[best], errors[index]):
            known = None
            if outcomes is not None and tests < PAIRED_AT_MOST:
                known = _paired(column[models[best]], column[models[index]], outcomes)
                tests += known is not None
            if known is None or known.low <= 0 <= known.high:
                tied.add(int(index))
    first, last = _ranks(values, errors)
    several = len(models) > 1
    return {
        model: Place(several and i in tied, i in tied and values[i] != values[best], int(first[i]), int(last[i]))
        for i, model in enumerate(models)
    }


def _error(cell: Cell) -> float:
    """Standard error: from the interval of one run, from the deviation between repeats."""
    if cell.interval is not None:
        return (cell.interval[1] - cell.interval[0]) / (2 * _z(cell.newest.confidence))
    return (cell.sd or 0.0) / np.sqrt(len(cell.runs)) if len(cell.runs) > 1 else 0.0


def _ranks(values: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, last = np.empty(len(values), int), np.empty(len(values), int)
    for i in range(len(values)):
        reach = _z(0.95) * np.hypot(errors, errors[i])
        first[i] = 1 + int((values - values[i] > reach).sum())
        last[i] = len(values) - int((values[i] - values > reach).sum())
    return first, last


def _paired(best: Cell, other: Cell, outcomes: Outcomes) -> paired.Difference | None:
    a, b = best.newest, other.newest
    if len(best.runs) > 1 or len(other.runs) > 1 or a.outcomes is None or b.outcomes is None:
        return None
    first, second = outcomes(best.runs[-1], a), outcomes(other.runs[-1], b)
    if first is None or second is None:
        return None
    if "label" in first and "label" in second and not np.array_equal(first["label"], second["label"]):
        return None
    scale = 100.0 if a.unit == "%" else 1.0
    found, _, _ = difference_of(a.metric, first, second, (b.value - a.value) / scale, 0.95, REPLICATES)
    return found
