"""What distillation gained: relative improvement over pairs of student and teacher, and the gap closed.

Relative improvement is DCD's (footnote 2): over pairs i, 100 (method_i - reference_i) / (reference_i - baseline_i),
with the reference plain KD and the baseline the student trained without a teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bench.errors import BenchError


class Improvement(NamedTuple):
    """Percent. The mean is what papers print; one pair with a small denominator can carry it, so read all three."""

    mean: float
    median: float
    pooled: float
    """100 sum of numerators / sum of denominators."""
    per_pair: tuple[float | None, ...]
    """One value per pair given, None for a refused one."""
    refused: dict[int, str]
    """Why a pair was left out, by its position."""


def relative_improvement(
    method: Sequence[float],
    reference: Sequence[float],
    baseline: Sequence[float],
    *,
    se: Sequence[float] | None = None,
) -> Improvement:
    """Relative improvement of ``method`` over ``reference`` (accuracies of any one unit, one per pair).

    A pair is refused when reference - baseline is not positive, or below twice its standard error ``se`` (one per
    pair, of the difference reference - baseline) where one is given: its ratio would be noise. Raises `BenchError`
    when the lists differ in length, hold a value that is not finite, or no pair is left.
    """
    columns = [np.asarray(column, dtype=np.float64) for column in (method, reference, baseline)]
    errors = np.zeros(len(columns[0])) if se is None else np.asarray(se, dtype=np.float64)
    lengths = [len(column) for column in (*columns, errors)]
    if len(set(lengths)) > 1:
        raise BenchError(f"relative improvement needs one value per pair in every list, not {lengths}")
    if not all(np.isfinite(column).all() for column in (*columns, errors)):
        raise BenchError("relative improvement needs finite accuracies: leave incomplete pairs out of every list")
    gain, base = columns[0] - columns[1], columns[1] - columns[2]
    refused: dict[int, str] = {}
    for i in range(len(base)):
        # Accuracies printed with two decimals: a difference below this is a zero with rounding noise.
        if base[i] <= 1e-9:
            refused[i] = f"the reference does not exceed the baseline ({columns[1][i]:.2f} against {columns[2][i]:.2f})"
        elif base[i] < 2 * errors[i]:
            refused[i] = f"the reference exceeds the baseline by {base[i]:.2f}, less than 2 standard errors"
    kept = np.array([i for i in range(len(base)) if i not in refused], dtype=int)
    if not len(kept):
        reason = next(iter(refused.values()), "none was given")
        raise BenchError(f"relative improvement has no pair to stand on: {reason}")
    ratios = 100 * gain[kept] / base[kept]
    per_pair: list[float | None] = [None] * len(base)
    for i, ratio in zip(kept, ratios, strict=True):
        per_pair[i] = float(ratio)
    return Improvement(
        mean=float(ratios.mean()),
        median=float(np.median(ratios)),
        pooled=float(100 * gain[kept].sum() / base[kept].sum()),
        per_pair=tuple(per_pair),
        refused=refused,
    )


def gap_closed(student: float, baseline: float, teacher: float) -> float | None:
    """Percent of the way from the baseline to the teacher; None when the teacher is not above the baseline."""
    if teacher - baseline <= 1e-9:
        return None
    return 100 * (student - baseline) / (teacher - baseline)
