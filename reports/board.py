"""The board: models in rows, comparable measurements in columns, made from the ledger with pandas."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from reports.comparable import Column, called, column_of
from reports.reference import Verdict, mark
from reports.wording import setting_label

if TYPE_CHECKING:
    from bench.card import Card
    from bench.record import Measurement, Record


class Model(NamedTuple):
    """A row: the label, the weights, and how they are read.

    The same weights behind another input transform, in another network (tensors can fill two that differ in their
    activation alone) or with another output taken for the feature are another row.
    """

    name: str
    weights: str
    transform: str
    architecture: str
    feature: str


@dataclass
class Cell:
    """One model in one column: one run, or the repeats of it."""

    measurements: list[Measurement]
    runs: list[str]
    verdict: Verdict | None = None
    """Of the newest run of a released checkpoint whose value was published."""

    @property
    def newest(self) -> Measurement:
        return self.measurements[-1]

    @property
    def value(self) -> float:
        """Mean over repeats."""
        return statistics.fmean(m.value for m in self.measurements)

    @property
    def sd(self) -> float | None:
        """Sample deviation over repeats; what the measurement itself says when there is one run."""
        if len(self.measurements) == 1:
            return self.newest.sd
        return statistics.stdev(m.value for m in self.measurements)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of the number shown: a mean of repeats that differ has none."""
        return self.newest.interval if len({m.value for m in self.measurements}) == 1 else None

    @property
    def flags(self) -> list[str]:
        """What stands beside the number wherever it is shown."""
        said = []
        if any(m.selection == "best_on_test" for m in self.measurements):
            said.append("selected on test")
        if not all(m.verified for m in self.measurements):
            said.append("unverified")
        if self.verdict is not None:
            said.append(str(self.verdict))
        return said


@dataclass
class Head:
    """A column with its words."""

    column: Column
    title: str
    """``knn top1``."""
    subtitle: str
    """Protocol and setting, and what tells it from a column of the same title."""
    headline: bool


@dataclass
class Section:
    """One data set and split: its columns, and the models that have a number in any of them, best first."""

    dataset: str
    split: str
    fingerprint: str
    samples: int
    heads: list[Head]
    models: list[Model]


@dataclass
class Board:
    """``columns[column][model]`` is a cell; ``sections`` arrange them for reading."""

    cards: dict[Model, Card] = field(default_factory=dict)
    years: dict[Model, str] = field(default_factory=dict)
    records: dict[Model, list[Record]] = field(default_factory=dict)
    columns: dict[Column, dict[Model, Cell]] = field(default_factory=dict)
    sections: list[Section] = field(default_factory=list)

    @property
    def leading(self) -> list[Section]:
        """The sections with a headline; all of them where none has one. Forty corruptions of a set have none."""
        return [s for s in self.sections if any(head.headline for head in s.heads)] or self.sections

    @property
    def cells(self) -> dict[tuple[Model, Column], Cell]:
        return {(model, column): cell for column, cells in self.columns.items() for model, cell in cells.items()}


def assemble(records: Iterable[Record]) -> Board:
    """The board of ``records``, oldest first: a model's repeats in one cell, nothing incomparable in one column."""
    board = Board()
    labels: dict[Column, str] = {}
    headlines: set[Column] = set()
    for record in records:
        transform = record.model.transform.model_dump_json() if record.model.transform else ""
        card = record.model
        model = Model(record.name, card.weight_digest, transform, card.architecture, card.feature)
        board.cards[model], board.years[model] = record.model, record.created[:4]
        board.records.setdefault(model, []).append(record)
        for m in record.measurements:
            column = column_of(m, record.model)
            labels.setdefault(column, setting_label(m))
            if m.headline:
                headlines.add(column)
            cell = board.columns.setdefault(column, {}).setdefault(model, Cell([], []))
            cell.measurements.append(m)
            cell.runs.append(record.run)
            cell.verdict = mark(card, m)
    board.sections = list(_sections(board, labels, headlines))
    return board


