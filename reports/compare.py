"""Two records beside each other, paired on the same samples wherever their outcomes allow it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from bench import paired
from bench.errors import BenchError
from bench.ledger import Ledger, read
from bench.record import Measurement, Record
from reports.comparable import Column, column_of, differences, differing, exact_column
from reports.pairing import Flips, Mover, difference_of, flips, movers
from reports.wording import setting_label


class Pair(BaseModel):
    """One measurement in both records, in its own unit; ``difference`` is second minus first."""

    suite: str
    protocol: str
    dataset: str
    split: str
    metric: str
    settings: dict[str, Any]
    label: str
    unit: str
    higher_is_better: bool
    headline: bool
    n: int
    first: float
    second: float
    difference: float
    interval: tuple[float, float] | None
    confidence: float
    p: float | None
    p_adjusted: float | None = None
    """Holm's, over all pairs of this comparison that have a p-value."""
    method: str
    """``paired``, ``paired bootstrap``, ``unpaired`` or ``none``."""
    note: str | None = None
    movers: list[Mover] = Field(default_factory=list)
    """Classes by change of accuracy, most lost first."""
    flips: Flips | None = None

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``no difference shown``, of the second; ``""`` when nothing can be said."""
        if self.interval is None:
            return "equal" if self.difference == 0 else ""
        if self.interval[0] <= 0 <= self.interval[1]:
            return "no difference shown"
        return "better" if (self.difference > 0) == self.higher_is_better else "worse"


class Incomparable(BaseModel):
    """A measurement that both records hold, but not in a form that may be subtracted."""

    suite: str
    metric: str
    label: str
    reasons: list[str]
    """The fields that differ, with both values."""


class Comparison(BaseModel):
    """What `bench compare` tells."""

    first: str
    second: str
    first_name: str
    second_name: str
    pairs: list[Pair]
    incomparable: list[Incomparable]
    only_first: list[str]
    only_second: list[str]

    def to_json(self) -> str:
        return self.model_dump_json(indent=1) + "\n"


def run(first: Path | str, second: Path | str, *, confidence: float = 0.95) -> Comparison:
    """Compare the records in two files; their outcomes are looked for beside them.

    Raises `BenchError` when a file is no record, or when nothing in the two is comparable.
    """
    paths = Path(first), Path(second)
    records = read(paths[0]), read(paths[1])
    ledgers = Ledger(paths[0].parent), Ledger(paths[1].parent)
    comparison = compare(records[0], records[1], ledgers, confidence=confidence)
    if not comparison.pairs:
        if comparison.incomparable:
            worst = comparison.incomparable[0]
            raise BenchError(
                f"{first} and {second} are not comparable: {worst.suite} {worst.metric} differs in "
                f"{'; '.join(worst.reasons)}"
            )
        raise BenchError(f"{first} and {second} are not comparable: they have no suite and metric in common")
    return comparison


def compare(
    first: Record, second: Record, ledgers: tuple[Ledger, Ledger] | None = None, *, confidence: float = 0.95
) -> Comparison:
    """The comparison of two records; without ``ledgers`` no outcomes are read and every interval is unpaired."""
    mine, theirs = _columns(first, second)
    tables = _Tables(first, second, ledgers)
    pairs = [_pair(m, theirs[column], tables, confidence) for column, m in mine.items() if column in theirs]
    left = [column for column in mine if column not in theirs]
    right = [column for column in theirs if column not in mine]
    incomparable = []
    for column in list(left):
        twins = [c for c in right if c[:2] == column[:2]]
        if twins:
            # Of the same suite and metric, the one that agrees in most is the one that was meant.
            twin = min(twins, key=lambda c: len(differing(column, c)))
            left.remove(column)
            right.remove(twin)
            reasons = differences(column, twin)
            label = setting_label(mine[column])
            incomparable.append(Incomparable(suite=column.suite, metric=column.metric, label=label, reasons=reasons))
    with_p = [pair for pair in pairs if pair.p is not None]
    for pair, adjusted in zip(with_p, paired.holm([pair.p or 0.0 for pair in with_p]), strict=True):
        pair.p_adjusted = adjusted
    return Comparison(
        first=first.run, second=second.run, first_name=first.name, second_name=second.name, pairs=pairs,
        incomparable=incomparable, only_first=[_named(mine[c]) for c in left],
        only_second=[_named(theirs[c]) for c in right],
    )  # fmt: skip


def _columns(first: Record, second: Record) -> tuple[dict[Column, Measurement], dict[Column, Measurement]]:
    """Measurements by what must agree: every field for one network, the model's own rule for two."""
    if first.model.weight_digest == second.model.weight_digest:
        return {exact_column(m): m for m in first.measurements}, {exact_column(m): m for m in second.measurements}
    return (
        {column_of(m, first.model): m for m in first.measurements},
        {column_of(m, second.model): m for m in second.measurements},
    )


