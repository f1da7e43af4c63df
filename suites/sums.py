"""Sums over samples, and the metrics that are functions of them: once for the samples, once for every resample."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from suites import fidelity


class Sums:
    """Sums of the columns, [R] each: of the samples themselves (R = 1) or of R resamples."""

    def __init__(self, names: list[str], n: int, parts: list[np.ndarray]) -> None:
        self.n = n
        self._column = {name: i for i, name in enumerate(names)}
        self._table, *rest = parts
        self._by_role = {"teacher": rest[:4], "student": rest[4:]}

    def __getitem__(self, name: str) -> np.ndarray:
        return np.asarray(self._table[:, self._column[name]])

    @property
    def predicted(self) -> tuple[np.ndarray, np.ndarray]:
        """Each network's shares of predicted classes, [R, C]."""
        return self._by_role["teacher"][3] / self.n, self._by_role["student"][3] / self.n

    def calibration(self, role: str) -> fidelity.Calibration:
        return fidelity.calibration(*self._by_role[role][:3])


Metric = Callable[[Sums], np.ndarray]
"""A metric [R] of sums over samples."""


def total(column: str) -> Metric:
    return lambda x: x[column]


def mean(column: str) -> Metric:
    return lambda x: x[column] / x.n


def gain(one: str, other: str) -> Metric:
    """Difference of two networks' accuracies."""
    return lambda x: (x[f"correct {one}"] - x[f"correct {other}"]) / x.n


def calibrated(role: str, which: int) -> Metric:
    """`fidelity.Calibration`'s entry ``which`` of a network."""
    return lambda x: x.calibration(role)[which]


def ratio(numerator: Metric, denominator: Metric) -> Metric:
    """NaN where the denominator is not positive: such a resample says nothing."""

    def of(x: Sums) -> np.ndarray:
        below = denominator(x)
        return np.where(below > 0, numerator(x) / np.where(below > 0, below, 1.0), np.nan)

    return of