def frame(board: Board) -> pd.DataFrame:
    """One row per cell: what the CSV holds, full precision."""
    rows = []
    for (model, column), cell in board.cells.items():
        card, interval = board.cards[model], cell.interval
        rows.append(
            {
                "model": model.name, "architecture": card.architecture, "parameters": card.parameters,
                "weights": card.weight_digest, **column._asdict(),
                "headline": any(m.headline for m in cell.measurements), "value": cell.value,
                "low": interval[0] if interval else None, "high": interval[1] if interval else None,
                "confidence": cell.newest.confidence, "n": cell.newest.n, "runs": len(cell.runs), "sd": cell.sd,
                "flags": "; ".join(cell.flags), "records": " ".join(cell.runs),
            }
        )  # fmt: skip
    table = pd.DataFrame(rows)
    return table.sort_values(["dataset", "split", "suite", "metric", "settings", "model"]) if rows else table


def _sections(board: Board, labels: dict[Column, str], headlines: set[Column]) -> Iterable[Section]:
    if not board.columns:
        return
    long = pd.DataFrame(
        [
            (model, column, column.dataset, column.split, column.fingerprint, cell.value, cell.newest.n)
            for (model, column), cell in board.cells.items()
        ],
        columns=["model", "column", "dataset", "split", "fingerprint", "value", "n"],
    )
    for (dataset, split, fingerprint), part in long.groupby(["dataset", "split", "fingerprint"]):
        # First what most models have: a table that begins with columns of one model shows little of the others.
        count = {c: len(board.columns[c]) for c in set(part["column"])}
        columns = sorted(count, key=lambda c: (c not in headlines, -count[c], c.suite, c.protocol, c))
        values = {(model, column): value for model, column, value in part[["model", "column", "value"]].to_numpy()}
        models = _best_first(list(dict.fromkeys(part["model"])), columns, values)
        alike: dict[tuple[str, ...], list[Column]] = {}
        for c in columns:
            alike.setdefault((c.suite, c.metric, c.protocol, labels[c]), []).append(c)
        heads = [
            Head(c, f"{c.suite} {c.metric}", subtitle(c, apart, label), c in headlines)
            for (*_, label), among in alike.items()
            for apart in [_apart(among)]
            for c in among
        ]
        place = {column: index for index, column in enumerate(columns)}
        heads.sort(key=lambda head: place[head.column])
        yield Section(str(dataset), str(split), str(fingerprint), int(part["n"].max()), heads, models)


def _apart(columns: Sequence[Column]) -> set[str]:
    """The fields in which any two of ``columns`` differ, as people call them."""
    return {called(field) for field in Column._fields if len({getattr(c, field) for c in columns}) > 1}


def subtitle(column: Column, apart: Collection[str], label: str) -> str:
    """Protocol and setting; and, of the fields ``apart`` in which columns of the same two differ, this one's."""
    parts = [column.protocol, label] if label else [column.protocol]
    told = {
        "engine": column.engine,
        "precision": column.precision,
        "selection rule": f"selection {column.selection}",
        "training data": f"learned from {column.learned_from[:19]}",
        "feature": f"feature {column.feature}",
        "transform": f"transform {column.transform}",
        "settings": column.settings,
    }
    return ", ".join([*parts, *(text for name, text in told.items() if name in apart)])


def _best_first(
    models: list[Model], columns: Sequence[Column], values: dict[tuple[Model, Column], float]
) -> list[Model]:
    """By the first column, best first; models without a number there follow, by the next column, and so on."""

    def rank(model: Model) -> tuple[float, ...]:
        signed = []
        for column in columns:
            value = values.get((model, column))
            signed.append(float("inf") if value is None else -value if column.direction == "higher" else value)
        return tuple(signed)

    return sorted(models, key=lambda model: (rank(model), model))