class _Tables:
    """Outcome tables of both records, each read once."""

    def __init__(self, first: Record, second: Record, ledgers: tuple[Ledger, Ledger] | None) -> None:
        self._records = (first, second)
        self._ledgers = ledgers
        self._known: dict[tuple[int, str], dict[str, np.ndarray]] = {}

    def both(self, a: Measurement, b: Measurement) -> tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]] | str:
        """The two tables, or the sentence that says why there is nothing to pair."""
        if a.outcomes is None or b.outcomes is None:
            return "no per-sample outcomes for this metric"
        if self._ledgers is None:
            return "the per-sample outcomes are not at hand"
        try:
            first, second = self._read(0, a.outcomes), self._read(1, b.outcomes)
        except BenchError as error:
            return str(error)
        if "label" in first and "label" in second and not np.array_equal(first["label"], second["label"]):
            return "the outcomes are of other samples: their labels differ"
        return first, second

    def _read(self, which: int, path: str) -> dict[str, np.ndarray]:
        if (which, path) not in self._known:
            assert self._ledgers is not None
            self._known[which, path] = self._ledgers[which].outcomes(self._records[which], path)
        return self._known[which, path]


def _pair(a: Measurement, b: Measurement, tables: _Tables, confidence: float) -> Pair:
    pair = Pair(
        suite=a.suite, protocol=a.protocol, dataset=a.dataset, split=a.split, metric=a.metric, settings=a.settings,
        label=setting_label(a), unit=a.unit, higher_is_better=a.higher_is_better, headline=a.headline, n=a.n,
        first=a.value, second=b.value, difference=b.value - a.value, interval=None, confidence=confidence, p=None,
        method="none",
    )  # fmt: skip
    found = tables.both(a, b)
    note: str | None
    if isinstance(found, str):
        difference, method, note = None, "none", found
    else:
        scale = 100.0 if a.unit == "%" else 1.0
        difference, method, note = difference_of(a.metric, *found, pair.difference / scale, confidence)
        if method.startswith("paired") or a.metric in {"top1", "mean_per_class"}:
            pair.flips = flips(*found)
            pair.movers = movers(a.metric, *found, _class_names(a))
    if difference is None:
        difference = _unpaired(a, b, confidence)
        if difference is not None:
            method = "unpaired"
    if difference is not None and math.isfinite(difference.low):
        scale = 100.0 if a.unit == "%" else 1.0
        pair.interval = (scale * difference.low, scale * difference.high)
        pair.p, pair.method = difference.p, method
    pair.note = note
    return pair


def _unpaired(a: Measurement, b: Measurement, confidence: float) -> paired.Difference | None:
    if a.interval is None or b.interval is None or a.confidence != confidence or b.confidence != confidence:
        return None
    scale = 100.0 if a.unit == "%" else 1.0
    sides = [(m.value / scale, m.interval[0] / scale, m.interval[1] / scale) for m in (a, b) if m.interval]
    return paired.unpaired_difference(sides[0], sides[1], confidence)


def _class_names(m: Measurement) -> list[str] | dict[str, str]:
    """Names of the classes where the record says them: by label, or in the order that a suite numbers them in."""
    said = m.details.get("class_names")
    if isinstance(said, dict):
        return {label: str(name) for label, name in said.items()}
    found = m.details.get("per_class")
    return [str(name) for name in found] if isinstance(found, dict) else []


def _named(m: Measurement) -> str:
    return " ".join(filter(None, (m.protocol, m.dataset, m.split, m.metric, setting_label(m))))
